"""Encodes canonical events as an event stream of `openai_responses`; it opens nothing that it does not close.

The order is that API's: an item opens, its parts open, grow and close, it closes; the end is held back until the usage is
known, and repeats the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from aurixel.dialects.openai_responses.codec_replies import (
    Echo,
    Ids,
    call_item,
    message_item,
    reasoning_item,
    refusal_part,
    sealed_of,
    status_of,
    text_part,
)
from aurixel.dialects.openai_responses.codec_tools import Json, Name, places_of
from aurixel.dialects.openai_responses.codec_transcript import annotation
from aurixel.dialects.readers import invalid
from aurixel.plugin.canonical import (
    Began,
    Citation,
    Cited,
    Event,
    PartEnded,
    RefusalDelta,
    Stopped,
    TextDelta,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolDelta,
    ToolEnded,
)
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage

_encode: Final = msgspec.json.Encoder().encode


class _Message:
    """The message that is open, and the part of it that is."""

    def __init__(self, id: str, index: int) -> None:
        self.id, self.index = id, index
        self.content: list[Json] = []
        self.kind = ""  # of the open part: "text", "refusal", or none
        self.pieces: list[str] = []
        self.citations: list[Citation] = []
        self.logprobs: list[bytes] = []

    @property
    def place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index, "content_index": len(self.content)}


class _Reasoning:
    """The reasoning that is open."""

    def __init__(self, id: str, index: int, origin: str) -> None:
        self.id, self.index, self.origin = id, index, origin
        self.pieces: list[str] = []


class _Call:
    """A tool call that is open."""

    def __init__(self, id: str, index: int, event: ToolBegan, place: Name) -> None:
        self.id, self.index, self.call, self.place, self.custom = id, index, event.id, place, event.custom
        self.pieces: list[str] = []
        self.word = "custom_tool_call_input" if event.custom else "function_call_arguments"

    def item(self, status: str, arguments: str) -> Json:
        return call_item(self.id, self.call, self.place, arguments, custom=self.custom, status=status)


class ResponsesEncoder:
    """See `StreamEncoder`."""

    def __init__(self, request: ParsedRequest) -> None:
        self._request = request
        self._places = places_of(request)
        self._ids = Ids("")
        self._echo: Echo | None = None
        self._number = 0
        self._out: list[bytes] = []
        self._output: list[Json | None] = []  # None: still open
        self._open: _Message | _Reasoning | None = None
        self._calls: dict[int, _Call] = {}
        self._refused = False
        self._stop: Stopped | None = None

    def feed(self, events: Iterable[Event]) -> bytes:
        """See `StreamEncoder`."""
        for event in events:
            kind = type(event)
            if kind is Began:
                self._began(event)  # type: ignore[arg-type]
                continue
            if self._echo is None:
                self._began(Began(id=""))
            _WRITERS[kind](self, event)
        return self._taken()

    def end(self, usage: Usage) -> bytes:
        """See `StreamEncoder`."""
        if self._stop is None or self._echo is None:
            raise invalid("ends without its end")
        status, why = status_of(self._stop.stop, refused=self._refused)
        output = [item for item in self._output if item is not None]
        self._emit(f"response.{status}", response=self._echo(status, output, usage, why))
        return self._taken()

    def _taken(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _emit(self, type: str, **fields: Any) -> None:
        data = _encode({"type": type, "sequence_number": self._number, **fields})
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (type.encode(), data))

    def _began(self, event: Began) -> None:
        if self._echo is not None:
            raise invalid("begins twice")
        self._ids = Ids(event.id)
        self._echo = Echo(self._request, self._ids.response, event.created)
        begun = msgspec.Raw(_encode(self._echo("in_progress", [], None, None)))
        self._emit("response.created", response=begun)
        self._emit("response.in_progress", response=begun)

    def _add(self, item: Json) -> None:
        self._emit("response.output_item.added", output_index=len(self._output), item=item)
        self._output.append(None)

    def _done(self, index: int, item: Json) -> None:
        self._output[index] = item
        self._emit("response.output_item.done", output_index=index, item=item)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _part(self, kind: str) -> _Message:
        """The open part of this kind, opened if need be."""
        message = self._open
        if not isinstance(message, _Message):
            self._close()
            index = len(self._output)
            message = self._open = _Message(self._ids("msg", index), index)
            self._add(message_item(message.id, "in_progress", []))
        if message.kind != kind:
            self._close_part(message)
            message.kind = kind
            empty = text_part("") if kind == "text" else refusal_part("")
            self._emit("response.content_part.added", **message.place, part=empty)
        return message

    def _text(self, event: TextDelta) -> None:
        message = self._part("text")
        message.pieces.append(event.text)
        logprobs: Any = []
        if event.logprobs is not None:
            logprobs = event.logprobs
            message.logprobs.append(bytes(event.logprobs))
        self._emit("response.output_text.delta", **message.place, delta=event.text, logprobs=logprobs)

    def _refuse(self, event: RefusalDelta) -> None:
        self._refused = True
        message = self._part("refusal")
        message.pieces.append(event.text)
        self._emit("response.refusal.delta", **message.place, delta=event.text)

    def _cite(self, event: Cited) -> None:
        message = self._part("text")
        told = annotation(event.citation)
        self._emit(
            "response.output_text.annotation.added",
            **message.place,
            annotation_index=len(message.citations),
            annotation=told,
        )
        message.citations.append(event.citation)

    def _close_part(self, message: _Message) -> None:
        if not message.kind:
            return
        text, place = "".join(message.pieces), message.place
        if message.kind == "text":
            logprobs = _joined(message.logprobs)
            part = text_part(text, message.citations, logprobs)
            self._emit("response.output_text.done", **place, text=text, logprobs=part["logprobs"])
        else:
            part = refusal_part(text)
            self._emit("response.refusal.done", **place, refusal=text)
        self._emit("response.content_part.done", **place, part=part)
        message.content.append(part)
        message.kind = ""
        message.pieces, message.citations, message.logprobs = [], [], []

    # --- thinking ---------------------------------------------------------------------------------------------------

    def _reasoning(self, origin: str) -> _Reasoning:
        opened = self._open
        if not isinstance(opened, _Reasoning) or opened.origin != origin:
            self._close()
            index = len(self._output)
            opened = self._open = _Reasoning(self._ids("rs", index), index, origin)
            self._add(reasoning_item(opened.id, "", None))
        return opened

    def _think(self, event: ThinkingDelta) -> None:
        if not event.text:
            return
        opened = self._reasoning(event.origin)
        place = {"item_id": opened.id, "output_index": opened.index, "summary_index": 0}
        if not opened.pieces:
            self._emit("response.reasoning_summary_part.added", **place, part={"type": "summary_text", "text": ""})
        opened.pieces.append(event.text)
        self._emit("response.reasoning_summary_text.delta", **place, delta=event.text)

    def _seal(self, event: ThinkingSealed) -> None:
        if event.hidden:
            self._close()
        self._close_reasoning(self._reasoning(event.origin), event.sealed, hidden=event.hidden)

    def _close_reasoning(self, opened: _Reasoning, sealed: str | None, *, hidden: bool = False) -> None:
        text = "".join(opened.pieces)
        place = {"item_id": opened.id, "output_index": opened.index, "summary_index": 0}
        if opened.pieces:
            self._emit("response.reasoning_summary_text.done", **place, text=text)
            self._emit("response.reasoning_summary_part.done", **place, part={"type": "summary_text", "text": text})
        self._open = None
        self._done(opened.index, reasoning_item(opened.id, text, sealed_of(text, sealed, opened.origin, hidden)))

    # --- tools ------------------------------------------------------------------------------------------------------

    def _tool(self, event: ToolBegan) -> None:
        self._close()
        if event.index in self._calls:
            raise invalid("begins a tool call twice")
        index = len(self._output)
        place = self._places.get(event.name, (event.name, None))
        call = _Call(self._ids("ctc" if event.custom else "fc", index), index, event, place)
        self._calls[event.index] = call
        self._add(call.item("in_progress", ""))

    def _known(self, index: int) -> _Call:
        call = self._calls.get(index)
        if call is None or self._output[call.index] is not None:
            raise invalid("continues a tool call that is not open")
        return call

    def _tool_delta(self, event: ToolDelta) -> None:
        if event.arguments:
            call = self._known(event.index)
            call.pieces.append(event.arguments)
            self._emit(f"response.{call.word}.delta", item_id=call.id, output_index=call.index, delta=event.arguments)

    def _tool_ended(self, event: ToolEnded) -> None:
        self._close_call(self._known(event.index), event.index)

    def _close_call(self, call: _Call, index: int, status: str = "completed") -> None:
        if not call.pieces and not call.custom:
            self._tool_delta(ToolDelta(index=index, arguments="{}"))
        text = "".join(call.pieces)
        word: Json = {"input": text} if call.custom else {"arguments": text}
        self._emit(f"response.{call.word}.done", item_id=call.id, output_index=call.index, **word)
        self._done(call.index, call.item(status, text))

    # --- ends -------------------------------------------------------------------------------------------------------

    def _ended(self, _: PartEnded) -> None:
        if isinstance(self._open, _Message):
            self._close_part(self._open)
        else:
            self._close()

    def _close(self, status: str = "completed") -> None:
        """The message or reasoning that is open."""
        opened = self._open
        if isinstance(opened, _Message):
            self._close_part(opened)
            self._open = None
            self._done(opened.index, message_item(opened.id, status, opened.content))
        elif opened is not None:
            self._close_reasoning(opened, None)

    def _stopped(self, event: Stopped) -> None:
        status = status_of(event.stop, refused=self._refused)[0]
        self._close(status)
        for index, call in self._calls.items():
            if self._output[call.index] is None:
                self._close_call(call, index, status)
        self._stop = event


def _joined(lists: list[bytes]) -> msgspec.Raw | None:
    """JSON lists as one."""
    inner = [one.strip()[1:-1].strip() for one in lists]
    return msgspec.Raw(b"[" + b",".join([one for one in inner if one]) + b"]") if lists else None


_WRITERS: Final[dict[type[Any], Any]] = {
    TextDelta: ResponsesEncoder._text,
    Cited: ResponsesEncoder._cite,
    ThinkingDelta: ResponsesEncoder._think,
    ThinkingSealed: ResponsesEncoder._seal,
    RefusalDelta: ResponsesEncoder._refuse,
    ToolBegan: ResponsesEncoder._tool,
    ToolDelta: ResponsesEncoder._tool_delta,
    ToolEnded: ResponsesEncoder._tool_ended,
    PartEnded: ResponsesEncoder._ended,
    Stopped: ResponsesEncoder._stopped,
}
