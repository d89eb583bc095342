"""The deadlines of one call, all kept by one timer: an arriving chunk costs a clock reading, not a timer set anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

_NOT_WAITING: Final = 0.0


class Timeouts(msgspec.Struct, frozen=True):
    """Deadlines of one call, in seconds. `connect`: until there is a connection; `first_byte`: from then (of a body that is
    a stream: from its end) to the status and headers; `idle`: waiting for the next piece of the body, or for room to send
    one of a stream; `total`: all of it, the reader's own pauses included."""

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 3600.0


class Watch:
    """Ends a call whose deadline has passed: `expired` is true from then on, and `cut` was called to break its connection.

    `cut` returns whether there was anything to break: false once the whole answer is here.
    """

    def __init__(self, timeouts: Timeouts, cut: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.began = loop.time()
        self.expired = False
        self._timeouts, self._cut, self._call_at = timeouts, cut, loop.call_at
        self._timer: asyncio.TimerHandle | None = None
        self._head_by: float | None = None
        self._head_here = False
        self._waiting_since = _NOT_WAITING

    def connected(self, *, stream: bool = False) -> None:
        """There is a connection, and the request goes out on it: from now the head of the answer is awaited, unless the
        body is a `stream`."""
        if not stream:
            self._head_by = self.time() + self._timeouts.first_byte
        self._cancel()
        self._look()

    def sends(self) -> None:
        """A piece of the stream is on its way out."""
        if not self._head_here:
            self._waiting_since = self.time()

    def sends_no_more(self) -> None:
        """It has left, or there was room for it."""
        if not self._head_here:
            self._waiting_since = _NOT_WAITING

    def sent(self) -> None:
        """The stream has been sent: now the head of the answer is awaited, if it is not here already."""
        if not self._head_here:
            self.connected()

    def head_came(self) -> float:
        """The head of the answer is here; how long it took since the call began."""
        self._head_by, self._head_here, self._waiting_since = None, True, _NOT_WAITING
        return self.time() - self.began

    def waits(self) -> None:
        """The reader waits for the next piece."""
        self._waiting_since = self.time()

    def busy(self) -> None:
        """The reader has its piece, and is busy with it: that is not the upstream's time."""
        self._waiting_since = _NOT_WAITING

    def stop(self) -> None:
        """No more deadlines."""
        self._cancel()
        self._cut = _nothing  # else the call and its watch hold each other until a garbage collection

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now, idle = self.time(), self._timeouts.idle
        deadline = self.began + self._timeouts.total
        if self._head_by is not None:
            deadline = min(deadline, self._head_by)
        elif self._waiting_since:
            deadline = min(deadline, self._waiting_since + idle)
        if now >= deadline:
            self.expired = self._cut()
        else:  # within `idle`, because a wait may begin at any time
            self._timer = self._call_at(min(deadline, now + idle), self._look)


def _nothing() -> bool:
    return False
