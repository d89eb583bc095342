"""One request from its headers on: what HTTP itself forbids, whose path it is, and who may ask, before its body is read.

It serves nothing: relay routes go to the gateway as an `Exchange`, every other path to the Tornado application.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Coroutine, Mapping
from time import perf_counter
from typing import Any, Protocol, cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from aurixel.clock import Clock
from aurixel.edge.connection import FramingHeaders, lowered
from aurixel.edge.exchange import HttpExchange
from aurixel.edge.limits import Limits
from aurixel.edge.proxies import Proxies
from aurixel.edge.routes import Routes
from aurixel.edge.stream import ClientStream, Phase
from aurixel.edge.wire import bare_reply, id_lines, new_request_id, reply_head
from aurixel.errors import ClientError, GatewayError, RequestError
from aurixel.gateway.exchange import RequestHead, Service
from aurixel.plugin.contracts import ErrorReply

log = logging.getLogger(__name__)

# A refused body up to this many bytes is read and dropped, and its connection kept.
_DROPPABLE = 64 * 1024


class Heads:
    """Makes `RequestHead`s: names requests, finds the client behind proxies, reads the clocks."""

    def __init__(self, proxies: Proxies, clock: Clock) -> None:
        self._proxies, self._clock = proxies, clock

    def read(self, method: str, target: str, headers: dict[str, str], peer: str) -> RequestHead:
        """`target` as on the request line, in origin or absolute form; `headers` by lower-case name."""
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            path = _origin_form(path)
        return RequestHead(
            method=method,
            path=path,
            query=query,
            headers=headers,
            client_ip=self._proxies.client_ip(peer, headers.get("x-forwarded-for")),
            request_id=new_request_id(),
            started=perf_counter(),
            at_ms=self._clock.wall_ms(),
        )


class Host(Protocol):
    """What a request needs of the server it came in by."""

    limits: Limits
    routes: Routes
    heads: Heads
    service: Service[Any]
    pages: HTTPServerConnectionDelegate
    draining: bool

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it as a task that the server owns."""


class IncomingRequest(HTTPMessageDelegate):
    """What Tornado reads a request into; also what a connection is busy with (`stream.Occupant`)."""

    def __init__(self, host: Host, connection: HTTP1Connection) -> None:
        self._host, self._connection = host, connection
        self._stream = cast(ClientStream, connection.stream)
        self._head: RequestHead | None = None
        self._exchange: HttpExchange | None = None
        self._page: HTTPMessageDelegate | None = None
        self._fault = "The request is not valid HTTP."

    # --- Tornado's side ---

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Judge the request; a future where its body must wait for the verdict."""
        host, stream = self._host, self._stream
        stream.phase, stream.since = Phase.BODY, stream.now()
        method, target, version = cast(RequestStartLine, start_line)
        self._head = head = host.heads.read(method, target, lowered(headers), stream.peer)
        length = self._length(head.headers, version)
        methods = host.routes.relay.get(head.path)
        route = None if methods is None else methods.get(method)
        limit = host.limits.body_bytes if methods is not None else host.limits.page_body_bytes
        error: RequestError | None = None
        if host.draining:
            error = shutting_down()
        elif length is not None and length > limit:
            error = ClientError("body_too_large", f"The request body is larger than {limit} bytes.")
        elif methods is not None and route is None:
            allow = ", ".join(methods)
            error = ClientError("method_not_allowed", f"This path takes {allow}.", headers=(("allow", allow),))
        elif route is not None and head.headers.get("content-encoding", "identity").lower() != "identity":
            text = "A compressed body is not supported: send it without content-encoding."
            error = ClientError("unsupported_content_type", text)
        if error is not None:
            headers.pop("Expect", None)
            self._refuse(self._open(head, version, length), error)
            return None
        if route is None:
            return self._turn_to_page(RequestStartLine(method, _target(head), version), headers, limit)
        expect = head.headers.get("expect")
        if expect is not None and expect.lower() == "100-continue":
            headers["Expect"] = "100-continue"  # the one spelling Tornado answers, once this method has returned
        return self._admit(route, self._open(head, version, length), headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of the body; a future where the next one must wait."""
        if self._exchange is not None:
            wait = self._exchange.body.feed(chunk)
            if wait is not None:
                self._stream.holds(wait)
            return wait
        return self._page.data_received(chunk) if self._page is not None else None

    def finish(self) -> None:
        """The body is complete."""
        self._stream.phase = Phase.ANSWER
        if self._exchange is not None:
            self._exchange.body_ended()
        elif self._page is not None:
            self._page.finish()

    def on_connection_close(self) -> None:
        """The connection ended before the body did."""
        if self._exchange is not None:
            self._exchange.lost()
        elif self._page is not None:
            self._page.on_connection_close()

    # --- the connection's side ---

    def unframed(self) -> bytes:
        """See `stream.Occupant`."""
        head, exchange = self._head, self._exchange
        if head is None:
            return bare_reply(400)
        if exchange is not None and exchange.started:
            return b""
        reply = self._render(head, ClientError("bad_framing", self._fault))
        headers = [header for header in reply.headers if header[0] != "content-length"]
        extra = f"{id_lines(head.request_id)}content-length: {len(reply.body)}\r\nconnection: close\r\n"
        return reply_head(reply.status, headers, extra) + (b"" if head.method == "HEAD" else reply.body)

    def late(self) -> None:
        """See `stream.Occupant`."""
        if self._exchange is None:
            self._stream.close()
        else:
            self._exchange.droppable = False
            self._exchange.body.fail(ClientError("request_timeout", "The request body did not come in time."))

    def last(self) -> None:
        """See `stream.Occupant`."""
        if self._exchange is not None:
            self._exchange.keep = False

    def stop(self) -> None:
        """See `stream.Occupant`."""
        if self._exchange is not None and not self._exchange.body.complete:
            self._exchange.droppable = False
            self._exchange.body.fail(shutting_down())

    def cut(self) -> None:
        """See `stream.Occupant`."""
        if self._exchange is not None:
            self._exchange.lost()

    # --- how it goes on ---

    def _length(self, headers: Mapping[str, str], version: str) -> int | None:
        """The body's length, None if only its end will tell. `HTTPInputError` where two readers could disagree on it."""
        host, length, coding = headers.get("host"), headers.get("content-length"), headers.get("transfer-encoding")
        if "," in (host or "") or (host is None and version == "HTTP/1.1"):
            self._fault = "A request has exactly one Host header."
        elif coding is not None and length is not None:
            self._fault = "A request has a Content-Length or a Transfer-Encoding, not both."
        elif coding is not None and (coding.lower() != "chunked" or version != "HTTP/1.1"):
            self._fault = "The only Transfer-Encoding known here is chunked."
        elif length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            self._fault = "The Content-Length is not one number."
        else:
            self._fault = "The request body's framing is not valid HTTP."
            return None if coding is not None else int(length or 0)
        raise HTTPInputError("framing")

    def _turn_to_page(self, start_line: RequestStartLine, headers: HTTPHeaders, limit: int) -> Awaitable[None] | None:
        self._connection.set_max_body_size(limit)
        self._page = self._host.pages.start_request(self._host, self._connection)
        return self._page.headers_received(start_line, headers.all() if isinstance(headers, FramingHeaders) else headers)

    def _open(self, head: RequestHead, version: str, length: int | None) -> HttpExchange:
        http11 = version == "HTTP/1.1"
        connection = head.headers.get("connection")
        self._exchange = exchange = HttpExchange(
            head,
            self._connection,
            self._stream,
            self._host.limits,
            keep=http11 and not self._host.draining and (connection is None or "close" not in connection.lower()),
            http11=http11,
            droppable=length is not None and length <= _DROPPABLE and "expect" not in head.headers,
        )
        self._connection.set_close_callback(exchange.lost)
        return exchange

    def _admit(self, route: str, exchange: HttpExchange, headers: HTTPHeaders) -> Awaitable[None] | None:
        host = self._host
        try:
            ticket = host.service.admit(route, exchange.head)
        except Exception as error:  # noqa: BLE001 - `_fail` answers it, and logs what is no refusal
            self._fail(exchange, headers, error)
            return None
        if not hasattr(ticket, "__await__"):
            host.spawn(self._serve(ticket, exchange))
            return None
        # Nobody reads meanwhile, so that nobody but this would see the client leave.
        self._stream.set_close_callback(exchange.lost)
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.spawn(self._admit_and_serve(ticket, exchange, headers, admitted))
        return admitted

    async def _admit_and_serve(
        self, pending: Awaitable[Any], exchange: HttpExchange, headers: HTTPHeaders, admitted: asyncio.Future[None]
    ) -> None:
        try:
            ticket = await pending
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(exchange, headers, error)
            return
        finally:
            if not admitted.done():
                admitted.set_result(None)
        if not exchange.gone:
            await self._serve(ticket, exchange)

    async def _serve(self, ticket: Any, exchange: HttpExchange) -> None:
        try:
            await self._host.service.serve(ticket, exchange)
            if not (exchange.finished or exchange.gone):
                raise RuntimeError("no answer")
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(exchange, None, error)

    def _fail(self, exchange: HttpExchange, headers: HTTPHeaders | None, error: Exception) -> None:
        """A refusal is answered; anything else is a bug, told by its place and never by its words."""
        if not isinstance(error, RequestError):
            _log_bug(exchange.head, error)
            error = GatewayError("internal_error", "An internal error happened.")
        if headers is not None:
            headers.pop("Expect", None)
        if exchange.started:
            exchange.abort()
        else:
            self._refuse(exchange, error)

    def _refuse(self, exchange: HttpExchange, error: RequestError) -> None:
        exchange.answer(self._render(exchange.head, error))

    def _render(self, head: RequestHead, error: RequestError) -> ErrorReply:
        routes = self._host.routes
        try:
            return self._host.service.render_error(routes.speaker(head.path, head.headers), error, head.request_id)
        except Exception as bug:  # noqa: BLE001 - the last resort has no shape, but it is an answer
            _log_bug(head, bug)
            return ErrorReply(500, (), b"")


def _log_bug(head: RequestHead, error: Exception) -> None:
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("request %s: %s escaped the gateway at\n%s", head.request_id, type(error).__name__, place)


def shutting_down() -> GatewayError:
    """What a request is told that comes, or is still coming, when the server ends."""
    return GatewayError("shutting_down", "The gateway is restarting. Try again.", retry_after=1)


def _target(head: RequestHead) -> str:
    return f"{head.path}?{head.query}" if head.query else head.path


def _origin_form(target: str) -> str:
    """`/path` of `http://host/path`; whatever else is no path of ours, and stays as it is."""
    scheme, _, rest = target.partition("://")
    if scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]
