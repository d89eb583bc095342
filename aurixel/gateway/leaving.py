"""Turns "stop now" from outside (the client left, the gateway shuts down) into one exception inside the waiting task.

It is `asyncio.timeout` without the clock: `with Interruptible() as stop:` and later `stop.now(error)` from any
callback of the same loop. A cancellation from anyone else passes through untouched.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Interruptible:
    """A section of one task that `now(error)` ends by raising `error` from it."""

    __slots__ = ("_error", "_pending", "_task", "_timer")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: BaseException | None = None
        self._pending = 0
        self._timer: asyncio.TimerHandle | None = None

    def now(self, error: BaseException) -> None:
        """End the section with `error`; the first call counts, one after the section does nothing."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def within(self, seconds: float, error: BaseException) -> None:
        """End the section with `error` if it is not over in time; the first call counts."""
        if self._task is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.now, error)

    def __enter__(self) -> Interruptible:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - a coroutine always runs in a task here
            raise RuntimeError("an interruptible section needs a task")
        self._task, self._pending = task, task.cancelling()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._error is None or task is None:
            return
        if task.uncancel() <= self._pending and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._error from None
