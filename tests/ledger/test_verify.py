"""The proof finds what is wrong, and nothing in a system that is right, at rest or not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aurixel.ledger import Fault, Movements, Refused, records, verify
from aurixel.ledger.verify import CODES
from aurixel.storage import Lease, Store, UsageRecord
from tests.ledger.kit import BRISK, HOUR_MS, TestClock, account, eventually, fund, ledger, request
from tests.storage.model import MemoryStore
from tests.storage.samples import movement, post, record, rollup

verifying = sys.modules["aurixel.ledger.verify"]  # the package's own `verify` is the function


async def used(tmp_path: Path) -> MemoryStore:
    store = MemoryStore()
    await fund(store, "a", 1000)
    await fund(store, "b", 1000)
    node = ledger(store, tmp_path)
    await node.start()
    await request(node, 30, 100)
    await node.stop()
    assert (await verify(store)).ok
    return store


def lose_money(store: MemoryStore) -> None:
    store.accounts["a"] = replace(store.accounts["a"], available=store.accounts["a"].available - 1)


def double_charge(store: MemoryStore) -> None:
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=doc.available - 30, spent=doc.spent + 30)


def forget_to_charge(store: MemoryStore) -> None:
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=doc.available + 30, spent=doc.spent - 30)


def credit_twice(store: MemoryStore) -> None:
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=doc.available + 1000, credited=doc.credited + 1000)


def lose_a_record(store: MemoryStore) -> None:
    store.usage.clear()


def lose_a_rollup(store: MemoryStore) -> None:
    store.rollups.clear()


def add_a_rollup_twice(store: MemoryStore) -> None:
    [(key, rollup)] = store.rollups.items()
    store.rollups[key] = replace(rollup, sums={name: 2 * n for name, n in rollup.sums.items()})


def count_a_record_twice(store: MemoryStore) -> None:
    [(key, rollup)] = store.rollups.items()
    store.rollups[key] = replace(rollup, sums={**rollup.sums, "requests": 2})


def forget_the_last_frame(store: MemoryStore) -> None:
    [(key, rollup)] = store.rollups.items()
    store.rollups[key] = replace(rollup, s=rollup.s - 1, sums={})


def charge_a_record_more(store: MemoryStore) -> None:
    """In the record, the rollup and the account alike: only the price tells."""
    [record] = store.usage.values()
    [(key, rollup)] = store.rollups.items()
    store.usage[record.request_id] = replace(record, cost=31)
    store.rollups[key] = replace(rollup, sums={**rollup.sums, "cost": 31})
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=doc.available - 1, spent=doc.spent + 1)


def go_below_zero(store: MemoryStore) -> None:
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=-5, leases={"i" * 26: Lease(975, 0)}, holders=("i" * 26,))


def lose_a_holder(store: MemoryStore) -> None:
    doc = store.accounts["a"]
    store.accounts["a"] = replace(doc, available=0, leases={"i" * 26: Lease(doc.available, 0)})


@pytest.mark.parametrize(
    ("damage", "codes"),
    [
        (lose_money, ["sum"]),
        (double_charge, ["usage"]),
        (forget_to_charge, ["usage"]),
        (credit_twice, ["movements"]),
        (lose_a_record, ["usage", "rollups"]),
        (lose_a_rollup, ["rollups"]),
        (add_a_rollup_twice, ["rollups"]),
        (count_a_record_twice, ["rollups"]),
        (forget_the_last_frame, ["rollups"]),
        (charge_a_record_more, ["charge"]),
        (go_below_zero, ["negative"]),
        (lose_a_holder, ["leases"]),
    ],
)
async def test_each_kind_of_damage_is_found(damage: Any, codes: list[str], tmp_path: Path) -> None:
    store = await used(tmp_path)
    damage(store)
    told: list[Fault] = []
    report = await verify(store, charges=Thirty(), found=told.append)
    assert not report.ok
    assert [(fault.account, fault.code) for fault in report.faults] == [("a", code) for code in codes]
    assert told == report.faults
    assert {fault.code for fault in told} <= set(CODES)
    assert report.accounts == 2
    assert report.records == len(store.usage)
    quick = await verify(store, quick=True)
    assert {fault.code for fault in quick.faults} <= {*codes, "rollups"}
    assert quick.records == 0
    if damage not in (count_a_record_twice, charge_a_record_more):
        assert not quick.ok


class Thirty:
    """A catalogue by which every request costs 30."""

    async def load(self, versions: Iterable[int]) -> None: ...

    def expected(self, record: UsageRecord) -> int:
        return 30


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("movement 2 is missing", {2: None}),
        ("movement 1 is missing", {1: None}),
        ("movement 3 was applied, and the last there is is 2", {3: None}),
        ("movement 2 was applied, and is still open", {2: {"took": None}}),
        ("movement 2, a topup of 0.000000005, took 0.000000006", {2: {"took": 6}}),
        ("movement 3, a refund of -0.000000004, took -0.000000003", {3: {"took": -3}}),
        ("movement 3 took 0.00, applied was -0.000000004", {3: {"took": 0}}),
        ("movement 4 is closed, and the last one applied is 3", {4: {"took": 1}}),
        ("movement 5 is there, and the last one applied is 3", {4: {}, 5: {}}),
        ("credited is 0.000001001, its movements took 0.000001", {2: {"amount": 4, "took": 4}}),
    ],
)
async def test_each_fault_of_the_movements_is_found(words: str, changes: dict[int, dict[str, Any] | None]) -> None:
    store = MemoryStore()
    await fund(store, "a", 1000)
    movements = Movements(store, TestClock())
    await movements.apply("a", "two", "topup", 5, "", "")
    await movements.apply("a", "three", "refund", -4, "", "")
    assert (await verify(store)).ok
    for n, change in changes.items():
        if change is None:
            del store.movements["a", n]
        else:
            like = store.movements.get(("a", n)) or movement(n, f"m{n}", 1)
            store.movements["a", n] = replace(like, **change)
    report = await verify(store)
    assert {fault.code for fault in report.faults} == {"movements"}
    assert words in [fault.text for fault in report.faults]


async def test_a_movement_that_is_half_done_is_named_and_no_fault() -> None:
    store = MemoryStore()
    await fund(store, "a", 1000)
    await store.movement_put(movement(2, "put", 5))
    report = await verify(store)
    assert report.ok
    assert [(each.account, each.n) for each in report.open] == [("a", 2)]
    await store.movement_apply("a", 2, 5, 5, 0)
    report = await verify(store)
    assert report.ok
    assert [each.n for each in report.open] == [2]
    await store.movement_close("a", 2, 5)
    assert (await verify(store)).open == []


async def test_a_refund_that_was_refused_and_a_dispute_that_took_what_was_there_are_right() -> None:
    store = MemoryStore()
    await fund(store, "a", 1000)
    movements = Movements(store, TestClock())
    with pytest.raises(Refused):
        await movements.apply("a", "refund", "refund", -1001, "", "")
    await movements.apply("a", "dispute", "dispute", -1001, "", "")
    assert (await verify(store)).ok


async def test_records_of_cost_0_may_be_on_their_way_for_as_long_as_their_node_is_not_done() -> None:
    store = MemoryStore()
    await fund(store, "a", 1000)
    await store.node_start("n1", "host")
    await store.post([record("r1", cost=0)], [], [])
    assert (await verify(store)).ok
    await store.node_claim("n1", "n2")
    await store.node_done("n1", "n2")
    assert [fault.code for fault in (await verify(store)).faults] == ["rollups"]


async def test_more_rollups_and_records_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that end within an hour, at its end, and that one hour fills."""
    store = MemoryStore()
    await fund(store, "a", 1000)
    await store.lease_open("a", "n1", 0, 900, 0)
    s = 0
    for hour, count in ((10, 1), (11, 7), (12, 3), (15, 2)):
        for number in range(count):
            s += 1
            one = record(f"r{s}", cost=1, s=s, at_ms=hour * HOUR_MS + 5 - number % 2, key_id=f"k{number}", counts={"input": 2})
            sums = {"requests": 1, "cost": 1, "input": 2}
            add = rollup(s=s, hour=hour, key_id=f"k{number}", sums=sums)
            await store.post([one], [add], [post(prev=s - 1, s=s, lease=1)])
    lost = replace(store.rollups["a:12:small:k2:n1"])
    for size in range(1, 15):
        monkeypatch.setattr(records, "ROLLUPS", size)
        monkeypatch.setattr(records, "RECORDS", size)
        report = await verify(store)
        assert report.ok, (size, report.faults)
        assert report.records == 13
        del store.rollups[lost.id]
        found = await verify(store)
        store.rollups[lost.id] = lost
        assert [(fault.code, fault.text[:2]) for fault in found.faults] == [("rollups", "1 ")], size


class Moving(MemoryStore):
    """Between two reads of the proof, others work: so many of their steps."""

    def __init__(self, schedule: list[int]) -> None:
        super().__init__()
        self._schedule = iter(schedule)
        self.steps: Iterator[Coroutine[Any, Any, Any]] = iter(())
        self.proving = False

    async def _others(self) -> None:
        if not self.proving:
            return
        self.proving = False
        for _ in range(next(self._schedule, 1)):
            if (step := next(self.steps, None)) is not None:
                assert await step not in (None, False) or step.__name__ == "post"
        self.proving = True


for _name in (
    "account_read",
    "accounts_page",
    "movements_page",
    "usage_cost",
    "usage_page",
    "usage_sums",
    "rollups_page",
    "node_read",
    "movements_open",
):

    def _watched(name: str) -> Any:
        async def read(self: Moving, *args: Any) -> Any:
            await self._others()
            return await getattr(super(Moving, self), name)(*args)

        return read

    setattr(Moving, _name, _watched(_name))


def at_work(store: MemoryStore) -> Iterator[Coroutine[Any, Any, Any]]:
    """Two nodes and an operator, one step of the protocol at a time, each as its document then is."""
    s = 0
    for turn, inc in enumerate(("n1", "n2", "n1", "n2", "n1")):
        yield store.lease_open("a", inc, store.accounts["a"].ver, 100, s)
        for _ in range(2):
            s += 1
            at = (472_222 + turn % 2) * HOUR_MS + s
            frame = [record(f"r{s}-{n}", cost=n, s=s, inc=inc, at_ms=at, counts={"input": 1}) for n in (3, 4)]
            yield store.post(frame[:1], [], [])
            yield store.post(frame[1:], [], [])
            sums = {"requests": 2, "cost": 7, "input": 2}
            yield store.post([], [rollup(s, inc=inc, hour=472_222 + turn % 2, sums=sums)], [])
            seq = store.accounts["a"].leases[inc].seq
            yield store.post([], [], [post(inc=inc, prev=seq, s=s, lease=5, available=2)])
        n = store.accounts["a"].log.n + 1
        yield store.movement_put(movement(n, f"m{n}", 9))
        yield store.movement_apply("a", n, 9, 9, 0)
        yield store.movement_close("a", n, 9)
        doc = store.accounts["a"]
        yield store.lease_close("a", inc, doc.ver, doc.leases[inc].amount, doc.leases[inc].seq)
        s += 1
        yield store.post([record(f"free{s}", cost=0, s=s, inc=inc, at_ms=472_223 * HOUR_MS, counts={})], [], [])
        yield store.post([], [rollup(s, inc=inc, hour=472_223, sums={"requests": 1, "cost": 0})], [])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=25), st.booleans(), st.integers(0, 40))
async def test_whatever_happens_between_two_reads_nothing_is_found_that_is_not_there(
    schedule: list[int], quick: bool, before: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "PAUSE_S", 0)
        patch.setattr(records, "RECORDS", 3)
        patch.setattr(records, "ROLLUPS", 2)
        store = Moving(schedule)
        await fund(store, "a", 1000)
        store.steps = at_work(store)
        for _ in range(before):
            await next(store.steps)
        store.proving = True
        report = await verify(store, quick=quick)
        assert report.ok, report.faults
        store.proving = False
        for step in store.steps:
            await step
        assert (await verify(store)).ok


async def test_it_finds_nothing_in_a_system_at_work(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        await fund(store, name, 1_000_000)
    node = ledger(store, tmp_path, BRISK, idle_return=3600, lease_target=50_000)
    await node.start()
    at_work = True

    async def work(name: str) -> None:
        for number in range(100_000):
            if not at_work:
                return
            await request(node, number % 2, 20, name)
            await store.ping()  # no faster than the store, or its posts would never have their turn
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(work(name))

        async def spending() -> bool:
            return (await account(store, "c")).spent > 0

        await eventually(spending)
        done: list[int] = []
        for quick in (False, True):
            report = await verify(store, quick=quick, progress=lambda accounts, _: done.append(accounts))
            assert report.ok, report
            assert sorted(set(done)) in ([0, 1, 2, 3], [1, 2, 3])
            done.clear()
        at_work = False
    await node.stop()
    assert (await verify(store)).ok
