"""Holds: credit promised to one running request, as an `async with` that no exit can leak.

A hold that the lease covers costs one journal line and no waiting. It promises that nothing is promised twice (there is
no way around the lease, however rich the account), that a refusal is decided by the store's answer and never by memory
alone, and that leaving without `settle` settles at no cost. It posts nothing (`posting`).
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Literal

from aurixel.errors import ClientError, CreditError, GatewayError, JournalError, StoreUnavailable
from aurixel.ledger.contracts import Intent, Settlement, patience
from aurixel.ledger.leases import Books, Tab
from aurixel.ledger.settlement import MATRIX
from aurixel.values import MAX_NANOS, Nanos

RETRY_AFTER_S: Final = 1.0
_REFUSALS: Final = {
    "stopping": ("shutting_down", "The gateway takes no new requests now. Try again."),
    "store": ("store_unavailable", "The store of credit does not answer. Try again."),
    "journal": ("journal_unavailable", "The gateway cannot keep its books now. Try again."),
}


class Hold:
    """Credit promised to one request: `amount` is what was granted. Settle it exactly once."""

    __slots__ = ("_books", "_intent", "_tab", "amount", "settled")

    def __init__(self, books: Books, tab: Tab, intent: Intent, amount: Nanos) -> None:
        self._books, self._tab, self._intent = books, tab, intent
        self.amount = amount
        self.settled = False

    async def settle(self, settlement: Settlement) -> None:
        """Charge the request and release the hold; with the kernel when this returns (`fsync = "always"`: on disk).

        `RuntimeError` for a second call, `ValueError` for an impossible settlement: bugs of the caller. A cost above
        `amount` is taken from the account where it can cover it. If the journal cannot be written, the settlement
        waits in memory, and no new hold is given until it is written.
        """
        if settlement.cell not in MATRIX or settlement.cell == "crash":
            raise ValueError(f"not an ending of a hold: {settlement.cell}")
        if not 0 <= settlement.cost <= MAX_NANOS:
            raise ValueError("a cost is between 0 and 2**62")
        self._settle(settlement)
        books = self._books
        if books.journal.always and not books.void:
            try:
                await books.journal.sync()
            except JournalError as error:
                books.complain(error)

    def _settle(self, settlement: Settlement) -> None:
        if self.settled:
            raise RuntimeError("a hold is settled once")
        self.settled = True
        books, tab = self._books, self._tab
        tab.held -= self.amount
        tab.open -= 1
        tab.idle_looks = 0
        books.end(self._intent.request_id)
        if not books.void:
            books.settled(tab, self._intent, settlement)

    def release(self) -> None:
        """Settle at no cost, if it is not settled."""
        if not self.settled:
            self._settle(
                Settlement(
                    cell="refused",
                    measured=False,
                    upstream="",
                    status=0,
                    done_ms=self._books.clock.wall_ms(),
                    counts={},
                    cost=0,
                )
            )


class HoldContext:
    """What `Ledger.hold` returns: entering gives the hold or raises, leaving releases what was not settled."""

    __slots__ = ("_books", "_hold", "_intent", "_least", "_want")

    def __init__(self, books: Books, intent: Intent, want: Nanos, least: Nanos) -> None:
        if not 0 <= least <= want <= MAX_NANOS:
            raise ValueError("a hold has 0 <= least <= want < 2**62")
        self._books, self._intent, self._want, self._least = books, intent, want, least
        self._hold: Hold | None = None

    async def __aenter__(self) -> Hold:
        books = self._books
        if (why := books.refusing()) is not None:
            raise self._refused(why)
        tab = books.tabs.get(self._intent.account)
        want = self._want
        if tab is None or not tab.usable or tab.free < want:
            tab = books.tab(self._intent.account)
            tab.entering += 1
            try:
                want = await _Admission(books, tab, want, self._least).run()
            except StoreUnavailable as error:
                raise self._refused("store") from error
            except _NotAdmitting:
                raise self._refused(books.refusing() or "stopping") from None
            finally:
                tab.entering -= 1
        # From here to the end nothing waits: cover was seen and is taken in one step.
        hold = Hold(books, tab, self._intent, want)
        request_id = self._intent.request_id
        if request_id in books.live:
            raise ValueError("a request id is used once")
        try:
            books.journal.append(self._intent)
        except JournalError as error:
            books.complain(error)
            raise self._refused("journal") from error
        books.live[request_id] = self._intent
        tab.held += want
        tab.open += 1
        tab.idle_looks = 0
        self._hold = hold
        if books.journal.always:
            try:
                await books.journal.sync()
            except JournalError as error:
                hold.release()
                books.complain(error)
                raise self._refused("journal") from error
            except BaseException:
                hold.release()
                raise
        return hold

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hold is not None and not self._hold.settled:
            self._hold.release()

    def _refused(self, why: Literal["stopping", "store", "journal"]) -> GatewayError:
        self._books.metrics.refused(why)
        return GatewayError(*_REFUSALS[why], retry_after=RETRY_AFTER_S)


class _NotAdmitting(Exception):
    """While it waited, the node stopped giving holds."""


class _Admission:
    """The way to a hold that the lease does not cover: open or draw, else recall from other nodes, else refuse."""

    def __init__(self, books: Books, tab: Tab, want: Nanos, least: Nanos) -> None:
        self._books, self._tab, self._want, self._least = books, tab, want, least
        # A look that started after we came is the store's word on us, whoever asked for it.
        self._came = tab.looks

    async def run(self) -> Nanos:
        """The amount to promise, covered now. The caller takes it before it waits for anything."""
        books, tab = self._books, self._tab
        loop = asyncio.get_running_loop()
        give_up: float | None = None
        while True:
            async with patience(books.settings.store_patience):
                await tab.lock.acquire()
            try:
                # Patient anew: of a queue that came at once, nobody would have the time left for an answer of the store.
                async with patience(books.settings.store_patience):
                    granted = await self._try()
            finally:
                tab.lock.release()
            if granted is not None:
                return granted
            if give_up is None:
                give_up = loop.time() + books.settings.recall_wait
            if not tab.others or loop.time() >= give_up:
                books.metrics.refused("credit")
                raise CreditError("credit_exhausted", "The account's credit does not cover this request.")
            await self._recall(give_up)
            self._came = tab.looks if loop.time() >= give_up else self._came

    async def _try(self) -> Nanos | None:
        """The amount, or None if a fresh look says that the account cannot cover `least`. The lock is held."""
        books, tab, want, least = self._books, self._tab, self._want, self._least
        await tab.resolve()
        while True:
            if not books.admitting:
                raise _NotAdmitting
            if not tab.known:
                await tab.look()
                continue
            free = tab.free
            if tab.usable and free >= want:
                return want
            fresh = tab.seen > self._came
            if not fresh and free + tab.available < want:
                await tab.look()
                continue
            if tab.state != "open":
                if tab.state is None:
                    return None
                raise ClientError("account_suspended", "The account is being closed.")
            need = want - free
            if tab.available >= need:
                settings = books.settings
                tab.exact = tab.available < want * settings.rich
                amount = need if tab.exact else max(need, min(settings.lease_target, tab.available // settings.rich))
            elif free + tab.available >= least:
                tab.exact = True
                amount = tab.available
                if amount == 0 and tab.usable:
                    return free
            else:
                return None
            await tab.draw(amount)

    async def _recall(self, until: float) -> None:
        """Wait until other nodes have given enough back, or until it is time to give up."""
        books, tab = self._books, self._tab
        loop = asyncio.get_running_loop()
        change: asyncio.Future[None] = loop.create_future()
        waiter = (change, self._least)
        timer = loop.call_at(until, _wake, change)
        tab.waiters.append(waiter)
        books.recalling[tab] = None
        books.recall.set()
        try:
            await change
        finally:
            timer.cancel()
            tab.waiters.remove(waiter)


def _wake(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)


async def recall_round(books: Books) -> None:
    """Ask other nodes for the accounts that requests wait for, and wake the requests that may go on."""
    for tab in list(books.recalling):
        if not tab.waiters:
            del books.recalling[tab]
            continue
        async with patience(books.settings.store_patience):
            await tab.lock.acquire()
            try:
                await tab.look()
                if tab.others and tab.ver != tab.wanted:
                    await books.store.account_want(tab.account, tab.ver)
                    tab.wanted = tab.ver
            finally:
                tab.lock.release()
        cover = tab.free + tab.available
        for change, least in tab.waiters:
            if least <= cover or not tab.others:
                _wake(change)
