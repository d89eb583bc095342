"""Reads event streams of `anthropic_messages` as canonical events; whatever breaks the dialect's own order is refused.

What the upstream's own tools did is left out, and so are citations without a URL.
"""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_blocks import ORIGIN
from aurixel.dialects.anthropic_messages.codec_read_blocks import Located, citation_of
from aurixel.dialects.anthropic_messages.codec_replies import (
    ReplyBlock,
    StopDetails,
    arguments_of,
    stop_of,
)
from aurixel.dialects.readers import invalid
from aurixel.dialects.sse import Event as RawEvent
from aurixel.dialects.sse import EventSplitter
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
        self.lost: set[str] = set()
        self._splitter = EventSplitter()
        self._kind: str | None = None  # of the block that is open
        self._index = -1
        self._calls = 0
        self._begun = self._stopped = False
        self._filled = False  # something of the open block has been told
        self._signature: list[str] = []
        self._input = ""

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
            self._input = arguments_of(block)
            out.append(ToolBegan(index=self._calls, id=block.id, name=block.name))
            self._calls += 1
        else:
            self.lost.add("reply.hosted_tools")

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
            else:
                self.lost.add("reply.citations")
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
                out.append(ToolDelta(index=index, arguments=self._input or "{}"))
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
