"""Credit by Stripe Checkout. It keeps nothing: what Stripe says goes to the host, and of that only ids, states and amounts."""

from aurixel.plugin import BillingBackend, hookimpl
from aurixel_stripe.backend import Stripe
from aurixel_stripe.settings import StripeSettings

__all__ = ["Stripe", "StripeSettings", "register_billing_backends"]


@hookimpl
def register_billing_backends() -> list[type[BillingBackend]]:
    """The backend `stripe`."""
    return [Stripe]
