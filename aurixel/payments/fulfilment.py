"""Carries orders through: an event decides, the decision is written, the credit moves, and that is written too.

It promises that each move is made exactly once whoever begins it and whoever dies on the way, and that what it says is done
is durable. Anyone may finish an order at any time: a webhook sent again, a command, the sweep. It asks no processor.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Literal, Protocol, TypeAlias

from aurixel.clock import Clock
from aurixel.errors import StoreUnavailable
from aurixel.ledger import MovementError, Movements, Refused
from aurixel.payments.machine import NotYet, OrderRefused, decide, settle
from aurixel.payments.orders import Cause, Move, Order, from_doc, to_doc
from aurixel.payments.receipts import ReceiptRules, issue
from aurixel.plugin.billing import CreditEvent, Paid, Unpaid, Waiting
from aurixel.storage import Store
from aurixel.values import Nanos

log: Final = logging.getLogger("aurixel.payments")

TRIES: Final = 1000
_REASONS: Final[Mapping[Cause, str]] = {
    "payment": "paid",
    "refund": "refunded",
    "returned": "a refund that failed",
    "elsewhere": "refunded at the processor",
    "dispute": "disputed",
    "won": "a dispute that was won",
}


class PaymentMetrics(Protocol):
    """What is counted as it happens. Calls must not block or raise."""

    def webhook(self, backend: str, result: WebhookResult, lag: float | None) -> None:
        """A webhook was answered; `lag`: seconds since it happened at the processor, where the processor says when."""

    def lost(self, amount: Nanos) -> None:
        """The processor took money back that the account did not cover."""

    def left(self, orders: int, oldest_seconds: float) -> None:
        """How many orders have work left after a sweep, and for how long the oldest of that work has waited."""


WebhookResult: TypeAlias = Literal["done", "nothing", "unknown", "invalid", "refused", "not_yet", "unavailable", "failed"]


class NoMetrics:
    """Counts nothing."""

    def webhook(self, backend: str, result: WebhookResult, lag: float | None) -> None: ...
    def lost(self, amount: Nanos) -> None: ...
    def left(self, orders: int, oldest_seconds: float) -> None: ...


class Fulfilment:
    """The orders of one store. `receipts`: what is printed on the receipts that are issued from now on."""

    def __init__(
        self, store: Store, clock: Clock, receipts: ReceiptRules, metrics: PaymentMetrics, movements: Movements | None = None
    ) -> None:
        self.store, self.clock, self.metrics = store, clock, metrics
        self._receipts = receipts
        self._movements = movements or Movements(store, clock)

    async def take(self, backend: str, event: CreditEvent) -> bool:
        """Take in what a backend's processor says; whether it was new. All that follows from it here is durable then.

        `OrderRefused`: as `decide`, and "order_unknown", "other_backend", "payment_of_another_order". `NotYet`,
        `StoreUnavailable`: it has to be sent again.
        """
        for _ in range(TRIES):
            order = await self.finish(await self._order_of(backend, event))
            changed = decide(order, event, self.clock.wall_ms())
            if changed is order:
                return False
            if await self.swap(changed):
                await self.finish(changed)
                return True
            if isinstance(event, Paid):
                other = await self.store.order_paid_by(backend, event.payment)
                if other is not None and other.id != order.id:
                    raise OrderRefused("payment_of_another_order", "the payment has paid another order")
        raise StoreUnavailable("the order does not come to rest")

    async def read(self, id: str) -> Order:
        """The order; `OrderRefused("order_unknown")`."""
        doc = await self.store.order_read(id)
        if doc is None:
            raise OrderRefused("order_unknown", "there is no such order")
        return from_doc(doc)

    async def swap(self, order: Order) -> bool:
        """Write the next revision; False where somebody else was faster."""
        return await self.store.order_swap(to_doc(order))

    async def finish(self, order: Order) -> Order:
        """The order with everything done that needs no processor: the account suspended, credit moved, its receipt issued."""
        for _ in range(TRIES):
            if not order.here:
                return order
            if any(not dispute.suspended for dispute in order.disputes):
                # Before the credit is taken, so that it is not spent meanwhile. A closed account stays closed.
                await self.store.profile_status(order.account, "suspended", "active")
            done = {move.id: await self._make(order, move) for move in order.moves if move.took is None}
            receipt = order.receipt
            if order.payment is not None and not receipt:
                receipt = await issue(self.store, order, self._receipts, self.clock.wall_ms())
            settled = settle(order, done, self.clock.wall_ms(), receipt)
            if await self.swap(settled):
                self._tell(order, settled)
                order = settled
            else:
                order = await self.read(order.id)
        raise StoreUnavailable("the order does not come to rest")

    async def _order_of(self, backend: str, event: CreditEvent) -> Order:
        if isinstance(event, Paid | Waiting | Unpaid):
            order = await self.read(event.order)
            if order.backend != backend:
                raise OrderRefused("other_backend", "the order is of another backend")
            return order
        doc = await self.store.order_paid_by(backend, event.payment)
        if doc is None:
            raise NotYet("a payment that is not known yet")
        return from_doc(doc)

    async def _make(self, order: Order, move: Move) -> tuple[Nanos, str]:
        """What the move took, and the fault if it can never be made."""
        reason = f"order {order.id}: {_REASONS[move.cause]}"
        try:
            made = await self._movements.apply(
                order.account, move.id, move.kind, move.amount, reason, move.author, ref=order.id
            )
        except Refused:
            return 0, ""
        except MovementError as error:
            return 0, error.code
        return made.took or 0, ""

    def _tell(self, order: Order, settled: Order) -> None:
        """What the operator must hear, once: by who has written it down."""
        if settled.loss > order.loss:
            self.metrics.lost(settled.loss - order.loss)
        if any(not dispute.suspended for dispute in order.disputes):
            log.warning("order %s is disputed: its account is suspended", order.id)
        for before, after in zip(order.moves, settled.moves, strict=False):
            if after.fault and not before.fault:
                log.error("order %s: credit cannot be moved (%s, %s): settle it by hand", order.id, after.cause, after.fault)
