"""What a plugin instance is given, for tests: a clock that is set by hand, a logger, and tasks that the test owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any


class ManualClock:
    """Stands still until it is told: `advance(seconds)` moves both clocks."""

    def __init__(self, wall_ms: int = 1_767_225_600_000, boot: float = 1000.0) -> None:
        self._wall_ms, self._boot = wall_ms, boot

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, UTC; 2026-01-01 unless said."""
        return self._wall_ms

    def boot(self) -> float:
        """Seconds."""
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._boot += seconds
        self._wall_ms += round(seconds * 1000)


class PluginHost:
    """A `Host`. As an `async with` it cancels, at its end, what the plugin spawned; a failed task is the test's failure."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.log = logging.getLogger("aurixel.plugins.test")
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine until the end of the `async with`."""
        self._tasks.append(asyncio.create_task(work, name=name))  # noqa: TID251 - `__aexit__` awaits it

    async def __aenter__(self) -> PluginHost:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
