"""Writes the canonical form as a request of `openai_responses`; it sends no field that the model's traits do not allow.

Whatever the dialect has no place for is put where it has one, or left out; either way `Losses` is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from aurixel.dialects.json_fields import unsupported
from aurixel.dialects.openai_responses_codec_items import NAME
from aurixel.dialects.openai_responses_codec_tools import (
    Json,
    Names,
    Wire,
    call_id,
    schema_name,
    write_choice,
    write_tool,
)
from aurixel.plugin.canonical import (
    CacheTtl,
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
    ToolCall,
    ToolResult,
    Written,
)
from aurixel.plugin.contracts import ModelRules

LEAST_OUTPUT: Final = 16  # upstreams of this dialect refuse less
MOST_MARKS: Final = 4
# A budget of thinking, in tokens, up to which it is little or middling effort.
LOW_BUDGET: Final = 2048
MEDIUM_BUDGET: Final = 8192
FAILED: Final = "Error: "
SEALED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_NOT_SAID: Final = ("top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
_SAMPLING: Final = ("temperature", "top_p")
_MARK: Final = {"mode": "explicit"}
_NO_SCHEMA: Final = msgspec.Raw(b"{}")
_encode: Final = msgspec.json.Encoder().encode


def write(conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
    """See `ChatCodec`."""
    traits, names = rules.traits, Names(losses)
    transcript = _Transcript(conversation.messages, names, losses, traits)
    body: Json = {"model": conversation.model}
    if transcript.instructions is not None:
        body["instructions"] = transcript.instructions
    body["input"] = transcript.items
    if conversation.stream:
        body["stream"] = True
    for name in _NOT_SAID:
        if getattr(conversation, name) is not None:
            losses.drop(name)
    if conversation.stop:
        losses.drop("stop")
    for name in _SAMPLING:
        if (value := getattr(conversation, name)) is not None:
            if "no_sampling" in traits:
                losses.drop(name)
            else:
                body[name] = value
    if (limit := conversation.max_output) is not None:
        sent = min(max(limit, LEAST_OUTPUT), max(rules.max_output, LEAST_OUTPUT))
        if sent != limit:
            losses.change("max_output")
        body["max_output_tokens"] = sent
    include = []
    if conversation.reasoning is not None and (asked := _reasoning(conversation.reasoning, traits, losses)):
        body["reasoning"] = asked
    if "reasoning" in traits:
        include.append(SEALED)
    if conversation.logprobs is not None:
        include.append(LOGPROBS)
        body["top_logprobs"] = conversation.logprobs
    if include:
        body["include"] = include
    text: Json = {}
    if conversation.format is not None:
        text["format"] = _format(conversation.format)
    if conversation.verbosity is not None:
        text["verbosity"] = conversation.verbosity
    if text:
        body["text"] = text
    if conversation.user is not None:
        losses.change("user")
        body["safety_identifier"] = sha256(b"aurixel:" + conversation.user.encode()).hexdigest()[:32]
    if conversation.cache_key is not None:
        body["prompt_cache_key"] = conversation.cache_key
    if conversation.cache is not None:
        if transcript.marks:
            body["prompt_cache_options"] = {"mode": "implicit", "ttl": "30m"}
        else:
            losses.drop("cache")
    _write_tools(body, conversation, names, losses, "custom_tools" in traits)
    body["store"] = False
    return Written(body=_encode(body), names=names.changed, wrapped=frozenset(names.wrapped))


def _reasoning(asked: Reasoning, traits: frozenset[str], losses: Losses) -> Json | None:
    off = asked.enabled is False or asked.effort == "none"
    if "reasoning" not in traits:
        if not off:
            losses.drop("reasoning")
        return None
    written: Json = {}
    if off:
        written["effort"] = "none"
    elif asked.effort is not None:
        written["effort"] = asked.effort
    elif asked.budget is not None:
        losses.change("reasoning")
        written["effort"] = "low" if asked.budget < LOW_BUDGET else "medium" if asked.budget < MEDIUM_BUDGET else "high"
    if asked.shown and not off:
        written["summary"] = "auto"
    return written or None


def _format(asked: Format) -> Json:
    if asked.kind == "json_object":
        return {"type": "json_object"}
    schema = _NO_SCHEMA if asked.schema is None else asked.schema
    form: Json = {"type": "json_schema", "name": schema_name(asked.name), "schema": schema}
    if asked.description is not None:
        form["description"] = asked.description
    if asked.strict is not None:
        form["strict"] = asked.strict
    return form


def _write_tools(body: Json, conversation: Conversation, names: Names, losses: Losses, native: bool) -> None:
    tools, choice = conversation.tools, conversation.tool_choice
    if not tools:
        return
    body["tools"] = [write_tool(tool, names, losses, native=native) for tool in tools]
    if choice is not None:
        body["tool_choice"] = write_choice(choice, tools, names, native=native)
    if conversation.parallel_tools is not None:
        body["parallel_tool_calls"] = conversation.parallel_tools


# --- items ------------------------------------------------------------------------------------------------------------


class _Reasoned(Wire, frozen=True):
    type: Literal["reasoning"]


_REASONED: Final = msgspec.json.Decoder(_Reasoned)


class _Transcript:
    """Writes the turns as items. What the conversation begins with is its instructions, if it is plain text."""

    def __init__(self, messages: Sequence[Message], names: Names, losses: Losses, traits: frozenset[str]) -> None:
        self._names, self._losses = names, losses
        self._native = "custom_tools" in traits
        self.marks = "cache_breakpoints" in traits
        self._skipped = max(0, _marks(messages) - MOST_MARKS)  # the last ones end the longest prefixes
        self.items: list[Json | msgspec.Raw] = []
        self.instructions: str | None = None
        if "no_prefill" in traits and messages and messages[-1].role == "assistant":
            raise unsupported("messages", "Ending with the assistant's own words, with this model,")
        for place, message in enumerate(messages):
            if message.role == "user":
                self._user(message.parts)
            elif message.role == "assistant":
                self._assistant(message.parts)
            elif place == 0 and len(messages) > 1 and (text := self._plain(message.parts)) is not None:
                self.instructions = text
            else:
                self._message("developer", [self._content(part) for part in message.parts if isinstance(part, Text)])

    def _plain(self, parts: Sequence[Part]) -> str | None:
        """The text of what is nothing but one text."""
        if len(parts) == 1 and isinstance(part := parts[0], Text) and (part.cache is None or not self.marks):
            self._marked({}, part.cache)
            return part.text
        return None

    def _message(self, role: str, content: list[Json]) -> None:
        """Text alone is a string, which every upstream takes."""
        if len(content) == 1 and content[0].keys() == {"type", "text"}:
            self.items.append({"type": "message", "role": role, "content": content[0]["text"]})
        elif content:
            self.items.append({"type": "message", "role": role, "content": content})

    def _user(self, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        for part in parts:
            if isinstance(part, ToolResult):
                self._result(part)
            else:
                content.append(self._content(part))
        self._message("user", content)

    def _assistant(self, parts: Sequence[Part]) -> None:
        content: list[Json] = []
        for part in parts:
            if isinstance(part, Text):
                content.append(self._said(part))
                continue
            if isinstance(part, Refusal):
                content.append({"type": "refusal", "refusal": part.text})
                continue
            self._message("assistant", content)
            content = []
            if isinstance(part, ToolCall):
                self._call(part)
            elif isinstance(part, Thinking):
                self._thinking(part)
            else:
                raise unsupported("messages", "Such a part in a message of this role, with this model,")
        self._message("assistant", content)

    def _thinking(self, part: Thinking) -> None:
        """Thinking of this dialect is an item, and goes back as it came; nothing else is let in that way."""
        if part.origin == NAME and part.sealed is not None:
            try:
                _REASONED.decode(part.sealed)
            except msgspec.DecodeError:
                pass
            else:
                self.items.append(msgspec.Raw(part.sealed.encode()))
                return
        self._losses.drop("messages.thinking")

    def _call(self, call: ToolCall) -> None:
        self._unmarked(call.cache)
        name, known = self._names(call.name), call_id(call.id)
        if call.custom and self._native:
            self.items.append({"type": "custom_tool_call", "call_id": known, "name": name, "input": call.arguments})
            return
        arguments = _encode({"input": call.arguments}).decode() if call.custom else call.arguments or "{}"
        self.items.append({"type": "function_call", "call_id": known, "name": name, "arguments": arguments})

    def _result(self, result: ToolResult) -> None:
        content = [self._content(part) for part in result.parts]
        if result.failed:
            self._losses.emulate("messages.tool_errors")
            if content and content[0]["type"] == "input_text":
                content[0]["text"] = FAILED + content[0]["text"]
            else:
                content.insert(0, {"type": "input_text", "text": FAILED})
        if content:
            self._marked(content[-1], result.cache)
        else:
            self._unmarked(result.cache)
        output: list[Json] | str = content
        if not content:
            output = ""
        elif len(content) == 1 and content[0].keys() == {"type", "text"}:
            output = content[0]["text"]
        kind = "custom_tool_call_output" if result.custom and self._native else "function_call_output"
        self.items.append({"type": kind, "call_id": call_id(result.id), "output": output})

    # --- parts ------------------------------------------------------------------------------------------------------

    def _said(self, part: Text) -> Json:
        written: Json = {"type": "output_text", "text": part.text}
        if part.citations:
            written["annotations"] = [annotation(citation) for citation in part.citations]
        self._unmarked(part.cache)
        return written

    def _content(self, part: Part) -> Json:
        if isinstance(part, Text):
            return self._marked({"type": "input_text", "text": part.text}, part.cache)
        if isinstance(part, Image):
            url = part.url if part.data is None else f"data:{part.media_type};base64,{part.data}"
            image = {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
            return self._marked(image, part.cache)
        if isinstance(part, Document):
            return self._marked(self._document(part), part.cache)
        if isinstance(part, Sound):
            raise unsupported("messages", "Sound, with this model,")
        raise unsupported("messages", "Such a part in a message of this role, with this model,")

    def _document(self, part: Document) -> Json:
        if part.text is not None:
            self._losses.emulate("messages.documents")
            return {"type": "input_text", "text": f"{part.name}:\n{part.text}" if part.name else part.text}
        if part.data is None:
            written: Json = {"type": "input_file", "file_url": part.url}
            if part.name is not None:
                written["filename"] = part.name
            return written
        media_type = part.media_type or "application/pdf"
        name = part.name or f"document.{media_type.rpartition('/')[2]}"
        return {"type": "input_file", "filename": name, "file_data": f"data:{media_type};base64,{part.data}"}

    def _marked(self, content: Json, ttl: CacheTtl | None) -> Json:
        """The part with its cache mark, where the model knows marks; it knows half an hour only."""
        if ttl is None:
            return content
        if not self.marks or self._skipped:
            self._skipped = max(0, self._skipped - 1)
            self._losses.drop("messages.cache_control")
            return content
        if ttl != "5m":
            self._losses.change("messages.cache_control")
        content["prompt_cache_breakpoint"] = _MARK
        return content

    def _unmarked(self, ttl: CacheTtl | None) -> None:
        """Of what cannot bear a mark here."""
        if ttl is not None:
            self._losses.drop("messages.cache_control")


def _marks(messages: Sequence[Message]) -> int:
    """The marks of what can bear one here."""
    count = 0
    for message in messages:
        if message.role == "assistant":
            continue
        for part in message.parts:
            if isinstance(part, ToolResult):
                count += sum(inner.cache is not None for inner in part.parts) + (part.cache is not None)
            elif isinstance(part, Text | Image | Document):
                count += part.cache is not None
    return count


def annotation(citation: Citation) -> Json:
    """A citation of a URL, as this dialect writes it."""
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start,
        "end_index": citation.end,
    }


__all__ = ["annotation", "write"]
