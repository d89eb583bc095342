"""Requests of `openai_responses` in the canonical form, row by row: what becomes what, what is told as lost."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from aurixel.dialects.carriers import carried
from aurixel.errors import ClientError
from aurixel.plugin.canonical import (
    ChatCodec,
    Citation,
    Conversation,
    Document,
    Format,
    Image,
    Losses,
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
from tests.dialects.responses_talk import (
    ABLE,
    HI,
    PIXEL,
    RAW,
    RESPONSES,
    USER,
    call,
    lost,
    output,
    read,
    said,
    turns,
)


def test_the_dialect_is_a_codec() -> None:
    assert isinstance(RESPONSES, ChatCodec)


# --- read: items --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([USER], [("user", HI)]),
        ([{"type": "message", **USER}, USER], [("user", HI, HI)]),
        (
            [{"role": "developer", "content": "a"}, {"role": "system", "content": [{"type": "input_text", "text": "b"}]}, USER],
            [("system", Text(text="a")), ("system", Text(text="b")), ("user", HI)],
        ),
        (
            [
                USER,
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "phase": "commentary",
                    "content": [
                        {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                        {"type": "refusal", "refusal": "no"},
                    ],
                },
            ],
            [("user", HI), ("assistant", Text(text="a"), Refusal(text="no"))],
        ),
        # adjacent calls are one turn; outputs come first in theirs, in the order of the items
        (
            [call("1"), call("2", "g", '{"a":1}'), output("1"), USER, output("2", [{"type": "input_text", "text": "x"}])],
            [
                ("assistant", ToolCall(id="1", name="f", arguments="{}"), ToolCall(id="2", name="g", arguments='{"a":1}')),
                ("user", ToolResult(id="1", parts=(Text(text="done"),)), ToolResult(id="2", parts=(Text(text="x"),)), HI),
            ],
        ),
        # words between a call and its output stand before the call
        (
            [call("1"), {"role": "assistant", "content": "wait"}, output("1"), call("2"), output("2", "")],
            [
                ("assistant", Text(text="wait"), ToolCall(id="1", name="f", arguments="{}")),
                ("user", ToolResult(id="1", parts=(Text(text="done"),))),
                ("assistant", ToolCall(id="2", name="f", arguments="{}")),
                ("user", ToolResult(id="2")),
            ],
        ),
        # instructions between a call and its output wait for it
        (
            [call("1"), {"role": "developer", "content": "be brief"}, output("1"), USER],
            [
                ("assistant", ToolCall(id="1", name="f", arguments="{}")),
                ("user", ToolResult(id="1", parts=(Text(text="done"),))),
                ("system", Text(text="be brief")),
                ("user", HI),
            ],
        ),
        # a call that is never answered keeps nothing waiting for ever
        (
            [call("1"), {"role": "developer", "content": "go on"}, USER, {"role": "assistant", "content": "ok"}],
            [
                ("assistant", ToolCall(id="1", name="f", arguments="{}")),
                ("user", HI),
                ("system", Text(text="go on")),
                ("assistant", Text(text="ok")),
            ],
        ),
        (
            [
                {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
            ],
            [
                ("assistant", ToolCall(id="c", name="patch", arguments="*** Begin", custom=True)),
                ("user", ToolResult(id="c", parts=(Text(text="ok"),), custom=True)),
            ],
        ),
        ([USER, {"role": "assistant", "content": ""}, USER], [("user", HI, HI)]),
    ],
)
def test_items_become_turns(items: list[Any], messages: list[Any]) -> None:
    assert turns(*items) == tuple(said(role, *parts) for role, *parts in messages)


def test_instructions_come_first() -> None:
    assert read(instructions="be kind").messages == (said("system", Text(text="be kind")), said("user", HI))


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "input_text", "text": "a"}, Text(text="a")),
        ({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}, Text(text="a", cache="5m")),
        (
            {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            Image(data="AAAA", media_type="image/png", detail="low"),
        ),
        (
            {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "auto"},
            Image(url="https://a.example/b.png"),
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
            Document(data="BBBB", media_type="application/pdf", name="a.pdf"),
        ),
        ({"type": "input_file", "file_data": "BBBB"}, Document(data="BBBB", media_type="application/pdf")),
        ({"type": "input_file", "file_url": "https://a.example/b.pdf"}, Document(url="https://a.example/b.pdf")),
        ({"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}}, Sound(data="CCCC", format="wav")),
    ],
)
def test_parts_of_the_user(part: dict[str, Any], found: Part) -> None:
    assert turns({"role": "user", "content": [part]}) == (said("user", found),)
    if not isinstance(found, Sound):
        assert turns(call("1"), output("1", [part]))[1] == said("user", ToolResult(id="1", parts=cast(Any, (found,))))


def test_citations_of_an_earlier_answer() -> None:
    noted = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
    part = {"type": "output_text", "text": "a", "annotations": [noted, {"type": "file_citation", "file_id": "f"}]}
    found = Text(text="a", citations=(Citation(url="https://a.example", title="A", start=0, end=1),))
    assert turns(USER, {"role": "assistant", "content": [part]})[1] == said("assistant", found)


SEALED = json.dumps({"thinking": "So.", "signature": "SIG=="})


@pytest.mark.parametrize(
    ("item", "thinking"),
    [
        (
            {"summary": [], "encrypted_content": carried("anthropic_messages", SEALED)},
            Thinking(text="So.", sealed="SIG==", origin="anthropic_messages"),
        ),
        (
            {"summary": [], "encrypted_content": carried("anthropic_messages", '{"thinking":"","signature":"S"}')},
            Thinking(text="", sealed="S", origin="anthropic_messages"),
        ),
        (
            {"summary": [], "encrypted_content": carried("anthropic_messages", '{"data":"D=="}')},
            Thinking(sealed="D==", hidden=True, origin="anthropic_messages"),
        ),
        (
            {"summary": [], "encrypted_content": carried("openai_chat", '{"thinking":"Hm"}')},
            Thinking(text="Hm", origin="openai_chat"),
        ),
        (
            {"summary": [{"type": "summary_text", "text": "A"}], "encrypted_content": carried("openai_chat", "rubbish")},
            Thinking(text="A", origin="openai_responses"),
        ),
        (
            {"summary": [], "encrypted_content": carried("openai_responses", '{"type":"reasoning"}')},
            Thinking(sealed='{"type":"reasoning"}', origin="openai_responses"),
        ),
    ],
)
def test_thinking_that_was_carried(item: dict[str, Any], thinking: Thinking) -> None:
    assert turns({"type": "reasoning", "id": "rs_1", **item}) == (said("assistant", thinking),)


@pytest.mark.parametrize(
    ("item", "text", "hidden"),
    [
        ('{"type":"reasoning", "id":"rs_1","summary":[],"encrypted_content":"gAAA"}', "", True),
        ('{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"A"},{"text":"B"}]}', "A\n\nB", False),
        ('{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"\\u00e9"}]}', "é", False),
    ],
)
def test_thinking_of_this_dialect_is_kept_as_it_came(item: str, text: str, hidden: bool) -> None:
    body = f'{{"model":"m","input":[{item},{{"role":"user","content":"hi"}}]}}'.encode()
    found = RESPONSES.read(RESPONSES.parse_request(body, {}), Losses()).messages[0].parts[0]
    assert found == Thinking(text=text, sealed=item, hidden=hidden, origin="openai_responses")
    conversation = Conversation(model="m", messages=(said("assistant", found), said("user", HI)))
    assert item.encode() in RESPONSES.write(conversation, ABLE, Losses()).body


# --- read: tools --------------------------------------------------------------------------------------------------------

FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
IN_CRM = {"type": "namespace", "name": "crm", "description": "d", "tools": [{"type": "function", "name": "f"}]}


def test_tools() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
    custom = {"type": "custom", "name": "g", "format": grammar}
    found = read(tools=[FUNCTION, custom, {"type": "custom", "name": "h", "format": {"type": "text"}}, IN_CRM]).tools
    nested = RAW(b'{"type":"grammar","grammar":{"definition":"start: X","syntax":"lark"}}')
    assert found == (
        Tool(name="f", description="d", schema=RAW(b'{"type": "object"}'), strict=True),
        Tool(name="g", custom=True, grammar=nested),
        Tool(name="h", custom=True),
        Tool(name="crm__f"),
    )


def test_tools_of_namespaces_are_called_by_their_whole_names() -> None:
    tools = [FUNCTION, IN_CRM, {"type": "function", "name": "crm__f"}]
    assert [tool.name for tool in read(tools=tools).tools] == ["f", "crm__f", "crm__f_"]
    asked = [call("1", namespace="crm"), call("2", "crm__f"), call("3"), call("4", "x", namespace="gone")]
    names = [cast(ToolCall, part).name for part in turns(*asked, tools=tools)[0].parts]
    assert names == ["crm__f", "crm__f_", "f", "gone__x"]


def test_tools_that_come_with_an_item() -> None:
    later = {"type": "additional_tools", "role": "developer", "tools": [IN_CRM, FUNCTION]}
    found = read(input=[USER, later], tools=[FUNCTION])
    assert [tool.name for tool in found.tools] == ["f", "crm__f"]
    assert found.messages == (said("user", HI),)


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("auto", ToolChoice(mode="auto")),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="any")),
        ({"type": "function", "name": "f"}, ToolChoice(mode="tool", name="f")),
        ({"type": "custom", "name": "g"}, ToolChoice(mode="tool", name="g")),
        ({"type": "function", "name": "only"}, ToolChoice(mode="tool", name="crm__only")),
        ({"type": "function", "name": "f", "namespace": "crm"}, ToolChoice(mode="tool", name="crm__f")),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice(mode="any", allowed=("f",)),
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "crm"}]},
            ToolChoice(mode="auto", allowed=("crm__f", "crm__only")),
        ),
    ],
)
def test_the_choice_of_a_tool(choice: Any, found: ToolChoice) -> None:
    crm = {**IN_CRM, "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "only"}]}
    assert read(tools=[FUNCTION, {"type": "custom", "name": "g"}, crm], tool_choice=choice).tool_choice == found


# --- read: everything else -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"max_output_tokens": 5}, {"max_output": 5}),
        ({"temperature": 1, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"parallel_tool_calls": False}, {"parallel_tools": False}),
        ({"user": "a"}, {"user": "a"}),
        ({"safety_identifier": "b"}, {"user": "b"}),
        ({"prompt_cache_key": "k"}, {"cache_key": "k"}),
        ({"prompt_cache_options": {"mode": "implicit"}}, {"cache": "5m"}),
        ({"prompt_cache_options": {"mode": "explicit"}}, {"cache": None}),
        ({"top_logprobs": 3}, {"logprobs": 3}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": 0}),
        ({"include": ["reasoning.encrypted_content"]}, {"logprobs": None}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low", "format": None}),
        ({"text": {"format": {"type": "text"}}}, {"format": None}),
        ({"text": {"format": {"type": "json_object"}}}, {"format": Format(kind="json_object")}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True, "description": "d"}}},
            {"format": Format(kind="json_schema", name="n", schema=RAW(b"{}"), strict=True, description="d")},
        ),
        ({"reasoning": {}}, {"reasoning": None}),
        ({"reasoning": {"effort": "high"}}, {"reasoning": Reasoning(enabled=True, effort="high", shown=False)}),
        ({"reasoning": {"effort": "none"}}, {"reasoning": Reasoning(enabled=False, effort="none", shown=False)}),
        ({"reasoning": {"effort": None, "summary": "auto"}}, {"reasoning": Reasoning(shown=True)}),
    ],
)
def test_fields(fields: dict[str, Any], found: dict[str, Any]) -> None:
    conversation = read(**fields)
    assert {name: getattr(conversation, name) for name in found} == found
    assert lost(**fields) == set()


def test_of_what_codex_sends_only_words_about_a_namespace_are_lost() -> None:
    losses = Losses(RESPONSES.words)
    found = read(
        losses,
        instructions="You are an agent.",
        input=[{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]}, USER],
        tools=[FUNCTION, {"type": "custom", "name": "apply_patch", "description": "d"}, IN_CRM],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="0199",
        text={"verbosity": "medium"},
        client_metadata={"x-codex-installation-id": "1"},
        service_tier="auto",
    )
    assert list(losses.dropped) == ["tools.namespace.description"]
    assert not losses.changed
    assert not losses.emulated
    assert [message.role for message in found.messages] == ["system", "system", "user"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"metadata": {"a": "b"}}, {"metadata"}),
        ({"store": True, "truncation": "disabled", "user": None, "vendor": None}, set()),
        ({"truncation": "auto"}, {"truncation"}),
        ({"max_tool_calls": 3}, {"max_tool_calls"}),
        ({"context_management": [{"type": "compaction"}]}, {"context_management"}),
        ({"vendor_field": 1}, {"vendor_field"}),
        ({"tools": [{**FUNCTION, "defer_loading": True, "output_schema": {}}]}, {"tools.defer_loading", "tools.output_schema"}),
        ({"tools": [{**FUNCTION, "defer_loading": False, "output_schema": None}]}, set()),
        ({"input": [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, {"input.web_search_call"}),
        ({"input": [USER, {"type": "secret"}]}, {"input"}),
        ({"tools": [FUNCTION, {"type": "web_search", "external_web_access": False}]}, {"tools.web_search"}),
    ],
)
def test_what_has_no_name_is_told(fields: dict[str, Any], names: set[str]) -> None:
    assert lost(**fields) == names


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "web_search", "external_web_access": True}]}, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "local_shell"}]}, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "function"}]}, "invalid_request", "tools"),
        ({"tools": [{"type": "function", "name": "f", "parameters": "x"}]}, "invalid_request", "tools"),
        ({"tools": [{"type": "custom", "name": "f", "format": "x"}]}, "invalid_request", "tools"),
        ({"tool_choice": "secret"}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "unsupported_parameter", "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "secret"}}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]}}, "invalid_request", "tool_choice"),
        ({"text": {"format": {"type": "secret"}}}, "unsupported_parameter", "text"),
        ({"text": {"format": {"type": "json_schema", "schema": 7}}}, "invalid_request", "text"),
        ({"text": "x"}, "invalid_request", "text"),
        ({"reasoning": {"effort": "secret"}}, "invalid_request", "reasoning"),
        ({"truncation": "secret"}, "invalid_request", "truncation"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"include": "x"}, "invalid_request", "include"),
        ({"instructions": ["x"]}, "invalid_request", "instructions"),
        ({"input": [{"role": "secret", "content": "x"}]}, "invalid_request", "input"),
        ({"input": [{"role": "user"}]}, "invalid_request", "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "invalid_request", "input"),
        ({"input": [{"role": "user", "content": [{"type": "secret"}]}]}, "unsupported_parameter", "input"),
        ({"input": [{"role": "system", "content": [{"type": "input_image", "image_url": PIXEL}]}]}, "invalid_request", "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]}]},
            "invalid_request",
            "input",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": 7}]}]}, "invalid_request", "input"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "invalid_request", "input"),
        ({"input": [call("1", arguments=cast(Any, {"a": 1}))]}, "invalid_request", "input"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "invalid_request", "input"),
        (
            {"input": [output("1", [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])]},
            "invalid_request",
            "input",
        ),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "unsupported_parameter", "input"),
    ],
)
def test_what_cannot_be_translated_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert "secret" not in caught.value.message
