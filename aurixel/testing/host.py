"""What a plugin instance is given, for tests: a clock that is set by hand, a logger, tasks that the test owns, a shelf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import msgspec

from aurixel.errors import StoreUnavailable
from aurixel.plugin.billing import Shelf, ShelfItem
from aurixel.storage import checks
from aurixel.storage.shelf import encode


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


class MemoryShelf:
    """A `Shelf` that is gone with the object. `docs` may be looked at: id -> (rev, JSON).

    `lose("put", "swap")` lets the next calls of these names fail as a store does that gives no answer: the change is made
    (`done=True`) or not. The rest of them, and every other call, works.
    """

    def __init__(self) -> None:
        self.docs: dict[str, tuple[int, bytes]] = {}
        self._faults: list[tuple[str, bool]] = []

    def lose(self, *calls: Literal["put", "get", "swap", "page"], done: bool = False) -> None:
        """The answers of the next calls of these names do not come."""
        self._faults += [(call, done) for call in calls]

    async def put(self, id: str, value: Mapping[str, Any]) -> bool:
        """Insert with rev 1; False where the id is taken."""
        body = encode(value)
        checks.shelf("test", id, body)
        return await self._answer("put", id, 0, body)

    async def get(self, id: str) -> ShelfItem | None:
        """The document, or None."""
        checks.shelf("test", id)
        await self._turn("get")
        return self._item(id) if id in self.docs else None

    async def swap(self, id: str, rev: int, value: Mapping[str, Any]) -> bool:
        """Replace the value where `rev` is still that."""
        body = encode(value)
        checks.shelf("test", id, body)
        checks.amounts(rev=rev)
        return rev > 0 and await self._answer("swap", id, rev, body)

    async def page(self, prefix: str, after: str, limit: int) -> Sequence[ShelfItem]:
        """Documents by the beginning of their ids, in order."""
        checks.shelf_range("test", prefix, after, limit)
        await self._turn("page")
        return [self._item(name) for name in sorted(self.docs) if name.startswith(prefix) and name > after][:limit]

    def _item(self, id: str) -> ShelfItem:
        rev, body = self.docs[id]
        return ShelfItem(id, rev, msgspec.json.decode(body))

    async def _answer(self, call: str, id: str, rev: int, body: bytes) -> bool:
        """Set a document where its revision (0: there is none) is still `rev`."""
        lost = await self._turn(call, told=False)
        fits = self.docs.get(id, (0, b""))[0] == rev
        if fits and lost is not False:
            self.docs[id] = (rev + 1, body)
        if lost is not None:
            raise StoreUnavailable(f"{call}: no answer")
        return fits

    async def _turn(self, call: str, *, told: bool = True) -> bool | None:
        """Let others run, as a real store does; then whether the answer is lost, and with the change made or not."""
        await asyncio.sleep(0)
        for fault in self._faults:
            if fault[0] == call:
                self._faults.remove(fault)
                if told:
                    raise StoreUnavailable(f"{call}: no answer")
                return fault[1]
        return None


class PluginHost:
    """A `Host`, with a shelf for a billing backend. As an `async with` it cancels, at its end, what the plugin spawned; a
    failed task is the test's failure."""

    def __init__(self, clock: ManualClock | None = None, shelf: Shelf | None = None) -> None:
        self.clock = clock or ManualClock()
        self.shelf: Shelf = shelf if shelf is not None else MemoryShelf()
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
