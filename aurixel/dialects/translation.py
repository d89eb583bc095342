"""Takes one chat request from the client's dialect to the upstream's, and its answer back, through the canonical form.

The upstream's own reader meters what comes, exactly as without translation; what the client gets is made from what that
reader let pass. It does no I/O and decides nothing about money.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import Any, Final, Protocol, cast

import msgspec

from aurixel.errors import ProviderError
from aurixel.plugin.canonical import (
    Began,
    ChatCodec,
    Event,
    Losses,
    PartEnded,
    Reply,
    Stop,
    Stopped,
    StreamDecoder,
    StreamEncoder,
    Text,
    TextDelta,
    ToolBegan,
    ToolCall,
    ToolDelta,
    ToolEnded,
    Written,
)
from aurixel.plugin.contracts import Dialect, ModelRules, ParsedRequest, StreamReader
from aurixel.values import Usage


class Crossing(Protocol):
    """How a request and its answer pass between a client and one upstream. `request` is what the upstream is sent, in
    `dialect`; `losses` is None where nothing can be lost."""

    translated: bool
    dialect: Dialect
    request: ParsedRequest
    losses: Losses | None

    def read(self, body: bytes, input_tokens: int) -> tuple[Usage, bytes]:
        """A whole reply: what it used, and what the client is sent. Errors as `ReplyReader.read`."""

    def stream_reader(self, input_tokens: int) -> StreamReader:
        """For a streamed reply; `input_tokens` is the estimate for upstreams that report nothing."""


class Straight:
    """The upstream speaks the client's dialect: bytes pass as they are, but for what a translation left in them before."""

    translated = False

    def __init__(self, dialect: Dialect, request: ParsedRequest, losses: Losses | None = None) -> None:
        self.dialect, self.request, self.losses = dialect, request, losses

    def read(self, body: bytes, input_tokens: int) -> tuple[Usage, bytes]:
        """See `Crossing`."""
        return self.dialect.reply_reader(self.request, input_tokens).read(body), body

    def stream_reader(self, input_tokens: int) -> StreamReader:
        """See `Crossing`."""
        del input_tokens
        return self.dialect.stream_reader(self.request)


def translates(client: Dialect, upstream: Dialect) -> bool:
    """Whether there is a way between the two."""
    return client.operation == upstream.operation and isinstance(client, ChatCodec) and isinstance(upstream, ChatCodec)


def pairs(dialects: Iterable[Dialect]) -> list[tuple[str, str]]:
    """The names of every client's and upstream's dialect that there is a way between."""
    return [(client.name, upstream.name) for client, upstream in permutations(dialects, 2) if translates(client, upstream)]


def straight(dialect: Dialect, request: ParsedRequest) -> Straight:
    """The way to an upstream of the client's own dialect."""
    if not hasattr(dialect, "own"):  # a test for the whole of `ChatCodec` costs more than all of this
        return Straight(dialect, request)
    codec = cast(ChatCodec, dialect)
    losses = Losses(codec.words)
    own = codec.own(request, losses)
    return Straight(dialect, own, losses or None)


class Translation:
    """One request and its answer. `ClientError` at once where something must not be lost and cannot be carried."""

    translated = True

    def __init__(
        self,
        client: Dialect,
        upstream: Dialect,
        request: ParsedRequest,
        rules: ModelRules,
        *,
        asked_at: int = 0,
        output_limit: int | None = None,
    ) -> None:
        """`asked_at`: seconds since the epoch, for replies whose upstream does not say when they were made. `output_limit`:
        tokens that the credit affords, where the client set no limit: a budget for thinking must fit under it."""
        reader, self._writer = cast(ChatCodec, client), cast(ChatCodec, upstream)
        self._client, self._asked, self._asked_at = reader, request, asked_at
        self.dialect = upstream
        self.losses: Losses | None = Losses(reader.words)
        conversation = reader.read(request, self.losses)
        if output_limit is not None and conversation.max_output is None:
            conversation = msgspec.structs.replace(conversation, max_output=output_limit)
        self._written = self._writer.write(conversation, rules, self.losses)
        self.request = upstream.parse_request(self._written.body, {})

    def read(self, body: bytes, input_tokens: int) -> tuple[Usage, bytes]:
        """See `Crossing`."""
        usage = self.dialect.reply_reader(self.request, input_tokens).read(body)
        reply = restored(self._writer.read_reply(body), self._written)
        reply = msgspec.structs.replace(reply, usage=usage, created=reply.created or self._asked_at)
        return usage, self._client.write_reply(reply, self._asked)

    def stream_reader(self, input_tokens: int) -> StreamReader:
        """See `Crossing`."""
        return TranslatedStream(
            self.dialect.stream_reader(self.request),
            self._writer.stream_decoder(),
            self._client.stream_encoder(self._asked),
            self._written,
            input_tokens,
            self._asked_at,
        )


class TranslatedStream:
    """A `StreamReader` whose numbers are the upstream's and whose bytes are the client's."""

    def __init__(
        self,
        inner: StreamReader,
        decoder: StreamDecoder,
        encoder: StreamEncoder,
        written: Written,
        input_tokens: int,
        asked_at: int,
    ) -> None:
        self._inner, self._decoder, self._encoder = inner, decoder, encoder
        self._input_tokens, self._asked_at = input_tokens, asked_at
        special = written.names or written.wrapped or written.answer_tool
        self._restorer = _Restorer(written) if special else None
        self._stopped = False
        self.pending_out = b""

    @property
    def done(self) -> bool:
        """See `StreamReader`."""
        return self._inner.done

    @property
    def started(self) -> bool:
        """See `StreamReader`."""
        return self._inner.started

    @property
    def usage(self) -> Usage | None:
        """See `StreamReader`."""
        return self._inner.usage

    @property
    def output_bytes(self) -> int:
        """See `StreamReader`."""
        return self._inner.output_bytes

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`."""
        try:
            events = self._inner.feed(chunk)
        except ProviderError:
            self.pending_out = self._translated(self._inner.pending_out)
            raise
        out = self._translated(events)
        return self._ended(out) if self._inner.done else out

    def close(self) -> bytes:
        """See `StreamReader`."""
        try:
            events = self._inner.close()
        except ProviderError:
            self.pending_out = self._translated(self._inner.pending_out)
            raise
        return self._ended(self._translated(events))

    def estimate(self, input_tokens: int) -> Usage:
        """See `StreamReader`."""
        return self._inner.estimate(input_tokens)

    def delivered(self, input_tokens: int, output_bytes: int) -> Usage:
        """See `StreamReader`."""
        return self._inner.delivered(input_tokens, output_bytes)

    def _translated(self, events: bytes) -> bytes:
        if not events:
            return b""
        found: Iterable[Event] = self._decoder.feed(events)
        if self._restorer is not None:
            found = self._restorer.feed(found)
        return self._encoder.feed([self._noted(event) for event in found])

    def _noted(self, event: Event) -> Event:
        kind = type(event)
        if kind is Stopped:
            self._stopped = True
        elif kind is Began and not cast(Began, event).created:
            return Began(id=cast(Began, event).id, created=self._asked_at)
        return event

    def _ended(self, out: bytes) -> bytes:
        if not self._stopped:
            self.pending_out = out
            raise ProviderError("upstream_died", "The upstream's answer ended without saying why.")
        return out + self._encoder.end(self._inner.estimate(self._input_tokens))


# --- what the upstream's dialect made of the client's tools ------------------------------------------------------------


def restored(reply: Reply, written: Written) -> Reply:
    """The reply with the client's own names for its tools, free text unwrapped, and a structured answer as text."""
    if not (written.names or written.wrapped or written.answer_tool):
        return reply
    parts: list[Any] = []
    calls = 0
    for part in reply.parts:
        if not isinstance(part, ToolCall):
            parts.append(part)
        elif part.name == written.answer_tool:
            parts.append(Text(text=part.arguments or "{}"))
        else:
            calls += 1
            wrapped = part.name in written.wrapped
            arguments = unwrapped(part.arguments) if wrapped else part.arguments
            name = written.names.get(part.name, part.name)
            parts.append(msgspec.structs.replace(part, name=name, arguments=arguments, custom=wrapped or part.custom))
    return msgspec.structs.replace(reply, parts=tuple(parts), stop=_stop(reply.stop, calls))


class _Restorer:
    """The same for a stream."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._answer: int | None = None
        self._wrapped: dict[int, list[str]] = {}
        self._shift = 0
        self._calls = 0

    def feed(self, events: Iterable[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if isinstance(event, ToolBegan):
                self._began(event, out)
            elif isinstance(event, ToolDelta):
                self._delta(event, out)
            elif isinstance(event, ToolEnded):
                self._ended(event.index, out)
            elif isinstance(event, Stopped):
                for index in tuple(self._wrapped):
                    self._ended(index, out)
                out.append(msgspec.structs.replace(event, stop=_stop(event.stop, self._calls)))
            else:
                out.append(event)
        return out

    def _began(self, event: ToolBegan, out: list[Event]) -> None:
        written = self._written
        if event.name == written.answer_tool:
            self._answer, self._shift = event.index, 1
            return
        self._calls += 1
        if wrapped := event.name in written.wrapped:
            self._wrapped[event.index] = []
        name = written.names.get(event.name, event.name)
        out.append(ToolBegan(index=self._place(event.index), id=event.id, name=name, custom=wrapped or event.custom))

    def _delta(self, event: ToolDelta, out: list[Event]) -> None:
        if event.index == self._answer:
            out.append(TextDelta(text=event.arguments))
        elif (pieces := self._wrapped.get(event.index)) is not None:
            pieces.append(event.arguments)
        else:
            out.append(ToolDelta(index=self._place(event.index), arguments=event.arguments))

    def _ended(self, index: int, out: list[Event]) -> None:
        if index == self._answer:
            out.append(PartEnded())
            return
        place = self._place(index)
        if (pieces := self._wrapped.pop(index, None)) is not None:
            out.append(ToolDelta(index=place, arguments=unwrapped("".join(pieces))))
        out.append(ToolEnded(index=place))

    def _place(self, index: int) -> int:
        """The call's number among those the client sees: the answer's own call, if it came before, is none."""
        return index - self._shift if self._answer is not None and index > self._answer else index


def _stop(stop: Stop, calls: int) -> Stop:
    return "end" if stop == "tool_use" and not calls else stop


class _Wrapped(msgspec.Struct):
    input: str


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def unwrapped(arguments: str) -> str:
    """The free text inside the JSON object that stood for it; what is no such object is the text itself."""
    try:
        return _WRAPPED.decode(arguments).input
    except (msgspec.DecodeError, RecursionError):
        return arguments


def told(body: bytes) -> str | None:
    """The message in an upstream's error reply, of either family; None where it has none."""
    try:
        return _TOLD.decode(body).error.message
    except (msgspec.DecodeError, RecursionError):
        return None


class _Message(msgspec.Struct):
    message: str


class _Error(msgspec.Struct):
    error: _Message


_TOLD: Final = msgspec.json.Decoder(_Error)
