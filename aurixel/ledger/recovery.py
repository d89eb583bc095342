"""Restart: what older incarnations left behind is charged once, and their leases go home.

It promises that every request in their journals that completed is posted exactly once, whatever the crash interrupted,
also a crash of an earlier recovery; that what the crash cut is charged nothing, and that an incarnation is done only when
nothing of it is open. The folder is the caller's own (`folder.own`). It decides about incarnations; `replaying` posts.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import msgspec

from aurixel.clock import Clock
from aurixel.errors import StoreUnavailable
from aurixel.ledger.claim import TRIES, Claim, Refused
from aurixel.ledger.contracts import LedgerMetrics, LedgerSettings, patience
from aurixel.ledger.folder import ABANDONED
from aurixel.ledger.replay import read_journal
from aurixel.ledger.replaying import Replayer
from aurixel.storage import Store

log = logging.getLogger("aurixel.ledger")

T = TypeVar("T")
# What became of an incarnation: `absent` is not known to the store (yet), and kept; `abandoned` is set aside.
Became: TypeAlias = Literal["replayed", "done", "absent", "abandoned"]


class Replayed(msgspec.Struct, frozen=True):
    """What became of one incarnation; how many requests were charged now, and how many of them the crash had cut."""

    inc: str
    became: Became
    requests: int = 0
    crashed: int = 0


def _nobody(done: int, of: int) -> None:
    """Nobody wants to know how far it is."""


class Recovery:
    """Replays older incarnations on behalf of `by`. Raises `StoreUnavailable` and `JournalError`.

    `progress` hears how many requests of a journal are posted, and how many there are.
    """

    def __init__(
        self,
        by: str,
        store: Store,
        settings: LedgerSettings,
        clock: Clock,
        metrics: LedgerMetrics,
        progress: Callable[[int, int], None] = _nobody,
    ) -> None:
        self._by, self._store, self._settings, self._clock, self._metrics = by, store, settings, clock, metrics
        self._progress = progress

    async def all(self, incs: Sequence[str]) -> list[Replayed]:
        """Replay each of these."""
        return [await self._insist(lambda inc=inc: self._one(inc)) for inc in incs]  # type: ignore[misc]

    async def retire(self, inc: str) -> None:
        """End an incarnation of which everything is posted: leases home, node done, directory gone."""
        await self._insist(lambda: self._retire(inc))

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Again, where someone else has called it dead meanwhile."""
        for _ in range(TRIES):
            try:
                return await step()
            except Refused:
                continue
        raise StoreUnavailable("an incarnation cannot be claimed")

    async def _retire(self, inc: str) -> None:
        claim = self._claim(inc)
        if await claim.take():
            await claim.finish()
            await _remove(self._settings.journal / inc)
        else:
            await self._not_ours(inc)

    async def _one(self, inc: str) -> Replayed:
        claim = self._claim(inc)
        if not await claim.take():
            return Replayed(inc, await self._not_ours(inc))
        folder = self._settings.journal / inc
        replay = await asyncio.to_thread(read_journal, folder, inc)
        journal = await replay.resume(self._settings, self._metrics)
        try:
            replayer = Replayer(claim, replay, journal, self._clock, self._progress)
            await replayer.run()
            await journal.sync()
        finally:
            journal.drop()
        await claim.finish()
        await _remove(folder)
        self._metrics.recovered(replayer.charged, replayer.crashed)
        return Replayed(inc, "replayed", replayer.charged, replayer.crashed)

    def _claim(self, inc: str) -> Claim:
        return Claim(inc, self._by, self._store, self._settings, self._clock)

    async def _not_ours(self, inc: str) -> Became:
        """Why it could not be claimed; `Refused` where it can be by now."""
        folder = self._settings.journal / inc
        async with patience(self._settings.store_patience):
            node = await self._store.node_read(inc)
        if node is None:
            return "absent"  # its `node_start` may still land: at the next start there may be something to end
        if node.state == "done":
            await _remove(folder)
            return "done"
        if node.state == "abandoned":
            folder.rename(folder.with_name(inc + ABANDONED))
            log.error("the journal of abandoned node %s is set aside: its unposted usage is lost", inc)
            self._metrics.set_aside()
            return "abandoned"
        raise Refused


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, True)
