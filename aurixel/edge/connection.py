"""A connection's requests, one after another, on Tornado's HTTP/1.1 with a quicker eye for ordinary headers.

What it takes itself is a subset of what Tornado takes, with the same meaning (tests/edge/test_connection.py holds the two
against each other); everything else is left to Tornado's judgement. A third of the edge's time went into headers before
(docs/decisions/0010-edge.md).
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Callable
from typing import Final

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate
from tornado.iostream import StreamClosedError, UnsatisfiableReadError

from aurixel.edge.stream import ClientStream

log = logging.getLogger(__name__)

# Header lines as RFC 9112 has them, CRLF and no folding.
_ORDINARY: Final = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n")
# All that Tornado itself looks at in a relayed request.
_FRAMING: Final = ("connection", "content-length", "expect", "transfer-encoding")


class FramingHeaders(HTTPHeaders):
    """Tornado's headers with nothing in them but what frames the message; `found` has all, by lower-case name."""

    found: dict[str, str]
    block: str

    def all(self) -> HTTPHeaders:
        """Every header, as Tornado's own pages want them."""
        return HTTPHeaders.parse(self.block)


class ClientConnection(HTTP1Connection):
    """One request on a client's connection."""

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        text = data.decode("latin-1")
        end = text.find("\r\n")
        if end <= 0 or not _ORDINARY.fullmatch(text, end + 2):
            return super()._parse_headers(data)
        found: dict[str, str] = {}
        for line in text[end + 2 : -4].split("\r\n"):
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            found[name] = f"{found[name]},{value}" if name in found else value
        headers = FramingHeaders()
        headers.found, headers.block = found, text[end + 2 :]
        for name in _FRAMING:
            if name in found:
                headers[name] = found[name]
        return text[:end], headers


def lowered(headers: HTTPHeaders) -> dict[str, str]:
    """All headers by lower-case name, the values of a repeated one joined with a comma."""
    if isinstance(headers, FramingHeaders):
        return headers.found
    found: dict[str, str] = {}
    for name, value in headers.get_all():
        key = name.lower()
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


async def serve(
    stream: ClientStream,
    parameters: HTTP1ConnectionParameters,
    context: object,
    begin: Callable[[ClientConnection], HTTPMessageDelegate],
) -> None:
    """Read requests into what `begin` gives for each, until the connection ends."""
    while True:
        connection = ClientConnection(stream, False, parameters, context)
        try:
            if not await connection.read_response(begin(connection)):
                return
        except (StreamClosedError, UnsatisfiableReadError):
            return
        except Exception as error:  # noqa: BLE001 - a bug costs one connection; its words may quote content
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("a connection failed: %s at\n%s", type(error).__name__, place)
            connection.close()
            return
        if stream.has_more:
            await asyncio.sleep(0)  # one client's pipeline does not hold up the others
