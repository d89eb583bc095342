"""The client: one `Upstream` a process, one call a request. What it promises is said in the package's docstring."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from aurixel.errors import ProviderError
from aurixel.plugin.contracts import Body, Outgoing, UpstreamReply
from aurixel.upstream.at_once import AtOnce, Response, fits
from aurixel.upstream.connections import Connector, Link, Poured, Slices, current, read_url, session, timeout_to_connect
from aurixel.upstream.deadlines import Ticker, Timeouts, Watch
from aurixel.upstream.faults import Code, fault
from aurixel.upstream.reply import Reply, open_reply

# What of a client's request may go out. Everything else stays here: credentials, addresses, cookies, tracking and
# SDK headers, and those that redirect billing.
OUTBOUND_HEADERS: Final = ("content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta")

# Headers of the connection, which only the one who sends may choose.
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
# What has to be percent-encoded in a URL, and would otherwise end it early.
_UNFIT: Final = re.compile(r"[^!-~]")


def outbound_headers(headers: Mapping[str, str], allow: Iterable[str] = OUTBOUND_HEADERS) -> tuple[tuple[str, str], ...]:
    """Those of a client's headers (lower-case names) that may be sent upstream."""
    return tuple([(name, headers[name]) for name in allow if name in headers])


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
        self.ticker = Ticker()
        pool = Connector(ssl=tls, limit=max_connections, keepalive_timeout=keepalive)
        self.at_once, self.pooled = AtOnce(pool), session(pool)
        # A retry must not meet a second dead connection: these are used once.
        self.single = session(Connector(ssl=tls, limit=max_connections, force_close=True))

    async def close(self) -> None:
        """Close every connection; calls still open fail."""
        await self.pooled.close()
        await self.single.close()
        self.ticker.close()

    def open(
        self, outgoing: Outgoing, timeouts: Timeouts, sent: Callable[[], object] = lambda: None
    ) -> AbstractAsyncContextManager[UpstreamReply]:
        """Send the request and enter with its answer, whatever its status.

        `sent` is called once there is a connection: from then on the upstream may have seen the request.

        Raises `ProviderError`: "upstream_unreachable" (no connection, or it broke before an answer began),
        "upstream_died", "upstream_timeout", "upstream_invalid" (not HTTP, headers too large, an unknown encoding),
        "plugin_bug" (a URL or header that cannot be sent). Of a body that is a stream, what the stream raised; such a
        request has a connection of its own, and is never sent again.
        """
        return _Call(self, outgoing, timeouts, sent)


class _Call(AbstractAsyncContextManager[UpstreamReply]):
    """One request on its way: its connection and its end."""

    def __init__(self, upstream: Upstream, outgoing: Outgoing, timeouts: Timeouts, sent: Callable[[], object]) -> None:
        self.link: Link | None = None
        self._sent = sent
        self._upstream, self._outgoing, self._timeouts = upstream, outgoing, timeouts
        self._watch = Watch(upstream.ticker, timeouts, self._cut)
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._poured: Poured | None = None

    async def __aenter__(self) -> UpstreamReply:
        outgoing = self._outgoing
        del self._outgoing  # an answer may take an hour, and the body is large
        whole: Body | None = None
        if isinstance(outgoing.body, Sequence):
            whole = outgoing.body
        else:
            self._poured = Poured(outgoing.body, self._watch)
        try:
            answer = await self._send(outgoing, whole)
            if isinstance(answer, str) and self._pool_was_stale():
                self._upstream.metrics.retried()
                answer = await self._send(outgoing, whole, again=True)
        except BaseException:
            self._stop()
            raise
        if isinstance(answer, Reply):
            return answer
        self._stop()
        raise self._not_sent() or fault(answer)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if isinstance(exc, ProviderError) and (error := self._not_sent()) is not None:
            raise error from None

    def _not_sent(self) -> Exception | None:
        """What ended a body that is a stream too early: it has to answer for what became of the connection."""
        return self._poured.failed if self._poured is not None else None

    def connected(self, connection: Connection, link: Link) -> None:
        """See `Caller`."""
        self.link, self._connection, self._transport = link, connection, link.transport
        metrics = self._upstream.metrics
        if link.uses == 1:
            metrics.opened()
        else:
            metrics.reused()
        self._watch.connected(stream=self._poured is not None)
        self._sent()

    async def _send(self, outgoing: Outgoing, whole: Body | None, *, again: bool = False) -> Reply | Code:
        """One attempt: the reply, or the code of what went wrong. `whole`: the body, where it is not a stream."""
        self.link = None
        if _UNFIT.search(outgoing.url):
            return "plugin_bug"
        headers = [(lower, value) for name, value in outgoing.headers if (lower := name.lower()) not in _FRAMING]
        timeout = timeout_to_connect(min(self._timeouts.connect, self._timeouts.total))
        try:
            if whole is not None and not again and fits(outgoing.method, whole):
                self._response = await self._upstream.at_once.ask(outgoing.url, whole, headers, timeout, self)
            else:
                session = self._upstream.single if whole is None or again else self._upstream.pooled
                payload = Slices(whole) if whole else self._poured
                self._response = await self._ask(session, outgoing, payload, headers, timeout)
        except aiohttp.ConnectionTimeoutError:
            return "upstream_timeout"
        except (aiohttp.ClientConnectionError, OSError):
            return self._broke_off()
        except (aiohttp.ClientResponseError, HttpProcessingError):
            return "upstream_invalid"
        except (aiohttp.ClientError, ValueError):
            return "plugin_bug"
        return self._judge(self._response)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        outgoing: Outgoing,
        payload: Slices | Poured | None,
        headers: list[tuple[str, str]],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The head of the answer to what is large, comes as a stream, or is sent again."""
        token = current.set(self)
        try:
            return await session.request(
                outgoing.method,
                read_url(outgoing.url),
                headers=headers,
                data=payload,
                allow_redirects=False,
                timeout=timeout,
            )
        finally:
            current.reset(token)

    def _judge(self, response: Response) -> Reply | Code:
        link = self.link
        if self._watch.expired:
            return "upstream_timeout"
        self._upstream.metrics.first_byte(self._watch.head_came())
        if link is None or not 200 <= response.status <= 599:
            return "upstream_invalid"
        link.reads(response.content)
        return open_reply(response, link, self._watch) or "upstream_invalid"

    def _broke_off(self) -> Code:
        """The code for a connection that ended before the head of an answer was whole."""
        if self._watch.expired:
            return "upstream_timeout"
        return "upstream_died" if self.link is not None and self.link.heard else "upstream_unreachable"

    def _pool_was_stale(self) -> bool:
        link = self.link
        return link is not None and link.uses > 1 and not link.heard and not self._watch.expired

    def _cut(self) -> bool:
        """Break the connection, if it is still this call's: once the whole answer is here, the pool has it again."""
        if self._connection is None or self._connection.protocol is None or self._transport is None:
            return False
        self._transport.abort()
        return True

    def _stop(self) -> None:
        self._watch.stop()
        if self._response is None:
            if self._transport is not None:
                self._transport.abort()  # aiohttp closed it, but would first send all it has buffered
        elif self._cut():
            self._response.close()
        # A connection lives on in the context of the call that opened it, and so does that call.
        self.link = self._connection = self._transport = self._response = None


class _Unwatched:
    """No metrics."""

    def opened(self) -> None: ...

    def reused(self) -> None: ...

    def retried(self) -> None: ...

    def first_byte(self, seconds: float) -> None: ...
