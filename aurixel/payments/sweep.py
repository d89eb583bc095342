"""Finishes what any process has left half done: credit that has to move, receipts, refunds the processor was not asked for.

Each order stands for itself: one that cannot be finished now is left for the next round, and told once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from aurixel.errors import StoreUnavailable
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
        left: dict[str, int] = {}
        for doc in await self._fulfilment.store.orders_open(_PAGE):
            try:
                since = (await self._finish(from_doc(doc))).waiting_ms
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a bug, or an order that a newer version wrote: the others go on
                since = doc.created_ms
                if self._first(doc.id):
                    log.error("order %s cannot be finished: %s", doc.id, type(error).__name__)
            if since is not None:
                left[doc.id] = since
        self._told &= left.keys()
        age = max(0, self._fulfilment.clock.wall_ms() - min(left.values())) / 1000 if left else 0.0
        self._fulfilment.metrics.left(len(left), age)
        return len(left)

    async def _finish(self, order: Order) -> Order:
        order = await self._fulfilment.finish(order)
        for refund in order.refunds:
            if refund.state == "asking":
                order = await self._ask(order, refund.key)
        return order

    async def _ask(self, order: Order, key: str) -> Order:
        backend = self._backends.get(order.backend)
        why = "its backend has no block in the configuration"
        if backend is not None:
            try:
                return await ask(self._fulfilment, backend, order, key)
            except BillingError:
                why = "its backend gives no answer"
        if self._first(order.id):
            log.warning("order %s: a refund waits: %s", order.id, why)
        return order

    def _first(self, id: str) -> bool:
        """Whether nothing has been told of this order since it has had work."""
        first = id not in self._told
        self._told.add(id)
        return first
