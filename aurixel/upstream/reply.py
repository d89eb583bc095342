"""An upstream's answer as it arrives: what was received before a fault is handed on before the fault is raised.

It promises that a clean end means a whole body, and that no piece is empty; it never looks into a body.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from aurixel.upstream.at_once import Response
from aurixel.upstream.connections import Link
from aurixel.upstream.deadlines import Watch
from aurixel.upstream.faults import Code, fault

_PIECE: Final = 64 * 1024  # the most that is inflated at once, however much there is
_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def open_reply(response: Response, link: Link, watch: Watch) -> Reply | None:
    """The reply for a response whose head is here; None if its encoding is not one we can undo."""
    headers = _lower(response.headers)
    coding = headers.get("transfer-encoding", "").strip().lower()
    if coding not in ("", "chunked", "identity"):
        return None
    # aiohttp takes any end of the connection, a reset too, for the end of a body that has no length.
    open_ended = "content-length" not in headers and coding != "chunked"
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return Reply(response, headers, link if open_ended else None, watch)
    if encoding in _WINDOWS:
        headers.pop("content-length", None)
        del headers["content-encoding"]
        return Inflated(response, headers, link if open_ended else None, watch, encoding)
    return None


class Reply:
    """An `UpstreamReply`, and its own, single iterator. `end` is the link whose end is the body's, if that is how it ends."""

    def __init__(self, response: Response, headers: Mapping[str, str], end: Link | None, watch: Watch) -> None:
        self.status = response.status
        self.headers = headers
        self._content = response.content
        self._end = end
        self._watch = watch
        self._failed: Code | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"

    def chunks(self) -> AsyncIterator[bytes]:
        """See `UpstreamReply`."""
        return self

    async def read(self, limit: int) -> bytes:
        """See `UpstreamReply`."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise fault("upstream_invalid")
            pieces.append(piece)
            if self._over():
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _over(self) -> bool:
        """Whether the body is known to be whole, and nothing of it is left: asking for more would only be told so."""
        return self._end is None and self._content.at_eof()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._failed is None:
            self._watch.waits()
            try:
                piece = await self._content.readany()
            except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
                self._failed = "upstream_invalid" if isinstance(error, HttpProcessingError) else "upstream_died"
                self._content.set_exception(None)  # type: ignore[arg-type]  # else it keeps what came before
                piece = self._content.read_nowait()
            self._watch.busy()
            if piece:
                return piece
            if self._failed is None and not self._watch.expired:
                if self._end is None or not self._end.broken:
                    raise StopAsyncIteration
                self._failed = "upstream_died"
            if self._watch.expired:
                self._failed = "upstream_timeout"
        assert self._failed is not None
        raise fault(self._failed)


class Inflated(Reply):
    """An answer that came compressed though none was asked for: inflated piece by piece, never much at once."""

    def __init__(
        self,
        response: Response,
        headers: Mapping[str, str],
        end: Link | None,
        watch: Watch,
        encoding: str,
    ) -> None:
        super().__init__(response, headers, end, watch)
        self._encoding = encoding
        self._machine: Any = None
        self._rest = b""
        self._more = False

    def _over(self) -> bool:
        return False  # that the compressed data ended with its body is still to be seen

    async def __anext__(self) -> bytes:
        while True:
            while self._rest or self._more:
                if piece := self._inflate():
                    return piece
            try:
                self._rest = await super().__anext__()
                continue
            except StopAsyncIteration:
                if self._machine is None:
                    raise
            self._failed = "upstream_died"  # the body ended, the compressed data in it did not
            raise fault(self._failed)

    def _inflate(self) -> bytes:
        """The next piece; empty if more input is needed."""
        if self._machine is None:
            # Of "deflate" there are two sorts in the wild; the one with a header begins with its method, 8.
            bare = self._encoding == "deflate" and self._rest[0] & 0x0F != 8
            self._machine = zlib.decompressobj(-zlib.MAX_WBITS if bare else _WINDOWS[self._encoding])
        piece = b""
        try:
            piece = self._machine.decompress(self._rest, _PIECE)
        except zlib.error:
            self._failed = "upstream_invalid"
        if self._failed is not None:
            self._rest, self._more = b"", False
            raise fault(self._failed)
        self._rest = self._machine.unconsumed_tail
        self._more = len(piece) == _PIECE
        if self._machine.eof:
            self._rest, self._more = self._machine.unused_data, False
            self._machine = None  # another member may follow
        return piece


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names, repeated ones joined; bytes outside ASCII as latin-1, so that they can be written again."""
    lower: dict[str, str] = {}
    for written, value in headers.items():
        name = written.lower()
        text = value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")
        lower[name] = f"{lower[name]}, {text}" if name in lower else text
    return lower
