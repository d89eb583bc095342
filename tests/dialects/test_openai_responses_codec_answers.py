"""Any answer said in `openai_responses` and read again is the same, whole or streamed; a spoilt one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aurixel.dialects.sse import EventSplitter
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    Refusal,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
)
from aurixel.testing.answers import openai_responses_events, openai_responses_usage
from tests.dialects.cases import Case, play
from tests.dialects.responses_talk import (
    GOOD,
    PARTS,
    RESPONSES,
    USAGE,
    asked,
    decoded,
    encoded,
    events_of,
    joined,
    read,
    replied,
    sdk_reads,
    told,
)


@settings(deadline=None)
@given(parts=st.lists(PARTS, max_size=6), cut=st.booleans())
def test_any_answer_there_and_back(parts: list[Any], cut: bool) -> None:
    called = any(isinstance(part, ToolCall) for part in parts)
    refused = any(isinstance(part, Refusal) for part in parts)
    stop: Any = "tool_use" if called else "length" if cut else "refusal" if refused else "end"
    body = replied(*parts, stop=stop)
    again = RESPONSES.read_reply(json.dumps(body).encode())
    assert again.stop == stop
    assert _plain(again.parts) == _plain(parts)
    # a client that says it again has said the same, thinking and all
    back = read(input=[*body["output"], {"role": "user", "content": "on"}]).messages
    assert [part for part in back[0].parts if isinstance(part, Thinking)] == [
        part for part in parts if isinstance(part, Thinking)
    ]

    events = [Began(id="x", created=7), *events_of(parts), Stopped(stop=stop)]
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


@settings(deadline=None)
@given(parts=st.lists(PARTS, max_size=4), cuts=st.lists(st.integers(0, 5000), max_size=4))
def test_a_stream_passes_the_meter_however_it_is_cut(parts: list[Any], cuts: list[int]) -> None:
    stream = encoded([Began(id="x"), *events_of(parts), Stopped(stop="end")])
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


@settings(deadline=None)
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
