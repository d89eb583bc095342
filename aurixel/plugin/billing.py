"""What a billing backend implements and what it is given: how money comes in, and nothing of the ledger.

A backend says what its processor says; the host decides what follows from it, and moves the credit. Amounts of money are
integers in the currency's smallest unit (cents), as processors count them. Nothing here can hold card details, names or
addresses, and a backend must not keep them elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
from pydantic import BaseModel

from aurixel.errors import AurixelError
from aurixel.plugin.contracts import Host
from aurixel.values import Nanos, Secret

# --- given to backends ------------------------------------------------------------------------------------------------


class ShelfItem(msgspec.Struct, frozen=True):
    """A document on a backend's shelf. `rev` rises with each change; `value` is JSON."""

    id: str
    rev: int
    value: Mapping[str, Any]


class Shelf(Protocol):
    """A backend's own few documents, kept in the host's store beside everyone's money and away from it.

    Each change is one guarded update of one document. Any call may raise `StoreUnavailable`: it may have happened, may
    not have, or may still land; read, and decide again. Ids are at most 200 characters of `[A-Za-z0-9:._-]`.
    """

    async def put(self, id: str, value: Mapping[str, Any]) -> bool:
        """Insert with `rev` 1; False where the id is taken."""

    async def get(self, id: str) -> ShelfItem | None: ...

    async def swap(self, id: str, rev: int, value: Mapping[str, Any]) -> bool:
        """Replace the value where `rev` is still that; False for no match, which proves nothing: read."""

    async def page(self, prefix: str, after: str, limit: int) -> Sequence[ShelfItem]:
        """Documents whose id starts with `prefix` and comes after `after`, in the order of their ids."""


class BillingHost(Host, Protocol):
    """What a billing backend is given: a `Host`, and a shelf of its own."""

    @property
    def shelf(self) -> Shelf:
        """Where it keeps what it must remember."""


# --- what a backend says ----------------------------------------------------------------------------------------------
# `at_ms` of an event is when it happened, by the processor's clock, where the processor says so.


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be paid: our order, `amount` in the currency's smallest unit, and where the payer goes afterwards.

    `currency` is an ISO 4217 code in lower case.
    """

    order: str
    amount: int
    currency: str
    success_url: str
    cancel_url: str


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """Where the payer pays. `ref` is the backend's id of it; `expires_ms`: until when, where it says."""

    url: str
    ref: str
    expires_ms: int | None = None


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """Money has come in for an order, for good. `payment` is the backend's id of it, the same in every later event."""

    order: str
    payment: str
    amount: int
    currency: str
    at_ms: int | None = None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The payer has done their part; the money is on its way, and may still not come."""

    order: str
    at_ms: int | None = None


class Unpaid(msgspec.Struct, frozen=True, kw_only=True):
    """No money will come for this order: `why` says how it ended."""

    order: str
    why: Literal["expired", "failed"]
    at_ms: int | None = None


class Refunded(msgspec.Struct, frozen=True, kw_only=True):
    """`total` of a payment has been given back by now, ours and others' refunds together. It only rises: a lower one than
    was told before, as where a refund failed, changes nothing."""

    payment: str
    total: int
    currency: str
    at_ms: int | None = None


class RefundEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A refund that we asked for under `key` has come to its end, good or bad. Bad is for good, even after good."""

    payment: str
    key: str
    done: bool
    at_ms: int | None = None


class Disputed(msgspec.Struct, frozen=True, kw_only=True):
    """The payer's bank wants `amount` of a payment back. `dispute` is the backend's id of the case."""

    payment: str
    dispute: str
    amount: int
    currency: str
    at_ms: int | None = None


class DisputeClosed(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute is decided: `won` by us, and the money is ours again, or lost."""

    payment: str
    dispute: str
    won: bool
    at_ms: int | None = None


CreditEvent: TypeAlias = Paid | Waiting | Unpaid | Refunded | RefundEnded | Disputed | DisputeClosed


class WebhookInvalid(AurixelError):
    """What was posted to the webhook is not the processor's word to us: answered 400, and nothing is changed.

    `code` is a short stable word for metrics and logs ("signature", "mode", "account", "shape"); it never quotes the body.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class BillingError(AurixelError):
    """The processor refused, or gave no answer. `again`: the same call, with the same key, may be sent again.

    The message is for the operator: no bodies, no payer's data, no secrets.
    """

    code: ClassVar[str] = "billing_failed"

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.message, self.again = message, again


class Refund(msgspec.Struct, frozen=True):
    """A refund as the processor took it: its `id`, and whether it is over already (`RefundEnded` follows if not)."""

    id: str
    state: Literal["done", "waiting", "failed"]


class Redeemed(msgspec.Struct, frozen=True, kw_only=True):
    """A code is now this account's. `payment` names the code for ever without being it; `amount` in nano-dollars."""

    payment: str
    amount: Nanos


class CodeRefused(AurixelError):
    """A code is not accepted. `code`: "invalid" (unknown, used, revoked or expired: one answer for all), "throttled", or
    "mistyped": its own checksum does not fit, so nobody was asked. `retry_after` in seconds."""

    def __init__(self, code: Literal["invalid", "throttled", "mistyped"], *, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code, self.retry_after = code, retry_after


# --- backends ---------------------------------------------------------------------------------------------------------


@runtime_checkable
class BillingBackend(Protocol):
    """A way for credit to come in. One instance a block `[payments.NAME]`, where NAME is `name`.

    It is made at start and must raise `ConfigError` then if it lacks a secret: a backend that cannot tell a true event
    from a forged one does not start. It also is a `TakesPayment` or a `RedeemsCodes`, or both.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]

    def __init__(self, settings: Any, host: BillingHost) -> None: ...


@runtime_checkable
class TakesPayment(Protocol):
    """A backend with a payment page and webhooks. `currencies` are those it can charge."""

    currencies: frozenset[str]

    async def begin_topup(self, topup: TopUp) -> Checkout:
        """A page to pay at; asked again for the same order it is the same page. `BillingError`."""

    def parse_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[CreditEvent]:
        """What the posted bytes say, verified; nothing for events of no interest. Pure. `WebhookInvalid`.

        `headers` by lower-case name. Events may come twice, late and in any order.
        """

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        """Give money back; `key` makes it happen once however often it is asked. `BillingError`."""


@runtime_checkable
class Reconciles(Protocol):
    """A backend that can be asked what it has."""

    async def reconcile(self, since_ms: int) -> Sequence[CreditEvent]:
        """What has become of every payment to us since then, as the events that would have told it. `BillingError`."""


@runtime_checkable
class RedeemsCodes(Protocol):
    """A backend whose credit comes as codes."""

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        """Make the code this account's: once, whoever asks at once; asked again by the same account the answer is the same.

        `CodeRefused`.
        """


__all__ = [
    "BillingBackend",
    "BillingError",
    "BillingHost",
    "Checkout",
    "CodeRefused",
    "CreditEvent",
    "DisputeClosed",
    "Disputed",
    "Paid",
    "Reconciles",
    "Redeemed",
    "RedeemsCodes",
    "Refund",
    "RefundEnded",
    "Refunded",
    "Shelf",
    "ShelfItem",
    "TakesPayment",
    "TopUp",
    "Unpaid",
    "Waiting",
    "WebhookInvalid",
]
