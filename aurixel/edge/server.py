"""The gateway's door: it accepts connections, keeps their deadlines, owns the requests being served, and drains.

Tornado reads the HTTP; no handler and no router of it stands on a relay's way. It writes no access log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from tornado.http1connection import HTTP1ConnectionParameters
from tornado.httputil import HTTPMessageDelegate, HTTPServerConnectionDelegate

from aurixel.edge.connection import ClientConnection, serve
from aurixel.edge.limits import Limits
from aurixel.edge.listen import bind, parse_listen
from aurixel.edge.proxies import plain
from aurixel.edge.request import Heads, IncomingRequest
from aurixel.edge.routes import Routes
from aurixel.edge.stream import ClientStream, Phase, say_bare
from aurixel.gateway.exchange import Service

log = logging.getLogger(__name__)

_ACCEPTS = 64  # in one turn of the loop
_ACCEPT_PAUSE = 1.0  # seconds, when the system has no socket left for us
_NO_LIMIT = 2**62  # Tornado would answer a bare 400; the limits are ours


class Edge:
    """One server. `pages` serves every path that is no relay route.

    `start`, then `drain`, once each. `ports` are the ports bound.
    """

    def __init__(
        self,
        service: Service[Any],
        routes: Routes,
        pages: HTTPServerConnectionDelegate,
        heads: Heads,
        *,
        limits: Limits,
    ) -> None:
        self.service, self.routes, self.pages, self.limits = service, routes, pages, limits
        self.heads = heads
        self.draining = False
        self.ports: tuple[int, ...] = ()
        self._parameters = HTTP1ConnectionParameters(
            chunk_size=limits.chunk_bytes, max_header_size=limits.header_bytes, max_body_size=_NO_LIMIT
        )
        self._sockets: list[socket.socket] = []
        self._streams: dict[ClientStream, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._quiet: asyncio.Event | None = None

    # --- life ---

    async def start(self, listen: str, *, reuse_port: bool = False) -> None:
        """Accept connections. `ConfigError` for what is no address, `OSError` where it cannot be had."""
        host, port = parse_listen(listen)
        silence_tornado()
        self._loop = asyncio.get_running_loop()
        self._sockets = bind(host, port, reuse_port=reuse_port)
        self.ports = tuple(sock.getsockname()[1] for sock in self._sockets)
        for sock in self._sockets:
            self._listen(sock)
        self._sweep()

    async def drain(self, seconds: float, end: Callable[[], object] | None = None, *, grace: float = 5.0) -> None:
        """Stop: no new connection, 503 to new requests, `seconds` for those being served.

        Then `end()` tells the gateway to end them, and after at most `grace` seconds every connection is closed, and
        after as many again what still runs is cancelled. It returns when nothing is left.
        """
        self.draining = True
        while self._sockets:
            sock = self._sockets.pop()
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for occupant in self._occupants():
            occupant.last()
        if not await self._quiet_within(seconds):
            for occupant in self._occupants():
                occupant.stop()
            if end is not None:
                end()
            await self._quiet_within(grace)
        connections = list(self._streams.items())
        for stream, _ in connections:
            _break(stream)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(task for _, task in connections), return_exceptions=True)
        await asyncio.sleep(0)  # from Python 3.12 on `gather` is back before `_done` and `_ended` of what was over already
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._streams)

    @property
    def in_flight(self) -> int:
        """Requests whose headers have come and whose answer is not complete, or whose settlement is not."""
        busy = sum(1 for stream in self._streams if stream.phase in (Phase.BODY, Phase.ANSWER))
        return max(busy, len(self._tasks))

    # --- requests ---

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """See `request.Host`."""
        task = self._loop.create_task(work)  # owner: drain() awaits it
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _begin(self, stream: ClientStream, connection: ClientConnection) -> HTTPMessageDelegate:
        stream.await_request()
        stream.occupant = request = IncomingRequest(self, connection)
        if self._quiet is not None:
            self._look_quiet()
        return request

    def _ended(self, stream: ClientStream, _: asyncio.Task[None]) -> None:
        stream.close()
        stream.occupant = None
        del self._streams[stream]
        if self._quiet is not None:
            self._look_quiet()

    # --- connections ---

    def _listen(self, sock: socket.socket) -> None:
        self._timers.pop(sock, None)
        if not self.draining:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                log.warning("no connection can be accepted for %s s: %s", _ACCEPT_PAUSE, error.strerror)
                self._loop.remove_reader(sock.fileno())
                self._timers[sock] = self._loop.call_later(_ACCEPT_PAUSE, self._listen, sock)
                return
            if len(self._streams) >= self.limits.connections:
                say_bare(client, 503)
                client.close()
            else:
                self._welcome(client, plain(address[0]))

    def _welcome(self, client: socket.socket, peer: str) -> None:
        limits = self.limits
        buffer = 2 * (limits.header_bytes + limits.chunk_bytes)
        try:
            stream = ClientStream(client, peer, chunk_bytes=limits.chunk_bytes, buffer_bytes=buffer)
        except OSError:  # it has gone already
            client.close()
            return
        requests = serve(stream, self._parameters, _Context(peer), partial(self._begin, stream))
        task = self._loop.create_task(requests)  # owner: drain() awaits it
        self._streams[stream] = task
        task.add_done_callback(partial(self._ended, stream))

    def _sweep(self) -> None:
        self._timers[self] = self._loop.call_later(self.limits.tick, self._sweep)
        now, limits = self._loop.time(), self.limits
        for stream in list(self._streams):
            if stream.closed():
                continue
            waited = now - stream.since
            if stream.writing():
                if stream.sent != stream.sent_seen:
                    stream.sent_seen, stream.moved = stream.sent, now
                elif now - stream.moved > limits.stall_seconds:
                    _break(stream)
                continue
            stream.moved = now
            if stream.phase is Phase.IDLE and waited > limits.idle_seconds:
                stream.close()
            elif stream.phase is Phase.HEADERS and waited > limits.header_seconds:
                say_bare(stream.socket, 408)
                stream.close()
            elif stream.phase is Phase.BODY and waited > limits.body_seconds and stream.occupant is not None:
                stream.occupant.late()
            elif stream.phase is Phase.LINGER and waited > limits.linger_seconds:
                _break(stream)

    # --- draining ---

    def _occupants(self) -> Iterable[Any]:
        return [stream.occupant for stream in self._streams if stream.occupant is not None]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._quiet is not None:
            self._look_quiet()

    def _look_quiet(self) -> None:
        waiting = (Phase.IDLE, Phase.HEADERS)
        if self._quiet is None or self._tasks:
            return
        if all(stream.phase in waiting for stream in self._streams):
            self._quiet.set()

    async def _quiet_within(self, seconds: float) -> bool:
        self._quiet = asyncio.Event()
        self._look_quiet()
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            return False
        finally:
            self._quiet = None
        return True


class _Context:
    """What Tornado's own request object asks of a connection; it prints nothing of the client."""

    protocol = "http"

    def __init__(self, peer: str) -> None:
        self.remote_ip = peer

    def __str__(self) -> str:
        return "a client"


def _break(stream: ClientStream) -> None:
    stream.close()
    if stream.occupant is not None:
        stream.occupant.cut()


def silence_tornado() -> None:
    """Keep Tornado from logging what clients sent: its INFO lines quote header values."""
    logger = logging.getLogger("tornado.general")
    if _no_quotes not in logger.filters:
        logger.addFilter(_no_quotes)


def _no_quotes(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
