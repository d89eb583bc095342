"""Stripe's objects, as far as we read them: ids, states, amounts and our own marks. Nothing else is ever decoded.

Shapes: https://docs.stripe.com/api (checkout/sessions, charges, refunds, disputes, events). A field that may be missing or
null has a default; one of another type makes the whole object `msgspec.ValidationError`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

# What is ours on Stripe is marked by these fields of `metadata`.
ORDER = "aurixel_order"
REFUND = "aurixel_refund"

Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{1,255}$")]
Mark: TypeAlias = Annotated[str, msgspec.Meta(max_length=500)]
Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{3}$")]


class Marks(msgspec.Struct, frozen=True):
    """Of an object's `metadata`, what we wrote."""

    order: Mark | None = msgspec.field(name=ORDER, default=None)
    refund: Mark | None = msgspec.field(name=REFUND, default=None)


class Marked(msgspec.Struct, frozen=True):
    """What is read of an object before we know that it is ours."""

    metadata: Marks | None = None


class Begun(msgspec.Struct, frozen=True):
    """A Checkout Session that was just made."""

    id: Id
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+$")]
    expires_at: Amount | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The money of a payment, and how much of it went back by now."""

    payment_intent: Id | None = None
    amount_refunded: Amount
    currency: Currency
    metadata: Marks | None = None


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment, expanded in a list."""

    id: Id
    status: str
    latest_charge: Charge | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A Checkout Session that is ours."""

    mode: str
    status: Literal["open", "complete", "expired"] | None = None
    payment_status: Literal["paid", "unpaid", "no_payment_required"]
    payment_intent: Id | Intent | None = None
    amount_total: Amount | None = None
    currency: Currency | None = None


class RefundObject(msgspec.Struct, frozen=True, kw_only=True):
    """A refund, ours or one that somebody made on Stripe's own pages."""

    id: Id
    status: str | None = None
    payment_intent: Id | None = None
    charge: Id | Charge | None = None
    metadata: Marks | None = None


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A chargeback, or the bank's question before it (`warning_...`), which moves no money yet."""

    id: Id
    status: str
    amount: Amount
    currency: Currency
    payment_intent: Id | None = None
    charge: Id | Charge | None = None


class Data(msgspec.Struct, frozen=True):
    """The object of an event, not yet read."""

    object: msgspec.Raw


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope of what is posted to a webhook. `created` in seconds; `account`: the connected account it comes from."""

    object: Literal["event"]
    created: Amount | None = None
    type: str
    livemode: bool
    account: str | None = None
    data: Data
