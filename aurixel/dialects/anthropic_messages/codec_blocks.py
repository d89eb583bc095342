"""Writes the parts of a conversation as content blocks of `anthropic_messages`; an upstream would refuse none of them.

Text that is blank is left out, images and documents are of the kinds this dialect has, cache marks are at most four, and
thinking is given back only to the dialect that made it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from aurixel.dialects.json_fields import unsupported, wrong
from aurixel.dialects.spelling import fits, shortened
from aurixel.plugin.canonical import (
    CacheTtl,
    Conversation,
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

ORIGIN: Final = "anthropic_messages"
Block = dict[str, Any]

_MARKS: Final = 4
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_PDF_HEAD: Final = "JVBERi"  # %PDF-
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EPHEMERAL: Final[dict[CacheTtl, dict[str, str]]] = {"5m": {"type": "ephemeral"}, "1h": {"type": "ephemeral", "ttl": "1h"}}


class Names:
    """Names of tools and ids of calls, as far as this dialect has letters for them. `changed`: written -> the client's."""

    def __init__(self) -> None:
        self.changed: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """These are written as they are, whatever others become."""
        self._known.update((name, name) for name in names if fits(name))

    def tool(self, name: str) -> str:
        """What to call the tool."""
        written = self._known.get(name)
        if written is None:
            written = self._known[name] = self._free(name)
            if written != name:
                self.changed[written] = name
        return written

    def _free(self, name: str) -> str:
        if fits(name):
            return name
        return shortened(name)

    def free(self, wish: str) -> str:
        """A name that no tool has."""
        name, taken = wish, set(self._known.values())
        while name in taken:
            name = f"{name[:60]}_{len(taken)}"
        return name

    @staticmethod
    def call(id: str) -> str:
        """The id of a call, which its result repeats."""
        return id if fits(id) else shortened(id)


class Blocks:
    """Writes the parts of one conversation."""

    def __init__(self, conversation: Conversation, losses: Losses) -> None:
        self.names = Names()
        self.wrapped: set[str] = set()
        self._losses = losses
        marks = _marks(conversation)
        self._skipped = max(0, marks - _MARKS)  # the last marks are worth most: they end the longest prefixes

    def mark(self, block: Block, ttl: CacheTtl | None) -> Block:
        """The block with its cache mark."""
        if ttl is not None:
            if self._skipped:
                self._skipped -= 1
                self._losses.drop("messages.cache_control")
            else:
                block["cache_control"] = _EPHEMERAL[ttl]
        return block

    def texts(self, parts: Iterable[Part]) -> list[Block]:
        """Of a system message: its text."""
        blocks = []
        for part in parts:
            if not isinstance(part, Text):
                raise unsupported("messages", "Anything but text in a system message")
            if (block := self._text(part)) is not None:
                blocks.append(block)
        return blocks

    def user(self, parts: Iterable[Part]) -> list[Block]:
        """Of a user's message, its tool results first."""
        results: list[Block] = []
        others: list[Block] = []
        for part in parts:
            if isinstance(part, ToolResult):
                results.append(self._result(part))
            elif (block := self._input(part)) is not None:
                others.append(block)
        return results + others

    def assistant(self, parts: tuple[Part, ...]) -> list[Block]:
        """Of an earlier answer."""
        blocks: list[Block] = []
        for part in _in_place(parts):
            if isinstance(part, Text):
                if part.citations:
                    self._losses.drop("citations")
                if (block := self._text(part)) is not None:
                    blocks.append(block)
            elif isinstance(part, ToolCall):
                blocks.append(self._call(part))
            elif isinstance(part, Thinking):
                if (block := self._thinking(part)) is not None:
                    blocks.append(block)
            elif isinstance(part, Refusal):
                self._losses.emulate("messages.refusal")
                if part.text.strip():
                    blocks.append({"type": "text", "text": part.text})
            elif isinstance(part, Image):
                self._losses.drop("messages.images")
            elif isinstance(part, Document):
                self._losses.drop("messages.documents")
            else:
                raise unsupported("messages", "A part of this kind in an answer")
        return blocks

    def _text(self, part: Text) -> Block | None:
        text = part.text
        if not text or text.isspace():
            if part.cache is not None:
                self.mark({}, part.cache)
                self._losses.drop("messages.cache_control")
            return None
        return self.mark({"type": "text", "text": text}, part.cache)

    def _input(self, part: Part) -> Block | None:
        if isinstance(part, Text):
            return self._text(part)
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, Document):
            return self._document(part)
        if isinstance(part, Sound):
            raise unsupported("messages", "Audio as input of this model")
        raise unsupported("messages", "A part of this kind in a user's message")

    def _result(self, part: ToolResult) -> Block:
        block: Block = {"type": "tool_result", "tool_use_id": self.names.call(part.id)}
        inner = [block for block in map(self._input, part.parts) if block is not None]
        if len(inner) == 1 and inner[0].keys() == {"type", "text"}:
            block["content"] = inner[0]["text"]
        elif inner:
            block["content"] = inner
        if part.failed:
            block["is_error"] = True
        return self.mark(block, part.cache)

    def _call(self, part: ToolCall) -> Block:
        name = self.names.tool(part.name)
        if part.custom:
            given: Any = {"input": part.arguments}
        elif not part.arguments or part.arguments.isspace():
            given = {}
        else:
            given = json_object(part.arguments)
            if given is None:
                raise wrong("messages", "a list whose tool calls have a JSON object as arguments")
        return self.mark({"type": "tool_use", "id": self.names.call(part.id), "name": name, "input": given}, part.cache)

    def _thinking(self, part: Thinking) -> Block | None:
        if part.origin != ORIGIN or part.sealed is None:  # without its proof the upstream does not take it back
            self._losses.drop("messages.thinking")
            return None
        if part.hidden:
            return {"type": "redacted_thinking", "data": part.sealed}
        return {"type": "thinking", "thinking": part.text, "signature": part.sealed}

    def _image(self, part: Image) -> Block:
        if part.detail not in (None, "auto"):
            self._losses.drop("image.detail")
        if part.data is None:
            return self.mark({"type": "image", "source": {"type": "url", "url": part.url or ""}}, part.cache)
        media_type = _sniffed(part.data) or part.media_type.lower()
        if media_type == "image/jpg":
            media_type = "image/jpeg"
        if media_type not in _IMAGES:
            raise unsupported("messages", "An image that is neither JPEG, PNG, GIF nor WebP")
        return self.mark(
            {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": part.data}}, part.cache
        )

    def _document(self, part: Document) -> Block | None:
        if part.url is not None:
            source = {"type": "url", "url": part.url}
        elif part.text is not None:
            if not part.text.strip():
                return None
            source = {"type": "text", "media_type": "text/plain", "data": part.text}
        else:
            source = _document_source(part.data or "", part.media_type.lower())
        block: Block = {"type": "document", "source": source}
        if part.name:
            block["title"] = part.name
        return self.mark(block, part.cache)


def json_object(text: str) -> msgspec.Raw | None:
    """The text as JSON, as it stands, if it is an object."""
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return msgspec.Raw(text.encode())


def _in_place(parts: tuple[Part, ...]) -> tuple[Part, ...] | list[Part]:
    """The parts with thinking where it was: other dialects have no order between it and the rest."""
    found = [part for part in parts if isinstance(part, Thinking) and part.at is not None]
    if not found or all(parts[part.at] is part for part in found if part.at is not None and part.at < len(parts)):
        return parts
    out: list[Part] = []
    rest = iter([part for part in parts if not (isinstance(part, Thinking) and part.at is not None)])
    for part in sorted(found, key=lambda part: part.at or 0):
        out += islice(rest, max(0, (part.at or 0) - len(out)))
        out.append(part)
    return [*out, *rest]


def _sniffed(data: str) -> str | None:
    """What the image is, by its first bytes: what a data URL says of itself may be wrong."""
    try:
        head = binascii.a2b_base64(data[:24])
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"GIF8"):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def _document_source(data: str, media_type: str) -> dict[str, str]:
    if media_type == _PDF or data.startswith(_PDF_HEAD):
        return {"type": "base64", "media_type": _PDF, "data": data}
    if media_type.startswith("text/") or media_type == "application/json":
        try:
            text = base64.b64decode(data, validate=True).decode()
        except ValueError:
            raise wrong("messages", "a list whose documents of text are UTF-8 in base64") from None
        if text.strip():
            return {"type": "text", "media_type": "text/plain", "data": text}
    raise unsupported("messages", "A document that is neither PDF nor text")


def _marks(conversation: Conversation) -> int:
    """The cache marks asked for. `ToolResult` holds some inside."""
    count = sum([tool.cache is not None for tool in conversation.tools]) + (conversation.cache is not None)
    for message in conversation.messages:
        count += _marks_of(message)
    return count


def _marks_of(message: Message) -> int:
    count = 0
    for part in message.parts:
        if getattr(part, "cache", None) is not None:
            count += 1
        if isinstance(part, ToolResult):
            count += sum([inner.cache is not None for inner in part.parts])
    return count
