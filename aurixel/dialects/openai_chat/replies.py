"""Reads the answers of `openai_chat`, whole and streamed, and turns their usage into disjoint classes.

Events pass byte for byte. What is taken out or mended is only what breaks clients: the usage event nobody asked for,
events without data, with fields beside `data` and `event`, or without `choices` (docs/dialects.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from aurixel.dialects.readers import (
    NOTHING,
    Count,
    Counts,
    EventReader,
    check_text,
    error_event,
    invalid,
    nonzero,
    reply_usage,
    strings_size,
    text_size,
)
from aurixel.dialects.sse import COMMENT, Event, make_event
from aurixel.dialects.tiers import tier_of
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import NO_COUNTS, Usage

WEB_SEARCH: Final = "tool_calls.web_search"


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class ReportedUsage(msgspec.Struct, gc=False):
    """`usage` as the upstream writes it. The sums are required; `total_tokens` is not looked at."""

    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | int | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Audio(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()
    transcript: str | None = None


class _Message(msgspec.Struct, gc=False):
    """A delta or a message: what of it counts as output. `reasoning` and `reasoning_content` are two vendors' words."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None


class _StreamChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Message | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_StreamChoice] | None = None
    usage: ReportedUsage | None = None
    service_tier: Any = None
    error: msgspec.Raw = msgspec.Raw()


_NO_CALL: Final = _Function()
_CALLS: Final = list[_ToolCall]


class _Choice(msgspec.Struct, gc=False):
    message: msgspec.Raw = msgspec.Raw()


class _Reply(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: msgspec.Raw = msgspec.Raw(b"null")
    service_tier: Any = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_REPLY: Final = msgspec.json.Decoder(_Reply)
_MESSAGE: Final = msgspec.json.Decoder(_Message)
_ANY: Final = msgspec.json.Decoder()


def disjoint(usage: ReportedUsage, calls: Mapping[str, int] = NO_COUNTS) -> Counts:
    """The classes of a report; they add up to prompt + completion tokens. `calls` are counted beside them.

    Cached tokens fall on text first (a cached prefix is instructions before it is media): of audio and images only
    what the prompt has left is charged as such.
    """
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    read = written = audio = image = reasoning = spoken = drawn = 0
    if details := usage.prompt_tokens_details:
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        audio, image = details.audio_tokens or 0, details.image_tokens or 0
    if more := usage.completion_tokens_details:
        reasoning, spoken, drawn = more.reasoning_tokens or 0, more.audio_tokens or 0, more.image_tokens or 0
    if read + written > prompt or audio + image > prompt or reasoning + spoken + drawn > completion:
        raise invalid("reports parts of its usage that exceed the whole")
    fresh = prompt - read - written
    audio = min(audio, fresh)
    image = min(image, fresh - audio)
    return nonzero(
        {
            "input": fresh - audio - image,
            "cache_read": read,
            "cache_write_5m": written,
            "input_audio": audio,
            "input_image": image,
            "output": completion - reasoning - spoken - drawn,
            "reasoning": reasoning,
            "output_audio": spoken,
            "output_image": drawn,
            **calls,
        }
    )


def reported(value: Any) -> ReportedUsage | None:
    """A decoded `usage`; None where there is none. An empty object says nothing either."""
    if value is None or value == {}:
        return None
    try:
        return msgspec.convert(value, ReportedUsage)
    except msgspec.ValidationError:
        raise invalid("reports impossible usage") from None


def _calls(request: ParsedRequest) -> Mapping[str, int]:
    """A model that may search does so once for each answer, and no report counts it."""
    return {WEB_SEARCH: request.choices} if WEB_SEARCH in request.needs else NO_COUNTS


def _message_size(message: _Message) -> int:
    size = text_size(message.content) + text_size(message.reasoning_content or message.reasoning) + text_size(message.refusal)
    if message.tool_calls:
        for call in message.tool_calls:
            size += _function_size(call.function or call.custom)
    if message.function_call:
        size += _function_size(message.function_call)
    if message.audio:
        size += text_size(message.audio.transcript)
    return size


def _function_size(function: _Function | None) -> int:
    if function is None:
        return 0
    return text_size(function.name) + text_size(function.arguments) + text_size(function.input)


class ChatReplyReader:
    """Reads one whole reply."""

    def __init__(self, request: ParsedRequest, input_tokens: int) -> None:
        self._calls = _calls(request)
        self._input_tokens = input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        check_text(body)
        try:
            reply = _REPLY.decode(body)
            usage = reported(_ANY.decode(reply.usage))
            size = sum(_reply_message_size(choice.message) for choice in reply.choices)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("is not a chat completion") from None
        counts = disjoint(usage, self._calls) if usage else None
        return reply_usage(counts, self._input_tokens, size, self._calls, tier=tier_of(reply.service_tier))


def _reply_message_size(raw: msgspec.Raw) -> int:
    try:
        return _message_size(_MESSAGE.decode(raw)) if raw else 0
    except msgspec.ValidationError:
        message = _ANY.decode(raw)
        return strings_size(message.get("content")) if isinstance(message, dict) else 0


class ChatStreamReader(EventReader):
    """Reads one event stream. Its end is `[DONE]`, or the end of the connection, once every choice has finished."""

    chunks: ClassVar[msgspec.json.Decoder[Any]] = _CHUNK

    def __init__(self, request: ParsedRequest) -> None:
        super().__init__(_calls(request))
        self._asked_usage = request.asked_usage
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._begun: dict[int, set[int | None]] = {}  # of each choice: indices of its tool calls; None: one without

    def _event(self, event: bytes) -> bytes:
        # The usual event is one line of data.
        if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and event.endswith(b"\n\n"):
            return self._data(event[6:-2], event)
        parts = Event(event)
        out = event if parts.plain else parts.rebuilt()
        if not parts.data:
            return out if parts.only_comments else COMMENT
        if parts.name == b"error":
            raise error_event()
        return self._data(parts.data, out)

    def _data(self, data: bytes, event: bytes) -> bytes:
        if data.startswith(b"[DONE]"):
            if self._open:
                raise invalid("is said to be done before it has finished")
            self._finish()
            return event
        check_text(data, "contains an event that ")
        try:
            chunk = self.chunks.decode(data)
        except msgspec.ValidationError:
            return self._odd(data, event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("contains an event that is not JSON") from None
        if chunk.error and bytes(chunk.error) not in NOTHING:
            raise error_event()
        choices, usage = chunk.choices, chunk.usage
        if chunk.service_tier is not None:
            self._served_at(chunk.service_tier)
        counts = disjoint(usage, self._calls) if usage is not None else None  # what is refused is not counted either
        if choices:
            for choice in choices:
                self._choice(choice)
        if counts is not None:
            self._report(counts, final=True)
            if not choices and not self._asked_usage:
                return b""
        if choices is None:
            return self._without_choices(data, usage is not None)
        return event

    def _choice(self, choice: Any) -> None:
        delta = choice.delta
        if delta is not None:
            if delta.tool_calls:
                self._continued(choice.index, delta.tool_calls)
            size = _message_size(delta)
            if size or delta.role or delta.audio or delta.tool_calls:
                self.started = True
                self.output_bytes += size
        self._mark(choice.index, bool(choice.finish_reason))  # some vendors write "" until the end

    def _continued(self, choice: int, calls: list[_ToolCall]) -> None:
        """Refuses arguments of a call that never began; its id or its name begins one. Some vendors number no call, or only
        what follows its beginning."""
        begun = self._begun.setdefault(choice, set())
        for call in calls:
            function = call.custom or call.function or _NO_CALL
            if call.id or function.name:
                begun.add(call.index)
            elif (function.arguments or function.input) and not (
                begun if call.index is None else call.index in begun or None in begun
            ):
                raise invalid("continues a tool call that has not begun")

    def _mark(self, index: int, finished: bool) -> None:
        if finished:
            self._finished.add(index)
            self._open.discard(index)
        elif index not in self._finished:
            self._open.add(index)

    def _odd(self, data: bytes, event: bytes) -> bytes:
        """JSON, but not of the types that were expected: lists for content, and what vendors still invent."""
        try:
            value = _ANY.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("contains an event that is not JSON") from None
        if not isinstance(value, dict):
            raise invalid("contains an event that is no object")
        if value.get("error"):
            raise error_event()
        usage = reported(value.get("usage"))
        counts = disjoint(usage, self._calls) if usage is not None else None
        choices = value.get("choices")
        if value.get("service_tier") is not None:
            self._served_at(value["service_tier"])
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise invalid("contains a choice that is no object")
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            delta = choice.get("delta")
            if isinstance(delta, dict) and (calls := delta.get("tool_calls")):
                self._odd_calls(index, calls)
            self._mark(index, bool(choice.get("finish_reason")))
            if delta:
                self.started = True
                self.output_bytes += strings_size(delta)
        if counts is not None:
            self._report(counts, final=True)
            if not choices and not self._asked_usage:
                return b""
        return event if isinstance(choices, list) else self._without_choices(data, usage is not None)

    def _odd_calls(self, choice: int, calls: Any) -> None:
        """As `_continued`; calls that are not understood may have begun any."""
        try:
            known = msgspec.convert(calls, _CALLS)
        except msgspec.ValidationError:
            self._begun.setdefault(choice, set()).add(None)
        else:
            self._continued(choice, known)

    def _without_choices(self, data: bytes, has_usage: bool) -> bytes:
        """Code that uses the SDK walks `choices` unasked: a usage event gets an empty list, anything else is dropped."""
        if not has_usage:
            return COMMENT
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return make_event(msgspec.json.encode({**fields, "choices": msgspec.Raw(b"[]")}))

    def _answer_is_whole(self) -> bool:
        return bool(self._finished) and not self._open


__all__ = ["ChatReplyReader", "ChatStreamReader", "ReportedUsage", "disjoint", "reported"]
