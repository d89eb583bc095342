"""The block `[payments.stripe]`. What would fail at the first payment, or let a forged event pass, is refused at the start."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from aurixel.plugin import BaseUrl, ConfigError, PluginSettings

_KEY: Final = re.compile(r"(?:sk|rk)_(test|live)_[A-Za-z0-9_]+")
_SECRET: Final = re.compile(r"whsec_[!-~]{16,}")
_MEND: Final = "take it from Stripe's page of the webhook endpoint, and give it as env:NAME"


def _api_key(key: SecretStr) -> SecretStr:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("must be a secret or restricted key of one account: sk_test_, sk_live_, rk_test_ or rk_live_ and more")
    return key


def _suffix(text: str) -> str:
    # https://docs.stripe.com/get-started/account/statement-descriptors
    if not re.fullmatch(r"(?=.*[A-Za-z])[ !#-&(-)+-;=?-\[\]-~]{1,22}", text):
        raise ValueError("must be 1 to 22 characters of ASCII with a letter among them, without < > \\ ' \" *")
    return text


class StripeSettings(PluginSettings):
    """Needs a key, and at least one webhook secret."""

    api_key: Annotated[SecretStr, AfterValidator(_api_key)]
    webhook_secret: SecretStr | None = None
    # Several, for as long as Stripe signs with the old and the new one; each of them is as good as the other.
    webhook_secrets: tuple[SecretStr, ...] = ()
    api_base: BaseUrl = "https://api.stripe.com"
    # The connected account whose money this is, where the key is its platform's.
    account: Annotated[str, Field(pattern=r"^acct_[A-Za-z0-9]{1,64}$")] | None = None
    currencies: frozenset[Annotated[str, Field(pattern=r"^[a-z]{3}$")]] = Field(default=frozenset({"usd"}), min_length=1)
    # How far from now an event's signature may have been made, in seconds.
    tolerance: int = Field(default=300, ge=1, le=3600)
    # How long one call may take in all, in seconds, and how often the library may send it again meanwhile.
    timeout: float = Field(default=15.0, gt=0, le=120)
    retries: int = Field(default=2, ge=0, le=5)
    # What the payer reads on the payment page, and on the statement behind the account's own name.
    product_name: str = Field(default="Prepaid credit", min_length=1, max_length=200)
    statement_suffix: Annotated[str, AfterValidator(_suffix)] | None = None

    @property
    def mode(self) -> Literal["test", "live"]:
        """Which of Stripe's two worlds the key belongs to."""
        return "live" if self.api_key.get_secret_value()[3:].startswith("live_") else "test"


def usable_secrets(settings: StripeSettings) -> tuple[str, ...]:
    """The webhook secrets; `ConfigError` for none, or for one that is empty or no webhook secret, and for an open wire."""
    one = () if settings.webhook_secret is None else (settings.webhook_secret,)
    secrets = tuple(secret.get_secret_value() for secret in (*one, *settings.webhook_secrets))
    place = "[payments.stripe] webhook_secret"
    if not secrets:
        raise ConfigError("there is no webhook secret: whoever finds the address could forge payments", place=place, mend=_MEND)
    if not all(_SECRET.fullmatch(secret) for secret in secrets):
        text = "a webhook secret is empty, or does not look like one (whsec_ and at least 16 characters more)"
        raise ConfigError(text, place=place, mend=_MEND)
    if settings.mode == "live" and not settings.api_base.startswith("https://"):
        raise ConfigError(
            "a live key is sent over https only", place="[payments.stripe] api_base", mend="begin it with https://"
        )
    return secrets
