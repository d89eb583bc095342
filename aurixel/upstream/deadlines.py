"""The deadlines of all calls, kept by one timer: a call costs no timer of its own, and an arriving chunk a clock reading.

A deadline is never kept early, and late by at most what a turn of the loop takes and `_APART`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import msgspec

_NOT_WAITING: Final = 0.0
_APART: Final = 0.01  # seconds between two rounds over all calls at least, so that many streams do not make many rounds


class Timeouts(msgspec.Struct, frozen=True):
    """Deadlines of one call, in seconds. `connect`: until there is a connection; `first_byte`: from then (of a body that is
    a stream: from its end) to the status and headers; `idle`: waiting for the next piece of the body, or for room to send
    one of a stream; `total`: all of it, the reader's own pauses included."""

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 3600.0


class Ticker:
    """The timer. It knows when each watch wants to look next, and is set anew only for one that comes before all others.

    Made inside the running loop; `close` it with its owner.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._looks: dict[Watch, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def expect(self, watch: Watch, at: float) -> None:
        """`watch` looks next at that time of the loop, instead of when it meant to before."""
        self._looks[watch] = at
        if at < self._at:
            self._set(at)

    def forget(self, watch: Watch) -> None:
        """`watch` does not look any more. The timer stays: the next call is glad of it."""
        self._looks.pop(watch, None)

    def close(self) -> None:
        """No more looks."""
        self._looks.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._round)

    def _round(self) -> None:
        self._timer, self._at = None, math.inf
        now = self.time()
        for watch in [watch for watch, at in self._looks.items() if at <= now]:
            if self._looks.pop(watch, None) is not None:  # else an earlier one's end was its end too
                watch.look(now)
        if self._looks:
            self._set(max(min(self._looks.values()), now + _APART))


class Watch:
    """Ends a call whose deadline has passed: `expired` is true from then on, and `cut` was called to break its connection.

    `cut` returns whether there was anything to break: false once the whole answer is here.
    """

    __slots__ = ("_cut", "_head_by", "_head_here", "_ticker", "_timeouts", "_waiting_since", "began", "expired", "time")

    def __init__(self, ticker: Ticker, timeouts: Timeouts, cut: Callable[[], bool]) -> None:
        self.time = ticker.time
        self.began = ticker.time()
        self.expired = False
        self._ticker, self._timeouts, self._cut = ticker, timeouts, cut
        self._head_by: float | None = None
        self._head_here = False
        self._waiting_since = _NOT_WAITING

    def connected(self, *, stream: bool = False) -> None:
        """There is a connection, and the request goes out on it: from now the head of the answer is awaited, unless the
        body is a `stream`."""
        now = self.time()
        if not stream:
            self._head_by = now + self._timeouts.first_byte
        self.look(now)

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
        self._ticker.forget(self)
        self._cut = _nothing  # else the call and its watch hold each other until a garbage collection

    def look(self, now: float) -> None:
        """Cut, or say when to look again: within `idle`, because a wait may begin at any time."""
        timeouts = self._timeouts
        deadline = self.began + timeouts.total
        if self._head_by is not None:
            deadline = min(deadline, self._head_by)
        elif self._waiting_since:
            deadline = min(deadline, self._waiting_since + timeouts.idle)
        if now >= deadline:
            self.expired = self._cut()
        else:
            self._ticker.expect(self, min(deadline, now + timeouts.idle))


def _nothing() -> bool:
    return False
