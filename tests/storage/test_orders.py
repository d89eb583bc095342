"""The contract of orders and receipts, for every store: each guard, many callers at once, and answers that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from aurixel.errors import StoreUnavailable
from aurixel.storage import OrderDoc, Profile, Store
from tests.storage.conftest import Place
from tests.storage.faults import Fault, flaky
from tests.storage.samples import order, receipt


async def winners(calls: list[Awaitable[Any]]) -> int:
    return sum(bool(answer) for answer in await asyncio.gather(*calls))


async def test_an_order_is_new_once_and_swapped_by_its_rev(store: Store) -> None:
    new = order(body=b'{"amount": 5}\x00\xff')
    assert await store.order_read("o1") is None
    assert await store.order_new(new)
    assert not await store.order_new(replace(new, account="b"))
    assert await store.order_read("o1") == new
    second = replace(new, rev=2, state="paid", payment="p1", open=True, body=b"2")
    assert not await store.order_swap(replace(second, rev=3))
    assert await store.order_swap(second)
    assert not await store.order_swap(replace(second, body=b"again"))
    assert await store.order_read("o1") == second
    assert await store.order_swap(replace(second, rev=3, open=False))
    assert not await store.order_swap(replace(second, id="o2"))
    assert await store.order_read("o2") is None


async def test_whose_an_order_is_does_not_change(store: Store) -> None:
    await store.order_new(order())
    assert not await store.order_swap(order(backend="other", rev=2, state="paid"))
    assert await store.order_swap(order(account="b", created_ms=99, rev=2, state="paid"))
    assert await store.order_read("o1") == order(rev=2, state="paid")


async def test_a_payment_belongs_to_one_order(store: Store) -> None:
    for name in ("o1", "o2", "o3"):
        assert await store.order_new(order(name))
    assert await store.order_paid_by("acme", "p1") is None
    assert await store.order_swap(order("o1", payment="p1", rev=2))
    assert not await store.order_swap(order("o2", payment="p1", rev=2))
    assert not await store.order_new(order("o4", "b", payment="p1"))
    assert await store.order_read("o2") == order("o2")
    assert await store.order_new(order("o5", payment="p1", backend="other"))  # another's payment of that name
    assert await store.order_swap(order("o1", payment="p1", rev=3, state="paid"))  # it keeps its own
    assert await store.order_swap(order("o2", payment="p2", rev=2))
    assert await store.order_paid_by("acme", "p1") == order("o1", payment="p1", rev=3, state="paid")
    assert await store.order_paid_by("other", "p1") == order("o5", payment="p1", backend="other")
    assert await store.order_paid_by("acme", "p3") is None


async def test_orders_are_paged_in_the_order_of_time(store: Store) -> None:
    made = [order(f"o{number:02}", "ab"[number % 2], created_ms=10 + number // 4) for number in range(12)]
    for one in reversed(made):
        assert await store.order_new(one)
    assert await store.orders_page(None, 0, "", 100) == made
    assert await store.orders_page("b", 0, "", 100) == made[1::2]
    assert await store.orders_page("c", 0, "", 100) == []
    assert await store.orders_page(None, 11, "", 100) == made[4:]
    assert await store.orders_page(None, 10, "o01", 3) == made[2:5]
    assert await store.orders_page("a", 10, "o01", 3) == made[2:8:2]


async def test_orders_with_work_left_are_listed(store: Store) -> None:
    for number in range(4):
        await store.order_new(order(f"o{number}", open=number % 2 == 1))
    assert [one.id for one in await store.orders_open(10)] == ["o1", "o3"]
    assert [one.id for one in await store.orders_open(1)] == ["o1"]
    await store.order_swap(order("o1", rev=2))
    await store.order_swap(order("o0", rev=2, open=True))
    assert [one.id for one in await store.orders_open(10)] == ["o0", "o3"]


async def test_receipts_have_a_number_and_an_order_of_their_own(store: Store) -> None:
    assert await store.receipt_last() == 0
    assert await store.receipt_of("o1") is None
    first = receipt(body=b"\x00\xff")
    assert await store.receipt_put(first)
    assert not await store.receipt_put(first)
    assert not await store.receipt_put(receipt(1, "o2"))
    assert not await store.receipt_put(receipt(2, "o1"))
    assert await store.receipt_put(receipt(12, "o2"))
    assert await store.receipt_last() == 12
    assert await store.receipt_of("o1") == first


async def test_a_status_that_was_another_stays(store: Store) -> None:
    await store.profile_new(Profile(account="a", email="a@example.org", status="closed", created_ms=1))
    assert not await store.profile_status("a", "suspended", "active")
    assert not await store.profile_status("b", "suspended", "active")
    assert await store.profile_status("a", "active", "closed")
    assert await store.profile_status("a", "suspended", "active")
    profile = await store.profile_read("a")
    assert profile is not None
    assert profile.status == "suspended"


BAD: list[Callable[[Store], Awaitable[Any]]] = [
    lambda store: store.order_new(order(rev=2)),
    lambda store: store.order_new(order(rev=0)),
    lambda store: store.order_new(order("")),
    lambda store: store.order_new(order(account="")),
    lambda store: store.order_new(order(payment="")),
    lambda store: store.order_new(order(created_ms=2**63)),
    lambda store: store.order_swap(order(rev=1)),
    lambda store: store.order_swap(order(rev=2**62)),
    lambda store: store.orders_page("a", 0, "", 0),
    lambda store: store.orders_page(None, 2**63, "", 1),
    lambda store: store.orders_open(0),
    lambda store: store.receipt_put(receipt(0)),
    lambda store: store.receipt_put(receipt(-1)),
    lambda store: store.receipt_put(receipt(1, at_ms=2**63)),
]


async def test_what_makes_no_sense_is_refused_before_it_is_sent(store: Store) -> None:
    for call in BAD:
        with pytest.raises(ValueError, match="must"):
            await call(store)
    assert await store.orders_page(None, 0, "", 9) == []
    assert await store.receipt_last() == 0


async def test_of_many_at_once_one_wins(store: Store, place: Place) -> None:
    other = place.make()
    await other.open()
    try:
        at = (store, other)
        assert await winners([at[n % 2].order_new(order(body=b"%d" % n)) for n in range(30)]) == 1
        assert await winners([at[n % 2].order_swap(order(rev=2, body=b"%d" % n)) for n in range(100)]) == 1
        for n in range(30):
            await store.order_new(order(f"x{n}"))
        assert await winners([at[n % 2].order_swap(order(f"x{n}", payment="p", rev=2)) for n in range(30)]) == 1
        paid = await store.order_paid_by("acme", "p")
        assert paid is not None
        assert await other.order_read(paid.id) == paid
        assert await winners([at[n % 2].receipt_put(receipt(1, f"o{n}")) for n in range(30)]) == 1
        assert await winners([at[n % 2].receipt_put(receipt(2 + n, "same")) for n in range(30)]) == 1
    finally:
        await other.close()


async def test_fifty_that_count_up_number_without_a_gap(store: Store) -> None:
    async def number_one(id: str) -> None:
        while await store.receipt_of(id) is None:
            await store.receipt_put(receipt(await store.receipt_last() + 1, id))

    await asyncio.gather(*(number_one(f"o{n % 25}") for n in range(50)))
    found = [await store.receipt_of(f"o{n}") for n in range(25)]
    assert sorted(one.number for one in found if one is not None) == list(range(1, 26))


@pytest.mark.parametrize("fault", ["lost", "dropped", "late"])
async def test_a_swap_without_an_answer_is_read_and_decided_again(store: Store, fault: Fault) -> None:
    faults: list[Fault | None] = [fault]
    broken, hold = flaky(store, lambda name: faults.pop() if faults else None)
    await store.order_new(order())
    with pytest.raises(StoreUnavailable):
        await broken.order_swap(order(rev=2, payment="p1", body=b"first"))
    found: OrderDoc | None = await store.order_read("o1")
    assert found == (order() if fault != "lost" else order(rev=2, payment="p1", body=b"first"))
    assert found is not None
    assert await store.order_swap(replace(found, rev=found.rev + 1, payment="p1", body=b"second"))
    if fault == "late":
        assert await hold.land() is False
    last = await store.order_read("o1")
    assert last is not None
    assert last.body == b"second"
    assert await store.order_paid_by("acme", "p1") == last


@pytest.mark.parametrize("fault", ["lost", "dropped", "late"])
async def test_a_receipt_without_an_answer_is_numbered_once(store: Store, fault: Fault) -> None:
    faults: list[Fault | None] = [fault]
    broken, hold = flaky(store, lambda name: faults.pop() if faults else None)
    with pytest.raises(StoreUnavailable):
        await broken.receipt_put(receipt(1, "o1"))
    if await store.receipt_of("o1") is None:
        assert await store.receipt_put(receipt(await store.receipt_last() + 1, "o1"))
    if fault == "late":
        assert await hold.land() is False
    assert await store.receipt_put(receipt(await store.receipt_last() + 1, "o2"))
    assert await store.receipt_last() == 2
