"""The canonical form as requests of `openai_responses`, row by row: what is sent, and what is told as lost."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

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
    Refusal,
    Sound,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.plugin.contracts import ModelRules
from tests.dialects.responses_talk import (
    ABLE,
    HI,
    PIXEL,
    PLAIN,
    RAW,
    RESPONSES,
    call,
    output,
    said,
    written,
)


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
