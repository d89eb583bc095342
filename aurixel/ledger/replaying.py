"""One journal, posted: what a dead incarnation left open goes to the store frame by frame, many accounts at a time.

It follows docs/ledger.md section 6: requests that the crash cut are ended first; each account is fenced and read before
anything of it is sent; a new frame is on disk before it is sent; `done` is written for all that is found in the store. What
cannot be right (a cost without a lease entry, a frame that does not follow the last posted one) is a `JournalError` with the
place named; nothing is guessed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from aurixel.clock import Clock
from aurixel.errors import JournalError, StoreUnavailable
from aurixel.ledger.claim import TOGETHER, TRIES, Claim, together
from aurixel.ledger.contracts import Settlement, patience
from aurixel.ledger.frames import FRAME_MAX, Frame, freeze
from aurixel.ledger.journal import Journal
from aurixel.ledger.lines import Done, Settled
from aurixel.ledger.replay import Replay
from aurixel.storage import AccountDoc, Lease, Post, RollupAdd, UsageRecord

# So many records go to the store in one call, which may take so many times the patience with a step.
RECORDS: Final = 5000
PATIENCES: Final = 4

_Placed: TypeAlias = tuple[Frame, str]


class Replayer:
    """Posts what is open in `replay`. `charged` and `crashed` count requests: posted by us, and those the crash had cut."""

    def __init__(
        self, claim: Claim, replay: Replay, journal: Journal, clock: Clock, progress: Callable[[int, int], None]
    ) -> None:
        self._claim, self._replay, self._journal, self._clock = claim, replay, journal, clock
        self._progress, self._seen, self._total = progress, 0, replay.requests()
        self._s = replay.last_s
        self._frames = replay.take_frames()
        self._stored: set[int] = set()  # frames whose records and sums are in the store
        self._tries: Counter[int] = Counter()
        self.charged = self.crashed = 0

    async def run(self) -> None:
        """Post everything. `Refused` where someone else has called the incarnation dead: what is posted stays so."""
        self._progress(0, self._total)
        self._end_crashed()
        accounts = list(dict.fromkeys((*self._replay.accounts(), *await self._claim.held())))
        for start in range(0, len(accounts), TOGETHER):
            await self._claim.beat()
            await self._accounts(accounts[start : start + TOGETHER])

    def _end_crashed(self) -> None:
        """Requests that the crash cut get their ending, in the journal first: a second recovery must see the same."""
        for request_id in list(self._replay.begun):
            settlement = Settlement(
                cell="crash",
                measured=False,
                upstream="",
                status=0,
                done_ms=self._clock.wall_ms(),
                counts={},
                cost=0,
            )
            self._journal.append(Settled(request_id, settlement))
            self._replay.end(request_id, settlement)
            self.crashed += 1

    async def _accounts(self, accounts: Sequence[str]) -> None:
        docs = await together(self._claim.fence(account) for account in accounts)
        waiting: dict[str, deque[_Placed]] = {}
        for account, doc in zip(accounts, docs, strict=True):
            if frames := self._open_frames(account, doc.leases.get(self._claim.inc) if doc else None):
                waiting[account] = frames
        await self._journal.sync()
        while waiting:
            await self._claim.beat()
            await self._round(waiting)

    def _open_frames(self, account: str, lease: Lease | None) -> deque[_Placed]:
        """The frames of an account that are not in the store, in order: those of the journal, then new ones."""
        confirmed = self._replay.confirmed.get(account, 0)
        if lease is not None and lease.seq < confirmed:
            fault = f"frame {confirmed} was posted, but the store is at {lease.seq}: was it restored from an older copy?"
            raise JournalError(fault, place=f"{self._replay.path}, account {account}")
        frames: deque[_Placed] = deque()
        seq = lease.seq if lease else None
        for frame, place in self._frames.pop(account, ()):
            if frame.prev is not None and seq is not None and frame.s <= seq:
                # Posted, and the answer was not written down: the close below erases the `seq` that says so.
                self._journal.append(Done(frame.s))
                self._advance(frame)
                continue
            if lease is None and frame.cost:
                raise JournalError("a cost without a lease entry in the store", place=place)
            if lease is not None and frame.prev is not None:
                if frame.prev != seq:
                    raise JournalError(_not_next(frame, lease), place=place)
                seq = frame.s
            frames.append((frame, place))
        items = tuple(self._replay.ended.pop(account, {}).values())
        self._s = max(self._s, lease.seq if lease else 0)
        place = f"{self._replay.path}, account {account}"
        for start in range(0, len(items), FRAME_MAX):
            self._s += 1
            frame = freeze(self._s, account, seq, items[start : start + FRAME_MAX])
            if frame.cost and lease is None:
                raise JournalError("a cost without a lease entry in the store", place=place)
            self._journal.append(frame.line())
            frames.append((frame, place))
            seq = frame.s if lease else None
        return frames

    async def _round(self, waiting: dict[str, deque[_Placed]]) -> None:
        """Send the first frame of as many accounts as go together, after a look at what is in the store already."""
        room = RECORDS
        heads: list[str] = []
        for account, frames in waiting.items():
            room -= len(frames[0][0].items)
            if heads and room < 0:
                break
            heads.append(account)
        async with patience(self._claim.settings.store_patience):
            docs = await self._claim.store.accounts_read(heads)
        records: list[UsageRecord] = []
        rollups: list[RollupAdd] = []
        posts: list[Post] = []
        sent: list[Frame] = []
        for account in heads:
            frames = waiting[account]
            # What was sent last time may be there by now, and the next one of the account is sent with this look.
            while frames and (post := self._next(*frames[0], docs.get(account))) is True:
                self._done(frames.popleft()[0])
            if not frames:
                del waiting[account]
                continue
            frame = frames[0][0]
            if frame.s not in self._stored:
                records.extend(frame.records(self._claim.inc))
                rollups.extend(frame.rollups(self._claim.inc))
            if isinstance(post, Post):
                posts.append(post)
            sent.append(frame)
        if not sent:
            return
        async with patience(PATIENCES * self._claim.settings.store_patience):
            await self._claim.store.post(records, rollups, posts)
        self._stored.update(frame.s for frame in sent)

    def _next(self, frame: Frame, place: str, doc: AccountDoc | None) -> Post | bool:
        """How to post a frame now; True where it is in the store, whole, False where only records and sums are sent."""
        lease = doc.leases.get(self._claim.inc) if doc else None
        if frame.prev is None:
            return frame.s in self._stored
        if doc is None or lease is None:
            if frame.cost:
                raise JournalError("a cost without a lease entry in the store", place=place)
            return frame.s in self._stored
        if lease.seq >= frame.s:
            return True
        if lease.seq != frame.prev:
            raise JournalError(_not_next(frame, lease), place=place)
        self._tries[frame.s] += 1
        if self._tries[frame.s] > TRIES:
            raise StoreUnavailable("a frame cannot be posted")
        return frame.post(self._claim.inc, lease.amount, doc.available)

    def _done(self, frame: Frame) -> None:
        self._journal.append(Done(frame.s))
        self.charged += len(frame.items)
        self._stored.discard(frame.s)
        self._tries.pop(frame.s, None)
        self._advance(frame)

    def _advance(self, frame: Frame) -> None:
        self._seen += len(frame.items)
        self._progress(self._seen, self._total)


def _not_next(frame: Frame, lease: Lease) -> str:
    return f"frame {frame.s} follows {frame.prev}, but the store is at {lease.seq}"
