"""`anthropic_messages`: POST /v1/messages. Reads a request's outline, patches what metering demands, keeps the rest.

Refused here is only what cannot be read, cannot be priced, or reaches into state of the shared upstream account;
everything else is the upstream's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from aurixel.dialects import anthropic_family
from aurixel.dialects.anthropic_messages.codec import MessagesCodec
from aurixel.dialects.anthropic_messages.replies import MessagesReplyReader, MessagesStreamReader
from aurixel.dialects.bounds import Bounded, Media, input_bytes, measure, raw_string
from aurixel.dialects.json_fields import (
    Fields,
    check_content_type,
    decode_field,
    decode_object,
    given,
    missing,
    read_bool,
    read_int,
    read_model,
    read_str,
    unpriced,
    unsupported,
    wrong,
)
from aurixel.dialects.patch import patched
from aurixel.dialects.readers import read_count
from aurixel.dialects.tiers import asked_tier
from aurixel.errors import ClientError, RequestError
from aurixel.plugin.contracts import Body, Changes, ErrorReply, ParsedRequest, ReplyReader, StreamReader

# Fields that never become part of the prompt; every other one, unknown ones included, is counted as input.
_NOT_INPUT: Final = frozenset(
    {
        "cache_control",
        "context_management",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "mcp_servers",
        "metadata",
        "model",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
    }
)
_PLAIN_GEO: Final = "global"
# Betas that change what tokens cost, or whose tokens are of another model.
_UNPRICED_BETAS: Final = ("context-1m-", "server-side-fallback-")
# Tools that the client runs, or that cost no more than their tokens; `type` without its date. All others are hosted.
_FREE_TOOLS: Final = frozenset(
    {
        "",
        "bash",
        "browser_toolset",
        "computer",
        "computer_toolset",
        "custom",
        "mcp_toolset",
        "memory",
        "text_editor",
        "tool_search_tool_bm25",
        "tool_search_tool_regex",
    }
)
_TOOL_NAME: Final = re.compile(r"([a-z0-9]+(?:_[a-z0-9]+)*?)(?:_\d{8})?")


class _CacheControl(msgspec.Struct, gc=False):
    ttl: str | None = None


class _Block(msgspec.Struct):
    """Of any type. A tool result's `content` may also be an object, which holds no media."""

    type: str = ""
    cache_control: _CacheControl | None = None
    source: _Source | str | None = None
    content: list[_Block] | _Opaque | str | None = None


class _Source(msgspec.Struct):
    type: str = ""
    data: msgspec.Raw = msgspec.Raw()
    content: list[_Block] | str | None = None


class _Opaque(msgspec.Struct):
    pass


class _Message(msgspec.Struct):
    content: list[_Block] | str | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None
    cache_control: _CacheControl | None = None
    max_uses: int | None = None


_MAX_NESTING: Final = 8  # a document's blocks in a tool's result in a message make two
_NO_SOURCE: Final = _Source()
_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_SYSTEM: Final = msgspec.json.Decoder(list[_Block] | str)
_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_CACHE_CONTROL: Final = msgspec.json.Decoder(_CacheControl)


class AnthropicMessages(MessagesCodec, Bounded):
    """The dialect."""

    name: ClassVar[str] = "anthropic_messages"
    family: ClassVar[str] = anthropic_family.FAMILY
    operation: ClassVar[str] = "chat"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`. An output limit is required by this dialect, and may be 0 (the cache is filled, nothing else)."""
        check_content_type(headers)
        _check_betas(headers.get("anthropic-beta", ""))
        fields = decode_object(body)
        if given(fields, "max_tokens") is None:
            raise missing("max_tokens")
        return self._parsed(fields)

    def parse_count(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `CountsTokens`."""
        check_content_type(headers)
        _check_betas(headers.get("anthropic-beta", ""))
        return self._parsed(decode_object(body))

    def patch_count(self, request: ParsedRequest, model: str) -> Body:
        """See `CountsTokens`."""
        return patched(request.fields, Changes(model=model), {}, limit_field="max_tokens")

    def read_count(self, body: bytes) -> int:
        """See `CountsTokens`."""
        return read_count(body)

    def write_count(self, tokens: int) -> bytes:
        """See `CountsTokens`."""
        return msgspec.json.encode({"input_tokens": tokens})

    def _parsed(self, fields: Fields) -> ParsedRequest:
        model = read_model(fields)
        limit = read_int(fields, "max_tokens", 0)
        stream = read_bool(fields, "stream")
        _check_price(fields)
        reading = _Reading()
        messages = reading.messages(fields)
        reading.system(fields)
        tools = reading.tools(fields)
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=stream,
            fields=fields,
            bound=measure(
                reading.media,
                text_bytes=input_bytes(fields, _NOT_INPUT),
                messages=messages,
                tools=tools,
            ),
            output_limit=limit,
            needs=frozenset(reading.needs),
            tier=asked_tier(fields, "service_tier", "speed"),
            calls=reading.calls,
        )

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. Usage comes unasked in this dialect."""
        return patched(request.fields, changes, {}, limit_field="max_tokens")

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return MessagesReplyReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return MessagesStreamReader(request)

    def encode_error(self, error: RequestError, request_id: str) -> ErrorReply:
        """See `Dialect`."""
        return anthropic_family.encode_error(error, request_id)

    def encode_stream_error(self, error: RequestError, request_id: str) -> bytes:
        """See `Dialect`."""
        return anthropic_family.encode_stream_error(error, request_id)


def _check_betas(header: str) -> None:
    if header and any(beta.strip().startswith(_UNPRICED_BETAS) for beta in header.split(",")):
        raise unpriced("anthropic-beta", "One of these beta features")


def _check_price(fields: Fields) -> None:
    """Refuses what no price describes, and what belongs to whoever else uses the upstream account."""
    if (geo := read_str(fields, "inference_geo")) is not None and geo != _PLAIN_GEO:
        raise unpriced("inference_geo", "Choosing where the model runs")
    if given(fields, "container") is not None:
        raise unsupported("container", "Using a container")


class _Reading:
    """What one request's messages, system prompt and tools hold beside text."""

    __slots__ = ("calls", "media", "needs")

    def __init__(self) -> None:
        self.media = Media()
        self.needs: set[str] = set()
        self.calls: dict[str, int] = {}

    def messages(self, fields: Fields) -> int:
        """The number of messages."""
        raw = given(fields, "messages")
        if raw is None:
            raise missing("messages")
        messages = decode_field(_MESSAGES, raw, "messages", "a list of messages")
        if not messages:
            raise wrong("messages", "a list of at least one message")
        for message in messages:
            if isinstance(message.content, list):
                self._blocks(message.content, "messages")
        return len(messages)

    def system(self, fields: Fields) -> None:
        """The system prompt, and the cache mark of the whole request."""
        if (raw := given(fields, "system")) is not None:
            system = decode_field(_SYSTEM, raw, "system", "a string or a list of blocks")
            if isinstance(system, list):
                self._blocks(system, "system")
        if (raw := given(fields, "cache_control")) is not None:
            self._cached(decode_field(_CACHE_CONTROL, raw, "cache_control", "an object"), "cache_control")

    def tools(self, fields: Fields) -> int:
        """The number of tools."""
        if given(fields, "mcp_servers") is not None:
            self.media.open_ended = True
        raw = given(fields, "tools")
        if raw is None:
            return 0
        tools = decode_field(_TOOLS, raw, "tools", "a list of tools")
        for tool in tools:
            self._cached(tool.cache_control, "tools")
            named = _TOOL_NAME.fullmatch(tool.type or "") if tool.type else None
            if tool.type and named is None:
                raise wrong("tools", "a list of tools of known types")
            kind = named[1] if named else ""
            if kind not in _FREE_TOOLS:
                need = f"tool_calls.{kind}"
                self.needs.add(need)
                self.media.open_ended = True
                if tool.max_uses is not None and tool.max_uses > 0:
                    self.calls[need] = self.calls.get(need, 0) + min(tool.max_uses, 1000)
        return len(tools)

    def _cached(self, mark: _CacheControl | None, name: str) -> None:
        if mark is None:
            return
        if mark.ttl not in (None, "5m", "1h"):
            raise unpriced(name, "A cache kept for so long")
        self.needs.add("cache_write_1h" if mark.ttl == "1h" else "cache_write_5m")

    def _blocks(self, blocks: list[_Block], name: str, depth: int = 0) -> None:
        if depth > _MAX_NESTING:
            raise ClientError("too_deep", "Blocks are nested too deeply.", param=name)
        for block in blocks:
            self._cached(block.cache_control, name)
            if block.type == "image":
                source = _own(block.source, name)
                self.media.image(raw_string(source.data) if source.type == "base64" else None)
            elif block.type == "document":
                self._document(_own(block.source, name), name, depth)
            elif block.type == "container_upload":
                raise unsupported(name, "Using a container")
            elif isinstance(block.content, list):
                self._blocks(block.content, name, depth + 1)

    def _document(self, source: _Source, name: str, depth: int) -> None:
        if source.type == "base64":
            self.media.document(max(0, len(source.data) - 2))
        elif source.type == "content":
            if isinstance(source.content, list):
                self._blocks(source.content, name, depth + 1)
        elif source.type != "text":  # what the upstream fetches itself
            self.media.open_ended = True


def _own(source: _Source | str | None, name: str) -> _Source:
    """The source of an image or a document, unless it lies in the shared upstream account."""
    if not isinstance(source, _Source):
        return _NO_SOURCE
    if source.type == "file":
        raise unsupported(name, "Referring to a file by its id")
    return source
