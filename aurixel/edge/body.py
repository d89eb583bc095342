"""A request's body between the connection that reads it and the one who wants it: bounded, and never copied twice.

It holds no clock and no connection: the edge feeds it, ends it, or fails it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aurixel.errors import AurixelError, ClientError


class Body:
    """A `ByteSource`. Read it once: whole, or in pieces.

    `limit` bytes in all, else `ClientError("body_too_large")`. Unless it is read whole, at most about `unread` bytes
    wait here: `feed` then returns a future that the connection waits for before it reads on.
    """

    __slots__ = ("_chunks", "_error", "_held", "_limit", "_resume", "_size", "_unread", "_wanted", "_whole", "complete")

    def __init__(self, limit: int, unread: int) -> None:
        self.complete = False
        self._chunks: list[bytes] = []
        self._size = self._held = 0
        self._limit, self._unread = limit, unread
        self._whole = False
        self._error: AurixelError | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._resume: asyncio.Future[None] | None = None

    # --- the connection's side ---

    def feed(self, chunk: bytes) -> asyncio.Future[None] | None:
        """The next bytes; a future where the connection must wait before the ones after."""
        if self._error is not None:
            return None
        self._size += len(chunk)
        if self._size > self._limit:
            self.fail(ClientError("body_too_large", f"The request body is larger than {self._limit} bytes."))
            return None
        self._chunks.append(chunk)
        if self._whole:
            return None
        self._held += len(chunk)
        _wake(self._wanted)
        if self._held <= self._unread:
            return None
        self._resume = asyncio.get_running_loop().create_future()
        return self._resume

    def end(self) -> None:
        """The body is complete."""
        self.complete = True
        _wake(self._wanted)

    def fail(self, error: AurixelError) -> None:
        """Whoever reads gets `error`, now or when it comes to read; what came and comes is dropped. The first counts."""
        if self._error is None:
            self._error = error
            self._chunks = []
            _wake(self._wanted)
            _wake(self._resume)

    # --- the reader's side ---

    async def all(self) -> bytes:
        """The whole body."""
        if not self.complete:
            self._whole = True
            _wake(self._resume)
            while not self._over():
                await self._wait()
        if self._error is not None:
            raise self._error
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._error is not None:
                raise self._error
            if self._chunks:
                chunk = self._chunks.pop(0)
                self._held -= len(chunk)
                if self._held <= self._unread:
                    _wake(self._resume)
                return chunk
            if self.complete:
                raise StopAsyncIteration
            await self._wait()

    def _over(self) -> bool:
        return self.complete or self._error is not None

    async def _wait(self) -> None:
        self._wanted = asyncio.get_running_loop().create_future()
        try:
            await self._wanted
        finally:
            self._wanted = None


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
