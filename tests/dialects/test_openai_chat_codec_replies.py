"""Whole answers of `openai_chat` to and from the canonical form, and thinking that goes through a client and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from aurixel.dialects import OpenAIChat
from aurixel.dialects.carriers import carried
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Citation,
    Losses,
    Part,
    Refusal,
    Reply,
    Stop,
    Text,
    Thinking,
    ToolCall,
)
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage
from tests.dialects.cases import INPUT_TOKENS, Case, cases, name_of

CHAT = OpenAIChat()
USAGE = Usage({"input": 1})


def asked(**fields: Any) -> ParsedRequest:
    return CHAT.parse_request(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode(), {})


def written(*parts: Part, stop: Stop = "end", **fields: Any) -> dict[str, Any]:
    body = CHAT.write_reply(Reply(id="r", created=5, parts=parts, stop=stop, usage=USAGE), asked(**fields))
    assert CHAT.reply_reader(asked(), INPUT_TOKENS).read(body).counts
    ChatCompletion.model_validate_json(body, strict=True)
    return json.loads(body)


def choice(*parts: Part, **rest: Any) -> Any:
    return written(*parts, **rest)["choices"][0]


def read(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> Reply:
    made = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **fields}
    return CHAT.read_reply(json.dumps({"id": "r", "created": 5, "choices": [made]}).encode())


# --- read ---------------------------------------------------------------------------------------------------------------


def test_an_answer_is_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    free = {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "text"}}
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2, "title": "t", "url": "https://e.com"}}
    message = {"content": "hi", "reasoning_content": "hm", "annotations": [cited, {"type": "file"}], "tool_calls": [call, free]}
    found = read(message, "tool_calls", logprobs={"content": [{"token": "hi"}], "refusal": None})
    assert found == Reply(
        id="r",
        created=5,
        parts=(
            Thinking(text="hm", origin="openai_chat", at=0),
            Text(
                text="hi",
                citations=(Citation(url="https://e.com", title="t", end=2),),
                logprobs=msgspec.Raw(b'[{"token": "hi"}]'),
            ),
            ToolCall(id="c1", name="f", arguments="{}"),
            ToolCall(id="c2", name="g", arguments="text", custom=True),
        ),
        stop="tool_use",
        lost=("reply.citations",),
    )


@pytest.mark.parametrize(
    ("finish", "calls", "stop"),
    [
        ("stop", False, "end"),
        (None, False, "end"),
        ("eos", False, "end"),
        ("tool_calls", False, "end"),
        ("length", False, "length"),
        ("content_filter", False, "refusal"),
        ("stop", True, "tool_use"),
        ("tool_calls", True, "tool_use"),
        ("function_call", True, "tool_use"),
        ("length", True, "length"),
        ("content_filter", True, "refusal"),
    ],
)
def test_how_an_answer_ended(finish: str | None, calls: bool, stop: str) -> None:
    call = {"id": "c", "function": {"name": "f"}}
    assert read({"content": "a", "tool_calls": [call] if calls else None}, finish).stop == stop


def test_an_empty_answer_has_no_parts() -> None:
    assert read({"content": ""}).parts == ()
    assert read({"content": None, "tool_calls": []}).parts == ()


def test_content_in_pieces() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    pieces = [thought, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read({"content": pieces}).parts == (Thinking(text="hm", origin="openai_chat", at=0), Text(text="ab"))


def test_calls_without_ids_get_some_that_no_other_answer_has() -> None:
    function = {"name": "f", "arguments": "{}"}
    calls = read({"tool_calls": [{"function": function}, {"id": "", "function": function}]}).parts
    assert [part.id for part in calls if isinstance(part, ToolCall)] == ["call_r_0", "call_r_1"]
    assert read({"function_call": function}, "function_call").parts == (ToolCall(id="call_r_0", name="f", arguments="{}"),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"message":{}},{"message":{}}]}',
        b'{"choices":[{"message":{"content":1}}]}',
        b'{"choices":[{"message":{"tool_calls":[{"id":"c"}]}}]}',
        b'{"choices":[{"message":{"content":"a"},"finish_reason":"error"}]}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        CHAT.read_reply(body)
    assert caught.value.code == "upstream_invalid"


PASSED = [case for case in cases("reply.json", "openai_chat") if "error" not in case.meta]


@pytest.mark.parametrize("case", PASSED, ids=name_of)
def test_what_the_meter_lets_pass_is_read(case: Case) -> None:
    found = CHAT.read_reply(case.reply)
    assert all(part.text for part in found.parts if isinstance(part, Text | Thinking | Refusal))
    if "text" in case.meta:
        assert "".join([part.text for part in found.parts if isinstance(part, Text)]) == case.meta["text"]
    else:
        assert found.parts


# --- written ------------------------------------------------------------------------------------------------------------


def test_an_answer_is_written() -> None:
    cited = Text(
        text="two", citations=(Citation(url="https://e.com", title="t", start=0, end=3), Citation(url="https://f.com"))
    )
    found = written(Text(text="one "), cited, ToolCall(id="c", name="f"), stop="tool_use")
    assert found == {
        "id": "r",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "one two",
                    "refusal": None,
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {"start_index": 4, "end_index": 7, "title": "t", "url": "https://e.com"},
                        },
                        {
                            "type": "url_citation",
                            "url_citation": {"start_index": 0, "end_index": 0, "title": "", "url": "https://f.com"},
                        },
                    ],
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 0,
            "total_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    }


STOPS: list[tuple[Stop, str]] = [
    ("end", "stop"),
    ("stop_sequence", "stop"),
    ("pause", "stop"),
    ("length", "length"),
    ("context", "length"),
    ("refusal", "content_filter"),
]


@pytest.mark.parametrize(("stop", "finish"), STOPS)
def test_how_an_answer_is_said_to_have_ended(stop: Stop, finish: str) -> None:
    assert choice(Text(text="a"), stop=stop)["finish_reason"] == finish


def test_a_call_asks_for_its_result_whatever_the_upstream_said() -> None:
    assert choice(ToolCall(id="c", name="f"), stop="end")["finish_reason"] == "tool_calls"
    assert choice(ToolCall(id="c", name="f"), stop="length")["finish_reason"] == "length"


def test_content_is_null_only_beside_something_else() -> None:
    assert choice()["message"]["content"] == ""
    assert choice(ToolCall(id="c", name="f"))["message"]["content"] is None
    assert choice(Refusal(text="no"), stop="refusal")["message"] == {"role": "assistant", "content": None, "refusal": "no"}


def test_logprobs_of_several_texts_are_one_list() -> None:
    tokens = [{"token": token, "logprob": -0.5, "bytes": [97], "top_logprobs": []} for token in "ab"]
    one, two = (msgspec.Raw(json.dumps([token]).encode()) for token in tokens)
    none = msgspec.Raw(b"[ ]")
    found = choice(Text(text="a", logprobs=one), Text(text="", logprobs=none), Text(text="b", logprobs=two))
    assert found["logprobs"] == {"content": tokens, "refusal": None}


def test_a_client_that_knows_functions_only() -> None:
    functions = [{"name": "f"}]
    found = choice(ToolCall(id="c", name="f", arguments="{}"), stop="tool_use", functions=functions)
    assert found["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in found["message"]
    assert found["finish_reason"] == "function_call"


def test_an_answer_without_an_id_gets_one() -> None:
    body = json.loads(CHAT.write_reply(Reply(id="", parts=(), stop="end"), asked()))
    assert body["id"].startswith("chatcmpl-")
    assert "usage" not in body


COUNTS = st.dictionaries(
    st.sampled_from(
        ["input", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio", "input_image", "output", "reasoning"]
    ),
    st.integers(1, 10**8),
)


@given(COUNTS)
def test_usage_adds_up_and_is_metered_the_same(counts: dict[str, int]) -> None:
    body = CHAT.write_reply(Reply(id="r", parts=(), stop="end", usage=Usage(counts)), asked())
    usage = json.loads(body)["usage"]
    assert usage["total_tokens"] == sum(counts.values())
    # Only the lifetime of what was cached has no word here.
    short = {**counts, "cache_write_5m": counts.get("cache_write_5m", 0) + counts.get("cache_write_1h", 0), "cache_write_1h": 0}
    assert CHAT.reply_reader(asked(), INPUT_TOKENS).read(body).counts == {name: count for name, count in short.items() if count}


# --- there and back -----------------------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=12)
CALLS = st.one_of(
    st.builds(ToolCall, id=WORDS, name=WORDS, arguments=WORDS),
    st.builds(ToolCall, id=WORDS, name=WORDS, arguments=st.text(max_size=9), custom=st.just(True)),
)
CITATIONS = st.builds(Citation, url=WORDS, title=st.text(max_size=5), start=st.integers(0, 5), end=st.integers(6, 9))


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Those that an upstream of this dialect can send."""
    parts: list[Part] = []
    if draw(st.booleans()):
        parts.append(Thinking(text=draw(WORDS), origin="openai_chat", at=0))
    if draw(st.booleans()):
        logprobs = draw(st.sampled_from([None, msgspec.Raw(b'[{"token":"a"}]')]))
        parts.append(Text(text=draw(WORDS), citations=tuple(draw(st.lists(CITATIONS, max_size=2))), logprobs=logprobs))
    if draw(st.booleans()):
        parts.append(Refusal(text=draw(WORDS)))
    calls = draw(st.lists(CALLS, max_size=3))
    stop = draw(st.sampled_from(["tool_use" if calls else "end", "length", "refusal"]))
    return Reply(id=draw(WORDS), created=draw(st.integers(0, 2**40)), parts=(*parts, *calls), stop=stop)


@given(replies())
def test_what_is_written_is_read_again(reply: Reply) -> None:
    assert CHAT.read_reply(CHAT.write_reply(reply, asked())) == reply


THOUGHTS: list[Part] = [
    Thinking(text="hm", sealed="SIG+/=", origin="anthropic_messages", at=0),
    Thinking(sealed="EMPTY", origin="anthropic_messages", at=1),
    Text(text="one "),
    Thinking(sealed="DATA", hidden=True, origin="anthropic_messages", at=3),
    Text(text="two"),
    Thinking(text="ha", sealed='{"id":"rs_1","type":"reasoning"}', origin="openai_responses", at=5),
    Thinking(text="no proof", origin="anthropic_messages", at=6),
    ToolCall(id="c", name="f", arguments="{}"),
]


def test_thinking_goes_through_a_client_byte_for_byte() -> None:
    message = choice(*THOUGHTS, stop="tool_use")["message"]
    assert message["content"] == "one two"
    assert message["reasoning_content"] == "hmhano proof"
    assert message["thinking_blocks"][0] == {"type": "thinking", "thinking": "hm", "signature": "SIG+/=", "index": 0}
    assert message["thinking_blocks"][3]["signature"] == carried("openai_responses", '{"id":"rs_1","type":"reasoning"}')
    again = CHAT.read(asked(messages=[{"role": "user", "content": "x"}, message]), Losses())
    assert list(again.messages[1].parts) == THOUGHTS
