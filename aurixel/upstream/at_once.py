"""Sends a request that is small and here as a whole: head and body in one write, on a connection of aiohttp's pool.

aiohttp opens, pools and closes the connection and parses the answer. Left out is what its session does for redirects, cookies,
proxies and bodies that come slowly, of which there are none here (docs/decisions/0006-upstream-client.md). What goes out says
the same as what the session would have sent (tests/upstream/test_at_once.py). It decides nothing about an answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import aiohttp
from aiohttp.connector import Connection

from aurixel.plugin.contracts import Body
from aurixel.upstream.connections import DEFAULTS, READING, Caller, Connector, read_url

MOST: Final = 64 * 1024  # bytes of a body that is sent so
_METHOD: Final = "POST"
_TARGETS: Final = 256  # a URL may name a model
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DEFAULTS: Final = {**DEFAULTS, "Accept": "*/*", "Content-Type": "application/octet-stream"}


class Answer:
    """The head of an answer, and its body as it comes: what is wanted of an `aiohttp.ClientResponse`."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader, connection: Connection) -> None:
        self.status, self.headers, self.content = status, headers, content
        self._connection = connection

    def close(self) -> None:
        """Break the connection; whoever still reads is told."""
        self._connection.close()
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("closed"))


# What either way of asking comes back with.
Response: TypeAlias = aiohttp.ClientResponse | Answer


class _Target(NamedTuple):
    """Where a URL leads. `request` is never sent: the pool goes by it. `lines` are for what a request does not say itself, by
    lower-case name."""

    request: aiohttp.ClientRequest
    start: str
    lines: tuple[tuple[str, str], ...]


def fits(method: str, body: Body) -> bool:
    """Whether a request may be sent at once."""
    return method == _METHOD and 0 < sum(map(len, body)) <= MOST


class AtOnce:
    """The requests that fit, on the connections of one pool. Made inside the running loop."""

    def __init__(self, pool: Connector) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._target = lru_cache(_TARGETS)(self._look_up)

    async def ask(
        self, url: str, body: Body, headers: Sequence[tuple[str, str]], timeout: aiohttp.ClientTimeout, caller: Caller
    ) -> Answer:
        """The head of the answer. `headers`: lower-case names, none that frames the message.

        It raises what a session would, but `HttpProcessingError` for an answer that is no HTTP.
        """
        target = self._target(url)
        data = b"".join(body)
        head = _head(target, headers, len(data))
        try:
            connection = await self._pool.lend(target.request, timeout, caller)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError from None
        link = connection.protocol
        assert link is not None
        assert link.transport is not None
        try:
            link.set_response_params(read_until_eof=True, **READING)
            link.transport.write(head + data)
            message, content = await link.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await link.read()
        except BaseException:
            connection.close()
            raise
        content.on_eof(connection.release)
        return Answer(message.code, message.headers, content, connection)

    def _look_up(self, url: str) -> _Target:
        where = read_url(url)
        request = aiohttp.ClientRequest(_METHOD, where, headers=_DEFAULTS, loop=self._loop)
        del request.headers["Content-Length"]
        lines = tuple((name.lower(), f"{name}: {value}") for name, value in request.headers.items())
        return _Target(request, f"{_METHOD} {where.raw_path_qs} HTTP/1.1", lines)


def _head(target: _Target, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    """`ValueError` for a header that would break the framing."""
    given = {name for name, _ in headers}
    lines = [line for name, line in target.lines if name not in given]
    lines += [f"{name}: {value}" for name, value in headers]
    if _CONTROL.search("".join(lines)):
        raise ValueError("a header holds a control character")
    return "\r\n".join((target.start, *lines, f"Content-Length: {length}\r\n\r\n")).encode()
