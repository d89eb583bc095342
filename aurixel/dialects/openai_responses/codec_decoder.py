"""Decodes an event stream of `openai_responses` into canonical events; it does no metering.

It is given whole events that the meter let pass. What an upstream sends in one piece only, at the end of an item or of the
whole, is decoded from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from aurixel.dialects.openai_responses.codec_parts import NAME, Annotation, WireItem, citation_of, reasoning_text
from aurixel.dialects.openai_responses.codec_replies import (
    ITEM,
    WireReply,
    call_of,
    called,
    logprobs_of,
    message_parts,
    stop_of,
)
from aurixel.dialects.openai_responses.codec_tools import Wire
from aurixel.dialects.readers import invalid
from aurixel.dialects.sse import Event as Sse
from aurixel.dialects.sse import EventSplitter
from aurixel.plugin.canonical import (
    Began,
    Cited,
    Event,
    PartEnded,
    Refusal,
    RefusalDelta,
    Stopped,
    Text,
    TextDelta,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolDelta,
    ToolEnded,
)


class _Wire(Wire, frozen=True):
    type: str = ""
    output_index: int = -1
    summary_index: int = 0
    content_index: int = 0
    delta: Any = ""
    logprobs: msgspec.Raw = msgspec.Raw()
    annotation: Annotation | None = None
    item: msgspec.Raw = msgspec.Raw()
    response: WireReply | None = None


class _Open:
    """An item that was opened: how much of it has come."""

    __slots__ = ("custom", "kind", "number", "part", "said", "size")

    def __init__(self, kind: str, number: int = -1, *, custom: bool = False) -> None:
        self.kind, self.number, self.custom = kind, number, custom
        self.size = 0  # characters of what streamed
        self.part: int | None = None  # the part of it that is open
        self.said = ""  # of a reasoning: which of its two ways of thinking streams


_WIRE: Final = msgspec.json.Decoder(_Wire)


def data_of(events: bytes) -> Iterator[bytes]:
    """The data of each of these whole events; those without are left out."""
    if b"\r" not in events:
        found = events.split(b"\n\n")
    else:
        splitter = EventSplitter()
        found = splitter.feed(events)
        found.append(splitter.rest())
    for event in found:
        if event.startswith(b"event: "):
            line = event.find(b"\n")
            if event.startswith(b"data: ", line + 1) and event.find(b"\n", line + 1) < 0:
                yield event[line + 7 :]
                continue
        if event and (data := Sse(event).data):
            yield data


class ResponsesDecoder:
    """See `StreamDecoder`."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self._begun = self._refused = self._cut = False
        self._calls = 0
        self._items: dict[int, _Open] = {}

    def feed(self, events: bytes) -> list[Event]:
        """See `StreamDecoder`."""
        out: list[Event] = []
        for data in data_of(events):
            try:
                event = _WIRE.decode(data)
                self._event(event, out)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise invalid("contains an event that cannot be read") from None
        return out

    def _event(self, event: _Wire, out: list[Event]) -> None:
        kind = event.type
        if kind == "response.output_text.delta":
            opened = self._opened(event, "message")
            self._part(opened, event.content_index, out)
            text = _text(event)
            opened.size += len(text)
            logprobs = logprobs_of(event.logprobs)
            if text or logprobs is not None:
                out.append(TextDelta(text=text, logprobs=logprobs))
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            opened = self._opened(event, "call")
            if text := _text(event):
                opened.size += len(text)
                out.append(ToolDelta(index=opened.number, arguments=text))
        elif kind == "response.created":
            self._created(event, out)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._think(event, out)
        elif kind == "response.output_item.added":
            self._add(event, out)
        elif kind == "response.output_item.done":
            self._finish(self._opened(event, ""), event.item, out)
        elif kind == "response.refusal.delta":
            opened = self._opened(event, "message")
            self._part(opened, event.content_index, out)
            if text := _text(event):
                opened.size += len(text)
                self._refused = True
                out.append(RefusalDelta(text=text))
        elif kind == "response.output_text.annotation.added":
            opened = self._opened(event, "message")
            if event.annotation is not None and event.annotation.type == "url_citation" and opened.size:
                out.append(Cited(citation=citation_of(event.annotation)))
            else:
                self.lost.add("reply.citations")
        elif kind == "response.content_part.done":
            self._end_part(self._opened(event, ""), out)
        elif kind in ("response.completed", "response.incomplete"):
            self._stop(event.response, out)

    def _created(self, event: _Wire, out: list[Event]) -> None:
        if self._begun:
            raise invalid("begins twice")
        self._begun = True
        response = event.response or WireReply()
        out.append(Began(id=response.id, created=int(response.created_at or 0)))

    def _opened(self, event: _Wire, kind: str) -> _Open:
        opened = self._items.get(event.output_index)
        if opened is None or (kind and opened.kind != kind):
            raise invalid("contains more of an item that is not open")
        return opened

    def _add(self, event: _Wire, out: list[Event]) -> None:
        if not self._begun or event.output_index in self._items:
            raise invalid("contains items out of order")
        item = ITEM.decode(event.item)
        self._items[event.output_index] = self._open(item, out)

    def _open(self, item: WireItem, out: list[Event]) -> _Open:
        if item.type in ("function_call", "custom_tool_call"):
            call = call_of(item)
            opened = _Open("call", self._calls, custom=call.custom)
            self._calls += 1
            out.append(ToolBegan(index=opened.number, id=call.id, name=called(item), custom=call.custom))
            return opened
        if item.type in ("message", "reasoning"):
            return _Open(item.type)
        self.lost.add("reply.hosted_tools")
        return _Open("hosted")

    def _part(self, opened: _Open, index: int, out: list[Event]) -> None:
        """A part of a message begins where the one before ends."""
        if opened.part is not None and opened.part != index:
            out.append(PartEnded())
        opened.part = index

    def _end_part(self, opened: _Open, out: list[Event]) -> None:
        if opened.part is not None and opened.kind == "message":
            opened.part = None
            out.append(PartEnded())

    def _think(self, event: _Wire, out: list[Event]) -> None:
        """Of a summary and the thoughts themselves, whichever comes first is what is told."""
        opened = self._opened(event, "reasoning")
        opened.said = opened.said or event.type
        text = _text(event)
        if not text or opened.said != event.type:
            return
        place = event.summary_index or event.content_index
        if opened.size and opened.part != place:
            text = f"\n\n{text}"
        opened.part = place
        opened.size += len(text)
        out.append(ThinkingDelta(text=text, origin=NAME))

    def _finish(self, opened: _Open, raw: msgspec.Raw, out: list[Event]) -> None:
        """An item is whole: what of it did not stream, and its end."""
        if opened.kind in ("done", "hosted"):
            return
        item = ITEM.decode(raw)
        if opened.kind == "message":
            self._rest_of_message(opened, item, out)
            self._end_part(opened, out)
        elif opened.kind == "reasoning":
            text = reasoning_text(item)
            if text and not opened.size:
                out.append(ThinkingDelta(text=text, origin=NAME))
            hidden = not text and not opened.size
            out.append(ThinkingSealed(sealed=bytes(raw).decode(), origin=NAME, hidden=hidden))
        else:
            if rest := call_of(item).arguments[opened.size :]:
                out.append(ToolDelta(index=opened.number, arguments=rest))
            self._cut = self._cut or item.status == "incomplete"
            out.append(ToolEnded(index=opened.number))
        opened.kind = "done"

    def _rest_of_message(self, opened: _Open, item: WireItem, out: list[Event]) -> None:
        if opened.size:
            return
        for part in message_parts(item, self.lost):
            if isinstance(part, Text):
                out.append(TextDelta(text=part.text, logprobs=part.logprobs))
                out += [Cited(citation=citation) for citation in part.citations]
            elif isinstance(part, Refusal):
                self._refused = True
                out.append(RefusalDelta(text=part.text))
            out.append(PartEnded())

    def _stop(self, response: WireReply | None, out: list[Event]) -> None:
        response = response or WireReply()
        for index, raw in enumerate(response.output or ()):
            opened = self._items.get(index)
            if opened is None:
                opened = self._items[index] = self._open(ITEM.decode(raw), out)
            self._finish(opened, raw, out)
        for opened in self._items.values():
            self._end_part(opened, out)
        calls = self._calls > 0 and not self._cut
        out.append(Stopped(stop=stop_of(response, called=calls, refused=self._refused)))


def _text(event: _Wire) -> str:
    if not isinstance(event.delta, str):
        raise invalid("contains more of a text that is no text")
    return event.delta
