"""How a failed request is answered and a bug is logged; neither shows content, and a bug is a 500 and nothing else."""

from __future__ import annotations

import logging
import traceback

from aurixel.errors import ClientGone, RequestError
from aurixel.gateway.exchange import Exchange
from aurixel.gateway.relay import Refused
from aurixel.plugin.contracts import Dialect, Headers

_log = logging.getLogger("aurixel.gateway")


def log_bug(error: Exception, request_id: str) -> None:
    """Where it happened and of what kind; never the exception's text, which may quote content."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("bug in request %s: %s\n%s", request_id, type(error).__name__, where)


async def answer_error(exchange: Exchange, dialect: Dialect, error: RequestError, headers: Headers, *, streaming: bool) -> None:
    """The error as a whole reply in the caller's dialect with these `headers` beside its own, or as the last event of a
    stream that has begun.

    Where another kind of answer had begun the connection is cut: nothing else tells the client that it failed.
    """
    try:
        if exchange.started and not streaming:
            exchange.abort()
            return
        if exchange.started:
            await exchange.write(dialect.encode_stream_error(error, exchange.head.request_id))
        else:
            await _whole(exchange, dialect, error, headers)
        exchange.finish()
    except ClientGone:
        pass


async def _whole(exchange: Exchange, dialect: Dialect, error: RequestError, headers: Headers) -> None:
    reply = dialect.encode_error(error, exchange.head.request_id)
    status, body = reply.status, reply.body
    if isinstance(error, Refused) and error.text is not None:
        status, body = error.status, error.text
    length = ("content-length", str(len(body)))
    exchange.start(status, (*reply.headers, length, *headers))
    await exchange.write(body)
