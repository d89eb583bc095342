"""`openai_chat`: POST /v1/chat/completions. Reads a request's outline, patches what metering demands, keeps the rest.

Refused here is only what cannot be read, cannot be priced, or reaches into state of the shared upstream account;
everything else is the upstream's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

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
from aurixel.dialects.openai_chat.codec import OpenAIChatCodec
from aurixel.dialects.openai_chat.replies import WEB_SEARCH, ChatReplyReader, ChatStreamReader
from aurixel.dialects.openai_family import OpenAIFamily
from aurixel.dialects.patch import patched
from aurixel.dialects.stream_options import asked_usage, asking_usage
from aurixel.dialects.tiers import asked_tier
from aurixel.plugin.contracts import Body, Changes, ParsedRequest, ReplyReader, StreamReader

MAX_CHOICES: Final = 128
# Fields that never become part of the prompt; every other one, unknown ones included, is counted as input.
_NOT_INPUT: Final = frozenset(
    {
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
# Two words for the output limit.
_OLDER: Final = "max_tokens"
_NEWER: Final = "max_completion_tokens"
_CACHE_TTL: Final = "30m"


class _ImageUrl(msgspec.Struct, gc=False):
    url: msgspec.Raw = msgspec.Raw()
    detail: str | None = None


class _Sound(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct, gc=False):
    file_data: msgspec.Raw = msgspec.Raw()
    file_id: str | None = None


class _Breakpoint(msgspec.Struct, gc=False):
    ttl: str | None = None


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    image_url: _ImageUrl | str | None = None
    input_audio: _Sound | None = None
    file: _File | None = None
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Spoken(msgspec.Struct, gc=False):
    id: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Part] | str | None = None
    audio: _Spoken | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str = ""


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_MODALITIES: Final = msgspec.json.Decoder(list[str])
_CACHE_OPTIONS: Final = msgspec.json.Decoder(_Breakpoint)


class OpenAIChat(OpenAIChatCodec, OpenAIFamily):
    """The dialect."""

    name: ClassVar[str] = "openai_chat"
    operation: ClassVar[str] = "chat"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        stream = read_bool(fields, "stream")
        asked = asked_usage(fields)
        choices = read_int(fields, "n", 1, MAX_CHOICES) or 1
        limits = [read_int(fields, name, 1) for name in (_NEWER, _OLDER) if name in fields]
        needs = _needs(fields)
        media = Media()
        messages = _read_messages(fields, media, needs)
        tools = _read_tools(fields, "tools") + _read_tools(fields, "functions")
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=stream,
            fields=fields,
            bound=measure(
                media,
                text_bytes=input_bytes(fields, _NOT_INPUT),
                messages=messages,
                tools=tools,
            ),
            # Upstreams differ in which of the two they heed.
            output_limit=max([limit for limit in limits if limit is not None], default=None),
            choices=choices,
            asked_usage=asked or not stream,
            needs=frozenset(needs),
            tier=asked_tier(fields, "service_tier"),
        )

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. The output limit is `max_completion_tokens` unless the provider has another word for it."""
        new: dict[str, bytes] = {}
        if request.stream:
            new["stream_options"] = asking_usage(request.fields)
        fields = request.fields
        if changes.output_limit_field == _OLDER and _NEWER in fields and _OLDER not in fields:
            # A vendor that knows the older word alone would ignore the newer one, and write more than is held for.
            fields = {_OLDER if name == _NEWER else name: raw for name, raw in fields.items()}
        return patched(fields, changes, new, limit_field=changes.output_limit_field or _NEWER)

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return ChatReplyReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return ChatStreamReader(request)


# The fields that `_needs` reads: most requests have none of them.
_KNOBS: Final = frozenset({"store", "background", "modalities", "web_search_options", "prompt_cache_options"})


def _needs(fields: Fields) -> set[str]:
    """The classes with prices of their own that the request may incur; refuses what no price describes."""
    if _KNOBS.isdisjoint(fields):
        return set()
    if read_bool(fields, "store"):
        raise unpriced("store", "Storing the answer at the upstream")
    if read_bool(fields, "background"):
        raise unpriced("background", "Answering in the background")
    needs: set[str] = set()
    if (raw := given(fields, "modalities")) is not None:
        for modality in decode_field(_MODALITIES, raw, "modalities", "a list of strings"):
            if modality in ("audio", "image"):
                needs.add(f"output_{modality}")
            elif modality != "text":
                raise unpriced("modalities", "This modality")
    if given(fields, "web_search_options") is not None:
        needs.add(WEB_SEARCH)
    if (raw := given(fields, "prompt_cache_options")) is not None:
        _cache_write(decode_field(_CACHE_OPTIONS, raw, "prompt_cache_options", "an object"), "prompt_cache_options", needs)
    return needs


def _cache_write(mark: _Breakpoint, name: str, needs: set[str]) -> None:
    if mark.ttl not in (None, _CACHE_TTL):
        raise unpriced(name, "A cache kept for so long")
    needs.add("cache_write_5m")


def _read_messages(fields: Fields, media: Media, needs: set[str]) -> int:
    """The number of messages; what is not text goes to `media`."""
    raw = given(fields, "messages")
    if raw is None:
        raise missing("messages")
    messages = decode_field(_MESSAGES, raw, "messages", "a list of messages")
    if not messages:
        raise wrong("messages", "a list of at least one message")
    for message in messages:
        if message.audio is not None and message.audio.id is not None:
            raise unsupported("messages", "Referring to audio of an earlier answer")
        if isinstance(message.content, list):
            for part in message.content:
                _read_part(part, media, needs)
    media.open_ended = media.open_ended or WEB_SEARCH in needs
    return len(messages)


def _read_part(part: _Part, media: Media, needs: set[str]) -> None:
    if part.prompt_cache_breakpoint is not None:
        _cache_write(part.prompt_cache_breakpoint, "messages", needs)
    if part.type == "image_url":
        _read_image(part.image_url, media)
    elif part.type == "input_audio":
        needs.add("input_audio")
        if part.input_audio is not None:
            media.sound(max(0, len(part.input_audio.data) - 2))
    elif part.type == "file" and part.file is not None:
        if part.file.file_id is not None:
            raise unsupported("messages", "Referring to a file by its id")
        data = data_url(raw_string(part.file.file_data))
        if data is not None:
            media.document(len(data))


def _read_image(image: _ImageUrl | str | None, media: Media) -> None:
    """`image_url` is an object, or with some vendors the bare URL."""
    if isinstance(image, _ImageUrl):
        media.image(data_url(raw_string(image.url)), low_detail=image.detail == "low")
    else:
        media.image(data_url(memoryview((image or "").encode())))


def _read_tools(fields: Fields, name: str) -> int:
    raw = given(fields, name)
    if raw is None:
        return 0
    tools = decode_field(_TOOLS, raw, name, "a list of tools")
    if name == "tools" and any(tool.type not in ("function", "custom") for tool in tools):
        raise unpriced(name, "A tool that the upstream runs itself")
    return len(tools)
