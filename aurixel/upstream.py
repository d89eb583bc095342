"""The one room that speaks HTTP outwards: a request goes out at most twice, and its answer comes back as it arrives.

It promises that every wait has a deadline, that leaving a call closes its connection at once unless the answer was
read to its end, that a stalled reader stalls the upstream, and that what it raises are `ProviderError`s which name no
host, header or key. It follows no redirect, keeps no cookie, reads no proxy from the environment, judges no status,
and sends again in one case only: a pooled connection that broke before the first byte of an answer.
Why it is built on aiohttp in this way: docs/decisions/0003-upstream-client.md.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from aurixel.errors import ProviderError
from aurixel.plugin.contracts import Body, Outgoing, UpstreamReply

# What of a client's request may go out. Everything else stays here: credentials, addresses, cookies, tracking and
# SDK headers, and those that redirect billing.
OUTBOUND_HEADERS: Final = ("content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta")
USER_AGENT: Final = "aurixel"

# Headers of the connection, which only the one who sends may choose.
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_MAX_HEADERS: Final = 128
_MAX_HEADER_LINE: Final = 8190
_READ_BUFFER: Final = 64 * 1024  # aiohttp stops reading from the socket above twice this
_PIECE: Final = 64 * 1024  # the most that is inflated at once
_JOIN_BELOW: Final = 64 * 1024  # a body up to this is sent as one piece

_MESSAGES: Final = {
    "upstream_unreachable": "The upstream could not be reached.",
    "upstream_died": "The upstream broke off its answer.",
    "upstream_timeout": "The upstream did not answer in time.",
    "upstream_invalid": "The upstream's answer could not be understood.",
    "plugin_bug": "The request to the upstream could not be made.",
}


def outbound_headers(headers: Mapping[str, str], allow: Iterable[str] = OUTBOUND_HEADERS) -> tuple[tuple[str, str], ...]:
    """Those of a client's headers (lower-case names) that may be sent upstream."""
    return tuple((name, headers[name]) for name in allow if name in headers)


class Timeouts(msgspec.Struct, frozen=True):
    """Deadlines of one call, in seconds. `connect`: until there is a connection; `first_byte`: from then to the status
    and headers; `idle`: waiting for the next piece of the body; `total`: all of it, the reader's own pauses included."""

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 3600.0


class UpstreamMetrics(Protocol):
    """Is told what happens to connections; must not block or raise."""

    def opened(self) -> None:
        """A request goes out on a new connection."""

    def reused(self) -> None:
        """A request goes out on a connection from the pool."""

    def retried(self) -> None:
        """A connection from the pool was dead: the request is sent once more, on a new one."""

    def first_byte(self, seconds: float) -> None:
        """Status and headers are here, so long after the call began."""


class Upstream:
    """The connections of one process to all its upstreams. Made inside the running loop; `close` it before the loop ends.

    `ca_file`: certificates (PEM) to trust beside the system's. `max_connections`: at most so many at a time, 0 for no
    limit; a call waits for its turn within its `connect` deadline. `keepalive`: seconds an idle connection is kept.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        max_connections: int = 0,
        keepalive: float = 15.0,
        metrics: UpstreamMetrics | None = None,
    ) -> None:
        tls = ssl.create_default_context()
        if ca_file is not None:
            tls.load_verify_locations(cafile=ca_file)
        tls.set_alpn_protocols(["http/1.1"])
        self.metrics = metrics or _Unwatched()
        self.pooled = _session(_Connector(ssl=tls, limit=max_connections, keepalive_timeout=keepalive))
        # A retry must not meet a second dead connection: these are never shared.
        self.single = _session(_Connector(ssl=tls, limit=max_connections, force_close=True))

    async def close(self) -> None:
        """Close every connection; calls still open fail."""
        await self.pooled.close()
        await self.single.close()

    def open(self, outgoing: Outgoing, timeouts: Timeouts) -> AbstractAsyncContextManager[UpstreamReply]:
        """Send the request and enter with its answer, whatever its status.

        Raises `ProviderError`: "upstream_unreachable" (no connection, or it broke before an answer began),
        "upstream_died", "upstream_timeout", "upstream_invalid" (not HTTP, headers too large, an unknown encoding),
        "plugin_bug" (a URL or header that cannot be sent).
        """
        return _Call(self, outgoing, timeouts)


class _Call(AbstractAsyncContextManager[UpstreamReply]):
    """One request on its way: its connection, its deadlines and its end."""

    def __init__(self, upstream: Upstream, outgoing: Outgoing, timeouts: Timeouts) -> None:
        self._upstream, self._outgoing, self._timeouts = upstream, outgoing, timeouts
        self.loop = asyncio.get_running_loop()
        self._began = self.loop.time()
        self._first_byte_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._reply: _Reply | None = None
        self.link: _Link | None = None
        self.expired = False

    async def __aenter__(self) -> UpstreamReply:
        try:
            failed = await self._send(self._upstream.pooled)
            if failed is not None and self._pool_was_stale():
                self._upstream.metrics.retried()
                failed = await self._send(self._upstream.single)
            if failed is None:
                failed = self._read_head()
        except BaseException:
            self._stop()
            raise
        if failed is not None:
            self._stop()
            raise _error(failed)  # out here it has no context: aiohttp's errors quote the request's headers
        assert self._reply is not None
        return self._reply

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    async def _send(self, session: aiohttp.ClientSession) -> str | None:
        """One attempt: None once the head of the answer is here, else the code of what went wrong."""
        self.link = None
        outgoing = self._outgoing
        token = _current.set(self)
        try:
            self._response = await session.request(
                outgoing.method,
                outgoing.url,
                headers=[(name, value) for name, value in outgoing.headers if name.lower() not in _FRAMING],
                data=_Slices(outgoing.body) if outgoing.body else None,
                allow_redirects=False,
                timeout=_client_timeout(min(self._timeouts.connect, self._timeouts.total)),
            )
        except aiohttp.ConnectionTimeoutError:
            return "upstream_timeout"
        except (aiohttp.ClientConnectionError, OSError):
            return self._broke_off()
        except aiohttp.ClientResponseError:
            return "upstream_invalid"
        except (aiohttp.ClientError, ValueError):
            return "plugin_bug"
        finally:
            _current.reset(token)
        return "upstream_timeout" if self.expired else None

    def _broke_off(self) -> str:
        """The code for a connection that ended before the head of an answer was whole."""
        if self.expired:
            return "upstream_timeout"
        return "upstream_died" if self.link is not None and self.link.heard else "upstream_unreachable"

    def began(self, connection: Connection, link: _Link) -> None:
        """The connector has found a connection: the request goes out on it next."""
        self._connection, self.link = connection, link
        self._transport = link.transport
        link.uses += 1
        if link.uses == 1:
            self._upstream.metrics.opened()
        else:
            self._upstream.metrics.reused()
        if self._watch is None:
            now = self.loop.time()
            self._first_byte_at = now + self._timeouts.first_byte
            self._watch = self.loop.call_at(min(self._deadline(), now + self._timeouts.idle), self._look)

    def _pool_was_stale(self) -> bool:
        link = self.link
        return link is not None and link.uses > 1 and not link.heard and not self.expired

    def _read_head(self) -> str | None:
        response = self._response
        assert response is not None
        if not 200 <= response.status <= 599:
            return "upstream_invalid"
        self._upstream.metrics.first_byte(self.loop.time() - self._began)
        headers = _lower(response.headers)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            self._reply = _Reply(self, response, headers)
        elif encoding in _INFLATES:
            headers.pop("content-length", None)
            del headers["content-encoding"]
            self._reply = _Inflated(self, response, headers, encoding)
        else:
            return "upstream_invalid"
        return None

    def _deadline(self) -> float:
        """When, as things stand, this call is over."""
        total = self._began + self._timeouts.total
        if self._reply is None:
            return min(total, self._first_byte_at)
        waiting = self._reply.waiting_since
        return min(total, waiting + self._timeouts.idle) if waiting else total

    def _look(self) -> None:
        """The one timer of a call. It looks at least once in each `idle` seconds, so that no chunk has to set it again."""
        if self._connection is None or self._connection.protocol is None:
            return  # the whole answer has arrived: what is left is the reader's time
        now, deadline = self.loop.time(), self._deadline()
        if now < deadline:
            self._watch = self.loop.call_at(min(deadline, now + self._timeouts.idle), self._look)
            return
        self.expired = True
        if self._transport is not None:
            self._transport.abort()

    def _stop(self) -> None:
        """Close the connection, unless the answer has arrived whole and the pool has it again."""
        if self._watch is not None:
            self._watch.cancel()
        response = self._response
        if response is None:
            if self._transport is not None:
                self._transport.abort()  # aiohttp closed it, but would still send what it had buffered
        elif response.connection is not None:
            if self._transport is not None:
                self._transport.abort()
            response.close()


class _Reply:
    """An answer as it arrives (`UpstreamReply`); its own, single iterator."""

    def __init__(self, call: _Call, response: aiohttp.ClientResponse, headers: Mapping[str, str]) -> None:
        self.status = response.status
        self.headers = headers
        self.waiting_since = 0.0  # 0 while the reader is busy elsewhere
        self._call = call
        self._time = call.loop.time
        self._content = response.content
        self._failed: str | None = None
        # aiohttp takes any end of the connection for the end of a body that has no length.
        self._delimited = "content-length" in response.headers or "transfer-encoding" in response.headers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        failed = self._failed
        if failed is None:
            self.waiting_since = self._time()
            try:
                piece = await self._content.readany()
            except (aiohttp.ClientError, HttpProcessingError, OSError) as fault:
                failed = self._failed = self._judge(fault)
                # What came before the fault was delivered: hand it on first.
                self._content.set_exception(None)  # type: ignore[arg-type]
                piece = self._content.read_nowait()
            self.waiting_since = 0.0
            if piece:
                return piece
            if failed is None:
                failed = self._judge_end()
        if failed is not None:
            raise _error(failed)
        raise StopAsyncIteration

    async def read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise _error("upstream_invalid")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _judge(self, fault: Exception) -> str:
        if self._call.expired:
            return "upstream_timeout"
        return "upstream_died" if isinstance(fault, (aiohttp.ClientError, OSError)) else "upstream_invalid"

    def _judge_end(self) -> str | None:
        if self._call.expired:
            return "upstream_timeout"
        link = self._call.link
        if not self._delimited and link is not None and link.broken:
            return "upstream_died"
        return None


class _Inflated(_Reply):
    """An answer that came compressed though we asked for none: inflated piece by piece, never much at once."""

    def __init__(self, call: _Call, response: aiohttp.ClientResponse, headers: Mapping[str, str], encoding: str) -> None:
        super().__init__(call, response, headers)
        self._encoding = encoding
        self._machine: Any = None
        self._rest = b""
        self._more = False

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
            raise _error("upstream_died")  # the body ended, the compressed data in it did not

    def _inflate(self) -> bytes:
        """The next piece, at most `_PIECE` bytes however much they were compressed; empty if more input is needed."""
        if self._machine is None:
            head = self._rest[0] & 0x0F
            # Of "deflate" there are two sorts in the wild; the named one begins with its method, 8.
            raw = self._encoding == "deflate" and head != 8
            self._machine = zlib.decompressobj(-zlib.MAX_WBITS if raw else _INFLATES[self._encoding])
        try:
            piece: bytes = self._machine.decompress(self._rest, _PIECE)
        except zlib.error:
            piece = b""
            self._failed = "upstream_invalid"
        if self._failed == "upstream_invalid":
            raise _error(self._failed)
        self._rest = self._machine.unconsumed_tail
        self._more = len(piece) == _PIECE
        if self._machine.eof:
            self._rest, self._more = self._machine.unused_data, False
            self._machine = None  # another member may follow
        return piece


_INFLATES: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class _Slices(aiohttp.payload.Payload):
    """A request body in slices, sent with its length and never printed. It can be sent again."""

    _autoclose = True

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._size = sum(map(len, body))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body is sent, not shown")

    async def write(self, writer: AbstractStreamWriter) -> None:
        body: Body = self._value
        if len(body) > 1 and self._size is not None and self._size <= _JOIN_BELOW:
            body = (b"".join(body),)
        for piece in body:
            await writer.write(piece)


class _Link(ResponseHandler):
    """A connection that remembers: how often it served, whether the peer spoke since it last rested, how it ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.uses = 0
        self.heard = False
        self.broken = False

    def data_received(self, data: bytes) -> None:
        if data:  # aiohttp calls this without any, when its reader makes room
            self.heard = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.broken = exc is not None
        super().connection_lost(exc)

    def rest(self) -> None:
        self.heard = False


class _SentAgain(aiohttp.ClientConnectionError):
    """aiohttp wants to send a request again by itself, which is for `_Call` to decide."""


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, but it tells the call which connection it got, and hands out none on which the peer spoke unasked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = functools.partial(_Link, loop=asyncio.get_running_loop())

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:
        call = _current.get()
        if call.link is not None:
            raise _SentAgain
        while True:
            connection = await super().connect(req, traces, timeout)
            link = connection.protocol
            assert isinstance(link, _Link)
            if not (link.heard or link.should_close):
                break
            connection.close()
        connection.add_callback(link.rest)
        call.began(connection, link)
        return connection


# How the connector finds the call it works for: aiohttp hands nothing through to it.
_current: ContextVar[_Call] = ContextVar("aurixel_upstream_call")


def _session(connector: _Connector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BUFFER,
        max_line_size=_MAX_HEADER_LINE,
        max_field_size=_MAX_HEADER_LINE,
        max_headers=_MAX_HEADERS,
    )


@functools.lru_cache(maxsize=64)
def _client_timeout(connect: float) -> aiohttp.ClientTimeout:
    """aiohttp keeps the deadline for a connection; the others are the call's own, one timer for all of them."""
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=None, sock_read=None)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names, repeated ones joined; bytes outside ASCII as latin-1, so that they can be written again."""
    lower: dict[str, str] = {}
    for written, value in headers.items():
        name = written.lower()
        text = value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")
        lower[name] = f"{lower[name]}, {text}" if name in lower else text
    return lower


class _Unwatched:
    """No metrics."""

    def opened(self) -> None: ...

    def reused(self) -> None: ...

    def retried(self) -> None: ...

    def first_byte(self, seconds: float) -> None: ...


def _error(code: str) -> ProviderError:
    """The error of this code, in words that say nothing of the upstream."""
    return ProviderError(code, _MESSAGES[code])
