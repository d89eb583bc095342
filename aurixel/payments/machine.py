"""What follows for an order from what a processor says and an operator wants: pure functions from an order to the next one.

They promise that what is said twice, late or in any order comes to the same, that no credit is given but for money of the
right amount and currency, and that a refusal has a name. They move nothing: the next order says what must move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from msgspec.structs import replace

from aurixel.errors import AurixelError
from aurixel.payments.orders import CENT, Cause, Dispute, Move, Order, OwnRefund, next_rev
from aurixel.plugin.billing import (
    CreditEvent,
    DisputeClosed,
    Disputed,
    Paid,
    Refund,
    Refunded,
    RefundEnded,
    Unpaid,
    Waiting,
)
from aurixel.storage import MovementKind
from aurixel.values import Nanos

_KINDS: Final[Mapping[Cause, MovementKind]] = {
    "payment": "topup",
    "refund": "refund",
    "returned": "adjustment",
    "elsewhere": "dispute",  # the money is gone already: takes what is there
    "dispute": "dispute",
    "won": "adjustment",
}
# What still counts on being carried out at the processor, or has been.
_LIVE: Final = frozenset({"taking", "asking", "waiting", "done"})


class OrderRefused(AurixelError):
    """What was said or asked cannot be: nothing is changed. `code` is a short stable word, the message for the operator."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class NotYet(AurixelError):
    """An event of something that is not known yet: it has to be sent again, once what comes before it is here."""


def decide(order: Order, event: CreditEvent, now_ms: int) -> Order:
    """The order after the event; the same object where it changes nothing. The order is at rest, and the event its own.

    `OrderRefused`: "wrong_currency", "wrong_amount", "other_payment", "refund_unknown", "closed_otherwise". `NotYet`.
    """
    if not order.at_rest:
        raise ValueError("an order with moves to be done decides nothing")
    match event:
        case Paid():
            return _paid(order, event, now_ms)
        case Waiting():
            return order if order.payment or order.ended or order.waiting else next_rev(order, waiting=True)
        case Unpaid():
            return order if order.payment or order.ended else next_rev(order, ended=event.why, page="")
        case Refunded():
            _check(order, event.total, event.currency)
            total = event.total * CENT
            return order if total <= order.reported else _balanced(next_rev(order, reported=total), now_ms)
        case RefundEnded():
            return _refund_ended(order, event, now_ms)
        case Disputed():
            return _disputed(order, event, now_ms)
        case DisputeClosed():
            return _dispute_closed(order, event, now_ms)
        case _:
            assert_never(event)


def settle(order: Order, done: Mapping[str, tuple[Nanos, str]], now_ms: int, receipt: int) -> Order:
    """The order after its work here: what each move took (by its id, with the fault if it never can), its receipt.

    More may have to move then: look again whether it is at rest.
    """
    moves = tuple(
        move if move.took is not None or move.id not in done else replace(move, took=done[move.id][0], fault=done[move.id][1])
        for move in order.moves
    )
    taken = {move.of: move for move in moves if move.cause == "refund" and move.took is not None}
    refunds = tuple(
        replace(refund, state="asking" if taken[refund.key].took == -refund.amount else "refused")
        if refund.state == "taking" and refund.key in taken
        else refund
        for refund in order.refunds
    )
    disputes = tuple(replace(dispute, suspended=True) for dispute in order.disputes)
    settled = next_rev(order, moves=moves, refunds=refunds, disputes=disputes, receipt=receipt)
    return _balanced(settled, now_ms) if settled.at_rest else settled


# --- the operator's refunds ---------------------------------------------------------------------------------------------


def known_refund(order: Order, name: str) -> OwnRefund | None:
    """The last refund of this name."""
    return next((refund for refund in reversed(order.refunds) if refund.name == name), None)


def check_refundable(order: Order) -> None:
    """`OrderRefused("not_refundable")` where no refund can begin, of whatever amount."""
    if order.by_code:
        raise OrderRefused("not_refundable", "nothing was paid for it here: it is the credit of a code")
    if order.payment is None or order.state not in ("paid", "partly_refunded"):
        raise OrderRefused("not_refundable", f"an order that is {order.state} cannot be refunded")


def begin_refund(order: Order, name: str, amount: Nanos, author: str, reason: str, now_ms: int) -> Order:
    """The order with a refund more, whose credit is to be taken before the processor is asked. The order is at rest.

    A name is used once, unless its last attempt came to nothing. `OrderRefused`: "not_refundable", "amount_invalid",
    "refund_exists".
    """
    check_refundable(order)
    if amount <= 0 or amount % CENT:
        raise OrderRefused("amount_invalid", "a refund is of whole cents, above zero")
    if amount > order.refundable:
        raise OrderRefused("not_refundable", "the refund is more than is left of the payment")
    last = known_refund(order, name)
    if last is not None and last.state not in ("failed", "refused"):
        raise OrderRefused("refund_exists", f"there is a refund {name} of this order already")
    attempt = 1 if last is None else last.attempt + 1
    refund = OwnRefund(
        key=f"{order.id}:{name}:{attempt}",
        name=name,
        attempt=attempt,
        amount=amount,
        at_ms=now_ms,
        author=author,
        reason=reason,
    )
    begun = next_rev(order, refunds=(*order.refunds, refund))
    return replace(begun, moves=(*begun.moves, _move(begun, "refund", refund.key, -amount, author, now_ms)))


def refund_answered(order: Order, key: str, answer: Refund | None, now_ms: int) -> Order:
    """The order after the processor's answer to a refund; None: it refused. The order is at rest."""
    refund = _refund(order, key)
    if refund is None or refund.state != "asking":
        return order  # a webhook was faster
    if answer is None:
        return _failed(order, replace(refund, state="failed"), now_ms)
    taken = replace(refund, state=answer.state, accepted=True, id=answer.id)
    return _failed(order, taken, now_ms) if answer.state == "failed" else _with_refund(order, taken)


# --- each event -----------------------------------------------------------------------------------------------------------


def _paid(order: Order, event: Paid, now_ms: int) -> Order:
    if event.currency != order.currency:
        raise OrderRefused("wrong_currency", "the money is of another currency than the order")
    if event.amount * CENT != order.amount:
        raise OrderRefused("wrong_amount", "the money is not the amount of the order")
    if order.payment is not None:
        if order.payment != event.payment:
            raise OrderRefused("other_payment", "the order has been paid by another payment")
        return order
    paid = next_rev(order, payment=event.payment, paid_ms=now_ms, page="")
    return replace(paid, moves=(_move(paid, "payment", "", order.amount, order.backend, now_ms),))


def paid_by_code(order: Order, payment: str, now_ms: int) -> Order:
    """A new order that a code has paid for already."""
    paid = replace(order, payment=payment, paid_ms=now_ms, by_code=True)
    return replace(paid, moves=(_move(paid, "payment", "", order.amount, order.backend, now_ms),))


def _refund_ended(order: Order, event: RefundEnded, now_ms: int) -> Order:
    refund = _refund(order, event.key)
    if refund is None:
        raise OrderRefused("refund_unknown", "the order has no refund of this key")
    if refund.state not in ("asking", "waiting", "done") or (event.done and refund.state == "done"):
        return order
    if event.done:
        return _with_refund(order, replace(refund, state="done", accepted=True))
    return _failed(order, replace(refund, state="failed", accepted=True), now_ms)


def _disputed(order: Order, event: Disputed, now_ms: int) -> Order:
    _check_currency(order, event.currency)
    if event.amount == 0:
        raise OrderRefused("wrong_amount", "a dispute of nothing")
    if any(dispute.id == event.dispute for dispute in order.disputes):
        return order
    # A bank that counts in another currency may want more than was paid, by its rate: no more than that was credited.
    amount = min(event.amount * CENT, order.amount)
    dispute = Dispute(id=event.dispute, amount=amount, at_ms=now_ms)
    changed = next_rev(order, disputes=(*order.disputes, dispute))
    return replace(changed, moves=(*changed.moves, _move(changed, "dispute", event.dispute, -amount, order.backend, now_ms)))


def _dispute_closed(order: Order, event: DisputeClosed, now_ms: int) -> Order:
    dispute = next((dispute for dispute in order.disputes if dispute.id == event.dispute), None)
    if dispute is None:
        raise NotYet("a dispute that is not known yet")
    state = "won" if event.won else "lost"
    if dispute.state == state:
        return order
    if dispute.state != "open":
        raise OrderRefused("closed_otherwise", f"the dispute was {dispute.state} before")
    closed = replace(dispute, state=state)
    changed = next_rev(order, disputes=tuple(closed if each is dispute else each for each in order.disputes))
    taken = order.move("dispute", dispute.id)
    if not event.won or taken is None or not taken.took:
        return changed
    return replace(changed, moves=(*changed.moves, _move(changed, "won", dispute.id, -taken.took, order.backend, now_ms)))


# --- parts ----------------------------------------------------------------------------------------------------------------


def _check_currency(order: Order, currency: str) -> None:
    if currency != order.currency:
        raise OrderRefused("wrong_currency", "the amount is of another currency than the order")


def _check(order: Order, amount: int, currency: str) -> None:
    _check_currency(order, currency)
    if amount < 0 or amount * CENT > order.amount:
        raise OrderRefused("wrong_amount", "the amount is more than was paid")


def _balanced(order: Order, now_ms: int) -> Order:
    """With a move for what the processor gave back beyond our own refunds, as far as none has been made for it.

    A refund of ours that failed after the processor had taken it on stays counted: what is reported only rises.
    """
    ours = sum(refund.amount for refund in order.refunds if refund.state in _LIVE or refund.accepted)
    elsewhere = order.reported - ours
    if elsewhere <= order.elsewhere:
        return order
    more = order.elsewhere - elsewhere
    return replace(
        order,
        elsewhere=elsewhere,
        moves=(*order.moves, _move(order, "elsewhere", str(elsewhere // CENT), more, order.backend, now_ms)),
    )


def _failed(order: Order, refund: OwnRefund, now_ms: int) -> Order:
    """The credit of a refund that came to nothing returns."""
    changed, taken = _with_refund(order, refund), order.move("refund", refund.key)
    if taken is not None and taken.took:
        move = _move(order, "returned", refund.key, -taken.took, order.backend, now_ms)
        changed = replace(changed, moves=(*changed.moves, move))
    return _balanced(changed, now_ms)


def _refund(order: Order, key: str) -> OwnRefund | None:
    return next((refund for refund in order.refunds if refund.key == key), None)


def _with_refund(order: Order, refund: OwnRefund) -> Order:
    return next_rev(order, refunds=tuple(refund if each.key == refund.key else each for each in order.refunds))


def _move(order: Order, cause: Cause, of: str, amount: Nanos, author: str, now_ms: int) -> Move:
    """Its id follows from the payment's: whoever decides the same writes the same."""
    stem = f"payment:{order.backend}:{order.payment}"
    name = stem if cause == "payment" else f"{stem}:{cause}:{of}"
    return Move(id=name, cause=cause, of=of, kind=_KINDS[cause], amount=amount, at_ms=now_ms, author=author)
