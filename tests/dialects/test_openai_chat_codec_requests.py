"""Requests of `openai_chat` to and from the canonical form: each field that has a name there, and each that has none.

It stays whole: reading and writing are tables over the same few helpers.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aurixel.dialects import OpenAIChat
from aurixel.dialects.carriers import carried
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
    Sound,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.plugin.contracts import MODEL_TRAITS, ModelRules

CHAT = OpenAIChat()
PLAIN = ModelRules(context=200_000, max_output=8192)
ABLE = ModelRules(
    context=200_000,
    max_output=8192,
    traits=frozenset({"custom_tools", "reasoning", "reasoning_content", "system_turns"}),
)
USER = {"role": "user", "content": "x"}
RAW = msgspec.Raw


def read(losses: Losses | None = None, **fields: Any) -> Conversation:
    body = {"model": "m", "messages": [USER], **fields}
    request = CHAT.parse_request(json.dumps(body, separators=(",", ":")).encode(), {})
    return CHAT.read(request, Losses(CHAT.words) if losses is None else losses)


def turns(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return read(messages=list(messages)).messages


def write(rules: ModelRules = PLAIN, losses: Losses | None = None, **fields: Any) -> dict[str, Any]:
    fields = {"messages": (said("user", Text(text="x")),), **fields}
    written = CHAT.write(Conversation(model="m", **fields), rules, Losses() if losses is None else losses)
    return json.loads(written.body)


def said(role: Any, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


# --- read ---------------------------------------------------------------------------------------------------------------

READ: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("limit", {"max_tokens": 5}, {"max_output": 5}),
    ("limit_two_words", {"max_tokens": 5, "max_completion_tokens": 4}, {"max_output": 4}),
    ("sampling", {"temperature": 1, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
    ("penalties", {"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1.0, "frequency_penalty": -1.0}),
    ("stop_one", {"stop": "a"}, {"stop": ("a",)}),
    ("stop_list", {"stop": ["a", "b"]}, {"stop": ("a", "b")}),
    ("null", {"stop": None, "temperature": None, "tools": None, "unheard_of": None}, {}),
    ("seed", {"seed": 7}, {"seed": 7}),
    ("bias", {"logit_bias": {"1": 2}}, {"logit_bias": RAW(b'{"1":2}')}),
    ("logprobs", {"logprobs": True}, {"logprobs": 0}),
    ("logprobs_top", {"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
    ("logprobs_off", {"logprobs": False, "top_logprobs": 0}, {}),
    ("effort", {"reasoning_effort": "xhigh"}, {"reasoning": Reasoning(enabled=True, effort="xhigh")}),
    ("effort_none", {"reasoning_effort": "none"}, {"reasoning": Reasoning(enabled=False, effort="none")}),
    ("verbosity", {"verbosity": "low"}, {"verbosity": "low"}),
    ("user", {"user": "u"}, {"user": "u"}),
    ("user_two_words", {"safety_identifier": "s", "user": "u"}, {"user": "s"}),
    ("cache_key", {"prompt_cache_key": "k"}, {"cache_key": "k"}),
    ("cache", {"prompt_cache_options": {"ttl": "30m"}}, {"cache": "5m"}),
    ("cache_explicit", {"prompt_cache_options": {"mode": "explicit"}}, {}),
    ("parallel", {"parallel_tool_calls": False}, {"parallel_tools": False}),
    ("format_text", {"response_format": {"type": "text"}}, {}),
    ("format_object", {"response_format": {"type": "json_object"}}, {"format": Format(kind="json_object")}),
    (
        "format_schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}}},
        {"format": Format(kind="json_schema", name="n", schema=RAW(b'{"a":1}'), strict=True)},
    ),
    (
        "tools",
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}, "strict": True}},
                {"type": "function", "function": {"name": "g", "parameters": None}},
                {"type": "custom", "custom": {"name": "h", "format": {"type": "text"}}},
            ],
        },
        {
            "tools": (
                Tool(name="f", description="d", schema=RAW(b'{"a":1}'), strict=True),
                Tool(name="g"),
                Tool(name="h", custom=True, grammar=RAW(b'{"type":"text"}')),
            )
        },
    ),
    (
        "functions",
        {"functions": [{"name": "f", "parameters": {"a": 1}}], "function_call": {"name": "f"}},
        {
            "tools": (Tool(name="f", schema=RAW(b'{"a":1}')),),
            "tool_choice": ToolChoice(mode="tool", name="f"),
            "parallel_tools": False,
        },
    ),
    ("choice_auto", {"tool_choice": "auto"}, {"tool_choice": ToolChoice()}),
    ("choice_none", {"tool_choice": "none"}, {"tool_choice": ToolChoice(mode="none")}),
    ("choice_any", {"tool_choice": "required"}, {"tool_choice": ToolChoice(mode="any")}),
    (
        "choice_tool",
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": ToolChoice(mode="tool", name="f")},
    ),
    (
        "choice_custom",
        {"tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        {"tool_choice": ToolChoice(mode="tool", name="f")},
    ),
    (
        "choice_allowed",
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            }
        },
        {"tool_choice": ToolChoice(mode="any", allowed=("f",))},
    ),
    (
        "transport",
        {"store": False, "service_tier": "default", "n": 1, "modalities": ["text"]},
        {},
    ),
]


@pytest.mark.parametrize(("fields", "wanted"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_a_field_is_read(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    losses = Losses(CHAT.words)
    assert read(losses, **fields) == Conversation(model="m", messages=(said("user", Text(text="x")),), **wanted)
    assert not losses


def test_what_has_no_name_is_told() -> None:
    losses = Losses(CHAT.words)
    odd = {"prediction": {"type": "content"}, "prompt_cache_retention": "24h", "a\r\nb": 1, "n" * 65: 1}
    read(losses, messages=[{**USER, "name": "n"}], **odd)
    assert list(losses.dropped) == ["prediction", "prompt_cache_retention", "(other)", "messages.name"]
    assert not losses.emulated
    assert not losses.changed


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        ([0, 0, 0], "abcx"),
        ([1, 0, 2], "bacx"),
        ([2, 0, None], "bxac"),
        ([10**15, -5, 1], "bcxa"),
        ([3, 2, 1], "xcba"),
    ],
)
def test_thinking_stands_where_its_index_says(places: list[int | None], wanted: str) -> None:
    """Also where a client made the indices up: in their order, those of the same one as they came."""
    block = {"type": "thinking", "signature": "S"}
    blocks = [{**block, "thinking": text, "index": place} for text, place in zip("abc", places, strict=True)]
    (turn,) = turns({"role": "assistant", "content": "x", "thinking_blocks": blocks})
    parts = [part for part in turn.parts if isinstance(part, Text | Thinking)]
    assert "".join(part.text for part in parts) == wanted
    assert [part.at for part in parts if isinstance(part, Thinking)] == [at for at, text in enumerate(wanted) if text != "x"]


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("choices", {"n": 2}, "unsupported_parameter", "n"),
    ("audio", {"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ("search", {"web_search_options": {}}, "unsupported_parameter", "web_search_options"),
    ("format", {"response_format": {"type": "grammar"}}, "unsupported_parameter", "response_format"),
    ("format_empty", {"response_format": {"type": "json_schema"}}, "unsupported_parameter", "response_format"),
    (
        "schema",
        {"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
        "invalid_request",
        "response_format",
    ),
    ("temperature", {"temperature": "hot"}, "invalid_request", "temperature"),
    ("stop", {"stop": [1]}, "invalid_request", "stop"),
    ("seed", {"seed": 10**40}, "invalid_request", "seed"),
    ("effort", {"reasoning_effort": "some"}, "invalid_request", "reasoning_effort"),
    ("bias", {"logit_bias": [1]}, "invalid_request", "logit_bias"),
    ("top", {"logprobs": True, "top_logprobs": -1}, "invalid_request", "top_logprobs"),
    ("tool_nameless", {"tools": [{"type": "function", "function": {}}]}, "invalid_request", "tools"),
    ("tool_empty", {"tools": [{"type": "custom", "function": {"name": "f"}}]}, "invalid_request", "tools"),
    ("tool_schema", {"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, "invalid_request", "tools"),
    ("function_nameless", {"functions": [{}]}, "invalid_request", "functions"),
    ("choice_word", {"tool_choice": "some"}, "invalid_request", "tool_choice"),
    ("choice_empty", {"tool_choice": {"type": "function"}}, "invalid_request", "tool_choice"),
    (
        "choice_allowed",
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none"}}},
        "invalid_request",
        "tool_choice",
    ),
    ("role", {"messages": [{"role": "nobody", "content": "x"}]}, "invalid_request", "messages"),
    ("no_content", {"messages": [{"role": "user"}]}, "invalid_request", "messages"),
    ("result_of_nothing", {"messages": [{"role": "tool", "content": "x"}]}, "invalid_request", "messages"),
    ("result_unknown", {"messages": [{"role": "function", "name": "f", "content": "x"}]}, "invalid_request", "messages"),
    ("call_nameless", {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "invalid_request", "messages"),
    (
        "call_without_id",
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
        "invalid_request",
        "messages",
    ),
    ("thinking", {"messages": [{"role": "assistant", "thinking_blocks": [{"type": "x"}]}]}, "invalid_request", "messages"),
    ("part_unknown", {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "unsupported_parameter", "messages"),
    ("part_empty", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid_request", "messages"),
    (
        "part_misplaced",
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": "http://x"}]}]},
        "invalid_request",
        "messages",
    ),
    (
        "image_no_url",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}]},
        "invalid_request",
        "messages",
    ),
    (
        "image_data",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
        "invalid_request",
        "messages",
    ),
    ("file_empty", {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "invalid_request", "messages"),
]


@pytest.mark.parametrize(("fields", "code", "param"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_must_not_be_lost_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_instructions_keep_their_place() -> None:
    assert turns(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        USER,
        {"role": "system", "content": "c"},
    ) == (
        said("system", Text(text="a")),
        said("system", Text(text="b")),
        said("user", Text(text="x")),
        said("system", Text(text="c")),
    )


def test_a_run_of_results_is_one_turn_with_what_the_user_says_next() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    free = {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "text"}}
    assert turns(
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call, free]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "next"},
    ) == (
        said("user", Text(text="x")),
        said(
            "assistant",
            ToolCall(id="c1", name="f", arguments='{"a":1}'),
            ToolCall(id="c2", name="g", arguments="text", custom=True),
        ),
        said(
            "user",
            ToolResult(id="c1", parts=(Text(text="one"),)),
            ToolResult(id="c2", parts=(Text(text="two"),), custom=True),
            Text(text="next"),
        ),
    )


def test_a_result_may_hold_an_image() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "seen"}, image]}
    assert turns(USER, {"role": "assistant", "tool_calls": [call]}, answer)[2] == said(
        "user", ToolResult(id="c1", parts=(Text(text="seen"), Image(data="AAAA", media_type="image/png")))
    )


def test_a_result_goes_before_what_the_user_said_meanwhile() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    found = turns(
        USER, {"role": "assistant", "tool_calls": [call]}, USER, {"role": "tool", "tool_call_id": "c1", "content": ""}
    )
    assert found[1:] == (said("assistant", ToolCall(id="c1", name="f")), said("user", ToolResult(id="c1"), Text(text="x")))


def test_neighbours_of_one_role_are_one_turn() -> None:
    assert turns(
        USER, USER, {"role": "assistant", "content": "a"}, {"role": "assistant"}, {"role": "assistant", "content": "b"}
    ) == (
        said("user", Text(text="x"), Text(text="x")),
        said("assistant", Text(text="a"), Text(text="b")),
    )


def test_marks_on_whole_messages() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    assert turns({"role": "system", "content": "a", "cache_control": mark}, USER)[0] == said(
        "system", Text(text="a", cache="1h")
    )


def test_functions_of_old_get_ids() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = {"role": "function", "name": "f", "content": "r"}
    assert turns(USER, call, answer, call, answer)[1:] == (
        said("assistant", ToolCall(id="call_1", name="f", arguments="{}")),
        said("user", ToolResult(id="call_1", parts=(Text(text="r"),))),
        said("assistant", ToolCall(id="call_2", name="f", arguments="{}")),
        said("user", ToolResult(id="call_2", parts=(Text(text="r"),))),
    )


def test_parts_of_every_kind() -> None:
    content = [
        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": "https://example.com/b.png"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
        {"type": "file", "file": {"file_data": "BBBB"}},
        {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
    ]
    assert turns({"role": "user", "content": content}) == (
        said(
            "user",
            Text(text="a", cache="5m"),
            Text(text="b", cache="1h"),
            Image(data="AAAA", media_type="image/png", detail="low"),
            Image(url="https://example.com/a.png"),
            Image(url="https://example.com/b.png"),
            Document(data="BBBB", media_type="application/pdf", name="a.pdf"),
            Document(data="BBBB", media_type="application/pdf"),
            Sound(data="CCCC", format="wav"),
        ),
    )


def test_refusals_are_read_from_both_places() -> None:
    listed = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]}
    assert turns(USER, listed)[1] == said("assistant", Text(text="a"), Refusal(text="no"))
    assert turns(USER, {"role": "assistant", "content": None, "refusal": "no"})[1] == said("assistant", Refusal(text="no"))


def test_thinking_goes_back_to_its_place() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "SIG=", "index": 0},
        {"type": "redacted_thinking", "data": "DATA", "index": 2, "offset": 3},
        {"type": "thinking", "thinking": "", "signature": carried("openai_responses", '{"id":"rs"}'), "index": 4, "offset": 6},
    ]
    message = {
        "role": "assistant",
        "content": "onetwo",
        "tool_calls": [call],
        "reasoning_content": "hm",
        "thinking_blocks": blocks,
    }
    assert turns(USER, message)[1] == said(
        "assistant",
        Thinking(text="hm", sealed="SIG=", origin="anthropic_messages", at=0),
        Text(text="one"),
        Thinking(sealed="DATA", hidden=True, origin="anthropic_messages", at=2),
        Text(text="two"),
        Thinking(sealed='{"id":"rs"}', origin="openai_responses", at=4),
        ToolCall(id="c1", name="f", arguments="{}"),
    )


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning"])
def test_thinking_without_a_carrier_is_this_dialects_own(word: str) -> None:
    assert turns(USER, {"role": "assistant", "content": "a", word: "hm"})[1] == said(
        "assistant", Thinking(text="hm", origin="openai_chat", at=0), Text(text="a")
    )


# --- written ------------------------------------------------------------------------------------------------------------


def test_losses_of_plain_fields() -> None:
    losses = Losses()
    body = write(
        ModelRules(context=100, max_output=50, traits=frozenset({"no_sampling"})),
        losses,
        max_output=100,
        temperature=0.5,
        top_p=0.5,
        top_k=5,
        stop=("a", "b", "c", "d", "e"),
        cache="5m",
        reasoning=Reasoning(enabled=True, budget=4000),
    )
    assert body == {"model": "m", "messages": [USER], "max_completion_tokens": 50, "stop": ["a", "b", "c", "d"]}
    assert list(losses.dropped) == ["temperature", "top_p", "top_k", "cache", "reasoning"]
    assert list(losses.changed) == ["max_output", "stop"]


@pytest.mark.parametrize(
    ("asked", "effort", "changed"),
    [
        (Reasoning(enabled=True, effort="max"), "max", False),
        (Reasoning(enabled=True, effort="low", budget=9000), "low", False),
        (Reasoning(enabled=True, budget=1024), "low", True),
        (Reasoning(enabled=True, budget=2048), "medium", True),
        (Reasoning(enabled=True, budget=8192), "high", True),
        (Reasoning(enabled=True), None, False),
        (Reasoning(enabled=False), "none", False),
    ],
)
def test_effort(asked: Reasoning, effort: str | None, changed: bool) -> None:
    losses = Losses()
    assert write(ABLE, losses, reasoning=asked).get("reasoning_effort") == effort
    assert list(losses.changed) == ["reasoning"] * changed
    assert not losses.dropped


def test_a_model_that_does_not_think_is_not_told_not_to() -> None:
    losses = Losses()
    assert "reasoning_effort" not in write(PLAIN, losses, reasoning=Reasoning(enabled=False))
    assert not losses


def test_the_end_user_is_not_named() -> None:
    body = write(user="ada@example.com")
    assert len(body["safety_identifier"]) == 32
    assert "ada" not in json.dumps(body)
    assert body == write(user="ada@example.com")
    assert body != write(user="bob@example.com")


def test_results_come_first_and_their_images_after() -> None:
    losses = Losses()
    image, file = Image(data="AAAA", media_type="image/png"), Document(data="BBBB", media_type="application/pdf")
    result = ToolResult(id="c1", parts=(Text(text="seen"), image, file), failed=True)
    body = write(PLAIN, losses, messages=(said("user", result, ToolResult(id="c2"), Text(text="go on")),))
    first, second, third = body["messages"]
    assert (first["role"], first["tool_call_id"]) == ("tool", "c1")
    assert first["content"].startswith("Error: seen")
    assert second == {"role": "tool", "tool_call_id": "c2", "content": ""}
    assert third["role"] == "user"
    assert [part["type"] for part in third["content"]] == ["text", "image_url", "file", "text"]
    assert "c1" in third["content"][0]["text"]
    assert third["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert third["content"][3]["text"] == "go on"
    assert list(losses.emulated) == ["messages.images", "messages.documents", "messages.tool_errors"]


def test_instructions_in_the_middle() -> None:
    call = said("assistant", ToolCall(id="c", name="f"))
    messages = (
        said("system", Text(text="a"), Text(text="b")),
        said("system", Text(text="c")),
        said("user", Text(text="x")),
        call,
        said("system", Text(text="late")),
        said("user", ToolResult(id="c", parts=(Text(text="r"),)), Text(text="y")),
    )
    losses = Losses()
    able = write(ABLE, losses, messages=messages)["messages"]
    assert not losses
    assert [(message["role"], message["content"]) for message in able] == [
        ("system", "a\n\nb\n\nc"),
        ("user", "x"),
        ("assistant", None),
        ("tool", "r"),
        ("system", "late"),
        ("user", "y"),
    ]
    plain = write(PLAIN, losses, messages=messages)["messages"]
    assert [message["role"] for message in plain] == ["system", "user", "assistant", "tool", "user"]
    assert [part["text"] for part in plain[-1]["content"]] == ["late", "y"]
    assert list(losses.emulated) == ["messages.system"]


@pytest.mark.parametrize("rules", [PLAIN, ABLE])
def test_instructions_at_the_end_are_not_lost(rules: ModelRules) -> None:
    body = write(rules, messages=(said("user", Text(text="x")), said("system", Text(text="late"))))
    assert body["messages"][1] == {"role": "system" if rules is ABLE else "user", "content": "late"}


def test_thinking_of_others_is_left_out() -> None:
    losses = Losses()
    own = Thinking(text="hm", origin="openai_chat", at=0)
    foreign = Thinking(text="ha", sealed="S", origin="anthropic_messages", at=0)
    messages = (said("user", Text(text="x")), said("assistant", foreign), said("assistant", own, Text(text="a")))
    assert write(PLAIN, losses, messages=messages)["messages"][1:] == [{"role": "assistant", "content": "a"}]
    assert list(losses.dropped) == ["messages.thinking"]
    assert write(ABLE, messages=messages)["messages"][1:] == [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    assert write(ABLE, messages=(said("assistant", own),))["messages"] == [
        {"role": "assistant", "content": "", "reasoning_content": "hm"}
    ]


def test_names_and_ids_that_this_dialect_refuses() -> None:
    losses = Losses()
    long, odd = "n" * 65, "a.b"
    calls = said("assistant", ToolCall(id="i" * 41, name=long), ToolCall(id="c2", name=odd))
    results = said("user", ToolResult(id="i" * 41), ToolResult(id="c2"))
    conversation = Conversation(
        model="m",
        messages=(said("user", Text(text="x")), calls, results),
        tools=(Tool(name=long), Tool(name=odd), Tool(name="plain")),
        tool_choice=ToolChoice(mode="tool", name=odd),
    )
    written = CHAT.write(conversation, PLAIN, losses)
    body = json.loads(written.body)
    sent = [tool["function"]["name"] for tool in body["tools"]]
    assert all(len(name) <= 64 and "." not in name for name in sent)
    assert written.names == {sent[0]: long, sent[1]: odd}
    assert [call["function"]["name"] for call in body["messages"][1]["tool_calls"]] == sent[:2]
    assert body["tool_choice"]["function"]["name"] == sent[1]
    assert len(body["messages"][2]["tool_call_id"]) <= 40
    assert body["messages"][1]["tool_calls"][0]["id"] == body["messages"][2]["tool_call_id"]
    assert list(losses.changed) == ["tools.names"]


def test_free_text_is_wrapped_for_models_that_know_functions_only() -> None:
    losses = Losses()
    tool = Tool(name="patch", custom=True, grammar=RAW(b'{"type":"grammar"}'))
    call = said("assistant", ToolCall(id="c", name="patch", arguments='a "b"', custom=True))
    conversation = Conversation(model="m", messages=(said("user", Text(text="x")), call), tools=(tool,))
    written = CHAT.write(conversation, PLAIN, losses)
    body = json.loads(written.body)
    assert written.wrapped == {"patch"}
    assert body["tools"][0]["function"]["parameters"]["required"] == ["input"]
    assert json.loads(body["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"input": 'a "b"'}
    assert list(losses.emulated) == ["tools.custom", "tools.grammar"]


def test_allowed_tools_are_the_tools() -> None:
    losses = Losses()
    body = write(PLAIN, losses, tools=(Tool(name="f"), Tool(name="g")), tool_choice=ToolChoice(mode="any", allowed=("g",)))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == "required"
    assert list(losses.emulated) == ["tool_choice"]


def test_without_tools_nothing_is_said_of_them() -> None:
    assert write(tool_choice=ToolChoice(mode="none"), parallel_tools=False) == {"model": "m", "messages": [USER]}


def test_documents() -> None:
    losses = Losses()
    messages = (said("user", Document(text="words", name="a.txt"), Document(data="BBBB", media_type="application/pdf")),)
    content = write(PLAIN, losses, messages=messages)["messages"][0]["content"]
    assert content[0] == {"type": "text", "text": "a.txt:\nwords"}
    assert content[1]["file"] == {"filename": "document.pdf", "file_data": "data:application/pdf;base64,BBBB"}
    assert list(losses.emulated) == ["messages.documents"]
    with pytest.raises(ClientError) as caught:
        write(messages=(said("user", Document(url="https://example.com/a.pdf")),))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")


def test_marks_and_citations_are_told_of() -> None:
    losses = Losses()
    cited = Text(text="a", citations=(Citation(url="https://example.com"),))
    write(
        PLAIN,
        losses,
        messages=(said("user", Text(text="x", cache="1h")), said("assistant", cited)),
        tools=(Tool(name="f", cache="5m"),),
    )
    assert list(losses.dropped) == ["messages.cache_control", "citations"]


def test_a_model_that_will_not_go_on_from_its_own_words() -> None:
    rules = ModelRules(context=100, max_output=50, traits=frozenset({"no_prefill"}))
    with pytest.raises(ClientError) as caught:
        write(rules, messages=(said("user", Text(text="x")), said("assistant", Text(text="a"))))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")


def test_this_dialect_knows_the_traits_it_asks_for() -> None:
    assert ABLE.traits <= MODEL_TRAITS.keys()
