"""A node that never comes back: what of its usage reached the store is charged once, wherever the giving up is cut, its
leases go home, and a journal that turns up afterwards is set aside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aurixel.errors import StoreUnavailable
from aurixel.ledger import AbandonRefused, Ledger, abandon, left_behind, verify
from aurixel.ledger.posting import post_round
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.faults import Blown, Fuse
from tests.ledger.kit import TestClock, account, crash, fund, ledger, records, request, until
from tests.storage.conftest import Place, mongo_place, place, sqlite_place, store
from tests.storage.faults import FAULTS, Fault, flaky

__all__ = ["mongo_place", "place", "sqlite_place", "store"]  # fixtures

DAY_MS = 86_400_000
CREDIT = 1000
# Posted; in the store and not posted; in the journal alone.
POSTED, STORED, LOST = 10, 70, 5


async def lost_node(store: Store, place: Place, folder: Path, credit: int = CREDIT, lease: int = 200) -> str:
    """A node that posted one request, stored the records of two more without posting them, settled a last one that only
    its journal knows, and died more than a day ago. It has a lease of another account, too, untouched."""
    await fund(store, "a", credit)
    await fund(store, "b", CREDIT)
    torn: list[Fault] = []
    shaky, _ = flaky(store, lambda name: torn.pop() if name == "post" and torn else None)
    node = ledger(shaky, folder)
    await node.start()
    inc = node.inc
    await request(node, POSTED, lease)
    await node.flush()
    await request(node, 30, 100)
    await request(node, STORED - 30, 100)
    torn.append("torn")
    with pytest.raises(StoreUnavailable):
        await post_round(node._open_books())
    await request(node, LOST, 50)
    await request(node, LOST, 300, "b")
    await crash(node)
    doc = await store.node_read(inc)
    assert doc is not None
    assert await store.node_dead(inc, doc.beat)
    place.age(inc, DAY_MS)
    return inc


async def check_given_up(store: Store, inc: str, written_off: int = 0, credit: int = CREDIT) -> None:
    """Everything in the store is charged, everything is home, and the books add up."""
    node = await store.node_read(inc)
    assert node is not None
    assert node.state == "abandoned"
    doc = await account(store)
    assert doc.leases == {}
    assert (doc.spent, doc.written_off) == (POSTED + STORED - written_off, written_off)
    assert doc.available == credit - doc.spent
    other = await account(store, "b")
    assert (other.leases, other.available) == ({}, CREDIT)
    assert sorted(record.cost for record in (await records(store)).values()) == sorted([POSTED, 30, STORED - 30])
    (line,) = await store.usage_sums("a", 0, "model")
    assert (line.sums["cost"], line.sums["requests"]) == (POSTED + STORED, 3)
    report = await verify(store)
    assert report.ok, report.faults


async def test_what_is_in_the_store_is_charged_and_the_leases_go_home(store: Store, place: Place, tmp_path: Path) -> None:
    inc = await lost_node(store, place, tmp_path / "1")
    left = await left_behind(store, inc)
    assert (left.accounts, left.unposted) == (("a", "b"), STORED)
    leased = (await account(store)).leases[inc].amount + (await account(store, "b")).leases[inc].amount
    assert left.leased == leased
    done: list[int] = []
    given = await abandon(store, inc, done.append)
    assert (given.closed, given.posted, given.written_off) == (2, STORED, 0)
    assert given.returned == leased - STORED
    assert done == [1, 2]
    await check_given_up(store, inc)
    again = await abandon(store, inc)
    assert (again.closed, again.posted, again.returned) == (0, 0, 0)
    await check_given_up(store, inc)


async def test_after_a_reclaim_the_account_pays_and_the_rest_is_written_off(store: Store, place: Place, tmp_path: Path) -> None:
    inc = await lost_node(store, place, tmp_path / "1", credit=250)
    doc = await account(store)
    assert await store.lease_reclaim("a", inc, doc.ver, doc.leases[inc].amount)
    spender = ledger(store, tmp_path / "2")
    await spender.start()
    await request(spender, 200, 200)  # of 250, 10 are spent: 40 are left for 70
    await spender.stop()
    given = await abandon(store, inc)
    assert (given.posted, given.written_off) == (STORED, STORED - 40)
    doc = await account(store)
    assert (doc.available, doc.spent, doc.written_off, doc.leases) == (0, 250, 30, {})
    report = await verify(store)
    assert report.ok, report.faults


async def test_a_crash_at_any_step_and_it_is_run_again(place: Place, tmp_path: Path) -> None:
    """Steps are writes to the store; each is the last thing the command does once, undone and done."""
    steps = 5  # node_abandon; a: post, close; b: close; and one beyond
    for number, (at, after) in enumerate([(at, after) for at in range(1, steps + 1) for after in (False, True)]):
        case = type(place)(tmp_path / f"{number}.db") if place.kind == "sqlite" else place  # type: ignore[call-arg]
        await one_crash(case, tmp_path / f"journal-{number}", at, after, last=at == steps)
        if place.kind != "sqlite":
            await wipe(case)


async def one_crash(place: Place, folder: Path, at: int, after: bool, *, last: bool) -> None:
    store = place.make()
    await store.open()
    try:
        inc = await lost_node(store, place, folder)
        fuse = Fuse()
        fuse.arm(at, after)
        try:
            await abandon(fuse.store(store), inc)
        except Blown:
            assert not last
        else:
            assert last, "there are more steps than were tried"
        await abandon(store, inc)
        await check_given_up(store, inc)
    finally:
        await store.close()


async def wipe(place: Place) -> None:
    """An empty store in the same place."""
    if place.kind == "mongo":
        with place.client() as client:  # type: ignore[attr-defined]
            client.drop_database(client.get_default_database())
    else:
        place.__init__()  # type: ignore[misc]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["node_abandon", "post", "lease_close"])
async def test_answers_that_get_lost_and_calls_that_land_late(
    store: Store, place: Place, tmp_path: Path, name: str, fault: Fault
) -> None:
    inc = await lost_node(store, place, tmp_path / "1")
    faults = [fault]
    shaky, late = flaky(store, lambda called: faults.pop() if called == name and faults else None)
    await until(lambda: abandon(shaky, inc))
    while late.late:
        await late.land()
    await check_given_up(store, inc)


async def test_two_who_give_it_up_at_once(store: Store, place: Place, tmp_path: Path) -> None:
    inc = await lost_node(store, place, tmp_path / "1")
    first, second = await asyncio.gather(abandon(store, inc), abandon(store, inc))
    assert first.closed + second.closed == 2
    await check_given_up(store, inc)


async def test_while_the_account_is_used_elsewhere(store: Store, place: Place, tmp_path: Path) -> None:
    inc = await lost_node(store, place, tmp_path / "1")
    other = ledger(store, tmp_path / "2")
    await other.start()

    async def use() -> None:
        for _ in range(20):
            await request(other, 1, 40)
            await other.flush()

    await asyncio.gather(abandon(store, inc), use())
    await other.stop()
    doc = await account(store)
    assert (doc.spent, doc.written_off, doc.leases) == (POSTED + STORED + 20, 0, {})
    report = await verify(store)
    assert report.ok, report.faults


async def test_a_journal_that_turns_up_afterwards_is_set_aside(
    store: Store, place: Place, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.ledger", "journal of abandoned node .* is set aside", level=40, times=1)
    inc = await lost_node(store, place, tmp_path / "1")
    await abandon(store, inc)
    back = ledger(store, tmp_path / "1")
    await back.start()
    await back.stop()
    assert (tmp_path / "1" / f"{inc}.abandoned").is_dir()
    await check_given_up(store, inc)


async def test_a_lease_that_lands_after_all_is_closed_by_running_it_again(store: Store, place: Place, tmp_path: Path) -> None:
    inc = await lost_node(store, place, tmp_path / "1")
    await abandon(store, inc)
    assert await store.lease_open("b", inc, (await account(store, "b")).ver, 100, 9)
    assert (await abandon(store, inc)).closed == 1
    await check_given_up(store, inc)


async def test_a_node_that_may_come_back_is_not_given_up(store: Store, place: Place, tmp_path: Path) -> None:
    node: Ledger = ledger(store, tmp_path / "1", clock=TestClock())
    await node.start()
    inc = node.inc

    async def refused() -> str:
        with pytest.raises(AbandonRefused) as error:
            await abandon(store, inc)
        return error.value.code

    assert await refused() == "node_not_dead"
    doc = await store.node_read(inc)
    assert doc is not None
    assert await store.node_dead(inc, doc.beat)
    assert await refused() == "node_dead_lately"
    place.age(inc, DAY_MS - 60_000)
    assert await refused() == "node_dead_lately"
    assert await store.node_claim(inc, "r" * 26)
    assert await refused() == "node_not_dead"
    await crash(node)
    again = ledger(store, tmp_path / "1")
    await again.start()
    await again.stop()
    assert await refused() == "node_done"
    inc = "n" * 26
    assert await refused() == "node_unknown"
