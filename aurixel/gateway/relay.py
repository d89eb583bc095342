"""Carries one upstream's answer to the client and settles it before the last byte; it never switches after the first.

Everything that goes wrong is raised: before the first byte to the client another leg may be tried, after it the client
gets the family's own error event (`faults`), never a clean end. An answer whose client has left is read on without it, if
the operator wants that.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from aurixel.dialects.depth import too_deep
from aurixel.dialects.translation import told
from aurixel.errors import ClientGone, ProviderError, RequestError
from aurixel.gateway.books import Books
from aurixel.gateway.crossing import report
from aurixel.gateway.exchange import Exchange
from aurixel.gateway.routing import UpstreamBlock
from aurixel.gateway.timing import Timing
from aurixel.plugin.contracts import Classified, ReadsKinds, StreamReader, UpstreamReply
from aurixel.registry import bounded
from aurixel.values import Nanos, format_usd

# What is read of an upstream's error text, at most.
ERROR_TEXT: Final = 64 * 1024
# How long the end of an upstream's body is waited for after its terminal event, in seconds.
LINGER: Final = 0.1
_JSON: Final = ("application/json",)
_EVENTS: Final = ("text/event-stream",)
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]{1,64}")


class Refused(ProviderError):
    """The upstream's last word: no other leg is tried. `text` is relayed as it is where it is meant for the client."""

    def __init__(self, error: ProviderError, status: int, text: bytes | None) -> None:
        super().__init__(error.code, error.message, status=status, retry_after=error.retry_after, headers=error.headers)
        self.text = text


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One answer on its way: where it goes, the books it closes, and the headers the policy checks add.

    `reply_limit` bounds a whole (not streamed) reply, in bytes. `answered` is called in the moment the client has its
    whole answer: its next request may be here before this one's upstream has closed its body.
    """

    exchange: Exchange
    books: Books
    timing: Timing
    headers: tuple[tuple[str, str], ...]
    reply_limit: int
    answered: Callable[[], object]

    async def relay(self, reply: UpstreamReply, upstream: UpstreamBlock, read_on: Callable[[], bool]) -> None:
        """Relay a reply of any status; returns when the client has its answer.

        `read_on`, asked once the client has left, says whether the reply is to be read to its end all the same.
        """
        self.timing.mark("upstream")
        if not 200 <= reply.status < 300:
            raise await refusal(reply, upstream, translated=self.books.crossing.losses is not None)
        if self.books.crossing.request.stream:
            await self._stream(reply, read_on)
        else:
            await self._whole(reply)

    async def _whole(self, reply: UpstreamReply) -> None:
        offer, exchange, crossing = self.books.offer, self.exchange, self.books.crossing
        kind = _expect(reply.headers, crossing.request.replies or _JSON)
        self.books.whole, body = crossing.read(await reply.read(self.reply_limit), offer.input_tokens)
        if exchange.gone:
            raise ClientGone
        cost = await self.books.close("ok", reply.status)
        length = ("content-length", str(len(body)))
        exchange.start(reply.status, (("content-type", crossing.request.sent_as or kind), length, *self._headers(cost)))
        await exchange.write(body)
        self._finish()

    async def _stream(self, reply: UpstreamReply, read_on: Callable[[], bool]) -> None:
        exchange, books = self.exchange, self.books
        request = books.crossing.request
        came = _expect(reply.headers, request.replies or _EVENTS)
        kind = request.sent_as or came
        reader = books.crossing.stream_reader(books.offer.input_tokens)
        if len(request.replies) > 1 and isinstance(reader, ReadsKinds):
            kind = reader.comes_as(came)
        books.reader, books.events = reader, kind.startswith(_EVENTS)
        chunks = reply.chunks()
        try:
            async for chunk in chunks:
                out = reader.feed(chunk)
                if reader.done:
                    await self._ends(reply)
                if out:
                    self._begin(kind)
                    await exchange.write(out)
                    books.delivered = reader.output_bytes
                if reader.done:
                    break
            else:
                out = reader.close()
                await self._ends(reply)
                self._begin(kind)
                await exchange.write(out)
        except ProviderError:
            if reader.pending_out and not books.left:
                self._begin(kind)
                await exchange.write(reader.pending_out)
                books.delivered = reader.output_bytes
            raise
        except ClientGone:
            if books.settlement is None and not reader.done and read_on():
                await _read_to_its_end(chunks, reader)
            raise
        self._finish()
        await _to_the_end(chunks)

    async def _ends(self, reply: UpstreamReply) -> None:
        """The stream is whole, and what is left of it goes out next."""
        if self.exchange.gone:
            raise ClientGone
        await self.books.close("ok", reply.status)

    def _finish(self) -> None:
        self.exchange.finish()
        self.books.answered = True
        self.answered()

    def _begin(self, kind: str) -> None:
        if self.books.committed:
            return
        if self.exchange.gone:
            raise ClientGone
        self.books.committed = True
        self.timing.mark("first_byte")
        fresh = ("cache-control", "no-cache")
        self.exchange.start(200, (("content-type", kind), fresh, *self._headers(None)))

    def _headers(self, cost: Nanos | None) -> tuple[tuple[str, str], ...]:
        books = self.books
        return (*self.headers, *report(books.offer.dialect, books.crossing), *reply_headers(self.timing, cost))


async def _read_to_its_end(chunks: AsyncIterator[bytes], reader: StreamReader) -> None:
    """Read what nobody waits for any more, to hear what the upstream says of its usage."""
    async for chunk in chunks:
        reader.feed(chunk)
        if reader.done:
            return
    reader.close()


async def _to_the_end(chunks: AsyncIterator[bytes]) -> None:
    """Wait a moment for the end of a stream that has said its last word: only then can its connection be used again."""

    async def read() -> None:
        async for _ in chunks:
            pass

    with suppress(ProviderError, TimeoutError):
        await bounded(read(), LINGER)


def reply_headers(timing: Timing, cost: Nanos | None) -> tuple[tuple[str, str], ...]:
    """`Server-Timing`, and the cost where it is known."""
    stages = ("server-timing", timing.header())
    return (stages,) if cost is None else (stages, ("x-aurixel-cost", format_usd(cost)))


def _expect(headers: Mapping[str, str], kinds: tuple[str, ...]) -> str:
    """The content type of a reply as the client is told it: one of `kinds`, its parameters left out."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds and (not _MEDIA_TYPE.fullmatch(kind) or f"{kind.partition('/')[0]}/*" not in kinds):
        raise ProviderError("upstream_invalid", "The upstream answered with an unexpected content type.")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


async def refusal(reply: UpstreamReply, upstream: UpstreamBlock, *, translated: bool) -> RequestError:
    """What an upstream's error status is to the client: `Refused` where no other upstream may be asked."""
    try:
        text = await reply.read(ERROR_TEXT)
    except ProviderError as error:
        if error.code != "upstream_invalid":
            raise
        text = b""  # too long, or garbled: the status says enough
    classified = upstream.classify(reply.status, reply.headers, text)
    if classified.action == "failover":
        return classified.error
    if translated:
        return _translated(classified, reply.status, text)
    relayed = classified.action == "relay" and _is_json_object(text)
    return Refused(classified.error, reply.status if relayed else classified.error.status, text if relayed else None)


def _translated(classified: Classified, status: int, text: bytes) -> Refused:
    """The upstream's own words in the client's shape, where they are meant for the client."""
    error = classified.error
    if classified.action == "relay" and (message := told(text)) is not None:
        error = ProviderError(error.code, message, status=status, retry_after=error.retry_after)
    return Refused(error, error.status, None)


def _is_json_object(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return not too_deep(text)
