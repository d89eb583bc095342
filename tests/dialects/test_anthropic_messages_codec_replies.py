"""The codec of `anthropic_messages` on whole replies: every way an answer ends, and that nothing it can say is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects import AnthropicMessages
from aurixel.dialects.carriers import carried
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import Citation, Part, Refusal, Reply, Stop, Text, Thinking, ToolCall
from aurixel.values import Usage
from tests.dialects.cases import Case, cases, name_of

DIALECT = AnthropicMessages()
OWN = DIALECT.name
REQUEST = DIALECT.parse_request(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}', {})
REPLIES = [case for case in cases("reply.json", OWN) if "error" not in case.meta]


def read(*content: dict[str, Any], stop_reason: str | None = "end_turn", **fields: Any) -> Reply:
    body = {"id": "msg_1", "type": "message", "content": content, "stop_reason": stop_reason, **fields}
    return DIALECT.read_reply(json.dumps(body).encode())


def write(*parts: Part, stop: Stop = "end", usage: Usage | None = None, **fields: Any) -> dict[str, Any]:
    reply = Reply(id="chatcmpl-1", parts=parts, stop=stop, usage=usage or Usage({}), **fields)
    found: dict[str, Any] = json.loads(DIALECT.write_reply(reply, REQUEST))
    return found


@pytest.mark.parametrize("case", REPLIES, ids=name_of)
def test_a_golden_reply_is_read(case: Case) -> None:
    reply = DIALECT.read_reply(case.reply)
    shown = [block for block in json.loads(case.reply)["content"] if block["type"] in ("text", "thinking", "tool_use")]
    assert len(reply.parts) == len(shown)


def test_thinking_and_calls_are_read() -> None:
    case = next(case for case in REPLIES if case.folder.name == "reply_thinking_tools")
    assert DIALECT.read_reply(case.reply) == Reply(
        id="msg_1",
        parts=(
            Thinking(sealed="Eq==", origin=OWN, at=0),
            ToolCall(id="t", name="f", arguments='{"a":1}'),
            ToolCall(id="t2", name="g", arguments="{}"),
        ),
        stop="tool_use",
    )


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("end_turn", "end"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop_sequence"),
        ("tool_use", "tool_use"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context"),
    ],
)
def test_every_way_to_end(reason: str, stop: Stop) -> None:
    sequence = "###" if stop == "stop_sequence" else None
    assert read(stop_reason=reason, stop_sequence=sequence) == Reply(id="msg_1", parts=(), stop=stop, stop_sequence=sequence)
    assert write(stop=stop, stop_sequence=sequence)["stop_reason"] == reason
    assert write(stop=stop, stop_sequence=sequence)["stop_sequence"] == sequence


def test_an_answer_with_a_call_ends_with_it_unless_it_was_cut_short() -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    assert read(call).stop == "tool_use"
    assert read(call, stop_reason="max_tokens").stop == "length"
    assert write(ToolCall(id="a", name="f"))["stop_reason"] == "tool_use"
    assert write(ToolCall(id="a", name="f"), stop="length")["stop_reason"] == "max_tokens"


def test_words_of_a_refusal() -> None:
    details = {"type": "refusal", "category": None, "explanation": "I won't."}
    assert read(stop_reason="refusal", stop_details=details).parts == (Refusal(text="I won't."),)
    shown = write(Refusal(text="I won't."))
    assert (shown["content"], shown["stop_reason"], shown["stop_details"]) == ([], "refusal", details)


def test_citations() -> None:
    citation = {"type": "web_search_result_location", "url": "https://example.org", "title": "T", "cited_text": "c"}
    reply = read({"type": "text", "text": "x", "citations": [citation, {"type": "char_location"}]})
    assert reply.parts == (Text(text="x", citations=(Citation(url="https://example.org", title="T"),)),)
    shown = write(Text(text="A fact.", citations=(Citation(url="https://example.org", title="T", start=2, end=6),)))
    assert shown["content"][0]["citations"] == [
        {
            "type": "web_search_result_location",
            "url": "https://example.org",
            "title": "T",
            "encrypted_index": "",
            "cited_text": "fact",
        }
    ]


def test_nothing_empty_is_written() -> None:
    assert write(Text(text=""), Thinking(origin=OWN))["content"] == []


def test_thinking_of_others_travels_in_a_carrier() -> None:
    shown = write(
        Thinking(text="t", origin="openai_chat"),
        Thinking(text="t", sealed="{}", origin="openai_responses"),
        Thinking(sealed="{}", hidden=True, origin="openai_responses"),
    )
    assert shown["content"] == [
        {"type": "thinking", "thinking": "t", "signature": carried("openai_chat", None)},
        {"type": "thinking", "thinking": "t", "signature": carried("openai_responses", "{}")},
        {"type": "redacted_thinking", "data": carried("openai_responses", "{}")},
    ]


def test_arguments_are_an_object_whatever_the_upstream_wrote() -> None:
    calls = [
        ToolCall(id="a", name="f", arguments='{"a": 1}'),
        ToolCall(id="b", name="f"),
        ToolCall(id="c", name="f", arguments="text", custom=True),
        ToolCall(id="d", name="f", arguments='{"cut'),
    ]
    inputs = [block["input"] for block in write(*calls)["content"]]
    assert inputs == [{"a": 1}, {}, {"input": "text"}, {"_raw": '{"cut'}]


def test_usage_as_this_dialect_tells_it() -> None:
    usage = Usage({"input": 1, "input_image": 2, "cache_read": 4, "cache_write_1h": 8, "output": 16, "reasoning": 32})
    assert write(usage=usage)["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 8,
        "cache_read_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8},
        "output_tokens": 48,
        "output_tokens_details": {"thinking_tokens": 32},
    }


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"content":{}}',
        b'{"content":[{"type":"tool_use","id":"a"}],"stop_reason":"end_turn"}',
        b'{"content":[{"type":"redacted_thinking"}],"stop_reason":"end_turn"}',
        b'{"content":[{"type":"text","text":"a","citations":[7]}],"stop_reason":"end_turn"}',
        b'{"content":[{"type":"tool_use","id":"a","name":"b","input":[]}],"stop_reason":"end_turn"}',
        b'{"content":[]}',
    ],
)
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        DIALECT.read_reply(body)
    assert caught.value.code == "upstream_invalid"


WORDS = st.text(min_size=1, max_size=8)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    parts: list[Part] = []
    for kind in draw(st.lists(st.sampled_from(["text", "call", "thought", "hidden"]), max_size=5)):
        if kind == "text":
            citations = draw(st.sampled_from([(), (Citation(url="https://example.org/a", title="T"),)]))
            parts.append(Text(text=draw(WORDS), citations=citations))
        elif kind == "call":
            arguments = json.dumps(draw(st.dictionaries(WORDS, st.integers(), max_size=2)))
            parts.append(ToolCall(id=draw(WORDS), name=draw(WORDS), arguments=arguments))
        elif kind == "thought":
            parts.append(Thinking(text=draw(st.text(max_size=3)), sealed=draw(WORDS), origin=OWN, at=len(parts)))
        else:
            parts.append(Thinking(sealed=draw(WORDS), hidden=True, origin=OWN, at=len(parts)))
    stops: tuple[Stop, ...] = ("end", "length", "context", "refusal", "pause")
    stop: Stop = draw(st.sampled_from(stops))
    if any(isinstance(part, ToolCall) for part in parts):
        stop = "tool_use"
    elif stop == "refusal" and draw(st.booleans()):
        parts.append(Refusal(text=draw(WORDS)))
    return Reply(id=f"msg_{draw(st.text(max_size=3))}", parts=tuple(parts), stop=stop, usage=Usage({"input": 1, "output": 99}))


@given(replies())
def test_what_is_written_is_read_back_and_metered(reply: Reply) -> None:
    body = DIALECT.write_reply(reply, REQUEST)
    assert DIALECT.reply_reader(REQUEST, 50).read(body) == reply.usage
    found = DIALECT.read_reply(body)
    assert (found.id, found.parts, found.stop) == (reply.id, reply.parts, reply.stop)
