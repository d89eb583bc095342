"""One node from start to stop: requests are charged once, and nothing is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurixel.errors import CreditError, GatewayError, JournalError
from aurixel.storage import Store
from tests.ledger.kit import BRISK, account, ending, eventually, fund, intent, ledger, records, request


async def test_a_request_is_charged_what_it_cost(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    async with node.hold(intent(request_id="r1"), want=100, least=100) as hold:
        assert hold.amount == 100
        assert node.held("a") == 100
        await hold.settle(ending(42, input=7, output=3))
    assert node.held("a") == 0
    await node.stop()
    doc = await account(store)
    assert (doc.available, doc.spent, doc.written_off, doc.leases) == (958, 42, 0, {})
    record = (await records(store))["r1"]
    assert (record.cost, record.cell, record.counts, record.measured) == (42, "ok", {"input": 7, "output": 3}, True)
    [sums] = await store.usage_sums("a", 0, "model")
    assert sums.sums == {"requests": 1, "cost": 42, "input": 7, "output": 3}
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["lock"]
    assert [doc.state for doc in await store.nodes()] == ["done"]


async def test_a_hold_that_is_not_settled_costs_nothing_and_leaves_a_record(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    with pytest.raises(ZeroDivisionError):
        async with node.hold(intent(request_id="r1"), want=100, least=100):
            raise ZeroDivisionError
    assert node.held("a") == 0
    await node.stop()
    assert (await account(store)).available == 1000
    assert [(r.cell, r.cost) for r in (await records(store)).values()] == [("refused", 0)]


async def test_it_runs_by_itself(store: Store, tmp_path: Path) -> None:
    """Posts, returns of idle leases, beats: nobody calls them."""
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j", BRISK)
    await node.start()
    for _ in range(5):
        await request(node, 10, 100)

    async def at_home() -> bool:
        doc = await account(store)
        return doc.available == 950 and not doc.leases

    await eventually(at_home)
    await node.stop()


async def test_no_credit_no_hold(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 99)
    node = ledger(store, tmp_path / "j")
    await node.start()
    with pytest.raises(CreditError) as refused:
        async with node.hold(intent(), want=100, least=100):
            raise AssertionError
    assert refused.value.code == "credit_exhausted"
    with pytest.raises(CreditError):
        async with node.hold(intent("nobody"), want=1, least=1):
            raise AssertionError
    async with node.hold(intent(), want=200, least=50) as hold:
        assert hold.amount == 99
    await node.stop()
    assert (await account(store)).available == 99


async def test_a_stopped_ledger_gives_no_holds(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 100)
    node = ledger(store, tmp_path / "j")
    await node.start()
    await node.stop()
    with pytest.raises(GatewayError) as refused:
        async with node.hold(intent(), want=1, least=1):
            raise AssertionError
    assert refused.value.code == "shutting_down"


async def test_two_processes_cannot_share_a_journal(store: Store, tmp_path: Path) -> None:
    node = ledger(store, tmp_path / "j")
    await node.start()
    with pytest.raises(JournalError, match="another process"):
        await ledger(store, tmp_path / "j").start()
    await node.stop()
