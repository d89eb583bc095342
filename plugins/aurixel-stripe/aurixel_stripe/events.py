"""What Stripe's objects mean for an order: pure, from bytes or decoded objects to events. Nothing is verified in here.

What is not ours, and what changes nothing, is no event. What is ours and makes no sense raises one of `UNREADABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from aurixel.plugin import CreditEvent, DisputeClosed, Disputed, Paid, Refunded, RefundEnded, Unpaid, Waiting
from aurixel_stripe.objects import Charge, Dispute, Event, Intent, Marked, RefundObject, Session

T = TypeVar("T")
Events: TypeAlias = tuple[CreditEvent, ...]

# Nesting deeper than the interpreter's stack is the second, a text that is no UTF-8 the third.
UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

# https://docs.stripe.com/api/refunds/object; the other states, pending and requires_action, are on their way.
ENDED: Final[Mapping[str | None, Literal["done", "failed"]]] = MappingProxyType(
    {"succeeded": "done", "failed": "failed", "canceled": "failed"}
)
_envelope = msgspec.json.Decoder(Event)


def read_event(body: bytes) -> Event:
    """The envelope of what was posted."""
    return _envelope.decode(body)


def meaning(event: Event) -> Events:
    """What an event says; nothing for a type that is of no interest."""
    read = _MEANINGS.get(event.type)
    at_ms = None if event.created is None else event.created * 1000
    return () if read is None else tuple(replace(each, at_ms=at_ms) for each in read(event.data.object))


# --- of an event's object ---------------------------------------------------------------------------------------------


def _read(raw: msgspec.Raw, type: type[T]) -> T:
    return msgspec.json.decode(raw, type=type)


def _order(raw: msgspec.Raw) -> str | None:
    marks = _read(raw, Marked).metadata
    return marks.order or None if marks else None


def _finished(raw: msgspec.Raw) -> Events:
    order = _order(raw)
    return () if order is None else _outcome(order, _read(raw, Session))


def _unpaid(why: Literal["expired", "failed"]) -> Callable[[msgspec.Raw], Events]:
    def read(raw: msgspec.Raw) -> Events:
        order = _order(raw)
        return () if order is None or _read(raw, Session).mode != "payment" else (Unpaid(order=order, why=why),)

    return read


def _charge(raw: msgspec.Raw) -> Events:
    return () if _order(raw) is None else of_charge(_read(raw, Charge))


def _refund(raw: msgspec.Raw) -> Events:
    marks = _read(raw, Marked).metadata
    return () if marks is None or not marks.refund else of_refund(_read(raw, RefundObject))


def _dispute(raw: msgspec.Raw) -> Events:
    return of_dispute(_read(raw, Dispute))[:1]


def _dispute_closed(raw: msgspec.Raw) -> Events:
    """Of a lost one its beginning too: should nobody have told of that, the money is gone all the same."""
    dispute = _read(raw, Dispute)
    return of_dispute(dispute)[0 if dispute.status == "lost" else 1 :]


# https://docs.stripe.com/api/events/types
_MEANINGS: Final[Mapping[str, Callable[[msgspec.Raw], Events]]] = MappingProxyType(
    {
        "checkout.session.completed": _finished,
        "checkout.session.async_payment_succeeded": _finished,
        "checkout.session.async_payment_failed": _unpaid("failed"),
        "checkout.session.expired": _unpaid("expired"),
        "charge.refunded": _charge,
        "refund.created": _refund,
        "refund.updated": _refund,
        "refund.failed": _refund,
        "charge.dispute.created": _dispute,
        "charge.dispute.funds_withdrawn": _dispute,  # when a question of the bank's has become a chargeback
        "charge.dispute.closed": _dispute_closed,
    }
)
TYPES: Final = tuple(_MEANINGS)


# --- of an object -----------------------------------------------------------------------------------------------------


def _outcome(order: str, session: Session) -> Events:
    """Of a session whose payer is done."""
    if session.mode != "payment":
        return ()
    if session.payment_status == "unpaid":
        return (Waiting(order=order),)
    if session.payment_status == "no_payment_required":
        return (Unpaid(order=order, why="failed"),)
    payment = session.payment_intent.id if isinstance(session.payment_intent, Intent) else session.payment_intent
    if payment is None or session.amount_total is None or session.currency is None:
        raise msgspec.ValidationError("a paid session without its payment")
    return (Paid(order=order, payment=payment, amount=session.amount_total, currency=session.currency),)


def of_session(order: str, session: Session) -> Events:
    """What has become of a session by now, with its payment expanded: its end, then what was refunded."""
    if session.status == "expired":
        return (Unpaid(order=order, why="expired"),) if session.mode == "payment" else ()
    if session.status != "complete":
        return ()
    intent = session.payment_intent if isinstance(session.payment_intent, Intent) else None
    outcome = _outcome(order, session)
    if intent is None:
        return outcome
    if session.payment_status == "unpaid" and intent.status in ("requires_payment_method", "canceled"):
        # The bank said no after the session was complete: nothing of the session itself tells.
        return (Unpaid(order=order, why="failed"),) if outcome else ()
    charge = intent.latest_charge
    return outcome + (of_charge(charge) if charge is not None and charge.amount_refunded else ())


def of_charge(charge: Charge) -> Events:
    """How much of a payment has been given back."""
    if charge.payment_intent is None:
        return ()
    return (Refunded(payment=charge.payment_intent, total=charge.amount_refunded, currency=charge.currency),)


def of_refund(refund: RefundObject) -> Events:
    """That a refund of ours is over, if it is."""
    ended, marks = ENDED.get(refund.status), refund.metadata
    if ended is None or refund.payment_intent is None or marks is None or not marks.refund:
        return ()
    return (RefundEnded(payment=refund.payment_intent, key=marks.refund, done=ended == "done"),)


def of_dispute(dispute: Dispute) -> Events:
    """A chargeback, and its end if it has ended. What moves no money (a bank's question, a prevented case) is none."""
    payment = dispute.payment_intent
    if payment is None or dispute.status.startswith("warning_") or dispute.status == "prevented":
        return ()
    opened = Disputed(payment=payment, dispute=dispute.id, amount=dispute.amount, currency=dispute.currency)
    if dispute.status not in ("won", "lost"):
        return (opened,)
    return opened, DisputeClosed(payment=payment, dispute=dispute.id, won=dispute.status == "won")
