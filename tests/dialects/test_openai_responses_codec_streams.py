"""Streams of `openai_responses` to and from canonical events; what is written, its own meter and the SDK must take."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aurixel.dialects.carriers import carried, unpacked
from aurixel.dialects.sse import Event as Sse
from aurixel.dialects.sse import EventSplitter
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    Cited,
    Event,
    PartEnded,
    Stopped,
    TextDelta,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolDelta,
    ToolEnded,
)
from tests.dialects.cases import Case, name_of, play
from tests.dialects.responses_talk import (
    CITED,
    GOOD,
    LOGPROBS,
    RESPONSES,
    USAGE,
    asked,
    decoded,
    encoded,
    events_of,
    joined,
    sdk_reads,
    told,
)


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
    wanted = [Began(id="", created=whole.created), *events_of(whole.parts), Stopped(stop=whole.stop)]
    assert _in_order(joined(decoded(played.out))) == _in_order(joined(wanted))


def _in_order(events: list[Event]) -> list[Event]:
    """Calls may overlap in a stream."""
    found = (ToolBegan, ToolDelta, ToolEnded)
    calls = [event for event in events if isinstance(event, found)]
    calls.sort(key=lambda event: (event.index, found.index(type(event))))
    return [*(event for event in events if not isinstance(event, found)), *joined(calls)]


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
def test_events_out_of_order_are_not_replied(events: list[Event]) -> None:
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
        [
            {"type": "response.created"},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call"}},
        ],
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
