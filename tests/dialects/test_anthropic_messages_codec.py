"""The codec of `anthropic_messages` on requests: nothing it can say is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.sse import make_event
from aurixel.dialects.translation import Translation
from aurixel.errors import ClientError
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
from aurixel.plugin.contracts import MODEL_TRAITS
from aurixel.values import Usage
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


# --- damage ---------------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 3000,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}},
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "tool", "name": "f"},
    "stop_sequences": ["#"],
    "metadata": {"user_id": "u"},
    "temperature": 1,
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                {"type": "search_result", "source": "x", "title": "t", "content": [{"type": "text", "text": "x"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "x", "citations": [{"type": "char_location"}]},
                {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "r"}]}]},
    ],
}
VALUES = st.sampled_from(
    [None, True, 0, -1, 7.5, 2**70, "", " ", "x", "text", "image", "tool_result", "ax1.a.b", [], [[]], {}, {"type": "text"}]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


PLACES = [place for place in places(WHOLE) if place]


DAMAGE = st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3)


@given(DAMAGE, st.sets(st.sampled_from(sorted(MODEL_TRAITS))))
def test_no_damage_to_a_request_is_anything_but_the_clients_fault(damage: list[tuple[Any, Any]], traits: set[str]) -> None:
    body = json.loads(json.dumps(WHOLE))
    for place, value in damage:
        found = body
        try:
            for key in place[:-1]:
                found = found[key]
            found[place[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # it lay in what the damage before replaced
    losses = Losses(DIALECT.words)
    try:
        conversation = DIALECT.read(DIALECT.parse_request(json.dumps(body).encode(), {}), losses)
        DIALECT.parse_request(DIALECT.write(conversation, rules(*traits), losses).body, {})
    except ClientError as error:
        assert error.param is None or error.param in WHOLE  # noqa: PT017 - some of the damage is none


# --- through the driver ---------------------------------------------------------------------------------------------------


def crossing(body: dict[str, Any], *traits: str) -> Translation:
    whole = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **body}
    return Translation(DIALECT, DIALECT, DIALECT.parse_request(json.dumps(whole).encode(), {}), rules(*traits))


def answer(content: list[dict[str, Any]], reason: str) -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 50}
    return json.dumps({"id": "msg_1", "type": "message", "content": content, "stop_reason": reason, "usage": usage}).encode()


def test_a_tools_own_name_comes_back() -> None:
    body = {"tools": [{"name": "a.b", "input_schema": {"type": "object"}}]}
    crossed = crossing(body)
    (tool,) = json.loads(bytes(crossed.request.fields["tools"]))
    assert tool["name"] != "a.b"
    call = {"type": "tool_use", "id": "x", "name": tool["name"], "input": {}}
    usage, reply = crossed.read(answer([call], "tool_use"), 0)
    assert usage == Usage({"input": 5, "output": 50})
    assert json.loads(reply)["content"] == [{**call, "name": "a.b"}]


def test_a_structured_answer_that_a_tool_gave_is_text() -> None:
    body = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}, "stream": True}
    crossed = crossing(body)
    start = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 5, "output_tokens": 1}}}
    block = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "x", "name": "answer", "input": {}},
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}}
    stop = {"type": "content_block_stop", "index": 0}
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 50}}
    events = (start, block, delta, stop, end, {"type": "message_stop"})
    reader = crossed.stream_reader(0)
    out = b"".join(reader.feed(make_event(json.dumps(event).encode(), str(event["type"]).encode())) for event in events)
    assert reader.done
    assert reader.usage == Usage({"input": 5, "output": 50})
    told = [json.loads(event.split(b"\ndata: ")[1]) for event in out.split(b"\n\n")[:-1]]
    assert told[1]["content_block"] == {"type": "text", "text": ""}
    assert told[2]["delta"] == {"type": "text_delta", "text": '{"a":1}'}
    assert told[-2]["delta"]["stop_reason"] == "end_turn"
    _, reply = crossed.read(answer([{"type": "tool_use", "id": "x", "name": "answer", "input": {"a": 1}}], "tool_use"), 0)
    shown = json.loads(reply)
    assert (shown["content"], shown["stop_reason"]) == ([{"type": "text", "text": '{"a": 1}'}], "end_turn")
