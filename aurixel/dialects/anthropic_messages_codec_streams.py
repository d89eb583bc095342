"""Event streams of `anthropic_messages`, read into and written from canonical events; both are strict state machines.

The decoder refuses what breaks the dialect's own order. The encoder writes one block at a time, numbers them without
gaps, closes whatever it opened, opens nothing that stays empty, and says how the answer ended only with its usage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages_codec_read import ORIGIN, Located, citation_of
from aurixel.dialects.anthropic_messages_codec_replies import (
    ReplyBlock,
    StopDetails,
    citation_shown,
    ending,
    message_id,
    stop_of,
    usage_shown,
)
from aurixel.dialects.carriers import carried
from aurixel.dialects.readers import invalid
from aurixel.dialects.sse import Event as RawEvent
from aurixel.dialects.sse import EventSplitter, make_event
from aurixel.plugin.canonical import (
    Began,
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


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Located | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class _Start(msgspec.Struct, gc=False):
    id: str = ""


class _StreamEvent(msgspec.Struct, gc=False):
    type: str = ""
    index: int = -1
    delta: _Delta | None = None
    content_block: ReplyBlock | None = None
    message: _Start | None = None


_EVENT: Final = msgspec.json.Decoder(_StreamEvent)
# The kind of delta that each kind of block takes, beside citations and signatures.
_DELTAS: Final = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


class MessagesStreamDecoder:
    """See `StreamDecoder`."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._kind: str | None = None  # of the block that is open
        self._index = -1
        self._calls = 0
        self._begun = self._stopped = False
        self._filled = False  # something of the open block has been told
        self._signature: list[str] = []
        self._input = b""

    def feed(self, events: bytes) -> list[Event]:
        """See `StreamDecoder`."""
        out: list[Event] = []
        for raw in self._splitter.feed(events):
            data = _data(raw)
            if data is None:
                continue
            try:
                parsed = _EVENT.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise invalid("contains an event that cannot be read") from None
            self._event(parsed, out)
        return out

    def _event(self, parsed: _StreamEvent, out: list[Event]) -> None:
        kind = parsed.type
        if kind == "content_block_delta":
            self._delta(parsed, out)
        elif kind == "content_block_start":
            self._start(parsed, out)
        elif kind == "content_block_stop":
            self._stop(parsed, out)
        elif kind == "message_start":
            if self._begun:
                raise invalid("begins twice")
            self._begun = True
            out.append(Began(id=parsed.message.id if parsed.message is not None else ""))
        elif kind == "message_delta":
            self._end(parsed, out)

    def _start(self, parsed: _StreamEvent, out: list[Event]) -> None:
        block = parsed.content_block
        if block is None or self._kind is not None or self._stopped or not self._begun or parsed.index != self._index + 1:
            raise invalid("contains blocks out of order")
        self._kind, self._index, self._filled = block.type, parsed.index, False
        if block.type == "text":
            self._text(block.text, out)
        elif block.type == "thinking":
            self._signature = [block.signature] if block.signature else []
            self._thought(block.thinking, out)
        elif block.type == "redacted_thinking":
            if block.data is None:
                raise invalid("contains hidden thinking of nothing")
            out.append(ThinkingSealed(sealed=block.data, origin=ORIGIN, hidden=True))
        elif block.type == "tool_use":
            if not block.id or not block.name:
                raise invalid("contains a call without an id or a name")
            self._input = bytes(block.input)
            out.append(ToolBegan(index=self._calls, id=block.id, name=block.name))
            self._calls += 1

    def _delta(self, parsed: _StreamEvent, out: list[Event]) -> None:
        delta, kind = parsed.delta, self._kind
        if delta is None or kind is None or parsed.index != self._index:
            raise invalid("changes a block that is not open")
        if kind not in _DELTAS:
            return
        if delta.type == _DELTAS[kind]:
            if kind == "text":
                self._text(delta.text, out)
            elif kind == "thinking":
                self._thought(delta.thinking, out)
            elif delta.partial_json:
                self._filled = True
                out.append(ToolDelta(index=self._calls - 1, arguments=delta.partial_json))
        elif delta.type == "signature_delta" and kind == "thinking":
            if delta.signature:
                self._signature.append(delta.signature)
        elif delta.type == "citations_delta" and kind == "text":
            citation = citation_of(delta.citation) if delta.citation is not None else None
            if citation is not None and self._filled:
                out.append(Cited(citation=citation))
        elif delta.type in _DELTAS.values() or delta.type in ("signature_delta", "citations_delta"):
            raise invalid("changes a block as if it were of another kind")

    def _text(self, text: str | None, out: list[Event]) -> None:
        if text:
            self._filled = True
            out.append(TextDelta(text=text))

    def _thought(self, text: str | None, out: list[Event]) -> None:
        if text:
            self._filled = True
            out.append(ThinkingDelta(text=text, origin=ORIGIN))

    def _stop(self, parsed: _StreamEvent, out: list[Event]) -> None:
        kind = self._kind
        if kind is None or parsed.index != self._index:
            raise invalid("ends a block that is not open")
        self._kind = None
        if kind == "text":
            if self._filled:
                out.append(PartEnded())
        elif kind == "thinking":
            signature = "".join(self._signature)
            if self._filled or signature:
                out.append(ThinkingSealed(sealed=signature or None, origin=ORIGIN))
        elif kind == "tool_use":
            index = self._calls - 1
            if not self._filled:
                out.append(ToolDelta(index=index, arguments=self._input.decode() or "{}"))
            out.append(ToolEnded(index=index))

    def _end(self, parsed: _StreamEvent, out: list[Event]) -> None:
        delta = parsed.delta
        if delta is None or delta.stop_reason is None:
            return
        if self._kind is not None or self._stopped:
            raise invalid("ends within a block, or twice")
        self._stopped = True
        if delta.stop_details is not None and delta.stop_details.explanation:
            out.append(RefusalDelta(text=delta.stop_details.explanation))
        out.append(Stopped(stop=stop_of(delta.stop_reason, self._calls), stop_sequence=delta.stop_sequence))


def _data(raw: bytes) -> bytes | None:
    """The data of an event. The usual one is a line with its name and a line of data."""
    if raw.startswith(b"event: "):
        line = raw.find(b"\n")
        if raw.startswith(b"data: ", line + 1) and raw.find(b"\n", line + 1) == len(raw) - 2:
            return raw[line + 7 : -2]
    return RawEvent(raw).data


class _Held:
    """What must wait until the call before it is whole: a call, with what came of its arguments, or one event."""

    __slots__ = ("began", "ended", "event", "pieces")

    def __init__(self, began: ToolBegan | None, event: Event | None) -> None:
        self.began, self.event = began, event
        self.pieces: list[str] = []
        self.ended = False


class MessagesStreamEncoder:
    """See `StreamEncoder`."""

    def __init__(self, request: ParsedRequest) -> None:
        self._model = request.model
        self._begun = False
        self._next = 0  # the index of the next block
        self._open: str | None = None  # text, thinking or tool
        self._head = b""  # of a delta of the open block
        self._origin = ORIGIN  # of the open thinking
        self._tool: ToolBegan | None = None
        self._free: list[str] | None = None  # the open call's free text
        self._held: list[_Held] = []
        self._waiting: dict[int, _Held] = {}
        self._seen: set[int] = set()
        self._refusal: list[str] = []
        self._stopped: Stopped | None = None

    def feed(self, events: Iterable[Event]) -> bytes:
        """See `StreamEncoder`."""
        out: list[bytes] = []
        for event in events:
            self._event(event, out)
        return b"".join(out)

    def end(self, usage: Usage) -> bytes:
        """See `StreamEncoder`."""
        stopped = self._stopped
        if stopped is None:
            raise invalid("ends without saying why")
        said = ending(stopped.stop, stopped.stop_sequence, len(self._seen), "".join(self._refusal))
        shown = usage_shown(usage)
        return _event(b"message_delta", {"delta": said, "usage": shown}) + _event(b"message_stop", {})

    def _event(self, event: Event, out: list[bytes]) -> None:
        if self._stopped is not None:
            raise invalid("goes on after its end")
        if isinstance(event, Began):
            self._began(event, out)
        elif not self._begun:
            raise invalid("does not begin as a message does")
        elif isinstance(event, ToolDelta):
            self._argue(event, out)
        elif isinstance(event, ToolBegan):
            self._call(event, out)
        elif isinstance(event, ToolEnded):
            self._whole(event.index, out)
        elif isinstance(event, RefusalDelta):
            self._refusal.append(event.text)
        elif isinstance(event, Stopped):
            for held in self._held:
                held.ended = True
            self._release(out)
            self._close(out)
            self._stopped = event
        elif self._tool is not None:
            self._held.append(_Held(None, event))
        else:
            self._plain(event, out)

    def _began(self, event: Began, out: list[bytes]) -> None:
        if self._begun:
            raise invalid("begins twice")
        self._begun = True
        message: dict[str, Any] = {
            "id": message_id(event.id),
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_shown(None),
        }
        out.append(_event(b"message_start", {"message": message}))

    # --- text and thinking --------------------------------------------------------------------------------------------

    def _plain(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, TextDelta):
            if event.text:
                if self._open != "text":
                    self._opened("text", {"type": "text", "text": ""}, _TEXT, out)
                out += (self._head, _string(event.text), _TAIL)
        elif isinstance(event, ThinkingDelta):
            if event.text:
                self._thinking(event.origin, out)
                out += (self._head, _string(event.text), _TAIL)
        elif isinstance(event, ThinkingSealed):
            self._sealed(event, out)
        elif isinstance(event, Cited):
            if self._open == "text":
                cited = {"type": "citations_delta", "citation": citation_shown(event.citation, "")}
                out.append(_event(b"content_block_delta", {"index": self._next - 1, "delta": cited}))
        elif isinstance(event, PartEnded):
            self._close(out)

    def _thinking(self, origin: str, out: list[bytes]) -> None:
        if self._open != "thinking" or self._origin != origin:
            self._opened("thinking", {"type": "thinking", "thinking": "", "signature": ""}, _THINKING, out)
            self._origin = origin

    def _sealed(self, event: ThinkingSealed, out: list[bytes]) -> None:
        """The proof; that of another dialect travels inside a carrier."""
        sealed = event.sealed if event.origin == ORIGIN else carried(event.origin, event.sealed)
        if event.hidden:
            self._close(out)
            self._opened("hidden", {"type": "redacted_thinking", "data": sealed or ""}, b"", out)
            self._close(out)
            return
        if not sealed and self._open != "thinking":
            return
        self._thinking(event.origin, out)
        self._sign(sealed, out)
        self._origin = ORIGIN  # it is signed
        self._close(out)

    def _sign(self, signature: str | None, out: list[bytes]) -> None:
        if signature:
            delta = {"type": "signature_delta", "signature": signature}
            out.append(_event(b"content_block_delta", {"index": self._next - 1, "delta": delta}))

    # --- calls ----------------------------------------------------------------------------------------------------------

    def _call(self, event: ToolBegan, out: list[bytes]) -> None:
        if event.index in self._seen:
            raise invalid("begins a call twice")
        self._seen.add(event.index)
        if self._tool is None:
            self._begin_call(event, out)
        else:
            held = self._waiting[event.index] = _Held(event, None)
            self._held.append(held)

    def _begin_call(self, event: ToolBegan, out: list[bytes]) -> None:
        self._opened("tool", {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}, _ARGUMENTS, out)
        self._tool = event
        self._free = [] if event.custom else None

    def _argue(self, event: ToolDelta, out: list[bytes]) -> None:
        if not event.arguments:
            return
        if self._tool is not None and self._tool.index == event.index:
            if self._free is not None:
                self._free.append(event.arguments)
            else:
                out += (self._head, _string(event.arguments), _TAIL)
        elif (held := self._waiting.get(event.index)) is not None and not held.ended:
            held.pieces.append(event.arguments)
        else:
            raise invalid("contains arguments of a call that is not open")

    def _whole(self, index: int, out: list[bytes]) -> None:
        if self._tool is not None and self._tool.index == index:
            self._release(out)
        elif (held := self._waiting.get(index)) is not None:
            held.ended = True
        elif index not in self._seen:
            raise invalid("ends a call that never began")

    def _release(self, out: list[bytes]) -> None:
        """Ends the call that is open; what waited for that follows, up to the next call that is not whole yet."""
        if self._tool is None:
            return
        self._close(out)
        waiting, at = self._held, 0
        for held in waiting:
            at += 1
            if held.event is not None:
                self._plain(held.event, out)
            if held.began is not None:
                del self._waiting[held.began.index]
                self._begin_call(held.began, out)
                self._argue(ToolDelta(index=held.began.index, arguments="".join(held.pieces)), out)
                if not held.ended:
                    break
                self._close(out)
        self._held = waiting[at:]

    # --- blocks ---------------------------------------------------------------------------------------------------------

    def _opened(self, kind: str, block: dict[str, Any], delta: bytes, out: list[bytes]) -> None:
        self._close(out)
        self._open = kind
        self._head = _DELTA % self._next + delta
        out.append(_event(b"content_block_start", {"index": self._next, "content_block": block}))
        self._next += 1

    def _close(self, out: list[bytes]) -> None:
        if self._open is None:
            return
        if self._open == "thinking" and self._origin != ORIGIN:
            self._sign(carried(self._origin, None), out)
        if self._open == "tool":
            if self._free is not None:
                out += (self._head, _string(msgspec.json.encode({"input": "".join(self._free)}).decode()), _TAIL)
            self._tool = self._free = None
        self._open, self._origin = None, ORIGIN
        out.append(_event(b"content_block_stop", {"index": self._next - 1}))


def _event(name: bytes, fields: dict[str, Any]) -> bytes:
    return make_event(msgspec.json.encode({"type": name.decode(), **fields}), name)


# A delta is its head, the text as JSON, and its tail: what is written for each token is put together by hand.
_string: Final = msgspec.json.Encoder().encode
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
_TEXT: Final = b'{"type":"text_delta","text":'
_THINKING: Final = b'{"type":"thinking_delta","thinking":'
_ARGUMENTS: Final = b'{"type":"input_json_delta","partial_json":'
_TAIL: Final = b"}}\n\n"
