"""Reads a request of `anthropic_messages` into the canonical form; what has no name there is reported or refused.

Refused are tools that the upstream would run, servers it would ask, and blocks whose loss would change what the model is
asked. Whatever `parse_request` let pass and is still malformed is a `ClientError` that names its field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import Fields, decode_field, given, missing, unsupported, wrong
from aurixel.plugin.canonical import (
    CacheTtl,
    Citation,
    Conversation,
    Document,
    Effort,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.plugin.contracts import ParsedRequest

ORIGIN: Final = "anthropic_messages"
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
# The first system block of some clients: it changes with their every version and tells the model nothing.
_BILLING: Final = "x-anthropic-billing-header:"
# Read here, or without any meaning for another upstream; of every other field the client is told that it was dropped.
_KNOWN: Final = frozenset(
    {
        "billing_policy",
        "cache_control",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
        "workspace_id",
    }
)
# What the upstream's own tools left behind in an earlier answer. The model's words about it stay.
_SERVER_RESULT: Final = "_tool_result"
_NO_RAW: Final = msgspec.Raw()


class _Mark(msgspec.Struct, gc=False):
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
    cache_control: _Mark | None = None
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


class _Tool(msgspec.Struct, gc=False):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NO_RAW
    strict: bool | None = None
    cache_control: _Mark | None = None
    defer_loading: bool | None = None
    input_examples: msgspec.Raw = _NO_RAW
    allowed_callers: msgspec.Raw = _NO_RAW


class _Choice(msgspec.Struct, gc=False):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _ThinkingConfig(msgspec.Struct, gc=False):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct, gc=False):
    type: str
    schema: msgspec.Raw = _NO_RAW


class _Output(msgspec.Struct, gc=False):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class Located(msgspec.Struct, gc=False):
    """A citation of any type; `source` is that of a search result the client gave."""

    type: str = ""
    url: str | None = None
    source: str | None = None
    title: str | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_SYSTEM: Final = msgspec.json.Decoder(list[_Block] | str)
_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_CHOICE: Final = msgspec.json.Decoder(_Choice)
_THINKING: Final = msgspec.json.Decoder(_ThinkingConfig)
_OUTPUT: Final = msgspec.json.Decoder(_Output)
_NAMES: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_METADATA: Final = msgspec.json.Decoder(_Metadata)
_MARK: Final = msgspec.json.Decoder(_Mark)
_NUMBER: Final = msgspec.json.Decoder(float)
_INTEGER: Final = msgspec.json.Decoder(int)
_STRING: Final = msgspec.json.Decoder(str)
_STRINGS: Final = msgspec.json.Decoder(list[str])
_CITATIONS: Final = msgspec.json.Decoder(list[Located] | _Opaque | None)
_MODES: Final = ("auto", "any", "tool", "none")


def read(request: ParsedRequest, losses: Losses) -> Conversation:
    """See `ChatCodec.read`."""
    fields = request.fields
    for name in fields:
        if name not in _KNOWN:
            if name == "mcp_servers" and given(fields, name) is not None:
                raise unsupported(name, "Letting the upstream ask servers")
            losses.drop(name)
    choice, parallel = _choice(fields)
    if request.output_limit == 0:
        raise unsupported("max_tokens", "Filling a cache without an answer with this model")
    effort, form = _output(fields, losses)
    messages = _Reading(losses).conversation(fields)
    return Conversation(
        model=request.model,
        messages=messages,
        stream=request.stream,
        tools=_tools(fields, losses) if "tools" in fields else (),
        tool_choice=choice,
        parallel_tools=parallel,
        max_output=request.output_limit,
        temperature=_field(_NUMBER, fields, "temperature", "a number"),
        top_p=_field(_NUMBER, fields, "top_p", "a number"),
        top_k=_field(_INTEGER, fields, "top_k", "an integer"),
        stop=tuple(_field(_STRINGS, fields, "stop_sequences", "a list of strings") or ()),
        format=form,
        reasoning=_reasoning(fields, effort, losses),
        user=_user(fields),
        cache=_ttl(_field(_MARK, fields, "cache_control", "an object")),
    )


def _field(decoder: msgspec.json.Decoder[Any], fields: Fields, name: str, expected: str) -> Any:
    raw = given(fields, name)
    return None if raw is None else decode_field(decoder, raw, name, expected)


def _ttl(mark: _Mark | None) -> CacheTtl | None:
    if mark is None:
        return None
    return "1h" if mark.ttl == "1h" else "5m"


def _user(fields: Fields) -> str | None:
    metadata = _field(_METADATA, fields, "metadata", "an object")
    return metadata.user_id or None if metadata is not None else None


def _choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and False where calls may not be parallel."""
    choice = _field(_CHOICE, fields, "tool_choice", "an object with a type")
    if choice is None:
        return None, None
    mode: Any = choice.type
    if mode not in _MODES or (mode == "tool" and not choice.name):
        raise wrong("tool_choice", "a choice of type auto, any, none, or tool with a name")
    return ToolChoice(mode=mode, name=choice.name if mode == "tool" else None), (
        False if choice.disable_parallel_tool_use else None
    )


def _output(fields: Fields, losses: Losses) -> tuple[Effort | None, Format | None]:
    raw = given(fields, "output_config")
    if raw is None:
        return None, None
    config = decode_field(_OUTPUT, raw, "output_config", "an object")
    for name in _NAMES.decode(raw):
        if name not in ("effort", "format"):
            losses.drop(f"output_config.{name}")
    effort: Any = config.effort
    if effort is not None and effort not in _EFFORTS:
        raise wrong("output_config", "an object whose effort is low, medium, high, xhigh or max")
    form = config.format
    if form is None:
        return effort, None
    if form.type != "json_schema" or not form.schema:
        raise wrong("output_config", "an object whose format is of type json_schema, with its schema")
    return effort, Format(kind="json_schema", schema=form.schema, strict=True)


def _reasoning(fields: Fields, effort: Effort | None, losses: Losses) -> Reasoning | None:
    config = _field(_THINKING, fields, "thinking", "an object with a type")
    if config is None:
        return None if effort is None else Reasoning(effort=effort)
    if config.type == "disabled":
        if effort is not None:
            losses.drop("output_config.effort")
        return Reasoning(enabled=False)
    shown = config.display != "omitted"
    if config.type == "enabled":
        if config.budget_tokens is None or config.budget_tokens < 1:
            raise wrong("thinking", "an object with budget_tokens, at least 1")
        return Reasoning(enabled=True, effort=effort, budget=config.budget_tokens, shown=shown)
    if config.type == "between_tools":
        losses.change("reasoning")
    elif config.type != "adaptive":
        raise wrong("thinking", "an object of type adaptive, enabled or disabled")
    return Reasoning(enabled=True, effort=effort, shown=shown)


def _tools(fields: Fields, losses: Losses) -> tuple[Tool, ...]:
    tools = []
    for tool in _field(_TOOLS, fields, "tools", "a list of tools") or ():
        if tool.type not in (None, "custom"):
            raise unsupported("tools", "A tool of this type")
        if not tool.name:
            raise wrong("tools", "a list of tools with names")
        if tool.defer_loading:
            losses.drop("tools.defer_loading")
        if tool.input_examples:
            losses.drop("tools.input_examples")
        if tool.allowed_callers:
            losses.drop("tools.allowed_callers")
        tools.append(
            Tool(
                name=tool.name,
                description=tool.description,
                schema=tool.input_schema or None,
                strict=tool.strict,
                cache=_ttl(tool.cache_control),
            )
        )
    return tuple(tools)


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


class _Reading:
    """Reads the messages of one request."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses

    def conversation(self, fields: Fields) -> tuple[Message, ...]:
        messages: list[Message] = []
        system = self._system(fields)
        if system:
            messages.append(Message(role="system", parts=system))
        role: Role | None = None
        parts: list[Part] = []
        for message in _field(_MESSAGES, fields, "messages", "a list of messages") or ():
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
        system = _field(_SYSTEM, fields, "system", "a string or a list of blocks")
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
                texts.append(Text(text=block.text, cache=_ttl(block.cache_control)))
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
            parts.append(
                ToolCall(
                    id=block.id,
                    name=block.name,
                    arguments=bytes(block.input).decode(),
                    cache=_ttl(block.cache_control),
                )
            )
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
                parts.append(Text(text=block.text, cache=_ttl(block.cache_control), citations=citations))
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
                return Image(data=source.data, media_type=source.media_type, cache=_ttl(block.cache_control))
            if source.type == "url" and source.url is not None:
                return Image(url=source.url, cache=_ttl(block.cache_control))
        raise wrong("messages", "a list whose images have a source of type base64 or url")

    def _document(self, block: _Block, parts: list[Any]) -> None:
        source, mark = block.source, _ttl(block.cache_control)
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
            parts.append(Text(text=text, cache=_ttl(block.cache_control)))

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
            cache=_ttl(block.cache_control),
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
