"""Compares what a processor has with what we have: what we lack, what cannot be, what it does not know.

Looking changes nothing. Applying takes in each event as if it had come by webhook, so that doing it twice does nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import Fulfilment
from aurixel.payments.machine import NotYet, OrderRefused, decide
from aurixel.payments.orders import Order
from aurixel.plugin.billing import CreditEvent, Paid, Unpaid, Waiting
from aurixel.storage import orders_of


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs. `what`: the event; `order` and `payment` where known; `code`: why it cannot be."""

    what: str
    order: str
    payment: str
    code: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What differs: `lacking` here, `refused` by us, `unknown` there (ids of orders). `applied`: what lacked is here now."""

    lacking: tuple[Finding, ...]
    refused: tuple[Finding, ...]
    unknown: tuple[str, ...]
    applied: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.refused and not self.unknown and (self.applied or not self.lacking)


async def reconcile(fulfilment: Fulfilment, backend: BoundBackend, since_ms: int, *, apply: bool) -> Report:
    """Compare from an instant on, and take in what is lacking with `apply`. `BillingError`, `StoreUnavailable`."""
    events = await backend.reconcile(since_ms)
    known = _Known(fulfilment, backend.name)
    lacking: list[Finding] = []
    refused: list[Finding] = []
    for event in events:
        finding = await known.look(event)
        if finding is None:
            continue
        if finding.code:
            refused.append(finding)
        else:
            lacking.append(finding)
            if apply:
                try:
                    await fulfilment.take(backend.name, event)
                except (OrderRefused, NotYet) as error:  # it has gone on since we looked
                    refused.append(msgspec.structs.replace(finding, code=getattr(error, "code", "not_yet")))
    unknown = await _unknown(fulfilment, backend.name, since_ms, events)
    return Report(lacking=tuple(lacking), refused=tuple(refused), unknown=unknown, applied=apply)


class _Known:
    """Orders as they would be after the events so far: in memory only."""

    def __init__(self, fulfilment: Fulfilment, backend: str) -> None:
        self._fulfilment, self._backend = fulfilment, backend
        self._orders: dict[str, Order] = {}
        self._payments: dict[str, str] = {}

    async def look(self, event: CreditEvent) -> Finding | None:
        """What the event would change; None for nothing."""
        what, payment = type(event).__name__, getattr(event, "payment", "")
        try:
            order = await self._order(event)
            changed = decide(_as_if_done(order), event, self._fulfilment.clock.wall_ms())
        except OrderRefused as error:
            return Finding(what=what, order=getattr(event, "order", ""), payment=payment, code=error.code)
        except NotYet:
            return Finding(what=what, order="", payment=payment, code="payment_unknown")
        after = _as_if_done(changed)
        self._orders[order.id] = after
        if after.payment is not None:
            self._payments[after.payment] = order.id
        same = changed.rev == order.rev
        return None if same else Finding(what=what, order=order.id, payment=payment)

    async def _order(self, event: CreditEvent) -> Order:
        if isinstance(event, Paid | Waiting | Unpaid):
            name = event.order
        else:
            name = self._payments.get(event.payment, "")
            if not name:
                doc = await self._fulfilment.store.order_paid_by(self._backend, event.payment)
                if doc is None:
                    raise NotYet("a payment that is not known")
                name = doc.id
        order = self._orders.get(name) or await self._fulfilment.read(name)
        if order.backend != self._backend:
            raise OrderRefused("other_backend", "the order is of another backend")
        return order


def _as_if_done(order: Order) -> Order:
    """The order with its open moves made, as if the account covered all."""
    moves = tuple(msgspec.structs.replace(move, took=move.amount) if move.took is None else move for move in order.moves)
    return order if moves == order.moves else msgspec.structs.replace(order, moves=moves)


async def _unknown(fulfilment: Fulfilment, backend: str, since_ms: int, events: Sequence[CreditEvent]) -> tuple[str, ...]:
    """Orders since then that have been paid by payments of which the processor says nothing."""
    paid = {event.payment for event in events if isinstance(event, Paid)}
    unknown = [
        doc.id
        async for doc in orders_of(fulfilment.store, None, since_ms)
        if doc.backend == backend and doc.payment is not None and doc.payment not in paid
    ]
    return tuple(unknown)
