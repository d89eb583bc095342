"""Stripe's events as they come, with everything in them that we must not keep, and signed by Stripe's own library.

Each personal or card field holds a word of `CANARIES`, so that a test can look for what has escaped.
"""

from __future__ import annotations

import json
from typing import Any

import stripe

SECRET = "whsec_0123456789abcdef0123456789abcdef"
KEY = "sk_test_51Aurixel"
ORDER = "order-7"
PAYMENT = "pi_3QAurixel"
NOW = 1_767_225_600  # where a ManualClock stands

CANARIES = (
    "canary-name", "canary-email@example.test", "canary-phone", "canary-line1", "canary-city", "canary-zip", "4242",
    "canary-fingerprint", "canary-ip", "canary-evidence", "canary-descriptor", "canary-receipt", "canary-customer",
    "canary-last-error", "canary-brand", "canary-extra",
)  # fmt: skip

Json = dict[str, Any]
MARK = {"aurixel_order": ORDER, "other": "canary-extra"}
ADDRESS = {"line1": "canary-line1", "line2": None, "city": "canary-city", "postal_code": "canary-zip", "country": "DE"}
DETAILS = {"name": "canary-name", "email": "canary-email@example.test", "phone": "canary-phone", "address": ADDRESS}
CARD = {"brand": "canary-brand", "last4": "4242", "fingerprint": "canary-fingerprint", "exp_month": 12, "exp_year": 2030}


def session(**fields: Any) -> Json:
    """A Checkout Session of ours that was paid."""
    return {
        "id": "cs_test_a1",
        "object": "checkout.session",
        "mode": "payment",
        "status": "complete",
        "payment_status": "paid",
        "payment_intent": PAYMENT,
        "amount_subtotal": 1000,
        "amount_total": 1000,
        "currency": "usd",
        "livemode": False,
        "metadata": MARK,
        "customer": "canary-customer",
        "customer_details": DETAILS,
        "customer_email": "canary-email@example.test",
        "collected_information": {"shipping_details": {"name": "canary-name", "address": ADDRESS}},
        "expires_at": NOW + 86_400,
    } | fields


def charge(**fields: Any) -> Json:
    """The charge of that payment, wholly refunded."""
    return {
        "id": "ch_3QAurixel",
        "object": "charge",
        "amount": 1000,
        "amount_refunded": 1000,
        "currency": "usd",
        "payment_intent": PAYMENT,
        "metadata": MARK,
        "billing_details": DETAILS,
        "payment_method_details": {"type": "card", "card": CARD},
        "receipt_email": "canary-email@example.test",
        "receipt_url": "https://example.test/canary-receipt",
        "statement_descriptor": "canary-descriptor",
    } | fields


def refund(**fields: Any) -> Json:
    """A refund that we asked for under the key `refund-1`."""
    return {
        "id": "re_3QAurixel",
        "object": "refund",
        "amount": 1000,
        "currency": "usd",
        "status": "succeeded",
        "payment_intent": PAYMENT,
        "charge": "ch_3QAurixel",
        "metadata": {"aurixel_refund": "refund-1"},
        "instructions_email": "canary-email@example.test",
    } | fields


def dispute(**fields: Any) -> Json:
    """A chargeback of the whole payment."""
    return {
        "id": "du_1QAurixel",
        "object": "dispute",
        "amount": 1000,
        "currency": "usd",
        "status": "needs_response",
        "payment_intent": PAYMENT,
        "charge": "ch_3QAurixel",
        "evidence": {
            "customer_name": "canary-name",
            "customer_email_address": "canary-email@example.test",
            "customer_purchase_ip": "canary-ip",
            "uncategorized_text": "canary-evidence",
        },
        "payment_method_details": {"card": CARD},
    } | fields


def event(type: str, object: Json, **fields: Any) -> Json:
    """What Stripe posts."""
    return {
        "id": "evt_1QAurixel",
        "object": "event",
        "api_version": stripe.api_version,
        "created": NOW,
        "type": type,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {"object": object, "previous_attributes": {"receipt_email": "canary-email@example.test"}},
    } | fields


def encoded(value: Any) -> bytes:
    """As Stripe writes it."""
    return json.dumps(value, indent=2).encode()


def signed(body: bytes, secret: str = SECRET, at: int = NOW) -> dict[str, str]:
    """The headers that go with a body, by lower-case name."""
    signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)
    return {"content-type": "application/json; charset=utf-8", "stripe-signature": signature}
