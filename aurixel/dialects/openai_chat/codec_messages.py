"""Reads the messages of `openai_chat` into turns of the canonical form; every fault is a `ClientError` on `messages`.

It quotes nothing of them, and fetches nothing that they name.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, cast

import msgspec

from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import Fields, decode_field, given, missing, unsupported, wrong
from aurixel.dialects.openai_codec import data_url_parts
from aurixel.plugin.canonical import (
    CacheTtl,
    Document,
    Image,
    Losses,
    Message,
    Part,
    Refusal,
    Role,
    Sound,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

NAME: Final = "openai_chat"
MESSAGES: Final = "anthropic_messages"


class Wire(msgspec.Struct, frozen=True, gc=False):
    """The base of what is decoded here: it prints its type only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Mark(Wire, frozen=True, gc=False):
    """The end of a prefix that is worth keeping, in either family's words."""

    ttl: str | None = None


class _ImageUrl(Wire, frozen=True, gc=False):
    url: str = ""
    detail: str | None = None


class _Sound(Wire, frozen=True, gc=False):
    data: str = ""
    format: str = ""


class _File(Wire, frozen=True, gc=False):
    file_data: str | None = None
    filename: str | None = None


class _Part(Wire, frozen=True, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | str | None = None
    input_audio: _Sound | None = None
    file: _File | None = None
    prompt_cache_breakpoint: Mark | None = None
    cache_control: Mark | None = None


class Function(Wire, frozen=True, gc=False):
    """A call's function, or custom tool; in a stream, a piece of it."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class Call(Wire, frozen=True, gc=False):
    """A tool call; in a stream, a piece of one."""

    id: str | None = None
    function: Function | None = None
    custom: Function | None = None
    index: int | None = None


class _Block(Wire, frozen=True, gc=False):
    """An entry of the carrier of thinking."""

    type: str = ""
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    index: int | None = None
    offset: int = 0


class _Message(Wire, frozen=True, gc=False):
    role: str = ""
    content: list[_Part] | str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[_Block] | None = None
    annotations: msgspec.Raw = msgspec.Raw()
    cache_control: Mark | None = None


_NONE: Final = (msgspec.Raw(), msgspec.Raw(b"null"), msgspec.Raw(b"[]"))
_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


def ttl(mark: Mark | None) -> CacheTtl | None:
    """Half an hour counts as the short one, as it does in the price list."""
    if mark is None:
        return None
    return "1h" if mark.ttl == "1h" else "5m"


# --- messages ---------------------------------------------------------------------------------------------------------


def read_messages(fields: Fields, losses: Losses) -> tuple[Message, ...]:
    """The turns of a request."""
    raw = given(fields, "messages")
    if raw is None:
        raise missing("messages")
    return _Turns(losses).read(decode_field(_MESSAGES, raw, "messages", "a list of messages"))


class _Turns:
    """Collects messages into turns: neighbours of a role become one, tool results go before what else the user says."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._turns: list[tuple[Role, list[Part]]] = []
        self._legacy: dict[str, str] = {}  # function -> id of its last call, of those that came without ids
        self._calls = 0
        self._custom: set[str] = set()  # ids of calls that carry free text

    def read(self, messages: list[_Message]) -> tuple[Message, ...]:
        for message in messages:
            role = message.role
            if message.name is not None and role != "function":
                self._losses.drop("messages.names")
            if role == "user":
                self._turn("user").extend(self._parts(message, "user"))
            elif role == "assistant":
                self._assistant(message)
            elif role in ("tool", "function"):
                self._tool(message)
            elif role in ("system", "developer"):
                self._turns.append(("system", self._parts(message, "system")))
            else:
                raise wrong("messages", "a list of messages of known roles")
        return tuple([Message(role=role, parts=tuple(sorted(parts, key=_is_no_result))) for role, parts in self._turns])

    def _turn(self, role: Role) -> list[Part]:
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
        return self._turns[-1][1]

    def _tool(self, message: _Message) -> None:
        if message.role == "function":
            call = self._legacy.get(message.name or "")
        else:
            call = message.tool_call_id
        if not call:
            raise wrong("messages", "a list in which each tool's answer names its call")
        parts = self._parts(message, "tool")
        if not all(isinstance(part, Text | Image | Document) for part in parts):
            raise unsupported("messages", "Such a part in a tool's answer")
        self._turn("user").append(ToolResult(id=call, parts=cast(Any, tuple(parts)), custom=call in self._custom))

    def _assistant(self, message: _Message) -> None:
        if message.annotations not in _NONE:
            self._losses.drop("citations")
        before = len(self._turns[-1][1]) if self._turns and self._turns[-1][0] == "assistant" else 0
        blocks = message.thinking_blocks or ()
        parts: list[Part] = []
        if isinstance(message.content, str) and message.content:
            parts = [Text(text=piece) for piece in _split(message.content, blocks)]
        elif message.content:
            parts = self._parts(message, "assistant")
        if message.refusal:
            parts.append(Refusal(text=message.refusal))
        for call in message.tool_calls or ():
            parts.append(made := _call(call, call.id))
            if made.custom:
                self._custom.add(made.id)
        if (legacy := message.function_call) is not None:
            self._calls += 1
            known = self._legacy[legacy.name or ""] = f"call_{self._calls}"
            parts.append(_call(Call(function=legacy), known))
        if not blocks and (text := message.reasoning_content or message.reasoning):
            parts.insert(0, Thinking(text=text, origin=NAME, at=before))
        if blocks:
            parts = _with_thinking(parts, blocks, before)
        if parts:
            self._turn("assistant").extend(parts)

    def _parts(self, message: _Message, role: str) -> list[Part]:
        content = message.content
        if content is None:
            if role == "tool":
                return []
            raise wrong("messages", "a list in which each message has content")
        if isinstance(content, str):
            return [Text(text=content, cache=ttl(message.cache_control))] if content or role in ("user", "system") else []
        if message.cache_control is not None and role != "assistant":
            self._losses.drop("messages.cache_control")  # its parts have their own
        return [_part(part, role) for part in content if part.text != "" or part.type != "text"]


def _is_no_result(part: Part) -> bool:
    return not isinstance(part, ToolResult)


def _with_thinking(parts: list[Part], blocks: list[_Block] | tuple[()], before: int) -> list[Part]:
    """The parts and the blocks, each in its place, if the rest reaches that far; `before` parts of the turn are older."""
    out: list[Part] = []
    rest = iter(parts)
    placed = [(place if block.index is None else block.index, block) for place, block in enumerate(blocks)]
    for place, block in sorted(placed, key=lambda each: each[0]):
        out += islice(rest, max(0, min(place, len(blocks) + len(parts)) - len(out)))
        out.append(_thinking(block, before + len(out)))
    return [*out, *rest]


def _split(content: str, blocks: list[_Block] | tuple[()]) -> list[str]:
    """The content, cut where thinking stood in the middle of it."""
    cuts = sorted({block.offset for block in blocks if 0 < block.offset < len(content)})
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)] if cuts else [content]


def _thinking(block: _Block, at: int) -> Thinking:
    hidden = block.type == "redacted_thinking"
    if not hidden and block.type != "thinking":
        raise wrong("messages", "a list in which thinking is given back as it came")
    proof = block.data if hidden else block.signature
    found = unpacked(proof) if proof else None
    if found is None:
        return Thinking(text=block.thinking, sealed=proof, hidden=hidden, origin=MESSAGES, at=at)
    return Thinking(text=block.thinking, sealed=found[1] or None, hidden=hidden, origin=found[0], at=at)


def _call(call: Call, id: str | None) -> ToolCall:
    function = call.custom or call.function
    if function is None or not function.name or not id:
        raise wrong("messages", "a list in which each tool call has an id and a name")
    if call.custom is not None:
        return ToolCall(id=id, name=function.name, arguments=function.input or "", custom=True)
    return ToolCall(id=id, name=function.name, arguments=function.arguments or "")


def _part(part: _Part, role: str) -> Part:
    cache = ttl(part.prompt_cache_breakpoint or part.cache_control)
    kind = part.type
    if kind == "text" and part.text is not None:
        return Text(text=part.text, cache=cache)
    if kind == "refusal" and part.refusal is not None and role == "assistant":
        return Refusal(text=part.refusal)
    if kind == "image_url" and part.image_url is not None and role in ("user", "tool"):
        return _image(part.image_url, cache)
    if kind == "file" and part.file is not None and role in ("user", "tool"):
        return _document(part.file, cache)
    if kind == "input_audio" and part.input_audio is not None and role == "user":
        return Sound(data=part.input_audio.data, format=part.input_audio.format)
    if kind in ("text", "refusal", "image_url", "file", "input_audio"):
        raise wrong("messages", "a list in which each part has what its type names, and stands where it may")
    raise unsupported("messages", "A part of this type with this model")


def _image(image: _ImageUrl | str, cache: CacheTtl | None) -> Image:
    url, detail = (image, None) if isinstance(image, str) else (image.url, image.detail)
    if not url:
        raise wrong("messages", "a list in which each image has a URL")
    if url[:5].lower() != "data:":
        return Image(url=url, detail=detail, cache=cache)
    media_type, data = data_url_parts(url, "messages")
    return Image(data=data, media_type=media_type, detail=detail, cache=cache)


def _document(file: _File, cache: CacheTtl | None) -> Document:
    data = file.file_data
    if not data:
        raise wrong("messages", "a list in which each file has its data")
    media_type = "application/pdf"
    if data[:5].lower() == "data:":
        media_type, data = data_url_parts(data, "messages")
    return Document(data=data, media_type=media_type, name=file.filename, cache=cache)


__all__ = ["MESSAGES", "NAME", "Call", "Function", "Mark", "Wire", "read_messages", "ttl"]
