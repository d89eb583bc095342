"""Reads the answers of `openai_responses`, whole and streamed, and turns their usage into disjoint classes.

Events pass byte for byte; a stream that the official SDKs cannot follow (no beginning or two of them, items that were
never opened) is refused rather than handed on (docs/dialects.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

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
    text_size,
)
from aurixel.dialects.sse import COMMENT, Event, named
from aurixel.dialects.tiers import tier_of
from aurixel.values import NO_COUNTS, Usage

WEB_SEARCH: Final = "tool_calls.web_search"


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class ReportedUsage(msgspec.Struct, gc=False):
    """`usage` as the upstream writes it. The sums are required; `total_tokens` is not looked at."""

    input_tokens: Count
    output_tokens: Count
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Searches(msgspec.Struct, gc=False):
    num_requests: Count | None = None


class _ToolUsage(msgspec.Struct, gc=False):
    web_search: _Searches | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    refusal: str | None = None


class _Action(msgspec.Struct, gc=False):
    type: str | None = None


class _Item(msgspec.Struct):
    """An output item: what of it counts as output. `action` is an object in searches, a list or more elsewhere."""

    type: str = ""
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    input: str | None = None
    content: list[_Part] | str | None = None
    summary: list[_Part] | None = None
    action: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    output: list[_Item] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    tool_usage: _ToolUsage | None = None
    status: str | None = None
    service_tier: Any = None


class _Reply(_Response):
    object: str = "response"


class _StreamEvent(msgspec.Struct):
    type: str = ""
    output_index: int | None = None
    delta: msgspec.Raw = msgspec.Raw()
    item: _Item | None = None
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw()


_EVENT: Final = msgspec.json.Decoder(_StreamEvent)
_REPLY: Final = msgspec.json.Decoder(_Reply)
_USAGE: Final = msgspec.json.Decoder(ReportedUsage)
_ACTION: Final = msgspec.json.Decoder(_Action)
_STRING: Final = msgspec.json.Decoder(str)
_WHOLE: Final = (None, "completed", "incomplete")
_ENDS: Final = frozenset({"response.completed", "response.incomplete"})


def disjoint(usage: ReportedUsage, calls: Mapping[str, int] = NO_COUNTS) -> Counts:
    """The classes of a report; they add up to input + output tokens. `calls` are counted beside them."""
    read = written = thought = 0
    if details := usage.input_tokens_details:
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    if more := usage.output_tokens_details:
        thought = more.reasoning_tokens or 0
    if read + written > usage.input_tokens or thought > usage.output_tokens:
        raise invalid("reports parts of its usage that exceed the whole")
    return nonzero(
        {
            "input": usage.input_tokens - read - written,
            "cache_read": read,
            "cache_write_5m": written,
            "output": usage.output_tokens - thought,
            "reasoning": thought,
            **calls,
        }
    )


def _reported(response: _Response, searched: int) -> tuple[Counts | None, Mapping[str, int]]:
    """The classes that a response reports, None where it reports none, and its searches: as reported, else as counted."""
    told = response.tool_usage.web_search if response.tool_usage else None
    searches = searched if told is None or told.num_requests is None else told.num_requests
    calls = {WEB_SEARCH: searches} if searches else NO_COUNTS
    if bytes(response.usage) in NOTHING:
        return None, calls
    try:
        return disjoint(_USAGE.decode(response.usage), calls), calls
    except msgspec.DecodeError:
        raise invalid("reports impossible usage") from None


def _item_size(item: _Item) -> int:
    size = text_size(item.name) + text_size(item.input) + _raw_size(item.arguments)
    if isinstance(item.content, str):
        size += text_size(item.content)
    for parts in (item.content, item.summary):
        if isinstance(parts, list):
            for part in parts:
                size += text_size(part.text) + text_size(part.refusal)
    return size


def _raw_size(raw: msgspec.Raw) -> int:
    """UTF-8 bytes of a string; of anything else, none."""
    return text_size(_STRING.decode(raw)) if bytes(memoryview(raw)[:1]) == b'"' else 0


def _searches(item: _Item) -> bool:
    """Whether the item is a search that costs something: opening a page that was found does not."""
    if item.type != "web_search_call":
        return False
    try:
        return not item.action or _ACTION.decode(item.action).type in (None, "search")
    except msgspec.DecodeError:
        return True


class ResponsesReplyReader:
    """Reads one whole reply."""

    def __init__(self, input_tokens: int) -> None:
        self._input_tokens = input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        check_text(body)
        try:
            reply = _REPLY.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("is not a response, or reports impossible usage") from None
        if reply.object != "response" or reply.output is None:
            raise invalid("is not a response")
        if reply.status not in _WHOLE:
            raise invalid("is not whole")
        size = sum(_item_size(item) for item in reply.output)
        counts, calls = _reported(reply, sum(map(_searches, reply.output)))
        return reply_usage(counts, self._input_tokens, size, calls, tier=tier_of(reply.service_tier))


class ResponsesStreamReader(EventReader):
    """Reads one event stream. Its end is `response.completed` or `response.incomplete`, and nothing else is."""

    def __init__(self) -> None:
        self._searched: Counts = {}
        super().__init__(self._searched)
        self._begun = False
        self._sizes: dict[int, int] = {}  # of the items that were opened: what came of each
        self._closed: set[int] = set()

    def _event(self, event: bytes) -> bytes:
        usual = named(event)
        if usual is not None and usual[0].startswith(b"r"):
            return self._data(usual[1], event)
        parts = Event(event)
        out = event if parts.plain else parts.rebuilt()
        if not parts.data:
            return out if parts.only_comments else COMMENT
        if parts.name == b"error":
            raise error_event()
        if parts.data.startswith(b"[DONE]"):  # it would end the stream for the SDKs, and is no end of an answer
            return COMMENT
        return self._data(parts.data, out)

    def _data(self, data: bytes, event: bytes) -> bytes:
        check_text(data, "contains an event that ")
        try:
            parsed = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("contains an event that cannot be read") from None
        kind = parsed.type
        if kind == "error" or bytes(parsed.error) not in NOTHING:
            raise error_event()
        if not kind.startswith("response."):
            # Code that uses the SDK takes every event by its type, and the first one for the beginning.
            return event if kind and self._begun else COMMENT
        if parsed.response is not None and parsed.response.service_tier is not None:
            self._served_at(parsed.response.service_tier)
        if kind == "response.created":
            if self._begun:
                raise invalid("begins twice")
            self._begun = True
        elif not self._begun:
            raise invalid("does not begin as a response does")
        elif kind in _ENDS:
            self._end(kind, parsed.response)
        elif kind == "response.failed":
            if parsed.response is not None:
                self._account(parsed.response)
            raise error_event()
        elif parsed.output_index is not None:
            self._item(kind, parsed.output_index, parsed)
        return event

    def _item(self, kind: str, index: int, parsed: _StreamEvent) -> None:
        sizes = self._sizes
        if kind == "response.output_item.added":
            if index in sizes or index < 0 or parsed.item is None:
                raise invalid("contains items out of order")
            sizes[index] = 0
            self.started = True
            self._grow(index, text_size(parsed.item.name))
        elif index not in sizes:
            raise invalid("contains items out of order")
        elif kind == "response.output_item.done":
            if index in self._closed or parsed.item is None:
                raise invalid("contains items out of order")
            self._closed.add(index)
            self._grow(index, _item_size(parsed.item) - sizes[index])
            if _searches(parsed.item):
                self._searched[WEB_SEARCH] = self._searched.get(WEB_SEARCH, 0) + 1
        elif parsed.delta:
            self._grow(index, _raw_size(parsed.delta))

    def _grow(self, index: int, size: int) -> None:
        if size > 0:
            self._sizes[index] += size
            self.output_bytes += size

    def _end(self, kind: str, response: _Response | None) -> None:
        if response is None:
            raise invalid("ends without its response")
        self._account(response)
        # What is cut short may end within an item.
        if response.status not in _WHOLE or (kind == "response.completed" and len(self._closed) < len(self._sizes)):
            raise invalid("ends in the middle")
        self._finish()

    def _account(self, response: _Response) -> None:
        """What the upstream says of the whole. It may hold items that never came as events of their own."""
        if response.output is not None:
            lacking = sum(_item_size(item) for item in response.output) - self.output_bytes
            self.output_bytes += max(0, lacking)
        counts, calls = _reported(response, self._searched.get(WEB_SEARCH, 0))
        self._searched.update(calls)
        if counts is not None:
            self._report(counts, final=True)


__all__ = ["ReportedUsage", "ResponsesReplyReader", "ResponsesStreamReader", "disjoint"]
