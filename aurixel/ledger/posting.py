"""Posting: settled usage goes from the journal to the store in frames, each exactly once however often it is sent.

It promises the order of docs/ledger.md section 4 (frame on disk, records, rollups, post, `done`), one frame at a time per
account, and that a frame which is journaled never changes; only the split of its cost is chosen anew at each sending.
Each call may take as long as the store's patience: a slow store is posted to slowly, never in vain. An account that
requests queue for waits for its turn alone. What was posted is drawn anew for a rich account, so that its next requests
need not wait for that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aurixel.ledger.claim import together
from aurixel.ledger.contracts import patience
from aurixel.ledger.frames import FRAME_MAX, Frame
from aurixel.ledger.leases import STALE_READS, Books, Stale, Tab
from aurixel.storage import Post, RollupAdd, UsageRecord

# How much goes to the store in one call.
BATCH_ACCOUNTS: Final = 500
BATCH_RECORDS: Final = 1000
# How often a frame is split anew within a round, before it waits for the next.
RESENDS: Final = 4
# `Store.post` asks the store this often: for records, rollups and posts.
POST_CALLS: Final = 3
LOCK_PATIENCES: Final = 3
# How many frames of an account that requests queue for are posted once its turn has come.
TURN_FRAMES: Final = 10


async def post_round(books: Books) -> None:
    """Post what is pending now. Raises `StoreUnavailable` or `JournalError`; call it again."""
    books.write_again()
    for tab in [tab for tab in books.dirty if not (tab.unposted or tab.pending or tab.frame)]:
        del books.dirty[tab]
    waiting = list(books.dirty)
    while waiting and not books.dead.is_set():
        busy: dict[Tab, None] = {}
        for batch in _batches(waiting):
            busy |= {tab: None for tab in batch if tab.busy}
            if ready := [tab for tab in batch if tab not in busy]:
                await _post_batch(books, ready)
        # Each by itself: one whose turn does not come must not keep others from being posted, or from being asked for.
        await together(_post_batch(books, (tab,), TURN_FRAMES) for tab in busy)
        # More than a frame has gathered: go on, or a busy account would be posted ever later.
        waiting = [tab for tab in waiting if tab not in busy and _has_more(tab)]


async def _post_batch(books: Books, tabs: Sequence[Tab], frames: int = 1) -> None:
    """A frame of each of these, or up to `frames` while they are full, and the leases home that have no more to do."""
    async with _locked(books, tabs):
        await _post(books, tabs)
        for _ in range(frames - 1):
            if not any(map(_has_more, tabs)):
                break
            await _post(books, tabs)
        for tab in tabs:
            await _refill(books, tab)
    for tab in tabs:
        if tab.exact and tab.at_rest and tab.usable:
            async with _locked(books, (tab,)), patience(books.settings.store_patience):
                await tab.go_home()


def _has_more(tab: Tab) -> bool:
    """Whether another whole frame waits, and none is on its way."""
    return len(tab.pending) >= FRAME_MAX and tab.frame is None


def _batches(tabs: Iterable[Tab]) -> list[list[Tab]]:
    batches: list[list[Tab]] = []
    room = 0
    for tab in tabs:
        records = len(tab.frame.items) if tab.frame else min(len(tab.pending), FRAME_MAX)
        if not batches or room < records or len(batches[-1]) == BATCH_ACCOUNTS:
            batches.append([])
            room = BATCH_RECORDS
        batches[-1].append(tab)
        room -= records
    return batches


@asynccontextmanager
async def _locked(books: Books, tabs: Sequence[Tab]) -> AsyncGenerator[None]:
    """Alone with these accounts. Requests that queue for one give up within the store's patience, but for the one whose turn
    it is, which may take as long again: so this comes to its turn. Nobody else holds more than one lock.
    """
    taken: list[Tab] = []
    try:
        async with patience(LOCK_PATIENCES * books.settings.store_patience):
            for tab in tabs:
                await tab.lock.acquire()
                taken.append(tab)
        yield
    finally:
        for tab in taken:
            tab.lock.release()


async def _post(books: Books, tabs: Sequence[Tab]) -> None:
    for tab in tabs:
        async with patience(books.settings.store_patience):
            await tab.resolve()
    await _look(books, [tab for tab in tabs if not tab.known])
    if books.dead.is_set():
        return  # what is left is a replay's
    for tab in tabs:
        if tab.frame is None and tab.pending:
            tab.freeze()
    await books.journal.sync()
    for _ in range(RESENDS):
        await _look(books, [tab for tab in tabs if tab.frame and (not tab.known or tab.frame.cost > _cover(tab))])
        open_now = [(tab, tab.frame) for tab in tabs if tab.frame is not None]
        if not open_now or books.dead.is_set():
            return
        await _send(books, open_now)
        await _look(books, [tab for tab, _ in open_now])


def _cover(tab: Tab) -> int:
    """What a post may take of the lease: all but the cover of running holds."""
    return tab.amount - tab.held


async def _send(books: Books, frames: Sequence[tuple[Tab, Frame]]) -> None:
    records: list[UsageRecord] = []
    rollups: list[RollupAdd] = []
    posts: list[Post] = []
    for tab, frame in frames:
        if not tab.stored:
            records.extend(frame.records(books.inc))
            rollups.extend(frame.rollups(books.inc))
        if frame.prev is not None:
            post = frame.post(books.inc, _cover(tab), tab.available)
            posts.append(post)
            tab.sent_written_off = post.written_off
        tab.known = False
    async with patience(POST_CALLS * books.settings.store_patience):
        await books.store.post(records, rollups, posts)
    for tab, frame in frames:
        tab.stored = True
        if frame.prev is None:
            tab.close_frame()


async def _refill(books: Books, tab: Tab) -> None:
    """Draw for what comes next, where the lease of a rich account runs low."""
    target = books.settings.lease_target
    low = tab.known and tab.usable and not tab.exact and tab.free < target // 2
    if low and not books.stopping and tab.state == "open" and tab.available >= target * books.settings.rich:
        async with patience(books.settings.store_patience):
            await tab.draw(target - max(tab.free, 0))


async def _look(books: Books, tabs: Sequence[Tab]) -> None:
    """Read these accounts in one call."""
    left = list(tabs)
    for _ in range(STALE_READS):
        if not left:
            return
        looks = []
        for tab in left:
            tab.looks += 1
            looks.append(tab.looks)
        async with patience(books.settings.store_patience):
            docs = await books.store.accounts_read([tab.account for tab in left])
        stale = []
        for tab, look in zip(left, looks, strict=True):
            try:
                tab.take(docs.get(tab.account), look)
            except Stale:
                stale.append(tab)
        left = stale
    if left:
        raise Stale("only older documents than before")
