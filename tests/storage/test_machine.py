"""Each store beside the plain model, through any order of calls, with answers lost, batches torn and calls landing late.

Two nodes share an account. What they send follows docs/ledger.md where the invariants need it (frames, movements, no
close beside a frame); lease and node operations are otherwise any, with right and wrong tickets and amounts. After each
step both stores hold the same documents and the invariants of section 8 hold; at the end everything comes to rest.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from aurixel.errors import StoreUnavailable
from aurixel.storage import AccountDoc, Lease, Movement, NodeDoc, Post, RollupAdd, Store, UsageRecord
from tests.storage.conftest import MongoPlace, SqlitePlace
from tests.storage.faults import Fault, flaky
from tests.storage.model import MemoryStore
from tests.storage.samples import movement, record, rollup, took

T = TypeVar("T")
Frame = tuple[list[UsageRecord], list[RollupAdd], int, int]  # records, rollups, cost, s

HOURS = 472_222
NUMBERS = itertools.count()
NODES = st.integers(0, 1)
FAULTS = st.sampled_from([None, None, None, None, None, None, "lost", "dropped", "late", "torn"])
AMOUNTS = st.sampled_from(["none", "some", "all", "over"])
LEASE_OPS = st.sampled_from(["lease_open", "lease_draw", "lease_return", "lease_close", "lease_reclaim"])
COSTS = st.lists(st.sampled_from([0, 1, 15, 300]), min_size=1, max_size=3)
PAYMENTS = st.tuples(st.sampled_from(["p1", "p2", "p3", "p4", "p5"]), st.sampled_from([100, 1000, -30, -400]))


class StoreMachine(RuleBasedStateMachine):
    """One example: an account, two nodes, the store and the model. `run` runs a coroutine on the store's loop."""

    def __init__(self, store: Store, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__()
        self.run = run
        self.faults: list[Fault | None] = []
        self.model = MemoryStore()
        self.ours, self.our_faults = flaky(self.model, lambda name: self.faults[0] if self.faults else None)
        self.theirs, self.their_faults = flaky(store, lambda name: self.faults.pop(0) if self.faults else None)
        number = next(NUMBERS)
        self.account = f"account {number}"
        self.incs = [f"x{number}a", f"x{number}b"]
        self.counters = [0, 0]
        self.frames: list[Frame | None] = [None, None]
        self.requests = itertools.count()
        self.charged = 0

    # --- both at once ---------------------------------------------------------------------------------------------------

    def call(self, name: str, *args: Any, faults: list[Fault | None] | None = None) -> Any:
        """The same call on both, with the same fault: their one answer, or `StoreUnavailable`."""
        if faults is not None:
            self.faults = faults
        return self.run(self._both(name, args))

    async def _both(self, name: str, args: tuple[Any, ...]) -> Any:
        answers = []
        for store in (self.ours, self.theirs):
            try:
                answers.append(await getattr(store, name)(*args))
            except StoreUnavailable as error:
                answers.append(error)
        mine, other = answers
        if isinstance(mine, StoreUnavailable):
            assert isinstance(other, StoreUnavailable), (name, args)
            raise mine
        if not isinstance(mine, (NodeDoc, list)):
            assert mine == other, (name, args)
        return mine

    @property
    def doc(self) -> AccountDoc:
        return self.model.accounts[self.account]

    def lease(self, node: int) -> Lease | None:
        return self.doc.leases.get(self.incs[node])

    # --- the account and its nodes ----------------------------------------------------------------------------------------

    @initialize(amount=st.sampled_from([1000, 1000, 50, 0]))
    def begin(self, amount: int) -> None:
        assert self.call("account_new", self.account)
        for node, inc in enumerate(self.incs):
            self.call("node_start", inc, f"host {node}")
        if amount:
            self.pay_once(("p0", amount))
            assert self.call("lease_open", self.account, self.incs[0], 0, amount // 2, 0)

    @rule(node=NODES, op=LEASE_OPS, amount=AMOUNTS, ahead=st.sampled_from([0, 0, 0, 0, -1, 1]), fault=FAULTS)
    def lease_op(self, node: int, op: str, amount: str, ahead: int, fault: Fault | None) -> None:
        doc, inc, ver = self.doc, self.incs[node], max(0, self.doc.ver + ahead)
        lease = self.lease(node)
        if lease is None:
            lease, op = Lease(0, 0), op if ahead else "lease_open"
        if op == "lease_close" and (self.frames[node] or (ahead and fault)):
            return  # section 3: close only when no frame is open, and with a ticket that was read
        most = doc.available if op in ("lease_open", "lease_draw") else lease.amount
        if op in ("lease_close", "lease_reclaim"):
            n = most + (amount == "over")
        else:
            n = {"none": 0, "some": min(most, 20), "all": most, "over": most + 1}[amount]
        more = {"lease_open": (self.counters[node],), "lease_close": (lease.seq,)}.get(op, ())
        self.quietly(op, self.account, inc, ver, n, *more, faults=[fault])

    @rule(
        node=NODES,
        op=st.sampled_from([*["lease_fence"] * 3, *["account_want"] * 3, "account_closing", "account_remove"]),
        fault=FAULTS,
        behind=st.integers(0, 2),
    )
    def account_op(self, node: int, op: str, fault: Fault | None, behind: int) -> None:
        if op == "account_closing" and behind != 1:
            return  # rarely: little happens after it
        more = {"lease_fence": (self.incs[node],), "account_want": (max(0, self.doc.ver - behind),)}.get(op, ())
        self.quietly(op, self.account, *more, faults=[fault])

    @rule(
        op=st.sampled_from(["node_beat", "node_dead", "node_claim", "node_done", "node_abandon"]),
        node=NODES,
        other=NODES,
        alone=st.booleans(),
        fault=FAULTS,
    )
    def node_op(self, op: str, node: int, other: int, alone: bool, fault: Fault | None) -> None:
        inc, by = self.incs[node], self.incs[other]
        beat = self.model.node_docs[inc].beat
        args = {"node_beat": ("" if alone else by,), "node_dead": (beat - alone if beat else 0,), "node_abandon": ()}
        self.quietly(op, inc, *args.get(op, (by,)), faults=[fault])

    def quietly(self, name: str, *args: Any, faults: list[Fault | None]) -> None:
        try:
            self.call(name, *args, faults=faults)
        except StoreUnavailable:
            pass

    # --- usage: section 4 -------------------------------------------------------------------------------------------------

    @rule(node=NODES, costs=COSTS, gap=st.integers(1, 2), hour=st.integers(0, 1))
    def begin_frame(self, node: int, costs: list[int], gap: int, hour: int) -> None:
        """Frozen now, sent by `send_frame`, often or never."""
        inc = self.incs[node]
        closing = any(
            late.name == "lease_close" and late.args[1] == inc and late.args[2] >= self.doc.ver for late in self.our_faults.late
        )
        if self.frames[node] or self.lease(node) is None or closing:
            return  # one frame at a time; nothing is admitted on the amount of a close that may still land
        self.counters[node] += gap
        s = self.counters[node]
        records = [
            record(f"{self.account} {next(self.requests)}", cost, s, self.account, inc=inc, counts={"output": cost})
            for cost in costs
        ]
        sums = {"requests": len(costs), "cost": sum(costs), "tool_calls.web_search": 1}
        rollups = [rollup(s, self.account, inc=inc, hour=HOURS + hour, sums=sums)]
        self.frames[node] = (records, rollups, sum(costs), s)
        self.charged += sum(costs)

    @rule(
        node=NODES,
        costs=COSTS,
        gap=st.integers(1, 2),
        hour=st.integers(0, 1),
        from_lease=AMOUNTS,
        faults=st.lists(FAULTS, min_size=1, max_size=3),
    )
    def spend(self, node: int, costs: list[int], gap: int, hour: int, from_lease: str, faults: list[Fault | None]) -> None:
        self.begin_frame(node, costs, gap, hour)
        for fault in faults:
            self.send_frame(node, from_lease, fault)

    @rule(node=NODES, from_lease=AMOUNTS, fault=FAULTS)
    def send_frame(self, node: int, from_lease: str, fault: Fault | None) -> None:
        frame, lease = self.frames[node], self.lease(node)
        if frame is None or lease is None:
            return
        records, rollups, cost, s = frame
        if lease.seq >= s:
            self.frames[node] = None  # an earlier sending landed
            return
        available = self.doc.available
        least, most = max(0, cost - available), min(cost, lease.amount)
        if from_lease == "over" and cost > lease.amount:
            # As if it had been read before something moved: the guard must refuse it.
            split = (lease.amount, max(0, available - 1), cost - lease.amount - max(0, available - 1))
            if split[2] <= 0 or not available:
                split = (lease.amount + 1, cost - lease.amount - 1, 0)
        elif least > most:
            split = (lease.amount, available, cost - lease.amount - available)
        else:
            part = {"none": least, "some": (least + most) // 2}.get(from_lease, most)
            split = (part, cost - part, 0)
        post = Post(
            account=self.account,
            inc=self.incs[node],
            prev=lease.seq,
            s=s,
            lease=split[0],
            available=split[1],
            written_off=split[2],
        )
        self.quietly("post", records, rollups, [post], faults=[fault])

    # --- movements: section 7 ---------------------------------------------------------------------------------------------

    @rule(payment=PAYMENTS, faults=st.lists(FAULTS, max_size=4))
    def pay(self, payment: tuple[str, int], faults: list[Fault | None]) -> None:
        self.faults = faults
        try:
            self.pay_once(payment)
        except StoreUnavailable:
            pass
        self.faults = []

    def pay_once(self, payment: tuple[str, int]) -> None:
        name, amount = payment
        while True:
            found: Movement | None = self.call("movement_find", self.account, name)
            if found is None:
                doc = self.doc
                if doc.log.n:
                    self.call("movement_close", self.account, doc.log.n, doc.log.took)
                new = movement(doc.log.n + 1, name, amount, self.account)
                if not self.call("movement_put", new):
                    other = self.call("movement_at", self.account, new.n)
                    if other is not None and other.id != name and not self.finish(other):
                        return
                    continue
                found = new
            self.finish(found)
            return

    def finish(self, found: Movement) -> bool:
        """False where the account is removed, and the movement stays open for the operator."""
        while (doc := self.doc).log.n <= found.n:
            if doc.log.n == found.n:
                self.call("movement_close", self.account, found.n, doc.log.took)
                return True
            if doc.state == "removed":
                return False
            took = found.amount if doc.available + found.amount >= 0 else -doc.available
            self.call("movement_apply", self.account, found.n, found.amount, took, doc.available)
        return True

    # --- shelves ----------------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(["x", "x1", "y"]), behind=st.integers(0, 2), put=st.booleans(), fault=FAULTS)
    def shelve(self, name: str, behind: int, put: bool, fault: Fault | None) -> None:
        """One shelf for all examples: a document of ours, put or changed on what was read now or earlier."""
        name = f"{self.incs[0]}:{name}"
        doc = self.model.shelves.get(("machine", name))
        body = b'{"n":%d}' % next(self.requests)
        if put or doc is None:
            self.quietly("shelf_put", "machine", name, body, faults=[fault])
        else:
            self.quietly("shelf_swap", "machine", name, max(0, doc.rev - behind), body, faults=[fault])

    # --- time ---------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.our_faults.late)
    @rule(pick=st.integers(0, 9), lands=st.sampled_from([True, True, True, False]))
    def late(self, pick: int, lands: bool) -> None:
        """One of the calls that were given up lands now, or never."""
        index = pick % len(self.our_faults.late)
        if not lands:
            self.our_faults.late.pop(index)
            self.their_faults.late.pop(index)
            return
        self.faults = []
        mine, other = self.run(self._land(index))
        assert mine == other

    async def _land(self, index: int) -> tuple[Any, Any]:
        return await self.our_faults.land(index), await self.their_faults.land(index)

    # --- what always holds --------------------------------------------------------------------------------------------------

    @invariant()
    def same_account_and_section_8(self) -> None:
        if self.account not in self.model.accounts:
            return
        doc = self.doc
        assert self.run(self.their_faults.inner.account_read(self.account)) == doc
        leases = sum(lease.amount for lease in doc.leases.values())
        assert doc.available + leases == doc.credited - doc.spent
        assert min(doc.available, doc.credited, doc.spent, doc.written_off, *(x.amount for x in doc.leases.values())) >= 0
        assert set(doc.holders) == set(doc.leases)
        movements = [m for m in self.model.movements.values() if m.account == self.account]
        applied = doc.log.took if any(m.n == doc.log.n and m.took is None for m in movements) else 0
        assert doc.credited == sum(m.took or 0 for m in movements) + applied
        posted = sum(
            one.cost for one in self.model.usage.values() if one.inc not in doc.leases or one.s <= doc.leases[one.inc].seq
        )
        assert doc.spent + doc.written_off == posted

    def same_everything(self) -> None:
        async def look(store: Store) -> list[Any]:
            nodes = [await store.node_read(inc) for inc in self.incs]
            open_ones = await store.movements_open(100_000)
            return [
                [node and replace(node, since_ms=0) for node in nodes],
                [m for m in open_ones if m.account == self.account],
                await store.movements_page(self.account, 0, 1000),
                await took(store, self.account),
                await store.usage_page(self.account, 0, "", 1000),
                [await store.usage_cost(self.account, inc, after) for inc in (None, *self.incs) for after in (-1, 2)],
                [await store.usage_lowest(self.account, inc, 1) for inc in self.incs],
                [await store.usage_sums(self.account, 0, by) for by in ("model", "day", "key")],
                [await store.accounts_held(inc) for inc in self.incs],
                [await store.accounts_wanted(inc) for inc in self.incs],
                await store.shelf_page("machine", f"{self.incs[0]}:", "", 10),
                await store.shelf_page("machine", f"{self.incs[0]}:x", f"{self.incs[0]}:x", 10),
            ]

        for mine, other in zip(*self.run(_gather(look(self.model), look(self.their_faults.inner))), strict=True):
            assert mine == other

    def teardown(self) -> None:
        """Everything comes to rest: frames posted, movements applied, leases home; then records = rollups = charges."""
        if self.account not in self.model.accounts:
            return
        self.same_everything()
        self.faults = []
        for node, inc in enumerate(self.incs):
            for _ in range(2):
                self.send_frame(node, "all", None)
            assert self.frames[node] is None
            if self.call("lease_fence", self.account, inc):
                lease = self.lease(node)
                assert lease is not None
                assert self.call("lease_close", self.account, inc, self.doc.ver, lease.amount, lease.seq)
        finished = True
        for one in list(self.model.movements.values()):
            finished &= self.finish(one)
        while self.our_faults.late:
            self.late(0, True)
        self.same_account_and_section_8()
        self.same_everything()
        doc = self.doc
        assert doc.spent + doc.written_off == self.charged
        assert sum(one.sums["cost"] for one in self.model.rollups.values()) == self.charged
        assert sum(one.cost for one in self.model.usage.values()) == self.charged
        if finished:
            assert doc.credited == sum(m.took or 0 for m in self.model.movements.values())


async def _gather(*work: Coroutine[Any, Any, T]) -> list[T]:
    return [await one for one in work]


def explore(store: Store, examples: int) -> None:
    """Run the machine against `store` on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(store.open())
        try:
            run_state_machine_as_test(
                lambda: StoreMachine(store, runner.get_loop().run_until_complete),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=40,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(store.close())


@pytest.mark.deadline(120)
def test_sqlite_does_what_the_model_does(sqlite_place: SqlitePlace) -> None:
    explore(sqlite_place.make(), 100)


@pytest.mark.deadline(120)
def test_mongo_does_what_the_model_does(mongo_place: MongoPlace) -> None:
    explore(mongo_place.make(), 120)


@pytest.mark.deadline(120)
def test_the_model_keeps_its_own_invariants() -> None:
    explore(MemoryStore(), 100)
