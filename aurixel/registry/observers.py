"""Hands events to the plugins that observe, off the request path; it never makes a request wait and never raises.

Events wait in a bounded queue: when it is full the oldest is dropped and counted. Each implementation is called alone;
its failures are counted and logged once a kind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from aurixel.registry.calls import CallSite, PluginMeter
from aurixel.values import Event

# Events handed out before the loop gets its turn again.
SLICE: Final = 32


class Observers:
    """The observing plugins and their queue. `start` once, `emit` from the loop's thread, `stop` at shutdown."""

    def __init__(
        self,
        observers: Sequence[tuple[str, Callable[[Event], None]]],
        meter: PluginMeter,
        *,
        capacity: int = 4096,
        dropped: Callable[[], object] = lambda: None,
    ) -> None:
        """`observers` as `Registry.observers()` gives them; `dropped` is called for each event lost to a full queue."""
        self._calls = tuple((CallSite(plugin, "observe", meter), function) for plugin, function in observers)
        self._queue: deque[Event] = deque()
        self._capacity = capacity
        self._dropped = dropped
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody observes: who emits need not make an event otherwise."""
        return bool(self._calls)

    def emit(self, event: Event) -> None:
        """Queue an event: sync, a microsecond, never fails. Nothing is kept where nobody observes, or after `stop`."""
        if not self._calls or self._stopping:
            return
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._dropped()
        self._queue.append(event)
        self._wake.set()

    def start(self) -> None:
        """Begin handing out, in a task of its own that `stop` ends."""
        if self._calls:
            self._task = asyncio.create_task(self._run(), name="observers")  # noqa: TID251 - `stop` awaits it

    async def stop(self, seconds: float) -> None:
        """Hand out what is queued, for at most `seconds`; the rest is dropped and counted."""
        self._stopping = True
        self._wake.set()
        task, self._task = self._task, None
        if task is not None:
            _, late = await asyncio.wait([task], timeout=seconds)
            if late:
                task.cancel()
                await asyncio.wait([task])
            elif not task.cancelled():
                task.result()
        while self._queue:
            self._queue.popleft()
            self._dropped()

    async def _run(self) -> None:
        while self._queue or not self._stopping:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            for _ in range(min(SLICE, len(self._queue))):
                event = self._queue.popleft()
                for site, function in self._calls:
                    site.tell(function, event)
            await asyncio.sleep(0)
