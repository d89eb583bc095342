"""Whether a webhook's bytes are Stripe's word: by the library's own check, under any of our secrets, and made just now.

The age is measured here and by the host's clock: the library reads the machine's, and lets any future time pass. Nothing
of the body is looked at, or kept in what is raised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import stripe

from aurixel.plugin import WebhookInvalid

HEADER: Final = "stripe-signature"
# https://docs.stripe.com/webhooks#verify-manually; the time comes first, and is the one that was signed.
_MADE: Final = re.compile(r"t=([0-9]{1,12}),")


def verify(body: bytes, header: str | None, secrets: Sequence[str], *, now: float, tolerance: int) -> None:
    """Return for a signature by one of `secrets` made within `tolerance` seconds of `now`; else `WebhookInvalid`."""
    made = _MADE.match(header or "")
    if header is None or made is None or not any(_signed(body, header, secret) for secret in secrets):
        raise WebhookInvalid("signature")
    if abs(now - int(made[1])) > tolerance:
        raise WebhookInvalid("signature")


def _signed(body: bytes, header: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, TypeError):  # of bytes and headers that are no text
        return False
    return True
