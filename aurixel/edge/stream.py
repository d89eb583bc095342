"""One client's connection: Tornado's stream, which also remembers what its client owes and since when.

It keeps the times; it judges nothing (`server.py` does) and knows no HTTP but the one line Tornado answers by itself.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import math
import os
import socket
from typing import Any, Protocol

from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from aurixel.edge.wire import bare_reply

# What HTTP1Connection writes, and then closes, for whatever it cannot parse (Tornado 6.6, http1connection.py).
_TORNADO_400 = b"HTTP/1.1 400 Bad Request\r\n\r\n"
# A request is read into a buffer of this size first, into larger ones only if it fills that: each is zeroed before it is used.
_FIRST_READ = 16 * 1024


class Phase(enum.IntEnum):
    """What the connection waits for."""

    IDLE = 0  # the next request's first byte
    HEADERS = 1
    BODY = 2
    ANSWER = 3  # ours
    LINGER = 4  # the rest of a body nobody wants, after the answer


class Occupant(Protocol):
    """The request a connection is busy with."""

    def unframed(self) -> bytes:
        """The reply to a request that cannot be read on; empty if its answer has begun."""

    def late(self) -> None:
        """The body did not come in time."""

    def last(self) -> None:
        """The connection serves no request after this one."""

    def stop(self) -> None:
        """The server ends: a body that is still incomplete is not waited for."""

    def cut(self) -> None:
        """The connection was closed from our side."""


class ClientStream(IOStream):
    """`phase` and `since` say what is waited for; `sent` counts the bytes the client took, and `moved` is when it last
    took some or owed nothing. Times are those of `now`, the running loop's: Tornado's own loop
    tells the wall clock."""

    def __init__(self, sock: socket.socket, peer: str, *, chunk_bytes: int, buffer_bytes: int) -> None:
        super().__init__(sock, max_buffer_size=buffer_bytes, read_chunk_size=chunk_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chunk_bytes = self.read_chunk_size
        self._drained = False  # the socket had no more, and the loop has not yet said that it has
        self.peer = peer
        self.phase = Phase.IDLE
        self.now = asyncio.get_running_loop().time
        self.since = self.now()
        self.sent = self.sent_seen = 0
        self.moved = self.since
        self.occupant: Occupant | None = None

    def await_request(self) -> None:
        """The connection is ready for its next request, part of which may have come already."""
        self.phase, self.since = Phase.HEADERS if self.has_more else Phase.IDLE, self.now()
        self.read_chunk_size = min(_FIRST_READ, self._chunk_bytes)

    def holds(self, until: asyncio.Future[None]) -> None:
        """Nothing more of the body is taken until then, and the time it takes is not the client's."""
        spent, self.since = self.now() - self.since, math.inf

        def goes_on(_: object) -> None:
            if self.phase is Phase.BODY:
                self.since = self.now() - spent

        until.add_done_callback(goes_on)

    @property
    def has_more(self) -> bool:
        """Whether bytes have come that nobody has asked for yet."""
        return self._read_buffer_size > 0

    def set_nodelay(self, value: bool) -> None:
        """It always is: an event must not wait for the acknowledgement of the one before."""

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """As Tornado has it; the first byte of a request starts its clock. What a client sent before it reset the connection is
        not taken: libuv tells of a reset once, perhaps with these bytes, and then looks at that socket no more."""
        count = super().read_from_fd(buf)
        if count and (error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(error))
        self._drained = count is None or count < len(buf)
        if not self._drained:
            self.read_chunk_size = self._chunk_bytes
        if count and self.phase is Phase.IDLE:
            self.phase, self.since = Phase.HEADERS, self.now()
        return count

    def _read_to_buffer(self) -> int | None:
        """As Tornado has it, but an empty socket is not asked again before the loop says that something has come."""
        return 0 if self._drained else super()._read_to_buffer()

    def _handle_read(self) -> None:
        """As Tornado has it: something has come."""
        self._drained = False
        super()._handle_read()

    def _find_read_pos(self) -> int | None:
        """As Tornado has it; the end of a head, the one thing it looks for by a pattern, is found without matching that."""
        if self._read_regex is None:
            return super()._find_read_pos()
        end = head_end(self._read_buffer)
        if self._read_buffer:
            self._check_max_bytes(self._read_regex, end or self._read_buffer_size)
        return end

    def reading(self) -> bool:
        """As Tornado has it, and while there is room for another piece.

        So bytes that came too early do not hide that their sender left, and the loop is not told twice a request to look
        away from the socket and to look again. A client that sends more ahead is back to waiting its turn.
        """
        return super().reading() or self._has_room

    @property
    def _has_room(self) -> bool:
        return self._read_buffer_size + self._chunk_bytes <= self.max_buffer_size

    def _maybe_add_error_listener(self) -> None:
        """As Tornado has it, with the same meaning of reading."""
        if (self._state is None or self._state == IOLoop.ERROR) and self._has_room and not self.closed():
            self._add_io_state(IOLoop.READ)

    def write_to_fd(self, data: memoryview) -> int:
        """As Tornado has it, counted."""
        count = super().write_to_fd(data)
        self.sent += count
        return count

    def push(self, data: bytes) -> Future[None] | None:
        """Send; None once the socket has taken all of it, else a future done when this and all before it have left.

        `StreamClosedError` where nobody is left to take it.
        """
        if self._closed:
            raise StreamClosedError
        if self._total_write_done_index < self._total_write_index:  # `writing`, which asks its buffer how long it is
            return super().write(data)
        try:
            count = self.socket.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.close(error)
            raise StreamClosedError(error) from None
        self.sent += count
        return None if count == len(data) else super().write(memoryview(data)[count:])

    def write(self, data: bytes | memoryview) -> Future[None]:
        """As Tornado has it, but that its bare 400 is put in the caller's shape, and never lands inside an answer."""
        if data == _TORNADO_400 and self.occupant is not None:
            data = self.occupant.unframed()
            if not data:
                self.close()
                raise StreamClosedError
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        """As Tornado has it; a client whose headers have no end is told why."""
        if isinstance(exc_info, UnsatisfiableReadError) and self.phase is Phase.HEADERS:
            say_bare(self.socket, 431)
        super().close(exc_info)


def head_end(data: bytearray) -> int | None:
    """Where a match of `\r?\n\r?\n` ends, the first of them: Tornado's pattern for the end of a head. None if there is none."""
    end = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, None if end < 0 else end + 2)
    if bare >= 0:
        return bare + 2
    return end + 3 if end >= 0 else None


def say_bare(sock: socket.socket, status: int) -> None:
    """Say no where there is no request to go by; a client that cannot take it at once does without."""
    try:
        sock.send(bare_reply(status))
    except OSError:
        pass
