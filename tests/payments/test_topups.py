"""How orders begin: their bounds, their page, and codes; and what a comparison with the processor finds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from aurixel.errors import ConfigError
from aurixel.ledger import verify
from aurixel.payments import CENT, OrderRefused, OrderRules, begin_order, reconcile, redeem
from aurixel.plugin.billing import BillingError, CodeRefused, Unpaid
from aurixel.storage import Store
from aurixel.testing.host import MemoryShelf
from aurixel.values import Secret
from tests.harness.guard import ExpectedLogs
from tests.payments.acme import Processor
from tests.payments.kit import acme, begun, cents, closed, disputed, fulfilment, movements, paid, refunded, take
from tests.storage.model import MemoryStore

RULES = OrderRules(
    least=500 * CENT, most=50_000 * CENT, public_url="https://ai.test/", success="/paid?x=1", cancel="https://b.test"
)


async def test_an_order_has_a_page_and_says_where_to_go_afterwards(store: Store, tmp_path: Path) -> None:
    made = fulfilment(store)
    order = await begin_order(made, acme(tmp_path), RULES, "a", 1234 * CENT, "op")
    assert (order.state, order.page, order.ref) == ("created", f"https://pay.acme.test/{order.id}", f"page-{order.id}")
    assert order == await made.read(order.id)
    assert Processor(tmp_path).read()["topups"][order.id] == {
        "order": order.id,
        "amount": 1234,
        "currency": "usd",
        "success_url": f"https://ai.test/paid?x=1&order={order.id}",
        "cancel_url": f"https://b.test?order={order.id}",
    }
    await take(made, paid(order.id, amount=1234))
    order = await made.read(order.id)
    assert (order.state, order.page) == ("paid", "")


async def test_amounts_that_are_no_order(memory: MemoryStore, tmp_path: Path) -> None:
    made, backend = fulfilment(memory), acme(tmp_path)
    for amount, code in (
        (499 * CENT, "amount_too_small"),
        (50_001 * CENT, "amount_too_large"),
        (500 * CENT + 1, "amount_invalid"),
    ):
        with pytest.raises(OrderRefused) as refused:
            await begin_order(made, backend, RULES, "a", amount, "op")
        assert refused.value.code == code
    with pytest.raises(OrderRefused) as refused:
        await begin_order(made, backend, msgspec.structs.replace(RULES, currency="chf"), "a", 500 * CENT, "op")
    assert refused.value.code == "currency_unknown"
    with pytest.raises(ConfigError) as caught:
        await begin_order(made, backend, msgspec.structs.replace(RULES, public_url=""), "a", 500 * CENT, "op")
    assert (caught.value.code, caught.value.place) == ("public_url_missing", "server.public_url")
    assert memory.orders == {}


@pytest.mark.parametrize("mood", ["refused", "silent"])
async def test_without_a_page_the_order_is_cancelled_and_money_for_it_is_still_credited(
    memory: MemoryStore, tmp_path: Path, mood: str
) -> None:
    Processor(tmp_path).write(answer=mood)
    made = fulfilment(memory)
    with pytest.raises(BillingError):
        await begin_order(made, acme(tmp_path), RULES, "a", 500 * CENT, "op")
    (doc,) = memory.orders.values()
    assert doc.state == "cancelled"
    await take(made, paid(doc.id, amount=500))
    assert await cents(memory) == 500


async def test_a_code_is_an_order_with_one_movement(store: Store, tmp_path: Path) -> None:
    Processor(tmp_path).write(codes={"good": 7_500_000_001})
    made, backend = fulfilment(store), acme(tmp_path, MemoryShelf())
    orders = await asyncio.gather(*(redeem(made, backend, "a", Secret("good")) for _ in range(5)))
    assert len({order.id for order in orders}) == 1
    order = orders[0]
    assert (order.state, order.credit, order.by_code, order.receipt) == ("paid", 7_500_000_001, True, 1)
    assert [m.took for m in await movements(store)] == [7_500_000_001]
    with pytest.raises(CodeRefused):
        await redeem(made, backend, "b", Secret("good"))
    with pytest.raises(CodeRefused):
        await redeem(made, backend, "a", Secret("bad"))
    with pytest.raises(OrderRefused) as refused:  # a backend that gives one code to two
        await redeem(made, acme(tmp_path, MemoryShelf()), "b", Secret("good"))
    assert refused.value.code == "other_account"
    assert await cents(store, "b") == 0
    assert (await verify(store)).ok


# --- comparing ------------------------------------------------------------------------------------------------------------


async def test_what_is_lacking_is_found_and_taken_in(store: Store, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "is disputed", times=1)
    for name in ("o1", "o2", "o3", "o4"):
        await begun(store, name)
    made, backend = fulfilment(store), acme(tmp_path)
    await take(made, paid(), paid("o4", "p4"))
    events = [
        paid(),
        refunded(300),
        paid("o2", "p2"),
        refunded(100, "p2"),
        disputed(200, "d", "p2"),
        closed(True, "d", "p2"),
        Unpaid(order="o3", why="expired"),
    ]
    Processor(tmp_path).has(*events)
    looked = await reconcile(made, backend, 0, apply=False)
    expected = [
        ("Refunded", "o1"),
        ("Paid", "o2"),
        ("Refunded", "o2"),
        ("Disputed", "o2"),
        ("DisputeClosed", "o2"),
        ("Unpaid", "o3"),
    ]
    assert [(each.what, each.order) for each in looked.lacking] == expected
    assert (looked.refused, looked.unknown, looked.ok) == ((), ("o4",), False)
    assert await cents(store) == 2000  # looking changes nothing
    applied = await reconcile(made, backend, 0, apply=True)
    assert applied.lacking == looked.lacking
    assert await cents(store) == 2600
    assert [(await made.read(name)).state for name in ("o1", "o2", "o3")] == ["partly_refunded", "partly_refunded", "expired"]
    Processor(tmp_path).has(*events, paid("o4", "p4"))
    again = await reconcile(made, backend, 0, apply=True)
    assert (again.lacking, again.ok) == ((), True)
    assert (await verify(store)).ok


async def test_what_cannot_be_is_told_and_not_taken_in(memory: MemoryStore, tmp_path: Path) -> None:
    await begun(memory)
    await begun(memory, "o2", backend="other")
    made = fulfilment(memory)
    Processor(tmp_path).has(paid(amount=5), paid("o9"), paid("o2"), refunded(1, "p7"))
    report = await reconcile(made, acme(tmp_path), 0, apply=True)
    codes = ["wrong_amount", "order_unknown", "other_backend", "payment_unknown"]
    assert ([each.code for each in report.refused], report.lacking, report.ok) == (codes, (), False)
    assert await movements(memory) == []
