"""Writes event streams of `anthropic_messages`, one block at a time and without gaps; a strict state machine.

It opens nothing that stays empty, closes whatever it opened, and says how the answer ended only with its usage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_blocks import ORIGIN
from aurixel.dialects.anthropic_messages.codec_replies import (
    citation_shown,
    ending,
    message_id,
    usage_shown,
)
from aurixel.dialects.carriers import carried
from aurixel.dialects.readers import invalid
from aurixel.dialects.sse import make_event
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
            if sealed:
                self._opened("hidden", {"type": "redacted_thinking", "data": sealed}, b"", out)
                self._close(out)
            return
        if not sealed and (self._open != "thinking" or self._origin != event.origin):
            return  # there is nothing to sign, and nothing to sign it with
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
