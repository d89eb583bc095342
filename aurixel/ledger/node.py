"""The ledger of one node: opens its books, keeps them while requests run, and closes them.

It owns every background task of the room and the order in which an incarnation begins and ends. `Ledger` is what the
gateway is given; it moves no money itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import msgspec

from aurixel.clock import Clock
from aurixel.errors import JournalError, JournalUnwritable, StoreUnavailable
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, Totals, patience
from aurixel.ledger.folder import incarnations, new_inc, own
from aurixel.ledger.holds import Hold, HoldContext, recall_round
from aurixel.ledger.journal import Journal
from aurixel.ledger.leases import Books
from aurixel.ledger.liveness import Watch, beat
from aurixel.ledger.movements import Movements
from aurixel.ledger.posting import post_round
from aurixel.ledger.recovery import Recovery
from aurixel.ledger.returns import return_round, take_over
from aurixel.ledger.rotation import rotate_when_full
from aurixel.storage import Store
from aurixel.values import Nanos

log = logging.getLogger("aurixel.ledger")

RETRY_S: Final = 0.1
DISK_RETRY_S: Final = 1.0


class Ledger:
    """One node's part in the credit of all accounts. `on_dead` is called when another node has called this one dead:
    its running requests must be ended then, and are charged; after that it goes on under a new name."""

    def __init__(
        self,
        store: Store,
        settings: LedgerSettings,
        clock: Clock,
        node_name: str,
        metrics: LedgerMetrics,
        on_dead: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._name, self._metrics, self._on_dead = node_name, metrics, on_dead
        self._movements = Movements(store, clock, recall_wait=settings.recall_wait, recall_look=settings.recall_look)
        self._lock: int | None = None
        self._books: Books | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._supervisor: asyncio.Task[None] | None = None
        self._silent: set[str] = set()  # the steps that the store must answer again before it counts as back
        self._posting = asyncio.Lock()

    @property
    def inc(self) -> str:
        """The incarnation that gives holds now."""
        return self._open_books().inc

    @property
    def admitting(self) -> bool:
        """Whether this node is alive and may give holds."""
        return self._books is not None and self._books.admitting

    @property
    def missing(self) -> str | None:
        """Why a new request would be refused now (`/readyz`), None if it would not be."""
        why = self._books.refusing() if self._books is not None else "stopping"
        if why in ("stopping", "store"):
            return "gives no holds" if why == "stopping" else "the store was silent for too long"
        return "no journal" if why == "journal" or self._open_books().journal.fault() is not None else None

    def hold(self, intent: Intent, want: Nanos, least: Nanos) -> AbstractAsyncContextManager[Hold]:
        """Promise between `least` and `want` nano-dollars to a request, as much as the account covers.

        Entering writes the intent to the journal. It raises `CreditError("credit_exhausted")` if `least` is not
        covered, `GatewayError`: "store_unavailable" if the store must be asked and does not answer,
        "journal_unavailable" if the journal cannot be written, "shutting_down" if this node gives no holds now.
        Leaving without `Hold.settle` settles at no cost by the cell `refused`.
        """
        return HoldContext(self._open_books(), intent, want, least)

    def held(self, account: str) -> Nanos:
        """What running requests of an account hold on this node."""
        tab = self._books.tabs.get(account) if self._books else None
        return tab.held if tab else 0

    def totals(self) -> Totals:
        """This node's money now; walks all accounts with a lease: for a scrape, not for a request."""
        books = self._open_books()
        now = self._clock.wall_ms()
        tabs = books.tabs.values()
        unposted = [tab.frame.items[0] if tab.frame else tab.pending[0] for tab in tabs if tab.frame or tab.pending]
        return Totals(
            held=sum(tab.held for tab in tabs),
            leased=sum(tab.amount for tab in tabs),
            unposted=sum(tab.unposted for tab in tabs),
            open=len(books.live),
            oldest_open_ms=max(0, now - next(iter(books.live.values())).at_ms) if books.live else 0,
            oldest_unposted_ms=max((0, *(now - settlement.done_ms for _, settlement in unposted))),
        )

    async def flush(self) -> None:
        """Post what is settled by now, without waiting for the next round. `StoreUnavailable` if the store is silent."""
        await self._post(self._open_books())

    async def _post(self, books: Books) -> None:
        async with self._posting:  # two rounds would wait for each other's accounts
            await post_round(books)

    # --- begin ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Lock the journal, charge what older incarnations left behind (in `adopted` too), and begin to give holds.

        `JournalError` if another process has the journal or if it is damaged (it names file and offset),
        `StoreUnavailable` if the store does not answer within `start_within`: nothing runs then.
        """
        self._lock = own(self._settings.journal)
        try:
            await self._begin(self._settings.start_within, self._settings.adopted)
        except BaseException:
            self._unlock()
            raise
        self._supervisor = self._spawn(self._supervise(), "supervise")

    async def _begin(self, within: float, adopted: Sequence[Path] = ()) -> None:
        """A new incarnation, from its name to its first hold. `StoreUnavailable` if the store is away for longer."""
        settings = self._settings
        old = incarnations(settings.journal)
        inc = new_inc()
        journal = await Journal.create(inc, settings, self._metrics)
        books = Books(inc, self._store, journal, settings, self._clock, self._metrics)
        books.stopping = True  # it beats from now on, and gives no holds yet
        recovery = Recovery(inc, self._store, settings, self._clock, self._metrics)
        until = asyncio.get_running_loop().time() + within
        try:
            await self._insist(lambda: self._enter(books), until)
            self._keep(settings.beat_every, lambda: beat(books), "beat", books)
            await self._insist(lambda: recovery.all(old), until)
            for folder in adopted:
                await self._adopt(folder, inc, until)
            if books.dead.is_set():
                raise StoreUnavailable("called dead while recovering")
        except BaseException:
            await self._halt()
            journal.drop()
            with contextlib.suppress(StoreUnavailable):
                await recovery.retire(inc)
            raise
        books.stopping = False
        self._books = books
        watch = Watch(books)
        self._keep(settings.post_every, lambda: self._post(books), "post", books)
        self._keep(settings.want_look, lambda: return_round(books), "return", books)
        self._keep(settings.want_look, lambda: _look_at_journal(books), "journal", books)
        self._keep(settings.beat_every, watch.look, "watch", books)
        self._keep(settings.sweep_every, lambda: self._sweep(books, watch), "sweep", books)
        self._tasks.append(self._spawn(self._recall(books), "recall", books))

    async def _adopt(self, folder: Path, inc: str, until: float) -> None:
        """Replay what is left in the journal of a worker that is no longer configured. Its folder stays, empty."""
        settings = msgspec.structs.replace(self._settings, journal=folder)
        lock = own(folder)
        try:
            recovery = Recovery(inc, self._store, settings, self._clock, self._metrics)
            old = incarnations(folder)
            await self._insist(lambda: recovery.all(old), until)
        finally:
            os.close(lock)

    async def _enter(self, books: Books) -> None:
        """In the store and alive. A `node_start` that got no answer may be sent again: the name is only ours."""
        async with patience(self._settings.store_patience):
            await self._store.node_start(books.inc, self._name)
        await beat(books)

    async def _insist(self, step: Callable[[], Awaitable[object]], until: float) -> None:
        """Do it again while the store does not answer, until it is too late."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await step()
                return
            except StoreUnavailable:
                self._unanswered()
                if loop.time() >= until:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _sweep(self, books: Books, watch: Watch) -> None:
        await take_over(books)
        await watch.bury()
        await self._movements.finish_open()

    async def _recall(self, books: Books) -> None:
        while True:
            await books.recall.wait()
            try:
                await recall_round(books)
            except StoreUnavailable:
                self._unanswered()
            if not books.recalling:
                books.recall.clear()
            await asyncio.sleep(self._settings.recall_look)

    # --- end --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Post what is left, give the leases back, and end the incarnation, within `stop_within`.

        Requests must have ended. What cannot be finished in time is left to the journal and the next start.
        """
        books = self._books
        if books is None:
            return
        books.stopping = True
        if self._supervisor is not None:
            await _cancel([self._supervisor])
        await self._halt()
        closed = ended = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_within):
                # A dead incarnation, and one whose journal failed before all of it was posted, is only ended by a replay.
                while not ended and not books.dead.is_set() and (closed or not books.journal.failed):
                    closed = closed or await self._closed(books)
                    ended = closed and await self._retired(books)
                    if not ended:
                        await asyncio.sleep(RETRY_S)
        books.journal.drop()
        if not ended:
            log.warning("incarnation %s could not be ended: the next start replays its journal", books.inc)
        self._unlock()

    async def _closed(self, books: Books) -> bool:
        """One try to post everything, give the leases back and close the journal; False to try again."""
        try:
            await self._post(books)
            for tab in list(books.tabs.values()):
                async with patience(self._settings.store_patience), tab.lock:
                    await tab.go_home()
            if not all(tab.at_rest and tab.seq is None for tab in books.tabs.values()):
                return False
            await books.journal.close()
        except (StoreUnavailable, JournalError):
            return False
        return True

    async def _retired(self, books: Books) -> bool:
        """One try to have the incarnation done and its journal removed; False to try again."""
        try:
            await Recovery(books.inc, self._store, self._settings, self._clock, self._metrics).retire(books.inc)
        except (StoreUnavailable, JournalError):
            return False
        return True

    async def _supervise(self) -> None:
        """Called dead: end the running requests under the old name, replay it, go on under a new one."""
        while True:
            books = self._open_books()
            await books.dead.wait()
            await self._halt()
            self._on_dead()
            await books.ended(self._settings.stop_within)
            books.void = True
            books.journal.drop()
            full = False
            while True:
                try:
                    # However long it takes: each that gives up leaves a journal, as its start may still land.
                    await self._begin(math.inf)
                    break
                except StoreUnavailable:
                    self._unanswered()
                except JournalUnwritable as error:
                    if not full:
                        log.error("this node gives no holds until its journal can be written: %s", error)
                    full = True
                except JournalError as error:
                    log.error("this node gives no holds until it is started again: %s", error)
                    return
                await asyncio.sleep(DISK_RETRY_S if full else RETRY_S)
            if full:
                log.warning("this node gives holds again")

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _keep(self, seconds: float, step: Callable[[], Awaitable[None]], name: str, books: Books) -> None:
        """Do a step every so many seconds; no answer from the store is counted, and the step is done again."""

        async def run() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await step()
                    self._answered(name)
                except StoreUnavailable:
                    self._unanswered(name)
                except JournalError as error:
                    books.complain(error)

        self._tasks.append(self._spawn(run(), name, books))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, books: Books | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"ledger-{name}")  # noqa: TID251 - awaited by `stop`

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the ledger's task %s failed", name, exc_info=error)
                if books is not None:
                    books.die(f"its task {name} failed")

        task.add_done_callback(ended)
        return task

    async def _halt(self) -> None:
        tasks, self._tasks = self._tasks, []
        await _cancel(tasks)

    def _unanswered(self, step: str = "beat") -> None:
        """Said once: it ends when the store has taken a beat and what there was to post."""
        self._metrics.store_silent()
        if not self._silent:
            log.warning("the store does not answer")
        self._silent.add(step if step == "post" else "beat")

    def _answered(self, step: str) -> None:
        if step in self._silent:
            self._silent.discard(step)
            if not self._silent:
                log.warning("the store answers again")

    def _open_books(self) -> Books:
        if self._books is None:
            raise RuntimeError("the ledger is not started")
        return self._books

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _look_at_journal(books: Books) -> None:
    books.look_at_journal()
    rotate_when_full(books)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
