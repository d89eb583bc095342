"""Abandonment: a node that never comes back is given up, and what the store knows of its usage is charged.

It promises what a replay promises of what reached the store: each record charged once, and the leases home. What was only
in the node's journal is lost, which is why people decide this and no node does. It may be cut at any step and begun again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from aurixel.errors import AurixelError, StoreUnavailable
from aurixel.ledger.contracts import Intent, Settlement
from aurixel.ledger.frames import Frame, freeze
from aurixel.storage import Lease, NodeDoc, Store, UsageRecord
from aurixel.values import Nanos

T = TypeVar("T", bound=msgspec.Struct)

_TRIES: Final = 200  # of one step, on an account that others use meanwhile


class AbandonRefused(AurixelError):
    """The node is not one to give up. `code`: "node_unknown", "node_not_dead", "node_done", "node_dead_lately"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.typed = code == "node_unknown"  # what was typed is wrong, not what was found


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a node left behind: `accounts` with a lease of it, `leased` in them, and `unposted`, the cost of its usage
    records that are in the store and not charged yet. What only its journal knows is not in it."""

    node: NodeDoc
    accounts: tuple[str, ...]
    leased: Nanos
    unposted: Nanos


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What an abandonment did: `closed` leases, `posted` and of it `written_off`, `returned` to the accounts."""

    closed: int
    posted: Nanos
    written_off: Nanos
    returned: Nanos


async def left_behind(store: Store, inc: str) -> Left:
    """What would be settled by giving the node up. `AbandonRefused` for one that is unknown, done, or not dead."""
    node = await store.node_read(inc)
    if node is None:
        raise AbandonRefused("node_unknown", f"there is no node {inc}")
    if node.state == "done":
        raise AbandonRefused("node_done", f"node {inc} is done: all of its usage is charged")
    if node.state not in ("dead", "abandoned"):
        raise AbandonRefused("node_not_dead", f"node {inc} is {node.state}; only a dead one is given up")
    accounts = await store.accounts_held(inc)
    leased = unposted = 0
    for account in accounts:
        doc = await store.account_read(account)
        lease = doc.leases.get(inc) if doc else None
        if lease is not None:
            leased += lease.amount
            unposted += await store.usage_cost(account, inc, lease.seq)
    return Left(node=node, accounts=tuple(accounts), leased=leased, unposted=unposted)


async def abandon(store: Store, inc: str, progress: Callable[[int], None] | None = None) -> Given:
    """Give up a node that has been dead for a day by the store's clock, or go on where an abandonment was cut.

    `progress` is told how many accounts are done. `AbandonRefused` if it is not to be given up; `StoreUnavailable`.
    """
    left = await left_behind(store, inc)
    if left.node.state == "dead" and not await store.node_abandon(inc):
        node = await store.node_read(inc)
        if node is not None and node.state != "abandoned":  # else an earlier sending of it has landed
            raise AbandonRefused("node_dead_lately", f"node {inc} is not dead for 24 hours yet; it may still come back")
    closed = posted = written_off = returned = 0
    # Read anew: from here on nobody but a late call of its own gives the node a lease.
    for number, account in enumerate(await store.accounts_held(inc), 1):
        given = await _account(store, inc, account)
        closed, posted = closed + given.closed, posted + given.posted
        written_off, returned = written_off + given.written_off, returned + given.returned
        if progress is not None:
            progress(number)
    return Given(closed=closed, posted=posted, written_off=written_off, returned=returned)


async def _account(store: Store, inc: str, account: str) -> Given:
    """Charge its records frame by frame, lowest first, then close the lease."""
    posted = written_off = tries = 0
    sent: tuple[Frame, Nanos] | None = None
    while tries < _TRIES:
        tries += 1
        doc = await store.account_read(account)
        lease = doc.leases.get(inc) if doc else None
        if sent is not None and lease is not None and lease.seq >= sent[0].s:
            posted, written_off, sent, tries = posted + sent[0].cost, written_off + sent[1], None, 0
        if doc is None or lease is None:
            return Given(closed=0, posted=posted, written_off=written_off, returned=0)
        frame = _frame(account, lease, await store.usage_lowest(account, inc, lease.seq))
        if frame is None:
            if await store.lease_close(account, inc, doc.ver, lease.amount, lease.seq) is not None:
                return Given(closed=1, posted=posted, written_off=written_off, returned=lease.amount)
            continue
        post = frame.post(inc, lease.amount, doc.available)
        sent = (frame, post.written_off)
        await store.post((), list(frame.rollups(inc)), [post])
    raise StoreUnavailable("an account changes too fast to be closed")


def _frame(account: str, lease: Lease, records: list[UsageRecord]) -> Frame | None:
    """The frame that these records are of."""
    if not records:
        return None
    items = tuple((_part(Intent, record), _part(Settlement, record)) for record in records)
    return freeze(records[0].s, account, lease.seq, items)


def _part(shape: type[T], record: UsageRecord) -> T:
    return shape(**{name: getattr(record, name) for name in shape.__struct_fields__})
