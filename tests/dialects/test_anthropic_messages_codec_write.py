"""The codec of `anthropic_messages` on requests written, trap by trap, so that an upstream takes them."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from aurixel.errors import ClientError
from aurixel.plugin.canonical import (
    Document,
    Format,
    Image,
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
    Written,
)
from tests.dialects.messages_talk import (
    OWN,
    PDF,
    PNG,
    SCHEMA,
    F,
    G,
    answered,
    asking,
    lost,
    said,
    told,
    write,
)

# --- writing: turns -----------------------------------------------------------------------------------------------------


def test_a_small_request() -> None:
    body, losses, written = write(asking(told("Be kind."), said("Hi"), max_output=50, temperature=0.5, stream=True))
    assert body == {
        "model": "m",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "temperature": 0.5,
        "stream": True,
    }
    assert not losses
    assert written == Written(body=written.body)


def test_a_limit_is_always_said_and_never_above_what_the_model_can() -> None:
    assert write(asking())[0]["max_tokens"] == 8000
    body, losses, _ = write(asking(max_output=9000))
    assert (body["max_tokens"], lost(losses)) == (8000, {"changed": ["max_output"]})


def test_tool_results_come_first_and_in_one_message() -> None:
    body, losses, _ = write(
        asking(
            said("Go"),
            answered("Well", ToolCall(id="a", name="f", arguments='{"x":1}'), ToolCall(id="b", name="f")),
            said(
                ToolResult(id="a", parts=(Text(text="1"),)),
                ToolResult(id="b", parts=(Text(text="2"), Image(data=PNG, media_type="image/png")), failed=True),
                "and now?",
            ),
            tools=(F,),
        )
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [
                        {"type": "text", "text": "2"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    assert not losses


def test_a_late_system_message_is_the_users_unless_the_model_takes_it() -> None:
    conversation = asking(told("First"), said("a"), answered("b"), told("Late"), said("c"))
    body, losses, _ = write(conversation)
    assert body["messages"][2] == {
        "role": "user",
        "content": [{"type": "text", "text": "Late"}, {"type": "text", "text": "c"}],
    }
    assert lost(losses) == {"emulated": ["messages.system"]}
    body, losses, _ = write(conversation, "system_turns")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "system", "user"]
    assert not losses


def test_nothing_stands_between_calls_and_their_results() -> None:
    conversation = asking(
        said("a"), answered(ToolCall(id="x", name="f")), told("Late"), said(ToolResult(id="x"), "c"), tools=(F,)
    )
    body, _, _ = write(conversation)
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text", "text"]
    assert body["messages"][2]["content"][1]["text"] == "Late"
    body, _, _ = write(conversation, "system_turns")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "system"]


def test_blank_text_is_left_out_and_what_becomes_neighbours_is_one_turn() -> None:
    body, _, _ = write(asking(said("a", " \n"), answered(""), said("b")))
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    with pytest.raises(ClientError):
        write(asking(said(" ")))
    with pytest.raises(ClientError):
        write(asking(told("only this")))


def test_the_assistants_last_words_end_without_white_space() -> None:
    conversation = asking(said("a"), answered("The answer: \n"))
    assert write(conversation)[0]["messages"][1]["content"] == [{"type": "text", "text": "The answer:"}]
    with pytest.raises(ClientError) as caught:
        write(conversation, "no_prefill")
    assert caught.value.code == "unsupported_parameter"


def test_a_refusal_is_text() -> None:
    body, losses, _ = write(asking(said("a"), answered(Refusal(text="No.")), said("b")))
    assert body["messages"][1]["content"] == [{"type": "text", "text": "No."}]
    assert lost(losses) == {"emulated": ["messages.refusal"]}


# --- writing: media and marks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
    ],
)
def test_an_image_is_what_its_first_bytes_say(head: bytes, media_type: str) -> None:
    data = base64.b64encode(head + bytes(20)).decode()
    body, _, _ = write(asking(said(Image(data=data, media_type="image/bmp"))))
    assert body["messages"][0]["content"][0]["source"] == {"type": "base64", "media_type": media_type, "data": data}


def test_other_images_and_media() -> None:
    body, losses, _ = write(asking(said(Image(url="https://example.org/a.png", detail="high"))))
    assert body["messages"][0]["content"][0]["source"] == {"type": "url", "url": "https://example.org/a.png"}
    assert lost(losses) == {"dropped": ["image.detail"]}
    parts: list[Part] = [
        Image(data="Qk0=", media_type="image/bmp"),
        Sound(data="", format="wav"),
        Document(data="UEsD", media_type="application/zip"),
        Document(data="!", media_type="text/plain"),
    ]
    for part in parts:
        with pytest.raises(ClientError):
            write(asking(said(part)))


def test_documents() -> None:
    text = base64.b64encode("Köln".encode()).decode()
    body, losses, _ = write(
        asking(
            said(
                Document(data=PDF, name="a.pdf"),
                Document(data=text, media_type="text/csv"),
                Document(text="plain"),
                Document(url="https://example.org/a.pdf"),
            )
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Köln"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ]
    assert not losses


def test_at_most_four_cache_marks_and_the_last_ones() -> None:
    texts = [Text(text=str(n), cache="1h" if n == 5 else "5m") for n in range(6)]
    body, losses, _ = write(asking(said(*texts)))
    marks = [block.get("cache_control") for block in body["messages"][0]["content"]]
    assert marks == [None, None, *[{"type": "ephemeral"}] * 3, {"type": "ephemeral", "ttl": "1h"}]
    assert lost(losses) == {"dropped": ["messages.cache_control"]}


def test_cache_marks_everywhere() -> None:
    body, losses, _ = write(
        asking(
            Message(role="system", parts=(Text(text="s", cache="5m"),)),
            said("a"),
            answered(ToolCall(id="x", name="f", cache="5m")),
            said(ToolResult(id="x", cache="1h")),
            tools=(msgspec.structs.replace(F, cache="5m"),),
        )
    )
    assert body["tools"][0]["cache_control"] == body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][1]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][2]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert not losses
    assert write(asking(cache="1h"))[0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


# --- writing: tools -------------------------------------------------------------------------------------------------------


def test_names_of_tools_that_this_dialect_has_no_letters_for() -> None:
    long = "x" * 80
    tools = (Tool(name="a.b"), Tool(name="a b"), Tool(name=long), F)
    history = (said("a"), answered(ToolCall(id="fn:0", name="a.b")), said(ToolResult(id="fn:0")))
    body, losses, written = write(asking(*history, tools=tools, tool_choice=ToolChoice(mode="tool", name="a.b")))
    names = [tool["name"] for tool in body["tools"]]
    assert len(set(names)) == 4
    assert names[3] == "f"
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in names)
    assert dict(written.names) == {names[0]: "a.b", names[1]: "a b", names[2]: long}
    call = body["messages"][1]["content"][0]
    assert call["name"] == body["tool_choice"]["name"] == names[0]
    assert call["id"] == body["messages"][2]["content"][0]["tool_use_id"] != "fn:0"
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert lost(losses) == {"changed": ["tools.names"]}


def test_a_tool_that_takes_free_text_takes_it_as_a_string() -> None:
    tool = Tool(name="run", description="Runs it.", custom=True, grammar=msgspec.Raw(b'{"type":"grammar"}'))
    history = (said("a"), answered(ToolCall(id="x", name="run", arguments='print("a")', custom=True)), said(ToolResult(id="x")))
    body, losses, written = write(asking(*history, tools=(tool,)))
    assert body["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
    }
    assert '{"type":"grammar"}' in body["tools"][0]["description"]
    assert body["messages"][1]["content"][0]["input"] == {"input": 'print("a")'}
    assert written.wrapped == {"run"}
    assert lost(losses) == {"emulated": ["tools.custom", "tools.grammar"]}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(mode="auto"), None, {"type": "auto"}),
        (ToolChoice(mode="none"), None, {"type": "none"}),
        (ToolChoice(mode="none"), False, {"type": "none"}),
        (ToolChoice(mode="any"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice(mode="tool", name="g"), None, {"type": "tool", "name": "g"}),
    ],
)
def test_choices_of_tools(choice: ToolChoice | None, parallel: bool | None, expected: object) -> None:
    body, losses, _ = write(asking(tools=(F, G), tool_choice=choice, parallel_tools=parallel))
    assert body.get("tool_choice") == expected
    assert not losses
    body, _, _ = write(asking(tool_choice=choice, parallel_tools=parallel))
    assert "tool_choice" not in body


def test_only_the_tools_that_are_allowed_are_told() -> None:
    body, losses, _ = write(asking(tools=(F, G), tool_choice=ToolChoice(mode="any", allowed=("g",))))
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}
    assert lost(losses) == {"emulated": ["tool_choice"]}


def test_strict_tools_and_schemas_without_a_type() -> None:
    tool = Tool(name="f", schema=msgspec.Raw(b'{"properties":{}}'), strict=True)
    body, losses, _ = write(asking(tools=(tool,)))
    assert body["tools"][0] == {"name": "f", "input_schema": {"type": "object", "properties": {}}}
    assert lost(losses) == {"dropped": ["tools.strict"]}
    assert write(asking(tools=(tool,)), "structured_outputs")[0]["tools"][0]["strict"] is True
    with pytest.raises(ClientError):
        write(asking(tools=(Tool(name="f", schema=msgspec.Raw(b"[]")),)))


@pytest.mark.parametrize("arguments", ["{", "[]", "7", '{"a":1} x'])
def test_arguments_must_be_an_object(arguments: str) -> None:
    with pytest.raises(ClientError):
        write(asking(said("a"), answered(ToolCall(id="x", name="f", arguments=arguments)), said(ToolResult(id="x"))))


# --- writing: format ------------------------------------------------------------------------------------------------------


def test_a_structured_answer_natively() -> None:
    form = Format(kind="json_schema", schema=SCHEMA, strict=True)
    body, losses, written = write(asking(format=form), "structured_outputs")
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": json.loads(bytes(SCHEMA))}}
    assert written.answer_tool is None
    assert not losses


def test_a_schema_is_closed_and_what_the_upstream_does_not_know_is_told_in_words() -> None:
    schema = {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 3, "description": "How many."},
            "items": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {}}},
        },
    }
    form = Format(kind="json_schema", schema=msgspec.Raw(json.dumps(schema).encode()))
    body, losses, _ = write(asking(format=form), "structured_outputs")
    assert body["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "description": "How many. (minimum: 3)"},
            "items": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "properties": {}, "additionalProperties": False},
            },
        },
        "additionalProperties": False,
    }
    assert lost(losses) == {"changed": ["format"]}


def test_a_structured_answer_by_a_tool() -> None:
    form = Format(kind="json_schema", schema=SCHEMA)
    body, losses, written = write(asking(format=form))
    assert [tool["name"] for tool in body["tools"]] == ["answer"]
    assert body["tools"][0]["input_schema"] == json.loads(bytes(SCHEMA))
    assert body["tool_choice"] == {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}
    assert written.answer_tool == "answer"
    assert lost(losses) == {"emulated": ["format"]}


def test_a_structured_answer_beside_the_clients_tools() -> None:
    form = Format(kind="json_schema", schema=SCHEMA)
    own = msgspec.structs.replace(F, name="answer")
    body, _, written = write(asking(format=form, tools=(own,)))
    assert body["tool_choice"] == {"type": "any"}
    assert written.answer_tool == body["tools"][1]["name"] != "answer"
    body, _, _ = write(asking(format=form, tools=(F,), tool_choice=ToolChoice(mode="none")))
    assert body["tool_choice"]["name"] == "answer"
    body, _, written = write(asking(format=form, tools=(F,), tool_choice=ToolChoice(mode="tool", name="f")))
    assert body["tool_choice"] == {"type": "tool", "name": "f"}
    assert written.answer_tool is None


def test_any_json_object_is_asked_for_in_words() -> None:
    body, losses, _ = write(asking(format=Format(kind="json_object")))
    assert "JSON" in body["system"][-1]["text"]
    assert lost(losses) == {"emulated": ["format"]}


# --- writing: thinking and sampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasoning", "traits", "thinking", "config", "expected"),
    [
        (Reasoning(effort="high"), (), None, None, {"dropped": ["reasoning"]}),
        (Reasoning(effort="none"), (), None, None, {}),
        (Reasoning(shown=False), ("adaptive_thinking",), None, None, {}),
        (Reasoning(effort="none"), ("adaptive_thinking",), {"type": "disabled"}, None, {}),
        (Reasoning(enabled=False), ("budget_thinking",), {"type": "disabled"}, None, {}),
        (
            Reasoning(effort="high"),
            ("adaptive_thinking",),
            {"type": "adaptive", "display": "summarized"},
            {"effort": "high"},
            {},
        ),
        (
            Reasoning(effort="minimal", shown=False),
            ("adaptive_thinking",),
            {"type": "adaptive", "display": "omitted"},
            {"effort": "low"},
            {"changed": ["reasoning"]},
        ),
        (
            Reasoning(enabled=True, budget=3000),
            ("adaptive_thinking",),
            {"type": "adaptive", "display": "summarized"},
            {"effort": "medium"},
            {"emulated": ["reasoning"]},
        ),
        (Reasoning(enabled=True), ("adaptive_thinking",), {"type": "adaptive", "display": "summarized"}, None, {}),
        (
            Reasoning(effort="high"),
            ("budget_thinking",),
            {"type": "enabled", "budget_tokens": 4096},
            None,
            {"emulated": ["reasoning"]},
        ),
        (
            Reasoning(enabled=True, budget=3000),
            ("adaptive_thinking", "budget_thinking"),
            {"type": "enabled", "budget_tokens": 3000},
            None,
            {},
        ),
        (
            Reasoning(enabled=True, budget=9000),
            ("budget_thinking",),
            {"type": "enabled", "budget_tokens": 6400},
            None,
            {"changed": ["reasoning"]},
        ),
        (
            Reasoning(enabled=True, budget=1),
            ("budget_thinking",),
            {"type": "enabled", "budget_tokens": 1024},
            None,
            {"changed": ["reasoning"]},
        ),
    ],
)
def test_reasoning(reasoning: Reasoning, traits: tuple[str, ...], thinking: object, config: object, expected: object) -> None:
    body, losses, _ = write(asking(reasoning=reasoning), *traits)
    assert (body.get("thinking"), body.get("output_config"), lost(losses)) == (thinking, config, expected)


def test_a_budget_has_room_below_the_limit_or_there_is_no_thinking() -> None:
    asked = asking(reasoning=Reasoning(effort="max"), max_output=1024)
    body, losses, _ = write(asked, "budget_thinking")
    assert body["thinking"] == {"type": "disabled"}
    assert lost(losses) == {"changed": ["reasoning"]}
    body, _, _ = write(msgspec.structs.replace(asked, max_output=1025), "budget_thinking")
    assert body["thinking"]["budget_tokens"] == 1024


def test_what_thinking_does_not_go_with() -> None:
    asked = asking(
        tools=(F,), tool_choice=ToolChoice(mode="any"), temperature=0.5, top_k=3, top_p=0.5, reasoning=Reasoning(effort="low")
    )
    body, losses, _ = write(asked, "adaptive_thinking")
    assert body["tool_choice"] == {"type": "auto"}
    assert not {"temperature", "top_k", "top_p"} & body.keys()
    assert lost(losses) == {"dropped": ["temperature", "top_p", "top_k"], "changed": ["tool_choice"]}
    body, losses, _ = write(
        asking(format=Format(kind="json_schema", schema=SCHEMA), reasoning=Reasoning(effort="low")), "adaptive_thinking"
    )
    assert (body["thinking"], body["tool_choice"]["name"]) == ({"type": "disabled"}, "answer")
    assert lost(losses) == {"emulated": ["format"], "changed": ["reasoning"]}
    body, losses, _ = write(asking(said("a"), answered("b"), reasoning=Reasoning(effort="low")), "adaptive_thinking")
    assert (body["thinking"], lost(losses)) == ({"type": "disabled"}, {"changed": ["reasoning"]})


def test_sampling() -> None:
    body, losses, _ = write(asking(temperature=1.7, top_p=0.5))
    assert (body["temperature"], "top_p" in body, lost(losses)) == (
        1,
        False,
        {"dropped": ["top_p"], "changed": ["temperature"]},
    )
    body, losses, _ = write(asking(temperature=0.3, top_p=1.0, top_k=5))
    assert (body["temperature"], "top_p" in body, body["top_k"], lost(losses)) == (0.3, False, 5, {})
    body, losses, _ = write(asking(temperature=0.3, top_p=0.5, top_k=5), "no_sampling")
    assert not {"temperature", "top_k", "top_p"} & body.keys()
    assert lost(losses) == {"dropped": ["temperature", "top_p", "top_k"]}


def test_stops_users_and_what_has_no_word() -> None:
    body, losses, _ = write(
        asking(stop=("###", "\n", ""), user="ann@example.org", seed=1, presence_penalty=0.1, verbosity="low", cache_key="k")
    )
    assert body["stop_sequences"] == ["###"]
    assert len(body["metadata"]["user_id"]) == 32
    assert "ann" not in body["metadata"]["user_id"]
    assert lost(losses) == {"dropped": ["verbosity", "seed", "presence_penalty", "cache_key"], "changed": ["stop", "user"]}
    with pytest.raises(ClientError) as caught:
        write(asking(logprobs=0))
    assert caught.value.code == "unsupported_parameter"


# --- thinking, there and back ---------------------------------------------------------------------------------------------

THOUGHT = Thinking(text="", sealed="Eq/+==", origin=OWN, at=0)
HIDDEN = Thinking(sealed="Em/+==", hidden=True, origin=OWN, at=2)
LOOP = (said("a"), answered(THOUGHT, ToolCall(id="x", name="f")), said(ToolResult(id="x")))


def test_thinking_goes_back_byte_for_byte_to_its_place() -> None:
    later = answered(THOUGHT, HIDDEN, "Text", ToolCall(id="x", name="f"))
    body, losses, _ = write(
        asking(said("a"), later, said(ToolResult(id="x")), reasoning=Reasoning(effort="low")), "adaptive_thinking"
    )
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "", "signature": "Eq/+=="},
        {"type": "text", "text": "Text"},
        {"type": "redacted_thinking", "data": "Em/+=="},
        {"type": "tool_use", "id": "x", "name": "f", "input": {}},
    ]
    assert body["thinking"]["type"] == "adaptive"
    assert not losses


def test_without_its_thinking_a_loop_of_calls_goes_on_without_any() -> None:
    bare = (LOOP[0], answered(ToolCall(id="x", name="f")), LOOP[2])
    body, losses, _ = write(asking(*bare, reasoning=Reasoning(effort="low")), "adaptive_thinking")
    assert (body["thinking"], lost(losses)) == ({"type": "disabled"}, {"changed": ["reasoning"]})
    foreign = answered(Thinking(text="t", sealed="s", origin="openai_responses", at=0), ToolCall(id="x", name="f"))
    body, losses, _ = write(asking(LOOP[0], foreign, LOOP[2], reasoning=Reasoning(effort="low")), "budget_thinking")
    assert body["thinking"] == {"type": "disabled"}
    assert lost(losses) == {"dropped": ["messages.thinking"], "changed": ["reasoning"]}
    body, losses, _ = write(asking(*bare, answered("b"), said("c"), reasoning=Reasoning(effort="low")), "adaptive_thinking")
    assert body["thinking"]["type"] == "adaptive"
    assert not losses
