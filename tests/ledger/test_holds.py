"""Holds: who gets one, who is refused, and that nothing is left of one after any ending.

The tests named `pitfall_N` are failures that users of other gateways reported, as N of the project's list of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurixel.errors import ClientError, CreditError, GatewayError, JournalError, StoreUnavailable
from aurixel.ledger import Ledger, Movements, verify
from aurixel.ledger.journal import Journal
from aurixel.ledger.liveness import beat
from aurixel.ledger.posting import post_round
from aurixel.ledger.returns import return_round, take_over
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import BRISK, TestClock, account, ending, fund, intent, ledger, records, request
from tests.storage.faults import FAULTS, Fault, flaky
from tests.storage.model import MemoryStore

WANT = 100


async def storm(nodes: list[Ledger], requests: int, least: int = WANT, cost: int | None = None) -> tuple[int, int]:
    """So many requests at once, spread over the nodes; each that is admitted stays until all others are decided.

    How many were admitted, and how much of all was granted.
    """
    granted: list[int] = []
    refused = 0
    decided = asyncio.Event()

    async def one(node: Ledger) -> None:
        nonlocal refused
        try:
            async with node.hold(intent(), WANT, least) as hold:
                granted.append(hold.amount)
                if len(granted) + refused == requests:
                    decided.set()
                await decided.wait()
                await hold.settle(ending(hold.amount if cost is None else cost))
        except CreditError:
            refused += 1
            if len(granted) + refused == requests:
                decided.set()

    async with asyncio.TaskGroup() as group:
        for number in range(requests):
            group.create_task(one(nodes[number % len(nodes)]))
    return len(granted), sum(granted)


async def test_pitfall_1_500_at_once_against_credit_for_7_admit_7(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 7 * WANT + WANT - 1)
    node = ledger(store, tmp_path)
    await node.start()
    assert await storm([node], 500) == (7, 7 * WANT)
    assert node.held("a") == 0
    await node.stop()
    doc = await account(store)
    assert (doc.available, doc.spent, doc.written_off) == (WANT - 1, 7 * WANT, 0)
    assert (await verify(store)).ok


async def test_pitfall_4_two_nodes_on_one_store_admit_7_together(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 7 * WANT)
    nodes = [ledger(store, tmp_path / name, BRISK, recall_wait=0.2) for name in ("1", "2")]
    for node in nodes:
        await node.start()
    assert await storm(nodes, 500) == (7, 7 * WANT)
    for node in nodes:
        await node.stop()
    doc = await account(store)
    assert (doc.available, doc.spent, doc.written_off) == (0, 7 * WANT, 0)
    assert (await verify(store)).ok


async def test_pitfall_2_after_a_storm_nothing_is_held(store: Store, tmp_path: Path) -> None:
    """Settled, released, raised, cancelled, refused: spend counts what was settled, and held is zero."""
    await fund(store, "a", 1_000_000)
    node = ledger(store, tmp_path)
    await node.start()

    async def one(number: int) -> None:
        with contextlib.suppress(ZeroDivisionError, CreditError):
            async with node.hold(intent(request_id=f"r{number:03d}"), WANT, WANT) as hold:
                await asyncio.sleep(0)
                match number % 5:
                    case 0:
                        await hold.settle(ending(number))
                    case 1:
                        raise ZeroDivisionError
                    case 2:
                        await asyncio.Event().wait()
                    case 3:
                        await hold.settle(ending(WANT + number))
                        raise ZeroDivisionError

    tasks = [asyncio.create_task(one(number)) for number in range(100)]
    await asyncio.sleep(0)
    tasks[47].cancel()  # on its way in
    await asyncio.wait([task for number, task in enumerate(tasks) if number % 5 != 2])
    assert node.held("a") == 19 * WANT
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert node.held("a") == 0
    totals = node.totals()
    assert (totals.held, totals.open) == (0, 0)
    await node.stop()
    doc = await account(store)
    assert doc.spent == sum(n for n in range(0, 100, 5)) + sum(WANT + n for n in range(3, 100, 5))
    assert doc.available == 1_000_000 - doc.spent
    assert (await verify(store)).ok


async def test_pitfall_3_a_rich_account_has_no_bypass(store: Store, tmp_path: Path) -> None:
    """From the first request to the last nano-dollar: never negative, and every hold has its cover in the lease."""
    await fund(store, "a", 10_000)
    node = ledger(store, tmp_path, lease_target=2000)
    await node.start()
    admitted = 0
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(CreditError):
            while True:
                await stack.enter_async_context(node.hold(intent(), WANT, WANT))
                admitted += 1
                doc = await account(store)
                assert doc.available >= 0
                assert doc.leases[node.inc].amount >= node.held("a") == admitted * WANT
        assert admitted == 100
        assert doc.available == 0
    await node.stop()
    assert (await account(store)).available == 10_000


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=25), st.integers(1, 2000))
async def test_credit_is_spendable_to_the_last_affordable_request(
    tmp_path_factory: pytest.TempPathFactory, credit: int, asked: list[tuple[int, int]], target: int
) -> None:
    """Holds that stay: each gets min(want, what is left) if that is at least `least`, else it is refused."""
    store = MemoryStore()
    await fund(store, "a", credit)
    node = ledger(store, tmp_path_factory.mktemp("j"), lease_target=target)
    await node.start()
    left = credit
    async with contextlib.AsyncExitStack() as stack:
        for pair in asked:
            least, want = sorted(pair)
            context = node.hold(intent(), want, least)
            if left >= least:
                hold = await stack.enter_async_context(context)
                assert hold.amount == min(want, left)
                left -= hold.amount
            else:
                with pytest.raises(CreditError):
                    await stack.enter_async_context(context)
    assert node.held("a") == 0
    await node.stop()
    assert (await account(store)).available == credit


async def test_a_poor_account_gets_exactly_what_it_asks_for_and_it_goes_home(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 3 * WANT)
    node = ledger(store, tmp_path)
    await node.start()
    async with node.hold(intent(), WANT, WANT) as hold:
        assert (await account(store)).leases[node.inc].amount == WANT
        await hold.settle(ending(30))
    await post_round(node._open_books())
    doc = await account(store)
    assert (doc.available, doc.leases) == (270, {})
    await node.stop()


async def test_a_rich_account_needs_the_store_once(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1_000_000)
    asked: list[str] = []
    store, _ = flaky(memory, asked.append)
    node = ledger(store, tmp_path, lease_target=50 * WANT)
    await node.start()
    asked.clear()
    for _ in range(50):
        await request(node, WANT, WANT)
    assert asked == ["lease_open"]
    await node.stop()


async def test_another_nodes_idle_lease_is_recalled(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 10 * WANT)
    first = ledger(store, tmp_path / "1", BRISK, idle_return=3600, lease_target=10 * WANT, rich=1)
    second = ledger(store, tmp_path / "2", BRISK)
    await first.start()
    await second.start()
    async with first.hold(intent(), WANT, WANT):
        assert (await account(store)).available == 0
        async with second.hold(intent(), 9 * WANT, 9 * WANT) as hold:
            assert hold.amount == 9 * WANT
    await first.stop()
    await second.stop()


async def test_nobody_waits_where_nobody_else_holds_any(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", WANT)
    node = ledger(memory, tmp_path, recall_wait=3600)
    await node.start()
    async with node.hold(intent(), WANT, WANT):
        with pytest.raises(CreditError):
            async with node.hold(intent(), WANT, WANT):
                raise AssertionError
    await node.stop()


async def test_idle_leases_go_home_and_running_ones_stay(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 100_000)
    node = ledger(store, tmp_path, idle_return=0, lease_target=5000)
    await node.start()
    books = node._open_books()
    async with node.hold(intent(), WANT, WANT) as hold:
        assert (await account(store)).leases[node.inc].amount == 5000
        await return_round(books)
        assert (await account(store)).leases[node.inc].amount == WANT
        await hold.settle(ending(40))
    await return_round(books)
    assert (await account(store)).leases[node.inc].amount == 40, "the cover of what is not posted stays"
    await post_round(books)
    await return_round(books)
    doc = await account(store)
    assert (doc.leases, doc.available) == ({}, 100_000 - 40)
    await return_round(books)
    assert not books.tabs
    await node.stop()


async def test_above_the_hold_comes_from_the_lease_then_the_account_then_the_operator(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path, lease_target=200, rich=5)
    await node.start()
    async with node.hold(intent(), WANT, WANT) as running, node.hold(intent(), WANT, WANT) as hold:
        assert (await account(store)).leases[node.inc].amount == 200
        await hold.settle(ending(150))
        await post_round(node._open_books())
        doc = await account(store)
        assert (doc.leases[node.inc].amount, doc.available) == (WANT, 750), "the running hold keeps its cover"
        await running.settle(ending(2000))
    await node.stop()
    doc = await account(store)
    assert (doc.available, doc.spent, doc.written_off) == (0, 1000, 1150)
    assert (await verify(store)).ok


async def test_a_hold_is_settled_once(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    node = ledger(memory, tmp_path)
    await node.start()
    async with node.hold(intent(), WANT, WANT) as hold:
        for wrong in (ending(-1), ending(2**62), ending(1, cell="crash"), ending(1, cell="nonsense")):
            with pytest.raises(ValueError, match=r"cost|ending"):
                await hold.settle(wrong)
        await hold.settle(ending(1))
        with pytest.raises(RuntimeError, match="once"):
            await hold.settle(ending(1))
    for least, want in ((-1, 1), (2, 1), (0, 2**62)):
        with pytest.raises(ValueError, match="hold"):
            node.hold(intent(), want, least)
    async with node.hold(intent(request_id="same"), WANT, WANT):
        with pytest.raises(ValueError, match="once"):
            async with node.hold(intent(request_id="same"), WANT, WANT):
                raise AssertionError
    assert node.held("a") == 0
    await node.stop()
    assert (await account(memory)).spent == 1


@pytest.mark.parametrize("fsync", ["batch", "always", "off"])
async def test_what_is_settled_is_charged_in_every_mode(memory: MemoryStore, tmp_path: Path, fsync: str) -> None:
    await fund(memory, "a", 1000)
    node = ledger(memory, tmp_path, fsync=fsync)
    await node.start()
    async with asyncio.TaskGroup() as group:
        for cost in range(5):
            group.create_task(request(node, cost, WANT))
    await node.stop()
    assert (await account(memory)).spent == 10


async def test_without_a_store_a_covered_hold_is_given_and_another_is_not(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    await fund(memory, "a", 100_000)
    await fund(memory, "b", 100_000)
    down = False

    def choose(name: str) -> str | None:
        return "dropped" if down else None

    store, _ = flaky(memory, choose)  # type: ignore[arg-type]
    node = ledger(store, tmp_path)
    await node.start()
    await request(node, 1, WANT)
    down = True
    await request(node, 1, WANT)
    with pytest.raises(GatewayError) as refused:
        await request(node, 1, WANT, "b")
    assert (refused.value.code, refused.value.retry_after) == ("store_unavailable", 1)
    with pytest.raises(StoreUnavailable):
        await post_round(node._open_books())
    down = False
    await request(node, 1, WANT, "b")
    await node.stop()
    assert ((await account(memory)).spent, (await account(memory, "b")).spent) == (2, 1)


async def test_a_store_that_hangs_is_no_answer(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    node = ledger(memory, tmp_path, store_patience=0.01)
    await node.start()

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    memory.account_read = hang  # type: ignore[method-assign,assignment]
    with pytest.raises(GatewayError) as refused:
        await request(node, 1, WANT)
    assert refused.value.code == "store_unavailable"
    del memory.account_read
    await request(node, 1, WANT)
    await node.stop()


@pytest.mark.parametrize(("outage_for", "allowed"), [(75, 75), (20, 20), (500, 75)])
async def test_no_hold_without_a_confirmed_beat(memory: MemoryStore, tmp_path: Path, outage_for: float, allowed: float) -> None:
    await fund(memory, "a", 1000)
    clock = TestClock()
    node = ledger(memory, tmp_path, clock=clock, admit_within=75, outage_for=outage_for)
    await node.start()
    clock.seconds += allowed - 0.1
    await request(node, 1, WANT)
    assert node.missing is None
    clock.seconds += 0.1
    assert node.missing == "the store was silent for too long"
    with pytest.raises(GatewayError) as refused:
        await request(node, 1, WANT)
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("store_unavailable", 503, 1)
    await beat(node._open_books())
    await request(node, 1, WANT)
    await node.stop()


async def test_usage_that_cannot_be_posted_is_bounded(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 10_000)
    await fund(memory, "b", 10_000)
    away: set[str] = set()
    store, _ = flaky(memory, lambda name: "lost" if name in away else None)
    node = ledger(store, tmp_path, unposted_limit=300)
    await node.start()
    for name in ("a", "b"):
        await request(node, 100, WANT, name)
    away |= {"post"}
    async with node.hold(intent("b"), WANT, WANT) as running:
        await request(node, 100, WANT)
        with pytest.raises(StoreUnavailable):
            await node.flush()
        assert node.totals().unposted == 300
        for name in ("a", "b"):
            with pytest.raises(GatewayError) as refused:
                await request(node, 1, WANT, name)
            assert refused.value.code == "store_unavailable"
        assert node.missing == "the store was silent for too long"
        await running.settle(ending(50))  # what runs ends as ever
    away.clear()
    await node.flush()
    assert (node.totals().unposted, node._open_books().unposted) == (0, 0)
    await request(node, 1, WANT)
    await node.stop()
    assert [(await account(memory, name)).spent for name in ("a", "b")] == [201, 150]


async def test_a_slow_store_is_posted_to_though_no_call_is_fast(memory: MemoryStore, tmp_path: Path) -> None:
    """Each call takes most of the store's patience: a round of several must not be cut as if it were one."""
    await fund(memory, "a", 1000)
    delay = 0.0

    class Slow:
        def __getattr__(self, name: str) -> Any:
            method = getattr(memory, name)

            async def call(*args: Any) -> Any:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await asyncio.Event().wait()
                return await method(*args)

            return call

    node = ledger(Slow(), tmp_path, store_patience=1.0)  # type: ignore[arg-type]
    await node.start()
    await request(node, 10, WANT)
    delay = 0.6
    await node.flush()
    delay = 0.0
    assert (await account(memory)).spent == 10
    await node.stop()


async def test_a_rich_accounts_lease_is_filled_up_as_usage_is_posted(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 20_000)
    asked: list[str] = []
    store, _ = flaky(memory, asked.append)  # type: ignore[func-returns-value]
    node = ledger(store, tmp_path, lease_target=1000)
    await node.start()
    for turn in range(20):
        asked.clear()
        for _ in range(4):  # two fifths of the lease
            await request(node, 100, WANT)
        assert (asked == []) == (turn > 0)
        await node.flush()
        assert (await account(memory)).leases[node.inc].amount >= 500
    assert (await account(memory)).spent == 8000
    await node.stop()
    doc = await account(memory)
    assert (doc.available, doc.leases) == (12_000, {})


async def test_an_open_that_lands_late_is_found_and_goes_home(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    faults = ["late"]
    store, late = flaky(memory, lambda name: faults.pop() if name == "lease_open" and faults else None)  # type: ignore[arg-type,return-value]
    node = ledger(store, tmp_path, idle_return=0)
    await node.start()
    with pytest.raises(GatewayError):
        await request(node, 1, WANT)
    await return_round(node._open_books())
    assert await late.land()
    assert (await account(memory)).leases
    await take_over(node._open_books())
    await return_round(node._open_books())
    assert (await account(memory)).leases == {}
    await node.stop()


@pytest.mark.parametrize("fault", ["lost", "late"])
async def test_what_an_unanswered_return_may_take_is_not_spent(memory: MemoryStore, tmp_path: Path, fault: str) -> None:
    await fund(memory, "a", 1000)
    faults: list[str] = []
    store, late = flaky(memory, lambda name: faults.pop() if name == "lease_return" and faults else None)  # type: ignore[arg-type,return-value]
    node = ledger(store, tmp_path, lease_target=1000, rich=1, idle_return=0)
    await node.start()
    books = node._open_books()
    async with node.hold(intent(), WANT, WANT):
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await return_round(books)
        tab = books.tabs["a"]
        assert (tab.amount, tab.free) == (1000, 0)
        other = ledger(memory, tmp_path / "2")  # whoever comes next may have it at once
        await other.start()
        if fault == "late":
            await late.land()
        async with other.hold(intent(), 900, 900):
            with pytest.raises(CreditError):
                async with node.hold(intent(), WANT, WANT):
                    raise AssertionError
        await other.stop()
    await node.stop()
    assert (await account(memory)).available == 1000


async def test_a_closing_account_gets_no_lease(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    assert await memory.account_closing("a")
    node = ledger(memory, tmp_path)
    await node.start()
    with pytest.raises(ClientError) as refused:
        await request(node, 1, WANT)
    assert refused.value.code == "account_suspended"
    await node.stop()


async def test_a_full_disk_refuses_holds_and_loses_no_settlement(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.ledger", "the journal: .*full", level=40, times=1)
    expected_logs("aurixel.ledger", "the journal is written again", times=1)
    await fund(memory, "a", 1000)
    node = ledger(memory, tmp_path)
    await node.start()
    assert node.missing is None

    def full(journal: Journal, entry: object) -> None:
        raise JournalError("the disk is full")

    async with node.hold(intent(request_id="r1"), WANT, WANT) as hold:
        monkeypatch.setattr(Journal, "append", full)
        await hold.settle(ending(7))
        with pytest.raises(GatewayError) as refused:
            await request(node, 1, WANT)
        assert refused.value.code == "journal_unavailable"
        assert (node.admitting, node.missing) == (True, "no journal")
        assert node.held("a") == 0
    with pytest.raises(JournalError):
        await post_round(node._open_books())
    assert (await account(memory)).spent == 0
    monkeypatch.undo()
    await post_round(node._open_books())
    assert (await account(memory)).spent == 7
    assert node.missing is None
    node._open_books().look_at_journal()
    node._open_books().look_at_journal()
    await request(node, 1, WANT)
    await node.stop()
    assert {name: r.cost for name, r in (await records(memory)).items() if name == "r1"} == {"r1": 7}


async def test_a_refusal_rests_on_the_store_and_not_on_memory(memory: MemoryStore, tmp_path: Path) -> None:
    """What the node last saw is not enough; since then somebody paid."""
    await fund(memory, "a", WANT)
    node = ledger(memory, tmp_path, recall_wait=0)
    await node.start()
    async with node.hold(intent(), WANT, WANT):
        await Movements(memory, TestClock()).apply("a", "second", "topup", WANT, "paid", "test")
        await request(node, 1, WANT)
    await node.stop()


async def test_a_lease_stays_while_a_frame_is_under_way(memory: MemoryStore, tmp_path: Path) -> None:
    """A close would erase the `seq` that tells whether the frame was posted."""
    await fund(memory, "a", 1000)
    for fault in FAULTS:
        faults: list[Fault] = []
        store, late = flaky(memory, lambda name, faults=faults: faults.pop() if name == "post" and faults else None)  # type: ignore[misc]
        node = ledger(store, tmp_path / fault, idle_return=0)
        await node.start()
        before = (await account(memory)).spent
        await request(node, 10, WANT)
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await post_round(node._open_books())
        await return_round(node._open_books())
        if fault != "lost":  # the look of the return round may have found it posted
            assert node.inc in (await account(memory)).leases
        await post_round(node._open_books())
        while late.late:
            await late.land()
        await node.stop()
        assert (await account(memory)).spent == before + 10
    assert (await verify(memory)).ok


async def test_who_has_waited_long_for_its_turn_has_the_stores_whole_patience_then(tmp_path: Path) -> None:
    """Else a queue that came at once would ask a slow store again and again, and nobody in it would hear the answer."""
    answer = asyncio.Event()

    class Slow(MemoryStore):
        async def lease_open(self, *args: Any) -> Any:
            await answer.wait()
            return await super().lease_open(*args)

    store = Slow()
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j", store_patience=3)
    await node.start()
    loop = asyncio.get_running_loop()
    async with node._open_books().tab("a").lock:
        asked = asyncio.create_task(request(node, 42, 100))
        await asyncio.wait((asked,), timeout=1.5)
    loop.call_later(2, answer.set)
    await asked
    await node.stop()
    assert (await account(store)).spent == 42
