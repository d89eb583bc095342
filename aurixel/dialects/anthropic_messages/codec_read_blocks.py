"""Reads the messages of a request of `anthropic_messages`: turns, blocks, marks, and thinking of whatever origin.

A block whose loss would change what the model is asked is refused; what is dropped or told in other words is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_blocks import ORIGIN
from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import Fields, decode_field, given, missing, unsupported, wrong
from aurixel.plugin.canonical import (
    CacheTtl,
    Citation,
    Document,
    Image,
    Losses,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

# The first system block of some clients: it changes with their every version and tells the model nothing.
_BILLING: Final = "x-anthropic-billing-header:"
# What the upstream's own tools left behind in an earlier answer. The model's words about it stay.
_SERVER_RESULT: Final = "_tool_result"
_NO_RAW: Final = msgspec.Raw()


class Mark(msgspec.Struct, gc=False):
    """`cache_control`."""

    ttl: str | None = None


class _Source(msgspec.Struct, gc=False):
    type: str = ""
    media_type: str = ""
    data: str | None = None
    url: str | None = None
    content: list[_Block] | str | None = None


class _Opaque(msgspec.Struct, gc=False):
    pass


class _Block(msgspec.Struct, gc=False):
    """Of any type: what its type lacks is empty."""

    type: str = ""
    text: str | None = None
    cache_control: Mark | None = None
    citations: msgspec.Raw = _NO_RAW
    source: _Source | str | None = None
    content: list[_Block] | _Opaque | str | None = None
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NO_RAW
    tool_use_id: str | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Message(msgspec.Struct, gc=False):
    role: str
    content: list[_Block] | str | None = None


class Located(msgspec.Struct, gc=False):
    """A citation of any type; `source` is that of a search result the client gave."""

    type: str = ""
    url: str | None = None
    source: str | None = None
    title: str | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_SYSTEM: Final = msgspec.json.Decoder(list[_Block] | str)
_CITATIONS: Final = msgspec.json.Decoder(list[Located] | _Opaque | None)


def ttl_of(mark: Mark | None) -> CacheTtl | None:
    """How long a marked prefix is kept; None for no mark."""
    if mark is None:
        return None
    return "1h" if mark.ttl == "1h" else "5m"


def field_of(decoder: msgspec.json.Decoder[Any], fields: Fields, name: str, expected: str) -> Any:
    """One field through its decoder; None where it is absent or null."""
    raw = given(fields, name)
    return None if raw is None else decode_field(decoder, raw, name, expected)


def cited(raw: msgspec.Raw) -> tuple[tuple[Citation, ...], bool]:
    """The citations that have a URL, and whether there are others."""
    if not raw:
        return (), False
    found = _CITATIONS.decode(raw)
    if not isinstance(found, list):
        return (), False
    known = tuple(citation for citation in map(citation_of, found) if citation is not None)
    return known, len(known) < len(found)


def citation_of(located: Located) -> Citation | None:
    """None for what has no URL."""
    url = located.url or located.source
    if url is None or not url.startswith(("https://", "http://")):
        return None
    return Citation(url=url, title=located.title or "")


class MessagesReading:
    """Reads the messages of one request, its system prompt first."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses

    def conversation(self, fields: Fields) -> tuple[Message, ...]:
        """Its turns. `ClientError` for what is malformed, or must not be lost and has no name."""
        messages: list[Message] = []
        system = self._system(fields)
        if system:
            messages.append(Message(role="system", parts=system))
        role: Role | None = None
        parts: list[Part] = []
        for message in field_of(_MESSAGES, fields, "messages", "a list of messages") or ():
            if message.role not in ("user", "assistant", "system"):
                raise wrong("messages", "a list of messages of the user and the assistant")
            if message.role != role or role == "system":
                _close(messages, role, parts)
                role, parts = message.role, []
            self._content(message, parts)
        _close(messages, role, parts)
        if len(messages) == (1 if system else 0):
            raise missing("messages")
        return tuple(messages)

    def _system(self, fields: Fields) -> tuple[Text, ...]:
        system = field_of(_SYSTEM, fields, "system", "a string or a list of blocks")
        if system is None:
            return ()
        if isinstance(system, str):
            return () if not system or system.startswith(_BILLING) else (Text(text=system),)
        return tuple(self._system_texts(system, "system"))

    def _system_texts(self, blocks: Iterable[_Block], name: str) -> list[Text]:
        texts = []
        for block in blocks:
            if block.type != "text" or block.text is None:
                raise wrong(name, "text where it is of the system")
            if block.text and not block.text.startswith(_BILLING):
                texts.append(Text(text=block.text, cache=ttl_of(block.cache_control)))
        return texts

    def _content(self, message: _Message, parts: list[Part]) -> None:
        content = message.content
        if isinstance(content, str):
            if content:
                parts.append(Text(text=content))
        elif message.role == "system":
            parts += self._system_texts(content or (), "messages")
        elif message.role == "user":
            for block in content or ():
                if block.type == "tool_result":
                    parts.append(self._result(block))
                else:
                    self._shared(block, parts)
        else:
            for block in content or ():
                self._assistant(block, parts)

    def _assistant(self, block: _Block, parts: list[Part]) -> None:
        kind = block.type
        if kind == "text":
            self._shared(block, parts)
        elif kind == "tool_use":
            if not block.id or not block.name:
                raise wrong("messages", "a list whose tool_use blocks have an id and a name")
            arguments = bytes(block.input).decode()
            if arguments and not arguments.startswith("{"):
                raise wrong("messages", "a list whose tool_use blocks have an object as input")
            mark = ttl_of(block.cache_control)
            parts.append(ToolCall(id=block.id, name=block.name, arguments=arguments, cache=mark))
        elif kind == "thinking":
            parts.append(_thinking(block.thinking or "", block.signature, len(parts)))
        elif kind == "redacted_thinking":
            if block.data is None:
                raise wrong("messages", "a list whose redacted_thinking blocks have their data")
            origin, sealed = unpacked(block.data) or (ORIGIN, block.data)
            parts.append(Thinking(sealed=sealed, hidden=True, origin=origin, at=len(parts)))
        elif kind == "server_tool_use" or kind.endswith(_SERVER_RESULT):
            self._losses.drop("messages.server_tool_use")
        else:
            self._shared(block, parts)

    def _shared(self, block: _Block, parts: list[Any]) -> None:
        """Blocks of users, of tools' results and of documents."""
        kind = block.type
        if kind == "text":
            if block.text is None:
                raise wrong("messages", "a list whose text blocks have a text")
            citations, others = self._cited(block)
            if others:
                self._losses.drop("citations")
            if block.text:
                parts.append(Text(text=block.text, cache=ttl_of(block.cache_control), citations=citations))
        elif kind == "image":
            parts.append(self._image(block))
        elif kind == "document":
            self._document(block, parts)
        elif kind == "search_result":
            self._search_result(block, parts)
        else:
            raise unsupported("messages", "A content block of this type")

    def _cited(self, block: _Block) -> tuple[tuple[Citation, ...], bool]:
        try:
            return cited(block.citations)
        except (msgspec.DecodeError, RecursionError):
            raise wrong("messages", "a list whose citations are lists") from None

    def _image(self, block: _Block) -> Image:
        source = block.source
        if isinstance(source, _Source):
            if source.type == "base64" and source.data is not None:
                return Image(data=source.data, media_type=source.media_type, cache=ttl_of(block.cache_control))
            if source.type == "url" and source.url is not None:
                return Image(url=source.url, cache=ttl_of(block.cache_control))
        raise wrong("messages", "a list whose images have a source of type base64 or url")

    def _document(self, block: _Block, parts: list[Any]) -> None:
        source, mark = block.source, ttl_of(block.cache_control)
        if block.context:
            self._losses.drop("messages.documents.context")
        if block.citations and b"true" in bytes(block.citations):
            self._losses.drop("citations")
        if not isinstance(source, _Source):
            raise wrong("messages", "a list whose documents have a source")
        if source.type == "base64" and source.data is not None:
            parts.append(Document(data=source.data, media_type=source.media_type, name=block.title, cache=mark))
        elif source.type == "text" and source.data is not None:
            parts.append(Document(text=source.data, media_type=source.media_type or "text/plain", name=block.title, cache=mark))
        elif source.type == "url" and source.url is not None:
            parts.append(Document(url=source.url, name=block.title, cache=mark))
        elif source.type == "content" and source.content is not None:
            self._blocks_of_document(source.content, block.title, mark, parts)
        else:
            raise wrong("messages", "a list whose documents have a source of type base64, text, url or content")

    def _blocks_of_document(
        self, content: list[_Block] | str, title: str | None, mark: CacheTtl | None, parts: list[Any]
    ) -> None:
        """Text is a document of text; what else there is stands beside it."""
        inner: list[Any] = []
        if isinstance(content, str):
            inner.append(Text(text=content))
        else:
            for block in content:
                self._shared(block, inner)
        self._losses.change("messages.documents")
        text = "\n\n".join(part.text for part in inner if isinstance(part, Text))
        others = [part for part in inner if not isinstance(part, Text)]
        parts += others
        if text:
            parts.append(Document(text=text, media_type="text/plain", name=title, cache=mark))

    def _search_result(self, block: _Block, parts: list[Any]) -> None:
        """What a client found, as text; that it may be cited is lost."""
        content = block.content if isinstance(block.content, list) else ()
        lines = [block.title or "", block.source if isinstance(block.source, str) else ""]
        lines += [inner.text for inner in content if inner.text]
        self._losses.emulate("messages.search_result")
        if block.citations and b"true" in bytes(block.citations):
            self._losses.drop("citations")
        if text := "\n".join(line for line in lines if line):
            parts.append(Text(text=text, cache=ttl_of(block.cache_control)))

    def _result(self, block: _Block) -> ToolResult:
        if not block.tool_use_id:
            raise wrong("messages", "a list whose tool_result blocks have a tool_use_id")
        parts: list[Any] = []
        if isinstance(block.content, str):
            if block.content:
                parts.append(Text(text=block.content))
        elif isinstance(block.content, list):
            for inner in block.content:
                self._shared(inner, parts)
        elif block.content is not None:
            raise wrong("messages", "a list whose tool_result blocks hold text or blocks")
        return ToolResult(
            id=block.tool_use_id,
            parts=tuple(parts),
            failed=bool(block.is_error),
            cache=ttl_of(block.cache_control),
        )


def _thinking(text: str, signature: str | None, at: int) -> Thinking:
    foreign = unpacked(signature) if signature else None
    if foreign is not None:
        return Thinking(text=text, sealed=foreign[1] or None, origin=foreign[0], at=at)
    return Thinking(text=text, sealed=signature or None, origin=ORIGIN, at=at)


def _close(messages: list[Message], role: Role | None, parts: list[Part]) -> None:
    """Ends a turn; one that is empty is none, and its neighbours may then be one turn."""
    if role is None or not parts:
        return
    if messages and messages[-1].role == role != "system":
        parts = [*messages.pop().parts, *parts]
        parts = [
            msgspec.structs.replace(part, at=place) if isinstance(part, Thinking) else part for place, part in enumerate(parts)
        ]
    if role == "user":
        # Stable: results first, else as they came.
        parts.sort(key=_after_results)
    messages.append(Message(role=role, parts=tuple(parts)))


def _after_results(part: Part) -> bool:
    return not isinstance(part, ToolResult)
