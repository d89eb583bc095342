"""Writes the canonical form as a request of `openai_chat`; it sends no field that the model's traits do not allow.

Whatever the dialect has no place for is put where it has one, or left out; either way `Losses` is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from aurixel.dialects.json_fields import unsupported
from aurixel.dialects.openai_chat.codec_messages import NAME
from aurixel.dialects.openai_codec import FREE_TEXT, effort_of
from aurixel.dialects.spelling import Names, call_id, end_user
from aurixel.plugin.canonical import (
    CacheTtl,
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
    Written,
)
from aurixel.plugin.contracts import ModelRules

Json: TypeAlias = dict[str, Any]

MOST_STOPS: Final = 4
MOST_ID: Final = 40
MOST_MARKS: Final = 4
MARK: Final = "prompt_cache_breakpoint"
FAILED: Final = "Error: "
# Fields of the same meaning and shape: of the conversation -> here.
_SAME: Final = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logit_bias", "logit_bias"),
    ("verbosity", "verbosity"),
    ("cache_key", "prompt_cache_key"),
)
_SAMPLING: Final = ("temperature", "top_p")
_MODES: Final = {"auto": "auto", "none": "none", "any": "required"}
_encode: Final = msgspec.json.Encoder().encode


def write(conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
    """See `ChatCodec`."""
    names = Names(losses)
    native = "custom_tools" in rules.traits
    body: Json = {
        "model": conversation.model,
        "messages": _Transcript(names, losses, rules.traits).write(conversation.messages),
    }
    if conversation.stream:
        body["stream"] = True
    plain = rules.traits.isdisjoint(("no_sampling",))
    for name, word in _SAME:
        if (value := getattr(conversation, name)) is not None:
            if plain or name not in _SAMPLING:
                body[word] = value
            else:
                losses.drop(name)
    if (limit := conversation.max_output) is not None:
        sent = max(1, min(limit, rules.max_output))  # an upstream refuses more than the model can
        if sent != limit:
            losses.change("max_output")
        body["max_completion_tokens"] = sent
    if conversation.top_k is not None:
        losses.drop("top_k")
    if conversation.cache is not None:
        losses.drop("cache")
    if conversation.stop:
        if len(conversation.stop) > MOST_STOPS:
            losses.change("stop")
        body["stop"] = conversation.stop[:MOST_STOPS]
    if conversation.logprobs is not None:
        body["logprobs"] = True
        if conversation.logprobs:
            body["top_logprobs"] = conversation.logprobs
    if conversation.user is not None:
        losses.change("user")
        body["safety_identifier"] = end_user(conversation.user)
    if conversation.format is not None:
        body["response_format"] = _format(conversation.format)
    if conversation.reasoning is not None and (effort := _effort(conversation.reasoning, rules, losses)):
        body["reasoning_effort"] = effort
    _write_tools(body, conversation, names, losses, native)
    return Written(body=_encode(body), names=names.changed, wrapped=frozenset(names.wrapped))


def _effort(asked: Reasoning, rules: ModelRules, losses: Losses) -> str | None:
    off = asked.enabled is False or asked.effort == "none"
    if "reasoning" not in rules.traits:
        if not off:
            losses.drop("reasoning")
        return None
    if off:
        return "none"
    if asked.effort is None and asked.budget is not None:
        losses.change("reasoning")
        return effort_of(asked.budget)
    return asked.effort


def _format(asked: Format) -> Json:
    if asked.kind == "json_object":
        return {"type": "json_object"}
    schema: Json = {"name": asked.name}
    if asked.description is not None:
        schema["description"] = asked.description
    if asked.schema is not None:
        schema["schema"] = asked.schema
    if asked.strict is not None:
        schema["strict"] = asked.strict
    return {"type": "json_schema", "json_schema": schema}


# --- tools ------------------------------------------------------------------------------------------------------------


def _write_tools(body: Json, conversation: Conversation, names: Names, losses: Losses, native: bool) -> None:
    choice, tools = conversation.tool_choice, conversation.tools
    if choice is not None and choice.allowed is not None:
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
        losses.emulate("tool_choice")
    if not tools:
        return
    body["tools"] = [_tool(tool, names, losses, native) for tool in tools]
    if choice is not None:
        body["tool_choice"] = _tool_choice(choice, tools, names, native)
    if conversation.parallel_tools is not None:
        body["parallel_tool_calls"] = conversation.parallel_tools


def _tool(tool: Tool, names: Names, losses: Losses, native: bool) -> Json:
    spec: Json = {"name": names(tool.name)}
    if tool.description is not None:
        spec["description"] = tool.description
    if tool.cache is not None:
        losses.drop("messages.cache_control")
    if not tool.custom:
        if tool.schema is not None:
            spec["parameters"] = tool.schema
        if tool.strict is not None:
            spec["strict"] = tool.strict
        return {"type": "function", "function": spec}
    if native:
        if tool.grammar is not None:
            spec["format"] = tool.grammar
        return {"type": "custom", "custom": spec}
    names.wrapped.add(spec["name"])
    losses.emulate("tools.custom")
    if tool.grammar is not None:
        losses.emulate("tools.grammar")
    spec["parameters"] = FREE_TEXT
    return {"type": "function", "function": spec}


def _tool_choice(choice: ToolChoice, tools: Iterable[Tool], names: Names, native: bool) -> Json | str:
    if choice.mode != "tool" or choice.name is None:
        return _MODES.get(choice.mode, "required")
    custom = native and any(tool.custom and tool.name == choice.name for tool in tools)
    kind = "custom" if custom else "function"
    return {"type": kind, kind: {"name": names(choice.name)}}


# --- messages ---------------------------------------------------------------------------------------------------------


def _marks(message: Message) -> int:
    """The marks of what can bear one here."""
    if message.role == "assistant":
        return 0
    return sum([isinstance(part, Text | Image | Document) and part.cache is not None for part in message.parts])


def _joined(told: list[Json]) -> str:
    return "\n\n".join([part["text"] for part in told])


class _Transcript:
    """Writes the turns. Instructions wait in `_told` for what they stand before: a tool's answers must follow its call."""

    def __init__(self, names: Names, losses: Losses, traits: frozenset[str]) -> None:
        self._names, self._losses = names, losses
        self._native, self._thinks = "custom_tools" in traits, "reasoning_content" in traits
        self._anywhere, self._prefill = "system_turns" in traits, "no_prefill" not in traits
        self._marks, self._skipped = "cache_breakpoints" in traits, 0
        self._told: list[Json] = []
        self._out: list[Json] = []

    def write(self, messages: Sequence[Message]) -> list[Json]:
        if self._marks:
            self._skipped = max(0, sum(map(_marks, messages)) - MOST_MARKS)
        for message in messages:
            if message.role == "user":
                self._user(message.parts)
            elif message.role == "assistant":
                self._tell()
                self._assistant(message.parts)
            else:
                self._system(message.parts)
        if not self._prefill and messages and messages[-1].role == "assistant":
            raise unsupported("messages", "Ending with the assistant's own words, with this model,")
        self._tell()
        return self._out

    def _system(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if not isinstance(part, Text):
                raise unsupported("messages", "Such a part in a message of this role, with this model,")
            self._told.append(self._marked({"type": "text", "text": part.text}, part.cache))

    def _tell(self) -> None:
        """Instructions that follow each other are one message: not every upstream takes a second, or a list."""
        if self._told and (self._anywhere or not self._out):
            marked = any(MARK in part for part in self._told)
            self._out.append({"role": "system", "content": list(self._told) if marked else _joined(self._told)})
            self._told.clear()
        elif self._told:
            self._out.append({"role": "user", "content": self._folded()})

    def _folded(self) -> str:
        """What was told in the middle of the conversation, for a model that takes it from the user only."""
        self._losses.emulate("messages.system")
        if any(MARK in part for part in self._told):
            self._losses.drop("messages.cache_control")
        text = _joined(self._told)
        self._told.clear()
        return text

    def _marked(self, content: Json, ttl: CacheTtl | None) -> Json:
        """The part with its mark of a cached prefix, where the model knows marks: the last four; half an hour is all it has.
        Upstreams of this dialect cache by themselves, and few know a mark."""
        if ttl is None:
            return content
        if not self._marks or self._skipped:
            self._skipped = max(0, self._skipped - 1)
            self._losses.drop("messages.cache_control")
            return content
        if ttl != "5m":
            self._losses.change("messages.cache_control")
        content[MARK] = {"mode": "explicit"}
        return content

    def _unmarked(self, part: Text | Image | Document | ToolCall | ToolResult) -> None:
        """Of what cannot bear a mark here."""
        if part.cache is not None:
            self._losses.drop("messages.cache_control")

    def _user(self, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        for part in parts:
            if isinstance(part, ToolResult):
                self._result(part, content)
                continue
            if self._told:
                self._before(content)
            content.append(self._content(part))
        if self._told:
            self._before(content)
        if len(content) == 1 and content[0]["type"] == "text" and MARK not in content[0]:
            self._out.append({"role": "user", "content": content[0]["text"]})
        elif content:
            self._out.append({"role": "user", "content": content})

    def _before(self, content: list[Json]) -> None:
        """Tells what waits, now that the answers of tools are written."""
        if self._anywhere or not self._out:
            self._tell()
        else:
            content.append({"type": "text", "text": self._folded()})

    def _result(self, result: ToolResult, after: list[Json]) -> None:
        """What of a tool's answer is no text goes to `after`: what the user says next."""
        self._unmarked(result)
        texts: list[str] = []
        media: list[Json] = []
        for part in result.parts:
            self._unmarked(part)
            written = self._content(msgspec.structs.replace(part, cache=None))
            if written["type"] == "text":
                texts.append(written["text"])
            else:
                self._losses.emulate("messages.images" if isinstance(part, Image) else "messages.documents")
                media.append(written)
        if media:
            texts.append(f"(see the next message: {len(media)} of this answer's parts)")
            after.append({"type": "text", "text": f"Of the answer to tool call {call_id(result.id, MOST_ID)}:"})
            after += media
        text = "\n".join(texts)
        if result.failed:
            self._losses.emulate("messages.tool_errors")
            text = FAILED + text
        self._out.append({"role": "tool", "tool_call_id": call_id(result.id, MOST_ID), "content": text})

    def _content(self, part: Part) -> Json:
        if isinstance(part, Text):
            return self._marked({"type": "text", "text": part.text}, part.cache)
        if isinstance(part, Image):
            url = part.url if part.data is None else f"data:{part.media_type};base64,{part.data}"
            image: Json = {"url": url}
            if part.detail is not None:
                image["detail"] = part.detail
            return self._marked({"type": "image_url", "image_url": image}, part.cache)
        if isinstance(part, Document):
            return self._marked(self._document(part), part.cache)
        if isinstance(part, Sound):
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        raise unsupported("messages", "Such a part in a message of this role, with this model,")

    def _document(self, part: Document) -> Json:
        if part.text is not None:
            self._losses.emulate("messages.documents")
            return {"type": "text", "text": f"{part.name}:\n{part.text}" if part.name else part.text}
        if part.data is None:
            raise unsupported("messages", "A document behind a URL, with this model,")
        media_type = part.media_type or "application/pdf"
        name = part.name or f"document.{media_type.rpartition('/')[2]}"
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{part.data}"}}

    def _assistant(self, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        calls: list[Json] = []
        thinking: list[str] = []
        for part in parts:
            if isinstance(part, Text):
                self._unmarked(part)
                if part.citations:
                    self._losses.drop("citations")
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, Refusal):
                content.append({"type": "refusal", "refusal": part.text})
            elif isinstance(part, ToolCall):
                calls.append(self._call(part))
            elif isinstance(part, Thinking):
                if part.origin != NAME:
                    self._losses.drop("messages.thinking")
                elif self._thinks:  # a model that does not ask for it back never sees its own: nothing is lost
                    thinking.append(part.text)
            else:
                raise unsupported("messages", "Such a part in a message of this role, with this model,")
        if not content and not calls and not thinking:
            return
        message: Json = {"role": "assistant", "content": _said(content) if content else None if calls else ""}
        if thinking:
            message["reasoning_content"] = "".join(thinking)
        if calls:
            message["tool_calls"] = calls
        self._out.append(message)

    def _call(self, call: ToolCall) -> Json:
        self._unmarked(call)
        name, known = self._names(call.name), call_id(call.id, MOST_ID)
        if call.custom and self._native:
            return {"id": known, "type": "custom", "custom": {"name": name, "input": call.arguments}}
        arguments = call.arguments or "{}"
        if call.custom:
            arguments = _encode({"input": call.arguments}).decode()
        return {"id": known, "type": "function", "function": {"name": name, "arguments": arguments}}


def _said(content: list[Json]) -> list[Json] | str:
    """Text alone is a string, which every upstream takes."""
    if any(part["type"] != "text" for part in content):
        return content
    return "".join([part["text"] for part in content])


__all__ = ["write"]
