"""A scripted HTTP/1.1 upstream on loopback: it answers byte for byte as a test tells it, and remembers what it was sent.

A script is a list of steps, and a step is any `async def step(call: Call)`; the ones here cover what upstreams do and
what goes wrong with them. It promises to misbehave exactly as scripted, to notice at once when a client leaves, and to
fail the test if it was asked something that nobody scripted. It is no HTTP server: it understands just enough.

    async with ScriptedUpstream() as upstream:
        upstream.reply(json={"answer": 42})
        ...                                   # point the gateway at upstream.url
        assert upstream.requests[0].headers["authorization"] == "Bearer k"
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, TypeAlias, cast

Step: TypeAlias = Callable[["Call"], Awaitable[None]]
Pairs: TypeAlias = Iterable[tuple[str, str]]

# How long any wait in here may take, in seconds: a test that waits for what never comes should say so soon.
PATIENCE: Final = 10.0


class Received:
    """One request as it came. `headers` by lower-case name, the last of each; `pairs` are all, as written.

    `connection` counts from 1, over the server's life; `gone` is set once the client has left that connection.
    """

    def __init__(self, method: str, target: str, pairs: Sequence[tuple[str, str]], connection: int) -> None:
        self.method, self.target = method, target
        self.path, _, self.query = target.partition("?")
        self.pairs = tuple(pairs)
        self.headers = {name.lower(): value for name, value in pairs}
        self.body = b""
        self.connection = connection
        self.gone = asyncio.Event()

    def json(self) -> Any:
        """The body, parsed."""
        return jsonlib.loads(self.body)


class ScriptedUpstream:
    """The server. Enter it, script it, point a client at `url`; `requests` are what came, in the order of arrival.

    Which script answers: the first still queued with `once`, else the one of the path (`on`), else that of every path
    (`on("*")`). `tls` makes it speak https. `connections` counts those accepted so far, `open` those open now.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self._tls = tls
        self._paths: dict[str, tuple[Step, ...]] = {}
        self._queue: deque[tuple[Step, ...]] = deque()
        self._greetings: deque[tuple[Step, ...]] = deque()
        self._faults: list[Exception] = []
        self._news = asyncio.Event()
        self._links: set[_Link] = set()

    # --- scripting

    def on(self, path: str, *steps: Step) -> None:
        """Serve every request for this path ("*": any) with these steps, until told otherwise."""
        self._paths[path] = steps

    def once(self, *steps: Step) -> None:
        """Serve the next request with these steps, whatever its path; queued calls serve the requests after it."""
        self._queue.append(steps)

    def greet(self, *steps: Step) -> None:
        """On the next connection run these steps before anything is read; queued calls serve the connections after it."""
        self._greetings.append(steps)

    def reply(
        self,
        *,
        json: Any = None,
        body: bytes = b"",
        status: int = 200,
        headers: Pairs = (),
        path: str = "*",
    ) -> None:
        """Serve every request for `path` with one whole answer."""
        self.on(path, answer(json=json, body=body, status=status, headers=headers))

    def stream(self, events: Iterable[bytes], *, chunks: int | None = None, path: str = "*") -> None:
        """Serve every request for `path` with an event stream: a chunk an event, or cut after every `chunks` bytes."""
        self.on(path, event_stream(events, chunks=chunks))

    # --- waiting (each wait fails after PATIENCE)

    async def received(self, count: int = 1) -> Received:
        """Wait until so many requests have come; the last of them."""
        await self._until(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def disconnected(self) -> None:
        """Wait until the client has left the connection of the newest request."""
        newest = self.requests[-1]
        await self._until(newest.gone.is_set)

    async def closed(self) -> None:
        """Wait until no connection is open."""
        await self._until(lambda: self.open == 0)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                await self._news.wait()

    # --- the server itself

    async def __aenter__(self) -> ScriptedUpstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        links = list(self._links)
        for link in links:
            link.task.cancel()
            link.transport.abort()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        await self._server.wait_closed()
        if exc is None and self._faults:
            raise self._faults[0]

    def _changed(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _serve(self, link: _Link) -> None:
        """One connection, request after request, until either side has had enough."""
        try:
            if self._greetings:
                call = Call(link, Received("", "", (), link.number))
                for step in self._greetings.popleft():
                    await step(call)
                if link.ended:
                    return  # whatever has come by now: a client that writes at once is no request
            while (request := await link.head()) is not None:
                steps = self._script(request)
                if unread not in steps:
                    request.body = await link.body(request)
                self.requests.append(request)
                self._changed()
                call = Call(link, request)
                for step in steps:
                    await step(call)
                if link.ended or unread in steps or request.headers.get("connection") == "close":
                    return
        except ClientLeft:
            pass
        finally:
            link.transport.close()

    def _script(self, request: Received) -> tuple[Step, ...]:
        if self._queue:
            return self._queue.popleft()
        steps = self._paths.get(request.path) or self._paths.get("*")
        if steps is None:
            self._faults.append(AssertionError(f"the upstream was asked what nobody scripted: {request.method} {request.path}"))
            return (answer(status=501),)
        return steps


class Call:
    """What a step works with: the request it answers, and the connection to misbehave on."""

    def __init__(self, link: _Link, request: Received) -> None:
        self.request = request
        self._link = link

    async def send(self, data: bytes) -> None:
        """Write, and let the bytes leave before anything else is written. `ClientLeft` if nobody is there."""
        self.write(data)
        for _ in range(2):  # the loop sends at the end of a turn; a client on this loop reads in the next
            await asyncio.sleep(0)
        await self._link.writable.wait()

    def write(self, data: bytes) -> None:
        """Write, and go on at once: what follows may reach the client together with it. `ClientLeft` as in `send`."""
        if self._link.transport.is_closing() or self._link.lost:
            raise ClientLeft
        self._link.transport.write(data)

    async def gone(self) -> None:
        """Wait until the client has left: closed, reset, or closed its sending side."""
        await self._link.gone.wait()

    @property
    def backlog(self) -> int:
        """Bytes of the request that arrived and were not read."""
        return len(self._link.buffer)

    def stop_reading(self) -> None:
        """Take nothing more from the socket; a client that leaves goes unnoticed until `read_on`."""
        self._link.transport.pause_reading()

    def read_on(self) -> None:
        """Take from the socket again."""
        self._link.transport.resume_reading()

    def half_close(self) -> None:
        """Close our sending side only."""
        self._link.ended = True
        self._link.transport.write_eof()

    def close(self) -> None:
        """Close the connection in the ordinary way."""
        self._link.ended = True
        self._link.transport.close()

    def reset(self) -> None:
        """Reset the connection: the client gets an error, not an end. Nothing happens if it has gone by now."""
        self._link.ended = True
        if (sock := self._link.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._link.transport.abort()


class ClientLeft(Exception):
    """The client closed its connection while a script was writing to it."""


class _Link(asyncio.Protocol):
    """One accepted connection: a buffer of what came, and events for what happens."""

    transport: asyncio.Transport
    task: asyncio.Task[None]

    def __init__(self, server: ScriptedUpstream) -> None:
        self._server = server
        self.buffer = bytearray()
        self._arrived = asyncio.Event()
        self._request: Received | None = None
        self.writable = asyncio.Event()
        self.gone = asyncio.Event()
        self.lost = False
        self.ended = False  # by the script
        self.number = 0

    # --- what the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server, self.transport = self._server, cast(asyncio.Transport, transport)
        self.writable.set()
        server.connections += 1
        server.open += 1
        self.number = server.connections
        server._links.add(self)
        name = f"scripted connection {self.number}"
        self.task = asyncio.get_running_loop().create_task(server._serve(self), name=name)  # owner: `__aexit__` awaits it
        self.task.add_done_callback(self._served)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._arrived.set()

    def eof_received(self) -> bool:
        self._leave()
        return True  # keep our side open: what to do about it is the script's business

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._server.open -= 1
        self.writable.set()
        self._leave()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._server._links.discard(self)
        if not task.cancelled() and isinstance(fault := task.exception(), Exception):
            self._server._faults.append(fault)

    def _leave(self) -> None:
        self.gone.set()
        self._arrived.set()
        if self._request is not None:
            self._request.gone.set()
        self._server._changed()

    # --- what a request looks like

    async def _more(self) -> bool:
        """Wait for more bytes; False if there will be none."""
        if self.gone.is_set():
            return False
        self._arrived.clear()
        await self._arrived.wait()
        return not self.gone.is_set() or bool(self.buffer)

    async def head(self) -> Received | None:
        """The next request's head; None if the client leaves first."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if not await self._more():
                return None
        first, *lines = self._take(end + 4).decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ", 2)
        pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self._request = Received(method, target, pairs, self.number)
        if self.gone.is_set():
            self._request.gone.set()
        return self._request

    async def body(self, request: Received) -> bytes:
        """The body of the request whose head was read; `ClientLeft` if it does not come whole."""
        if request.headers.get("transfer-encoding", "").lower() != "chunked":
            return await self._exactly(int(request.headers.get("content-length", "0")))
        pieces = []
        while size := int(await self._line(), 16):
            pieces.append(await self._exactly(size))
            await self._line()
        await self._line()
        return b"".join(pieces)

    async def _line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            if not await self._more():
                raise ClientLeft
        return self._take(end + 2)[:-2]

    async def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not await self._more():
                raise ClientLeft
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken


# --- steps --------------------------------------------------------------------------------------------------------------


async def unread(call: Call) -> None:
    """Among the steps of a script: the request's body is not read, and the connection is closed at the end."""


def send(*pieces: bytes) -> Step:
    """Write these bytes as they are, each piece by itself."""

    async def step(call: Call) -> None:
        for piece in pieces:
            await call.send(piece)

    return step


def head(status: int = 200, headers: Pairs = ()) -> Step:
    """Write a status line and exactly these headers."""
    return send(_head(status, headers))


def interim(status: int = 100, headers: Pairs = ()) -> Step:
    """Write an interim answer (1xx)."""
    return send(_head(status, headers))


def answer(*, json: Any = None, body: bytes = b"", status: int = 200, headers: Pairs = (), cut: int | None = None) -> Step:
    """Write one whole answer with its length, JSON unless `headers` say otherwise; `cut`: the body in pieces of so many
    bytes."""
    if json is not None:
        body = jsonlib.dumps(json).encode()
    headers = list(headers)
    typed = any(name.lower() == "content-type" for name, _ in headers)
    pairs = [*(() if typed else (("Content-Type", "application/json"),)), *headers, ("Content-Length", str(len(body)))]
    if cut is None:
        return send(_head(status, pairs) + body)
    return send(_head(status, pairs), *slices(body, cut))


def chunked(pieces: Iterable[bytes], *, end: bool = True) -> Step:
    """Write a chunked body, one chunk a piece; `end=False` leaves it unfinished. The head must say `Transfer-Encoding`."""
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    return send(*framed, *((b"0\r\n\r\n",) if end else ()))


def event_stream(events: Iterable[bytes], *, chunks: int | None = None, headers: Pairs = (), end: bool = True) -> Step:
    """Write an event stream: a chunk an event, or the whole cut after every `chunks` bytes."""
    pieces = list(events) if chunks is None else slices(b"".join(events), chunks)
    start = head(200, [("Content-Type", "text/event-stream"), *headers, ("Transfer-Encoding", "chunked")])
    body = chunked(pieces, end=end)

    async def step(call: Call) -> None:
        await start(call)
        await body(call)

    return step


def wait(event: asyncio.Event) -> Step:
    """Go on only when the test says so."""

    async def step(call: Call) -> None:
        await event.wait()

    return step


def tell(event: asyncio.Event) -> Step:
    """Tell the test that the script has come this far."""

    async def step(call: Call) -> None:
        event.set()

    return step


async def stall(call: Call) -> None:
    """Do nothing until the client leaves."""
    await call.gone()


async def half_close(call: Call) -> None:
    """Close our sending side, and wait for the client to leave."""
    call.half_close()
    await call.gone()


async def close(call: Call) -> None:
    """Close the connection."""
    call.close()


async def reset(call: Call) -> None:
    """Reset the connection."""
    call.reset()


def slices(data: bytes, size: int) -> list[bytes]:
    """The data cut after every `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def _head(status: int, headers: Pairs) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")
