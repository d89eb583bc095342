"""One request on Tornado: the gateway's `Exchange`. It frames the answer, waits for a slow client, and says when it left.

It decides nothing about the request. It writes to the stream itself: Tornado's own framing costs three copies and two
futures a chunk (docs/decisions/0010-edge.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tornado.concurrent import Future
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from aurixel.edge.body import Body
from aurixel.edge.limits import Limits
from aurixel.edge.stream import ClientStream, Phase
from aurixel.edge.wire import id_lines, reply_head
from aurixel.errors import ClientGone
from aurixel.gateway.exchange import RequestHead
from aurixel.plugin.contracts import ErrorReply


class HttpExchange:
    """See `gateway.exchange.Exchange`.

    `keep`: the connection may serve another request after this one. `droppable`: also if the answer begins while the
    body is incomplete, since the rest is known and small. `http11`: the client can read a chunked answer.
    """

    __slots__ = (
        "_chunked",
        "_closing",
        "_connection",
        "_finished",
        "_gone",
        "_head_bytes",
        "_http11",
        "_last",
        "_left",
        "_on_gone",
        "_stream",
        "_unsent",
        "_unsent_limit",
        "body",
        "droppable",
        "head",
        "keep",
        "started",
    )

    def __init__(
        self,
        head: RequestHead,
        connection: HTTP1Connection,
        stream: ClientStream,
        limits: Limits,
        *,
        keep: bool,
        http11: bool,
        droppable: bool,
    ) -> None:
        self.head = head
        self.body = Body(limits.body_bytes, limits.unread_bytes)
        self.started = False
        self.keep, self.droppable = keep, droppable
        self._connection, self._stream = connection, stream
        self._unsent_limit = limits.unsent_bytes
        self._http11 = http11
        self._gone = self._finished = self._closing = self._chunked = False
        self._on_gone: Callable[[], object] | None = None
        self._head_bytes = b""
        self._left: int | None = None  # of a Content-Length
        self._last: Future[None] | None = None
        self._unsent = 0

    # --- the gateway's side ---

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._gone

    @property
    def finished(self) -> bool:
        """Whether the answer is complete or was broken off."""
        return self._finished

    def on_gone(self, call: Callable[[], object] | None) -> None:
        """See the protocol."""
        self._on_gone = call
        if self._gone and call is not None:
            self._on_gone = None
            call()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See the protocol. `headers` by lower-case name; those that frame the message, `date` and the ids are the edge's."""
        if self._gone:
            raise ClientGone
        if self.started:
            raise RuntimeError("an answer starts once")
        length = next((value for name, value in headers if name == "content-length"), None)
        bodiless = status in (204, 304) or self.head.method == "HEAD"
        chunked = length is None and not bodiless and self._http11
        closing = not (self.keep and (self.body.complete or self.droppable) and (chunked or bodiless or length is not None))
        extra = id_lines(self.head.request_id)
        if chunked:
            extra += "transfer-encoding: chunked\r\n"
        if closing:
            extra += "connection: close\r\n"
        self._head_bytes = reply_head(status, headers, extra)
        self._left = 0 if bodiless else int(length) if length is not None else None
        self._chunked, self._closing, self.started = chunked, closing, True

    async def write(self, data: bytes) -> None:
        """See the protocol."""
        self.send(data)
        if self._unsent > self._unsent_limit and self._last is not None:
            try:
                await self._last
            except StreamClosedError:
                raise self._left_us() from None
            self._unsent = 0

    def finish(self) -> None:
        """See the protocol. A `ValueError` (and a broken connection) where a Content-Length was not kept."""
        if self._finished or self._gone:
            return
        if self._left:
            self.abort()
            raise ValueError("an answer was shorter than its Content-Length")
        try:
            if self._chunked:
                self._push(b"0\r\n\r\n")
            elif self._head_bytes:
                self._push(b"")
        except ClientGone:
            return
        self._finished = True
        if self.body.complete:
            self._release()
        else:
            self.body.fail(ClientGone())
            self._stream.phase, self._stream.since = Phase.LINGER, self._stream.now()

    def abort(self) -> None:
        """See the protocol."""
        self._finished = True
        self._connection.close()

    # --- the edge's side ---

    def answer(self, reply: ErrorReply) -> None:
        """A whole reply at once, without waiting; nothing happens if the client has left."""
        if self._gone:
            return
        headers = [header for header in reply.headers if header[0] != "content-length"]
        self.start(reply.status, (*headers, ("content-length", str(len(reply.body)))))
        try:
            if self.head.method != "HEAD":
                self.send(reply.body)
        except ClientGone:
            return
        self.finish()

    def send(self, data: bytes) -> None:
        """Hand bytes to the connection, without waiting."""
        if not self.started or self._finished:
            raise RuntimeError("bytes outside an answer")
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise ValueError("an answer was longer than its Content-Length")
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._push(data)

    def lost(self) -> None:
        """The client has left."""
        if self._gone:
            return
        call = self._on_gone
        self._left_us()
        if call is not None and not self._finished:
            call()

    def body_ended(self) -> None:
        """The connection has read the body to its end."""
        self.body.end()
        if self._finished:
            self._release()

    def _push(self, data: bytes) -> None:
        if self._gone:
            raise ClientGone
        if self._head_bytes:
            data, self._head_bytes = self._head_bytes + data, b""
        try:
            self._last = last = self._stream.push(data)
        except StreamClosedError:
            raise self._left_us() from None
        if last is None:
            self._unsent = 0
        else:
            self._unsent += len(data)

    def _left_us(self) -> ClientGone:
        # Without the call: who writes learns it from the error raised, and must not be interrupted as well.
        self._gone, self._on_gone = True, None
        self.body.fail(ClientGone())
        return ClientGone()

    def _release(self) -> None:
        """The exchange is over: the next request may be read once all bytes of this one have left."""
        if self._last is None or self._last.done():
            self._flushed(self._last)
        else:
            self._last.add_done_callback(self._flushed)

    def _flushed(self, _: object) -> None:
        if self._closing:
            self._connection.close()
        else:
            self._connection.finish()
