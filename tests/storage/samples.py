"""Accounts, records and frames for the tests of the store: plain, small, and the same in every test."""

from __future__ import annotations

from typing import Any

from aurixel.storage import (
    AccountDoc,
    CatalogueDoc,
    KeyDoc,
    Movement,
    OrderDoc,
    Post,
    Profile,
    ReceiptDoc,
    RollupAdd,
    Store,
    UsageRecord,
)

HOUR_MS = 3_600_000


def movement(n: int = 1, id: str = "m1", amount: int = 1000, account: str = "a", **fields: Any) -> Movement:
    given = {"kind": "topup", "at_ms": 1_700_000_000_000, "reason": "a test", **fields}
    return Movement(account=account, n=n, id=id, amount=amount, **given)


def record(request_id: str = "r1", cost: int = 7, s: int = 6, account: str = "a", **fields: Any) -> UsageRecord:
    given = {
        "inc": "n1",
        "key_id": "k1",
        "model": "small",
        "upstream": "demo",
        "operation": "chat",
        "dialect": "openai_chat",
        "stream": True,
        "client_ip": "192.0.2.1",
        "at_ms": 1_700_000_000_000,
        "done_ms": 1_700_000_000_900,
        "cell": "ok",
        "measured": True,
        "status": 200,
        "counts": {"input": 3, "output": 5},
        "price_version": 1,
        **fields,
    }
    return UsageRecord(request_id=request_id, account=account, s=s, cost=cost, **given)


def rollup(s: int = 6, account: str = "a", **fields: Any) -> RollupAdd:
    given = {"hour": 472_222, "model": "small", "key_id": "k1", "inc": "n1", "sums": {"requests": 1, "cost": 7}, **fields}
    return RollupAdd(account=account, s=s, **given)


def post(prev: int = 5, s: int = 6, lease: int = 7, available: int = 0, written_off: int = 0, **fields: Any) -> Post:
    given = {"account": "a", "inc": "n1", **fields}
    return Post(prev=prev, s=s, lease=lease, available=available, written_off=written_off, **given)


def key(id: str = "k1", account: str = "a", **fields: Any) -> KeyDoc:
    return KeyDoc(id=id, account=account, **{"hash": b"\x00\xff", "name": "laptop", "created_ms": 1, **fields})


def order(id: str = "o1", account: str = "a", **fields: Any) -> OrderDoc:
    given = {"backend": "acme", "state": "created", "payment": None, "open": False, "created_ms": 5, "rev": 1, "body": b"{}"}
    return OrderDoc(id=id, account=account, **{**given, **fields})


def receipt(number: int = 1, order: str = "o1", **fields: Any) -> ReceiptDoc:
    return ReceiptDoc(number=number, order=order, **{"account": "a", "at_ms": 7, "body": b"{}", **fields})


async def funded(store: Store, account: str = "a", amount: int = 1000) -> AccountDoc:
    """A new account with credit: available = credited = `amount`, ver 0, one movement, closed."""
    assert await store.account_new(account)
    assert await store.movement_put(movement(account=account, amount=amount))
    doc = await store.movement_apply(account, 1, amount, amount, 0)
    assert await store.movement_close(account, 1, amount)
    assert doc is not None
    return doc


async def leased(store: Store, account: str = "a") -> AccountDoc:
    """As `funded`, then 400 of 1000 leased to n1 with seq 5: available 600, ver 1."""
    await funded(store, account)
    doc = await store.lease_open(account, "n1", 0, 400, 5)
    assert doc is not None
    return doc


async def read(store: Store, account: str = "a") -> AccountDoc:
    """The account, which must be there."""
    doc = await store.account_read(account)
    assert doc is not None
    return doc


async def took(store: Store, account: str = "a") -> int:
    """What an account's movements took together."""
    return sum(movement.took or 0 for movement in await store.movements_page(account, 0, 1000))


async def every_call(store: Store) -> None:
    """Each method of `Store` but open and close, at least once, with arguments that reach what is there."""
    doc = await leased(store)
    await leased(store, "b")
    await store.ping()
    await store.account_want("a", doc.ver)
    await store.account_read("a")
    await store.accounts_wanted("n1")
    await store.accounts_held("n1")
    await store.accounts_read(["a", "b"])
    await store.accounts_page("", 10)
    await store.lease_draw("a", "n1", 1, 100)
    await store.lease_return("a", "n1", 2, 50)
    await store.post([record(), record("r2", cost=0)], [rollup(sums={"cost": 7, "tool_calls.x": 1})], [post()])
    await store.lease_fence("a", "n1")
    await store.lease_reclaim("a", "n1", 4, 443)
    await store.lease_close("a", "n1", 5, 0, 6)
    await store.movement_put(movement(2, "m2"))
    await store.movement_find("a", "m2")
    await store.movement_at("a", 2)
    await store.movements_open(10)
    await store.movements_page("a", 0, 10)
    await store.account_closing("b")
    await store.account_remove("b")
    await store.node_start("n1", "host")
    await store.node_beat("n1", "")
    await store.node_claim("n1", "n2")
    await store.node_dead("n1", 1)
    await store.node_abandon("n1")
    await store.node_done("n1", "n2")
    await store.node_read("n1")
    await store.nodes()
    await store.nodes("live", "dead")
    await store.usage_read("a", "r1")
    await store.usage_page("a", 1, "", 10)
    await store.usage_lowest("a", "n1", 0)
    await store.usage_cost("a")
    await store.usage_cost("a", "n1", 0)
    for by in ("model", "day", "key"):
        await store.usage_sums("a", 1, by)  # type: ignore[arg-type]
    await store.rollups_page("a", 0, 10)
    await store.rollup_mend(rollup(7), 6)
    await store.rollup_mend(rollup(7, model="other"), None)
    await store.profile_new(Profile(account="a", email="A@example.org", status="active", created_ms=1))
    await store.profile_read("a")
    await store.profile_find("a@example.org")
    await store.profiles_page("", 10)
    await store.profile_status("a", "suspended")
    await store.profile_status("a", "active", "suspended")
    await store.key_new(key(limits={"rpm": 1}))
    await store.key_read("k1")
    await store.keys_of("a")
    await store.key_limits()
    await store.key_revoke("k1", 5)
    await store.catalogue_version()
    await store.catalogue_put(CatalogueDoc(version=1, at_ms=1, author="ops", body=b"{}"))
    await store.catalogue_read(1)
    await store.order_new(order())
    await store.order_read("o1")
    await store.order_swap(order(rev=2, payment="p1", open=True))
    await store.order_paid_by("acme", "p1")
    await store.orders_page("a", 1, "", 10)
    await store.orders_page(None, 1, "", 10)
    await store.orders_open(10)
    await store.receipt_last()
    await store.receipt_put(receipt())
    await store.receipt_of("o1")
    await store.shelf_put("vouchers", "v:1", b"{}")
    await store.shelf_get("vouchers", "v:1")
    await store.shelf_swap("vouchers", "v:1", 1, b'{"a":1}')
    await store.shelf_page("vouchers", "v:", "", 10)
