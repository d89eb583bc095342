"""Whatever `openai_responses` can say, said and read again, is the same; whatever it is sent is read, or refused by name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aurixel.errors import ClientError
from aurixel.plugin.canonical import (
    Citation,
    Conversation,
    Document,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.responses_talk import ABLE, RAW, RESPONSES, read, said

TEXTS = st.text(min_size=1, max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
SCHEMAS = st.sampled_from([None, RAW(b"{}"), RAW(b'{"type":"object"}')])
GRAMMARS = st.sampled_from([None, RAW(b'{"type":"grammar","grammar":{"definition":"X","syntax":"lark"}}')])
TEXT_PARTS = st.builds(Text, text=TEXTS)
SEALED = st.builds(
    lambda text: json.dumps({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": text}), NAMES
)
CITED = Citation(url="https://a.example", title="A", start=0, end=1)
MEDIA = st.one_of(
    TEXT_PARTS,
    st.builds(Image, data=st.just("AAAA"), media_type=st.just("image/png"), detail=st.sampled_from([None, "low", "high"])),
    st.builds(Image, url=st.just("https://example.com/a.png")),
    st.builds(Document, data=st.just("BBBB"), media_type=st.just("application/pdf"), name=TEXTS),
    st.builds(Document, url=st.just("https://example.com/a.pdf"), name=st.none() | TEXTS),
)
TOOLS = st.one_of(
    st.builds(
        Tool,
        name=NAMES,
        description=st.none() | st.text(max_size=9),
        schema=st.sampled_from([RAW(b"{}"), RAW(b'{"type":"object"}')]),
        strict=st.booleans(),
    ),
    st.builds(Tool, name=NAMES, custom=st.just(True), grammar=GRAMMARS),
)
FLOATS = st.none() | st.floats(-2, 2)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Those that this dialect can express without loss."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(said("system", *draw(st.lists(TEXT_PARTS, min_size=1, max_size=2))))
    calls: list[ToolCall] = []
    marks = 0
    for turn in range(draw(st.integers(1, 3))):
        results = [ToolResult(id=call.id, parts=tuple(draw(st.lists(MEDIA, max_size=2))), custom=call.custom) for call in calls]
        if messages and not results and draw(st.booleans()):
            messages.append(said("system", Text(text=draw(TEXTS))))
        user: list[Part] = [*results, *draw(st.lists(MEDIA, min_size=0 if results else 1, max_size=3))]
        if marks < 4 and draw(st.booleans()):
            marks += 1
            user.append(Text(text=draw(TEXTS), cache="5m"))
        messages.append(said("user", *user))
        parts: list[Part] = []
        if draw(st.booleans()):
            parts.append(Thinking(sealed=draw(SEALED), hidden=True, origin="openai_responses"))
        parts += draw(st.lists(st.builds(Text, text=TEXTS, citations=st.sampled_from([(), (CITED,)])), max_size=2))
        parts += draw(st.lists(st.builds(Refusal, text=TEXTS), max_size=1))
        calls = [
            ToolCall(id=f"call_{turn}_{number}", name=draw(NAMES), arguments=draw(TEXTS), custom=draw(st.booleans()))
            for number in range(draw(st.integers(0, 2)))
        ]
        if calls and draw(st.booleans()):
            parts.append(Thinking(sealed=draw(SEALED), hidden=True, origin="openai_responses"))
        parts += calls
        messages.append(said("assistant", *(parts or [Text(text="a")])))
    tools = tuple(draw(st.lists(TOOLS, max_size=3, unique_by=lambda tool: tool.name)))
    choices = [st.none(), st.sampled_from([ToolChoice(mode=mode) for mode in ("auto", "none", "any")])]
    if tools:
        names = st.sampled_from([tool.name for tool in tools])
        choices.append(st.builds(ToolChoice, mode=st.just("tool"), name=names))
        allowed = st.lists(names, min_size=1, unique=True).map(tuple)
        choices.append(st.builds(ToolChoice, mode=st.sampled_from(["auto", "any"]), allowed=allowed))
    effort = draw(st.sampled_from([None, "minimal", "low", "medium", "high", "xhigh", "max"]))
    return Conversation(
        model="m",
        messages=tuple(messages),
        stream=draw(st.booleans()),
        tools=tools,
        tool_choice=draw(st.one_of(choices)) if tools else None,
        parallel_tools=draw(st.none() | st.booleans()) if tools else None,
        max_output=draw(st.none() | st.integers(16, ABLE.max_output)),
        temperature=draw(FLOATS),
        top_p=draw(FLOATS),
        format=draw(
            st.none()
            | st.just(Format(kind="json_object"))
            | st.builds(
                Format,
                kind=st.just("json_schema"),
                name=NAMES,
                schema=st.just(RAW(b"{}")),
                strict=st.none() | st.booleans(),
                description=st.none() | TEXTS,
            )
        ),
        reasoning=None if effort is None else Reasoning(enabled=True, effort=effort, shown=draw(st.booleans())),
        verbosity=draw(st.sampled_from([None, "low", "high"])),
        logprobs=draw(st.none() | st.integers(0, 20)),
        cache_key=draw(st.none() | TEXTS),
        cache=draw(st.sampled_from([None, "5m"])),
    )


@settings(deadline=None)
@given(conversations())
def test_what_is_written_is_read_again(conversation: Conversation) -> None:
    losses = Losses()
    written = RESPONSES.write(conversation, ABLE, losses)
    again = RESPONSES.read(RESPONSES.parse_request(written.body, {}), losses)
    assert again == conversation
    assert not losses


FIELDS = ["tools", "tool_choice", "text", "reasoning", "include", "instructions", "truncation", "user", "temperature"]
INSIDE = ["role", "content", "type", "text", "name", "tools", "format", "namespace", "image_url", "output", "summary"]
OF_ITEMS = ["content", "call_id", "name", "arguments", "output", "input", "summary", "encrypted_content", "tools", "namespace"]
KINDS = [
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "additional_tools",
    "tool_search_output",
]
WORDS = st.text(max_size=4) | st.sampled_from(["input_text", "function", "namespace", "data:,", "ax1.openai_chat.e30=", "user"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INSIDE), inner, max_size=4),
    max_leaves=12,
)
ITEMS = st.builds(
    lambda kind, role, rest: {"type": kind, "role": role, **rest},
    st.sampled_from(KINDS),
    st.sampled_from(["user", "assistant", "system", "developer"]),
    st.dictionaries(st.sampled_from(OF_ITEMS), JSON, max_size=4),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), st.lists(ITEMS, min_size=1, max_size=4))
def test_whatever_is_sent_is_read_or_refused_by_name(fields: dict[str, Any], items: list[Any]) -> None:
    refused: list[ClientError] = []
    try:
        found = read(input=items, **fields)
        if found.messages:
            RESPONSES.parse_request(RESPONSES.write(found, ABLE, Losses()).body, {})
    except ClientError as error:
        refused.append(error)
    assert all(error.param in {"input", "messages", "tools", *fields} for error in refused)
