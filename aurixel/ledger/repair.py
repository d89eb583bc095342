"""Repairs: the few faults that can be mended without anybody's judgement, by name; each is planned, shown, then done.

A repair finishes what the protocol has left half done, or makes anew what is only the sum of other documents. It never
changes an amount, a record or a movement: what money needs is a movement of its own, with a reason and an author, and
somebody who decides it. `ADVICE` says so for each fault that `verify` can find.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

from aurixel.clock import Clock
from aurixel.errors import StoreUnavailable
from aurixel.ledger.frames import HOUR_MS, count_in
from aurixel.ledger.movements import MovementError, Movements
from aurixel.ledger.records import RECORDS, Bucket, bucket_of, name_of, whole_hours
from aurixel.ledger.verify import check_usage
from aurixel.storage import Movement, NodeState, RollupAdd, Store, accounts_of, usage_pages
from aurixel.values import format_usd

OPEN_PAGE: Final = 1000
TRIES: Final = 20


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do, or with `refused` one that nobody but a human can decide, and why. `do` says whether it was done."""

    account: str
    what: str
    do: Callable[[], Awaitable[bool]] | None = None
    refused: str = ""


Plan: TypeAlias = Callable[[Store, Clock, str | None], AsyncIterator[Step]]


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """`plan` reads, of one account or all, and changes nothing. `text`: what the repair is for."""

    text: str
    plan: Plan


async def _finish_movements(store: Store, clock: Clock, account: str | None) -> AsyncIterator[Step]:
    """Any process may finish any movement at any time (docs/ledger.md section 7)."""
    movements = Movements(store, clock)
    for movement in await store.movements_open(OPEN_PAGE):
        if account not in (None, movement.account):
            continue
        what = f"finish movement {movement.n}, a {movement.kind} of {format_usd(movement.amount)} USD ({movement.id})"
        doc = await store.account_read(movement.account)
        if doc is None or (doc.state == "removed" and doc.log.n < movement.n):
            yield Step(account=movement.account, what=what, refused="the account is removed: the money must go back outside")
        else:
            yield Step(account=movement.account, what=what, do=partial(_finish, movements, movement))


async def _finish(movements: Movements, movement: Movement) -> bool:
    try:
        await movements.finish(movement)
    except MovementError:
        return False
    return True


async def _close_done_leases(store: Store, clock: Clock, account: str | None) -> AsyncIterator[Step]:
    """A node that is done posted everything and closed its leases; only an open that landed late can be left."""
    states: dict[str, NodeState | None] = {}
    async for doc in accounts_of(store, account):
        for inc, lease in doc.leases.items():
            if inc not in states:
                node = await store.node_read(inc)
                states[inc] = node.state if node is not None else None
            what = f"close the lease of node {inc} and give {format_usd(lease.amount)} USD back"
            if states[inc] == "done":
                if await store.usage_cost(doc.id, inc, lease.seq):
                    why = "it has usage beyond what is posted: a node that is done cannot"
                    yield Step(account=doc.id, what=what, refused=why)
                else:
                    yield Step(account=doc.id, what=what, do=partial(_close, store, doc.id, inc))
            elif states[inc] in ("dead", "abandoned", None):
                why = "replay its journal, or give the node up with `aurixel node abandon`"
                yield Step(account=doc.id, what=what, refused=f"the node is {states[inc] or 'not known'}: {why}")


async def _close(store: Store, account: str, inc: str) -> bool:
    for _ in range(TRIES):
        doc = await store.account_read(account)
        lease = doc.leases.get(inc) if doc else None
        if doc is None or lease is None:
            return True
        await store.lease_close(account, inc, doc.ver, lease.amount, lease.seq)
    raise StoreUnavailable("the account does not come to rest")


async def _rollups(store: Store, clock: Clock, account: str | None) -> AsyncIterator[Step]:
    """Rollups of nodes that write no more, from their records.

    Why it is safe: a frame's records are stored before its rollups are sent, so whatever such a node ever sent, and may
    still land, is of a frame that has records: no later than the last of them. The mended rollup says that it has that
    frame, so a late add does nothing; and it is put only where the rollup still is the one that was read.
    """
    ended: dict[str, bool] = {}
    async for doc in accounts_of(store, account):
        if await check_usage(store, doc):
            words = "rebuild the rollups"
            yield Step(account=doc.id, what=words, refused="its records do not add up to its charges: records may be lost")
            continue
        async for found in _compared(store, doc.id):
            inc = found.total.inc
            if inc not in ended:
                node = await store.node_read(inc)
                ended[inc] = node is not None and node.state in ("done", "abandoned")
            name = name_of(bucket_of(found.total))
            if ended[inc] and inc not in doc.leases:
                if found.off:
                    what = f"rebuild the rollup of {name}: {_sums(found.old)} become {_sums(found.total)}"
                    was = None if found.old is None else found.old.s
                    yield Step(account=doc.id, what=what, do=partial(store.rollup_mend, found.total, was))
            elif found.off_now:
                why = "its node may still add to it: stop it, or replay its journal, first"
                yield Step(account=doc.id, what=f"rebuild the rollup of {name}", refused=why)


class _Compared(msgspec.Struct):
    """A rollup as it is, and as its records make it: `counted` are those of them that it says it has added."""

    old: RollupAdd | None
    total: RollupAdd
    counted: dict[str, int]

    @property
    def off_now(self) -> bool:
        """Whether it is wrong whatever its node still does."""
        return self.old is not None and _plain(self.old.sums) != _plain(self.counted)

    @property
    def off(self) -> bool:
        """Whether it is wrong if its node does no more."""
        return self.old is None or _plain(self.old.sums) != _plain(self.total.sums)


async def _compared(store: Store, account: str) -> AsyncIterator[_Compared]:
    hour: int | None = 0
    while hour is not None:
        since_ms = hour * HOUR_MS
        listed, hour = await whole_hours(store, account, hour)
        found = {bucket_of(old): _Compared(old, replace(old, s=old.s + 1, sums={}), {}) for old in listed}
        async for page in usage_pages(store, account, since_ms, None if hour is None else hour * HOUR_MS, RECORDS):
            for record in page:
                bucket = bucket_of(record)
                if (compared := found.get(bucket)) is None:
                    compared = found[bucket] = _Compared(None, _empty(account, bucket, record.s), {})
                total, old = compared.total, compared.old
                count_in(total.sums, record.cost, record.counts)
                if record.s > total.s:
                    compared.total = replace(total, s=record.s)
                if old is not None and record.s <= old.s:
                    count_in(compared.counted, record.cost, record.counts)
        for compared in found.values():
            yield compared


def _empty(account: str, bucket: Bucket, s: int) -> RollupAdd:
    hour, model, key_id, inc = bucket
    return RollupAdd(account=account, hour=hour, model=model, key_id=key_id, inc=inc, s=s, sums={})


def _plain(sums: Mapping[str, int]) -> dict[str, int]:
    return {unit: count for unit, count in sums.items() if count}


def _sums(rollup: RollupAdd | None) -> str:
    if rollup is None:
        return "no sums"
    return f"{rollup.sums.get('requests', 0)} requests at {format_usd(rollup.sums.get('cost', 0))} USD"


REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType(
    {
        "finish-movements": Repair(
            text="finish movements that were put and not closed; a running gateway does so once a minute",
            plan=_finish_movements,
        ),
        "close-done-leases": Repair(
            text="give back what a node that is done has leased; a running gateway does so once a minute",
            plan=_close_done_leases,
        ),
        "rollups": Repair(
            text="make the lines of `aurixel usage` anew from the records, for nodes that are done or abandoned",
            plan=_rollups,
        ),
    }
)

# What to do about each code of `verify`; only the first has a repair.
ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "rollups": "`aurixel ledger repair rollups`: they are sums of records, no credit depends on them",
        "sum": "somebody changed the account by hand, or the store lost a write: find out which, before anything else",
        "movements": "compare with the payments; what an account lacks or has too much is `aurixel credit adjust`",
        "usage": "records were lost or changed: restore them from a backup, or settle it by `aurixel credit adjust`",
        "charge": "a record was changed, or the catalogue's version was: what was overcharged is `aurixel credit adjust`",
        "negative": "as for sum: the protocol never makes anything negative",
        "leases": "as for sum: the account's document was changed by hand",
    }
)
