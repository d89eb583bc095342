"""Finishes what any process has left half done: credit that has to move, receipts, refunds the processor was not asked for.

Each order stands for itself: one that cannot be finished now is left for the next round, and told once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import Fulfilment
from aurixel.payments.orders import Order, from_doc
from aurixel.payments.refunds import ask
from aurixel.plugin.billing import BillingError

log: Final = logging.getLogger("aurixel.payments")

_PAGE: Final = 1000


class Sweep:
    """Rounds over the orders with work left."""

    def __init__(self, fulfilment: Fulfilment, backends: Mapping[str, BoundBackend]) -> None:
        self._fulfilment, self._backends = fulfilment, backends
        self._told: set[str] = set()

    async def round(self) -> int:
        """Finish what can be; how many orders still have work left. `StoreUnavailable` ends the round."""
        left: list[Order] = []
        for doc in await self._fulfilment.store.orders_open(_PAGE):
            order = await self._fulfilment.finish(from_doc(doc))
            for refund in order.refunds:
                if refund.state == "asking":
                    order = await self._ask(order, refund.key)
            if order.open:
                left.append(order)
        self._told &= {order.id for order in left}
        oldest = min((since for order in left if (since := order.waiting_ms) is not None), default=None)
        age = 0.0 if oldest is None else max(0, self._fulfilment.clock.wall_ms() - oldest) / 1000
        self._fulfilment.metrics.left(len(left), age)
        return len(left)

    async def _ask(self, order: Order, key: str) -> Order:
        backend = self._backends.get(order.backend)
        why = "its backend has no block in the configuration"
        if backend is not None:
            try:
                return await ask(self._fulfilment, backend, order, key)
            except BillingError:
                why = "its backend gives no answer"
        if order.id not in self._told:
            self._told.add(order.id)
            log.warning("order %s: a refund waits: %s", order.id, why)
        return order
