"""What follows from what: each event in each state, duplicates and any order, on every store."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from aurixel.ledger import Movements, verify
from aurixel.payments import CENT, NotYet, Order, OrderRefused, decide
from aurixel.payments.machine import begin_refund, paid_by_code, refund_answered
from aurixel.payments.orders import to_doc
from aurixel.plugin.billing import CreditEvent, Refund, Unpaid, Waiting
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import TestClock
from tests.payments.kit import (
    USD,
    Counted,
    begun,
    cents,
    closed,
    disputed,
    ended,
    fulfilment,
    funds,
    movements,
    paid,
    refunded,
    spend,
    take,
)
from tests.storage.model import MemoryStore


async def test_paid_is_credited_once_with_a_receipt(store: Store) -> None:
    await begun(store)
    made = fulfilment(store)
    assert await take(made, Waiting(order="o1"), Waiting(order="o1"), paid(), paid(), Waiting(order="o1")) == [
        True,
        False,
        True,
        False,
        False,
    ]
    order = await made.read("o1")
    assert (order.state, order.payment, order.receipt, order.open, order.credit) == ("paid", "p1", 1, False, 1000 * CENT)
    (movement,) = await movements(store)
    assert (movement.id, movement.kind, movement.took) == ("payment:acme:p1", "topup", 1000 * CENT)
    assert (movement.ref, movement.author) == ("o1", "acme")
    assert await cents(store) == 10 * USD
    assert (await verify(store)).ok


async def test_the_states_of_an_order_that_is_not_paid(memory: MemoryStore) -> None:
    made = fulfilment(memory)
    for number, (events, state) in enumerate(
        (
            ((), "created"),
            ((Waiting(order="{}"),), "pending"),
            ((Unpaid(order="{}", why="expired"),), "expired"),
            ((Unpaid(order="{}", why="failed"),), "cancelled"),
            ((Waiting(order="{}"), Unpaid(order="{}", why="failed")), "cancelled"),
            ((Unpaid(order="{}", why="expired"), Waiting(order="{}"), Unpaid(order="{}", why="failed")), "expired"),
        )
    ):
        name = f"o{number}"
        await begun(memory, name, page="https://pay.test/x")
        await take(made, *(type(event)(**{**_fields(event), "order": name}) for event in events))
        order = await made.read(name)
        assert order.state == state
        assert bool(order.page) == (state in ("created", "pending"))
    assert await movements(memory) == []


def _fields(event: CreditEvent) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


@pytest.mark.parametrize("why", ["expired", "failed"])
async def test_money_that_comes_after_the_end_is_credited_all_the_same(memory: MemoryStore, why: str) -> None:
    await begun(memory)
    made = fulfilment(memory)
    unpaid = Unpaid(order="o1", why=why)  # type: ignore[arg-type]
    assert await take(made, unpaid, paid(), unpaid) == [True, True, False]
    assert (await made.read("o1")).state == "paid"
    assert await cents(memory) == 10 * USD


async def test_pitfall_13_an_order_is_bound_to_backend_amount_and_currency(store: Store) -> None:
    """Another processor's callback fulfilled an order; so did one of another amount."""
    await begun(store)
    await begun(store, "o2", "b")
    await begun(store, "o3", backend="other")
    made = fulfilment(store)
    for event, code in (
        (paid(amount=999), "wrong_amount"),
        (paid(amount=1001), "wrong_amount"),
        (paid(amount=0), "wrong_amount"),
        (paid(currency="eur"), "wrong_currency"),
        (paid("o3"), "other_backend"),
        (paid("o9"), "order_unknown"),
        (Waiting(order="o3"), "other_backend"),
        (Unpaid(order="o9", why="failed"), "order_unknown"),
    ):
        with pytest.raises(OrderRefused) as refused:
            await made.take("acme", event)
        assert refused.value.code == code
    with pytest.raises(OrderRefused):
        await made.take("other", paid())
    assert [(await made.read(name)).state for name in ("o1", "o2", "o3")] == ["created"] * 3
    await take(made, paid())
    for event, code in (
        (paid(payment="p2"), "other_payment"),
        (paid("o2"), "payment_of_another_order"),
        (paid(amount=5), "wrong_amount"),
    ):
        with pytest.raises(OrderRefused) as refused:
            await made.take("acme", event)
        assert refused.value.code == code
    assert (await cents(store), await cents(store, "b")) == (10 * USD, 0)
    assert await store.receipt_last() == 1
    # The same id at another processor is another payment.
    await made.take("other", paid("o3"))
    assert await cents(store) == 20 * USD


async def test_what_comes_before_its_payment_is_to_be_sent_again(store: Store) -> None:
    await begun(store)
    made = fulfilment(store)
    for event in (refunded(100), disputed(100), closed(True), ended("k", False)):
        with pytest.raises(NotYet):
            await made.take("acme", event)
    await take(made, paid())
    with pytest.raises(NotYet):
        await made.take("acme", closed(True))
    assert await take(made, refunded(100)) == [True]


async def test_a_refund_made_elsewhere_takes_what_is_there(store: Store) -> None:
    await begun(store)
    counted = Counted()
    made = fulfilment(store, counted)
    await take(made, paid())
    await spend(store, 4 * USD)
    assert await take(made, refunded(0), refunded(200), refunded(200), refunded(100)) == [False, True, False, False]
    order = await made.read("o1")
    assert (order.state, order.given_back, await cents(store)) == ("partly_refunded", 200 * CENT, 4 * USD)
    assert await take(made, refunded(1000)) == [True]
    order = await made.read("o1")
    assert (order.state, order.loss, await cents(store)) == ("refunded", 400 * CENT, 0)
    assert counted.losses == [400 * CENT]
    for event, code in ((refunded(1001), "wrong_amount"), (refunded(10, currency="eur"), "wrong_currency")):
        with pytest.raises(OrderRefused) as refused:
            await made.take("acme", event)
        assert refused.value.code == code
    assert [m.kind for m in await movements(store)] == ["topup", "adjustment", "dispute", "dispute"]
    assert (await verify(store)).ok


async def test_a_dispute_takes_what_is_there_and_suspends_and_won_gives_it_back(
    store: Store, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "order o1 is disputed: its account is suspended", times=1)
    await begun(store)
    counted = Counted()
    made = fulfilment(store, counted)
    await take(made, paid())
    await spend(store, 4 * USD)
    assert await take(made, disputed(1000), disputed(1000)) == [True, False]
    order = await made.read("o1")
    assert (order.state, order.loss, await cents(store)) == ("disputed", 400 * CENT, 0)
    assert counted.losses == [400 * CENT]
    profile = await store.profile_read("a")
    assert profile is not None
    assert profile.status == "suspended"
    await store.profile_status("a", "active")
    assert await take(made, disputed(1000), closed(True), closed(True)) == [False, True, False]
    order = await made.read("o1")
    assert (order.state, order.loss, await cents(store)) == ("paid", 0, 6 * USD)
    with pytest.raises(OrderRefused) as refused:
        await made.take("acme", closed(False))
    assert refused.value.code == "closed_otherwise"
    profile = await store.profile_read("a")
    assert profile is not None
    assert profile.status == "active"  # what is sent again suspends nobody again
    assert (await verify(store)).ok


async def test_a_lost_dispute_stays(memory: MemoryStore, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "is disputed", times=1)
    await begun(memory)
    made = fulfilment(memory)
    assert await take(made, paid(), disputed(300), closed(False), closed(False)) == [True, True, True, False]
    order = await made.read("o1")
    assert (order.state, order.loss, order.refundable, await cents(memory)) == ("disputed", 0, 0, 7 * USD)
    for event in (disputed(0, "d2"), disputed(10, "d2", currency="eur")):
        with pytest.raises(OrderRefused, match=r"nothing|currency"):
            await made.take("acme", event)


async def test_a_dispute_of_more_than_was_paid_takes_what_was_paid(store: Store, expected_logs: ExpectedLogs) -> None:
    """Processors say so: a bank's rate moves between the payment and the dispute. A no would leave them the credit."""
    expected_logs("aurixel.payments", "order o1 is disputed: its account is suspended", times=1)
    await begun(store)
    await begun(store, "o2")
    made = fulfilment(store)
    assert await take(made, paid(), paid("o2", "p2"), disputed(1043)) == [True, True, True]
    order = await made.read("o1")
    assert (order.state, order.loss, await cents(store)) == ("disputed", 0, 10 * USD)
    assert await take(made, disputed(1043), closed(True)) == [False, True]
    assert await cents(store) == 20 * USD
    assert (await verify(store)).ok


async def test_a_closed_account_is_not_suspended(memory: MemoryStore, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "is disputed", times=1)
    await begun(memory)
    made = fulfilment(memory)
    await take(made, paid())
    await memory.profile_status("a", "closed")
    await take(made, disputed(10))
    assert memory.profiles["a"].status == "closed"


async def test_money_for_an_account_that_is_gone_is_told_and_kept_in_the_order(
    memory: MemoryStore, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", r"order o1: credit cannot be moved \(payment, account_removed\)", level=40, times=1)
    await begun(memory)
    await memory.account_closing("a")
    await memory.account_remove("a")
    made = fulfilment(memory)
    assert await take(made, paid(), paid()) == [True, False]
    order = await made.read("o1")
    assert (order.state, order.credit, order.open, order.moves[0].fault) == ("paid", 0, False, "account_removed")
    assert (await funds(memory)).available == 0


async def test_what_is_learned_in_any_order_comes_to_the_same(expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "is disputed")
    events = (refunded(100), refunded(250), disputed(300, "d1"), disputed(200, "d2"), closed(True, "d1"), closed(False, "d2"))
    seen = set()
    for arranged in itertools.permutations(events):
        store = MemoryStore()
        await store.account_new("a")
        await begun(store)
        made = fulfilment(store)
        await take(made, paid())
        waiting = list(arranged)
        while waiting:
            event = waiting.pop(0)
            try:
                await made.take("acme", event)
            except NotYet:
                waiting.append(event)
        order = await made.read("o1")
        seen.add((order.state, order.credit, order.given_back, order.loss, await cents(store)))
    assert seen == {("disputed", 550 * CENT, 250 * CENT, 0, 550)}


def order(**changes: object) -> Order:
    values = {"id": "o1", "account": "a", "backend": "acme", "amount": 1000 * CENT, "currency": "usd", "created_ms": 1}
    return Order(**{**values, **changes})  # type: ignore[arg-type]


def settled(order: Order) -> Order:
    from aurixel.payments.machine import settle

    while not order.at_rest:
        order = settle(order, {move.id: (move.amount, "") for move in order.moves if move.took is None}, 9, 1)
    return order


def test_refunds_of_ours_are_told_from_others() -> None:
    first = settled(decide(order(), paid(), 1))
    asking = settled(begin_refund(first, "x", 300 * CENT, "op", "", 2))
    assert asking.refunds[0].state == "asking"
    assert (asking.state, asking.credit) == ("partly_refunded", 700 * CENT)
    told = settled(decide(asking, refunded(300), 3))
    assert told.elsewhere == 0  # that is ours
    more = settled(decide(told, refunded(450), 4))
    assert (more.elsewhere, more.credit) == (150 * CENT, 550 * CENT)
    done = settled(refund_answered(more, asking.refunds[0].key, Refund("r", "waiting"), 5))
    assert refund_answered(done, asking.refunds[0].key, Refund("r", "done"), 5) is done
    failed = settled(decide(done, ended(asking.refunds[0].key, False), 6))
    assert (failed.credit, failed.elsewhere, failed.state) == (850 * CENT, 150 * CENT, "partly_refunded")
    assert decide(failed, ended(asking.refunds[0].key, True), 7) is failed
    assert decide(failed, refunded(450), 8) is failed
    with pytest.raises(OrderRefused, match="no refund of this key"):
        decide(failed, ended("other", True), 7)


def test_a_refund_that_the_processor_refused_may_have_been_made_elsewhere() -> None:
    first = settled(begin_refund(settled(decide(order(), paid(), 1)), "x", 300 * CENT, "op", "", 2))
    told = settled(decide(first, refunded(300), 3))
    assert told.elsewhere == 0
    refused = settled(refund_answered(told, first.refunds[0].key, None, 4))
    assert (refused.refunds[0].state, refused.elsewhere, refused.credit) == ("failed", 300 * CENT, 700 * CENT)
    done_after_all = settled(decide(first, ended(first.refunds[0].key, True), 3))
    assert settled(decide(done_after_all, ended(first.refunds[0].key, False), 4)).credit == 1000 * CENT


def test_a_refund_that_the_account_does_not_cover_hides_none_made_elsewhere() -> None:
    from aurixel.payments.machine import settle

    first = settled(decide(order(), paid(), 1))
    taking = begin_refund(first, "x", 300 * CENT, "op", "", 2)
    told = msgspec.structs.replace(taking, reported=300 * CENT)
    refused = settle(told, {taking.moves[-1].id: (0, "")}, 3, 1)
    assert (refused.refunds[0].state, refused.elsewhere, refused.at_rest) == ("refused", 300 * CENT, False)


def test_what_cannot_be_refunded() -> None:
    first = settled(decide(order(), paid(), 1))
    for target, amount, code in (
        (order(), CENT, "not_refundable"),
        (order(ended="failed"), CENT, "not_refundable"),
        (first, 0, "amount_invalid"),
        (first, -CENT, "amount_invalid"),
        (first, CENT + 1, "amount_invalid"),
        (first, 1001 * CENT, "not_refundable"),
        (settled(decide(first, disputed(5), 1)), CENT, "not_refundable"),
        (settled(paid_by_code(order(), "c", 1)), CENT, "not_refundable"),
        (settled(begin_refund(first, "x", CENT, "op", "", 2)), CENT, "refund_exists"),
        (settled(decide(first, refunded(400), 2)), 601 * CENT, "not_refundable"),
    ):
        with pytest.raises(OrderRefused) as refused:
            begin_refund(target, "x", amount, "op", "", 2)
        assert refused.value.code == code


async def test_an_order_with_moves_to_be_done_decides_nothing(memory: MemoryStore) -> None:
    unrest = decide(order(), paid(), 1)
    with pytest.raises(ValueError, match="decides nothing"):
        decide(unrest, refunded(1), 2)
    assert to_doc(unrest).open
    await begun(memory)
    made = fulfilment(memory)
    assert await made.swap(unrest)
    assert await take(made, refunded(100)) == [True]  # it is finished first
    assert await cents(memory) == 9 * USD


async def test_somebody_elses_movement_of_that_id_is_a_fault_and_no_credit(
    memory: MemoryStore, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "movement_conflict", level=40, times=1)
    await begun(memory)
    await Movements(memory, TestClock()).apply("a", "payment:acme:p1", "grant", 5, "", "somebody")
    await take(fulfilment(memory), paid())
    assert (await funds(memory)).credited == 5
