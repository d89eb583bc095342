"""What tests of payments share: an order's facts in short, and a fulfilment with the backend `acme` bound to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from aurixel.ledger import Movements
from aurixel.payments import CENT, BoundBackend, Fulfilment, Order, ReceiptRules
from aurixel.plugin.billing import CreditEvent, DisputeClosed, Disputed, Paid, Refunded, RefundEnded
from aurixel.registry import NoMeter
from aurixel.storage import AccountDoc, Movement, Profile, Store
from aurixel.testing.host import MemoryShelf, PluginHost
from tests.ledger.kit import TestClock
from tests.payments.acme import SECRET, Acme, AcmeSettings

RULES = ReceiptRules(name="Acme Ltd", details=("1 Main Street",), tax_name="VAT", tax_rate="19")
USD = 100  # cents


class Counted:
    """Metrics that a test can look at."""

    def __init__(self) -> None:
        self.webhooks: list[tuple[str, str, float | None]] = []
        self.losses: list[int] = []
        self.lefts: list[tuple[int, float]] = []

    def webhook(self, backend: str, result: str, lag: float | None) -> None:
        self.webhooks.append((backend, result, lag))

    def lost(self, amount: int) -> None:
        self.losses.append(amount)

    def left(self, orders: int, oldest_seconds: float) -> None:
        self.lefts.append((orders, oldest_seconds))


def fulfilment(store: Store, counted: Counted | None = None, clock: TestClock | None = None) -> Fulfilment:
    """Over a store, with short waits."""
    clock = clock or TestClock()
    movements = Movements(store, clock, recall_wait=0.01, recall_look=0.001)
    return Fulfilment(store, clock, RULES, counted or Counted(), movements)


def acme(folder: Path, shelf: MemoryShelf | None = None, deadline: float = 5.0) -> BoundBackend:
    """The backend `acme`, whose processor is the folder."""
    settings = AcmeSettings(webhook_secret=SecretStr(SECRET), folder=str(folder))
    return BoundBackend("acme", Acme(settings, PluginHost(shelf=shelf)), "acme", deadline, NoMeter())


async def person(store: Store, account: str = "a") -> None:
    """An account and whose it is."""
    await store.account_new(account)
    await store.profile_new(Profile(account=account, email=f"{account}@example.com", status="active", created_ms=1))


async def begun(store: Store, id: str = "o1", account: str = "a", cents: int = 10 * USD, **more: Any) -> Order:
    """An order that waits for its money."""
    from aurixel.payments.orders import to_doc

    order = Order(
        id=id, account=account, backend=more.pop("backend", "acme"), amount=cents * CENT, currency="usd", created_ms=5, **more
    )
    assert await store.order_new(to_doc(order))
    return order


def paid(order: str = "o1", payment: str = "p1", amount: int = 10 * USD, currency: str = "usd", **more: Any) -> Paid:
    return Paid(order=order, payment=payment, amount=amount, currency=currency, **more)


def refunded(total: int, payment: str = "p1", currency: str = "usd") -> Refunded:
    return Refunded(payment=payment, total=total, currency=currency)


def ended(key: str, done: bool, payment: str = "p1") -> RefundEnded:
    return RefundEnded(payment=payment, key=key, done=done)


def disputed(amount: int, dispute: str = "d1", payment: str = "p1", currency: str = "usd") -> Disputed:
    return Disputed(payment=payment, dispute=dispute, amount=amount, currency=currency)


def closed(won: bool, dispute: str = "d1", payment: str = "p1") -> DisputeClosed:
    return DisputeClosed(payment=payment, dispute=dispute, won=won)


async def take(made: Fulfilment, *events: CreditEvent) -> list[bool]:
    """What each event was answered."""
    return [await made.take("acme", event) for event in events]


async def spend(store: Store, cents: int, account: str = "a") -> None:
    """Let credit be gone, as if it had been used."""
    doc = await funds(store, account)
    movements = Movements(store, TestClock(), recall_wait=0.01)
    await movements.apply(account, f"spent-{doc.log.n}", "adjustment", -cents * CENT, "used", "test")


async def funds(store: Store, account: str = "a") -> AccountDoc:
    doc = await store.account_read(account)
    assert doc is not None
    return doc


async def cents(store: Store, account: str = "a") -> int:
    """What is available, in whole cents."""
    available = (await funds(store, account)).available
    assert available % CENT == 0
    return available // CENT


async def movements(store: Store, account: str = "a") -> list[Movement]:
    return await store.movements_page(account, 0, 1000)
