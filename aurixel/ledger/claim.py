"""An incarnation of another process, claimed: what may be done to it, for as long as the store takes our word for it.

It promises to beat while it is asked to, and to stop with `Refused` as soon as someone else has called the incarnation dead.
It reads no journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

from aurixel.clock import Clock
from aurixel.errors import StoreUnavailable
from aurixel.ledger.contracts import LedgerSettings, patience
from aurixel.storage import AccountDoc, Store

T = TypeVar("T")

TRIES: Final = 20
# So many accounts are worked on at a time.
TOGETHER: Final = 200


class Refused(Exception):
    """The store no longer takes our word for this incarnation: someone called it dead. Begin again."""


class Claim:
    """The incarnation `inc`, for `by` to recover. All calls raise `StoreUnavailable`."""

    def __init__(self, inc: str, by: str, store: Store, settings: LedgerSettings, clock: Clock) -> None:
        self.inc, self.store, self.settings = inc, store, settings
        self._by, self._clock = by, clock
        self._beaten = float("-inf")

    async def take(self) -> bool:
        """Whether it is ours now."""
        async with patience(self.settings.store_patience):
            taken = await self.store.node_claim(self.inc, self._by)
        if taken:
            self._beaten = self._clock.boot()
        return taken

    async def beat(self) -> None:
        """Beat for it, when it is time."""
        now = self._clock.boot()
        if now - self._beaten < self.settings.beat_every:
            return
        async with patience(self.settings.store_patience):
            if not await self.store.node_beat(self.inc, self._by):
                raise Refused
        self._beaten = now

    async def held(self) -> list[str]:
        """The accounts where it has a lease."""
        async with patience(self.settings.store_patience):
            return await self.store.accounts_held(self.inc)

    async def fence(self, account: str) -> AccountDoc | None:
        """The account, with no lease operation of the dead process able to land any more."""
        async with patience(self.settings.store_patience):
            doc = await self.store.lease_fence(account, self.inc)
            return doc if doc is not None else await self.store.account_read(account)

    async def finish(self) -> None:
        """Close its leases, of which everything is posted, and have it done."""
        held = await self.held()
        for start in range(0, len(held), TOGETHER):
            await self.beat()
            await together(self._close(account) for account in held[start : start + TOGETHER])
        async with patience(self.settings.store_patience):
            if not await self.store.node_done(self.inc, self._by):
                node = await self.store.node_read(self.inc)
                if node is None or node.state != "done":
                    raise Refused

    async def _close(self, account: str) -> None:
        for _ in range(TRIES):
            doc = await self.fence(account)
            lease = doc.leases.get(self.inc) if doc else None
            if doc is None or lease is None:
                return
            async with patience(self.settings.store_patience):
                if await self.store.lease_close(account, self.inc, doc.ver, lease.amount, lease.seq):
                    return
        raise StoreUnavailable("a lease cannot be closed")


async def together(steps: Iterable[Awaitable[T]]) -> list[T]:
    """Do these side by side; when all have ended, their results, or the first of their errors."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
