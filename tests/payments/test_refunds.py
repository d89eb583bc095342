"""The operator's refunds: what they take, how the processor is asked, and what silence, a no and a late no come to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from aurixel.ledger import verify
from aurixel.payments import CENT, OrderRefused, Sweep, decide, refund
from aurixel.payments.orders import to_doc
from aurixel.plugin.billing import BillingError
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import BRISK, TestClock, intent, ledger
from tests.payments.acme import Processor
from tests.payments.kit import USD, Counted, acme, begun, cents, ended, fulfilment, funds, paid, refunded, spend, take
from tests.storage.model import MemoryStore


async def test_a_refund_takes_the_credit_and_asks_once(store: Store, tmp_path: Path) -> None:
    await begun(store)
    made = fulfilment(store)
    await take(made, paid())
    for _ in range(2):
        order, done = await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op", reason="asked")
        assert (order.state, done.state, done.amount, done.id) == ("partly_refunded", "done", 300 * CENT, "re_6")
    assert Processor(tmp_path).read()["refunds"] == {"o1:x:1": ["p1", 300]}
    await take(made, refunded(300))
    assert (await made.read("o1")).elsewhere == 0
    order, done = await refund(made, acme(tmp_path), "o1", amount=None, name="all", author="op")
    assert (order.state, done.amount, order.given_back) == ("refunded", 700 * CENT, 1000 * CENT)
    await take(made, refunded(1000))
    order = await made.read("o1")
    assert (order.elsewhere, order.loss, await cents(store)) == (0, 0, 0)
    assert (await verify(store)).ok


async def test_a_refund_takes_at_most_what_is_available(store: Store, tmp_path: Path) -> None:
    await begun(store)
    made = fulfilment(store)
    await take(made, paid())
    await spend(store, 650)
    for _ in range(2):  # refused, and again
        with pytest.raises(OrderRefused) as refused:
            await refund(made, acme(tmp_path), "o1", amount=400 * CENT, name="x", author="op")
        assert refused.value.code == "not_covered"
    assert await cents(store) == 350
    assert Processor(tmp_path).read()["refunds"] == {}
    order, done = await refund(made, acme(tmp_path), "o1", amount=None, name="x", author="op")
    assert (done.amount, done.attempt, order.state) == (350 * CENT, 3, "partly_refunded")
    with pytest.raises(OrderRefused) as refused:
        await refund(made, acme(tmp_path), "o1", amount=None, name="y", author="op")
    assert refused.value.code == "nothing_left"


async def test_all_of_it_leaves_what_running_requests_hold(memory: MemoryStore, tmp_path: Path) -> None:
    await begun(memory)
    made = fulfilment(memory)
    await take(made, paid())
    node = ledger(memory, tmp_path / "journal", BRISK, idle_return=3600, rich=1)
    await node.start()
    async with node.hold(intent(), 150 * CENT + 1, 150 * CENT + 1):
        order, done = await refund(made, acme(tmp_path), "o1", amount=None, name="all", author="op")
        assert (done.amount, order.given_back) == (849 * CENT, 849 * CENT)
    await node.stop()
    assert (await funds(memory)).available == 151 * CENT


@pytest.mark.parametrize("mood", ["silent", "lost"])
async def test_silence_keeps_the_credit_and_the_sweep_goes_on(
    memory: MemoryStore, tmp_path: Path, mood: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "order o1: a refund waits: its backend gives no answer", times=1)
    expected_logs("aurixel.payments", "a refund waits: its backend has no block in the configuration", times=1)
    processor = Processor(tmp_path)
    processor.write(answer=mood)
    await begun(memory)
    counted = Counted()
    made = fulfilment(memory, counted)
    await take(made, paid())
    with pytest.raises(BillingError):
        await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
    order = await made.read("o1")
    assert (order.refunds[0].state, order.open, await cents(memory)) == ("asking", True, 700)
    sweep = Sweep(made, {"acme": acme(tmp_path)})
    assert [await sweep.round(), await sweep.round()] == [1, 1]
    assert await Sweep(made, {}).round() == 1
    assert counted.lefts[-1][0] == 1
    processor.write(answer="done")
    assert await sweep.round() == 0
    assert counted.lefts[-1] == (0, 0.0)
    assert (await made.read("o1")).refunds[0].state == "done"
    assert processor.read()["refunds"] == {"o1:x:1": ["p1", 300]}


async def test_what_waits_is_as_old_as_the_work_and_not_as_its_order(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """An order of last year whose refund waits for a minute is no reason to wake anybody."""
    expected_logs("aurixel.payments", "a refund waits: its backend gives no answer", times=1)
    processor, clock, counted = Processor(tmp_path), TestClock(), Counted()
    processor.write(answer="silent")
    await begun(memory)
    made = fulfilment(memory, counted, clock)
    await take(made, paid())
    clock.ms += 365 * 86_400_000
    with pytest.raises(BillingError):
        await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
    clock.ms += 60_000
    assert await Sweep(made, {"acme": acme(tmp_path)}).round() == 1
    assert counted.lefts == [(1, 60.0)]


async def test_an_order_that_cannot_be_read_keeps_no_other_from_being_finished(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """One that a newer version wrote, say."""
    expected_logs("aurixel.payments", "order a1 cannot be finished: ValidationError", level=40, times=1)
    counted = Counted()
    made = fulfilment(memory, counted)
    newer = to_doc(await begun(memory, "a1"))
    assert await memory.order_swap(msgspec.structs.replace(newer, rev=2, open=True, body=b'{"id": 1}'))
    due = await begun(memory, "o1")
    assert await made.swap(decide(due, paid(), 7))
    sweep = Sweep(made, {"acme": acme(tmp_path)})
    assert [await sweep.round(), await sweep.round()] == [1, 1]
    assert await cents(memory) == 10 * USD
    assert counted.lefts[0][0] == 1


async def test_a_no_of_the_processor_gives_the_credit_back(store: Store, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "order o1: its backend acme refuses the refund x", times=1)
    processor = Processor(tmp_path)
    processor.write(answer="refused")
    await begun(store)
    made = fulfilment(store)
    await take(made, paid())
    order, done = await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
    assert (order.state, done.state, await cents(store)) == ("paid", "failed", 1000)
    processor.write(answer="failed")  # taken on, and failed at once
    order, done = await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
    assert (order.state, done.state, done.attempt, await cents(store)) == ("paid", "failed", 2, 1000)
    processor.write(answer="waiting")
    order, done = await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
    assert (order.state, done.state, done.key) == ("partly_refunded", "waiting", "o1:x:3")
    assert await take(made, ended("o1:x:3", True), ended("o1:x:3", True), ended("o1:x:3", False)) == [True, False, True]
    assert await cents(store) == 1000  # a bank sent it back after all
    assert (await verify(store)).ok


async def test_whose_refund_it_is(memory: MemoryStore, tmp_path: Path) -> None:
    await begun(memory, backend="other")
    for name, code in (("o1", "other_backend"), ("o9", "order_unknown")):
        with pytest.raises(OrderRefused) as refused:
            await refund(fulfilment(memory), acme(tmp_path), name, amount=CENT, name="x", author="op")
        assert refused.value.code == code
