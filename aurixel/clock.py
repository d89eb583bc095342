"""The clocks, as one object that can be injected; it tells the time and waits for nothing."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time. Tests give their own."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, UTC. May jump."""

    def boot(self) -> float:
        """Seconds on a clock that never jumps back and runs on while the machine is suspended (ledger liveness)."""


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    def boot(self) -> float:
        """`CLOCK_BOOTTIME` where the system has it (Linux), else the monotonic clock."""
        return time.clock_gettime(_BOOT)


_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
