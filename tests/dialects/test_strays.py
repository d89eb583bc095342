"""What a client says inside its fields and no translation knows is told, wherever it stands; a test adds one word at every
place of a request that loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from aurixel.dialects import AnthropicMessages, OpenAIChat, OpenAIResponses
from aurixel.dialects.strays import Keys, Kinds, Strays
from aurixel.plugin import Dialect
from aurixel.plugin.canonical import ChatCodec, Citation, Losses, Reply, Text, Thinking, ToolCall
from aurixel.values import Usage
from tests.dialects.messages_talk import PDF, PNG

MARK: Final = {"type": "ephemeral", "ttl": "1h"}
BREAK: Final = {"mode": "explicit"}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}}
DATA_URL: Final = f"data:image/png;base64,{PNG}"
SAID: Final = {"role": "user", "content": "Hi"}
CHAT: Final[dict[str, Any]] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]},
        {"role": "developer", "content": "d", "cache_control": MARK},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t", "prompt_cache_breakpoint": BREAK},
                {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}, "cache_control": MARK},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "n"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "t"}, {"type": "refusal", "refusal": "r"}],
            "refusal": None,
            "annotations": [],
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
            "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s", "index": 0}],
        },
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "t"}]},
        {"role": "tool", "tool_call_id": "2", "content": "t", "cache_control": MARK},
        {"role": "assistant", "content": None, "function_call": {"name": "h", "arguments": "{}"}},
        {"role": "function", "name": "h", "content": "x"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}, "cache_control": MARK},
        {
            "type": "custom",
            "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s"}}},
        },
    ],
    "functions": [{"name": "h", "parameters": SCHEMA}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
        },
    },
    "function_call": {"name": "h"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "stream": True,
    "stream_options": {"include_usage": True},
}
MESSAGES: Final[dict[str, Any]] = {
    "max_tokens": 3000,
    "system": [{"type": "text", "text": "s", "cache_control": MARK}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t", "cache_control": MARK},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}, "cache_control": MARK},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "title": "t"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}},
                {"type": "document", "source": {"type": "url", "url": "https://a.example/b"}, "citations": {"enabled": False}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "x", "citations": None},
                {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "j", "name": "f", "input": {}, "cache_control": MARK},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "r"}], "is_error": True},
                {"type": "tool_result", "tool_use_id": "j", "content": "r", "cache_control": MARK},
            ],
        },
    ],
    "tools": [{"name": "f", "type": "custom", "input_schema": SCHEMA, "strict": True, "cache_control": MARK}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u"},
    "cache_control": MARK,
}
RESPONSES: Final[dict[str, Any]] = {
    "input": [
        {"role": "developer", "content": "d"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "t", "prompt_cache_breakpoint": BREAK},
                {"type": "input_image", "image_url": DATA_URL, "detail": "low", "file_id": None},
                {"type": "input_file", "file_data": PDF, "filename": "n"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        {
            "type": "message",
            "id": "m",
            "status": "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "t",
                    "logprobs": [],
                    "annotations": [
                        {"type": "url_citation", "url": "https://a.example", "title": "t", "start_index": 0, "end_index": 1}
                    ],
                },
                {"type": "refusal", "refusal": "r"},
            ],
        },
        {"type": "function_call", "id": "c", "status": "completed", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "t"}]},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "x"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "late"}]},
    ],
    "tools": [
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
        {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "s"}},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
    "reasoning": {"effort": "high", "summary": "auto"},
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "stream": True,
    "stream_options": {"include_obfuscation": False},
}
WHOLE: Final[list[tuple[Dialect, dict[str, Any]]]] = [
    (OpenAIChat(), CHAT),
    (AnthropicMessages(), MESSAGES),
    (OpenAIResponses(), RESPONSES),
]
# Passed on as they are, whatever is in them.
PASSED: Final = {"input_schema", "schema", "parameters", "arguments"}


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is an object that a codec takes apart."""
    if isinstance(value, dict):
        if path:
            yield path
        for key, inner in value.items():
            if key not in PASSED and not (key == "input" and "name" in value):
                yield from objects(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from objects(inner, (*path, place))


def dropped(dialect: Dialect, fields: dict[str, Any]) -> list[str]:
    """The losses of reading it, all of which are to be dropped fields."""
    assert isinstance(dialect, ChatCodec)
    losses = Losses()
    dialect.read(dialect.parse_request(json.dumps({"model": "m", **fields}).encode(), {}), losses)
    assert not losses.emulated
    assert not losses.changed
    return list(losses.dropped)


PLACES: Final = [
    pytest.param(dialect, whole, path, id=f"{dialect.name}-{'.'.join(map(str, path))}")
    for dialect, whole in WHOLE
    for path in objects(whole)
]


@pytest.mark.parametrize(("dialect", "whole"), [pytest.param(*each, id=each[0].name) for each in WHOLE])
def test_what_is_known_is_no_stray(dialect: Dialect, whole: dict[str, Any]) -> None:
    assert dropped(dialect, whole) == []


@pytest.mark.parametrize(("dialect", "whole", "path"), PLACES)
def test_a_stray_is_told_wherever_it_stands(dialect: Dialect, whole: dict[str, Any], path: tuple[Any, ...]) -> None:
    body = json.loads(json.dumps(whole))
    found = body
    for key in path:
        found = found[key]
    found["made_up"] = None
    assert dropped(dialect, body) == []
    found["made_up"] = {"a": "value"}
    place = ".".join(key for key in path if isinstance(key, str))
    assert dropped(dialect, body) == [f"{place}.made_up"]


MISPLACED: Final[list[tuple[Dialect, dict[str, Any], list[str]]]] = [
    (
        OpenAIChat(),
        {"messages": [{**SAID, "tool_calls": []}, {"role": "assistant", "content": "x", "tool_call_id": "1", "audio": None}]},
        ["messages.tool_calls", "messages.tool_call_id"],
    ),
    (
        OpenAIChat(),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}], "cache_control": MARK}]},
        ["messages.cache_control"],
    ),
    (OpenAIChat(), {"messages": [SAID | {"a key": 1, "a\r\nb": 1}]}, [Losses.OTHER]),
    (
        AnthropicMessages(),
        {
            "max_tokens": 9,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "title": "t", "name": None}]}],
        },
        ["messages.content.title"],
    ),
    (
        AnthropicMessages(),
        {
            "max_tokens": 9,
            "messages": [
                {"role": "assistant", "content": [{"type": "server_tool_use", "id": "1", "name": "web_search", "odd": 1}]},
                SAID,
            ],
        },
        ["messages.server_tool_use"],
    ),
    (
        OpenAIResponses(),
        {
            "input": [
                SAID,
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "x", "annotations": [{"type": "file_path"}]}],
                },
            ]
        },
        ["citations"],
    ),
    (OpenAIResponses(), {"input": [SAID, {"type": "message", **SAID, "output": "x"}]}, ["input.output"]),
    (OpenAIResponses(), {"input": [{"type": "reasoning", "summary": [], "odd": 1}, SAID]}, []),
]


@pytest.mark.parametrize(("dialect", "fields", "names"), MISPLACED)
def test_a_known_word_in_a_place_that_is_not_its_own_is_a_stray(
    dialect: Dialect, fields: dict[str, Any], names: list[str]
) -> None:
    assert dropped(dialect, fields) == names


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        (1, "messages.content.source.content.made_up"),
        (2, "messages.content.source.content.source.content.made_up"),
        (3, Losses.OTHER),  # too long a name for a header
        (6, Losses.OTHER),  # not looked into so deep
    ],
)
def test_a_document_in_documents_is_looked_into(documents: int, told: str) -> None:
    block: dict[str, Any] = {"type": "text", "text": "x", "made_up": 1}
    for _ in range(documents):
        block = {"type": "document", "source": {"type": "content", "content": [block]}}
    losses = Losses()
    messages = AnthropicMessages()
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
    messages.read(messages.parse_request(json.dumps(body).encode(), {}), losses)
    assert list(losses.dropped) == [told]
    assert list(losses.changed) == ["messages.documents"]


@pytest.mark.parametrize("value", ['"text"', "7", "[]", "{}", '[{"kind":[]}]', '[{"kind":{}}]', '[{"kind":7}]', "[[[1]]]"])
def test_what_has_another_shape_is_left_to_the_codec(value: str) -> None:
    losses = Losses()
    Strays({"a": Kinds({"x": Keys("b")}, tag="kind")}).tell({"a": msgspec.Raw(value.encode())}, losses)
    assert not losses


ANSWER: Final = Reply(
    id="r",
    parts=(
        Thinking(text="hm", sealed="s", origin="anthropic_messages"),
        Text(text="x", citations=(Citation(url="https://a.example", title="t", start=0, end=1),)),
        ToolCall(id="call_1", name="f", arguments='{"a":1}'),
    ),
    stop="tool_use",
    usage=Usage({"input": 1, "output": 1}),
)


@pytest.mark.parametrize("dialect", [each for each, _ in WHOLE], ids=lambda dialect: dialect.name)
def test_an_answer_that_is_given_back_has_no_strays(dialect: Dialect) -> None:
    assert isinstance(dialect, ChatCodec)
    limit = {"max_tokens": 9} if dialect.name == "anthropic_messages" else {}
    field = "input" if dialect.name == "openai_responses" else "messages"
    asked = dialect.parse_request(json.dumps({"model": "m", **limit, field: [SAID]}).encode(), {})
    reply = json.loads(dialect.write_reply(ANSWER, asked))
    if dialect.name == "openai_responses":
        given = reply["output"]
    elif dialect.name == "openai_chat":
        given = [reply["choices"][0]["message"]]
    else:
        given = [{"role": reply["role"], "content": reply["content"]}]
    told = dropped(dialect, {**limit, field: [SAID, *given]})
    assert told == (["citations"] if dialect.name == "openai_chat" else [])  # which this dialect cannot give back
