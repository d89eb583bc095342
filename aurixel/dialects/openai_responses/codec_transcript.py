"""Writes the turns of a conversation as items of `openai_responses`; an upstream would refuse none of them.

Thinking is given back only to the dialect that made it, marks of caches only to models that know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from aurixel.dialects.json_fields import unsupported
from aurixel.dialects.openai_responses.codec_parts import NAME
from aurixel.dialects.openai_responses.codec_tools import Json, Wire
from aurixel.dialects.spelling import Names, call_id
from aurixel.plugin.canonical import (
    CacheTtl,
    Citation,
    Document,
    Image,
    Losses,
    Message,
    Part,
    Refusal,
    Sound,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

MOST_MARKS: Final = 4
FAILED: Final = "Error: "
_MARK: Final = {"mode": "explicit"}
_encode: Final = msgspec.json.Encoder().encode

# The longest id of a call.
MOST_ID: Final = 64


class _Reasoned(Wire, frozen=True):
    type: Literal["reasoning"]


_REASONED: Final = msgspec.json.Decoder(_Reasoned)


class Transcript:
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
        name, known = self._names(call.name), call_id(call.id, MOST_ID)
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
        self.items.append({"type": kind, "call_id": call_id(result.id, MOST_ID), "output": output})

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


__all__ = ["Transcript", "annotation"]
