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
from aurixel.payments.machine import OrderRefused, begin_refund, check_refundable, known_refund, refund_answered
from aurixel.payments.orders import CENT, Order, OwnRefund
from aurixel.plugin.billing import BillingError, Refund
from aurixel.values import Nanos, format_usd

# The states of a refund that came to nothing: its name is free for another one.
_OVER: Final = ("failed", "refused")

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

    A refund of this name that exists is finished, and no other is made. `OrderRefused`: as `begin_refund` and `to_give_back`,
    "other_backend", "not_covered" (the account has less than `amount`: nothing is taken). `BillingError`: the processor gave
    no answer; the credit is taken, and the same call goes on.
    """
    found = await fulfilment.finish(await fulfilment.read(order))
    if found.backend != backend.name:
        raise OrderRefused("other_backend", "the order is of another backend")
    all_of_it = True  # with what nodes have leased, which is recalled first; some of it may be in use
    for _ in range(TRIES):
        wanted = await to_give_back(fulfilment, found, name, amount, leased=all_of_it)
        last = known_refund(found, name)
        if last is None or last.state in _OVER:
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


async def to_give_back(fulfilment: Fulfilment, order: Order, name: str, amount: Nanos | None, *, leased: bool = True) -> Nanos:
    """What the refund of this name gives back, one that is made already or would be now; `amount` None: all that can be.

    `OrderRefused`: "refund_conflict" (it is made already, of another amount), "not_refundable", "nothing_left".
    """
    last = known_refund(order, name)
    if last is not None and last.state not in _OVER:
        if amount not in (None, last.amount):
            what = f"the refund {name} is one of {format_usd(last.amount)} USD: one of another amount needs another id"
            raise OrderRefused("refund_conflict", what)
        return last.amount
    check_refundable(order)
    if amount is not None:
        return amount
    wanted = await _refundable(fulfilment, order, leased=leased)
    if not wanted:
        raise OrderRefused("nothing_left", "there is nothing to refund: the account covers not a cent of it")
    return wanted


async def _refundable(fulfilment: Fulfilment, order: Order, *, leased: bool) -> Nanos:
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
