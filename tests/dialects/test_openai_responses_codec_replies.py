"""Whole replies of `openai_responses` to and from the canonical form; what is written, its own meter and the SDK must take."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    Refusal,
    Reply,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
)
from tests.dialects.cases import Case, cases, name_of
from tests.dialects.responses_talk import (
    CITED,
    LOGPROBS,
    NAME,
    RESPONSES,
    asked,
    encoded,
    events_of,
    read,
    replied,
    told,
)


@pytest.mark.parametrize("case", [case for case in cases("reply.json", NAME) if "error" not in case.meta], ids=name_of)
def test_a_golden_reply_there_and_back(case: Case) -> None:
    reply = RESPONSES.read_reply(case.reply)
    assert "".join(part.text for part in reply.parts if isinstance(part, Text)) == case.meta["text"]
    again = RESPONSES.read_reply(RESPONSES.write_reply(reply, case.request(stream=False)))
    assert again == msgspec.structs.replace(reply, lost=())


@pytest.mark.parametrize("odd", ["null", "[]", '"x"', '{"content":[]}', "7", "true"])
def test_probabilities_that_are_no_list_are_none(odd: str) -> None:
    """They would be put inside a list as they came, and spoil the client's JSON."""
    part = '{"type":"output_text","text":"Hi","annotations":[],"logprobs":' + odd + "}"
    body = '{"id":"r","object":"response","output":[{"type":"message","content":[' + part + "]}]}"
    assert RESPONSES.read_reply(body.encode()).parts == (Text(text="Hi"),)
    delta = '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi","logprobs":' + odd + "}"
    item = '{"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}'
    events = ['{"type":"response.created","response":{"id":"r"}}', item, delta]
    found = RESPONSES.stream_decoder().feed("".join(f"data: {event}\n\n" for event in events).encode())
    assert found[1:] == [TextDelta(text="Hi")]


def test_the_parts_of_a_reply() -> None:
    item = '{"type":"reasoning", "id":"rs_1","summary":[{"type":"summary_text","text":"So."}],"encrypted_content":"gA"}'
    body = (
        '{"id":"resp_1","object":"response","created_at":7.5,"status":"completed","output":['
        + item
        + ',{"type":"message","content":[{"type":"output_text","text":"Hi","logprobs":'
        + bytes(LOGPROBS).decode()
        + ',"annotations":[{"type":"url_citation","url":"https://a.example","title":"A","start_index":0,"end_index":2}]}]},'
        '{"type":"web_search_call","id":"ws_1","action":{"type":"search"}},'
        '{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},'
        '{"type":"custom_tool_call","call_id":"c2","name":"g","input":"x","namespace":"n"}]}'
    )
    assert RESPONSES.read_reply(body.encode()) == Reply(
        id="resp_1",
        created=7,
        parts=(
            Thinking(text="So.", sealed=item, origin=NAME),
            Text(text="Hi", citations=(CITED,), logprobs=LOGPROBS),
            ToolCall(id="c1", name="f", arguments="{}"),
            ToolCall(id="c2", name="n__g", arguments="x", custom=True),
        ),
        stop="tool_use",
        lost=("reply.hosted_tools",),
    )


MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}
REFUSED = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}


@pytest.mark.parametrize(
    ("status", "reason", "output", "stop"),
    [
        ("completed", None, [MESSAGE], "end"),
        (None, None, [], "end"),
        ("completed", None, [CALL], "tool_use"),
        ("completed", None, [REFUSED], "refusal"),
        ("incomplete", "max_output_tokens", [MESSAGE], "length"),
        ("incomplete", "content_filter", [], "refusal"),
        ("incomplete", None, [], "length"),
        ("incomplete", "max_output_tokens", [CALL], "tool_use"),
        ("incomplete", "max_output_tokens", [{**CALL, "status": "incomplete"}], "length"),
    ],
)
def test_how_a_reply_ended(status: str | None, reason: str | None, output: list[Any], stop: str) -> None:
    body: dict[str, Any] = {"id": "resp_1", "status": status, "output": output, "incomplete_details": {"reason": reason}}
    assert RESPONSES.read_reply(json.dumps(body).encode()).stop == stop


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"output":7}', b'{"output":[7]}', b'{"output":[{"type":"function_call","name":"f"}]}']
)
def test_nonsense_is_no_reply(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        RESPONSES.read_reply(body)
    assert caught.value.code == "upstream_invalid"


def test_a_reply_tells_the_request_back() -> None:
    fields = {
        "instructions": "be kind",
        "temperature": 0.5,
        "max_output_tokens": 99,
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_object"}},
        "metadata": {"k": "v"},
        "reasoning": None,
    }
    body = replied(Text(text="Hi", citations=(CITED,)), request=asked(**fields))
    assert {name: body[name] for name in fields} == {**fields, "reasoning": {"effort": None, "summary": None}}
    assert (body["id"], body["object"], body["created_at"], body["model"]) == ("resp_01abc", "response", 7, "m")
    assert (body["status"], body["store"], body["previous_response_id"]) == ("completed", False, None)
    assert body["usage"] == {
        "input_tokens": 15,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 24,
    }
    (message,) = body["output"]
    assert message["id"].startswith("msg_")
    assert message["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    ]


def test_items_of_a_reply() -> None:
    thought = Thinking(text="So.", sealed="SIG", origin="anthropic_messages")
    hidden = Thinking(sealed="DATA", hidden=True, origin="anthropic_messages")
    crm = {"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "f"}]}
    body = replied(
        thought,
        hidden,
        Text(text="a"),
        Text(text="b"),
        ToolCall(id="c1", name="crm__f"),
        ToolCall(id="c2", name="g", arguments="x", custom=True),
        stop="tool_use",
        request=asked(tools=[crm, {"type": "custom", "name": "g"}]),
    )
    kinds = [item["type"] for item in body["output"]]
    assert kinds == ["reasoning", "reasoning", "message", "function_call", "custom_tool_call"]
    assert [item["id"].split("_")[0] for item in body["output"]] == ["rs", "rs", "msg", "fc", "ctc"]
    first, second, message, function, custom = body["output"]
    assert first["summary"] == [{"type": "summary_text", "text": "So."}]
    assert [part["text"] for part in message["content"]] == ["a", "b"]
    assert (function["name"], function["namespace"], function["arguments"]) == ("f", "crm", "{}")
    assert (function["call_id"], custom["call_id"], custom["input"]) == ("c1", "c2", "x")
    assert "namespace" not in custom
    assert not second["summary"]
    # and what the client sends back is what was thought
    assert read(input=[*body["output"], {"role": "user", "content": "on"}]).messages[0].parts[:2] == (thought, hidden)


@pytest.mark.parametrize(
    ("stop", "parts", "status", "reason"),
    [
        ("end", [Text(text="a")], "completed", None),
        ("stop_sequence", [Text(text="a")], "completed", None),
        ("pause", [Text(text="a")], "completed", None),
        ("length", [Text(text="a")], "incomplete", "max_output_tokens"),
        ("context", [Text(text="a")], "incomplete", "max_output_tokens"),
        ("refusal", [], "incomplete", "content_filter"),
        ("refusal", [Refusal(text="no")], "completed", None),
    ],
)
def test_the_status_of_a_reply(stop: Any, parts: list[Any], status: str, reason: str | None) -> None:
    body = replied(*parts, stop=stop)
    assert body["status"] == status
    assert body["incomplete_details"] == (None if reason is None else {"reason": reason})
    assert all(item["status"] == status for item in body["output"])
    events = told(encoded([Began(id="x"), *events_of(parts), Stopped(stop=stop)]))
    assert events[-1]["type"] == f"response.{status}"
    assert events[-1]["response"]["output"] == [
        {**item, "id": sent["id"]} for item, sent in zip(body["output"], events[-1]["response"]["output"], strict=True)
    ]


def test_thinking_of_this_dialect_is_given_as_it_came() -> None:
    item = '{"type":"reasoning","id":"rs_9","summary":[],"encrypted_content":"gA"}'
    assert replied(Thinking(sealed=item, hidden=True, origin=NAME))["output"] == [json.loads(item)]
