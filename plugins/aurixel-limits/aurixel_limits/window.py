"""A sliding minute, counted by the second: what it lets through never exceeds the limit in any sixty seconds.

It keeps one number for each second in use, at most 61, and reads no clock: `now` is given, in seconds, and must not
go back.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

MINUTE: Final = 60


class Slot:
    """What was counted in one second."""

    __slots__ = ("amount", "second")

    def __init__(self, second: int) -> None:
        self.second, self.amount = second, 0


class Window:
    """The sum of the last minute. A second leaves it once all of it is sixty seconds old."""

    __slots__ = ("_slots", "total")

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        self.total = 0

    def advance(self, now: float) -> None:
        """Forget what is a minute old."""
        oldest = math.floor(now) - MINUTE
        while self._slots and self._slots[0].second < oldest:
            self.total -= self._slots.popleft().amount

    def add(self, amount: int, now: float) -> Slot:
        """Count `amount` now; the slot is for `correct`."""
        second = math.floor(now)
        if not self._slots or self._slots[-1].second < second:
            self._slots.append(Slot(second))
        slot = self._slots[-1]
        slot.amount += amount
        self.total += amount
        return slot

    def correct(self, slot: Slot, by: int) -> None:
        """Change what was counted in a slot, if it is still in the window."""
        if self._slots and slot.second >= self._slots[0].second:
            slot.amount += by
            self.total += by

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Seconds until `amount` fits under `limit`; 0 if it does. `amount` must not exceed `limit`."""
        excess = self.total + amount - limit
        if excess > 0:
            for slot in self._slots:
                excess -= slot.amount
                if excess <= 0:
                    return slot.second + MINUTE + 1 - now
        return 0.0

    def reset(self, now: float) -> float:
        """Seconds until the window is empty."""
        return self._slots[-1].second + MINUTE + 1 - now if self._slots else 0.0
