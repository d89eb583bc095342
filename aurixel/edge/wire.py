"""The bytes of a reply's head, and request ids; pure but for the clock of `Date`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
_LINES: Final = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()}


# The names nobody else may set: they frame the message, or say whose it is.
_OURS: Final = frozenset(
    {"connection", "date", "keep-alive", "request-id", "trailer", "transfer-encoding", "upgrade", "x-request-id"}
)


def new_request_id() -> str:
    """96 random bits, readable in a log: `req_` and 24 hex digits."""
    return "req_" + os.urandom(12).hex()


def reply_head(status: int, headers: Sequence[tuple[str, str]], extra: str) -> bytes:
    """Status line and headers with the blank line; `extra` is header lines as they go out.

    Of `headers` those that are the edge's own are left out. `ValueError` for one that would break the framing: what
    plugins and upstreams say is not trusted to be clean.
    """
    parts = [_LINES.get(status) or f"HTTP/1.1 {status} \r\n", _date.line()]
    for name, value in headers:
        if name not in _OURS:
            parts.append(f"{name}: {value}\r\n")
    lines = len(parts) + extra.count("\n") + 1
    parts += (extra, "\r\n")
    text = "".join(parts)
    if text.count("\n") != lines or text.count("\r") != lines:
        raise ValueError("a reply header contains a line break")
    return text.encode("latin-1")


def bare_reply(status: int) -> bytes:
    """The shortest complete reply, for a client whose request could not be read; the connection closes after it."""
    return reply_head(status, (), id_lines(new_request_id()) + "content-length: 0\r\nconnection: close\r\n")


def id_lines(request_id: str) -> str:
    """The request id as both families' clients look for it."""
    return f"x-request-id: {request_id}\r\nrequest-id: {request_id}\r\n"


class _Date:
    """The `Date` line, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._line = now, f"date: {formatdate(now, usegmt=True)}\r\n"
        return self._line


_date = _Date()
