"""Who is alive: this node's beats, and what becomes of nodes whose beat stands still.

No two clocks are compared: a node measures its own silence and the stillness of others by its own clock, which runs on
during suspend. A dead node never comes back; wrong clocks cost a write-off, never a wrong sum.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from aurixel.ledger.contracts import patience
from aurixel.ledger.leases import Books
from aurixel.storage import AccountDoc, Lease

log = logging.getLogger("aurixel.ledger")

# A node that is done may still get a lease by an open that lands late; after so many empty looks it is believed.
EMPTY_LOOKS: Final = 60


async def beat(books: Books) -> None:
    """Say that this node lives. Holds are given for `admit_within` from *before* the beat was sent."""
    sent = books.clock.boot()
    async with patience(books.settings.store_patience):
        beaten = await books.store.node_beat(books.inc, "")
    if beaten:
        books.admit_until = sent + min(books.settings.admit_within, books.settings.outage_for)
    else:
        books.die("its beat was refused")


class _Seen(msgspec.Struct):
    """The beat of another node: since when it stands still, and when it was last looked at."""

    beat: int
    since: float
    looked: float


class Watch:
    """What this node has seen of the others."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._seen: dict[str, _Seen] = {}
        self._dead_since: dict[str, float] = {}
        self._empty: dict[str, int] = {}

    async def look(self) -> None:
        """Look at the others' beats; call dead whose beat stood still for `dead_after`, seen without a gap."""
        books, settings = self._books, self._books.settings
        asked = books.clock.boot()
        async with patience(settings.store_patience):
            nodes = await books.store.nodes("live", "recovering")
        answered = books.clock.boot()
        before, self._seen = self._seen, {}
        for node in nodes:
            if node.inc == books.inc:
                continue
            seen = before.get(node.inc)
            if seen is None or seen.beat != node.beat or answered - seen.looked > 2 * settings.beat_every:
                self._seen[node.inc] = _Seen(node.beat, answered, asked)
                continue
            self._seen[node.inc] = seen
            seen.looked = asked
            if asked - seen.since >= settings.dead_after:
                async with patience(settings.store_patience):
                    if await books.store.node_dead(node.inc, node.beat):
                        log.warning("node %s is dead: its beat stood still", node.inc)

    async def bury(self) -> None:
        """Take back the leases of the dead and close those of the done; again each time, as an open may land late."""
        books, settings = self._books, self._books.settings
        async with patience(settings.store_patience):
            nodes = await books.store.nodes("dead", "done")
        now = books.clock.boot()
        dead = {node.inc for node in nodes if node.state == "dead"}
        self._dead_since = {inc: self._dead_since.get(inc, now) for inc in dead}
        for inc in dead:
            if now - self._dead_since[inc] >= settings.reclaim_after:
                await self._reclaim(inc)
        for node in nodes:
            if node.state == "done" and self._empty.get(node.inc, 0) < EMPTY_LOOKS:
                held = await self._close(node.inc)
                self._empty[node.inc] = 0 if held else self._empty.get(node.inc, 0) + 1

    async def _reclaim(self, inc: str) -> None:
        async def take(doc: AccountDoc, lease: Lease) -> None:
            if lease.amount and await self._books.store.lease_reclaim(doc.id, inc, doc.ver, lease.amount):
                self._books.metrics.reclaimed(lease.amount)

        await self._each_lease(inc, take)

    async def _close(self, inc: str) -> int:
        async def close(doc: AccountDoc, lease: Lease) -> None:
            await self._books.store.lease_close(doc.id, inc, doc.ver, lease.amount, lease.seq)

        return await self._each_lease(inc, close)

    async def _each_lease(self, inc: str, step: Callable[[AccountDoc, Lease], Awaitable[None]]) -> int:
        """Do `step` for every lease of `inc`, alone with its account here; how many accounts named it as a holder."""
        books = self._books
        async with patience(books.settings.store_patience):
            accounts = await books.store.accounts_held(inc)
        for account in accounts:
            tab = books.tab(account)
            async with patience(books.settings.store_patience), tab.lock:
                doc = await books.store.account_read(account)
                lease = doc.leases.get(inc) if doc else None
                if doc is not None and lease is not None:
                    tab.known = False
                    await step(doc, lease)
        return len(accounts)
