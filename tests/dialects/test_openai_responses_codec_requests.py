"""Requests of `openai_responses` to and from the canonical form, row by row: what becomes what, what is told as lost.

It stays whole: both halves are tables over the same few helpers.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, cast

import msgspec
import pytest

from aurixel.dialects import OpenAIResponses
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
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Sound,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.plugin.contracts import ModelRules

RESPONSES = OpenAIResponses()
RAW = msgspec.Raw
ABLE = ModelRules(
    context=100_000, max_output=8000, traits=frozenset({"reasoning", "custom_tools", "cache_breakpoints", "system_turns"})
)
PLAIN = ModelRules(context=100_000, max_output=8000)


def read(losses: Losses | None = None, **fields: Any) -> Conversation:
    body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    return RESPONSES.read(RESPONSES.parse_request(body, {}), Losses() if losses is None else losses)


def lost(**fields: Any) -> set[str]:
    losses = Losses(RESPONSES.words)
    read(losses, **fields)
    assert not losses.emulated
    assert not losses.changed
    return set(losses.dropped)


def turns(*items: Any, **fields: Any) -> tuple[Message, ...]:
    return read(input=list(items), **fields).messages


def said(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def written(*messages: Message, rules: ModelRules = ABLE, losses: Losses | None = None, **fields: Any) -> dict[str, Any]:
    conversation = Conversation(model="m", messages=messages or (said("user", Text(text="hi")),), **fields)
    out = RESPONSES.write(conversation, rules, Losses() if losses is None else losses)
    RESPONSES.parse_request(out.body, {})
    return cast(dict[str, Any], json.loads(out.body))


def call(id: str, name: str = "f", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments, **more}


def output(id: str, text: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def test_the_dialect_is_a_codec() -> None:
    assert isinstance(RESPONSES, ChatCodec)


# --- read: items --------------------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "hi"}
HI = Text(text="hi")


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


PIXEL = "data:image/png;base64,AAAA"


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


def test_what_codex_sends_is_no_loss() -> None:
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
    assert not losses
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


# --- written -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "items"),
    [
        ([said("user", HI)], [{"type": "message", "role": "user", "content": "hi"}]),
        (
            [said("user", HI, Image(data="AAAA", media_type="image/png"), Image(url="https://a.example/b", detail="low"))],
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "hi"},
                        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
                        {"type": "input_image", "image_url": "https://a.example/b", "detail": "low"},
                    ],
                }
            ],
        ),
        (
            [said("user", Document(data="BBBB", media_type="application/pdf"), Document(url="https://a.example/b"))],
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {
                            "type": "input_file",
                            "filename": "document.pdf",
                            "file_data": "data:application/pdf;base64,BBBB",
                        },
                        {"type": "input_file", "file_url": "https://a.example/b"},
                    ],
                }
            ],
        ),
        (
            [
                said("assistant", Text(text="a"), ToolCall(id="1", name="f"), ToolCall(id="2", name="g", arguments="x")),
                said("user", ToolResult(id="1", parts=(Text(text="r"),)), ToolResult(id="2"), HI),
            ],
            [
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                call("1"),
                call("2", "g", "x"),
                output("1", "r"),
                output("2", ""),
                {"type": "message", "role": "user", "content": "hi"},
            ],
        ),
        (
            [said("user", HI), said("system", Text(text="s")), said("assistant", Refusal(text="no"))],
            [
                {"type": "message", "role": "user", "content": "hi"},
                {"type": "message", "role": "developer", "content": "s"},
                {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            ],
        ),
    ],
)
def test_turns_become_items(messages: list[Message], items: list[Any]) -> None:
    losses = Losses()
    body = written(*messages, losses=losses)
    wanted = json.loads(json.dumps(items).replace('[{"type": "output_text", "text": "a"}]', '"a"'))
    assert body["input"] == wanted
    assert not losses


def test_what_comes_first_are_the_instructions() -> None:
    body = written(said("system", Text(text="be kind")), said("user", HI))
    assert (body["instructions"], len(body["input"])) == ("be kind", 1)
    body = written(said("system", Text(text="a"), Text(text="b")), said("user", HI))
    assert "instructions" not in body
    assert [part["text"] for part in body["input"][0]["content"]] == ["a", "b"]
    assert "instructions" not in written(said("system", Text(text="all there is")))


def test_nothing_is_kept_and_thinking_comes_sealed() -> None:
    body = written()
    assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
    assert "include" not in written(rules=PLAIN)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"stream": True}, {"stream": True}),
        ({"max_output": 100}, {"max_output_tokens": 100}),
        ({"temperature": 0.5, "top_p": 1.0}, {"temperature": 0.5, "top_p": 1.0}),
        ({"cache_key": "k"}, {"prompt_cache_key": "k"}),
        ({"cache": "5m"}, {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}),
        ({"logprobs": 2}, {"top_logprobs": 2, "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"format": Format(kind="json_object")}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"format": Format(kind="json_schema", name="a b", schema=RAW(b'{"a":1}'), strict=True)},
            {"text": {"format": {"type": "json_schema", "name": "a_b", "schema": {"a": 1}, "strict": True}}},
        ),
        ({"reasoning": Reasoning(enabled=True, effort="high")}, {"reasoning": {"effort": "high", "summary": "auto"}}),
        ({"reasoning": Reasoning(enabled=True, effort="low", shown=False)}, {"reasoning": {"effort": "low"}}),
        ({"reasoning": Reasoning(enabled=False)}, {"reasoning": {"effort": "none"}}),
    ],
)
def test_fields_are_written(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    losses = Losses()
    body = written(losses=losses, **fields)
    assert {name: body[name] for name in sent} == sent
    assert not losses


def test_what_stands_for_a_person_is_not_the_person() -> None:
    body = written(user="alice@example.org")
    assert body["safety_identifier"] == sha256(b"aurixel:alice@example.org").hexdigest()[:32]
    assert "alice" not in json.dumps(body)


def test_tools_are_written() -> None:
    grammar = RAW(b'{"type":"grammar","grammar":{"syntax":"lark","definition":"X"}}')
    tools = (
        Tool(name="f", description="d", schema=RAW(b'{"type":"object"}')),
        Tool(name="g", strict=True),
        Tool(name="h", custom=True, grammar=grammar),
    )
    body = written(tools=tools, tool_choice=ToolChoice(mode="tool", name="h"), parallel_tools=False)
    assert body["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False},
        {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {}}, "strict": True},
        {"type": "custom", "name": "h", "format": {"type": "grammar", "syntax": "lark", "definition": "X"}},
    ]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ({"type": "custom", "name": "h"}, False)
    allowed = written(tools=tools, tool_choice=ToolChoice(mode="any", allowed=("f", "h")))["tool_choice"]
    listed = [{"type": "function", "name": "f"}, {"type": "custom", "name": "h"}]
    assert allowed == {"type": "allowed_tools", "mode": "required", "tools": listed}
    assert written(tools=tools, tool_choice=ToolChoice(mode="any"))["tool_choice"] == "required"
    assert "tool_choice" not in written(tool_choice=ToolChoice(mode="any"))


def test_tools_of_free_text_are_wrapped_where_the_model_has_none() -> None:
    tool = Tool(name="g", custom=True, grammar=RAW(b'{"type":"grammar"}'))
    asked = said("assistant", ToolCall(id="1", name="g", arguments="a\nb", custom=True))
    answered = said("user", ToolResult(id="1", custom=True))
    losses = Losses()
    out = RESPONSES.write(Conversation(model="m", messages=(asked, answered), tools=(tool,)), PLAIN, losses)
    body = json.loads(out.body)
    assert (out.wrapped, list(losses.emulated)) == ({"g"}, ["tools.grammar"])
    assert body["tools"][0]["type"] == "function"
    assert body["input"] == [call("1", "g", '{"input":"a\\nb"}'), output("1", "")]


def test_names_that_this_dialect_does_not_have() -> None:
    losses = Losses()
    name = "a.b/c" * 20
    out = RESPONSES.write(
        Conversation(
            model="m",
            messages=(said("assistant", ToolCall(id="x" * 99, name=name)), said("user", ToolResult(id="x" * 99))),
            tools=(Tool(name=name), Tool(name="fine")),
            tool_choice=ToolChoice(mode="tool", name=name),
        ),
        ABLE,
        losses,
    )
    body = json.loads(out.body)
    (given,) = out.names
    assert out.names == {given: name}
    assert {body["tools"][0]["name"], body["tool_choice"]["name"], body["input"][0]["name"]} == {given}
    assert body["input"][0]["call_id"] == body["input"][1]["call_id"]
    assert max(len(given), len(body["input"][0]["call_id"])) <= 64
    assert list(losses.changed) == ["tools.names"]


def test_cache_marks() -> None:
    parts = [Text(text=str(n), cache="5m") for n in range(5)]
    result = ToolResult(id="1", parts=(Text(text="r"),), cache="1h")
    losses = Losses()
    body = written(said("user", result, *parts), losses=losses)
    told = [body["input"][0]["output"][0], *body["input"][1]["content"]]
    assert [("prompt_cache_breakpoint" in part) for part in told] == [False, False, True, True, True, True]
    assert (list(losses.dropped), list(losses.changed)) == (["messages.cache_control"], [])
    losses = Losses()
    assert "prompt_cache" not in json.dumps(written(said("user", *parts), rules=PLAIN, losses=losses, cache="5m"))
    assert set(losses.dropped) == {"messages.cache_control", "cache"}
    losses = Losses()
    written(said("user", Text(text="a", cache="1h")), losses=losses)
    assert list(losses.changed) == ["messages.cache_control"]


LOSSES: list[tuple[dict[str, Any], ModelRules, list[str], list[str], list[str]]] = [
    ({"stop": ("x",)}, ABLE, ["stop"], [], []),
    ({"top_k": 5, "seed": 1, "logit_bias": RAW(b"{}")}, ABLE, ["top_k", "seed", "logit_bias"], [], []),
    ({"presence_penalty": 1.0, "frequency_penalty": 1.0}, ABLE, ["presence_penalty", "frequency_penalty"], [], []),
    ({"max_output": 3}, ABLE, [], [], ["max_output"]),
    ({"max_output": 10**6}, ABLE, [], [], ["max_output"]),
    ({"temperature": 1.0}, ModelRules(context=9, max_output=9, traits=frozenset({"no_sampling"})), ["temperature"], [], []),
    ({"reasoning": Reasoning(enabled=True, effort="low")}, PLAIN, ["reasoning"], [], []),
    ({"reasoning": Reasoning(enabled=False)}, PLAIN, [], [], []),
    ({"reasoning": Reasoning(enabled=True, budget=5000)}, ABLE, [], [], ["reasoning"]),
    ({"tools": (Tool(name="f", cache="5m"),)}, ABLE, ["messages.cache_control"], [], []),
]


@pytest.mark.parametrize(("fields", "rules", "dropped", "emulated", "changed"), LOSSES)
def test_losses_of_writing(
    fields: dict[str, Any], rules: ModelRules, dropped: list[str], emulated: list[str], changed: list[str]
) -> None:
    losses = Losses()
    written(rules=rules, losses=losses, **fields)
    assert (list(losses.dropped), list(losses.emulated), list(losses.changed)) == (dropped, emulated, changed)


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        (Thinking(text="a", sealed="S", origin="anthropic_messages"), "dropped", "messages.thinking"),
        (Thinking(text="a", origin="openai_responses"), "dropped", "messages.thinking"),
        (Thinking(sealed='{"type":"item_reference"}', origin="openai_responses"), "dropped", "messages.thinking"),
        (Thinking(sealed="{", origin="openai_responses"), "dropped", "messages.thinking"),
        (Text(text="a", cache="5m"), "dropped", "messages.cache_control"),
    ],
)
def test_losses_of_what_was_said(part: Part, kind: str, name: str) -> None:
    losses = Losses()
    body = written(said("user", HI), said("assistant", part), said("user", HI), losses=losses)
    assert list(getattr(losses, kind)) == [name]
    assert "item_reference" not in json.dumps(body)


def test_a_failed_tool_and_a_document_of_text() -> None:
    losses = Losses()
    failed = [ToolResult(id="1", parts=(Text(text="no"),), failed=True), ToolResult(id="2", failed=True)]
    body = written(said("user", *failed, Document(text="words", name="a.txt")), losses=losses)
    assert [item["output"] for item in body["input"][:2]] == ["Error: no", "Error: "]
    assert body["input"][2]["content"] == "a.txt:\nwords"
    assert list(losses.emulated) == ["messages.tool_errors", "messages.documents"]


@pytest.mark.parametrize(
    ("message", "rules"),
    [
        (said("user", Sound(data="A", format="wav")), ABLE),
        (said("assistant", Image(url="https://a.example")), ABLE),
        (said("user", Thinking(text="a", origin="openai_chat")), ABLE),
        (said("assistant", Text(text="a")), ModelRules(context=9, max_output=9, traits=frozenset({"no_prefill"}))),
    ],
)
def test_what_this_dialect_cannot_carry_is_refused(message: Message, rules: ModelRules) -> None:
    with pytest.raises(ClientError) as caught:
        written(message, rules=rules)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")
