"""The codec of `anthropic_messages` on event streams: every golden read, every canonical stream written, none broken."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurixel.dialects import AnthropicMessages
from aurixel.dialects.carriers import carried
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    ChatCodec,
    Citation,
    Cited,
    Event,
    PartEnded,
    RefusalDelta,
    Stop,
    Stopped,
    TextDelta,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolDelta,
    ToolEnded,
)
from aurixel.values import Usage
from tests.dialects.cases import Case, cases, name_of, play

DIALECT = AnthropicMessages()
OWN = DIALECT.name
REQUEST = DIALECT.parse_request(b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}', {})
STREAMS = [case for case in cases("upstream.sse", OWN) if "error" not in case.meta]


def test_the_dialect_has_a_codec() -> None:
    assert isinstance(DIALECT, ChatCodec)


def decode(stream: bytes) -> list[Event]:
    """What the decoder makes of what the meter lets pass."""
    reader, decoder = DIALECT.stream_reader(REQUEST), DIALECT.stream_decoder()
    return decoder.feed(reader.feed(stream)) + decoder.feed(reader.close())


def encode(events: Iterable[Event], usage: Usage | None = None) -> bytes:
    encoder = DIALECT.stream_encoder(REQUEST)
    return encoder.feed(events) + encoder.end(usage or Usage({"input": 3, "output": 5}))


def told(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose name must be its type."""
    found = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def blocks(stream: bytes) -> list[dict[str, Any]]:
    """The blocks, put together strictly: one at a time, without gaps, none empty, all closed."""
    found: list[dict[str, Any]] = []
    open_block = False
    events = told(stream)
    assert [event["type"] for event in (events[0], *events[-2:])] == ["message_start", "message_delta", "message_stop"]
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not open_block
            assert event["index"] == len(found)
            found.append({**event["content_block"], "deltas": 0})
            open_block = True
            continue
        assert open_block
        assert event["index"] == len(found) - 1
        block = found[-1]
        if event["type"] == "content_block_stop":
            open_block = False
            assert block["deltas"] or block["type"] == "tool_use" or block["data"]
            continue
        assert event["type"] == "content_block_delta"
        block["deltas"] += 1
        kind, delta = event["delta"]["type"], event["delta"]
        if kind == "input_json_delta":
            assert delta["partial_json"]
            block["json"] = block.get("json", "") + delta["partial_json"]
        elif kind == "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])
        else:
            field = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}[kind]
            assert delta[field]
            block[field] += delta[field]
    assert not open_block
    return [{name: value for name, value in block.items() if name != "deltas"} for block in found]


def joined(events: Iterable[Event]) -> list[Event]:
    """Neighbouring deltas of the same thing as one."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(text=last.text + event.text)
        elif isinstance(event, ThinkingDelta) and isinstance(last, ThinkingDelta):
            out[-1] = ThinkingDelta(text=last.text + event.text, origin=event.origin)
        elif isinstance(event, ToolDelta) and isinstance(last, ToolDelta) and last.index == event.index:
            out[-1] = ToolDelta(index=event.index, arguments=last.arguments + event.arguments)
        else:
            out.append(event)
    return out


def golden(name: str) -> list[Event]:
    return decode(next(case for case in STREAMS if case.folder.name == name).upstream)


# --- reading ------------------------------------------------------------------------------------------------------------


def test_thinking_keeps_its_order_and_its_proofs() -> None:
    assert joined(golden("thinking")) == [
        Began(id="msg_1"),
        ThinkingDelta(text="Hmm, yes", origin=OWN),
        ThinkingSealed(sealed="EqQBCgIYAhIM+/==", origin=OWN),
        ThinkingSealed(sealed="EmwKAhgBEgy3va3pzix/LafPsn4a==", origin=OWN, hidden=True),
        TextDelta(text="Yes."),
        PartEnded(),
        Stopped(stop="end"),
    ]


def test_thinking_without_text_keeps_its_proof() -> None:
    assert golden("thinking_omitted")[1] == ThinkingSealed(sealed="Eq==", origin=OWN)


def test_calls_are_counted_apart_from_blocks_and_a_call_without_arguments_has_an_empty_object() -> None:
    assert joined(golden("tools_parallel")) == [
        Began(id="msg_1"),
        TextDelta(text="Looking"),
        PartEnded(),
        ToolBegan(index=0, id="toolu_a", name="weather"),
        ToolDelta(index=0, arguments='{"city": "Köln"}'),
        ToolEnded(index=0),
        ToolBegan(index=1, id="toolu_b", name="now"),
        ToolDelta(index=1, arguments="{}"),
        ToolEnded(index=1),
        Stopped(stop="tool_use"),
    ]


def test_what_the_upstream_searched_is_left_out_and_its_citations_stay() -> None:
    assert golden("web_search") == [
        Began(id="msg_1"),
        TextDelta(text="X."),
        Cited(citation=Citation(url="https://example.org/", title="T")),
        PartEnded(),
        Stopped(stop="end"),
    ]


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_a_golden_stream_comes_out_the_same_in_any_pieces(case: Case) -> None:
    whole = joined(decode(case.upstream))
    assert isinstance(whole[0], Began)
    assert isinstance(whole[-1], Stopped)
    reader, decoder = DIALECT.stream_reader(REQUEST), DIALECT.stream_decoder()
    found: list[Event] = []
    for at in range(len(case.upstream)):
        found += decoder.feed(reader.feed(case.upstream[at : at + 1]))
    found += decoder.feed(reader.close())
    assert joined(found) == whole


START = '{"type":"message_start","message":{"id":"a","usage":{"input_tokens":1,"output_tokens":1}}}'
TEXT = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
HELLO = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}'
STOP = '{"type":"content_block_stop","index":0}'
END = '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}'


def sse(*events: str) -> bytes:
    return "".join(f"event: {json.loads(event)['type']}\ndata: {event}\n\n" for event in events).encode()


@pytest.mark.parametrize(
    "events",
    [
        (START, TEXT, TEXT.replace('"index":0', '"index":1')),
        (START, TEXT, HELLO, STOP, HELLO),
        (START, TEXT, HELLO, STOP, STOP),
        (START, TEXT, HELLO, END),
        (START, TEXT, HELLO, STOP, END, END),
        (START, TEXT, HELLO, STOP, END, TEXT.replace('"index":0', '"index":1')),
        (START, TEXT, HELLO.replace("text_delta", "input_json_delta")),
        (START, TEXT, HELLO.replace("text_delta", "signature_delta")),
        (START, START),
        (START, TEXT.replace('"text","text":""', '"tool_use","id":"a"')),
        (START, TEXT.replace('"text","text":""', '"tool_use","name":"a"')),
        (START, TEXT.replace('"text","text":""', '"redacted_thinking"')),
        (TEXT,),
        (HELLO,),
        (START, TEXT, '{"type":"content_block_delta","index":0}'),
        (START, TEXT, '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}'),
    ],
)
def test_a_stream_out_of_order_is_refused(events: tuple[str, ...]) -> None:
    with pytest.raises(ProviderError) as caught:
        DIALECT.stream_decoder().feed(sse(*events))
    assert caught.value.code == "upstream_invalid"


def test_a_stream_that_does_not_say_why_it_ends_has_no_end() -> None:
    end = END.replace('"end_turn"', "null")
    assert [type(event) for event in DIALECT.stream_decoder().feed(sse(START, end))] == [Began]


@pytest.mark.parametrize("case", STREAMS, ids=name_of)
def test_no_damage_to_a_stream_is_anything_but_the_upstreams_fault(case: Case) -> None:
    dice = random.Random(case.folder.name)
    words = [b"0", b"1", b"null", b"{}", b"[]", b'"', b"text", b"tool_use", b"thinking", b"\n\n", b"index", b"delta", b"\xff"]
    for _ in range(300):
        stream = bytearray(case.upstream)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(stream))
            if dice.random() < 0.5:
                stream[at : at + dice.randrange(1, 30)] = dice.choice(words)
            else:
                start = dice.randrange(len(stream))
                stream[at:at] = stream[start : start + dice.randrange(1, 300)]
        decoder = DIALECT.stream_decoder()
        try:
            decoder.feed(bytes(stream))
        except ProviderError as error:
            assert error.code == "upstream_invalid"  # noqa: PT017 - most of the damage is harmless


# --- writing ------------------------------------------------------------------------------------------------------------


def test_the_start_comes_at_once_and_the_end_with_its_usage() -> None:
    encoder = DIALECT.stream_encoder(REQUEST)
    (start,) = told(encoder.feed([Began(id="chatcmpl-1")]))
    assert start["message"]["id"] == "msg_chatcmpl-1"
    assert start["message"]["model"] == "m"
    assert encoder.feed([Stopped(stop="length")]) == b""
    usage = Usage({"input": 10, "cache_read": 20, "cache_write_5m": 3, "cache_write_1h": 4, "output": 5, "reasoning": 6})
    end, stop = told(encoder.end(usage))
    assert end["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert end["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "output_tokens": 11,
        "output_tokens_details": {"thinking_tokens": 6},
    }
    assert stop == {"type": "message_stop"}


def test_nothing_empty_is_opened() -> None:
    events = [
        Began(id="a"),
        TextDelta(text=""),
        ThinkingDelta(text="", origin="openai_chat"),
        PartEnded(),
        ThinkingSealed(sealed=None, origin=OWN),
        ToolBegan(index=0, id="c", name="f"),
        ToolDelta(index=0, arguments=""),
        ToolEnded(index=0),
        Stopped(stop="end"),
    ]
    stream = encode(events)
    assert blocks(stream) == [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]
    assert told(stream)[-2]["delta"]["stop_reason"] == "tool_use"


def test_calls_that_overlap_are_written_one_after_the_other() -> None:
    events = [
        Began(id="a"),
        TextDelta(text="I look."),
        ToolBegan(index=0, id="c0", name="f"),
        ToolBegan(index=1, id="c1", name="g"),
        ToolDelta(index=1, arguments='{"b"'),
        ToolDelta(index=0, arguments='{"a"'),
        ToolBegan(index=2, id="c2", name="h"),
        ToolDelta(index=2, arguments="{}"),
        ToolEnded(index=2),
        ToolDelta(index=1, arguments=":2}"),
        ToolDelta(index=0, arguments=":1}"),
        Stopped(stop="tool_use"),
    ]
    assert blocks(encode(events)) == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c0", "name": "f", "input": {}, "json": '{"a":1}'},
        {"type": "tool_use", "id": "c1", "name": "g", "input": {}, "json": '{"b":2}'},
        {"type": "tool_use", "id": "c2", "name": "h", "input": {}, "json": "{}"},
    ]


def test_a_call_streams_once_those_before_it_are_whole() -> None:
    encoder = DIALECT.stream_encoder(REQUEST)
    encoder.feed([Began(id="a"), ToolBegan(index=0, id="c0", name="f"), ToolBegan(index=1, id="c1", name="g")])
    assert encoder.feed([ToolDelta(index=1, arguments="{")]) == b""
    events = told(encoder.feed([ToolDelta(index=0, arguments="{}"), ToolEnded(index=0)]))
    assert [event["type"].removeprefix("content_block_") for event in events] == ["delta", "stop", "start", "delta"]
    assert told(encoder.feed([ToolDelta(index=1, arguments="}")]))[0]["delta"]["partial_json"] == "}"


def test_text_within_a_call_waits_for_its_end() -> None:
    events = [
        Began(id="a"),
        ToolBegan(index=0, id="c0", name="f"),
        TextDelta(text="Looking"),
        ToolDelta(index=0, arguments="{}"),
        TextDelta(text="!"),
        Stopped(stop="tool_use"),
    ]
    assert blocks(encode(events)) == [
        {"type": "tool_use", "id": "c0", "name": "f", "input": {}, "json": "{}"},
        {"type": "text", "text": "Looking!"},
    ]


def test_free_text_of_a_call_is_one_string_of_an_object() -> None:
    events = [
        Began(id="a"),
        ToolBegan(index=0, id="c0", name="f", custom=True),
        ToolDelta(index=0, arguments='print("'),
        ToolDelta(index=0, arguments='x")'),
        Stopped(stop="tool_use"),
    ]
    assert json.loads(blocks(encode(events))[0]["json"]) == {"input": 'print("x")'}


def test_thinking_of_others_travels_in_a_carrier() -> None:
    events = [
        Began(id="a"),
        ThinkingDelta(text="Hm", origin="openai_chat"),
        TextDelta(text="A"),
        ThinkingDelta(text="Hm", origin="openai_responses"),
        ThinkingSealed(sealed='{"id":1}', origin="openai_responses"),
        ThinkingSealed(sealed="s", origin="openai_responses", hidden=True),
        TextDelta(text="B"),
        Stopped(stop="end"),
    ]
    assert blocks(encode(events)) == [
        {"type": "thinking", "thinking": "Hm", "signature": carried("openai_chat", None)},
        {"type": "text", "text": "A"},
        {"type": "thinking", "thinking": "Hm", "signature": carried("openai_responses", '{"id":1}')},
        {"type": "redacted_thinking", "data": carried("openai_responses", "s")},
        {"type": "text", "text": "B"},
    ]


def test_a_refusal_is_told_at_the_end() -> None:
    stream = encode([Began(id="a"), RefusalDelta(text="I "), RefusalDelta(text="won't"), Stopped(stop="end")])
    assert told(stream)[-2]["delta"] == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": "I won't"},
    }


@pytest.mark.parametrize(
    "events",
    [
        [TextDelta(text="a")],
        [Began(id="a"), Began(id="a")],
        [Began(id="a"), ToolDelta(index=0, arguments="{}")],
        [Began(id="a"), ToolEnded(index=0)],
        [Began(id="a"), ToolBegan(index=0, id="a", name="b"), ToolBegan(index=0, id="a", name="b")],
        [Began(id="a"), ToolBegan(index=0, id="a", name="b"), ToolEnded(index=0), ToolDelta(index=0, arguments="{}")],
        [Began(id="a"), Stopped(stop="end"), TextDelta(text="a")],
    ],
)
def test_events_out_of_order_are_refused(events: list[Event]) -> None:
    with pytest.raises(ProviderError):
        DIALECT.stream_encoder(REQUEST).feed(events)


def test_there_is_no_end_before_its_reason() -> None:
    encoder = DIALECT.stream_encoder(REQUEST)
    encoder.feed([Began(id="a")])
    with pytest.raises(ProviderError):
        encoder.end(Usage({}))


# --- both ---------------------------------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=8)
PIECES = st.lists(WORDS, min_size=1, max_size=3)


@st.composite
def parts(draw: st.DrawFn, calls: int) -> list[Event]:
    """The events of one part; `calls` went before."""
    kind = draw(st.sampled_from(["text", "cited", "thinking", "sealed", "hidden", "call"]))
    if kind in ("text", "cited"):
        events: list[Event] = [TextDelta(text=piece) for piece in draw(PIECES)]
        if kind == "cited":
            events.append(Cited(citation=Citation(url="https://example.org/", title=draw(st.text(max_size=3)))))
        return [*events, PartEnded()]
    if kind == "thinking":
        thoughts = [ThinkingDelta(text=piece, origin=OWN) for piece in draw(PIECES)]
        return [*thoughts, ThinkingSealed(sealed=draw(st.none() | WORDS), origin=OWN)]
    if kind == "call":
        return [
            ToolBegan(index=calls, id=draw(WORDS), name=draw(WORDS)),
            *(ToolDelta(index=calls, arguments=piece) for piece in draw(PIECES)),
            ToolEnded(index=calls),
        ]
    return [ThinkingSealed(sealed=draw(WORDS), origin=OWN, hidden=kind == "hidden")]


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = [Began(id="msg_" + draw(st.text(max_size=3)))]
    calls = 0
    for _ in range(draw(st.integers(0, 5))):
        more = draw(parts(calls))
        calls += isinstance(more[0], ToolBegan)
        events += more
    stops: tuple[Stop, ...] = ("end", "stop_sequence", "length", "context", "refusal", "pause")
    stop: Stop = draw(st.sampled_from(stops))
    if stop == "refusal" and draw(st.booleans()):
        events.append(RefusalDelta(text=draw(WORDS)))
    if calls:
        stop = "tool_use"
        events = [event for event in events if not isinstance(event, RefusalDelta)]
    return [*events, Stopped(stop=stop, stop_sequence="###" if stop == "stop_sequence" else None)]


@given(streams(), st.randoms())
def test_what_is_written_is_read_back_and_passes_the_meter_in_any_pieces(events: list[Event], dice: random.Random) -> None:
    usage = Usage({"input": 3, "output": 500})
    stream = encode(events, usage)
    blocks(stream)
    cuts = sorted(dice.sample(range(len(stream)), min(5, len(stream))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    played = play(DIALECT.stream_reader(REQUEST), [chunk for chunk in chunks if chunk])
    assert (played.error, played.out, played.usage) == ("", stream, usage)
    assert joined(decode(stream)) == joined(events)


@given(streams(), st.randoms())
def test_calls_in_any_order_come_out_whole(events: list[Event], dice: random.Random) -> None:
    """As chat completions interleave them: no ends, and deltas anywhere after their beginning."""
    shuffled = [event for event in events if not isinstance(event, ToolEnded)]
    for _ in range(40):
        at = dice.randrange(len(shuffled) - 1)
        one, two = shuffled[at], shuffled[at + 1]
        if isinstance(one, ToolDelta) and (
            isinstance(two, ToolBegan) or (isinstance(two, ToolDelta) and one.index != two.index)
        ):
            shuffled[at : at + 2] = [two, one]
    calls = [block for block in blocks(encode(shuffled)) if block["type"] == "tool_use"]
    began = [event for event in events if isinstance(event, ToolBegan)]
    assert [(call["id"], call["name"]) for call in calls] == [(event.id, event.name) for event in began]
    for event, call in zip(began, calls, strict=True):
        pieces = [more.arguments for more in shuffled if isinstance(more, ToolDelta) and more.index == event.index]
        assert call["json"] == "".join(pieces)


ORIGINS = st.sampled_from([OWN, "openai_chat"])
ANY_EVENT = st.one_of(
    st.builds(TextDelta, text=st.sampled_from(["", "a"])),
    st.builds(ThinkingDelta, text=st.sampled_from(["", "a"]), origin=st.sampled_from([OWN, "openai_chat"])),
    st.builds(
        ThinkingSealed,
        sealed=st.sampled_from([None, "", "s"]),
        origin=st.sampled_from([OWN, "openai_chat"]),
        hidden=st.booleans(),
    ),
    st.builds(ToolBegan, index=st.integers(0, 2), id=st.just("c"), name=st.just("f"), custom=st.booleans()),
    st.builds(ToolDelta, index=st.integers(0, 2), arguments=st.sampled_from(["", "{}"])),
    st.builds(ToolEnded, index=st.integers(0, 2)),
    st.builds(RefusalDelta, text=st.just("No")),
    st.just(Cited(citation=Citation(url="https://example.org/"))),
    st.just(PartEnded()),
)


@given(st.lists(ANY_EVENT, max_size=12))
@example([ThinkingDelta(text="a", origin="openai_chat"), ThinkingSealed(sealed=None, origin="anthropic_messages")])
def test_whatever_comes_what_is_written_is_whole_or_nothing(events: list[Event]) -> None:
    try:
        stream = encode([Began(id="a"), *events, Stopped(stop="end")])
    except ProviderError as error:
        assert error.code == "upstream_invalid"  # noqa: PT017 - most of it makes sense
        return
    blocks(stream)
    assert isinstance(decode(stream)[-1], Stopped)


def test_canonical_events_print_nothing() -> None:
    assert "secret" not in repr(
        decode(sse(START, TEXT, HELLO.replace("Hello", "secret"), STOP, END, '{"type":"message_stop"}'))
    )
