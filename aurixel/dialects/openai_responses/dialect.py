"""`openai_responses`: POST /v1/responses. Reads a request's outline, patches what metering demands, keeps the rest.

Refused here is only what cannot be read, cannot be priced, or reaches into state of the shared upstream account
(earlier answers, conversations, stored prompts, files, containers). `store` is always sent as false: nothing is kept there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from aurixel.dialects import openai_family
from aurixel.dialects.bounds import Media, data_url, input_bytes, measure, raw_string
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
    unpriced,
    unsupported,
    wrong,
)
from aurixel.dialects.openai_family import OpenAIFamily
from aurixel.dialects.openai_responses.codec import OpenAIResponsesCodec
from aurixel.dialects.openai_responses.replies import WEB_SEARCH, ResponsesReplyReader, ResponsesStreamReader
from aurixel.dialects.patch import patched
from aurixel.dialects.readers import read_count
from aurixel.dialects.tiers import asked_tier
from aurixel.errors import RequestError
from aurixel.plugin.contracts import Body, Changes, ParsedRequest, ReplyReader, StreamReader

# Fields that never become part of the prompt; every other one, unknown ones included, is counted as input.
_NOT_INPUT: Final = frozenset(
    {
        "access_programs",
        "background",
        "client_metadata",
        "context_management",
        "image",
        "include",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
_CACHE_TTL: Final = "30m"
_MOST_CALLS: Final = 1000
# Tools that the client runs; they cost their tokens and nothing else.
_CLIENT_TOOLS: Final = frozenset({"custom", "function", "local_shell", "namespace"})
# Fields whose mere presence reaches for what lies in the upstream account.
_STATE: Final = {
    "background_options": "Answering in the background",
    "conversation": "A conversation that the upstream keeps",
    "previous_response_id": "Going on from an earlier answer by its id",
    "prompt": "A prompt that the upstream keeps",
}
# Items that stand for something the upstream keeps under their id.
_BY_ID: Final = frozenset({"code_interpreter_call", "image_generation_call", "item_reference", "mcp_approval_response"})


class _Breakpoint(msgspec.Struct, gc=False):
    ttl: str | None = None


class _CacheOptions(msgspec.Struct, gc=False):
    ttl: str | None = None
    comparison_response_id: str | None = None


class _Reasoning(msgspec.Struct, gc=False):
    mode: str | None = None


class _Sound(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    image_url: msgspec.Raw = msgspec.Raw()
    detail: str | None = None
    file_data: msgspec.Raw = msgspec.Raw()
    file_url: msgspec.Raw = msgspec.Raw()
    file_id: msgspec.Raw = msgspec.Raw()
    input_audio: _Sound | None = None
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Tool(msgspec.Struct):
    type: str = ""
    execution: str | None = None
    tools: list[_Tool] | None = None


class _Item(msgspec.Struct):
    """Of any type. What a tool answered is a text, parts, or one part (a screenshot)."""

    type: str | None = None
    role: str | None = None
    content: list[_Part] | str | None = None
    output: list[_Part] | _Part | str | None = None
    tools: list[_Tool] | None = None
    file_id: msgspec.Raw = msgspec.Raw()
    container_id: msgspec.Raw = msgspec.Raw()


_INPUT: Final = msgspec.json.Decoder(list[_Item] | str)
_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_CACHE: Final = msgspec.json.Decoder(_CacheOptions)
_REASONING: Final = msgspec.json.Decoder(_Reasoning)
_MODALITIES: Final = msgspec.json.Decoder(list[str])
_ABSENT: Final = (msgspec.Raw(), msgspec.Raw(b"null"))
_MAX_NESTING: Final = 8  # a namespace's tools make one
_FALSE: Final = b"false"


class OpenAIResponses(OpenAIResponsesCodec, OpenAIFamily):
    """The dialect."""

    name: ClassVar[str] = "openai_responses"
    operation: ClassVar[str] = "chat"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        stream = read_bool(fields, "stream")
        limit = read_int(fields, "max_output_tokens", 1)
        reading = _Reading()
        reading.knobs(fields)
        items = reading.items(fields)
        reading.tools(fields)
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=stream,
            fields=fields,
            bound=measure(
                reading.media,
                text_bytes=input_bytes(fields, _NOT_INPUT),
                messages=items + (given(fields, "instructions") is not None),
                tools=reading.count,
            ),
            output_limit=limit,
            needs=frozenset(reading.needs),
            tier=asked_tier(fields, "service_tier"),
            calls=reading.calls(fields),
        )

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. Usage comes unasked in this dialect."""
        return patched(request.fields, changes, {"store": _FALSE}, limit_field="max_output_tokens")

    def parse_count(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `CountsTokens`. It asks for nothing that an answer alone would need."""
        return self.parse_request(body, headers)

    def patch_count(self, request: ParsedRequest, model: str) -> Body:
        """See `CountsTokens`."""
        return patched(request.fields, Changes(model=model), {}, limit_field="max_output_tokens")

    def read_count(self, body: bytes) -> int:
        """See `CountsTokens`."""
        return read_count(body)

    def write_count(self, tokens: int) -> bytes:
        """See `CountsTokens`."""
        return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        del request
        return ResponsesReplyReader(input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        del request
        return ResponsesStreamReader()

    def encode_stream_error(self, error: RequestError, request_id: str) -> bytes:
        """See `Dialect`."""
        return openai_family.encode_response_error(error, request_id)


class _Reading:
    """What one request's knobs, items and tools ask for beside text."""

    __slots__ = ("count", "media", "needs")

    def __init__(self) -> None:
        self.media = Media()
        self.needs: set[str] = set()
        self.count = 0

    def knobs(self, fields: Fields) -> None:
        """Refuses what no price describes, and what belongs to whoever else uses the upstream account."""
        for name, what in _STATE.items():
            if given(fields, name) is not None:
                raise unsupported(name, what)
        if read_bool(fields, "background"):
            raise unsupported("background", "Answering in the background")
        read_bool(fields, "store")
        if (raw := given(fields, "reasoning")) is not None:
            mode = decode_field(_REASONING, raw, "reasoning", "an object").mode
            if mode not in (None, "standard"):
                raise unpriced("reasoning", "This mode of reasoning")
        if (raw := given(fields, "modalities")) is not None:
            asked = decode_field(_MODALITIES, raw, "modalities", "a list of strings")
            if any(modality != "text" for modality in asked):
                raise unpriced("modalities", "This modality")
        if (raw := given(fields, "prompt_cache_options")) is not None:
            options = decode_field(_CACHE, raw, "prompt_cache_options", "an object")
            if options.comparison_response_id is not None:
                raise unsupported("prompt_cache_options", "Referring to an earlier answer by its id")
            self._cached(options.ttl, "prompt_cache_options")

    def items(self, fields: Fields) -> int:
        """The number of items."""
        raw = given(fields, "input")
        if raw is None:
            raise missing("input")
        items = decode_field(_INPUT, raw, "input", "a string or a list of items")
        if isinstance(items, str):
            return 1
        if not items:
            raise wrong("input", "a string or a list of at least one item")
        for item in items:
            self._item(item)
        return len(items)

    def tools(self, fields: Fields) -> None:
        """The tools of the request itself."""
        if (raw := given(fields, "tools")) is not None:
            self._tools(decode_field(_TOOLS, raw, "tools", "a list of tools"), "tools")

    def calls(self, fields: Fields) -> Mapping[str, int]:
        """How often hosted tools may run at most."""
        most = read_int(fields, "max_tool_calls", 0)
        return {WEB_SEARCH: min(most, _MOST_CALLS)} if most is not None and WEB_SEARCH in self.needs else {}

    def _item(self, item: _Item) -> None:
        kind = item.type or ("message" if item.role or item.content else "item_reference")  # either may leave it out
        if kind in _BY_ID:
            raise unsupported("input", "Referring to something earlier by its id")
        if item.file_id not in _ABSENT:
            raise unsupported("input", "Referring to a file by its id")
        if item.container_id not in _ABSENT:
            raise unsupported("input", "Using a container")
        for parts in (item.content, item.output):
            if isinstance(parts, list):
                for part in parts:
                    self._part(part)
            elif isinstance(parts, _Part):
                self._part(parts)
        if item.tools is not None and kind in ("additional_tools", "tool_search_output"):
            self._tools(item.tools, "input")

    def _part(self, part: _Part) -> None:
        if part.file_id not in _ABSENT:
            raise unsupported("input", "Referring to a file by its id")
        if part.prompt_cache_breakpoint is not None:
            self._cached(part.prompt_cache_breakpoint.ttl, "input")
        if part.type in ("input_image", "computer_screenshot"):
            self.media.image(data_url(raw_string(part.image_url)), low_detail=part.detail == "low")
        elif part.type == "input_audio":
            self.needs.add("input_audio")
            if part.input_audio is not None:
                self.media.sound(max(0, len(part.input_audio.data) - 2))
        elif part.type == "input_file":
            if part.file_url not in _ABSENT:  # the upstream fetches it
                self.media.open_ended = True
            elif (data := data_url(raw_string(part.file_data))) is not None:
                self.media.document(len(data))

    def _tools(self, tools: list[_Tool], name: str, depth: int = 0) -> None:
        for tool in tools:
            self.count += 1
            if tool.type.startswith("web_search"):
                self.needs.add(WEB_SEARCH)
                self.media.open_ended = True
            elif tool.type not in _CLIENT_TOOLS and not (tool.type == "tool_search" and tool.execution == "client"):
                raise unpriced(name, "A tool that the upstream runs itself")
            if tool.tools is not None:
                if depth > _MAX_NESTING:
                    raise wrong(name, "a list of tools that is not nested so deeply")
                self._tools(tool.tools, name, depth + 1)

    def _cached(self, ttl: str | None, name: str) -> None:
        if ttl not in (None, _CACHE_TTL):
            raise unpriced(name, "A cache kept for so long")
        self.needs.add("cache_write_5m")
