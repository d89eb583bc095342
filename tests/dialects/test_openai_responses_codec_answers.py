"""Answers of `openai_responses`, whole and streamed, to and from the canonical form; what is written, the dialect's own
meter and the official SDK must take."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from aurixel.dialects.carriers import carried, unpacked
from aurixel.dialects.sse import Event as Sse
from aurixel.dialects.sse import EventSplitter
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    Citation,
    Cited,
    Event,
    PartEnded,
    Refusal,
    RefusalDelta,
    Reply,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolCall,
    ToolDelta,
    ToolEnded,
)
from aurixel.plugin.contracts import ParsedRequest
from aurixel.testing.answers import openai_responses_events, openai_responses_usage
from aurixel.values import Usage
from tests.dialects.cases import INPUT_TOKENS, Case, cases, name_of, play
from tests.dialects.test_openai_responses_codec_requests import RESPONSES, read

NAME = "openai_responses"
USAGE = Usage({"input": 10, "cache_read": 3, "cache_write_5m": 2, "output": 5, "reasoning": 4})
CITED = Citation(url="https://a.example", title="A", start=0, end=2)
LOGPROBS = msgspec.Raw(b'[{"token":"Hi","logprob":-0.5,"bytes":[72,105],"top_logprobs":[]}]')


def asked(**fields: Any) -> ParsedRequest:
    return RESPONSES.parse_request(json.dumps({"model": "m", "input": "hi", **fields}).encode(), {})


def written(*parts: Any, stop: Any = "end", request: ParsedRequest | None = None, usage: Usage = USAGE) -> dict[str, Any]:
    reply = Reply(id="msg_01abc", parts=parts, stop=stop, created=7, usage=usage)
    request = request or asked()
    body = RESPONSES.write_reply(reply, request)
    assert RESPONSES.reply_reader(request, INPUT_TOKENS).read(body).counts == {**usage.counts}
    Response.model_validate(json.loads(body))
    return cast(dict[str, Any], json.loads(body))


def encoded(events: Iterable[Event], request: ParsedRequest | None = None, usage: Usage = USAGE) -> bytes:
    encoder = RESPONSES.stream_encoder(request or asked())
    return b"".join([encoder.feed([event]) for event in events]) + encoder.end(usage)


def told(stream: bytes) -> list[dict[str, Any]]:
    found = [Sse(event) for event in EventSplitter().feed(stream)]
    events = [json.loads(event.data or b"") for event in found]
    assert [event["type"] for event in events] == [event.name.decode() for event in found]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


# --- whole replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in cases("reply.json", NAME) if "error" not in case.meta], ids=name_of)
def test_a_golden_reply_there_and_back(case: Case) -> None:
    reply = RESPONSES.read_reply(case.reply)
    assert "".join(part.text for part in reply.parts if isinstance(part, Text)) == case.meta["text"]
    again = RESPONSES.read_reply(RESPONSES.write_reply(reply, case.request(stream=False)))
    assert again == reply


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
    body = written(Text(text="Hi", citations=(CITED,)), request=asked(**fields))
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
    body = written(
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
    body = written(*parts, stop=stop)
    assert body["status"] == status
    assert body["incomplete_details"] == (None if reason is None else {"reason": reason})
    assert all(item["status"] == status for item in body["output"])
    events = told(encoded([Began(id="x"), *_events(parts), Stopped(stop=stop)]))
    assert events[-1]["type"] == f"response.{status}"
    assert events[-1]["response"]["output"] == [
        {**item, "id": sent["id"]} for item, sent in zip(body["output"], events[-1]["response"]["output"], strict=True)
    ]


def test_thinking_of_this_dialect_is_given_as_it_came() -> None:
    item = '{"type":"reasoning","id":"rs_9","summary":[],"encrypted_content":"gA"}'
    assert written(Thinking(sealed=item, hidden=True, origin=NAME))["output"] == [json.loads(item)]


# --- streams --------------------------------------------------------------------------------------------------------------


def _events(parts: Iterable[Any]) -> list[Event]:
    """The parts of a reply as a stream tells them."""
    events: list[Event] = []
    calls = 0
    for part in parts:
        if isinstance(part, Text):
            events.append(TextDelta(text=part.text, logprobs=part.logprobs))
            events += [Cited(citation=citation) for citation in part.citations]
            events.append(PartEnded())
        elif isinstance(part, Refusal):
            events += [RefusalDelta(text=part.text), PartEnded()]
        elif isinstance(part, Thinking):
            if not part.hidden and part.text:
                events.append(ThinkingDelta(text=part.text, origin=part.origin))
            hidden = part.hidden
            events.append(ThinkingSealed(sealed=part.sealed, origin=part.origin, hidden=hidden))
        elif isinstance(part, ToolCall):
            events += [
                ToolBegan(index=calls, id=part.id, name=part.name, custom=part.custom),
                ToolDelta(index=calls, arguments=part.arguments),
                ToolEnded(index=calls),
            ]
            calls += 1
    return events


def joined(events: Iterable[Event]) -> list[Event]:
    """Neighbouring deltas of one thing as one, and of a seal that it is there: each dialect seals in its own way."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(text=last.text + event.text, logprobs=last.logprobs)
        elif isinstance(event, RefusalDelta) and isinstance(last, RefusalDelta):
            out[-1] = RefusalDelta(text=last.text + event.text)
        elif isinstance(event, ThinkingDelta):
            if isinstance(last, ThinkingDelta):
                out[-1] = ThinkingDelta(text=last.text + event.text, origin="")
            else:
                out.append(ThinkingDelta(text=event.text, origin=""))
        elif isinstance(event, ToolDelta) and isinstance(last, ToolDelta) and last.index == event.index:
            out[-1] = ToolDelta(index=event.index, arguments=last.arguments + event.arguments)
        elif isinstance(event, ThinkingSealed):
            out.append(ThinkingSealed(sealed=None, origin="", hidden=event.hidden))
        elif isinstance(event, Began):
            out.append(Began(id="", created=event.created))
        elif not isinstance(event, ToolDelta) or event.arguments:
            out.append(event)
    return out


def decoded(stream: bytes) -> list[Event]:
    return RESPONSES.stream_decoder().feed(stream)


GOOD = [case for case in cases("upstream.sse", NAME) if "error" not in case.meta]


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_a_golden_stream_there_and_back(case: Case) -> None:
    request = case.request(stream=True)
    played = play(RESPONSES.stream_reader(request), [case.upstream])
    events = decoded(played.out)
    stream = encoded(events, request, played.estimate)
    assert joined(decoded(stream)) == joined(events)
    again = play(RESPONSES.stream_reader(request), [stream])
    searches = {"tool_calls.web_search": played.estimate.counts.get("tool_calls.web_search", 0)}
    assert (again.error, {**searches, **again.estimate.counts}) == ("", {**searches, **played.estimate.counts})
    final = told(stream)[-1]["response"]
    assert final["status"] == case.meta["status"]
    assert sdk_reads(stream) == final


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_a_stream_and_its_reply_come_to_the_same(case: Case) -> None:
    """What a stream decodes to is what its last event, read as a whole reply, does."""
    played = play(RESPONSES.stream_reader(case.request(stream=True)), [case.upstream])
    last = [event for event in EventSplitter().feed(played.out) if b'"type":"response.' in event][-1]
    whole = RESPONSES.read_reply(msgspec.json.encode(json.loads(Sse(last).data or b"")["response"]))
    wanted = [Began(id="", created=whole.created), *_events(whole.parts), Stopped(stop=whole.stop)]
    assert _in_order(joined(decoded(played.out))) == _in_order(joined(wanted))


def _in_order(events: list[Event]) -> list[Event]:
    """Calls may overlap in a stream."""
    found = (ToolBegan, ToolDelta, ToolEnded)
    calls = [event for event in events if isinstance(event, found)]
    calls.sort(key=lambda event: (event.index, found.index(type(event))))
    return [*(event for event in events if not isinstance(event, found)), *joined(calls)]


def sdk_reads(stream: bytes) -> dict[str, Any]:
    """The stream through the helper of the official SDK, which checks its order; gives its last response."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    last: dict[str, Any] = {}
    for event in told(stream):
        parsed = construct_type_unchecked(type_=cast(Any, ResponseStreamEvent), value=event)
        state.handle_event(parsed)
        last = event
    return cast(dict[str, Any], last["response"])


def test_the_order_of_a_stream() -> None:
    events = [
        Began(id="chatcmpl-9", created=7),
        ThinkingDelta(text="Hm", origin="anthropic_messages"),
        ThinkingSealed(sealed="SIG", origin="anthropic_messages"),
        TextDelta(text="H", logprobs=LOGPROBS),
        TextDelta(text="i"),
        Cited(citation=CITED),
        PartEnded(),
        TextDelta(text="!"),
        ToolBegan(index=0, id="c1", name="f"),
        ToolBegan(index=1, id="c2", name="g", custom=True),
        ToolDelta(index=0, arguments='{"a"'),
        ToolDelta(index=1, arguments="x"),
        ToolDelta(index=0, arguments=":1}"),
        ToolEnded(index=1),
        Stopped(stop="tool_use"),
    ]
    told_events = told(encoded(events))
    assert [event["type"].removeprefix("response.") for event in told_events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "custom_tool_call_input.delta",
        "function_call_arguments.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    final = told_events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert unpacked(final["output"][0]["encrypted_content"]) == (
        "anthropic_messages",
        '{"thinking":"Hm","signature":"SIG"}',
    )
    assert [part["text"] for part in final["output"][1]["content"]] == ["Hi", "!"]
    assert final["output"][1]["content"][0]["logprobs"] == json.loads(bytes(LOGPROBS))
    assert (final["output"][2]["arguments"], final["output"][3]["input"]) == ('{"a":1}', "x")
    assert told_events[0]["response"]["output"] == []
    assert (final["id"], final["created_at"], final["model"]) == ("resp_9", 7, "m")
    assert sdk_reads(encoded(events)) == final


def test_a_call_without_arguments_has_an_empty_object() -> None:
    for ended in ([], [ToolEnded(index=0)]):
        events = [Began(id="x"), ToolBegan(index=0, id="c", name="f"), *ended, Stopped(stop="tool_use")]
        assert told(encoded(events))[-1]["response"]["output"][0]["arguments"] == "{}"


def test_thinking_without_its_proof_goes_back_all_the_same() -> None:
    events: list[Event] = [Began(id="x"), ThinkingDelta(text="Hm", origin="openai_chat"), TextDelta(text="a")]
    item = told(encoded([*events, Stopped(stop="end")]))[-1]["response"]["output"][0]
    assert item["encrypted_content"] == carried("openai_chat", '{"thinking":"Hm"}')


def test_tools_of_namespaces_are_the_clients_again() -> None:
    crm = {"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "f"}]}
    for request in (asked(tools=[crm]), asked(input=[{"type": "additional_tools", "role": "developer", "tools": [crm]}])):
        began = ToolBegan(index=0, id="c", name="crm__f")
        events = told(encoded([Began(id="x"), began, Stopped(stop="tool_use")], request))
        items = [event["item"] for event in events if "item" in event]
        assert [(item["name"], item["namespace"]) for item in items] == [("f", "crm")] * 2


@pytest.mark.parametrize(
    "events",
    [
        [Began(id="x"), Began(id="x")],
        [ToolDelta(index=0, arguments="x")],
        [ToolEnded(index=0)],
        [ToolBegan(index=0, id="c", name="f"), ToolBegan(index=0, id="d", name="f")],
        [ToolBegan(index=0, id="c", name="f"), ToolEnded(index=0), ToolDelta(index=0, arguments="x")],
    ],
)
def test_events_out_of_order_are_not_written(events: list[Event]) -> None:
    with pytest.raises(ProviderError) as caught:
        RESPONSES.stream_encoder(asked()).feed(events)
    assert caught.value.code == "upstream_invalid"


def test_there_is_no_end_before_the_end() -> None:
    encoder = RESPONSES.stream_encoder(asked())
    encoder.feed([Began(id="x"), TextDelta(text="a")])
    with pytest.raises(ProviderError):
        encoder.end(USAGE)


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.output_text.delta", "output_index": 0, "delta": "x"}],
        [{"type": "response.created"}, {"type": "response.created"}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}],
        [{"type": "response.created"}, {"type": "response.output_item.added", "output_index": 0, "item": CALL | {"name": ""}}],
        [
            {"type": "response.created"},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
            {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "x"},
        ],
        [
            {"type": "response.created"},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
            {"type": "response.output_text.delta", "output_index": 0, "delta": {}},
        ],
        [{"type": "response.created", "response": 7}],
    ],
)
def test_what_breaks_the_order_is_no_stream(events: list[Any]) -> None:
    with pytest.raises(ProviderError) as caught:
        decoded(b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events))
    assert caught.value.code == "upstream_invalid"


# --- properties -----------------------------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=12)
PARTS = st.one_of(
    st.builds(Text, text=WORDS, citations=st.sampled_from([(), (CITED,)]), logprobs=st.sampled_from([None, LOGPROBS])),
    st.builds(Refusal, text=WORDS),
    st.builds(ToolCall, id=st.uuids().map(str), name=st.sampled_from(["f", "g"]), arguments=WORDS),
    st.builds(ToolCall, id=st.uuids().map(str), name=st.just("h"), arguments=st.text(max_size=5), custom=st.just(True)),
    st.builds(Thinking, text=WORDS, sealed=st.none() | WORDS, origin=st.just("anthropic_messages")),
    st.builds(Thinking, sealed=WORDS, hidden=st.just(True), origin=st.just("anthropic_messages")),
)


@given(parts=st.lists(PARTS, max_size=6), cut=st.booleans())
def test_any_answer_there_and_back(parts: list[Any], cut: bool) -> None:
    called = any(isinstance(part, ToolCall) for part in parts)
    refused = any(isinstance(part, Refusal) for part in parts)
    stop: Any = "tool_use" if called else "length" if cut else "refusal" if refused else "end"
    body = written(*parts, stop=stop)
    again = RESPONSES.read_reply(json.dumps(body).encode())
    assert again.stop == stop
    assert _plain(again.parts) == _plain(parts)
    # a client that says it again has said the same, thinking and all
    back = read(input=[*body["output"], {"role": "user", "content": "on"}]).messages
    assert [part for part in back[0].parts if isinstance(part, Thinking)] == [
        part for part in parts if isinstance(part, Thinking)
    ]

    events = [Began(id="x", created=7), *_events(parts), Stopped(stop=stop)]
    stream = encoded(events)
    assert joined(decoded(stream)) == joined(events)
    final = told(stream)[-1]["response"]
    assert sdk_reads(stream) == final
    assert _plain(RESPONSES.read_reply(json.dumps(final).encode()).parts) == _plain(parts)
    assert final["usage"] == body["usage"]


def _plain(parts: Iterable[Any]) -> list[Any]:
    """Without what an item of this dialect seals in its own way; JSON as it is meant, not as it is spaced."""
    out = []
    for part in parts:
        if isinstance(part, Thinking):
            out.append((part.text, part.hidden))
        elif isinstance(part, Text):
            out.append((part.text, part.citations, part.logprobs and json.loads(bytes(part.logprobs))))
        else:
            out.append(part)
    return out


@given(parts=st.lists(PARTS, max_size=4), cuts=st.lists(st.integers(0, 5000), max_size=4))
def test_a_stream_passes_the_meter_however_it_is_cut(parts: list[Any], cuts: list[int]) -> None:
    stream = encoded([Began(id="x"), *_events(parts), Stopped(stop="end")])
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    played = play(RESPONSES.stream_reader(asked(stream=True)), [stream[a:b] for a, b in pairwise(places)])
    assert (played.error, played.out) == ("", stream)
    assert played.usage == USAGE


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from([b"", b'"', b"}", b"[", b"0", b"null", b"\n"])), max_size=6
)


@settings(deadline=None)
@given(case=st.sampled_from(GOOD), mutations=MUTATIONS, length=st.integers(0, 30))
def test_a_spoilt_stream_is_decoded_or_refused(case: Case, mutations: list[tuple[int, bytes]], length: int) -> None:
    stream = case.upstream
    for place, piece in mutations:
        at = place % (len(stream) + 1)
        stream = stream[:at] + piece + stream[at + length :]
    try:
        decoded(stream)
    except ProviderError as error:
        assert error.code == "upstream_invalid"  # noqa: PT017 - it need not be raised


@given(swapped=st.tuples(st.integers(0, 12), st.integers(0, 12)), case=st.sampled_from(GOOD))
def test_events_in_any_order_are_decoded_or_refused(swapped: tuple[int, int], case: Case) -> None:
    events = [event for event in EventSplitter().feed(case.client) if event]
    first, second = (place % len(events) for place in swapped)
    events[first], events[second] = events[second], events[first]
    try:
        encoder = RESPONSES.stream_encoder(asked())
        encoder.feed(decoded(b"".join(events)))
    except ProviderError as error:
        assert error.code == "upstream_invalid"  # noqa: PT017 - it need not be raised


def test_what_the_scripted_upstream_says_can_be_decoded() -> None:
    events = decoded(b"".join(openai_responses_events("Two words", openai_responses_usage(1, 2))))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Two words"
