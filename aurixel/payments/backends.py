"""A billing backend as the host calls it: under a deadline, timed, counted, and believed only as far as its shapes go.

What a backend is allowed to say (`BillingError`, `WebhookInvalid`, `CodeRefused`, `StoreUnavailable` of its shelf) passes;
anything else it raises, and an answer that makes no sense, is its fault: counted against it, and never taken for a no.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.plugin.billing import (
    BillingBackend,
    BillingError,
    Checkout,
    CodeRefused,
    CreditEvent,
    DisputeClosed,
    Disputed,
    Paid,
    Reconciles,
    Redeemed,
    RedeemsCodes,
    Refund,
    Refunded,
    RefundEnded,
    TakesPayment,
    TopUp,
    Unpaid,
    Waiting,
    WebhookInvalid,
)
from aurixel.registry import CallSite, PluginFailed, PluginMeter
from aurixel.values import MAX_NANOS, Secret

T = TypeVar("T")

_EVENTS: Final = (Paid, Waiting, Unpaid, Refunded, RefundEnded, Disputed, DisputeClosed)
_SAID: Final = (BillingError, WebhookInvalid, CodeRefused, StoreUnavailable)
_LONGEST: Final = 500
_RECONCILE: Final = 600.0  # seconds: it pages through lists
_MOST: Final = 10**12  # cents: what a wrong unit would exceed


class BoundBackend:
    """The backend of `[payments.NAME]`. `deadline`: seconds that a call of it may take."""

    def __init__(self, name: str, backend: BillingBackend, plugin: str, deadline: float, meter: PluginMeter) -> None:
        self.name, self.plugin = name, plugin
        self._backend, self._deadline = backend, deadline
        where = ("begin_topup", "parse_webhook", "refund", "reconcile", "redeem")
        self._sites = {each: CallSite(plugin, each, meter, passes=_SAID) for each in where}
        if self.takes_payment and not _is_currencies(self.currencies):
            fault = f"plugin '{plugin}': `currencies` of '{name}' is not a frozenset of ISO 4217 codes in lower case"
            raise ConfigError(fault, place=f"[payments.{name}]", code="plugin_refused")

    @property
    def takes_payment(self) -> bool:
        """Whether it has a payment page and webhooks."""
        return isinstance(self._backend, TakesPayment)

    @property
    def redeems_codes(self) -> bool:
        """Whether its credit comes as codes."""
        return isinstance(self._backend, RedeemsCodes)

    @property
    def reconciles(self) -> bool:
        """Whether it can be asked what its processor has."""
        return isinstance(self._backend, Reconciles)

    @property
    def currencies(self) -> frozenset[str]:
        """The currencies it can charge."""
        return self._backend.currencies if isinstance(self._backend, TakesPayment) else frozenset()

    async def begin_topup(self, topup: TopUp) -> Checkout:
        """`BillingError`."""
        return await self._ask("begin_topup", self._payments().begin_topup(topup), _is_checkout)

    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        """`WebhookInvalid`; `PluginFailed` where the backend does not know what it says."""
        site = self._sites["parse_webhook"]
        events = site.call(self._payments().parse_webhook, body, headers)
        return self._believed(site, events)

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        """`BillingError`."""
        return await self._ask("refund", self._payments().refund(payment, amount, currency, key), _is_refund)

    async def reconcile(self, since_ms: int) -> Sequence[CreditEvent]:
        """`BillingError`."""
        if not isinstance(self._backend, Reconciles):
            raise BillingError(f"the backend {self.name} cannot be asked what it has", again=False)
        deadline = max(self._deadline, _RECONCILE)
        events = await self._ask("reconcile", self._backend.reconcile(since_ms), lambda answer: True, deadline)
        try:
            return self._believed(self._sites["reconcile"], events)
        except PluginFailed:
            raise self._failed("reconcile") from None

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        """`CodeRefused`, `StoreUnavailable`; `BillingError` where the backend fails."""
        if not isinstance(self._backend, RedeemsCodes):
            raise BillingError(f"the backend {self.name} has no codes", again=False)
        return await self._ask("redeem", self._backend.redeem(account, code), _is_redeemed)

    def _payments(self) -> TakesPayment:
        if not isinstance(self._backend, TakesPayment):
            raise BillingError(f"the backend {self.name} takes no payments", again=False)
        return self._backend

    async def _ask(
        self, where: str, work: Coroutine[Any, Any, T], sound: Callable[[Any], bool], deadline: float | None = None
    ) -> T:
        site = self._sites[where]
        try:
            answer = await site.bounded(work, deadline or self._deadline)
        except PluginFailed:
            raise self._failed(where) from None
        if not sound(answer):
            site.failed(TypeError())
            raise self._failed(where)
        return answer

    def _failed(self, where: str) -> BillingError:
        """Nobody knows whether it happened, as with an answer that is lost."""
        return BillingError(f"the backend {self.name} failed in {where}, or gave no answer in time", again=True)

    def _believed(self, site: CallSite, events: object) -> Sequence[CreditEvent]:
        if isinstance(events, Sequence) and all(_is_event(event) for event in events):
            return events
        site.failed(TypeError())
        raise PluginFailed(site.plugin, site.where)


def _is_currencies(value: object) -> bool:
    return isinstance(value, frozenset) and all(
        isinstance(each, str) and len(each) == 3 and each.isalpha() and each.isascii() and each.islower() for each in value
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isascii() and value.isprintable()


def _is_event(event: object) -> bool:
    """Whether it is an event with values of the right types: ids that are ids, whole amounts, a currency."""
    if not isinstance(event, _EVENTS):
        return False
    try:
        msgspec.convert(msgspec.to_builtins(event), type(event))
    except (msgspec.ValidationError, TypeError):
        return False
    names = ("order", "payment", "key", "dispute", "currency")
    amounts = [getattr(event, name) for name in ("amount", "total") if hasattr(event, name)]
    return all(_is_id(getattr(event, name)) for name in names if hasattr(event, name)) and all(
        type(amount) is int and 0 <= amount <= _MOST for amount in amounts
    )


def _is_checkout(value: Any) -> bool:
    return (
        isinstance(value, Checkout)
        and _is_url(value.url)
        and _is_id(value.ref)
        and (value.expires_ms is None or type(value.expires_ms) is int)
    )


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and urlsplit(value).scheme in ("http", "https")


def _is_refund(value: object) -> bool:
    return isinstance(value, Refund) and _is_id(value.id) and value.state in ("done", "waiting", "failed")


def _is_redeemed(value: object) -> bool:
    return isinstance(value, Redeemed) and _is_id(value.payment) and type(value.amount) is int and 0 < value.amount <= MAX_NANOS
