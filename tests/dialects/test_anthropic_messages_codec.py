"""The codec of `anthropic_messages` on requests: nothing it can say is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aurixel.plugin.canonical import (
    Conversation,
    Document,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.messages_talk import (
    DIALECT,
    OWN,
    PDF,
    PNG,
    SCHEMA,
    answered,
    lost,
    rules,
    said,
    told,
)

WORDS = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() == text)
NAMES = st.from_regex(r"\A[a-zA-Z0-9_-]{1,64}\Z")
CACHE = st.sampled_from([None, None, None, "5m", "1h"])
OBJECTS = st.dictionaries(WORDS, st.integers() | WORDS | st.none(), max_size=2).map(json.dumps)
RAWS = OBJECTS.map(lambda text: msgspec.Raw(json.dumps({"type": "object", "title": text}).encode()))


@st.composite
def marked(draw: st.DrawFn, *, inner: bool = False) -> Any:
    kind = draw(st.sampled_from(["text", "image", "link", "pdf", "words", "url"]))
    cache = None if inner else draw(CACHE)
    if kind == "text":
        return Text(text=draw(WORDS), cache=cache)
    if kind == "image":
        return Image(data=PNG, media_type="image/png", cache=cache)
    if kind == "link":
        return Image(url=draw(WORDS), cache=cache)
    name = draw(st.none() | WORDS)
    if kind == "pdf":
        return Document(data=PDF, media_type="application/pdf", name=name, cache=cache)
    if kind == "words":
        return Document(text=draw(WORDS), media_type="text/plain", name=name, cache=cache)
    return Document(url=draw(WORDS), name=name, cache=cache)


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    messages = [told(*draw(st.lists(WORDS, min_size=1, max_size=2)))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages.append(said(*draw(st.lists(marked(), min_size=1, max_size=2))))
        parts: list[Part] = []
        calls = []
        for kind in draw(st.lists(st.sampled_from(["text", "call", "thought", "hidden"]), min_size=1, max_size=4)):
            if kind == "text":
                parts.append(Text(text=draw(WORDS)))
            elif kind == "call":
                calls.append(f"call_{len(messages)}_{len(calls)}")
                parts.append(ToolCall(id=calls[-1], name=draw(NAMES), arguments=draw(OBJECTS), cache=draw(CACHE)))
            elif kind == "thought":
                parts.append(Thinking(text=draw(st.text(max_size=3)), sealed=draw(WORDS), origin=OWN, at=len(parts)))
            else:
                parts.append(Thinking(sealed=draw(WORDS), hidden=True, origin=OWN, at=len(parts)))
        messages.append(answered(*parts))
        if calls:
            inner = st.lists(marked(inner=True), max_size=2).map(tuple)
            messages.append(said(*[ToolResult(id=call, parts=draw(inner), failed=draw(st.booleans())) for call in calls]))
            messages.append(answered("Done."))
        if draw(st.booleans()):
            messages.append(told(draw(WORDS)))
    messages.append(said(*draw(st.lists(marked(), min_size=1, max_size=2))))
    return tuple(messages)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    tools = tuple(
        Tool(name=name, description=draw(st.none() | WORDS), schema=draw(RAWS), strict=draw(st.sampled_from([None, True])))
        for name in names
    )
    choice = draw(st.sampled_from([None, ToolChoice(), ToolChoice(mode="any"), ToolChoice(mode="none")])) if names else None
    reasoning = draw(
        st.sampled_from(
            [
                None,
                Reasoning(enabled=False),
                Reasoning(enabled=True, effort="high"),
                Reasoning(enabled=True, shown=False),
                Reasoning(enabled=True, budget=2000),
            ]
        )
    )
    thinks = reasoning is not None and bool(reasoning.enabled)
    forced = choice is not None and choice.mode == "any"
    return Conversation(
        model="m",
        messages=draw(turns()),
        stream=draw(st.booleans()),
        tools=tools,
        tool_choice=ToolChoice() if forced and thinks else choice,
        parallel_tools=False if choice is not None and choice.mode != "none" and draw(st.booleans()) else None,
        max_output=draw(st.integers(2001, 8000)),
        temperature=None if thinks else draw(st.none() | st.floats(0, 1)),
        top_k=None if thinks else draw(st.none() | st.integers(1, 9)),
        stop=tuple(draw(st.lists(WORDS, max_size=2))),
        format=draw(st.none() | st.just(Format(kind="json_schema", schema=SCHEMA, strict=True))),
        reasoning=reasoning,
    )


@given(conversations())
def test_what_is_written_is_read_back(conversation: Conversation) -> None:
    losses = Losses()
    traits = rules("adaptive_thinking", "budget_thinking", "structured_outputs", "system_turns")
    marks = sum(getattr(part, "cache", None) is not None for message in conversation.messages for part in message.parts)
    written = DIALECT.write(conversation, traits, losses)
    found = DIALECT.read(DIALECT.parse_request(written.body, {}), losses)
    if marks <= 4:
        assert found == conversation
        assert not losses
    else:
        assert lost(losses) == {"dropped": ["messages.cache_control"]}
