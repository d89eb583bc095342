"""The store as plain dicts: docs/ledger.md section 2 in a form that can be read beside it. The reference, and a fast fake.

`MemoryStore` implements all of `Store`. It loses everything with the object, and a call never waits: whatever runs on
one loop runs one call at a time. Nothing here is shared with the real stores but the shapes and the argument checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from aurixel.clock import Clock, SystemClock
from aurixel.storage import (
    AccountDoc,
    CatalogueDoc,
    KeyDoc,
    Lease,
    LogMark,
    Movement,
    NodeDoc,
    NodeState,
    OrderDoc,
    Post,
    Profile,
    ProfileStatus,
    ReceiptDoc,
    RollupAdd,
    ShelfDoc,
    UsageRecord,
    UsageSums,
    checks,
)

DAY_MS = 24 * 3_600_000


class MemoryStore:
    """A `Store` whose collections are public dicts, so that a test can look at them."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.accounts: dict[str, AccountDoc] = {}
        self.movements: dict[tuple[str, int], Movement] = {}
        self.usage: dict[str, UsageRecord] = {}
        self.rollups: dict[str, RollupAdd] = {}  # `s` and `sums` of the last and of all adds
        self.node_docs: dict[str, NodeDoc] = {}
        self.profiles: dict[str, Profile] = {}
        self.keys: dict[str, KeyDoc] = {}
        self.catalogue: dict[int, CatalogueDoc] = {}
        self.orders: dict[str, OrderDoc] = {}
        self.receipts: dict[int, ReceiptDoc] = {}
        self.shelves: dict[tuple[str, str], ShelfDoc] = {}

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def ping(self) -> None: ...

    # --- credit -----------------------------------------------------------------------------------------------------

    async def account_new(self, account: str) -> bool:
        if account in self.accounts:
            return False
        self.accounts[account] = AccountDoc(
            id=account,
            state="open",
            available=0,
            credited=0,
            spent=0,
            written_off=0,
            ver=0,
            log=LogMark(0, 0),
            leases={},
            holders=(),
            want=0,
        )
        return True

    async def account_read(self, account: str) -> AccountDoc | None:
        return self.accounts.get(account)

    async def accounts_read(self, accounts: Sequence[str]) -> dict[str, AccountDoc]:
        return {account: self.accounts[account] for account in accounts if account in self.accounts}

    async def accounts_page(self, after: str, limit: int) -> list[AccountDoc]:
        checks.page(limit)
        return [self.accounts[account] for account in sorted(self.accounts) if account > after][:limit]

    async def accounts_held(self, inc: str) -> list[str]:
        return sorted(doc.id for doc in self.accounts.values() if inc in doc.holders)

    async def accounts_wanted(self, inc: str) -> list[tuple[str, int]]:
        return sorted((doc.id, doc.want) for doc in self.accounts.values() if inc in doc.holders and doc.want > 0)

    async def account_want(self, account: str, ver: int) -> None:
        checks.amounts(ver=ver)
        if doc := self.accounts.get(account):
            self.accounts[account] = replace(doc, want=max(doc.want, ver))

    async def lease_open(self, account: str, inc: str, ver: int, amount: int, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        doc = self.accounts.get(account)
        if doc and doc.state == "open" and doc.ver == ver and inc not in doc.leases and doc.available >= amount:
            return self._leased(doc, inc, Lease(amount, seq), available=doc.available - amount)
        return None

    async def lease_draw(self, account: str, inc: str, ver: int, amount: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        doc = self.accounts.get(account)
        if doc and doc.state == "open" and doc.ver == ver and inc in doc.leases and doc.available >= amount:
            lease = doc.leases[inc]
            return self._leased(doc, inc, Lease(lease.amount + amount, lease.seq), available=doc.available - amount)
        return None

    async def lease_return(self, account: str, inc: str, ver: int, amount: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        doc = self.accounts.get(account)
        if doc and doc.ver == ver and (lease := doc.leases.get(inc)) and lease.amount >= amount:
            return self._leased(doc, inc, Lease(lease.amount - amount, lease.seq), available=doc.available + amount)
        return None

    async def lease_close(self, account: str, inc: str, ver: int, amount: int, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        doc = self.accounts.get(account)
        if doc and doc.ver == ver and doc.leases.get(inc) == Lease(amount, seq):
            return self._leased(doc, inc, None, available=doc.available + amount)
        return None

    async def lease_fence(self, account: str, inc: str) -> AccountDoc | None:
        checks.inc(inc)
        doc = self.accounts.get(account)
        if doc and inc in doc.leases:
            return self._leased(doc, inc, doc.leases[inc], available=doc.available)
        return None

    async def lease_reclaim(self, account: str, inc: str, ver: int, amount: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        doc = self.accounts.get(account)
        if doc and doc.ver == ver and (lease := doc.leases.get(inc)) and lease.amount == amount:
            return self._leased(doc, inc, Lease(0, lease.seq), available=doc.available + amount)
        return None

    def _leased(self, doc: AccountDoc, inc: str, lease: Lease | None, available: int) -> AccountDoc:
        leases = {holder: doc.leases[holder] for holder in doc.leases if holder != inc}
        if lease is not None:
            leases[inc] = lease
        holders = tuple(sorted(leases))
        new = replace(doc, available=available, leases=leases, holders=holders, ver=doc.ver + 1)
        self.accounts[doc.id] = new
        return new

    async def account_closing(self, account: str) -> AccountDoc | None:
        doc = self.accounts.get(account)
        if doc and doc.state == "open":
            self.accounts[account] = replace(doc, state="closing")
            return self.accounts[account]
        return None

    async def account_remove(self, account: str) -> AccountDoc | None:
        doc = self.accounts.get(account)
        if doc and doc.state == "closing" and not doc.holders and doc.available == 0:
            self.accounts[account] = replace(doc, state="removed")
            return self.accounts[account]
        return None

    async def post(self, records: Sequence[UsageRecord], rollups: Sequence[RollupAdd], posts: Sequence[Post]) -> None:
        checks.batch(records, rollups, posts)
        for record in records:
            self.usage.setdefault(record.request_id, record)
        for add in rollups:
            old = self.rollups.get(add.id)
            if old is None:
                self.rollups[add.id] = add
            elif old.s < add.s:
                sums = {unit: old.sums.get(unit, 0) + add.sums.get(unit, 0) for unit in {**old.sums, **add.sums}}
                self.rollups[add.id] = replace(old, s=add.s, sums=sums)
        for post in posts:
            self._usage_post(post)

    def _usage_post(self, post: Post) -> None:
        doc = self.accounts.get(post.account)
        lease = doc.leases.get(post.inc) if doc else None
        if doc is None or lease is None or lease.seq != post.prev or lease.amount < post.lease:
            return
        if doc.available != post.available if post.written_off > 0 else doc.available < post.available:
            return
        self.accounts[doc.id] = replace(
            doc,
            available=doc.available - post.available,
            spent=doc.spent + post.lease + post.available,
            written_off=doc.written_off + post.written_off,
            leases={**doc.leases, post.inc: Lease(lease.amount - post.lease, post.s)},
        )

    # --- movements --------------------------------------------------------------------------------------------------

    async def movement_find(self, account: str, id: str) -> Movement | None:
        return next((m for m in self.movements.values() if m.account == account and m.id == id), None)

    async def movement_at(self, account: str, n: int) -> Movement | None:
        checks.amounts(n=n)
        return self.movements.get((account, n))

    async def movement_put(self, movement: Movement) -> bool:
        checks.movement(movement)
        if (movement.account, movement.n) in self.movements or await self.movement_find(movement.account, movement.id):
            return False
        self.movements[movement.account, movement.n] = movement
        return True

    async def movement_apply(self, account: str, n: int, amount: int, took: int, available: int) -> AccountDoc | None:
        checks.amounts(n=n, available=available)
        checks.signed(amount=amount, took=took)
        doc = self.accounts.get(account)
        if doc is None or doc.state == "removed" or doc.log.n != n - 1 or doc.available + took < 0:
            return None
        if took != amount and doc.available != available:
            return None
        self.accounts[account] = replace(
            doc, available=doc.available + took, credited=doc.credited + took, log=LogMark(n, took)
        )
        return self.accounts[account]

    async def movement_close(self, account: str, n: int, took: int) -> bool:
        checks.amounts(n=n)
        checks.signed(took=took)
        movement = self.movements.get((account, n))
        if movement is None or movement.took is not None:
            return False
        self.movements[account, n] = replace(movement, took=took)
        return True

    async def movements_open(self, limit: int) -> list[Movement]:
        checks.page(limit)
        return [self.movements[key] for key in sorted(self.movements) if self.movements[key].took is None][:limit]

    async def movements_page(self, account: str, after_n: int, limit: int) -> list[Movement]:
        checks.page(limit)
        checks.times(after_n=after_n)
        keys = sorted(key for key in self.movements if key[0] == account and key[1] > after_n)
        return [self.movements[key] for key in keys][:limit]

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def node_start(self, inc: str, name: str) -> bool:
        checks.inc(inc)
        if inc in self.node_docs:
            return False
        now = self.clock.wall_ms()
        self.node_docs[inc] = NodeDoc(inc=inc, name=name, state="live", by="", beat=0, since_ms=now)
        return True

    async def node_beat(self, inc: str, by: str) -> bool:
        node = self.node_docs.get(inc)
        if node is None or node.state != ("recovering" if by else "live") or node.by != by:
            return False
        self.node_docs[inc] = replace(node, beat=node.beat + 1)
        return True

    async def node_dead(self, inc: str, beat: int) -> bool:
        checks.amounts(beat=beat)
        node = self.node_docs.get(inc)
        if node is None or node.state not in ("live", "recovering") or node.beat != beat:
            return False
        return self._node(node, "dead", node.by)

    async def node_claim(self, inc: str, by: str) -> bool:
        checks.inc(by)
        node = self.node_docs.get(inc)
        if node is None or node.state not in ("live", "dead", "recovering"):
            return False
        return self._node(node, "recovering", by)

    async def node_done(self, inc: str, by: str) -> bool:
        node = self.node_docs.get(inc)
        if node is None or node.state != "recovering" or node.by != by:
            return False
        return self._node(node, "done", by)

    async def node_abandon(self, inc: str) -> bool:
        node = self.node_docs.get(inc)
        if node is None or node.state != "dead" or node.since_ms > self.clock.wall_ms() - DAY_MS:
            return False
        return self._node(node, "abandoned", node.by)

    def _node(self, node: NodeDoc, state: NodeState, by: str) -> bool:
        self.node_docs[node.inc] = replace(node, state=state, by=by, since_ms=self.clock.wall_ms())
        return True

    async def node_read(self, inc: str) -> NodeDoc | None:
        return self.node_docs.get(inc)

    async def nodes(self, *states: NodeState) -> list[NodeDoc]:
        found = sorted(self.node_docs.values(), key=lambda node: node.inc)
        return [node for node in found if not states or node.state in states]

    # --- usage, read back -------------------------------------------------------------------------------------------

    async def usage_read(self, account: str, request_id: str) -> UsageRecord | None:
        record = self.usage.get(request_id)
        return record if record and record.account == account else None

    async def usage_page(self, account: str, since_ms: int, after: str, limit: int) -> list[UsageRecord]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        found = {(r.at_ms, r.request_id): r for r in self.usage.values() if r.account == account}
        return [found[key] for key in sorted(found) if key > (since_ms, after)][:limit]

    async def usage_lowest(self, account: str, inc: str, after_s: int) -> list[UsageRecord]:
        checks.times(after_s=after_s)
        found = [r for r in self.usage.values() if r.account == account and r.inc == inc and r.s > after_s]
        lowest = min((r.s for r in found), default=0)
        return sorted((r for r in found if r.s == lowest), key=lambda r: r.request_id)

    async def usage_cost(self, account: str, inc: str | None = None, after_s: int = -1) -> int:
        checks.times(after_s=after_s)
        found = [r for r in self.usage.values() if r.account == account]
        return sum(r.cost for r in found if inc is None or (r.inc == inc and r.s > after_s))

    async def usage_sums(self, account: str, since_ms: int, by: Literal["model", "day", "key"]) -> list[UsageSums]:
        checks.times(since_ms=since_ms)
        groups: dict[str, Counter[str]] = {}
        for rollup in self.rollups.values():
            if rollup.account == account and rollup.hour >= since_ms // 3_600_000:
                day = datetime.fromtimestamp(rollup.hour * 3600, UTC).date().isoformat()
                group = {"model": rollup.model, "key": rollup.key_id, "day": day}[by]
                groups.setdefault(group, Counter()).update(rollup.sums)
        return [UsageSums(group=group, sums=dict(groups[group])) for group in sorted(groups)]

    async def rollups_page(self, account: str, since_hour: int, limit: int) -> list[RollupAdd]:
        checks.page(limit)
        checks.times(since_hour=since_hour)
        found = [rollup for rollup in self.rollups.values() if rollup.account == account and rollup.hour >= since_hour]
        return sorted(found, key=lambda rollup: rollup.hour)[:limit]

    async def rollup_mend(self, rollup: RollupAdd, was: int | None) -> bool:
        checks.mend(rollup, was)
        old = self.rollups.get(rollup.id)
        if (None if old is None else old.s) != was:
            return False
        self.rollups[rollup.id] = rollup
        return True

    # --- people and keys --------------------------------------------------------------------------------------------

    async def profile_new(self, profile: Profile) -> bool:
        if profile.account in self.profiles or await self.profile_find(profile.email):
            return False
        self.profiles[profile.account] = profile
        return True

    async def profile_read(self, account: str) -> Profile | None:
        return self.profiles.get(account)

    async def profile_find(self, email: str) -> Profile | None:
        return next((p for p in self.profiles.values() if p.email.lower() == email.lower()), None)

    async def profiles_page(self, after: str, limit: int) -> list[Profile]:
        checks.page(limit)
        return [self.profiles[account] for account in sorted(self.profiles) if account > after][:limit]

    async def profile_status(self, account: str, status: ProfileStatus, was: ProfileStatus | None = None) -> bool:
        if account not in self.profiles or was not in (None, self.profiles[account].status):
            return False
        self.profiles[account] = replace(self.profiles[account], status=status)
        return True

    async def key_new(self, key: KeyDoc) -> bool:
        if key.id in self.keys:
            return False
        self.keys[key.id] = key
        return True

    async def key_read(self, id: str) -> KeyDoc | None:
        return self.keys.get(id)

    async def keys_of(self, account: str) -> list[KeyDoc]:
        found = [key for key in self.keys.values() if key.account == account]
        return sorted(found, key=lambda key: (key.created_ms, key.id))

    async def key_limits(self) -> Mapping[str, int]:
        return dict(Counter(name for key in self.keys.values() if key.revoked_ms is None for name in key.limits))

    async def key_revoke(self, id: str, at_ms: int) -> bool:
        checks.times(at_ms=at_ms)
        key = self.keys.get(id)
        if key is None or key.revoked_ms is not None:
            return False
        self.keys[id] = replace(key, revoked_ms=at_ms)
        return True

    # --- catalogue --------------------------------------------------------------------------------------------------

    async def catalogue_version(self) -> int:
        return max(self.catalogue, default=0)

    async def catalogue_read(self, version: int) -> CatalogueDoc | None:
        checks.amounts(version=version)
        return self.catalogue.get(version)

    async def catalogue_put(self, doc: CatalogueDoc) -> bool:
        checks.amounts(version=doc.version)
        if doc.version in self.catalogue:
            return False
        self.catalogue[doc.version] = doc
        return True

    # --- orders and receipts ----------------------------------------------------------------------------------------

    async def order_new(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=True)
        if doc.id in self.orders or self._paid_by_another(doc):
            return False
        self.orders[doc.id] = doc
        return True

    def _paid_by_another(self, doc: OrderDoc) -> bool:
        key = (doc.backend, doc.payment)
        return doc.payment is not None and any((o.backend, o.payment) == key and o.id != doc.id for o in self.orders.values())

    async def order_read(self, id: str) -> OrderDoc | None:
        return self.orders.get(id)

    async def order_paid_by(self, backend: str, payment: str) -> OrderDoc | None:
        return next((o for o in self.orders.values() if (o.backend, o.payment) == (backend, payment)), None)

    async def order_swap(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=False)
        old = self.orders.get(doc.id)
        if old is None or (old.backend, old.rev) != (doc.backend, doc.rev - 1) or self._paid_by_another(doc):
            return False
        self.orders[doc.id] = replace(doc, account=old.account, created_ms=old.created_ms)
        return True

    async def orders_page(self, account: str | None, since_ms: int, after: str, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        found = {(o.created_ms, o.id): o for o in self.orders.values() if account in (None, o.account)}
        return [found[key] for key in sorted(found) if key > (since_ms, after)][:limit]

    async def orders_open(self, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        return [self.orders[key] for key in sorted(self.orders) if self.orders[key].open][:limit]

    async def receipt_last(self) -> int:
        return max(self.receipts, default=0)

    async def receipt_put(self, doc: ReceiptDoc) -> bool:
        checks.receipt(doc)
        if doc.number in self.receipts or await self.receipt_of(doc.order) is not None:
            return False
        self.receipts[doc.number] = doc
        return True

    async def receipt_of(self, order: str) -> ReceiptDoc | None:
        return next((receipt for receipt in self.receipts.values() if receipt.order == order), None)

    # --- shelves ----------------------------------------------------------------------------------------------------

    async def shelf_put(self, shelf: str, id: str, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        if (shelf, id) in self.shelves:
            return False
        self.shelves[shelf, id] = ShelfDoc(shelf=shelf, id=id, rev=1, body=body)
        return True

    async def shelf_get(self, shelf: str, id: str) -> ShelfDoc | None:
        checks.shelf(shelf, id)
        return self.shelves.get((shelf, id))

    async def shelf_swap(self, shelf: str, id: str, rev: int, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        checks.amounts(rev=rev)
        doc = self.shelves.get((shelf, id))
        if doc is None or doc.rev != rev:
            return False
        self.shelves[shelf, id] = replace(doc, rev=rev + 1, body=body)
        return True

    async def shelf_page(self, shelf: str, prefix: str, after: str, limit: int) -> list[ShelfDoc]:
        checks.shelf_range(shelf, prefix, after, limit)
        keys = sorted(key for key in self.shelves if key[0] == shelf and key[1].startswith(prefix) and key[1] > after)
        return [self.shelves[key] for key in keys][:limit]
