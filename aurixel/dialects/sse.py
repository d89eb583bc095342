"""Splits an event stream into whole events, byte for byte, and takes one event apart; it decodes no text.

Lines may end in LF, CRLF or CR, mixed as they like. There is no limit for a line, only one for what is pending. A byte
order mark at the start is dropped, since the SDKs lose the first event over it.
"""

from __future__ import annotations

import re
from typing import Final

from aurixel.errors import ProviderError

PENDING_LIMIT: Final = 64 << 20
# Keeps a connection alive and says nothing: what is left of an event that a client must not see.
COMMENT: Final = b":\n\n"
_BOM: Final = b"\xef\xbb\xbf"
# Two line ends. Atomic, so that the CR LF of one line is never taken for two.
_END: Final = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LINE: Final = re.compile(rb"\r\n|\r|\n")


class EventSplitter:
    """Bytes in, whole events out, each with the blank line that ends it; put together they are what came in.

    `limit`: the most bytes that may be pending; above it `ProviderError("upstream_invalid")`.
    """

    __slots__ = ("_carriage", "_limit", "_pending", "_scanned", "_virgin")

    def __init__(self, limit: int = PENDING_LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._scanned = 0  # up to here there is no end of an event in what is pending
        self._carriage = False  # a CR has been seen: line ends must be looked at closely from now on
        self._virgin = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes."""
        if self._virgin:
            chunk = self._begin(chunk)
        if not self._carriage and b"\r" in chunk:
            self._carriage = True
        if not self._carriage and not self._pending and chunk.find(b"\n\n") == len(chunk) - 2 >= 0:
            return [chunk]
        return self._split(chunk)

    def rest(self) -> bytes:
        """What is pending when the stream ends; nothing is after that."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _begin(self, chunk: bytes) -> bytes:
        """Withholds the first bytes until it is known whether they are a byte order mark."""
        chunk = bytes(self._pending) + chunk
        self._pending.clear()
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            self._pending += chunk
            return b""
        self._virgin = False
        return chunk.removeprefix(_BOM)

    def _split(self, chunk: bytes) -> list[bytes]:
        if self._virgin:
            return []
        pending = self._pending
        pending += chunk
        events: list[bytes] = []
        start, at = 0, self._scanned
        while (end := self._end(pending, at)) >= 0:
            events.append(bytes(pending[start:end]))
            start = at = end
        if start:
            del pending[:start]
        self._scanned = max(0, len(pending) - 3)  # the longest end that can still become one
        if len(pending) > self._limit:
            raise ProviderError("upstream_invalid", "The upstream sent an event that is too large.")
        return events

    def _end(self, pending: bytearray, at: int) -> int:
        """Where the first event that ends at or after `at` ends; -1 for none. A CR at the very end may yet get its LF."""
        if not self._carriage:
            found = pending.find(b"\n\n", at)
            return found + 2 if found >= 0 else -1
        match = _END.search(pending, at)
        if match is None or (match.end() == len(pending) and pending.endswith(b"\r")):
            return -1
        return match.end()


class Event:
    """One event taken apart: its name, its data (None where it has no data line), and whether it may pass as it is.

    `plain` is false where it has fields other than `event` and `data` (`id`, `retry`, unknown ones): `rebuilt` leaves
    those out. `only_comments`: it has no field at all.
    """

    __slots__ = ("data", "lines", "name", "only_comments", "plain")

    def __init__(self, raw: bytes) -> None:
        self.name = b""
        self.plain = self.only_comments = True
        self.lines: list[bytes] = []
        data: list[bytes] = []
        for line in _LINE.split(raw):
            field, _, value = line.partition(b":")
            if not field:  # a comment, or the blank line
                if line:
                    self.lines.append(line)
                continue
            self.only_comments = False
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                self.name = value
            else:
                self.plain = False
                continue
            self.lines.append(line)
        self.data = b"\n".join(data) if data else None

    def rebuilt(self) -> bytes:
        """The event without the fields that some SDK stumbles over."""
        return b"\n".join(self.lines) + b"\n\n"


def named(event: bytes) -> tuple[bytes, bytes] | None:
    """Name and data of an event of two lines, its name and its data, as most are; None: look at it closely."""
    if event.startswith(b"event: "):
        line = event.find(b"\n")
        if event.startswith(b"data: ", line + 1) and event.find(b"\n", line + 1) == len(event) - 2 and event.endswith(b"\n\n"):
            return event[7:line], event[line + 7 : -2]
    return None


def completed(rest: bytes) -> bytes:
    """What was left at the end of a stream, with the blank line that ends an event where it has none."""
    return rest if _END.search(rest) else rest.rstrip(b"\r\n") + b"\n\n"


def make_event(data: bytes, name: bytes = b"") -> bytes:
    """An event of one data line, with a name where one is given."""
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + data + b"\n\n"
