"""Repairs: each mends what it says, changes nothing until it is told to, and refuses what only a human can decide."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aurixel.ledger import verify
from aurixel.ledger.repair import ADVICE, REPAIRS, Step
from aurixel.ledger.verify import CODES
from aurixel.storage import Store
from tests.ledger.kit import HOUR_MS, TestClock, account, fund, ledger, request
from tests.storage.model import MemoryStore
from tests.storage.samples import leased, movement, post, record, rollup

HOUR = 472_222


async def plan(store: Store, name: str, only: str | None = None) -> list[Step]:
    return [step async for step in REPAIRS[name].plan(store, TestClock(), only)]


async def repair(store: Store, name: str, only: str | None = None) -> list[bool]:
    steps = await plan(store, name, only)
    assert not [step for step in steps if step.refused]
    return [await step.do() for step in steps if step.do is not None]


def test_every_fault_has_advice() -> None:
    assert ADVICE.keys() == set(CODES)
    assert all(f"repair {name}`" in ADVICE["rollups"] or name != "rollups" for name in REPAIRS)


# --- movements ----------------------------------------------------------------------------------------------------------


async def test_movements_are_finished_wherever_they_stopped(store: Store) -> None:
    await fund(store, "a", 1000)
    await fund(store, "b", 1000)
    for name in ("a", "b"):
        assert await store.movement_put(movement(2, "m2", 5, account=name))
    assert await store.movement_apply("b", 2, 5, 5, 0)
    steps = await plan(store, "finish-movements")
    assert [step.account for step in steps] == ["a", "b"]
    assert "finish movement 2, a topup of 0.000000005 USD (m2)" in steps[0].what
    assert (await account(store, "a")).available == 1000  # nothing is done by planning
    assert [step.account for step in await plan(store, "finish-movements", "b")] == ["b"]
    assert await repair(store, "finish-movements") == [True, True]
    assert [(await account(store, name)).available for name in ("a", "b")] == [1005, 1005]
    assert await plan(store, "finish-movements") == []
    assert (await verify(store)).ok


async def test_a_movement_of_a_removed_account_is_for_a_human() -> None:
    store = MemoryStore()
    await store.account_new("a")
    await store.movement_put(movement())
    await store.account_closing("a")
    assert await store.account_remove("a")
    (step,) = await plan(store, "finish-movements")
    assert step.do is None
    assert "removed" in step.refused


# --- leases -------------------------------------------------------------------------------------------------------------


async def test_the_lease_of_a_node_that_is_done_goes_home_and_no_other(store: Store) -> None:
    doc = await leased(store)
    await store.lease_open("a", "n2", doc.ver, 100, 0)
    for inc in ("n1", "n2"):
        await store.node_start(inc, "host")
    assert await plan(store, "close-done-leases") == []  # both live
    await store.node_claim("n1", "n2")
    await store.node_done("n1", "n2")
    assert await repair(store, "close-done-leases") == [True]
    doc = await account(store)
    assert (doc.available, sorted(doc.leases)) == (900, ["n2"])
    assert (await verify(store)).ok


async def test_leases_of_nodes_that_are_not_done_are_refused() -> None:
    store = MemoryStore()
    doc = await leased(store)
    await store.lease_open("a", "n2", doc.ver, 100, 0)
    await store.node_start("n1", "host")
    await store.node_dead("n1", 0)
    refused = [step.refused for step in await plan(store, "close-done-leases")]
    assert [words.partition(":")[0] for words in refused] == ["the node is dead", "the node is not known"]
    await store.node_start("n2", "host")
    await store.node_claim("n2", "n1")
    await store.node_done("n2", "n1")
    await store.post([record(inc="n2", s=9)], [], [])
    refused = [step.refused for step in await plan(store, "close-done-leases")]
    assert "beyond what is posted" in refused[1]


# --- rollups ------------------------------------------------------------------------------------------------------------


async def ended(store: Store, tmp_path: Path) -> None:
    """An account that a node used and then ended: three requests, two frames."""
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path)
    await node.start()
    await request(node, 30, 100)
    await node.flush()
    await request(node, 40, 100)
    await request(node, 0, 100)
    await node.stop()


async def test_rollups_are_made_anew_from_records(store: Store, tmp_path: Path) -> None:
    await ended(store, tmp_path)
    assert await plan(store, "rollups") == []
    (right,) = await store.rollups_page("a", 0, 10)
    for wrong in ({"requests": 9, "cost": 70, "input": 3}, {}, {"requests": 3, "cost": 70, "input": 3, "output": 1}):
        (now,) = await store.rollups_page("a", 0, 10)
        assert await store.rollup_mend(replace(now, s=now.s + 1, sums=wrong), now.s)
        assert [fault.code for fault in (await verify(store)).faults] == ["rollups"]
        (step,) = await plan(store, "rollups")
        assert "become 3 requests at 0.00000007 USD" in step.what
        assert step.do is not None
        assert await step.do()
        assert not await step.do()  # the same plan again finds another rollup
        assert (await verify(store)).ok
        assert [each.sums for each in await store.rollups_page("a", 0, 10)] == [right.sums]


async def test_a_lost_rollup_comes_back() -> None:
    store = MemoryStore()
    await leased(store)
    await store.post([record("r1", 7)], [rollup()], [post()])
    lost = store.rollups.pop(rollup().id)
    await store.node_start("n1", "host")
    await store.node_claim("n1", "n2")
    await store.node_done("n1", "n2")
    assert await plan(store, "rollups") == []  # it has a lease: a late post may still come
    await repair(store, "close-done-leases")
    assert await repair(store, "rollups") == [True]
    assert store.rollups[lost.id].sums["cost"] == 7
    await store.post([], [rollup()], [])  # what its node had sent lands late
    assert (await verify(store)).ok


async def test_rollups_of_a_live_node_or_with_lost_records_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    await leased(store)
    await store.node_start("n1", "host")
    await store.post([record("r1", 7, counts={})], [rollup()], [post()])
    await store.post([record("r2", 5, s=8, counts={})], [], [])  # on its way
    assert await plan(store, "rollups") == []
    store.rollups[rollup().id] = replace(store.rollups[rollup().id], sums={"cost": 8})
    (step,) = await plan(store, "rollups")
    assert (step.do, "may still add" in step.refused) == (None, True)
    store.usage.clear()
    (step,) = await plan(store, "rollups")
    assert (step.do, "records may be lost" in step.refused) == (None, True)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([None, 5, 6, 8, 9, 12]),
    st.lists(st.integers(0, 3), max_size=8),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
async def test_a_mended_rollup_is_right_whatever_lands_late_and_whenever(
    damaged: int | None, again: list[int], counts: list[int]
) -> None:
    """Its node is done; each add it ever sent may land again at any time; two repairs run at once; it was damaged."""
    store = MemoryStore()
    await leased(store)
    await store.node_start("n1", "host")
    sent = []
    for s in range(6, 10):
        sums = {"requests": 1, "cost": 1, "input": 2}
        sent.append(rollup(s=s, hour=HOUR, sums=sums))
        one = record(f"r{s}", 1, s=s, counts={"input": 2}, at_ms=HOUR * HOUR_MS)
        await store.post([one], [sent[-1]], [post(prev=s - 1, s=s, lease=1)])
    await store.node_claim("n1", "n2")
    await store.node_done("n1", "n2")
    await repair(store, "close-done-leases")
    if damaged is None:
        store.rollups.clear()
    else:
        store.rollups[sent[0].id] = replace(sent[0], s=damaged, sums={"cost": 3})
    late, turns = (sent[which] for which in again), iter(counts)
    plans = [await plan(store, "rollups"), []]

    async def lands() -> None:
        for add in itertools.islice(late, next(turns, 1)):
            await store.post([], [add], [])

    await lands()
    plans[1] = await plan(store, "rollups")
    for step in (*plans[0], *plans[1]):
        await lands()
        assert step.do is not None
        await step.do()
    for add in late:
        await store.post([], [add], [])
    await repair(store, "rollups")
    assert store.rollups[sent[0].id].sums == {"requests": 4, "cost": 4, "input": 8}
    assert (await verify(store)).ok


@pytest.mark.parametrize("name", list(REPAIRS))
async def test_there_is_nothing_to_repair_where_nothing_is_wrong(name: str, tmp_path: Path) -> None:
    store = MemoryStore()
    await ended(store, tmp_path)
    assert await plan(store, name) == []
    assert await plan(store, name, "nobody") == []
