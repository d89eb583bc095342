"""A billing backend for tests, with a payment page, signed webhooks, refunds, a list of what it has, and codes.

Its processor is a folder: what it was asked and what it will list lies there as JSON, so that commands and gateways in other
processes see the same one. `install(folder)` makes it the plugin `acme` for who has that folder on their path.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from pydantic import SecretStr

from aurixel.plugin import (
    BillingError,
    BillingHost,
    Checkout,
    CodeRefused,
    ConfigError,
    CreditEvent,
    DisputeClosed,
    Disputed,
    Paid,
    PluginSettings,
    Redeemed,
    Refund,
    Refunded,
    RefundEnded,
    Secret,
    TopUp,
    Unpaid,
    Waiting,
    WebhookInvalid,
    hookimpl,
)

SIGNATURE = "acme-signature"
SECRET = "acme-webhook-secret"
EVENTS = {event.__name__: event for event in (Paid, Waiting, Unpaid, Refunded, RefundEnded, Disputed, DisputeClosed)}


def signed(*events: CreditEvent, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    """A webhook with these events: its body and its headers."""
    body = json.dumps([{"type": type(event).__name__, **msgspec.to_builtins(event)} for event in events]).encode()
    return body, {SIGNATURE: hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


class AcmeSettings(PluginSettings):
    """The block `[payments.acme]`."""

    webhook_secret: SecretStr = SecretStr("")
    folder: str


class Processor:
    """What lies in the folder. `refunds`: key -> [payment, amount]; `answer`: how refunds are answered from now on."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "acme.json"

    def read(self) -> dict[str, Any]:
        """All of it."""
        empty: dict[str, Any] = {"topups": {}, "refunds": {}, "events": [], "codes": {}, "answer": "done"}
        return {**empty, **(json.loads(self._file.read_text()) if self._file.exists() else {})}

    def write(self, **changes: Any) -> None:
        """Change parts of it."""
        self._file.write_text(json.dumps({**self.read(), **changes}))

    def has(self, *events: CreditEvent) -> None:
        """What `reconcile` lists from now on."""
        self.write(events=json.loads(signed(*events)[0]))


class Acme:
    """The backend."""

    name: ClassVar[str] = "acme"
    Settings: ClassVar[type[AcmeSettings]] = AcmeSettings
    currencies: ClassVar[frozenset[str]] = frozenset({"usd", "eur"})

    def __init__(self, settings: AcmeSettings, host: BillingHost) -> None:
        if not settings.webhook_secret.get_secret_value():
            raise ConfigError("acme needs a webhook secret", mend="set webhook_secret")
        self._secret = settings.webhook_secret.get_secret_value()
        self._shelf = host.shelf
        self.processor = Processor(Path(settings.folder))

    async def begin_topup(self, topup: TopUp) -> Checkout:
        has = self.processor.read()
        if has["answer"] != "done":
            raise BillingError("acme is shut", again=has["answer"] == "silent")
        self.processor.write(topups={**has["topups"], topup.order: msgspec.to_builtins(topup)})
        return Checkout(url=f"https://pay.acme.test/{topup.order}", ref=f"page-{topup.order}", expires_ms=2**41)

    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        wanted = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted.encode(), headers.get(SIGNATURE, "").encode("utf-8", "replace")):
            raise WebhookInvalid("signature")
        return _events(json.loads(body))

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        has = self.processor.read()
        if key not in has["refunds"]:
            if has["answer"] == "refused":
                raise BillingError("acme says no", again=False)
            if has["answer"] == "silent":
                raise BillingError("acme says nothing", again=True)
            self.processor.write(refunds={**has["refunds"], key: [payment, amount]})
        if has["answer"] == "lost":
            raise BillingError("the answer of acme is lost", again=True)
        return Refund(f"re_{len(key)}", "done" if has["answer"] == "lost_once" else has["answer"])

    async def reconcile(self, since_ms: int) -> Sequence[CreditEvent]:
        return _events(self.processor.read()["events"])

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        amount = self.processor.read()["codes"].get(code.reveal())
        if amount is None:
            raise CodeRefused("invalid")
        name = hashlib.sha256(code.reveal().encode()).hexdigest()[:12]
        if not await self._shelf.put(name, {"account": account}):
            item = await self._shelf.get(name)
            if item is None or item.value["account"] != account:
                raise CodeRefused("invalid")
        return Redeemed(payment=f"code-{name}", amount=amount)


def _events(items: list[dict[str, Any]]) -> list[CreditEvent]:
    return [EVENTS[item.pop("type")](**item) for item in (dict(item) for item in items)]  # type: ignore[misc]


@hookimpl
def register_billing_backends() -> list[type[Acme]]:
    """This one."""
    return [Acme]


def install(site: Path) -> None:
    """Leave in the folder what an installer leaves of a distribution that offers the plugin `acme`."""
    info = site / "dist_acme-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist-acme\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(f"[aurixel]\nacme = {__name__}\n")


def block(folder: Path) -> str:
    """The TOML of its block, and of what it needs."""
    return f'\n[payments.acme]\nwebhook_secret = "{SECRET}"\nfolder = "{folder}"\n'
