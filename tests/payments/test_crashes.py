"""Pitfall 14: a crash at every step of fulfilment, then a retry, and the money is credited exactly once.

A step is a write to the store: the process dies before it is made, or right after. Refunds, disputes and codes alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aurixel.ledger import Movements, verify
from aurixel.payments import CENT, Fulfilment, Order, Sweep, redeem, refund
from aurixel.plugin.billing import CreditEvent
from aurixel.storage import Store
from aurixel.testing.host import MemoryShelf
from aurixel.values import Secret
from tests.harness.guard import ExpectedLogs
from tests.ledger.faults import Blown, Fuse
from tests.payments.acme import Processor
from tests.payments.kit import acme, begun, cents, closed, disputed, ended, fulfilment, movements, paid, person, refunded, take
from tests.storage.model import MemoryStore

Steps = list[tuple[CreditEvent, int, str]]

# What happens to one order: each event, and what is available and the state afterwards.
STORIES: dict[str, Steps] = {
    "paid": [(paid(), 1000, "paid")],
    "refunded elsewhere": [(paid(), 1000, "paid"), (refunded(300), 700, "partly_refunded"), (refunded(1000), 0, "refunded")],
    "disputed and won": [(paid(), 1000, "paid"), (disputed(800), 200, "disputed"), (closed(True), 1000, "paid")],
    "disputed and lost": [(paid(), 1000, "paid"), (disputed(800), 200, "disputed"), (closed(False), 200, "disputed")],
}


async def everything(store: Store, fuse: Fuse) -> None:
    """The store adds up, and nothing is half done."""
    assert not fuse.blown
    assert await store.movements_open(10) == []
    assert await store.orders_open(10) == []
    assert (await verify(store)).ok


@pytest.mark.deadline(120)
@pytest.mark.parametrize("then", ["retry", "another", "sweep"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("story", STORIES)
async def test_pitfall_14_a_crash_at_every_step_then_a_retry(
    story: str, after: bool, then: str, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """Or first another payment of the same account, or a sweep: each is credited exactly once."""
    if "disputed" in story:
        expected_logs("aurixel.payments", "is disputed")
    walked = 0
    for index in range(len(STORIES[story])):
        for step in range(1, 200):
            inner, fuse = MemoryStore(), Fuse()
            await person(inner)
            await begun(inner)
            await begun(inner, "o2", cents=500)
            before = [event for event, *_ in STORIES[story][:index]]
            event, available, state = STORIES[story][index]
            await take(fulfilment(inner), *before)
            fuse.arm(step, after)
            with contextlib.suppress(Blown):
                await fulfilment(fuse.store(inner)).take("acme", event)
            blown = fuse.blown
            fuse.repair()
            other = 0
            if then == "another":
                await take(fulfilment(inner), paid("o2", "p2", 500))
                other = 500
            elif then == "sweep":
                assert await Sweep(fulfilment(inner), {"acme": acme(tmp_path)}).round() == 0
                await Movements(inner, fulfilment(inner).clock).finish_open()
                await everything(inner, fuse)
            for _ in range(2):
                await fulfilment(inner).take("acme", event)
            order = await fulfilment(inner).read("o1")
            assert (await cents(inner), order.state) == (available + other, state)
            assert order.receipt in (1, 2)
            assert sorted(inner.receipts) == list(range(1, len(inner.receipts) + 1))
            assert [m.id for m in await movements(inner)].count("payment:acme:p1") == 1
            await everything(inner, fuse)
            walked += 1
            if not blown:
                break
        else:
            raise AssertionError("it never came through")
    assert walked > 5 * len(STORIES[story])


async def crash_everywhere(
    act: Callable[[Fulfilment], Awaitable[Order]],
    prepare: Callable[[Store], Awaitable[None]],
    check: Callable[[Store], Awaitable[None]],
) -> int:
    """Crash `act` at every step, do it again, and check; how many steps there were."""
    for after in (False, True):
        for step in range(1, 200):
            inner, fuse = MemoryStore(), Fuse()
            await person(inner)
            await prepare(inner)
            fuse.arm(step, after)
            with contextlib.suppress(Blown):
                await act(fulfilment(fuse.store(inner)))
            blown = fuse.blown
            fuse.repair()
            first = await act(fulfilment(inner))
            assert await act(fulfilment(inner)) == first
            await check(inner)
            await everything(inner, fuse)
            if not blown:
                break
        else:
            raise AssertionError("it never came through")
    return step


@pytest.mark.parametrize("answer", ["done", "waiting", "lost_once"])
async def test_a_refund_that_crashes_at_every_step_is_made_once(answer: str, tmp_path: Path) -> None:
    processor = Processor(tmp_path)
    made: list[int] = []

    async def prepare(store: Store) -> None:
        await begun(store)
        await take(fulfilment(store), paid())
        processor.write(refunds={}, answer=answer)

    async def act(made: Fulfilment) -> Order:
        order, _ = await refund(made, acme(tmp_path), "o1", amount=300 * CENT, name="x", author="op")
        return order

    async def check(store: Store) -> None:
        assert processor.read()["refunds"] == {"o1:x:1": ["p1", 300]}
        assert await cents(store) == 700
        order = await fulfilment(store).read("o1")
        assert [each.state for each in order.refunds] == ["waiting" if answer == "waiting" else "done"]
        made.append(1)
        if answer == "waiting":
            assert await take(fulfilment(store), ended("o1:x:1", False), refunded(300)) == [True, True]
            assert await cents(store) == 1000

    assert await crash_everywhere(act, prepare, check) > 6


async def test_a_refund_that_was_cut_is_finished_by_the_sweep(tmp_path: Path) -> None:
    processor = Processor(tmp_path)
    for step in range(1, 100):
        inner, fuse = MemoryStore(), Fuse()
        await person(inner)
        await begun(inner)
        await take(fulfilment(inner), paid())
        processor.write(refunds={})
        fuse.arm(step, after=True)
        with contextlib.suppress(Blown):
            await refund(fulfilment(fuse.store(inner)), acme(tmp_path), "o1", amount=None, name="all", author="op")
        blown = fuse.blown
        fuse.repair()
        assert await Sweep(fulfilment(inner), {"acme": acme(tmp_path)}).round() == 0
        order = await fulfilment(inner).read("o1")
        assert (order.state, await cents(inner)) == ("refunded", 0)
        assert processor.read()["refunds"] == {"o1:all:1": ["p1", 1000]}
        await everything(inner, fuse)
        if not blown:
            return
    raise AssertionError("it never came through")


async def test_a_code_whose_credit_crashes_at_every_step_is_credited_once(tmp_path: Path) -> None:
    Processor(tmp_path).write(codes={"good": 7_500_000_000})
    shelf = MemoryShelf()

    async def prepare(store: Store) -> None: ...

    async def act(made: Fulfilment) -> Order:
        return await redeem(made, acme(tmp_path, shelf), "a", Secret("good"))

    async def check(store: Store) -> None:
        assert await cents(store) == 750
        orders = await store.orders_page("a", 0, "", 10)
        assert [order.state for order in orders] == ["paid"]

    assert await crash_everywhere(act, prepare, check) > 5


async def test_one_payment_told_by_fifty_at_once_is_credited_once(store: Store) -> None:
    await begun(store)
    await begun(store, "o2", "b", 500)
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            event = paid() if number % 2 else paid("o2", "p2", 500)
            group.create_task(fulfilment(store).take("acme", event))
    assert (await cents(store, "a"), await cents(store, "b")) == (1000, 500)
    assert await store.receipt_last() == 2
    assert (await verify(store)).ok


async def test_one_payment_for_two_orders_at_once_is_credited_once(store: Store) -> None:
    await begun(store)
    await begun(store, "o2", "b")
    answers = await asyncio.gather(
        *(fulfilment(store).take("acme", paid(f"o{1 + number % 2}")) for number in range(20)), return_exceptions=True
    )
    assert sum(answer is True for answer in answers) == 1
    codes = {getattr(answer, "code", None) for answer in answers if isinstance(answer, Exception)}
    assert codes == {"payment_of_another_order"}
    assert await cents(store, "a") + await cents(store, "b") == 1000
    assert await store.receipt_last() == 1
