"""The operator's refunds: written down and their credit taken before the processor is asked, so that none is paid twice.

Begun again after a crash at any step, a refund of the same name goes on where it was. The processor is asked under one key,
as often as it takes. A refund that comes to nothing gives its credit back.
"""

from __future__ import annotations

import logging
from typing import Final

from aurixel.errors import StoreUnavailable
from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import TRIES, Fulfilment
from aurixel.payments.machine import OrderRefused, begin_refund, known_refund, refund_answered
from aurixel.payments.orders import CENT, Order, OwnRefund
from aurixel.plugin.billing import BillingError, Refund
from aurixel.values import Nanos, format_usd

log: Final = logging.getLogger("aurixel.payments")


async def refund(
    fulfilment: Fulfilment,
    backend: BoundBackend,
    order: str,
    *,
    amount: Nanos | None,
    name: str,
    author: str,
    reason: str = "",
) -> tuple[Order, OwnRefund]:
    """Refund `amount` of an order, or all that is left of it and that the account covers; the order and the refund then.

    A refund of this name that exists is finished, and no other is made. `OrderRefused`: as `begin_refund`, "other_backend",
    "nothing_left", "not_covered" (the account has less than `amount`: nothing is taken). `BillingError`: the processor gave no
    answer; the credit is taken, and the same call goes on.
    """
    found = await fulfilment.finish(await fulfilment.read(order))
    if found.backend != backend.name:
        raise OrderRefused("other_backend", "the order is of another backend")
    all_of_it = True  # with what nodes have leased, which is recalled first; some of it may be in use
    for _ in range(TRIES):
        last = known_refund(found, name)
        if last is None or last.state in ("failed", "refused"):
            wanted = await refundable(fulfilment, found, leased=all_of_it) if amount is None else amount
            if amount is None and not wanted:
                raise OrderRefused("nothing_left", "there is nothing to refund: the account covers not a cent of it")
            begun = begin_refund(found, name, wanted, author, reason, fulfilment.clock.wall_ms())
            if not await fulfilment.swap(begun):
                found = await fulfilment.finish(await fulfilment.read(order))
                continue
            found = await fulfilment.finish(begun)
            last = known_refund(found, name)
        if last is None:
            raise StoreUnavailable("the store forgot a refund")
        if last.state == "refused" and amount is None and all_of_it:
            all_of_it = False
            continue
        if last.state == "refused":
            raise OrderRefused("not_covered", f"the account has less than {format_usd(last.amount)} USD to give back")
        found = await ask(fulfilment, backend, found, last.key)
        done = known_refund(found, name)
        return found, done or last
    raise StoreUnavailable("the order does not come to rest")


async def refundable(fulfilment: Fulfilment, order: Order, *, leased: bool = True) -> Nanos:
    """What is left of the payment and the account has available for it, in whole cents; with what is `leased` to nodes."""
    doc = await fulfilment.store.account_read(order.account)
    if doc is None:
        return 0
    available = doc.available + (sum(lease.amount for lease in doc.leases.values()) if leased else 0)
    return min(order.refundable, available // CENT * CENT)


async def ask(fulfilment: Fulfilment, backend: BoundBackend, order: Order, key: str) -> Order:
    """Ask the processor for a refund whose credit is taken, unless it has answered; the order then. `BillingError`: again."""
    for _ in range(TRIES):
        order = await fulfilment.finish(order)
        due = next((each for each in order.refunds if each.key == key), None)
        if due is None or due.state != "asking" or order.payment is None:
            return order
        answer: Refund | None = None
        try:
            answer = await backend.refund(order.payment, due.amount // CENT, order.currency, key)
        except BillingError as error:
            if error.again:
                raise
            log.warning("order %s: its backend %s refuses the refund %s", order.id, order.backend, due.name)
        while True:
            answered = refund_answered(order, key, answer, fulfilment.clock.wall_ms())
            if answered is order:
                return order
            if await fulfilment.swap(answered):
                return await fulfilment.finish(answered)
            order = await fulfilment.finish(await fulfilment.read(order.id))
    raise StoreUnavailable("the order does not come to rest")
