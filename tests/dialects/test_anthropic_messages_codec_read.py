"""The codec of `anthropic_messages` on requests read, and what it refuses to read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aurixel.dialects.carriers import carried
from aurixel.errors import ClientError
from aurixel.plugin.canonical import (
    Citation,
    Conversation,
    Document,
    Format,
    Image,
    Message,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.messages_talk import (
    OWN,
    PDF,
    PNG,
    answered,
    lost,
    read,
    said,
    told,
)


def test_a_request_of_a_coding_client() -> None:
    conversation, losses = read(
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: v=1"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        thinking={"type": "adaptive", "display": "omitted"},
        output_config={"effort": "high"},
        context_management={"edits": []},
        metadata={"user_id": "u"},
        stop_sequences=["#"],
        temperature=1,
        top_k=5,
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        cache_control={"type": "ephemeral"},
    )
    assert conversation == Conversation(
        model="m",
        messages=(Message(role="system", parts=(Text(text="Be brief.", cache="1h"),)), said("Hi")),
        tools=(Tool(name="f", description="d", schema=msgspec.Raw(b'{"type": "object"}'), cache="5m"),),
        tool_choice=ToolChoice(),
        parallel_tools=False,
        max_output=100,
        temperature=1.0,
        top_k=5,
        stop=("#",),
        reasoning=Reasoning(enabled=True, effort="high", shown=False),
        user="u",
        cache="5m",
    )
    assert lost(losses) == {"dropped": ["context_management"]}


def test_turns_are_merged_and_results_come_first() -> None:
    conversation, losses = read(
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {"b": 1}}]},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "x",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "t"},
                            {"type": "image", "source": {"type": "url", "url": "https://example.org/a"}},
                        ],
                    },
                    {"type": "text", "text": "", "cache_control": None},
                ],
            },
            {"role": "assistant", "content": ""},
            {"role": "system", "content": "Late"},
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}],
            },
        ]
    )
    assert conversation.messages == (
        said("a"),
        answered(ToolCall(id="x", name="f", arguments='{"b": 1}')),
        said(ToolResult(id="x", failed=True, parts=(Text(text="t"), Image(url="https://example.org/a"))), "b"),
        told("Late"),
        said(Image(data=PNG, media_type="image/png")),
    )
    assert not losses


def test_thinking_of_whatever_origin_is_read() -> None:
    conversation, _ = read(
        messages=[
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "", "signature": "Eq=="},
                    {"type": "redacted_thinking", "data": "Em=="},
                    {"type": "thinking", "thinking": "t", "signature": carried("openai_chat", None)},
                    {"type": "redacted_thinking", "data": carried("openai_responses", "s")},
                    {"type": "text", "text": "x"},
                ],
            },
        ]
    )
    assert conversation.messages[1].parts == (
        Thinking(sealed="Eq==", origin=OWN, at=0),
        Thinking(sealed="Em==", hidden=True, origin=OWN, at=1),
        Thinking(text="t", origin="openai_chat", at=2),
        Thinking(sealed="s", hidden=True, origin="openai_responses", at=3),
        Text(text="x"),
    )


def test_documents_and_search_results_are_read() -> None:
    conversation, losses = read(
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "title": "t",
                        "context": "c",
                        "citations": {"enabled": True},
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
                    {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "y"}]}},
                    {
                        "type": "search_result",
                        "source": "https://example.org",
                        "title": "T",
                        "content": [{"type": "text", "text": "z"}],
                    },
                ],
            }
        ]
    )
    assert conversation.messages == (
        said(
            Document(data=PDF, media_type="application/pdf", name="t"),
            Document(text="x", media_type="text/plain"),
            Document(url="https://example.org/a.pdf"),
            Document(text="y", media_type="text/plain"),
            Text(text="T\nhttps://example.org\nz"),
        ),
    )
    assert lost(losses) == {
        "dropped": ["messages.documents.context", "citations"],
        "emulated": ["messages.search_result"],
        "changed": ["messages.documents"],
    }


def test_citations_with_a_url_are_read() -> None:
    block = {
        "type": "text",
        "text": "x",
        "citations": [
            {"type": "web_search_result_location", "url": "https://example.org", "title": "T", "encrypted_index": "i"},
            {"type": "char_location", "document_index": 0},
        ],
    }
    conversation, losses = read(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": [block]}])
    assert conversation.messages[1].parts == (Text(text="x", citations=(Citation(url="https://example.org", title="T"),)),)
    assert lost(losses) == {"dropped": ["citations"]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, Reasoning(enabled=False)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(enabled=True, budget=2048)),
        ({"output_config": {"effort": "max"}}, Reasoning(effort="max")),
        ({"thinking": None, "output_config": {"effort": None}}, None),
    ],
)
def test_thinking_asked_for(body: dict[str, Any], expected: Reasoning | None) -> None:
    assert read(**body)[0].reasoning == expected


def test_a_format_is_read() -> None:
    conversation, losses = read(
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "task_budget": {}}
    )
    assert conversation.format == Format(kind="json_schema", schema=msgspec.Raw(b'{"type": "object"}'), strict=True)
    assert lost(losses) == {"dropped": ["output_config.task_budget"]}


def test_what_the_upstreams_tools_left_is_dropped() -> None:
    history = [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "text", "text": "b"},
            ],
        },
    ]
    conversation, losses = read(messages=history)
    assert conversation.messages[1] == answered("b")
    assert lost(losses) == {"dropped": ["messages.server_tool_use"]}


def message(**block: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [block]}]}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "unsupported_parameter", "tools"),
        ({"mcp_servers": [{}]}, "unsupported_parameter", "mcp_servers"),
        ({"max_tokens": 0}, "unsupported_parameter", "max_tokens"),
        ({"tools": [{"input_schema": {}}]}, "invalid_request", "tools"),
        ({"tools": [{"name": 7}]}, "invalid_request", "tools"),
        ({"tool_choice": {"type": "tool"}}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "invalid_request", "tool_choice"),
        ({"tool_choice": "auto"}, "invalid_request", "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "invalid_request", "thinking"),
        ({"thinking": {"type": "so"}}, "invalid_request", "thinking"),
        ({"output_config": {"effort": "much"}}, "invalid_request", "output_config"),
        ({"output_config": {"format": {"type": "text"}}}, "invalid_request", "output_config"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"top_k": 0.5}, "invalid_request", "top_k"),
        ({"stop_sequences": "###"}, "invalid_request", "stop_sequences"),
        ({"metadata": []}, "invalid_request", "metadata"),
        ({"system": [{"type": "image", "source": {}}]}, "invalid_request", "system"),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_request", "messages"),
        ({"messages": [{"content": "a"}]}, "invalid_request", "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "invalid_request", "messages"),
        (message(type="tool_use", id="a", input={}), "invalid_request", "messages"),
        (message(type="tool_use", id="a", name="f", input=[]), "invalid_request", "messages"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "invalid_request", "tools"),
        (message(type="text"), "invalid_request", "messages"),
        (message(type="text", text="a", citations=[7]), "invalid_request", "messages"),
        (message(type="image"), "invalid_request", "messages"),
        (message(type="document", source={"type": "base64"}), "invalid_request", "messages"),
        (message(type="document"), "invalid_request", "messages"),
        (message(type="redacted_thinking"), "invalid_request", "messages"),
        (message(type="compaction", content="a"), "unsupported_parameter", "messages"),
        (message(), "unsupported_parameter", "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "invalid_request", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": {}}]}]},
            "invalid_request",
            "messages",
        ),
    ],
)
def test_what_is_malformed_or_must_not_be_lost_is_refused(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**body)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_names_that_a_client_made_up_are_not_repeated_unless_they_are_names() -> None:
    _, losses = read(**{"made_up": 1, "a\r\nb": 1, "output_config": {"ä": 1}})
    assert lost(losses) == {"dropped": ["made_up", "(other)"]}
