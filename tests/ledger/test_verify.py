"""The proof finds what is wrong, and nothing in a system that is right, at rest or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from aurixel.ledger import verify
from aurixel.storage import Lease, Store
from tests.ledger.kit import BRISK, account, eventually, fund, ledger, request
from tests.storage.model import MemoryStore


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
        (double_charge, ["usage", "rollups"]),
        (forget_to_charge, ["usage"]),
        (credit_twice, ["movements"]),
        (lose_a_record, ["usage", "rollups"]),
        (lose_a_rollup, ["rollups"]),
        (add_a_rollup_twice, ["rollups"]),
        (go_below_zero, ["negative"]),
        (lose_a_holder, ["leases"]),
    ],
)
async def test_each_kind_of_damage_is_found(damage: Any, codes: list[str], tmp_path: Path) -> None:
    store = await used(tmp_path)
    damage(store)
    report = await verify(store)
    assert not report.ok
    assert [(fault.account, fault.code) for fault in report.faults] == [("a", code) for code in codes]
    assert report.accounts == 2


async def test_it_finds_nothing_in_a_system_at_work(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        await fund(store, name, 100_000)
    node = ledger(store, tmp_path, BRISK, idle_return=3600, lease_target=50_000)
    await node.start()
    at_work = True

    async def work(name: str) -> None:
        for number in range(100_000):
            if not at_work:
                return
            await request(node, number % 7, 20, name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(work(name))

        async def spending() -> bool:
            return (await account(store, "c")).spent > 0

        await eventually(spending)
        done: list[int] = []
        report = await verify(store, done.append)
        assert report.ok, report
        assert done == [1, 2, 3]
        at_work = False
    await node.stop()
    assert (await verify(store)).ok
