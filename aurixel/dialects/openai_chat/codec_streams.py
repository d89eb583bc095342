"""The event streams of `openai_chat` to and from canonical events, one object a stream; they do no metering.

The decoder is given whole events that the meter let pass; what breaks the order of an answer is refused as
`upstream_invalid`. The encoder holds the end of an answer back until its usage is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from aurixel.dialects.openai_chat.codec_messages import NAME, Call, Function, Wire
from aurixel.dialects.openai_chat.codec_replies import (
    Json,
    Logprobs,
    Places,
    Said,
    annotation,
    block_of,
    citations_of,
    finish_of,
    id_of,
    is_legacy,
    logprobs_of,
    made_id,
    placed,
    stop_of,
    texts_of,
    usage_of,
)
from aurixel.dialects.readers import invalid
from aurixel.dialects.sse import Event as Sse
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
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage


class _Choice(Wire, frozen=True, gc=False):
    index: int = 0
    delta: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Chunk(Wire, frozen=True, gc=False):
    choices: list[_Choice] | None = None
    id: str | None = None
    created: int | float | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_encode: Final = msgspec.json.Encoder().encode


def data_of(events: bytes) -> Iterator[bytes]:
    """The data of each of these whole events; those without are left out."""
    if b"\r" not in events:
        found = events.split(b"\n\n")
    else:
        splitter = EventSplitter()
        found = splitter.feed(events)
        found.append(splitter.rest())
    for event in found:
        if event.startswith(b"data: ") and b"\n" not in event:
            yield event[6:]
        elif event and (data := Sse(event).data):
            yield data


# --- decoded ----------------------------------------------------------------------------------------------------------


class _OpenCall:
    """A call that has begun: its number in the answer, and what names it upstream."""

    __slots__ = ("custom", "id", "number")

    def __init__(self, number: int, id: str | None, custom: bool) -> None:
        self.number, self.id, self.custom = number, id, custom


class ChatDecoder:
    """See `StreamDecoder`."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self._id: str | None = None  # of the answer; None: it has not begun
        self._thinking = self._has_text = self._stopped = False
        self._cited: list[Event] = []
        self._calls: dict[int, _OpenCall] = {}  # the upstream's index -> its latest call
        self._last: _OpenCall | None = None
        self._count = 0

    def feed(self, events: bytes) -> list[Event]:
        """See `StreamDecoder`."""
        out: list[Event] = []
        for data in data_of(events):
            if data.startswith(b"[DONE]"):
                continue
            try:
                chunk = _CHUNK.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise invalid("contains an event that is no part of a chat completion") from None
            if chunk.choices:
                if self._id is None:
                    self._id = chunk.id or ""
                    out.append(Began(id=self._id, created=int(chunk.created or 0)))
                if len(chunk.choices) > 1 or chunk.choices[0].index != 0:
                    raise invalid("has a choice that was not asked for")
                self._choice(chunk.choices[0], out)
        return out

    def _choice(self, choice: _Choice, out: list[Event]) -> None:
        before = len(out)
        if (delta := choice.delta) is not None:
            self._delta(delta, choice.logprobs, out)
        if self._stopped:
            if len(out) > before:
                raise invalid("goes on after its end")
        elif choice.finish_reason:
            self._end_thinking(out)
            out.append(Stopped(stop=stop_of(choice.finish_reason, self._count > 0)))
            self._stopped = True

    def _delta(self, delta: Said, found: Logprobs | None, out: list[Event]) -> None:
        thinking, text, refusal = texts_of(delta)
        if thinking:
            self._thinking = True
            out.append(ThinkingDelta(text=thinking, origin=NAME))
        logprobs = logprobs_of(found) if found is not None else None
        if text or (logprobs is not None and bytes(logprobs) != b"[]"):
            self._end_thinking(out)
            out.append(TextDelta(text=text, logprobs=logprobs))
            self._has_text = True
        if delta.annotations:
            citations = citations_of(delta)
            self._cited += [Cited(citation=citation) for citation in citations]
            if len(citations) < len(delta.annotations):
                self.lost.add("reply.citations")
        if self._cited and self._has_text:  # those that come first wait for the text they belong to
            out += self._cited
            self._cited.clear()
        if refusal:
            self._end_thinking(out)
            out.append(RefusalDelta(text=refusal))
        if delta.tool_calls:
            self._end_thinking(out)
            for call in delta.tool_calls:
                self._call(call, out)
        elif delta.function_call is not None:
            self._end_thinking(out)
            self._call(Call(function=delta.function_call, index=0), out)

    def _end_thinking(self, out: list[Event]) -> None:
        if self._thinking:
            self._thinking = False
            out.append(ThinkingSealed(sealed=None, origin=NAME))

    def _call(self, call: Call, out: list[Event]) -> None:
        function = call.custom or call.function
        opened = self._opened(call)
        if opened is None:
            opened = self._begin(call, function, out)
        if function is not None and (more := function.input if opened.custom else function.arguments):
            out.append(ToolDelta(index=opened.number, arguments=more))

    def _opened(self, call: Call) -> _OpenCall | None:
        """The call that this is more of; None where it is a new one. Some upstreams give no index, or all calls the same."""
        opened = self._last if call.index is None else self._calls.get(call.index)
        if opened is not None and call.id and opened.id and call.id != opened.id:
            function = call.custom or call.function
            return None if function is not None and function.name else opened
        return opened

    def _begin(self, call: Call, function: Function | None, out: list[Event]) -> _OpenCall:
        if function is None or not function.name:
            raise invalid("continues a tool call that has not begun")
        opened = _OpenCall(self._count, call.id, call.custom is not None)
        self._count += 1
        self._calls[opened.number if call.index is None else call.index] = self._last = opened
        made = call.id or made_id(self._id or "", opened.number)
        out.append(ToolBegan(index=opened.number, id=made, name=function.name, custom=opened.custom))
        return opened


# --- encoded ----------------------------------------------------------------------------------------------------------


class ChatEncoder:
    """See `StreamEncoder`."""

    def __init__(self, request: ParsedRequest) -> None:
        self._model, self._asked_usage, self._legacy = request.model, request.asked_usage, is_legacy(request)
        self._base = self._head = self._tail = b""
        self._out: list[bytes] = []
        self._places = Places()
        self._length = 0  # characters of content so far
        self._text_at = 0  # and of those before the text that is open
        self._text_open = False
        self._cited = 0
        self._thinking: list[str] | None = None
        self._thinking_at = 0
        self._calls: dict[int, tuple[int, bool]] = {}  # the event's index -> its ordinal here, and whether it is custom
        self._silent: set[int] = set()  # calls that have no arguments so far
        self._stop: Stopped | None = None

    def feed(self, events: Iterable[Event]) -> bytes:
        """See `StreamEncoder`."""
        for event in events:
            kind = type(event)
            if kind is Began:
                self._began(event)  # type: ignore[arg-type]
                continue
            if not self._head:
                self._began(Began(id=""))
            _WRITERS[kind](self, event)
        out = b"".join(self._out)
        self._out.clear()
        return out

    def end(self, usage: Usage) -> bytes:
        """See `StreamEncoder`."""
        if self._stop is None:
            raise invalid("ends without its end")
        finish = finish_of(self._stop.stop, bool(self._calls), legacy=self._legacy).encode()
        self._out.append(self._head + b'{},"logprobs":null,"finish_reason":"' + finish + b'"' + self._tail)
        if self._asked_usage:
            self._out.append(self._base + b',"choices":[],"usage":' + _encode(usage_of(usage)) + b"}\n\n")
        self._out.append(b"data: [DONE]\n\n")
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _began(self, event: Began) -> None:
        fields = {"id": id_of(event.id), "object": "chat.completion.chunk", "created": event.created, "model": self._model}
        self._base = b"data: " + _encode(fields)[:-1]
        self._head = self._base + b',"choices":[{"index":0,"delta":'
        self._tail = b'}],"usage":null}\n\n' if self._asked_usage else b"}]}\n\n"
        self._emit({"role": "assistant", "content": None, "refusal": None})

    def _emit(self, delta: Json, logprobs: msgspec.Raw | None = None) -> None:
        told = b"null" if logprobs is None else b'{"content":' + bytes(logprobs) + b',"refusal":null}'
        self._out.append(self._head + _encode(delta) + b',"logprobs":' + told + b',"finish_reason":null' + self._tail)

    def _text(self, event: TextDelta) -> None:
        self._close_thinking()
        if not self._text_open:
            self._text_open, self._text_at = True, self._length
        self._places.text()
        self._length += len(event.text)
        self._emit({"content": event.text}, event.logprobs)

    def _citation(self, event: Cited) -> None:
        found = annotation(event.citation, self._text_at)
        found["index"] = self._cited  # the SDKs put lists in streams together by it
        self._cited += 1
        self._emit({"annotations": [found]})

    def _think(self, event: ThinkingDelta) -> None:
        self._open_thinking().append(event.text)
        if event.text:
            self._emit({"reasoning_content": event.text})

    def _open_thinking(self) -> list[str]:
        if self._thinking is None:
            self._text_open = False
            self._thinking, self._thinking_at = [], self._places.other()
        return self._thinking

    def _close_thinking(self) -> None:
        self._thinking = None

    def _sealed(self, event: ThinkingSealed) -> None:
        if event.hidden:
            self._close_thinking()
        text = "".join(self._open_thinking())
        block = block_of(text, event.sealed, event.origin, event.hidden)
        if block is not None:
            self._emit({"thinking_blocks": [placed(block, self._thinking_at, self._length)]})
        self._close_thinking()

    def _refuse(self, event: RefusalDelta) -> None:
        self._other()
        self._emit({"refusal": event.text})

    def _other(self) -> None:
        self._close_thinking()
        self._text_open = False

    def _tool(self, event: ToolBegan) -> None:
        self._other()
        self._places.other()
        ordinal = len(self._calls)
        self._calls[event.index] = ordinal, event.custom
        self._silent.add(event.index)
        kind, empty = ("custom", "input") if event.custom else ("function", "arguments")
        self._emit_call(ordinal, {"id": event.id, "type": kind, kind: {"name": event.name, empty: ""}})

    def _known(self, index: int) -> tuple[int, bool]:
        if (call := self._calls.get(index)) is None:
            raise invalid("continues a tool call that has not begun")
        return call

    def _tool_delta(self, event: ToolDelta) -> None:
        if event.arguments:
            ordinal, custom = self._known(event.index)
            self._silent.discard(event.index)
            kind, field = ("custom", "input") if custom else ("function", "arguments")
            self._emit_call(ordinal, {kind: {field: event.arguments}})

    def _tool_ended(self, event: ToolEnded) -> None:
        ordinal, custom = self._known(event.index)
        if event.index in self._silent:
            self._silent.discard(event.index)
            if not custom:
                self._emit_call(ordinal, {"function": {"arguments": "{}"}})

    def _emit_call(self, ordinal: int, call: Json) -> None:
        """A client that knows functions only has asked for one call at most, and sees the first."""
        if not self._legacy:
            self._emit({"tool_calls": [{"index": ordinal, **call}]})
        elif not ordinal:
            self._emit({"function_call": call.get("function")})

    def _ended(self, _: PartEnded) -> None:
        self._other()

    def _stopped(self, event: Stopped) -> None:
        for index in sorted(self._silent):
            self._tool_ended(ToolEnded(index=index))
        self._stop = event


_WRITERS: Final[dict[type[Any], Any]] = {
    TextDelta: ChatEncoder._text,
    Cited: ChatEncoder._citation,
    ThinkingDelta: ChatEncoder._think,
    ThinkingSealed: ChatEncoder._sealed,
    RefusalDelta: ChatEncoder._refuse,
    ToolBegan: ChatEncoder._tool,
    ToolDelta: ChatEncoder._tool_delta,
    ToolEnded: ChatEncoder._tool_ended,
    PartEnded: ChatEncoder._ended,
    Stopped: ChatEncoder._stopped,
}
