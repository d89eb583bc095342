"""A wire between a client and a server that can be cut at a word: faults of the network, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Cut = Literal["request", "answer"]


class Proxy:
    """Forwards bytes on loopback. `cut(word, which)`: the next message to the server that holds `word` is not handed on
    ("request"), or is, and its answer is not ("answer"); either way that connection is reset. `count(word)` says how many
    messages held it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._word: bytes | None = None
        self._which: Cut = "request"
        self._seen: list[bytes] = []
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    def cut(self, word: bytes, which: Cut) -> None:
        """Once, then the wire is whole again."""
        self._word, self._which = word, which

    def count(self, word: bytes) -> int:
        """Messages to the server that held `word`, those cut off included."""
        return sum(word in data for data in self._seen)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        muted = asyncio.Event()
        self._open |= {writer, server_writer}

        async def up() -> None:
            while data := await reader.read(1 << 20):
                self._seen.append(data)
                if self._word is not None and self._word in data:
                    self._word = None
                    if self._which == "request":
                        return
                    muted.set()
                server_writer.write(data)
                await server_writer.drain()

        async def down() -> None:
            while data := await server_reader.read(1 << 20):
                if muted.is_set():
                    return
                writer.write(data)
                await writer.drain()

        try:
            ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for end in (writer, server_writer):
                self._open.discard(end)
                end.transport.abort()

    def abort(self) -> None:
        """Reset every connection."""
        for end in list(self._open):
            end.transport.abort()


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of host:port; `proxy.port` is where it listens."""
    wire = Proxy(host, port)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.abort()
        await server.wait_closed()
