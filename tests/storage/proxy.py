"""A wire between a client and a server that can be cut, taken away, stopped or slowed: faults of the network, on real
sockets. It knows nothing of what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Cut = Literal["request", "answer"]


class Proxy:
    """Forwards bytes on loopback. `cut(word, which)`: the next message to the server that holds `word` is not handed on
    ("request"), or is, and its answer is not ("answer"); either way that connection is reset. `count(word)` says how many
    messages held it, `passed` how many pieces of anything were handed on, to either side."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._word: bytes | None = None
        self._which: Cut = "request"
        self._seen: list[bytes] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.delay = 0.0  # seconds that every message to the server is late, in its order
        self.passed = 0
        self.held = 0  # messages to the server that wait for `flow`
        self.news = asyncio.Event()  # set when one more is held, for who waits for that
        self.port = 0

    def cut(self, word: bytes, which: Cut) -> None:
        """Once, then the wire is whole again."""
        self._word, self._which = word, which

    def count(self, word: bytes) -> int:
        """Messages to the server that held `word`, those cut off included."""
        return sum(word in data for data in self._seen)

    def stop(self) -> None:
        """Take what comes and hand nothing on, either way: a server that is there and does not answer."""
        self._flowing.clear()

    def flow(self) -> None:
        """Hand on what waits, and everything again."""
        self._flowing.set()

    async def leave(self) -> None:
        """Out of reach: every connection is reset, new ones are refused."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            self.abort()
            await server.wait_closed()

    async def listen(self) -> None:
        """Within reach, again at the same port."""
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

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
                await self._late()
                await self._turn()
                server_writer.write(data)
                self.passed += 1
                await server_writer.drain()

        async def down() -> None:
            while data := await server_reader.read(1 << 20):
                if muted.is_set():
                    return
                await self._flowing.wait()
                writer.write(data)
                self.passed += 1
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

    async def _late(self) -> None:
        if self.delay:
            due = asyncio.Event()
            asyncio.get_running_loop().call_later(self.delay, due.set)
            await due.wait()

    async def _turn(self) -> None:
        if not self._flowing.is_set():
            self.held += 1
            self.news.set()
            try:
                await self._flowing.wait()
            finally:
                self.held -= 1

    def abort(self) -> None:
        """Reset every connection."""
        for end in list(self._open):
            end.transport.abort()


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of host:port; `proxy.port` is where it listens."""
    wire = Proxy(host, port)
    await wire.listen()
    try:
        yield wire
    finally:
        wire.flow()
        await wire.leave()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the MongoDB of `mongodb://host:port/database`, and the URL that leads through it."""
    host, _, rest = url.removeprefix("mongodb://").partition(":")
    port, _, database = rest.partition("/")
    async with proxy(host, int(port)) as wire:
        yield wire, f"mongodb://127.0.0.1:{wire.port}/{database}"
