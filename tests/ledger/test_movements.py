"""Movements: once however often they are reported, in order, and never below zero."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from aurixel.ledger import MovementError, Movements, Refused, verify
from aurixel.storage import MovementKind, Store
from aurixel.values import MAX_NANOS
from tests.harness.guard import ExpectedLogs
from tests.ledger.faults import Blown, Fuse
from tests.ledger.kit import BRISK, TestClock, account, fund, intent, ledger
from tests.storage.model import MemoryStore


def movements(store: Store, **changes: float) -> Movements:
    return Movements(store, TestClock(), recall_wait=changes.get("recall_wait", 0.01), recall_look=0.001)


async def test_movements_are_numbered_and_applied_in_order(store: Store) -> None:
    await fund(store, "a", 0)
    made = movements(store)
    for n, (kind, amount) in enumerate((("topup", 500), ("grant", 100), ("refund", -50), ("adjustment", -10)), 1):
        movement = await made.apply("a", f"m{n}", kind, amount, "because", "operator", "order 7")  # type: ignore[arg-type]
        assert (movement.n, movement.took, movement.author, movement.ref) == (n, amount, "operator", "order 7")
    doc = await account(store)
    assert (doc.available, doc.credited, doc.log.n) == (540, 540, 4)
    assert await store.movements_open(10) == []
    assert (await verify(store)).ok


async def test_pitfall_14_a_payment_reported_again_is_credited_once(store: Store) -> None:
    await fund(store, "a", 0)
    made = movements(store)
    first = await made.apply("a", "payment", "topup", 500, "paid", "webhook")
    for number in range(3):
        await made.apply("a", f"other{number}", "grant", 1, "", "test")
        assert await made.apply("a", "payment", "topup", 500, "paid", "webhook") == first
    assert (await account(store)).credited == 503


async def test_a_payment_fulfilled_twice_at_once_is_credited_once(store: Store) -> None:
    await fund(store, "a", 0)
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(movements(store).apply("a", f"payment{number % 3}", "topup", 100, "paid", "webhook"))
    doc = await account(store)
    assert (doc.available, doc.log.n) == (300, 3)
    assert (await verify(store)).ok


@pytest.mark.parametrize("after", [False, True])
async def test_pitfall_14_a_crash_at_every_step_then_a_retry(after: bool) -> None:
    """Or another movement first, or any node's round: each is applied exactly once."""
    for then in ("retry", "another", "round"):
        for step in range(1, 100):
            inner, fuse = MemoryStore(), Fuse()
            await fund(inner, "a", 10)
            store = fuse.store(inner)
            fuse.arm(step, after)
            with contextlib.suppress(Blown):
                await movements(store).apply("a", "payment", "topup", 500, "paid", "webhook")
            blown = fuse.blown
            fuse.repair()
            put = await inner.movement_find("a", "payment")
            if then == "another":
                await movements(store).apply("a", "another", "grant", 1, "", "test")
            elif then == "round":
                await movements(store).finish_open()
                assert (await account(inner)).credited == (510 if put else 10)
            movement = await movements(store).apply("a", "payment", "topup", 500, "paid", "webhook")
            assert movement.took == 500
            assert (await account(inner)).credited == 510 + (then == "another")
            assert await inner.movements_open(10) == []
            assert (await verify(inner)).ok
            if not blown:
                break
        else:
            raise AssertionError("it never came through")


async def test_a_refund_that_is_not_covered_takes_nothing(store: Store) -> None:
    await fund(store, "a", 100)
    for kind in ("refund", "adjustment"):
        for _ in range(2):  # and says so again
            with pytest.raises(Refused) as refused:
                await movements(store).apply("a", kind, kind, -101, "too much", "operator")  # type: ignore[arg-type]
            assert refused.value.movement.took == 0
    assert (await movements(store).apply("a", "all", "refund", -100, "", "operator")).took == -100
    assert (await account(store)).available == 0
    assert (await verify(store)).ok


async def test_a_dispute_takes_what_is_there(store: Store) -> None:
    await fund(store, "a", 100)
    kinds: tuple[MovementKind, ...] = ("dispute", "expiry")
    for kind, took in zip(kinds, (-100, 0), strict=True):
        assert (await movements(store).apply("a", kind, kind, -500, "", "operator")).took == took
    assert (await account(store)).available == 0
    assert (await verify(store)).ok


async def test_a_refund_first_recalls_what_nodes_hold_idle(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path, BRISK, idle_return=3600, rich=1)
    await node.start()
    async with node.hold(intent(), 100, 100):
        assert (await account(store)).available == 0
        assert (await movements(store, recall_wait=5).apply("a", "back", "refund", -900, "", "operator")).took == -900
        with pytest.raises(Refused):
            await movements(store).apply("a", "more", "refund", -1, "", "operator")
    await node.stop()


@pytest.mark.parametrize(
    ("kind", "amount"), [("topup", -1), ("grant", -1), ("refund", 1), ("dispute", 1), ("expiry", 1), ("adjustment", 0)]
)
async def test_an_impossible_amount_is_refused(memory: MemoryStore, kind: MovementKind, amount: int) -> None:
    await fund(memory, "a", 100)
    with pytest.raises(MovementError) as error:
        await movements(memory).apply("a", "m", kind, amount, "", "operator")
    assert error.value.code == "amount_invalid"


async def test_other_refusals(memory: MemoryStore, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.ledger", "movement late of account b stays open", level=40, times=1)
    await fund(memory, "a", 100)
    made = movements(memory)
    for key, kind, amount, name, code in (
        ("first", "grant", 101, "a", "movement_conflict"),
        ("first", "topup", 100, "a", "movement_conflict"),
        ("m", "grant", 1, "nobody", "account_unknown"),
        ("m", "grant", MAX_NANOS - 50, "a", "amount_invalid"),
    ):
        with pytest.raises(MovementError) as error:
            await made.apply(name, key, kind, amount, "", "operator")  # type: ignore[arg-type]
        assert error.value.code == code
    await fund(memory, "b", 0)
    await memory.account_closing("b")
    await memory.account_remove("b")
    with pytest.raises(MovementError) as error:
        await made.apply("b", "late", "topup", 1, "", "webhook")
    assert error.value.code == "account_removed"
    for _ in range(2):  # it stays, and is told once
        assert await made.finish_open() == 0
    assert (await account(memory)).credited == 100
