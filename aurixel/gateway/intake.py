"""Takes in a request's body: whole, or of an upload as much as tells who is asked and at what price; the rest of it goes on
to the upstream as it comes, read along by its dialect.

Nothing is written to disk. An upload is never sent whole before its dialect has found it whole: its last piece waits for
that, so that what is refused at its end was never complete at the upstream either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from aurixel.gateway.exchange import ByteSource, Exchange, RequestHead
from aurixel.plugin.contracts import Body, Dialect, ParsedRequest, TakesUploads, UploadReader

# An upload up to this many bytes is taken in whole before anything is sent: then it can be sent again. So is one of unknown
# length, since nobody could say what it costs at most.
WHOLE_BELOW: Final = 256 * 1024


class Intake:
    """Reads requests in these dialects."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._uploads = {dialect.name: dialect for dialect in dialects if isinstance(dialect, TakesUploads)}

    async def read(self, dialect: Dialect, exchange: Exchange) -> ParsedRequest:
        """The request; of an upload perhaps before all of it is here (`ParsedRequest.upload`). `ClientError` for anything
        that is not a sound request of the dialect; errors of the body as `ByteSource` has them."""
        head = exchange.head
        uploads = self._uploads.get(dialect.name)
        if uploads is not None:
            length = declared_length(head)
            reader = uploads.upload_reader(head.headers, length)
            if reader is not None:
                return await _until_decided(exchange.body, reader, at_once=length is not None and length > WHOLE_BELOW)
        return dialect.parse_request(await exchange.body.all(), head.headers)


async def _until_decided(body: ByteSource, reader: UploadReader, *, at_once: bool) -> ParsedRequest:
    async for chunk in body:
        reader.feed(chunk)
        if at_once and reader.request is not None:
            return reader.request
    return reader.finish()


def declared_length(head: RequestHead) -> int | None:
    """The body's length as its headers say it; None where it comes in chunks."""
    length = head.headers.get("content-length")
    return int(length) if length is not None else None


class Onward:
    """An upload on its way to one upstream: `begun`, what was taken in, as that upstream is to have it, then the rest of the
    body. A `BodyStream`. `begins` is called with its first byte, after which no other upstream can be asked; `ends` when
    the upstream is about to have it all, and may bill us for it."""

    def __init__(
        self,
        begun: Body,
        exchange: Exchange,
        reader: UploadReader,
        *,
        begins: Callable[[], object],
        ends: Callable[[], object],
    ) -> None:
        self._begun, self._reader, self._rest = list(begun), reader, exchange.body
        self._begins, self._ends = begins, ends
        declared = declared_length(exchange.head)
        self.length: int | None = None if declared is None else declared + sum(map(len, begun)) - reader.size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._begins()
        reader, begun = self._reader, self._begun
        reader.let_go()
        begun.reverse()
        while len(begun) > 1:
            yield begun.pop()
        last = begun.pop() if begun else b""
        async for chunk in self._rest:
            reader.feed(chunk)
            if last:
                yield last
            last = chunk
        reader.finish()
        self._ends()
        yield last


__all__ = ["WHOLE_BELOW", "Intake", "Onward", "declared_length"]
