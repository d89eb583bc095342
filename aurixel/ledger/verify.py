"""The proof: every account recomputed from its movements and usage records, while the system runs.

It reads an account, its sums, and the account again, and repeats if the account was changed in a way that the sums could
not follow; what is still in motion after that is named, not passed over. It mends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from aurixel.storage import AccountDoc, Store
from aurixel.values import Nanos, format_usd

PAGE: Final = 500
TRIES: Final = 40
PAUSE_S: Final = 0.05


class Fault(msgspec.Struct, frozen=True):
    """Something that must never be. `code` is stable: "sum", "movements", "usage", "rollups", "negative", "leases"."""

    account: str
    code: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """`ok`: no fault, and nothing was left out. `busy`: accounts that changed too fast to be read; verify them again."""

    ok: bool
    accounts: int
    faults: list[Fault]
    busy: list[str]


class _Sums(msgspec.Struct, frozen=True):
    """What was read between two readings of an account. Records and rollups only grow, hence the two bounds."""

    took: Nanos
    posted_least: Nanos
    posted_most: Nanos
    records: Nanos
    rollups: Nanos


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts together, in nano-dollars. `drift`: by how much accounts miss their own sum, whichever way; always 0."""

    available: Nanos
    leased: Nanos
    drift: Nanos


async def add_up(store: Store) -> Sums:
    """The accounts' own documents, each by itself: cheap enough to be watched. May raise `StoreUnavailable`."""
    available = leased = drift = 0
    after = ""
    while page := await store.accounts_page(after, PAGE):
        for doc in page:
            out = sum(lease.amount for lease in doc.leases.values())
            available += doc.available
            leased += out
            drift += abs(doc.available + out - (doc.credited - doc.spent))
        after = page[-1].id
    return Sums(available=available, leased=leased, drift=drift)


async def verify(store: Store, progress: Callable[[int], None] | None = None) -> Report:
    """Check every account. `progress` is told how many are done. May raise `StoreUnavailable`."""
    faults: list[Fault] = []
    busy: list[str] = []
    done, after = 0, ""
    while page := await store.accounts_page(after, PAGE):
        for listed in page:
            found = await _account(store, listed.id)
            if found is None:
                busy.append(listed.id)
            else:
                faults.extend(found)
            done += 1
            if progress is not None:
                progress(done)
        after = page[-1].id
    return Report(not faults and not busy, done, faults, busy)


async def _account(store: Store, account: str) -> list[Fault] | None:
    """Its faults, or None if it did not hold still."""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        before = await store.account_read(account)
        if before is None:
            return []
        sums = await _sums(store, before)
        now = await store.account_read(account)
        # Posts may go on: `ver` and `log` tell whether leases and movements did not.
        if now is not None and (now.ver, now.log) == (before.ver, before.log):
            return list(_faults(before, sums))
    return None


async def _sums(store: Store, doc: AccountDoc) -> _Sums:
    took = await store.movements_took(doc.id)
    if doc.log.n > 0:
        last = await store.movement_at(doc.id, doc.log.n)
        if last is not None and last.took is None:
            took += doc.log.took  # applied, and not yet written down
    unposted_before = await _unposted(store, doc)
    records = await store.usage_cost(doc.id)
    unposted_after = await _unposted(store, doc)
    rollups = sum(line.sums.get("cost", 0) for line in await store.usage_sums(doc.id, 0, "model"))
    return _Sums(
        took=took,
        posted_least=records - unposted_after,
        posted_most=records - unposted_before,
        records=await store.usage_cost(doc.id),
        rollups=rollups,
    )


async def _unposted(store: Store, doc: AccountDoc) -> Nanos:
    """The cost of records beyond what is posted under the lease they belong to."""
    costs = [await store.usage_cost(doc.id, inc, lease.seq) for inc, lease in doc.leases.items()]
    return sum(costs)


def _faults(doc: AccountDoc, sums: _Sums) -> list[Fault]:
    faults: list[Fault] = []

    def fault(code: str, text: str) -> None:
        faults.append(Fault(doc.id, code, text))

    leased = sum(lease.amount for lease in doc.leases.values())
    if doc.available + leased != doc.credited - doc.spent:
        have, should = format_usd(doc.available + leased), format_usd(doc.credited - doc.spent)
        fault("sum", f"available and leases are {have}, credited less spent is {should}")
    if doc.credited != sums.took:
        fault("movements", f"credited is {format_usd(doc.credited)}, its movements took {format_usd(sums.took)}")
    posted = doc.spent + doc.written_off
    if not sums.posted_least <= posted <= sums.posted_most:
        least, most = format_usd(sums.posted_least), format_usd(sums.posted_most)
        should = least if least == most else f"between {least} and {most}"
        fault("usage", f"spent and written off are {format_usd(posted)}, its posted records are {should}")
    if not posted <= sums.rollups <= sums.records:
        fault("rollups", f"rollups are {format_usd(sums.rollups)}, posted {format_usd(posted)}, all {format_usd(sums.records)}")
    amounts = [doc.available, doc.credited, doc.spent, doc.written_off, *(lease.amount for lease in doc.leases.values())]
    if min(amounts) < 0:
        fault("negative", "an amount is negative")
    if set(doc.holders) != set(doc.leases) or any(lease.seq < 0 for lease in doc.leases.values()):
        fault("leases", "the holders are not the incarnations that have a lease")
    return faults
