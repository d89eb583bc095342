"""Whatever `openai_chat` can say, said and read again, is the same; whatever it is sent is read, or refused by name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from aurixel.errors import ClientError, ProviderError
from aurixel.plugin.canonical import (
    Began,
    Conversation,
    Document,
    Event,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Sound,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingSealed,
    Tool,
    ToolBegan,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.values import Usage
from tests.dialects.test_openai_chat_codec_requests import ABLE, CHAT, RAW, read, said

TEXTS = st.text(min_size=1, max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
IDS = st.text(min_size=1, max_size=40)
SCHEMAS = st.sampled_from([None, RAW(b"{}"), RAW(b'{"type":"object"}')])
TEXT_PARTS = st.builds(Text, text=TEXTS)
MEDIA = st.one_of(
    TEXT_PARTS,
    st.builds(
        Image,
        data=st.just("AAAA"),
        media_type=st.sampled_from(["image/png", "image/jpeg"]),
        detail=st.sampled_from([None, "low", "auto"]),
    ),
    st.builds(Image, url=st.just("https://example.com/a.png")),
    st.builds(Document, data=st.just("BBBB"), media_type=st.just("application/pdf"), name=TEXTS),
    st.builds(Sound, data=st.just("CCCC"), format=st.sampled_from(["wav", "mp3"])),
)
CALLS = st.one_of(
    st.builds(ToolCall, id=IDS, name=NAMES, arguments=TEXTS),
    st.builds(ToolCall, id=IDS, name=NAMES, arguments=st.text(max_size=20), custom=st.just(True)),
)
TOOLS = st.one_of(
    st.builds(
        Tool,
        name=NAMES,
        description=st.none() | st.text(max_size=9),
        schema=SCHEMAS,
        strict=st.none() | st.booleans(),
    ),
    st.builds(Tool, name=NAMES, custom=st.just(True), grammar=SCHEMAS),
)
FLOATS = st.none() | st.floats(-2, 2)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Those that this dialect can express without loss."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(said("system", Text(text=draw(TEXTS))))
    open_calls: list[ToolCall] = []
    custom: set[str] = set()
    for _ in range(draw(st.integers(1, 3))):
        custom |= {call.id for call in open_calls if call.custom}
        results = [
            ToolResult(id=call.id, parts=tuple(draw(st.lists(TEXT_PARTS, max_size=1))), custom=call.id in custom)
            for call in open_calls
        ]
        if messages and not results and draw(st.booleans()) and messages[-1].role == "assistant":
            messages.append(said("system", Text(text=draw(TEXTS))))
        messages.append(said("user", *results, *draw(st.lists(MEDIA, min_size=0 if results else 1, max_size=3))))
        parts: list[Part] = []
        if draw(st.booleans()):
            parts.append(Thinking(text=draw(TEXTS), origin="openai_chat", at=0))
        parts += draw(st.lists(TEXT_PARTS, max_size=1))
        parts += draw(st.lists(st.builds(Refusal, text=TEXTS), max_size=1))
        open_calls = draw(st.lists(CALLS, max_size=2))
        parts += open_calls
        messages.append(said("assistant", *(parts or [Text(text="a")])))
    tools = tuple(draw(st.lists(TOOLS, max_size=2, unique_by=lambda tool: tool.name)))
    choices = [st.none(), st.sampled_from([ToolChoice(mode=mode) for mode in ("auto", "none", "any")])]
    if tools:
        choices.append(st.builds(ToolChoice, mode=st.just("tool"), name=st.sampled_from([tool.name for tool in tools])))
    effort = draw(st.sampled_from([None, "none", "minimal", "low", "medium", "high", "xhigh", "max"]))
    return Conversation(
        model="m",
        messages=tuple(messages),
        stream=draw(st.booleans()),
        tools=tools,
        tool_choice=draw(st.one_of(choices)) if tools else None,
        parallel_tools=draw(st.none() | st.booleans()) if tools else None,
        max_output=draw(st.none() | st.integers(1, ABLE.max_output)),
        temperature=draw(FLOATS),
        top_p=draw(FLOATS),
        stop=tuple(draw(st.lists(st.text(max_size=5), max_size=4))),
        format=draw(
            st.none()
            | st.just(Format(kind="json_object"))
            | st.builds(Format, kind=st.just("json_schema"), name=TEXTS, schema=SCHEMAS, strict=st.none() | st.booleans())
        ),
        reasoning=None if effort is None else Reasoning(enabled=effort != "none", effort=effort),
        verbosity=draw(st.sampled_from([None, "low", "high"])),
        logprobs=draw(st.none() | st.integers(0, 20)),
        seed=draw(st.none() | st.integers(0, 2**62)),
        presence_penalty=draw(FLOATS),
        frequency_penalty=draw(FLOATS),
        logit_bias=draw(st.sampled_from([None, RAW(b'{"1":-2}')])),
        cache_key=draw(st.none() | TEXTS),
    )


@given(conversations())
def test_what_is_written_is_read_again(conversation: Conversation) -> None:
    losses = Losses()
    written = CHAT.write(conversation, ABLE, losses)
    again = CHAT.read(CHAT.parse_request(written.body, {}), losses)
    assert again == conversation
    assert not losses


FIELDS = ["tools", "tool_choice", "response_format", "stop", "functions", "function_call", "logit_bias", "user"]
INSIDE = ["role", "content", "type", "text", "tool_calls", "function", "image_url", "url", "thinking_blocks"]
INSIDE += ["id", "name", "arguments", "index", "custom", "input", "url_citation", "thinking"]
OF_MESSAGES = ["content", "tool_calls", "function_call", "tool_call_id", "refusal", "thinking_blocks", "name"]
ROLES = ["user", "assistant", "tool", "function", "system"]
WORDS = st.text(max_size=4) | st.sampled_from(["text", "tool", "image_url", "data:,"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INSIDE), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.builds(
    lambda role, rest: {"role": role, **rest},
    st.sampled_from(ROLES),
    st.dictionaries(st.sampled_from(OF_MESSAGES), JSON, max_size=3),
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), st.lists(MESSAGES, min_size=1, max_size=3))
def test_whatever_is_sent_is_read_or_refused_by_name(fields: dict[str, Any], messages: list[Any]) -> None:
    refused: list[ClientError] = []
    try:
        found = read(messages=messages, **fields)
        if any(message.parts for message in found.messages):
            CHAT.parse_request(CHAT.write(found, ABLE, Losses()).body, {})
    except ClientError as error:
        refused.append(error)
    assert all(error.param in {"messages", *fields} for error in refused)


OF_ANSWERS = ["content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call", "annotations"]
OF_CHOICES = ["delta", "message", "finish_reason", "logprobs", "index"]
ANSWERS = st.builds(
    lambda rest, said: {"index": 0, **rest, "delta": said, "message": said},
    st.dictionaries(st.sampled_from(OF_CHOICES), JSON, max_size=2),
    st.dictionaries(st.sampled_from(OF_ANSWERS), JSON, max_size=3),
)


@given(st.lists(ANSWERS, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["id", "created"]), JSON, max_size=2))
def test_whatever_an_upstream_says_is_read_or_refused(choices: list[Any], rest: dict[str, Any]) -> None:
    request = CHAT.parse_request(b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}', {})
    decoder, encoder = CHAT.stream_decoder(), CHAT.stream_encoder(request)
    codes = []
    for choice in choices:
        body = json.dumps({**rest, "choices": [choice]}).encode()
        try:
            encoder.feed(decoder.feed(b"data: " + body + b"\n\n"))
            CHAT.write_reply(CHAT.read_reply(body), request)
        except ProviderError as fault:
            codes.append(fault.code)
    assert set(codes) <= {"upstream_invalid"}


# --- thinking through a client ------------------------------------------------------------------------------------------

PROOFS = st.text(min_size=1, max_size=9)


@st.composite
def thoughts(draw: st.DrawFn, at: int) -> Thinking:
    """Another dialect's thinking, at its place."""
    origin = draw(st.sampled_from(["anthropic_messages", "openai_responses"]))
    if draw(st.booleans()):
        return Thinking(sealed=draw(PROOFS), hidden=True, origin=origin, at=at)
    return Thinking(text=draw(st.text(max_size=9)), sealed=draw(st.none() | PROOFS), origin=origin, at=at)


@st.composite
def thinking_answers(draw: st.DrawFn) -> list[Part]:
    """Thinking before, between and after texts and calls."""
    parts: list[Part] = []
    for kind in draw(st.lists(st.sampled_from(["text", "thinking"]), max_size=6)) + draw(
        st.lists(st.sampled_from(["call", "thinking"]), max_size=4)
    ):
        if kind == "thinking":
            parts.append(draw(thoughts(len(parts))))
        elif kind == "call":
            parts.append(ToolCall(id=f"c{len(parts)}", name="f", arguments="{}"))
        elif not parts or not isinstance(parts[-1], Text):
            parts.append(Text(text=draw(TEXTS)))
    return parts


def events_of(parts: list[Part]) -> list[Event]:
    events: list[Event] = [Began(id="r")]
    calls = 0
    for part in parts:
        if isinstance(part, Text):
            events += [TextDelta(text=letter) for letter in part.text]
        elif isinstance(part, Thinking):
            events += [ThinkingDelta(text=letter, origin=part.origin) for letter in part.text]
            events.append(ThinkingSealed(sealed=part.sealed, origin=part.origin, hidden=part.hidden))
        elif isinstance(part, ToolCall):
            events.append(ToolBegan(index=calls, id=part.id, name=part.name))
            calls += 1
    return [*events, Stopped(stop="end")]


def given_back(message: dict[str, Any]) -> list[Part]:
    """What is read of the next turn, in which the client gives an answer back as it got it."""
    found = read(messages=[{"role": "user", "content": "x"}, message]).messages[1:]
    return list(found[0].parts) if found else []


@given(thinking_answers())
def test_thinking_keeps_its_place_through_a_client(parts: list[Part]) -> None:
    request = CHAT.parse_request(b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}', {})
    whole = json.loads(CHAT.write_reply(Reply(id="r", parts=tuple(parts), stop="end"), request))
    assert given_back(whole["choices"][0]["message"]) == parts
    encoder = CHAT.stream_encoder(request)
    sent = encoder.feed(events_of(parts)) + encoder.end(Usage({}))
    together: dict[str, Any] = {}
    for event in sent.split(b"\n\n")[:-2]:
        accumulate_delta(together, json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"])
    assert given_back(together) == parts
