"""The billing backend `stripe`: Checkout Sessions, verified webhooks, refunds, and what Stripe has of ours.

Stripe is told an order's id, its amount and where to send the payer: no e-mail, no name, no account. Anything may be
asked again: Stripe knows a repeated request by our keys, and a refund, whose key it forgets after a day, by its mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from pydantic import BaseModel

from aurixel.plugin import BillingHost, Checkout, CreditEvent, Refund, TopUp, WebhookInvalid
from aurixel_stripe.api import Api, Json
from aurixel_stripe.events import (
    ENDED,
    UNREADABLE,
    Events,
    meaning,
    of_charge,
    of_dispute,
    of_refund,
    of_session,
    read_event,
)
from aurixel_stripe.objects import ORDER, REFUND, Begun, Charge, Dispute, Marked, RefundObject, Session
from aurixel_stripe.settings import StripeSettings, usable_secrets
from aurixel_stripe.signature import HEADER, verify

if TYPE_CHECKING:
    from stripe.params.checkout import SessionCreateParams


class Stripe:
    """One Stripe account."""

    name: ClassVar[str] = "stripe"
    Settings: ClassVar[type[BaseModel]] = StripeSettings

    def __init__(self, settings: StripeSettings, host: BillingHost) -> None:
        self.currencies: frozenset[str] = settings.currencies
        self._secrets = usable_secrets(settings)
        self._settings, self._clock = settings, host.clock
        self._api = Api(settings)

    async def begin_topup(self, topup: TopUp) -> Checkout:
        """A Checkout Session. For a day Stripe gives the same one again for the same order, and then it has expired."""
        mark = {ORDER: topup.order}
        params: SessionCreateParams = {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": topup.currency,
                        "unit_amount": topup.amount,
                        "product_data": {"name": self._settings.product_name},
                    },
                }
            ],
            "metadata": mark,
            "payment_intent_data": {"metadata": mark},  # from where Stripe copies it to the charge
            "success_url": topup.success_url,
            "cancel_url": topup.cancel_url,
            "adaptive_pricing": {"enabled": False},  # charged in the order's currency, or its amount could not be compared
        }
        if self._settings.statement_suffix is not None:
            params["payment_intent_data"]["statement_descriptor_suffix"] = self._settings.statement_suffix
        begun = await self._api.ask(
            lambda client: client.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"aurixel-order-{topup.order}"}
            ),
            Begun,
        )
        return Checkout(url=begun.url, ref=begun.id, expires_ms=begun.expires_at and begun.expires_at * 1000)

    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        """The event in `body`, if Stripe signed it just now, for our account and the key's mode. `WebhookInvalid`."""
        now = self._clock.wall_ms() / 1000
        verify(body, headers.get(HEADER), self._secrets, now=now, tolerance=self._settings.tolerance)
        try:
            event = read_event(body)
            if event.livemode != (self._settings.mode == "live"):
                raise WebhookInvalid("mode")
            if event.account != self._settings.account:
                raise WebhookInvalid("account")
            return meaning(event)
        except UNREADABLE:
            raise WebhookInvalid("shape") from None

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        """Give back `amount` of the payment, in its own currency. A refund that bears `key` already is the answer."""
        del currency  # Stripe knows the payment's, and takes no other
        known = await self._api.walk(
            lambda client: client.v1.refunds.list_async,
            {"payment_intent": payment},
            lambda item: [refund for refund in (msgspec.convert(item, RefundObject),) if _bears(refund, key)],
        )
        if known:
            return _state(known[0])
        made = await self._api.ask(
            lambda client: client.v1.refunds.create_async(
                {"payment_intent": payment, "amount": amount, "metadata": {REFUND: key}},
                {"idempotency_key": f"aurixel-refund-{key}"},
            ),
            RefundObject,
        )
        return _state(made)

    async def reconcile(self, since_ms: int) -> Sequence[CreditEvent]:
        """Of sessions, refunds and disputes that began since then, what has become of those that are ours."""
        began: Json = {"created": {"gte": since_ms // 1000}}
        sessions = await self._api.walk(
            lambda client: client.v1.checkout.sessions.list_async,
            {**began, "expand": ["data.payment_intent.latest_charge"]},
            _session,
        )
        with_charge: Json = {**began, "expand": ["data.charge"]}
        refunds = await self._api.walk(lambda client: client.v1.refunds.list_async, with_charge, _refund)
        disputes = await self._api.walk(lambda client: client.v1.disputes.list_async, with_charge, _dispute)
        return tuple(dict.fromkeys(chain(sessions, refunds, disputes)))


def _bears(refund: RefundObject, key: str) -> bool:
    return refund.metadata is not None and refund.metadata.refund == key


def _state(refund: RefundObject) -> Refund:
    state: Literal["done", "waiting", "failed"] = ENDED.get(refund.status, "waiting")
    return Refund(refund.id, state)


# --- objects of a list ------------------------------------------------------------------------------------------------


def _session(item: Json) -> Events:
    marks = msgspec.convert(item, Marked).metadata
    return of_session(marks.order, msgspec.convert(item, Session)) if marks and marks.order else ()


def _refund(item: Json) -> Events:
    refund = msgspec.convert(item, RefundObject)
    charge = _ours(refund.charge)
    return of_refund(refund) + (of_charge(charge) if charge else ())


def _dispute(item: Json) -> Events:
    dispute = msgspec.convert(item, Dispute)
    return of_dispute(dispute) if _ours(dispute.charge) else ()


def _ours(charge: str | Charge | None) -> Charge | None:
    return charge if isinstance(charge, Charge) and charge.metadata is not None and charge.metadata.order else None
