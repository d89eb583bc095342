"""The billing suite can fail: each breach of the contract is seen by the test that is there for it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from aurixel.plugin import Checkout, ConfigError, CreditEvent, Paid, PluginSettings, Refund, TopUp, WebhookInvalid
from aurixel.registry.settings import read_settings
from aurixel.testing.billing_suite import BillingSuite
from aurixel.testing.host import PluginHost

SECRET = "toy-secret-0123"
BODY = json.dumps({"order": "o-1", "payment": "p-1", "cents": 500, "payer": "payer@example.test"}).encode()


class ToySettings(PluginSettings):
    secret: SecretStr


class Toy:
    """Keeps the contract."""

    name: ClassVar[str] = "toy"
    Settings: ClassVar[type[PluginSettings]] = ToySettings
    currencies: frozenset[str] = frozenset({"usd"})

    def __init__(self, settings: ToySettings, host: PluginHost) -> None:
        self.secret = settings.secret.get_secret_value()
        if not self.secret.strip():
            raise ConfigError("there is no secret")

    async def begin_topup(self, topup: TopUp) -> Checkout:
        return Checkout(url="https://toy.example/", ref=topup.order)

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        return Refund("r-1", "done")

    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        if not self.is_signed(body, headers.get("x-toy", "")):
            raise WebhookInvalid("signature")
        return self.read(body)

    def is_signed(self, body: bytes, signature: str) -> bool:
        return hmac.compare_digest(signature, toy_signature(self.secret, body))

    def read(self, body: bytes) -> Sequence[CreditEvent]:
        try:
            value = json.loads(body)
            order, payment, cents = value["order"], value["payment"], value["cents"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WebhookInvalid("shape") from None
        if not (isinstance(order, str) and isinstance(payment, str) and order and payment):
            raise WebhookInvalid("shape")
        if type(cents) is not int or cents < 0:
            raise WebhookInvalid("shape")
        return (self.paid(order, payment, cents, value),)

    def paid(self, order: str, payment: str, cents: int, value: dict[str, Any]) -> Paid:
        return Paid(order=order, payment=payment, amount=cents, currency="usd")


def toy_signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Suite(BillingSuite):
    plugin = name = "toy"
    settings = {"secret": SECRET}  # noqa: RUF012
    needs = ("secret",)
    secrets = (SECRET,)
    samples = ((BODY, (Paid(order="o-1", payment="p-1", amount=500, currency="usd"),)),)
    personal = ("payer@example.test",)
    cls: type[Any] = Toy

    def sign(self, body: bytes) -> dict[str, str]:
        return {"x-toy": toy_signature(SECRET, body)}

    def build(self, settings: Mapping[str, Any], host: PluginHost | None = None) -> Any:
        return self.cls(read_settings(self.cls.Settings, settings, "[payments.toy]"), host or PluginHost())


# --- breaches ---------------------------------------------------------------------------------------------------------


class OpenSettings(PluginSettings):
    secret: str = ""


class StartsWithoutSecret(Toy):
    def __init__(self, settings: ToySettings, host: PluginHost) -> None:
        self.secret = settings.secret.get_secret_value()


class HasADefault(Toy):
    Settings = type("Lax", (PluginSettings,), {"__annotations__": {"secret": SecretStr}, "secret": SecretStr(SECRET)})


class PrintsIt(Toy):
    Settings = OpenSettings

    def __init__(self, settings: Any, host: PluginHost) -> None:
        self.secret = settings.secret
        if not self.secret.strip():
            raise ConfigError("there is no secret")


class TakesAnything(Toy):
    def is_signed(self, body: bytes, signature: str) -> bool:
        return True


class TakesUnsigned(Toy):
    def is_signed(self, body: bytes, signature: str) -> bool:
        return not signature or super().is_signed(body, signature)


class ReadsTheBeginning(Toy):
    def is_signed(self, body: bytes, signature: str) -> bool:
        return bool(signature) and toy_signature(self.secret, body).startswith(signature)


class SignsAPart(Toy):
    def is_signed(self, body: bytes, signature: str) -> bool:
        return super().is_signed(body, signature) or hmac.compare_digest(signature, toy_signature(self.secret, BODY))


class TripsOverGarbage(Toy):
    def read(self, body: bytes) -> Sequence[CreditEvent]:
        value = json.loads(body)
        return (self.paid(value["order"], value["payment"], value["cents"], value),)


class Believes(Toy):
    def read(self, body: bytes) -> Sequence[CreditEvent]:
        try:
            value = json.loads(body)
            return (self.paid(value["order"], value["payment"], value["cents"], value),)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WebhookInvalid("shape") from None


class Leaks(Toy):
    def paid(self, order: str, payment: str, cents: int, value: dict[str, Any]) -> Paid:
        return Paid(order=order, payment=f"{payment} {value.get('payer')}", amount=cents, currency="usd")


class Quotes(Toy):
    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        try:
            return super().parse_webhook(body, headers)
        except WebhookInvalid:
            raise WebhookInvalid(f"signature of {body!r}") from None


class OncePerBody(Toy):
    def read(self, body: bytes) -> Sequence[CreditEvent]:
        events, self.seen = super().read(body), [*getattr(self, "seen", []), body]
        return events if self.seen.count(body) == 1 else ()


BREACHES = [
    (StartsWithoutSecret, "test_no_secret_no_start"),
    (HasADefault, "test_no_secret_no_start"),
    (PrintsIt, "test_settings_do_not_print_their_secrets"),
    (type("Loud", (Toy,), {"currencies": frozenset({"USD"})}), "test_its_currencies_are_codes"),
    (type("Poor", (Toy,), {"currencies": frozenset()}), "test_its_currencies_are_codes"),
    (TakesAnything, "test_a_forged_webhook_is_refused"),
    (TakesUnsigned, "test_a_forged_webhook_is_refused"),
    (SignsAPart, "test_a_forged_webhook_is_refused"),
    (ReadsTheBeginning, "test_a_part_of_a_signature_is_none"),
    (TripsOverGarbage, "test_any_body_is_survived"),
    (Believes, "test_any_body_is_survived"),
    (Quotes, "test_a_forged_webhook_is_refused"),
    (Leaks, "test_what_is_personal_stays_behind"),
    (OncePerBody, "test_a_signed_webhook_means_what_it_says"),
]


def suite_of(cls: type[Any]) -> Any:
    suite: Any = Suite()
    suite.cls = cls
    return suite


@pytest.mark.parametrize(("cls", "test"), BREACHES)
def test_a_breach_is_seen(cls: type[Any], test: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(suite_of(cls), test)()


def each_test() -> Iterator[str]:
    return (name for name in dir(Suite) if name.startswith("test_"))


def test_what_keeps_the_contract_passes() -> None:
    for test in each_test():
        if "loads" not in test:  # that is about the registry, which is not in play here
            getattr(suite_of(Toy), test)()


def test_each_test_has_a_breach() -> None:
    assert set(each_test()) - {test for _, test in BREACHES} == {
        "test_it_loads_and_is_the_plugins_own",
        "test_settings_it_does_not_know_are_refused",  # both are the registry's doing
    }
