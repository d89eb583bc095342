"""The proof, record by record: each rollup is the sum of exactly the records it counts, each charge what its counts make.

Rollups are read before the records of their hours. A rollup that has added frame `s` says that every record up to `s` was
there before it, so the two agree at any moment, at work or at rest. It reads a page of each at a time, and mends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeAlias

import msgspec

from aurixel.errors import AurixelError
from aurixel.ledger.frames import HOUR_MS, count_in
from aurixel.storage import AccountDoc, RollupAdd, Store, UsageRecord, usage_pages
from aurixel.values import Nanos, format_usd

ROLLUPS: Final = 2000
RECORDS: Final = 2000
MOST_ROLLUPS: Final = 100_000

Found: TypeAlias = tuple[str, str]  # a fault's code and words
Bucket: TypeAlias = tuple[int, str, str, str]  # hour, model, key, incarnation


class Charges(Protocol):
    """What usage costs, by the versions of the catalogue that charges name."""

    async def load(self, versions: Iterable[int]) -> None:
        """Have these versions at hand."""

    def expected(self, record: UsageRecord) -> Nanos | None:
        """What the record's counts cost at its prices; None where the version, or a price in it, is not there."""


class _Late(msgspec.Struct):
    """Records that their rollup does not count yet: the lowest frame of them, and of those that cost something."""

    s: int
    paid: int | None = None


class Records:
    """Walks the records of one account after another. `step` is told how many were read so far, a page at a time."""

    def __init__(self, store: Store, charges: Charges | None, step: Callable[[int], None]) -> None:
        self._store, self._charges, self._step = store, charges, step
        self._ended: dict[str, bool] = {}
        self.read = 0

    async def check(self, account: str) -> list[Found]:
        """What is wrong with an account's records; each kind of fault is told once, with its first case."""
        rollups, charged = _Tally(), _Tally()
        hour: int | None = 0
        while hour is not None:
            since_ms = hour * HOUR_MS
            listed, hour = await whole_hours(self._store, account, hour)
            left = {bucket_of(rollup): (rollup.s, dict(rollup.sums)) for rollup in listed}
            late: dict[Bucket, _Late] = {}
            async for page in usage_pages(self._store, account, since_ms, None if hour is None else hour * HOUR_MS, RECORDS):
                if self._charges is not None:
                    await self._charges.load({record.price_version for record in page})
                for record in page:
                    bucket = bucket_of(record)
                    counted = left.get(bucket)
                    if counted is None or record.s > counted[0]:
                        _put_off(late, bucket, record)
                    else:
                        count_in(counted[1], record.cost, record.counts, -1)
                    if self._charges is not None and (words := _mischarged(self._charges, record)):
                        charged.add(words)
                self.read += len(page)
                self._step(self.read)
            for bucket, (_, sums) in left.items():
                if any(sums.values()):
                    rollups.add(f"{name_of(bucket)} is off by {_off(sums)}")
            if late:
                for bucket in await self._missing(account, late):
                    rollups.add(f"{name_of(bucket)} lacks records that are posted")
        return [
            *rollups.told("rollups", "rollups are not the sums of their records"),
            *charged.told("charge", "records do not cost what their counts and prices make"),
        ]

    async def _missing(self, account: str, late: dict[Bucket, _Late]) -> list[Bucket]:
        """Those of the buckets whose rollup should have been added to by now, and was not."""
        doc = await self._store.account_read(account)
        due: list[tuple[Bucket, int]] = []
        for bucket, records in late.items():
            if (s := await self._due(doc, bucket[3], records)) is not None:
                due.append((bucket, s))
        if not due:
            return []
        has: dict[Bucket, int] = {}
        read: int | None = 0
        for hour in sorted({bucket[0] for bucket, _ in due}):
            if read is not None and hour >= read:
                listed, read = await whole_hours(self._store, account, hour)
                has |= {bucket_of(rollup): rollup.s for rollup in listed}
        return [bucket for bucket, s in due if has.get(bucket, -1) < s]

    async def _due(self, doc: AccountDoc | None, inc: str, records: _Late) -> int | None:
        """The frame that must be in the rollup, as it is posted, or as nobody is left who would still add it."""
        lease = doc.leases.get(inc) if doc else None
        if lease is not None:
            return records.s if records.s <= lease.seq else None
        if inc not in self._ended or not self._ended[inc]:
            node = await self._store.node_read(inc)
            self._ended[inc] = node is not None and node.state == "done"
        # Without a lease a frame that costs something is posted; one of cost 0 may be on its way.
        return records.s if self._ended[inc] else records.paid


class _Tally:
    """How often something was wrong, and the first case."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""

    def add(self, words: str) -> None:
        self._count += 1
        self._first = self._first or words

    def told(self, code: str, what: str) -> Iterator[Found]:
        if self._count:
            yield code, f"{self._count} {what}, first: {self._first}"


async def whole_hours(store: Store, account: str, hour: int) -> tuple[list[RollupAdd], int | None]:
    """An account's rollups from `hour` on, as many whole hours as fit, and the hour that comes next (None: that is all)."""
    limit = ROLLUPS
    while True:
        page = await store.rollups_page(account, hour, limit)
        if len(page) < limit:
            return page, None
        last = page[-1].hour
        if last > page[0].hour:
            return [rollup for rollup in page if rollup.hour < last], last
        if limit == MOST_ROLLUPS:
            raise AurixelError(f"account {account} has more than {MOST_ROLLUPS} rollups in hour {last}")
        limit = min(limit * 4, MOST_ROLLUPS)


def _put_off(late: dict[Bucket, _Late], bucket: Bucket, record: UsageRecord) -> None:
    found = late.setdefault(bucket, _Late(record.s))
    found.s = min(found.s, record.s)
    if record.cost:
        found.paid = record.s if found.paid is None else min(found.paid, record.s)


def _mischarged(charges: Charges, record: UsageRecord) -> str:
    if not record.counts and not record.cost:
        return ""
    expected = charges.expected(record)
    if expected == record.cost:
        return ""
    named = f"{record.request_id}, {record.model}, cost {format_usd(record.cost)}"
    if expected is None:
        return f"{named}, and version {record.price_version} of the catalogue has no price for it"
    return f"{named}, should be {format_usd(expected)}"


def bucket_of(one: RollupAdd | UsageRecord) -> Bucket:
    """Which rollup a record is counted in, or which one this is."""
    hour = one.hour if isinstance(one, RollupAdd) else one.at_ms // HOUR_MS
    return hour, one.model, one.key_id, one.inc


def name_of(bucket: Bucket) -> str:
    """A rollup in words."""
    hour, model, key_id, inc = bucket
    return f"hour {hour}, {model}, key {key_id}, node {inc}"


def _off(sums: dict[str, int]) -> str:
    return ", ".join(f"{unit} {value:+d}" for unit, value in sorted(sums.items()) if value)
