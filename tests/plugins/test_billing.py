"""Billing backends: what the registry refuses, and how their calls are kept under a deadline, counted and believed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.payments import BoundBackend
from aurixel.plugin.billing import (
    BillingError,
    Checkout,
    CodeRefused,
    Disputed,
    Paid,
    Redeemed,
    Refund,
    Refunded,
    TopUp,
    Waiting,
    WebhookInvalid,
)
from aurixel.registry import PluginFailed, Registry
from aurixel.testing.host import PluginHost
from aurixel.values import Secret
from tests.harness.guard import ExpectedLogs
from tests.plugins.conftest import PREAMBLE, Install, hook

BANK = PREAMBLE + (
    "class Bank:\n"
    "    name, currencies = 'bank', frozenset({'usd'})\n"
    "    class Settings(PluginSettings):\n"
    "        secret: str\n"
    "    def __init__(self, settings, host):\n"
    "        self.settings, self.shelf = settings, host.shelf\n"
    "    async def begin_topup(self, topup): ...\n"
    "    def parse_webhook(self, body, headers): ...\n"
    "    async def refund(self, payment, amount, currency, key): ...\n"
    "    async def reconcile(self, since_ms): ...\n"
    "    async def redeem(self, account, code): ...\n"
)
WHOLE = BANK + hook("register_billing_backends", "Bank")


def load(*enabled: str) -> Registry:
    return Registry.load(enabled, builtin=())


def test_a_backend_is_collected_and_built_with_its_shelf(install: Install) -> None:
    install("bank", WHOLE)
    registry = load("bank")
    assert list(registry.backends) == ["bank"]
    assert registry.owner("billing backend", "bank") == "bank"
    host = PluginHost()
    backend: Any = registry.build_backend("bank", {"secret": "s"}, host)
    assert backend.shelf is host.shelf
    with pytest.raises(ConfigError, match="unknown setting 'sekret'") as caught:
        registry.build_backend("bank", {"sekret": "s"}, host)
    assert caught.value.place == "[payments.bank] sekret"
    with pytest.raises(ConfigError, match=r"brings a billing backend named 'banc'.*did you mean 'bank'") as caught:
        registry.build_backend("banc", {}, host)
    assert caught.value.place == "[payments.banc]"


FAULTS = {
    "no name": ("name, currencies = 'bank'", "title, currencies = 'bank'", "Bank is no billing backend: `name`"),
    "odd name": ("= 'bank'", "= 'The Bank'", "`name` is not a name"),
    "no settings": ("class Settings(", "class Other(", "`Settings` is not a pydantic model"),
    "setting of the host": ("secret: str", "deadline: float", "`Settings.deadline` is a key of the host's own"),
    "no init": ("__init__", "init", "there is no method `__init__`"),
    "init without a host": ("(self, settings, host):", "(self, settings):\n        host = None", "`__init__` cannot be called"),
    "begin_topup plain": ("async def begin_topup", "def begin_topup", "`begin_topup` must be `async def`"),
    "begin_topup missing": ("def begin_topup", "def begin", "there is no method `begin_topup`"),
    "parse_webhook async": ("def parse_webhook", "async def parse_webhook", "`parse_webhook` must be a plain `def`"),
    "parse_webhook missing": ("def parse_webhook", "def parse", "there is no method `parse_webhook`"),
    "parse_webhook short": ("(self, body, headers)", "(self, body)", "`parse_webhook` cannot be called with 2"),
    "refund missing": ("def refund", "def give_back", "there is no method `refund`"),
    "refund without a key": ("amount, currency, key)", "amount, currency)", "`refund` cannot be called with 4"),
    "refund plain": ("async def refund", "def refund", "`refund` must be `async def`"),
    "reconcile plain": ("async def reconcile", "def reconcile", "`reconcile` must be `async def`"),
    "reconcile wants more": ("(self, since_ms)", "(self, since_ms, until_ms)", "`reconcile` cannot be called with 1"),
    "redeem plain": ("async def redeem", "def redeem", "`redeem` must be `async def`"),
    "redeem short": ("(self, account, code)", "(self, code)", "`redeem` cannot be called with 2"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_classes_that_are_refused(install: Install, case: str) -> None:
    before, after, fault = FAULTS[case]
    assert before in WHOLE
    install("broken", WHOLE.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        load("broken")
    assert "'broken'" in str(caught.value)
    assert fault in str(caught.value)
    assert (caught.value.place, caught.value.code) == ("plugins.enabled", "plugin_refused")


def test_a_backend_takes_payments_or_redeems_codes(install: Install) -> None:
    neither = BANK.replace("begin_topup", "a").replace("parse_webhook", "b").replace("refund", "c").replace("redeem", "d")
    install("neither", neither + hook("register_billing_backends", "Bank"))
    with pytest.raises(ConfigError, match=r"neither a method `begin_topup` .* nor `redeem`"):
        load("neither")
    only_codes = BANK.replace("begin_topup", "a").replace("parse_webhook", "b").replace("refund", "c")
    install("codes", only_codes + hook("register_billing_backends", "Bank"))
    assert list(load("codes").backends) == ["bank"]
    install("pay", BANK.replace("redeem", "d").replace("reconcile", "e") + hook("register_billing_backends", "Bank"))
    assert list(load("pay").backends) == ["bank"]
    with pytest.raises(ConfigError, match=r"'codes' and 'pay' both bring a billing backend named 'bank'"):
        load("codes", "pay")


def test_who_lacks_its_secret_does_not_start(install: Install) -> None:
    install("bank", WHOLE.replace("self.settings, self.shelf = settings, host.shelf", "raise ConfigError('no secret')"))
    with pytest.raises(ConfigError, match="no secret") as caught:
        load("bank").build_backend("bank", {"secret": ""}, PluginHost())
    assert caught.value.place == "[payments.bank]"
    install("bug", WHOLE.replace("'bank'", "'bug'").replace("self.settings, self.shelf = settings, host.shelf", "1 / 0"))
    with pytest.raises(ConfigError, match="plugin 'bug': making Bank raised ZeroDivisionError"):
        load("bug").build_backend("bug", {"secret": ""}, PluginHost())


# --- calls ----------------------------------------------------------------------------------------------------------------


class Meter:
    """Counts errors by place."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.calls: list[str] = []

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        return lambda seconds: self.calls.append(where), lambda: self.errors.append(where)


class Said:
    """A backend that answers, or raises, what a test says."""

    name = "said"
    Settings = BaseModel
    currencies: Any = frozenset({"usd"})

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def _say(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def begin_topup(self, topup: Any) -> Any:
        return self._say()

    def parse_webhook(self, body: Any, headers: Any) -> Any:
        return self._say()

    async def refund(self, *args: Any) -> Any:
        if self.answer == "never":
            await asyncio.Event().wait()
        return self._say()

    async def reconcile(self, since_ms: int) -> Any:
        return self._say()

    async def redeem(self, account: Any, code: Any) -> Any:
        return self._say()


TOPUP = TopUp(order="o", amount=1, currency="usd", success_url="https://a.test", cancel_url="https://a.test")


def bound(answer: Any, meter: Meter | None = None, deadline: float = 5) -> BoundBackend:
    return BoundBackend("said", Said(answer), "plug", deadline, meter or Meter())  # type: ignore[arg-type]


async def ask(backend: BoundBackend, where: str) -> Any:
    match where:
        case "begin_topup":
            return await backend.begin_topup(TOPUP)
        case "refund":
            return await backend.refund("p", 1, "usd", "k")
        case "reconcile":
            return await backend.reconcile(0)
        case "redeem":
            return await backend.redeem("a", Secret("c"))
    return backend.parse_webhook(b"", {})


GOOD: list[tuple[str, Any]] = [
    ("begin_topup", Checkout(url="https://pay.test/x", ref="r")),
    ("begin_topup", Checkout(url="http://127.0.0.1/x", ref="r", expires_ms=1)),
    ("parse_webhook", ()),
    ("parse_webhook", [Paid(order="o", payment="p", amount=1, currency="usd", at_ms=5), Waiting(order="o")]),
    ("refund", Refund("r", "waiting")),
    ("reconcile", (Refunded(payment="p", total=0, currency="usd"),)),
    ("redeem", Redeemed(payment="p", amount=1)),
]
BAD: list[tuple[str, Any]] = [
    ("begin_topup", None),
    ("begin_topup", Checkout(url="javascript:alert(1)", ref="r")),
    ("begin_topup", Checkout(url="https://pay.test/\n", ref="r")),
    ("begin_topup", Checkout(url="https://pay.test/", ref="")),
    ("begin_topup", Checkout(url="https://pay.test/", ref="r", expires_ms=1.5)),  # type: ignore[arg-type]
    ("parse_webhook", None),
    ("parse_webhook", "Paid"),
    ("parse_webhook", [object()]),
    ("parse_webhook", [Paid(order="o", payment="p", amount=1.0, currency="usd")]),  # type: ignore[arg-type]
    ("parse_webhook", [Paid(order="o", payment="p", amount=True, currency="usd")]),
    ("parse_webhook", [Paid(order="o", payment="p", amount=-1, currency="usd")]),
    ("parse_webhook", [Paid(order="o", payment="p", amount=10**13, currency="usd")]),
    ("parse_webhook", [Paid(order="", payment="p", amount=1, currency="usd")]),
    ("parse_webhook", [Paid(order="o", payment="p\n", amount=1, currency="usd")]),
    ("parse_webhook", [Paid(order="o", payment="p" * 501, amount=1, currency="usd")]),
    ("parse_webhook", [Paid(order="o", payment=None, amount=1, currency="usd")]),  # type: ignore[arg-type]
    ("parse_webhook", [Disputed(payment="p", dispute="ä", amount=1, currency="usd")]),
    ("parse_webhook", [Waiting(order="o", at_ms="now")]),  # type: ignore[arg-type]
    ("refund", None),
    ("refund", Refund("r", "maybe")),  # type: ignore[arg-type]
    ("refund", Refund("", "done")),
    ("reconcile", None),
    ("reconcile", [1]),
    ("redeem", Redeemed(payment="p", amount=0)),
    ("redeem", Redeemed(payment="p", amount=2**62)),
    ("redeem", Redeemed(payment="", amount=1)),
]


@pytest.mark.parametrize(("where", "answer"), GOOD)
async def test_sound_answers_are_believed(where: str, answer: Any) -> None:
    meter = Meter()
    assert await ask(bound(answer, meter), where) == answer
    assert meter.errors == []
    assert meter.calls == [where]


@pytest.mark.parametrize(("where", "answer"), BAD)
async def test_answers_that_make_no_sense_are_the_plugins_fault(where: str, answer: Any, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.plugins", f"plugin plug failed in {where}: TypeError", level=logging.ERROR, times=1)
    meter = Meter()
    with pytest.raises(PluginFailed if where == "parse_webhook" else BillingError) as caught:
        await ask(bound(answer, meter), where)
    assert getattr(caught.value, "again", True)
    assert meter.errors == [where]


@pytest.mark.parametrize("where", ["begin_topup", "parse_webhook", "refund", "reconcile", "redeem"])
async def test_what_a_backend_may_say_passes_and_the_rest_is_counted(where: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.plugins", "ValueError at tests.plugins.test_billing", level=logging.ERROR, times=1)
    for error in (BillingError("no", again=False), WebhookInvalid("x"), CodeRefused("invalid"), StoreUnavailable("gone")):
        meter = Meter()
        with pytest.raises(type(error)):
            await ask(bound(error, meter), where)
        assert meter.errors == []
    meter = Meter()
    with pytest.raises(PluginFailed if where == "parse_webhook" else BillingError) as caught:
        await ask(bound(ValueError("sk-secret of payer"), meter), where)
    assert "sk-secret" not in str(caught.value)
    assert meter.errors == [where]


async def test_a_call_has_a_deadline(expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.plugins", "plugin plug failed in refund: TimeoutError", level=logging.ERROR, times=1)
    with pytest.raises(BillingError) as caught:
        await ask(bound("never", deadline=0.01), "refund")
    assert caught.value.again


@pytest.mark.parametrize("currencies", [{"usd"}, frozenset({"USD"}), frozenset({"us"}), frozenset({1}), None])
def test_currencies_that_are_none(currencies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Said, "currencies", currencies)
    with pytest.raises(ConfigError, match="`currencies` of 'said' is not a frozenset") as caught:
        bound(())
    assert caught.value.place == "[payments.said]"


async def test_what_a_backend_is_not_is_said() -> None:
    class Codes:
        name = "said"
        Settings = BaseModel

        async def redeem(self, account: Any, code: Any) -> Any: ...

    class Pays(Said):
        redeem = reconcile = None  # type: ignore[assignment]

    codes = BoundBackend("said", Codes(), "plug", 5, Meter())  # type: ignore[arg-type]
    assert (codes.takes_payment, codes.redeems_codes, codes.reconciles, codes.currencies) == (False, True, False, frozenset())
    for where in ("begin_topup", "parse_webhook", "refund", "reconcile"):
        with pytest.raises(BillingError, match=r"takes no payments|cannot be asked"):
            await ask(codes, where)
