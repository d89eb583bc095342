"""Streams of `openai_chat` to and from canonical events: in any cut, through the dialect's own meter, and through the SDK."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects import OpenAIChat
from aurixel.dialects.translation import Translation
from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    Citation,
    Cited,
    Event,
    Losses,
    PartEnded,
    RefusalDelta,
    Stop,
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
from aurixel.plugin.contracts import ModelRules, ParsedRequest
from aurixel.values import Usage
from tests.dialects.cases import Case, cases, name_of, play
from tests.dialects.test_sdks import Canned, Handler

CHAT = OpenAIChat()
USAGE = Usage({"input": 3, "output": 4})
OTHERS = "anthropic_messages"
STREAMS = cases("upstream.sse", "openai_chat")


def asked(**fields: Any) -> ParsedRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, **fields}
    return CHAT.parse_request(json.dumps(body).encode(), {})


def encoded(*events: Event, **fields: Any) -> bytes:
    encoder = CHAT.stream_encoder(asked(**fields))
    return b"".join([encoder.feed([event]) for event in events]) + encoder.end(USAGE)


def chunks(stream: bytes) -> list[Any]:
    """The chunks of a stream, without its end."""
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\n\n")[:-2]]


def deltas(stream: bytes) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(stream) if chunk["choices"]]


def stream(*made: dict[str, Any], finish: str | None = "stop") -> bytes:
    """An upstream's stream of these deltas."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in made]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    bodies = [{"id": "r", "created": 5, "choices": [choice]} for choice in choices]
    return b"".join([b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies]) + b"data: [DONE]\n\n"


def decoded(*made: dict[str, Any], finish: str | None = "stop") -> list[Event]:
    found = CHAT.stream_decoder().feed(stream(*made, finish=finish))
    assert found[0] == Began(id="r", created=5)
    return found[1:]


def call(index: int | None, id: str | None = None, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    fields = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [{name: field for name, field in fields.items() if field is not None}]}


def summary(events: list[Event]) -> list[Any]:
    """What the events say, pieces put together; where calls overlap, each stands where it began."""
    said: list[Any] = []
    calls: dict[int, list[Any]] = {}
    for event in events:
        if isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
            kind = type(event).__name__
            if said and said[-1][0] == kind:
                said[-1][1] += event.text
            else:
                said.append([kind, event.text])
        elif isinstance(event, ToolBegan):
            said.append([event.id, event.name, event.custom, ""])
            calls[event.index] = said[-1]
        elif isinstance(event, ToolDelta):
            calls[event.index][3] += event.arguments
        elif not isinstance(event, ToolEnded | PartEnded):
            said.append([event])
    for made in calls.values():
        if not made[2]:
            made[3] = made[3] or "{}"
    return said


# --- decoded ------------------------------------------------------------------------------------------------------------


def test_an_answer_in_pieces() -> None:
    assert decoded({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}) == [
        TextDelta(text="a"),
        TextDelta(text="b"),
        Stopped(stop="end"),
    ]


def test_thinking_ends_where_something_else_begins() -> None:
    assert decoded({"reasoning_content": "h"}, {"reasoning": "m"}, {"content": "a"}) == [
        ThinkingDelta(text="h", origin="openai_chat"),
        ThinkingDelta(text="m", origin="openai_chat"),
        ThinkingSealed(sealed=None, origin="openai_chat"),
        TextDelta(text="a"),
        Stopped(stop="end"),
    ]
    assert decoded({"reasoning_content": "h"})[1:] == [
        ThinkingSealed(sealed=None, origin="openai_chat"),
        Stopped(stop="end"),
    ]


def test_calls_may_overlap() -> None:
    events = decoded(
        call(0, "a", "f", ""), call(1, "b", "g", "{"), call(0, arguments="{}"), call(1, arguments="}"), finish="stop"
    )
    assert events == [
        ToolBegan(index=0, id="a", name="f"),
        ToolBegan(index=1, id="b", name="g"),
        ToolDelta(index=1, arguments="{"),
        ToolDelta(index=0, arguments="{}"),
        ToolDelta(index=1, arguments="}"),
        Stopped(stop="tool_use"),
    ]


@pytest.mark.parametrize(
    "made",
    [
        [call(0, "a", "f", "{}"), call(0, "b", "g", "{}")],
        [call(None, "a", "f", "{"), call(None, arguments="}"), call(None, "b", "g", "{}")],
        [call(3, "a", "f", "{"), call(3, "a", arguments="}"), call(7, "b", "g", "{}")],
        [call(0, "a", "f", "{"), call(0, "a", "f", "}"), call(1, "b", "g", "{}")],
    ],
    ids=["one_index_for_all", "no_index", "gaps", "repeated_names"],
)
def test_calls_as_upstreams_number_them(made: list[dict[str, Any]]) -> None:
    assert summary(decoded(*made)) == [["a", "f", False, "{}"], ["b", "g", False, "{}"], [Stopped(stop="tool_use")]]


def test_calls_without_ids_get_some() -> None:
    events = decoded(call(0, None, "f", "{}"), call(1, "", "g", "{}"))
    assert [event.id for event in events if isinstance(event, ToolBegan)] == ["call_r_0", "call_r_1"]


def test_free_text_and_functions_of_old() -> None:
    free = {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "te"}}]}
    more = {"tool_calls": [{"index": 0, "custom": {"input": "xt"}}]}
    assert summary(decoded(free, more))[0] == ["a", "f", True, "text"]
    old = [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}]
    assert summary(decoded(*old, finish="function_call")) == [["call_r_0", "f", False, "{}"], [Stopped(stop="tool_use")]]


def test_citations_wait_for_their_text() -> None:
    cited = {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://e.com", "title": "t"}}]}
    found = Cited(citation=Citation(url="https://e.com", title="t"))
    assert decoded(cited, {"content": "a"}, cited)[:3] == [TextDelta(text="a"), found, found]


def test_refusals() -> None:
    assert decoded({"refusal": "no"}, finish="content_filter") == [RefusalDelta(text="no"), Stopped(stop="refusal")]


@pytest.mark.parametrize(
    "made",
    [
        [call(0, "a")],
        [call(0, arguments="{}")],
        [call(0, "a", "f"), call(1, arguments="{}")],
        [{"content": 5}],
        [{"tool_calls": {}}],
    ],
    ids=["nameless", "not_begun", "another", "content", "calls"],
)
def test_what_breaks_the_order_is_refused(made: list[dict[str, Any]]) -> None:
    with pytest.raises(ProviderError) as caught:
        decoded(*made)
    assert caught.value.code == "upstream_invalid"


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"more"}}]}\n\n',
        b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{}},{"index":1,"delta":{}}]}\n\n',
        b'data: {"choices":[{"index":0,"finish_reason":"stop","delta":{"tool_calls":[{"id":"a"}]}}]}\n\n',
    ],
    ids=["after_the_end", "choice", "choices", "call_after_the_end"],
)
def test_what_was_not_asked_for_is_refused(event: bytes) -> None:
    decoder = CHAT.stream_decoder()
    decoder.feed(stream({"content": "a"}))
    with pytest.raises(ProviderError) as caught:
        decoder.feed(event)
    assert caught.value.code == "upstream_invalid"


def test_an_end_said_twice_is_one() -> None:
    decoder = CHAT.stream_decoder()
    assert len(decoder.feed(stream({"content": "a"}))) == 3
    assert decoder.feed(stream({"content": ""})) == []


# The meter lets them pass to a client of this dialect; there is no canonical form of them.
UNTRANSLATED = {"content_nested_deeply", "died_one_of_two_choices", "done_one_of_two_choices", "two_choices_length"}


@pytest.mark.parametrize("case", [case for case in STREAMS if case.folder.name in UNTRANSLATED], ids=name_of)
def test_goldens_that_are_no_answer_to_what_was_asked(case: Case) -> None:
    played = play(case.dialect.stream_reader(case.request(stream=True)), [case.upstream])
    with pytest.raises(ProviderError) as caught:
        CHAT.stream_decoder().feed(played.out)
    assert caught.value.code == "upstream_invalid"


@pytest.mark.parametrize("case", [case for case in STREAMS if case.folder.name not in UNTRANSLATED], ids=name_of)
def test_goldens_say_what_they_mean(case: Case) -> None:
    """A decoder that is fed what the meter hands on byte by byte sees what another sees at once."""
    request = case.request(stream=True)
    played = play(case.dialect.stream_reader(request), [case.upstream])
    events = CHAT.stream_decoder().feed(played.out)
    reader, decoder, piecewise = case.dialect.stream_reader(request), CHAT.stream_decoder(), []
    try:
        for at in range(len(case.upstream)):
            piecewise += decoder.feed(reader.feed(case.upstream[at : at + 1]))
        piecewise += decoder.feed(reader.close() if not reader.done else b"")
    except ProviderError:
        piecewise += decoder.feed(reader.pending_out)
    assert piecewise == events
    assert played.error or isinstance(events[-1], Stopped)
    if "text" in case.meta:
        assert "".join([event.text for event in events if isinstance(event, TextDelta)]) == case.meta["text"]
    if "tools" in case.meta:
        made = [said for said in summary(events) if len(said) == 4]
        assert made == [[*named, False, arguments] for *named, arguments in case.meta["tools"]]


@given(st.sampled_from(STREAMS), st.data())
def test_damaged_streams_are_refused_by_name(case: Case, data: st.DataObject) -> None:
    """A byte changed, a stretch taken out or said twice: whatever comes of it, it has a name."""
    sent = bytearray(case.upstream)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(sent) - 1)))
        kind = data.draw(st.sampled_from(["change", "cut", "repeat"]))
        size = data.draw(st.integers(1, 40))
        if kind == "change":
            sent[at : at + 1] = data.draw(st.sampled_from([b'"', b"{", b"}", b"[", b"1", b"null", b"\n\n", b"\xff", b"data: "]))
        elif kind == "cut":
            del sent[at : at + size]
        else:
            sent[at:at] = sent[at : at + size]
    decoder, encoder = CHAT.stream_decoder(), CHAT.stream_encoder(asked())
    codes = []
    for events in (bytes(sent), play(case.dialect.stream_reader(case.request(stream=True)), [bytes(sent)]).out):
        try:
            encoder.feed(decoder.feed(events))
        except ProviderError as fault:
            codes.append(fault.code)
    assert set(codes) <= {"upstream_invalid"}


# --- encoded ------------------------------------------------------------------------------------------------------------


def test_a_stream_in_full() -> None:
    sent = encoded(
        Began(id="r", created=5), TextDelta(text="a"), Stopped(stop="length"), stream_options={"include_usage": True}
    )
    base = {"id": "r", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    role = {"role": "assistant", "content": None, "refusal": None}
    plain = {"index": 0, "logprobs": None, "finish_reason": None}
    last = chunks(sent)[-1]
    assert chunks(sent) == [
        {**base, "choices": [{**plain, "delta": role}], "usage": None},
        {**base, "choices": [{**plain, "delta": {"content": "a"}}], "usage": None},
        {**base, "choices": [{**plain, "delta": {}, "finish_reason": "length"}], "usage": None},
        {**base, "choices": [], "usage": last["usage"]},
    ]
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 4)


def test_usage_is_told_to_those_who_ask() -> None:
    sent = encoded(Began(id="r"), TextDelta(text="a"), Stopped(stop="end"))
    assert len(chunks(sent)) == 3
    assert b"usage" not in sent


def test_calls_have_arguments() -> None:
    """Numbers count calls, not parts; a call that says nothing of arguments has none, which is an empty object."""
    sent = encoded(
        Began(id="r"),
        TextDelta(text="a"),
        ToolBegan(index=0, id="a", name="f"),
        ToolEnded(index=0),
        ToolBegan(index=1, id="b", name="g"),
        ToolBegan(index=2, id="c", name="h", custom=True),
        ToolDelta(index=1, arguments=""),
        ToolEnded(index=2),
        Stopped(stop="end"),
    )
    found = [(piece["index"], piece) for delta in deltas(sent) for piece in delta.get("tool_calls", [])]
    assert found == [
        (0, {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}),
        (0, {"index": 0, "function": {"arguments": "{}"}}),
        (1, {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}),
        (2, {"index": 2, "id": "c", "type": "custom", "custom": {"name": "h", "input": ""}}),
        (1, {"index": 1, "function": {"arguments": "{}"}}),
    ]
    assert chunks(sent)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_end_waits_for_its_usage() -> None:
    encoder = CHAT.stream_encoder(asked())
    encoder.feed([Began(id="r"), TextDelta(text="a")])
    assert encoder.feed([Stopped(stop="end")]) == b""
    assert b'"finish_reason":"stop"' in encoder.end(USAGE)


def test_an_answer_without_an_end_gets_none() -> None:
    encoder = CHAT.stream_encoder(asked())
    encoder.feed([Began(id="r"), TextDelta(text="a")])
    with pytest.raises(ProviderError):
        encoder.end(USAGE)


def test_a_call_that_has_not_begun_is_refused() -> None:
    with pytest.raises(ProviderError):
        CHAT.stream_encoder(asked()).feed([ToolDelta(index=0, arguments="{}")])


def test_a_client_that_knows_functions_only_sees_one_call() -> None:
    sent = encoded(
        Began(id="r"),
        ToolBegan(index=0, id="a", name="f"),
        ToolDelta(index=0, arguments="{}"),
        ToolBegan(index=1, id="b", name="g"),
        Stopped(stop="tool_use"),
        functions=[{"name": "f"}],
    )
    assert deltas(sent)[1:-1] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]
    assert chunks(sent)[-1]["choices"][0]["finish_reason"] == "function_call"


def test_logprobs_and_citations() -> None:
    logprobs = msgspec.Raw(b'[{"token":"a"}]')
    first, second = Citation(url="https://e.com", start=0, end=1), Citation(url="https://f.com", start=0, end=2)
    sent = encoded(
        Began(id="r"),
        TextDelta(text="a", logprobs=logprobs),
        Cited(citation=first),
        PartEnded(),
        TextDelta(text="bc"),
        Cited(citation=second),
        Stopped(stop="end"),
    )
    assert chunks(sent)[1]["choices"][0]["logprobs"] == {"content": [{"token": "a"}], "refusal": None}
    cited = [delta["annotations"][0] for delta in deltas(sent) if "annotations" in delta]
    assert [(one["index"], one["url_citation"]["start_index"], one["url_citation"]["end_index"]) for one in cited] == [
        (0, 0, 1),
        (1, 1, 3),
    ]


# --- there and back -----------------------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=8)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Those that this dialect can say: thinking, text with citations, a refusal, and calls that overlap."""
    events: list[Event] = [Began(id=draw(WORDS), created=draw(st.integers(0, 2**40)))]
    if thoughts := draw(st.lists(WORDS, max_size=2)):
        events += [ThinkingDelta(text=text, origin="openai_chat") for text in thoughts]
        events.append(ThinkingSealed(sealed=None, origin="openai_chat"))
    if texts := draw(st.lists(WORDS, max_size=3)):
        events += [TextDelta(text=text) for text in texts]
        events += [Cited(citation=Citation(url=url, start=1, end=2)) for url in draw(st.lists(WORDS, max_size=2))]
    events += [RefusalDelta(text=text) for text in draw(st.lists(WORDS, max_size=2))]
    made = draw(st.lists(st.tuples(WORDS, WORDS, st.booleans()), max_size=3, unique_by=lambda one: one[0]))
    events += [ToolBegan(index=at, id=one[0], name=one[1], custom=one[2]) for at, one in enumerate(made)]
    if made:
        pieces = draw(st.lists(st.tuples(st.integers(0, len(made) - 1), WORDS), max_size=5))
        events += [ToolDelta(index=index, arguments=arguments) for index, arguments in pieces]
    stop: Stop = draw(st.sampled_from(["tool_use" if made else "end", "length", "refusal"]))
    return [*events, Stopped(stop=stop)]


@given(answers(), st.lists(st.integers(1, 60), max_size=12), st.booleans())
def test_what_is_encoded_is_decoded_again(events: list[Event], cuts: list[int], asks: bool) -> None:
    sent = encoded(*events, stream_options={"include_usage": asks})
    reader, decoder, found = CHAT.stream_reader(asked(stream_options={"include_usage": True})), CHAT.stream_decoder(), []
    for size in [*cuts, len(sent)]:
        piece, sent = sent[:size], sent[size:]
        found += decoder.feed(reader.feed(piece))
    assert reader.done
    assert (reader.usage == USAGE) or not asks
    assert summary(found) == summary(events)


# --- through the driver -------------------------------------------------------------------------------------------------

LONG = "n" * 65
TOOLS = [{"type": "function", "function": {"name": LONG}}, {"type": "custom", "custom": {"name": "patch"}}]


def upstream_names(translation: Translation) -> list[str]:
    return [tool["function"]["name"] for tool in json.loads(bytes(translation.request.fields["tools"]))]


def test_the_client_gets_its_own_tools_back() -> None:
    """An upstream that knows functions of short names only; a client that has a long one, and one of free text."""
    rules = ModelRules(context=1000, max_output=100)
    wanted = [["a", LONG, False, "{}"], ["b", "patch", True, 'raw "text"']]
    translation = Translation(CHAT, CHAT, asked(tools=TOOLS), rules)
    first, second = upstream_names(translation)
    assert len(first) <= 64
    reader, decoder = translation.stream_reader(5), CHAT.stream_decoder()
    made = [call(0, "a", first, "{}"), call(1, "b", second, '{"input":"raw '), call(1, arguments='\\"text\\""}')]
    assert summary(decoder.feed(reader.feed(stream(*made))))[1:3] == wanted
    assert reader.done

    wrapped = json.dumps({"input": 'raw "text"'})
    pieces = [{"id": "a", "function": {"name": first}}, {"id": "b", "function": {"name": second, "arguments": wrapped}}]
    reply = {"id": "r", "choices": [{"index": 0, "message": {"tool_calls": pieces}, "finish_reason": "stop"}]}
    usage, body = translation.read(json.dumps(reply).encode(), 5)
    assert not usage.measured
    parts = [part for part in CHAT.read_reply(body).parts if isinstance(part, ToolCall)]
    assert [[part.id, part.name, part.custom, part.arguments] for part in parts] == wanted


# --- the SDK ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Canned]:
    with Canned(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_sdk_puts_an_answer_together_and_gives_its_thinking_back(server: Canned) -> None:
    """Through the SDK's own accumulator and out again as the next turn: thinking byte for byte, in its place."""
    server.stream(
        encoded(
            Began(id="r", created=5),
            ThinkingDelta(text="h", origin=OTHERS),
            ThinkingDelta(text="m", origin=OTHERS),
            ThinkingSealed(sealed="SIG+/=", origin=OTHERS),
            ThinkingDelta(text="", origin=OTHERS),
            ThinkingSealed(sealed="EMPTY", origin=OTHERS),
            TextDelta(text="one"),
            TextDelta(text=" "),
            ThinkingSealed(sealed="DATA", origin=OTHERS, hidden=True),
            TextDelta(text="two"),
            Cited(citation=Citation(url="https://e.com", end=3)),
            Cited(citation=Citation(url="https://f.com", end=3)),
            ThinkingSealed(sealed='{"id":"rs_1"}', origin="openai_responses"),
            ToolBegan(index=0, id="a", name="f"),
            ToolBegan(index=1, id="b", name="g"),
            ToolDelta(index=1, arguments='{"b":'),
            ToolDelta(index=0, arguments='{"a":1}'),
            ToolDelta(index=1, arguments="2}"),
            Stopped(stop="tool_use"),
            stream_options={"include_usage": True},
        )
    )
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("f", "g")]
    user: Any = {"role": "user", "content": "x"}
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client,
        client.chat.completions.stream(
            model="m", messages=[user], tools=tools, stream_options={"include_usage": True}
        ) as answer,
    ):
        completion = answer.get_final_completion()
    assert completion.usage is not None
    assert completion.usage.total_tokens == 7
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "one two"
    assert [found["url_citation"]["url"] for found in choice.message.model_dump()["annotations"]] == [
        "https://e.com",
        "https://f.com",
    ]
    message = choice.message.model_dump(exclude_none=True)
    again = CHAT.read(asked(messages=[user, message]), Losses()).messages[1]
    assert list(again.parts) == [
        Thinking(text="hm", sealed="SIG+/=", origin=OTHERS, at=0),
        Thinking(sealed="EMPTY", origin=OTHERS, at=1),
        Text(text="one "),
        Thinking(sealed="DATA", hidden=True, origin=OTHERS, at=3),
        Text(text="two"),
        Thinking(sealed='{"id":"rs_1"}', origin="openai_responses", at=5),
        ToolCall(id="a", name="f", arguments='{"a":1}'),
        ToolCall(id="b", name="g", arguments='{"b":2}'),
    ]
