"""What the gateway needs of an HTTP server for one request; the edge implements it, and nothing here names Tornado."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from aurixel.errors import RequestError
from aurixel.plugin.contracts import ErrorReply

Ticket = TypeVar("Ticket")


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """A request before its body: `headers` by lower-case name (a repeated one is joined with a comma), `started` on the
    monotonic performance clock in seconds, `at_ms` by the wall clock, `client_ip` after trusted proxies."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client_ip: str
    request_id: str
    started: float
    at_ms: int


class ByteSource(Protocol):
    """The request body, bounded by the edge (`ClientError("body_too_large")`) and by its deadline
    (`ClientError("request_timeout")`); both raise `ClientGone` when the client leaves."""

    async def all(self) -> bytes:
        """The whole body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it comes."""


class Exchange(Protocol):
    """One request and its answer. `start` once, then `write` any number of times, then `finish`; nothing after it."""

    @property
    def head(self) -> RequestHead: ...

    @property
    def body(self) -> ByteSource: ...

    @property
    def started(self) -> bool:
        """Whether the status line has gone: the commit point."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def on_gone(self, call: Callable[[], object] | None) -> None:
        """Call `call()` once as soon as the client has left (at once, if it has); replaces an earlier call; None clears.

        A `write` that finds the client gone raises instead, and the call is not made: nobody is told twice."""

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send the status line and headers (buffered until the first write). Content-Length, if any, is among them;
        without one the body is chunked. `ClientGone` if the client has left."""

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the client is slower than the buffer allows. `ClientGone` if it leaves meanwhile."""

    def finish(self) -> None:
        """The answer is complete; the connection may serve the next request."""

    def abort(self) -> None:
        """Close the connection without a clean end."""


class Service(Protocol[Ticket]):
    """What the edge needs of the gateway. `route` is the name of a dialect: of the path, or of the caller's family."""

    def admit(self, route: str, head: RequestHead) -> Ticket | Awaitable[Ticket]:
        """Who asks, by the headers alone and before a byte of body; `RequestError` now or when awaited."""

    def render_error(self, route: str, error: RequestError, request_id: str) -> ErrorReply:
        """An error as a whole reply, for what is refused before `serve`."""

    async def serve(self, ticket: Ticket, exchange: Exchange) -> None:
        """Answer one request, errors included; raises nothing but a cancellation."""
