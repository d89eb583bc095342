"""One account as one incarnation sees it, and the lease operations on it.

It promises that memory copies a lease from the document as an operation returned it and adds up nothing itself, that
lease operations, posts and reads of an account are one at a time (`Tab.lock`), and that what an unanswered return or
close may still take is not spent. It decides nothing about requests (`holds`) or frames (`posting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Literal

import msgspec

from aurixel.clock import Clock
from aurixel.errors import JournalError, StoreUnavailable
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, Settlement
from aurixel.ledger.frames import FRAME_MAX, Frame, freeze
from aurixel.ledger.journal import Journal
from aurixel.ledger.lines import Done, Settled
from aurixel.storage import AccountDoc, Store
from aurixel.values import Nanos

log = logging.getLogger("aurixel.ledger")

STALE_READS: Final = 5
COMPLAIN_EVERY_S: Final = 60.0


class Stale(StoreUnavailable):
    """The store answered with less than it said before."""


class Books:
    """Everything one incarnation keeps in memory. It ends with the incarnation; nothing is carried over but the journal."""

    def __init__(
        self, inc: str, store: Store, journal: Journal, settings: LedgerSettings, clock: Clock, metrics: LedgerMetrics
    ) -> None:
        self.inc, self.store, self.journal = inc, store, journal
        self.settings, self.clock, self.metrics = settings, clock, metrics
        self.tabs: dict[str, Tab] = {}
        self.live: dict[str, Intent] = {}  # running requests, in the order they came
        self.dirty: dict[Tab, None] = {}  # tabs with something to post
        self.unwritten: list[tuple[Tab, Intent, Settlement]] = []  # settled, and the journal would not have it
        self.undone: list[tuple[Tab, int]] = []  # frames in the store whose `done` line the journal would not have
        self.recalling: dict[Tab, None] = {}
        self.recall = asyncio.Event()
        self.s = 0
        self.unposted: Nanos = 0  # settled and not yet in the store, over all accounts
        self.no_journal = False  # at the last look it was gone from its place, or took no line
        self.admit_until = float("-inf")
        self.stopping = False  # no new holds; what runs may settle
        self.dead = asyncio.Event()  # this incarnation will never be believed again
        self._complained = float("-inf")
        self._ill = False  # a complaint stands
        self.overdue = False  # the journal's segment is full, and the next one could not be begun
        self._idle: asyncio.Event | None = None
        self.void = False  # replayed: what still runs is no longer ours to charge

    @property
    def admitting(self) -> bool:
        """Whether a new hold may be given now."""
        return not self.stopping and self.clock.boot() < self.admit_until

    def refusing(self) -> Literal["stopping", "store", "journal"] | None:
        """Why no new hold may be given now, whatever the account has; None if one may.

        A journal that is gone from its place would not be found by the next start: what it holds ends, nothing begins.
        """
        if self.stopping:
            return "stopping"
        if self.clock.boot() >= self.admit_until or self.unposted >= self.settings.unposted_limit:
            return "store"
        return "journal" if self.unwritten or self.no_journal else None

    def tab(self, account: str) -> Tab:
        """The account's tab, a new one if there is none."""
        tab = self.tabs.get(account)
        if tab is None:
            tab = self.tabs[account] = Tab(account, self)
        return tab

    def die(self, why: str) -> None:
        """Admit nothing more, for ever."""
        if not self.dead.is_set():
            log.error("incarnation %s is dead: %s", self.inc, why)
        self.stopping = True
        self.dead.set()

    def complain(self, error: JournalError) -> None:
        """The journal does not do what it must: said once a minute. What the disk has forgotten ends the incarnation."""
        now = self.clock.boot()
        self._ill = True
        if now - self._complained >= COMPLAIN_EVERY_S:
            self._complained = now
            log.error("the journal: %s", error)
        if self.journal.failed and not self.stopping:
            self.die("its journal failed")

    def look_at_journal(self) -> None:
        """Complain of a journal that is gone from its place, and begin nothing until it is back; say when that is over."""
        fault = self.journal.fault()
        self.no_journal = fault is not None
        if fault is not None:
            self.complain(fault)
        elif self._ill and not self.unwritten and not self.undone and not self.overdue:
            self._ill, self._complained = False, float("-inf")
            log.warning("the journal is written again")

    async def ended(self, within: float) -> None:
        """Wait until no request runs, but not for longer than this."""
        if self.live:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._idle.wait()

    def end(self, request_id: str) -> None:
        """A request runs no longer."""
        del self.live[request_id]
        if self._idle is not None and not self.live:
            self._idle.set()

    def settled(self, tab: Tab, intent: Intent, settlement: Settlement) -> None:
        """A request has ended: journal it, and leave it for the next frame."""
        tab.unposted += settlement.cost
        self.unposted += settlement.cost
        self.dirty[tab] = None
        try:
            self.journal.append(Settled(intent.request_id, settlement))
        except JournalError as error:
            self.complain(error)
            self.unwritten.append((tab, intent, settlement))
        else:
            tab.pending.append((intent, settlement))

    def write_again(self) -> None:
        """Journal what it would not have before; `JournalError` if it still will not."""
        while self.undone:
            tab, s = self.undone[0]
            self.journal.append(Done(s))
            tab.done_upto = self.journal.size
            del self.undone[0]
        while self.unwritten:
            tab, intent, settlement = self.unwritten[0]
            self.journal.append(Settled(intent.request_id, settlement))
            tab.pending.append((intent, settlement))
            del self.unwritten[0]


class _Unsure(msgspec.Struct, frozen=True):
    """A return or close that may still land while `ver` is what it was."""

    operation: Literal["return", "close"]
    ver: int
    amount: Nanos
    seq: int


class Tab:
    """One account here: the lease as the store last said, and what runs on it.

    `free` may be promised to a new hold if `usable`. All coroutines are called with `lock` held, and leave `known`
    False when the store's answer did not come: then the next caller reads first.
    """

    __slots__ = (
        "_books",
        "_unsure",
        "account",
        "amount",
        "answered",
        "available",
        "away",
        "done_upto",
        "entering",
        "exact",
        "frame",
        "held",
        "idle_looks",
        "known",
        "lock",
        "looks",
        "open",
        "others",
        "pending",
        "seen",
        "sent_written_off",
        "seq",
        "state",
        "stored",
        "unposted",
        "usable",
        "ver",
        "waiters",
        "wanted",
        "wanted_looks",
    )

    def __init__(self, account: str, books: Books) -> None:
        self.account = account
        self._books = books
        self.lock = asyncio.Lock()
        # The document, as last returned.
        self.state: str | None = None
        self.ver = -1
        self.available: Nanos = 0
        self.amount: Nanos = 0
        self.seq: int | None = None
        self.others = False  # other incarnations hold some of it
        self.known = False
        self.looks = self.seen = 0  # store calls that return the document: started, last one taken in
        self.usable = False
        self.away: Nanos = 0
        self._unsure: _Unsure | None = None
        # What runs on it.
        self.held: Nanos = 0
        self.open = 0
        self.entering = 0  # requests on their way to a hold
        self.unposted: Nanos = 0
        self.pending: list[tuple[Intent, Settlement]] = []
        self.frame: Frame | None = None
        self.stored = False  # the frame's records and rollups are in the store
        self.sent_written_off: Nanos = 0
        self.done_upto = 0  # where in the journal the `done` of its last frame ends
        # When it goes home.
        self.idle_looks = 0
        self.exact = False  # the account is poor: its lease goes home as soon as nothing runs on it
        self.answered = 0
        self.wanted = -1  # the `ver` of the last recall we sent
        self.wanted_looks = 0  # for so many looks, others want it
        self.waiters: list[tuple[asyncio.Future[None], Nanos]] = []

    @property
    def free(self) -> Nanos:
        """What of the lease is promised to nobody; negative where settlements went above their holds."""
        return self.amount - self.held - self.unposted - self.away

    @property
    def busy(self) -> bool:
        """Whether who wants to be alone with it has to wait, or requests are about to queue for that."""
        return self.lock.locked() or self.entering > 0

    @property
    def at_rest(self) -> bool:
        """No hold, settlement or frame is open."""
        return not (self.open or self.pending or self.frame or self.unposted)

    @property
    def forgettable(self) -> bool:
        """Whether nothing would be lost with this tab."""
        quiet = self.seq is None and self._unsure is None and self.at_rest
        return quiet and not (self.entering or self.waiters or self.lock.locked())

    def take(self, doc: AccountDoc | None, look: int) -> None:
        """Believe a document, unless it is older than what was believed before."""
        if doc is None:
            self.state, self.seq, self.amount, self.available, self.others = None, None, 0, 0, False
            self.known, self.seen, self.usable = True, look, False
            if not self.at_rest:
                self._books.die(f"account {self.account} is gone")
            return
        lease = doc.leases.get(self._books.inc)
        seq = lease.seq if lease else None
        if doc.ver < self.ver or (seq is not None and self.seq is not None and seq < self.seq):
            raise Stale("an older document than before")
        if self.frame is not None and self.frame.prev is not None and seq is not None and seq >= self.frame.s:
            self.close_frame()
        self.state, self.ver, self.available, self.seq = doc.state, doc.ver, doc.available, seq
        self.amount = lease.amount if lease else 0
        self.others = any(inc != self._books.inc and other.amount > 0 for inc, other in doc.leases.items())
        if self._unsure is not None and doc.ver > self._unsure.ver:
            self._unsure, self.away = None, 0
        self.known, self.seen = True, look
        self.usable = seq is not None and (self._unsure is None or self._unsure.operation == "return")
        if seq is None and not self.at_rest:
            self._books.die(f"its lease on account {self.account} is gone")

    async def look(self) -> None:
        """Read the account."""
        for _ in range(STALE_READS):
            self.looks = look = self.looks + 1
            doc = await self._books.store.account_read(self.account)
            try:
                return self.take(doc, look)
            except Stale:
                continue
        raise Stale("only older documents than before")

    async def draw(self, amount: Nanos) -> bool:
        """Open the lease or draw on it. False for no match: read and decide again."""
        books = self._books
        self.known = False
        self.looks = look = self.looks + 1
        if self.seq is None:
            operation: Literal["open", "draw"] = "open"
            doc = await books.store.lease_open(self.account, books.inc, self.ver, amount, books.s)
        else:
            operation = "draw"
            doc = await books.store.lease_draw(self.account, books.inc, self.ver, amount)
        if doc is None:
            return False
        if operation == "open":
            self.answered = doc.want  # whoever still wants it asks again with the new `ver`
        self.take(doc, look)
        books.metrics.lease(operation)
        return True

    async def go_home(self) -> None:
        """Return what is free; close the lease if nothing is open on it."""
        await self.resolve()
        if not self.known:
            await self.look()
        if self.seq is None:
            return
        if self.at_rest:
            # A close erases `seq`, by which a replay knows what was posted: the `done` lines must outlive it.
            self._books.write_again()
            await self._books.journal.sync(self.done_upto)
        if self.at_rest:
            self._unsure = _Unsure("close", self.ver, self.amount, self.seq)
            self.away, self.usable = self.amount, False
        elif (free := self.free) > 0:
            self._unsure = _Unsure("return", self.ver, free, self.seq)
            self.away = free
        await self.resolve()

    async def resolve(self) -> None:
        """Send an unanswered return or close again until it is known what became of it."""
        books = self._books
        while (unsure := self._unsure) is not None:
            self.known = False
            self.looks = look = self.looks + 1
            if unsure.operation == "close":
                doc = await books.store.lease_close(self.account, books.inc, unsure.ver, unsure.amount, unsure.seq)
            else:
                doc = await books.store.lease_return(self.account, books.inc, unsure.ver, unsure.amount)
            if doc is not None:
                self.take(doc, look)
                books.metrics.lease(unsure.operation)
            else:
                await self.look()
                if self._unsure is not None:
                    raise StoreUnavailable("a lease operation neither matches nor is past")

    def freeze(self) -> Frame:
        """Make the next frame of what is pending and journal it; it must be synced before it is sent."""
        books = self._books
        assert self.frame is None
        books.s += 1
        frame = freeze(books.s, self.account, self.seq, tuple(self.pending[:FRAME_MAX]))
        books.journal.append(frame.line())
        del self.pending[:FRAME_MAX]
        self.frame, self.stored, self.sent_written_off = frame, False, 0
        return frame

    def close_frame(self) -> None:
        """The frame is in the store, whole."""
        frame = self.frame
        assert frame is not None
        self.frame = None
        self.unposted -= frame.cost
        self._books.unposted -= frame.cost
        self._books.metrics.posted(len(frame.items), self.sent_written_off)
        try:
            self._books.journal.append(Done(frame.s))
        except JournalError as error:
            self._books.complain(error)
            self._books.undone.append((self, frame.s))
        self.done_upto = self._books.journal.size
