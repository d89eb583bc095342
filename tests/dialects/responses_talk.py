"""What the tests of `openai_responses` as a codec share: a way to ask, to answer, and to look at either; it judges nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import openai
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from aurixel.dialects import OpenAIResponses
from aurixel.dialects.sse import Event as Sse
from aurixel.dialects.sse import EventSplitter
from aurixel.plugin.canonical import (
    Began,
    Citation,
    Cited,
    Conversation,
    Event,
    Losses,
    Message,
    Part,
    PartEnded,
    Refusal,
    RefusalDelta,
    Reply,
    Role,
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
from tests.dialects.cases import INPUT_TOKENS, cases

RESPONSES = OpenAIResponses()
RAW = msgspec.Raw
ABLE = ModelRules(
    context=100_000, max_output=8000, traits=frozenset({"reasoning", "custom_tools", "cache_breakpoints", "system_turns"})
)
PLAIN = ModelRules(context=100_000, max_output=8000)


def read(losses: Losses | None = None, **fields: Any) -> Conversation:
    body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    return RESPONSES.read(RESPONSES.parse_request(body, {}), Losses() if losses is None else losses)


def lost(**fields: Any) -> set[str]:
    losses = Losses(RESPONSES.words)
    read(losses, **fields)
    assert not losses.emulated
    assert not losses.changed
    return set(losses.dropped)


def turns(*items: Any, **fields: Any) -> tuple[Message, ...]:
    return read(input=list(items), **fields).messages


def said(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def written(*messages: Message, rules: ModelRules = ABLE, losses: Losses | None = None, **fields: Any) -> dict[str, Any]:
    conversation = Conversation(model="m", messages=messages or (said("user", Text(text="hi")),), **fields)
    out = RESPONSES.write(conversation, rules, Losses() if losses is None else losses)
    RESPONSES.parse_request(out.body, {})
    return cast(dict[str, Any], json.loads(out.body))


def call(id: str, name: str = "f", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments, **more}


def output(id: str, text: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


USER = {"role": "user", "content": "hi"}
HI = Text(text="hi")
PIXEL = "data:image/png;base64,AAAA"
NAME = "openai_responses"
USAGE = Usage({"input": 10, "cache_read": 3, "cache_write_5m": 2, "output": 5, "reasoning": 4})
CITED = Citation(url="https://a.example", title="A", start=0, end=2)
LOGPROBS = msgspec.Raw(b'[{"token":"Hi","logprob":-0.5,"bytes":[72,105],"top_logprobs":[]}]')


def asked(**fields: Any) -> ParsedRequest:
    return RESPONSES.parse_request(json.dumps({"model": "m", "input": "hi", **fields}).encode(), {})


def replied(*parts: Any, stop: Any = "end", request: ParsedRequest | None = None, usage: Usage = USAGE) -> dict[str, Any]:
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


def events_of(parts: Iterable[Any]) -> list[Event]:
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


def sdk_reads(stream: bytes) -> dict[str, Any]:
    """The stream through the helper of the official SDK, which checks its order; gives its last response."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    last: dict[str, Any] = {}
    for event in told(stream):
        parsed = construct_type_unchecked(type_=cast(Any, ResponseStreamEvent), value=event)
        state.handle_event(parsed)
        last = event
    return cast(dict[str, Any], last["response"])


WORDS = st.text(min_size=1, max_size=12)
PARTS = st.one_of(
    st.builds(Text, text=WORDS, citations=st.sampled_from([(), (CITED,)]), logprobs=st.sampled_from([None, LOGPROBS])),
    st.builds(Refusal, text=WORDS),
    st.builds(ToolCall, id=st.uuids().map(str), name=st.sampled_from(["f", "g"]), arguments=WORDS),
    st.builds(ToolCall, id=st.uuids().map(str), name=st.just("h"), arguments=st.text(max_size=5), custom=st.just(True)),
    st.builds(Thinking, text=WORDS, sealed=st.none() | WORDS, origin=st.just("anthropic_messages")),
    st.builds(Thinking, sealed=WORDS, hidden=st.just(True), origin=st.just("anthropic_messages")),
)
GOOD = [case for case in cases("upstream.sse", NAME) if "error" not in case.meta]
