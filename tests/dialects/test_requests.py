"""What the gateway learns from a request, what it refuses to pass on, and what it changes: nothing but what it must."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from aurixel.dialects.tiers import tier_fields
from aurixel.errors import ClientError
from aurixel.plugin.contracts import Changes, ParsedRequest
from tests.dialects.cases import DIALECTS

CHAT, MESSAGES, RESPONSES = DIALECTS["openai_chat"], DIALECTS["anthropic_messages"], DIALECTS["openai_responses"]
HI = [{"role": "user", "content": "hi"}]
PART = {"type": "text", "text": "hi"}


def chat(**fields: Any) -> ParsedRequest:
    return CHAT.parse_request(json.dumps({"model": "m", "messages": HI, **fields}).encode(), {})


def messages(headers: dict[str, str] | None = None, **fields: Any) -> ParsedRequest:
    return MESSAGES.parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": HI, **fields}).encode(), headers or {})


def responses(**fields: Any) -> ParsedRequest:
    return RESPONSES.parse_request(json.dumps({"model": "m", "input": "hi", **fields}).encode(), {})


def turn(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def sent(request: ParsedRequest, **changes: Any) -> bytes:
    return b"".join(DIALECTS[request.dialect].patch_request(request, Changes(model="up", **changes)))


# --- what is learnt -----------------------------------------------------------------------------------------------------


def test_a_plain_chat_request() -> None:
    request = chat()
    assert (request.dialect, request.model, request.stream, request.output_limit) == ("openai_chat", "m", False, None)
    assert (request.choices, request.asked_usage, request.needs) == (1, True, frozenset())


def test_a_plain_messages_request() -> None:
    request = messages(stream=True)
    assert (request.dialect, request.model, request.stream, request.output_limit) == ("anthropic_messages", "m", True, 9)
    assert (request.choices, request.asked_usage, request.needs) == (1, True, frozenset())
    assert messages(max_tokens=0).output_limit == 0  # fills the cache, and is legal


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": None}, 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 9),  # upstreams differ in which one they heed
        ({"max_completion_tokens": None}, None),
    ],
)
def test_the_output_limit_of_chat(fields: dict[str, Any], limit: int | None) -> None:
    assert chat(**fields).output_limit == limit


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"stream": False}, True),
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
    ],
)
def test_who_asked_for_usage(fields: dict[str, Any], asked: bool) -> None:
    assert chat(**fields).asked_usage is asked


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"n": 3, "service_tier": "auto", "store": False, "background": False, "prediction": {"type": "content"}}, set()),
        ({"service_tier": "default"}, set()),
        ({"modalities": ["text"]}, set()),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}, {"output_audio"}),
        ({"modalities": ["image", "text"]}, {"output_image"}),
        ({"web_search_options": {}}, {"tool_calls.web_search"}),
        ({"messages": turn({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})}, {"input_audio"}),
        ({"messages": turn({**PART, "prompt_cache_breakpoint": {"mode": "explicit"}})}, {"cache_write_5m"}),
        ({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}, {"cache_write_5m"}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]}, set()),
    ],
)
def test_what_chat_needs_prices_for(fields: dict[str, Any], needs: set[str]) -> None:
    assert chat(**fields).needs == needs


MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"service_tier": "auto", "speed": "standard", "inference_geo": "global", "container": None}, set()),
        ({"service_tier": "standard_only", "thinking": {"type": "adaptive"}}, set()),
        ({"cache_control": MARK}, {"cache_write_5m"}),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, {"cache_write_5m"}),
        ({"system": [{**PART, "cache_control": HOUR}]}, {"cache_write_1h"}),
        (
            {"messages": turn({**PART, "cache_control": MARK}, {**PART, "cache_control": HOUR})},
            {"cache_write_5m", "cache_write_1h"},
        ),
        ({"messages": turn({"type": "tool_result", "content": [{**PART, "cache_control": HOUR}]})}, {"cache_write_1h"}),
        ({"tools": [{"name": "f", "input_schema": {}, "cache_control": MARK}]}, {"cache_write_5m"}),
        ({"messages": [{"role": "user", "content": 'the word "cache_control"'}]}, set()),
        ({"tools": [{"type": "custom", "name": "f"}, {"type": "bash_20250124", "name": "bash"}]}, set()),
        ({"tools": [{"type": "text_editor_20250728", "name": "e"}, {"type": "tool_search_tool_regex_20251119"}]}, set()),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"tool_calls.web_search"}),
        (
            {"tools": [{"type": "web_fetch_20260209"}, {"type": "code_execution_20250825"}]},
            {"tool_calls.web_fetch", "tool_calls.code_execution"},
        ),
        ({"tools": [{"type": "something_new_20270101"}]}, {"tool_calls.something_new"}),
    ],
)
def test_what_messages_need_prices_for(fields: dict[str, Any], needs: set[str]) -> None:
    assert messages(**fields).needs == needs


FUNCTION = {"type": "function", "name": "f"}
SEARCH = {"type": "web_search", "search_context_size": "low"}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"service_tier": "auto", "store": True, "background": False, "reasoning": {"effort": "high"}}, set()),
        ({"previous_response_id": None, "conversation": None, "include": ["reasoning.encrypted_content"]}, set()),
        ({"tools": [FUNCTION, {"type": "custom", "name": "g"}, {"type": "namespace", "tools": [FUNCTION]}]}, set()),
        ({"tools": [{"type": "local_shell"}, {"type": "tool_search", "execution": "client"}]}, set()),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []}]}, set()),
        ({"input": [{"role": "user", "content": "the word file_id"}, {"type": "function_call", "id": "fc_1"}]}, set()),
        ({"tools": [SEARCH]}, {"tool_calls.web_search"}),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, {"tool_calls.web_search"}),
        ({"input": [{"type": "additional_tools", "role": "developer", "tools": [SEARCH]}]}, {"tool_calls.web_search"}),
        (
            {"input": turn({"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}})},
            {"cache_write_5m"},
        ),
        ({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}, {"cache_write_5m"}),
    ],
)
def test_what_responses_need_prices_for(fields: dict[str, Any], needs: set[str]) -> None:
    assert responses(**fields).needs == needs


def test_a_plain_response_request() -> None:
    request = responses(stream=True, max_output_tokens=5)
    assert (request.dialect, request.model, request.stream, request.output_limit) == ("openai_responses", "m", True, 5)
    assert (request.choices, request.asked_usage, request.needs) == (1, True, frozenset())
    assert responses().output_limit is None


def test_how_often_a_response_may_search() -> None:
    assert responses(tools=[SEARCH], max_tool_calls=3).calls == {"tool_calls.web_search": 3}
    assert responses(tools=[SEARCH], max_tool_calls=10**6).calls == {"tool_calls.web_search": 1000}
    assert responses(max_tool_calls=3).calls == responses(tools=[SEARCH]).calls == {}


def test_how_often_a_hosted_tool_may_run() -> None:
    request = messages(tools=[{"type": "web_search_20250305", "max_uses": 3}, {"type": "web_fetch_20250910"}])
    assert request.calls == {"tool_calls.web_search": 3}


@pytest.mark.parametrize("ask", [chat, responses, messages])
@pytest.mark.parametrize(
    ("word", "tier"),
    [
        (None, ""),
        ("auto", ""),
        ("default", ""),
        ("standard", ""),
        ("standard_only", ""),
        ("flex", "flex"),
        ("Priority", "Priority"),
        ("", "?"),
        ("no name", "?"),
        ("x" * 65, "?"),
        ("a.b", "?"),
    ],
)
def test_the_tier_that_is_asked_for(ask: Callable[..., ParsedRequest], word: str | None, tier: str) -> None:
    """What is no name of a tier is one that nothing prices, and never the plain one."""
    assert ask(service_tier=word).tier == tier
    assert tier_fields(ask(service_tier=word).fields) == (("service_tier",) if tier else ())


def test_a_speed_is_a_tier_and_both_are_one_of_their_own() -> None:
    assert messages(speed="fast").tier == "fast"
    assert messages(speed="standard", service_tier="auto").tier == ""
    both = messages(speed="fast", service_tier="priority")
    assert (both.tier, tier_fields(both.fields)) == ("priority-fast", ("service_tier", "speed"))


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"store": True}, "unpriced_feature", "store"),
        ({"background": True}, "unpriced_feature", "background"),
        ({"modalities": ["smell"]}, "unpriced_feature", "modalities"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "unpriced_feature", "prompt_cache_options"),
        ({"messages": turn({**PART, "prompt_cache_breakpoint": {"ttl": "12h"}})}, "unpriced_feature", "messages"),
        ({"tools": [{"type": "web_search"}]}, "unpriced_feature", "tools"),
        ({"messages": turn({"type": "file", "file": {"file_id": "file-1"}})}, "unsupported_parameter", "messages"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "unsupported_parameter", "messages"),
    ],
)
def test_what_chat_refuses(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        chat(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"reasoning": {"mode": "pro"}}, "unpriced_feature", "reasoning"),
        ({"modalities": ["text", "audio"]}, "unpriced_feature", "modalities"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "unpriced_feature", "prompt_cache_options"),
        ({"prompt_cache_options": {"comparison_response_id": "resp_1"}}, "unsupported_parameter", "prompt_cache_options"),
        ({"input": turn({"type": "input_text", "prompt_cache_breakpoint": {"ttl": "12h"}})}, "unpriced_feature", "input"),
        *(
            ({"tools": [FUNCTION, {"type": kind}]}, "unpriced_feature", "tools")
            for kind in ("image_generation", "file_search", "code_interpreter", "computer", "mcp", "shell", "apply_patch")
        ),
        ({"tools": [{"type": "tool_search", "execution": "server"}]}, "unpriced_feature", "tools"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, "unpriced_feature", "tools"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}, "unpriced_feature", "input"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"background_options": {"completion_window": "8h"}}, "unsupported_parameter", "background_options"),
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"conversation": {"id": "conv_1"}}, "unsupported_parameter", "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_parameter", "input"),
        ({"input": [{"id": "msg_1"}]}, "unsupported_parameter", "input"),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, "unsupported_parameter", "input"),
        ({"input": [{"type": "anything", "container_id": "cntr_1"}]}, "unsupported_parameter", "input"),
        ({"input": turn({"type": "input_image", "file_id": "file-1"})}, "unsupported_parameter", "input"),
        ({"input": turn({"type": "input_file", "file_id": "file-1"})}, "unsupported_parameter", "input"),
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "file-1"}]}]},
            "unsupported_parameter",
            "input",
        ),
        (
            {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}}]},
            "unsupported_parameter",
            "input",
        ),
    ],
)
def test_what_responses_refuse(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        responses(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


FILE = {"type": "file", "file_id": "file_1"}


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"inference_geo": "us"}, "unpriced_feature", "inference_geo"),
        ({"cache_control": {"type": "ephemeral", "ttl": "24h"}}, "unpriced_feature", "cache_control"),
        ({"headers": {"anthropic-beta": "a-1, context-1m-2025-08-07"}}, "unpriced_feature", "anthropic-beta"),
        ({"headers": {"anthropic-beta": "server-side-fallback-2026-07-01"}}, "unpriced_feature", "anthropic-beta"),
        ({"container": "container_1"}, "unsupported_parameter", "container"),
        ({"messages": turn({"type": "container_upload", "file_id": "f"})}, "unsupported_parameter", "messages"),
        ({"messages": turn({"type": "image", "source": FILE})}, "unsupported_parameter", "messages"),
        (
            {"messages": turn({"type": "tool_result", "content": [{"type": "document", "source": FILE}]})},
            "unsupported_parameter",
            "messages",
        ),
    ],
)
def test_what_messages_refuse(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        messages(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_other_betas_pass() -> None:
    assert messages(headers={"anthropic-beta": "interleaved-thinking-2025-05-14,fast-mode-2026-02-01"}).model == "m"


# --- what is sent ---------------------------------------------------------------------------------------------------------


def test_everything_else_is_sent_as_it_was_written() -> None:
    body = (
        b'{ "temperature" : 1.50, "messages":[ {"role":"user", "content":"caf\\u00e9 \xe8\xaa\x9e","x":1e2} ],\n'
        b'"model":"m","vendor_field": {"b":1,  "a":[1, 2.0]},"metadata":{"k":"v"}, "big": 123456789012345678901234567890 }'
    )
    request = CHAT.parse_request(body, {})
    assert sent(request) == (
        b'{"temperature":1.50,"messages":[ {"role":"user", "content":"caf\\u00e9 \xe8\xaa\x9e","x":1e2} ],'
        b'"vendor_field":{"b":1,  "a":[1, 2.0]},"metadata":{"k":"v"},"big":123456789012345678901234567890,"model":"up"}'
    )


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        (
            {"stream_options": {"include_obfuscation": False, "x": [1]}},
            {"include_obfuscation": False, "x": [1], "include_usage": True},
        ),
    ],
)
def test_usage_is_always_asked_for(given: dict[str, Any], options: dict[str, Any]) -> None:
    body = json.loads(sent(chat(stream=True, **given)))
    assert body == {"messages": HI, "stream": True, "stream_options": options, "model": "up"}


def test_without_a_stream_no_options_are_added() -> None:
    assert json.loads(sent(chat())) == {"messages": HI, "model": "up"}
    assert json.loads(sent(messages(stream=True))) == {"messages": HI, "max_tokens": 9, "stream": True, "model": "up"}


@pytest.mark.parametrize("fields", [{}, {"store": None}, {"store": True}, {"store": False}])
def test_nothing_is_kept_of_a_response(fields: dict[str, Any]) -> None:
    assert json.loads(sent(responses(**fields))) == {"input": "hi", "store": False, "model": "up"}
    assert json.loads(sent(responses(**fields), output_limit=7))["max_output_tokens"] == 7


@pytest.mark.parametrize("field", ["billing_policy", "user_profile_id", "workspace_id"])
def test_what_moves_the_bill_is_dropped(field: str) -> None:
    assert field.encode() not in sent(chat(**{field: "x"})) + sent(messages(**{field: "x"})) + sent(responses(**{field: "x"}))


@pytest.mark.parametrize(("word", "field"), [(None, "max_completion_tokens"), ("max_tokens", "max_tokens")])
def test_an_output_limit_is_set_in_the_providers_word(word: str | None, field: str) -> None:
    body = sent(chat(max_tokens=None), output_limit=77, output_limit_field=word)
    assert json.loads(body)[field] == 77
    assert body.count(field.encode()) == 1


@pytest.mark.parametrize("word", [None, "max_tokens", "max_completion_tokens"])
def test_a_dialect_with_one_word_for_the_output_limit_keeps_it(word: str | None) -> None:
    limits = {"output_limit": 77, "output_limit_field": word}
    assert json.loads(sent(responses(), **limits)) == {"input": "hi", "store": False, "model": "up", "max_output_tokens": 77}
    body = json.loads(sent(messages(), **limits))
    assert {name: value for name, value in body.items() if name.startswith("max")} == {"max_tokens": 77}


@pytest.mark.parametrize(
    ("word", "given", "gone"),
    [
        ("max_tokens", {"max_completion_tokens": 9}, {"max_tokens": 9}),
        ("max_tokens", {"max_completion_tokens": 9, "max_tokens": 8}, {"max_completion_tokens": 9, "max_tokens": 8}),
        ("max_completion_tokens", {"max_tokens": 9}, {"max_tokens": 9}),
        (None, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
    ],
)
def test_a_vendor_that_knows_the_older_word_alone_is_told_the_clients_limit_in_it(
    word: str | None, given: dict[str, int], gone: dict[str, int]
) -> None:
    body = json.loads(sent(chat(**given), output_limit_field=word))
    assert {name: value for name, value in body.items() if name.startswith("max")} == gone


def test_no_key_is_sent_twice() -> None:
    request = chat(stream=True, stream_options={"include_usage": True})
    pairs = json.loads(sent(request, output_limit=5), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
