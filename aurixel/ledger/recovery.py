"""Restart: what older incarnations of this node left behind is charged once, and their leases go home.

It promises that every request in their journals that completed is posted exactly once, whatever the crash interrupted,
this recovery included: it may begin again at any step. What cannot be right (a cost without a lease entry, a frame that
does not follow the last posted one) stops it with the place named; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Final

from aurixel.clock import Clock
from aurixel.errors import JournalError, StoreUnavailable
from aurixel.ledger.contracts import LedgerMetrics, LedgerSettings, Settlement, patience
from aurixel.ledger.frames import FRAME_MAX, Frame, freeze
from aurixel.ledger.journal import Done, Journal, Settled
from aurixel.ledger.replay import Replay, read_journal
from aurixel.storage import AccountDoc, Lease, Store

log = logging.getLogger("aurixel.ledger")

ABANDONED: Final = ".abandoned"
TRIES: Final = 20


class _Refused(Exception):
    """The store no longer takes our word for this incarnation: someone called it dead. Begin again."""


class Recovery:
    """Replays older incarnations on behalf of `by`, a live one. Raises `StoreUnavailable` and `JournalError`."""

    def __init__(self, by: str, store: Store, settings: LedgerSettings, clock: Clock, metrics: LedgerMetrics) -> None:
        self._by, self._store, self._settings, self._clock, self._metrics = by, store, settings, clock, metrics
        self._beaten = float("-inf")

    async def all(self, incs: list[str]) -> None:
        """Replay each of these, oldest journal first."""
        for inc in incs:
            for _ in range(TRIES):
                try:
                    await self._one(inc)
                    break
                except _Refused:
                    continue
            else:
                raise StoreUnavailable("an older incarnation cannot be claimed")

    async def retire(self, inc: str) -> None:
        """End an incarnation of which everything is posted: leases home, node done, directory gone."""
        for _ in range(TRIES):
            try:
                if await self._claim(inc):
                    await self._finish(inc)
                return
            except _Refused:
                continue
        raise StoreUnavailable("an incarnation cannot be claimed")

    async def _one(self, inc: str) -> None:
        folder = self._settings.journal / inc
        if not await self._claim(inc):
            return
        replay = await asyncio.to_thread(read_journal, folder, inc)
        journal = replay.resume(self._settings, self._metrics)
        try:
            await _Replayer(self, inc, replay, journal).run()
            await journal.sync()
        finally:
            journal.drop()
        await self._finish(inc)

    async def _claim(self, inc: str) -> bool:
        """Whether there is something to replay."""
        folder = self._settings.journal / inc
        async with patience(self._settings.store_patience):
            if await self._store.node_claim(inc, self._by):
                self._beaten = self._clock.boot()
                return True
            node = await self._store.node_read(inc)
        if node is None:
            return False  # its `node_start` may still land: at the next start there may be something to end
        if node.state == "done":
            await _remove(folder)
            return False
        if node.state == "abandoned":
            folder.rename(folder.with_name(inc + ABANDONED))
            log.error("the journal of abandoned node %s is set aside: its unposted usage is lost", inc)
            self._metrics.set_aside()
            return False
        raise _Refused

    async def beat(self, inc: str) -> None:
        """Beat for the incarnation while it is recovered, when it is time."""
        now = self._clock.boot()
        if now - self._beaten < self._settings.beat_every:
            return
        async with patience(self._settings.store_patience):
            if not await self._store.node_beat(inc, self._by):
                raise _Refused
        self._beaten = now

    async def _finish(self, inc: str) -> None:
        async with patience(self._settings.store_patience):
            held = await self._store.accounts_held(inc)
        for account in held:
            await self.beat(inc)
            await self.close(account, inc)
        async with patience(self._settings.store_patience):
            if not await self._store.node_done(inc, self._by):
                node = await self._store.node_read(inc)
                if node is None or node.state != "done":
                    raise _Refused
        await _remove(self._settings.journal / inc)

    async def fence(self, account: str, inc: str) -> AccountDoc | None:
        """The account, with no lease operation of the dead process able to land any more."""
        async with patience(self._settings.store_patience):
            doc = await self._store.lease_fence(account, inc)
            return doc if doc is not None else await self._store.account_read(account)

    async def close(self, account: str, inc: str) -> None:
        """Close a lease of which everything is posted."""
        for _ in range(TRIES):
            doc = await self.fence(account, inc)
            lease = doc.leases.get(inc) if doc else None
            if doc is None or lease is None:
                return
            async with patience(self._settings.store_patience):
                if await self._store.lease_close(account, inc, doc.ver, lease.amount, lease.seq):
                    return
        raise StoreUnavailable("a lease cannot be closed")

    async def post(self, frame: Frame, inc: str, place: str) -> None:
        """Send one frame until it is in the store."""
        stored = False
        for _ in range(TRIES):
            await self.beat(inc)
            async with patience(self._settings.store_patience):
                doc = await self._store.account_read(frame.account)
                lease = doc.leases.get(inc) if doc else None
                posts = []
                if frame.prev is not None and (doc is None or lease is None):
                    if frame.cost:
                        raise JournalError("a cost without a lease entry in the store", place=place)
                elif frame.prev is not None and doc is not None and lease is not None:
                    if lease.seq >= frame.s:
                        return
                    if lease.seq != frame.prev:
                        raise JournalError(_not_next(frame, lease), place=place)
                    posts = [frame.post(inc, lease.amount, doc.available)]
                records, rollups = ([], []) if stored else (list(frame.records(inc)), list(frame.rollups(inc)))
                await self._store.post(records, rollups, posts)
                stored = True
                if not posts:
                    return
        raise StoreUnavailable("a frame cannot be posted")


class _Replayer:
    """One incarnation's journal, posted account by account."""

    def __init__(self, recovery: Recovery, inc: str, replay: Replay, journal: Journal) -> None:
        self._recovery, self._inc, self._replay, self._journal = recovery, inc, replay, journal
        self._s = replay.last_s
        self._charged = 0

    async def run(self) -> None:
        crashed = self._end_crashed()
        async with patience(self._recovery._settings.store_patience):
            held = await self._recovery._store.accounts_held(self._inc)
        for account in dict.fromkeys((*self._replay.open_accounts(), *held)):
            await self._recovery.beat(self._inc)
            await self._account(account)
        self._recovery._metrics.recovered(self._charged, crashed)

    def _end_crashed(self) -> int:
        """Requests that the crash cut get their ending, in the journal first: a second recovery must see the same."""
        cut = [intent for intent in self._replay.intents.values() if intent.request_id not in self._replay.settlements]
        for intent in cut:
            settlement = Settlement(
                cell="crash",
                measured=False,
                upstream="",
                status=0,
                done_ms=self._recovery._clock.wall_ms(),
                counts={},
                cost=0,
            )
            self._journal.append(Settled(intent.request_id, settlement))
            self._replay.settlements[intent.request_id] = settlement
        return len(cut)

    async def _account(self, account: str) -> None:
        doc = await self._recovery.fence(account, self._inc)
        lease = doc.leases.get(self._inc) if doc else None
        self._check_done(account, lease)
        frames, prev = self._open_frames(account, lease)
        items = self._replay.unframed(account)
        self._s = max(self._s, lease.seq if lease else 0)
        for start in range(0, len(items), FRAME_MAX):
            self._s += 1
            frame = freeze(self._s, account, prev, items[start : start + FRAME_MAX])
            if frame.cost and lease is None:
                place = f"{self._replay.path}, account {account}"
                raise JournalError("a cost without a lease entry in the store", place=place)
            self._journal.append(frame.line())
            frames.append((frame, str(self._replay.path)))
            prev = frame.s if lease else None
        if frames:
            await self._journal.sync()
        for frame, place in frames:
            await self._recovery.post(frame, self._inc, place)
            self._journal.append(Done(frame.s))
            self._charged += len(frame.items)

    def _open_frames(self, account: str, lease: Lease | None) -> tuple[list[tuple[Frame, str]], int | None]:
        """Frames that are not in the store, in order, and what the next one follows."""
        frames = []
        seq = lease.seq if lease else None
        for frame, place in self._replay.frames.get(account, ()):
            if frame.s in self._replay.done:
                continue
            if frame.prev is not None and seq is not None and frame.s <= seq:
                # Posted, and the answer was not written down: the close below erases the `seq` that says so.
                self._journal.append(Done(frame.s))
                continue
            if lease is None and frame.cost:
                raise JournalError("a cost without a lease entry in the store", place=place)
            if lease is not None and frame.prev is not None:
                if frame.prev != seq:
                    raise JournalError(_not_next(frame, lease), place=place)
                seq = frame.s
            frames.append((frame, place))
        return frames, seq

    def _check_done(self, account: str, lease: Lease | None) -> None:
        """A frame that was confirmed and that the store has forgotten: it was restored from an older copy."""
        for frame, place in self._replay.frames.get(account, ()):
            if lease is not None and frame.s in self._replay.done and frame.prev is not None and frame.s > lease.seq:
                raise JournalError(f"frame {frame.s} was posted, but the store is at {lease.seq}", place=place)


def _not_next(frame: Frame, lease: Lease) -> str:
    return f"frame {frame.s} follows {frame.prev}, but the store is at {lease.seq}"


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, True)
