"""The proof: every account recomputed from its movements and usage records, while the system runs.

It never asks the system to hold still: what was applied or posted when an account was read is there for ever, so it is
compared with what is read afterwards, and the other way round. What is posted while one account is read is the only slack.
Memory does not grow with what is read. It mends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from aurixel.ledger.movements import TAKES_WHAT_IS_THERE
from aurixel.ledger.records import Charges, Found, Records
from aurixel.storage import AccountDoc, Movement, Store, accounts_of
from aurixel.values import Nanos, format_usd

PAGE: Final = 500
# How often an account is read again in the hope of a moment in which nothing is posted.
TRIES: Final = 5
PAUSE_S: Final = 0.05
OPEN_PAGE: Final = 1000


class Fault(msgspec.Struct, frozen=True):
    """Something that must never be. `code` is one of `CODES`."""

    account: str
    code: str
    text: str


CODES: Final = ("sum", "movements", "usage", "rollups", "charge", "negative", "leases")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`: no fault. `records`: how many usage records were read. `open`: movements that are not finished yet."""

    ok: bool
    accounts: int
    records: int
    faults: list[Fault]
    open: list[Movement]


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts together, in nano-dollars. `drift`: by how much accounts miss their own sum, whichever way; always 0.

    `oldest_open_ms`: when the oldest movement that is not finished was made, None where there is none.
    """

    available: Nanos
    leased: Nanos
    drift: Nanos
    oldest_open_ms: int | None


async def add_up(store: Store) -> Sums:
    """The accounts' own documents, each by itself: cheap enough to be watched. May raise `StoreUnavailable`."""
    available = leased = drift = 0
    async for doc in accounts_of(store):
        out = _leased(doc)
        available += doc.available
        leased += out
        drift += abs(doc.available + out - (doc.credited - doc.spent))
    made = [movement.at_ms for movement in await store.movements_open(OPEN_PAGE)]
    return Sums(available=available, leased=leased, drift=drift, oldest_open_ms=min(made, default=None))


async def verify(
    store: Store,
    *,
    charges: Charges | None = None,
    quick: bool = False,
    progress: Callable[[int, int], None] = lambda accounts, records: None,
    found: Callable[[Fault], None] = lambda fault: None,
) -> Report:
    """Check every account. `quick`: only sums, without reading each record; `charges`: what each record should have cost.

    `progress` is told how many accounts and records are done, `found` each fault as it is found. May raise
    `StoreUnavailable`.
    """
    faults: list[Fault] = []
    done = 0
    records = Records(store, charges, lambda count: progress(done, count))
    async for listed in accounts_of(store):
        told = await _account(store, listed)
        told += await _rollups(store, listed.id) if quick else await records.check(listed.id)
        for code, text in told:
            fault = Fault(listed.id, code, text)
            faults.append(fault)
            found(fault)
        done += 1
        progress(done, records.read)
    return Report(
        ok=not faults,
        accounts=done,
        records=records.read,
        faults=faults,
        open=await store.movements_open(OPEN_PAGE),
    )


async def _account(store: Store, doc: AccountDoc) -> list[Found]:
    """What is wrong with the account's own sums: its document, its movements, and the cost of its records."""
    faults: list[Found] = []
    if doc.available + _leased(doc) != doc.credited - doc.spent:
        have, should = format_usd(doc.available + _leased(doc)), format_usd(doc.credited - doc.spent)
        faults.append(("sum", f"available and leases are {have}, credited less spent is {should}"))
    faults += await _movements(store, doc)
    faults += await check_usage(store, doc)
    amounts = [doc.available, doc.credited, doc.spent, doc.written_off, *(lease.amount for lease in doc.leases.values())]
    if min(amounts) < 0:
        faults.append(("negative", "an amount is negative"))
    if set(doc.holders) != set(doc.leases) or any(lease.seq < 0 for lease in doc.leases.values()):
        faults.append(("leases", "the holders are not the incarnations that have a lease"))
    return faults


async def _movements(store: Store, doc: AccountDoc) -> list[Found]:
    """Numbered without a gap, closed up to the last one applied, and `credited` is what they took."""
    took, last, closed = 0, 0, 0
    wrong: list[str] = []
    while page := await store.movements_page(doc.id, last, PAGE):
        for movement in page:
            n = movement.n
            if n != last + 1:
                wrong.append(f"movement {last + 1} is missing")
            last = n
            if movement.took is not None:
                closed = n
                if not _may_take(movement):
                    amount = format_usd(movement.amount)
                    wrong.append(f"movement {n}, a {movement.kind} of {amount}, took {format_usd(movement.took)}")
                if n == doc.log.n and movement.took != doc.log.took:
                    wrong.append(f"movement {n} took {format_usd(movement.took)}, applied was {format_usd(doc.log.took)}")
            elif n < doc.log.n:
                wrong.append(f"movement {n} was applied, and is still open")
            if n <= doc.log.n:
                took += doc.log.took if movement.took is None else movement.took
    now = await store.account_read(doc.id) or doc
    if last < doc.log.n:
        wrong.append(f"movement {doc.log.n} was applied, and the last there is is {last}")
    if closed > now.log.n:
        wrong.append(f"movement {closed} is closed, and the last one applied is {now.log.n}")
    if last > now.log.n + 1:
        wrong.append(f"movement {last} is there, and the last one applied is {now.log.n}")
    if doc.credited != took:
        wrong.append(f"credited is {format_usd(doc.credited)}, its movements took {format_usd(took)}")
    return [("movements", text) for text in wrong]


def _may_take(movement: Movement) -> bool:
    amount, took = movement.amount, movement.took
    if took == amount:
        return True
    return amount < 0 and (took == 0 or (movement.kind in TAKES_WHAT_IS_THERE and took is not None and amount < took < 0))


async def check_usage(store: Store, doc: AccountDoc) -> list[Found]:
    """A fault, unless `spent + written_off` is the cost of the posted records; what is posted meanwhile is the slack."""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        before = await store.account_read(doc.id) or doc
        # A record is posted unless its incarnation has a lease that is not that far. The order of the three sums makes
        # `most` too high and `least` too low by what comes in between, never the other way.
        beyond = await _unposted(store, before)
        records = await store.usage_cost(doc.id)
        now = await store.account_read(doc.id) or doc
        least = records - await _unposted(store, now)
        most = records - beyond
        was, is_now = before.spent + before.written_off, now.spent + now.written_off
        if was > most or is_now < least:
            posted, should = (was, most) if was > most else (is_now, least)
            return [("usage", f"spent and written off are {format_usd(posted)}, its posted records are {format_usd(should)}")]
        if was == is_now:
            break
    return []


async def _unposted(store: Store, doc: AccountDoc) -> Nanos:
    """The cost of records beyond what is posted under the lease they belong to."""
    costs = [await store.usage_cost(doc.id, inc, lease.seq) for inc, lease in doc.leases.items()]
    return sum(costs)


async def _rollups(store: Store, account: str) -> list[Found]:
    """The rollups' cost lies between what is posted and what there is."""
    before = await store.account_read(account)
    posted = before.spent + before.written_off if before else 0
    rollups = sum(line.sums.get("cost", 0) for line in await store.usage_sums(account, 0, "model"))
    records = await store.usage_cost(account)
    if posted <= rollups <= records:
        return []
    return [("rollups", f"rollups are {format_usd(rollups)}, posted {format_usd(posted)}, all {format_usd(records)}")]


def _leased(doc: AccountDoc) -> Nanos:
    return sum(lease.amount for lease in doc.leases.values())
