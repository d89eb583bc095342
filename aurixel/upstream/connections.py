"""aiohttp's pool, bent to our rules: a call learns which connection it got, and never gets one on which the peer spoke
unasked. It opens, pools and closes connections, and sends nothing by itself.

`_factory` is the one private name of aiohttp that this relies on; without it tests/upstream fails.
"""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from aurixel.plugin.contracts import Body, BodyStream
from aurixel.upstream.deadlines import Watch

USER_AGENT: Final = "aurixel"
# Sent with every request that does not say otherwise.
DEFAULTS: Final = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
# How answers are read. aiohttp stops reading from the socket above twice the buffer.
READING: Final[dict[str, Any]] = {
    "auto_decompress": False,
    "read_bufsize": 64 * 1024,
    "max_line_size": 8190,
    "max_field_size": 8190,
    "max_headers": 128,
}
_SPOILT: Final = 3  # so many new connections on which the peer spoke first are enough to know it by


class Link(ResponseHandler):
    """A connection that remembers: how often it served, whether the peer spoke in the present service or between two,
    how it ended. It also fails a body whose framing is garbage, which aiohttp would leave waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.uses = 0
        self.heard = False
        self.unasked = False
        self.broken = False
        self._serves = False
        self._paused_once = False
        self._body: aiohttp.StreamReader | None = None

    def serve(self) -> None:
        """A request goes out next."""
        self.uses += 1
        self.heard = False
        self._paused_once = False
        self._serves = True

    def rest(self) -> None:
        """The answer has come: back to the pool, or to be closed."""
        self._serves = False
        self._body = None

    def reads(self, body: aiohttp.StreamReader) -> None:
        """The head is here, and this is its body."""
        self._body = body
        if (error := self.exception()) is not None:
            self.set_exception(error)

    def data_received(self, data: bytes) -> None:
        if data:  # aiohttp calls this without any, when its reader makes room
            self.heard = True
            self.unasked |= not self._serves
        super().data_received(data)

    def pause_reading(self) -> None:
        self._paused_once = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """As aiohttp has it, which calls this for every piece that is read: nothing to do in an answer that never paused.

        Once it has, aiohttp's parser may hold something back though nothing is paused.
        """
        if self._paused_once:
            super().resume_reading(resume_parser)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        super().set_exception(exc)
        body = self._body
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.broken = exc is not None
        super().connection_lost(exc)


class Caller(Protocol):
    """Who a connection is for."""

    link: Link | None

    def connected(self, connection: Connection, link: Link) -> None:
        """Here it is; the request goes out on it next."""


# How a connector finds the caller it works for: aiohttp hands nothing through to it.
current: ContextVar[Caller] = ContextVar("aurixel_upstream_caller")


class SentAgain(aiohttp.ClientConnectionError):
    """aiohttp wants to send a request again by itself, which is not for it to decide."""


class Connector(aiohttp.TCPConnector):
    """The pool. `options` are aiohttp's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = functools.partial(Link, loop=asyncio.get_running_loop())

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:
        caller = current.get()
        if caller.link is not None:
            raise SentAgain
        return await self.lend(req, timeout, caller)

    async def lend(self, req: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, caller: Caller) -> Connection:
        """A connection to where `req` goes. `TimeoutError` where there is none in time, `ClientConnectionError` also where
        the peer speaks first on new ones."""
        spoilt = 0
        while True:
            connection = await super().connect(req, [], timeout)
            link = connection.protocol
            assert isinstance(link, Link)
            if not (link.unasked or link.should_close):
                break
            connection.close()
            spoilt += not link.uses
            if spoilt == _SPOILT:
                raise aiohttp.ClientConnectionError
        connection.add_callback(link.rest)
        link.serve()
        caller.connected(connection, link)
        return connection


class Slices(aiohttp.payload.Payload):
    """A request body in slices, sent with its length and never printed. It can be sent again."""

    _autoclose = True

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._size = sum(map(len, body))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body is sent, not shown")

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            await writer.write(piece)


class Poured(aiohttp.payload.Payload):
    """A request body that is sent as it comes, and once. `failed` is what kept it from being sent whole, if it was not the
    connection."""

    _autoclose = True

    def __init__(self, body: BodyStream, watch: Watch) -> None:
        super().__init__(body)
        self._size = body.length
        self._watch = watch
        self.failed: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body is sent, not shown")

    async def write(self, writer: AbstractStreamWriter) -> None:
        pieces = aiter(self._value)
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                break
            except Exception as error:
                self.failed = error
                raise
            self._watch.sends()
            await writer.write(piece)
            self._watch.sends_no_more()
        self._watch.sent()


def session(connector: Connector) -> aiohttp.ClientSession:
    """A session that owns a `Connector`: no cookies, no proxies, no decompression, bounded heads and buffers."""
    return aiohttp.ClientSession(
        connector=connector,
        headers=DEFAULTS,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        **READING,
    )


def read_url(text: str) -> URL:
    """As it was written: no slash or plus is requoted. `ValueError` for where nothing is asked."""
    url = URL(text, encoded=True)
    if url.scheme not in ("http", "https") or url.user is not None or url.password is not None:
        raise ValueError("no such URL is asked")
    return url


@functools.lru_cache(maxsize=64)
def timeout_to_connect(seconds: float) -> aiohttp.ClientTimeout:
    """The only deadline that aiohttp keeps for us; the others are `deadlines.Watch`'s."""
    return aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=None, sock_read=None)
