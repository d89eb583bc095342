"""What a translation left in a conversation is taken out of a request that passes straight, and nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.anthropic_messages.dialect import AnthropicMessages
from aurixel.dialects.carriers import carried
from aurixel.dialects.openai_chat.dialect import OpenAIChat
from aurixel.dialects.openai_responses.dialect import OpenAIResponses
from aurixel.dialects.translation import straight

OURS = carried("openai_responses", '{"type":"reasoning"}')
Json = dict[str, Any]
USER: Json = {"role": "user", "content": "ask"}
RESULT: Json = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}
CALL: Json = {"type": "tool_use", "id": "t", "name": "f", "input": {"big": 123456789012345678901234567890, "f": 1e2}}
THOUGHT: Json = {"type": "thinking", "thinking": "so", "signature": "EqMB+/=="}
FOREIGN: Json = {"type": "thinking", "thinking": "so", "signature": OURS}
HIDDEN: Json = {"type": "redacted_thinking", "data": OURS}
TEXT: Json = {"type": "text", "text": "He said \"ax1.\" and 'ax1.x.y'"}
CITED: Json = {"type": "web_search_result_location", "url": "https://x.invalid/", "encrypted_index": "", "cited_text": "x"}
PROVEN: Json = {**CITED, "encrypted_index": "Eo8B"}
ON: Json = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
OFF: Json = {"thinking": {"type": "disabled"}}
BLOCK: Json = {"type": "thinking", "thinking": "so", "signature": "EqMB+/=="}


def turn(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def reasoning(sealed: str | None) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed}


MESSAGES: dict[str, tuple[Json, Json, list[str]]] = {
    "thinking": (
        {"messages": [USER, turn(FOREIGN, TEXT), USER]},
        {"messages": [USER, turn(TEXT), USER]},
        ["messages.thinking"],
    ),
    "hidden": ({"messages": [USER, turn(TEXT, HIDDEN), USER]}, {"messages": [USER, turn(TEXT), USER]}, ["messages.thinking"]),
    "its own stays": (
        {"messages": [USER, turn(THOUGHT, FOREIGN, TEXT), USER]},
        {"messages": [USER, turn(THOUGHT, TEXT), USER]},
        ["messages.thinking"],
    ),
    "a turn of nothing else": ({"messages": [USER, turn(FOREIGN), USER]}, {"messages": [USER, USER]}, ["messages.thinking"]),
    "a loop that lost its thinking": (
        {**ON, "messages": [USER, turn(FOREIGN, CALL), RESULT]},
        {**OFF, "messages": [USER, turn(CALL), RESULT]},
        ["messages.thinking", "thinking"],
    ),
    "a loop that has its own": (
        {**ON, "messages": [USER, turn(FOREIGN, TEXT), USER, turn(THOUGHT, CALL), RESULT]},
        {**ON, "messages": [USER, turn(TEXT), USER, turn(THOUGHT, CALL), RESULT]},
        ["messages.thinking"],
    ),
    "a loop that is over": (
        {**ON, "messages": [USER, turn(FOREIGN, CALL), RESULT, turn(TEXT), USER]},
        {**ON, "messages": [USER, turn(CALL), RESULT, turn(TEXT), USER]},
        ["messages.thinking"],
    ),
    "citations": (
        {"messages": [USER, turn({**TEXT, "citations": [CITED, PROVEN]}, {**TEXT, "citations": [CITED]}), USER]},
        {"messages": [USER, turn({**TEXT, "citations": [PROVEN]}, TEXT), USER]},
        ["messages.citations"],
    ),
}
CHAT: dict[str, tuple[Json, Json, list[str]]] = {
    "ours": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "x", "reasoning_content": "so", "thinking_blocks": [{**BLOCK, "index": 0}]},
            ]
        },
        {"messages": [USER, {"role": "assistant", "content": "x"}]},
        ["messages.thinking_blocks"],
    ),
    "a carrier": (
        {"messages": [USER, {"role": "assistant", "content": "x", "thinking_blocks": [FOREIGN]}]},
        {"messages": [USER, {"role": "assistant", "content": "x"}]},
        ["messages.thinking_blocks"],
    ),
}
RESPONSES: dict[str, tuple[Json, Json, list[str]]] = {
    "an item": ({"input": [USER, reasoning(OURS), reasoning("gAAA"), USER]}, {"input": [USER, reasoning("gAAA"), USER]}, []),
}
# What stays: the very same request.
KEPT: list[tuple[str, Json]] = [
    ("messages", {"messages": [USER, turn(THOUGHT, TEXT), USER]}),
    ("messages", {"messages": [{"role": "user", "content": '"ax1." "encrypted_index"'}]}),
    ("messages", {"messages": [USER, turn({**TEXT, "citations": [PROVEN]}), USER]}),
    ("messages", {"messages": [USER, turn({"type": "thinking", "thinking": '"ax1.', "signature": "x"})]}),
    ("chat", {"messages": [USER, {"role": "assistant", "content": "x", "thinking_blocks": [BLOCK]}]}),
    ("chat", {"messages": [USER, {"role": "assistant", "content": "x", "thinking_blocks": []}]}),
    ("chat", {"messages": [USER, {"role": "assistant", "content": "x", "thinking_blocks": "ax1."}]}),
    ("responses", {"input": '"ax1."'}),
    ("responses", {"input": [USER, reasoning("gAAA"), reasoning(None)]}),
]
DIALECTS: dict[str, Any] = {"messages": AnthropicMessages(), "chat": OpenAIChat(), "responses": OpenAIResponses()}


def parsed(dialect: str, body: Json) -> Any:
    more = {"max_tokens": 2000} if dialect == "messages" else {}
    return DIALECTS[dialect].parse_request(json.dumps({"model": "m", **more, **body}).encode(), {})


def fields(request: Any) -> Json:
    return {name: json.loads(bytes(raw)) for name, raw in request.fields.items()}


@pytest.mark.parametrize(
    ("dialect", "case"),
    [("messages", case) for case in MESSAGES] + [("chat", case) for case in CHAT] + [("responses", case) for case in RESPONSES],
)
def test_what_a_translation_left_is_taken_out(dialect: str, case: str) -> None:
    given, left, lost = {"messages": MESSAGES, "chat": CHAT, "responses": RESPONSES}[dialect][case]
    crossing = straight(DIALECTS[dialect], parsed(dialect, given))
    assert fields(crossing.request) == fields(parsed(dialect, left))
    if CALL in [block for message in left.get("messages", ()) for block in message["content"]]:
        assert b'"big": 123456789012345678901234567890' in bytes(crossing.request.fields["messages"])
    assert crossing.losses is not None
    told = [*crossing.losses.dropped, *crossing.losses.changed]
    assert not lost or told == lost
    assert told


@pytest.mark.parametrize(("dialect", "body"), KEPT)
def test_the_rest_is_not_touched(dialect: str, body: Json) -> None:
    request = parsed(dialect, body)
    crossing = straight(DIALECTS[dialect], request)
    assert crossing.request is request
    assert crossing.losses is None


PLAIN = st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["ax1.", OURS, "", "thinking", "text"]))
NAMES = st.sampled_from(
    ["type", "signature", "data", "citations", "encrypted_index", "thinking_blocks", "index", "content", "role"]
)
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20)


@given(value=ANY, dialect=st.sampled_from(sorted(DIALECTS)))
def test_whatever_a_client_writes_is_read_or_left(value: Any, dialect: str) -> None:
    """It raises nothing."""
    field = "input" if dialect == "responses" else "messages"
    request = parsed(dialect, {field: [USER]})
    raw = msgspec.Raw(json.dumps(value).encode())
    straight(DIALECTS[dialect], msgspec.structs.replace(request, fields={**request.fields, field: raw}))
