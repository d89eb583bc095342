"""Movements: everything that changes an account's credit but usage, each exactly once, in the order of their numbers.

It promises that a movement is applied once however often it is reported and wherever a process died on the way, and that
anyone may finish a half-done one. It decides what a movement takes where the credit does not allow all of it; it never
makes anything negative.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aurixel.clock import Clock
from aurixel.errors import AurixelError, StoreUnavailable
from aurixel.storage import AccountDoc, Movement, MovementKind, Store
from aurixel.values import MAX_NANOS, Nanos, format_usd

log = logging.getLogger("aurixel.ledger")

IN: Final = frozenset({"topup", "grant"})
OUT: Final = frozenset({"refund", "dispute", "expiry"})
TAKES_WHAT_IS_THERE: Final = frozenset({"dispute", "expiry"})
OPEN_PAGE: Final = 1000
TRIES: Final = 1000


class MovementError(AurixelError):
    """A movement cannot be made: `code` is stable, the message says why in words for the operator."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Refused(MovementError):
    """A refund or a negative adjustment that the account does not cover: recorded, and nothing was taken."""

    def __init__(self, movement: Movement) -> None:
        what = f"nothing was taken: the account had less than {format_usd(-movement.amount)} USD ({movement.id})"
        super().__init__("movement_refused", f"{what}; under another id it may be tried again")
        self.movement = movement


class Movements:
    """Puts movements and finishes them. `recall_wait`: how long to wait for what other nodes have leased."""

    def __init__(self, store: Store, clock: Clock, *, recall_wait: float = 2.0, recall_look: float = 0.1) -> None:
        self._store, self._clock = store, clock
        self._recall_wait, self._recall_look = recall_wait, recall_look
        self._reported: set[str] = set()

    async def apply(
        self, account: str, id: str, kind: MovementKind, amount: Nanos, reason: str, author: str, ref: str = ""
    ) -> Movement:
        """Make a movement, or finish it, and return it with `took`. `id` is its idempotency key within the account.

        `amount` is positive for a topup or grant, negative for a refund, dispute or expiry, either for an adjustment.
        Raises `Refused`; `MovementError`: "movement_conflict" (the id belongs to another kind or amount),
        "account_unknown", "account_removed", "amount_invalid"; `StoreUnavailable`: call it again.
        """
        _check(kind, amount)
        for _ in range(TRIES):
            found = await self._store.movement_find(account, id)
            if found is not None:
                if (found.kind, found.amount) != (kind, amount):
                    raise MovementError("movement_conflict", f"movement {id} exists with another kind or amount")
                return _checked(await self.finish(found))
            doc = await self._read(account)
            if doc.credited + amount > MAX_NANOS:
                raise MovementError("amount_invalid", "the account would hold more than can be counted")
            last = doc.log.n
            if last > 0:
                # Number m+1 is never put before m is closed: `log` keeps what only the last one took.
                await self._store.movement_close(account, last, doc.log.took)
            movement = Movement(
                account=account,
                n=last + 1,
                id=id,
                kind=kind,
                amount=amount,
                at_ms=self._clock.wall_ms(),
                reason=reason,
                ref=ref,
                author=author,
            )
            if not await self._store.movement_put(movement):
                taken = await self._store.movement_at(account, last + 1)
                if taken is not None and taken.id != id:
                    await self.finish(taken)
        raise StoreUnavailable("the account's movements do not come to rest")

    async def finish_open(self) -> int:
        """Finish what any process left half done; how many were finished. Those of removed accounts stay, and are told."""
        finished = 0
        for movement in await self._store.movements_open(OPEN_PAGE):
            try:
                await self.finish(movement)
                finished += 1
            except MovementError as error:
                key = f"{movement.account}:{movement.n}"
                if key not in self._reported:
                    self._reported.add(key)
                    log.error("movement %s of account %s stays open: %s", movement.id, movement.account, error)
        return finished

    async def finish(self, movement: Movement) -> Movement:
        """Apply it if it is next, write down what it took, and return it. `MovementError`: "account_removed"."""
        account, n = movement.account, movement.n
        recalled = False
        for _ in range(TRIES):
            doc = await self._read(account)
            if doc.log.n >= n:
                if doc.log.n == n:
                    await self._store.movement_close(account, n, doc.log.took)
                closed = await self._store.movement_at(account, n)
                if closed is None or closed.took is None:
                    continue  # an answer from before it was closed
                return closed
            if doc.state == "removed":
                raise MovementError("account_removed", f"account {account} is removed")
            took = movement.amount
            if doc.available + took < 0:
                if not recalled:
                    recalled = True
                    await self._recall(doc, -took)
                    continue
                took = -doc.available if movement.kind in TAKES_WHAT_IS_THERE else 0
            await self._store.movement_apply(account, n, movement.amount, took, doc.available)
        raise StoreUnavailable("the account's movements do not come to rest")

    async def _recall(self, doc: AccountDoc, need: Nanos) -> None:
        """Ask the nodes for what they have leased and do not use, and wait for it a little."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._recall_wait
        asked = -1
        while doc.available < need and any(lease.amount > 0 for lease in doc.leases.values()) and loop.time() < until:
            if doc.ver != asked:
                asked = doc.ver
                await self._store.account_want(doc.id, asked)
            await asyncio.sleep(self._recall_look)
            doc = await self._read(doc.id)

    async def _read(self, account: str) -> AccountDoc:
        doc = await self._store.account_read(account)
        if doc is None:
            raise MovementError("account_unknown", f"there is no account {account}")
        return doc


def _check(kind: MovementKind, amount: Nanos) -> None:
    if amount == 0 or abs(amount) > MAX_NANOS or (kind in IN and amount < 0) or (kind in OUT and amount > 0):
        raise MovementError("amount_invalid", f"not an amount for a movement of kind {kind}")


def _checked(movement: Movement) -> Movement:
    """A movement with `took`, unless it was refused."""
    if movement.took == 0 and movement.amount < 0 and movement.kind not in TAKES_WHAT_IS_THERE:
        raise Refused(movement)
    return movement
