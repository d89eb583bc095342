"""How orders begin: by a page to pay at, or by a code that is redeemed. It gives no credit but through fulfilment."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import urlencode

import msgspec

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import TRIES, Fulfilment
from aurixel.payments.machine import OrderRefused, paid_by_code
from aurixel.payments.orders import CENT, Order, from_doc, next_rev, to_doc
from aurixel.plugin.billing import BillingError, TopUp
from aurixel.values import Nanos, Secret, format_usd

_ID_BYTES: Final = 12


class OrderRules(msgspec.Struct, frozen=True, kw_only=True):
    """What orders may be. `success` and `cancel`: where the payer goes afterwards, a URL or a path on `public_url`."""

    least: Nanos
    most: Nanos
    currency: str = "usd"
    public_url: str = ""
    success: str = "/"
    cancel: str = "/"

    def pages(self, order: str) -> tuple[str, str]:
        """The two URLs for an order; `ConfigError` where there is no public URL to begin them with."""
        if not self.public_url and not (_is_url(self.success) and _is_url(self.cancel)):
            raise ConfigError(
                "payers need an address to come back to",
                place="server.public_url",
                mend="set server.public_url, or whole URLs as orders.success and orders.cancel",
                code="public_url_missing",
            )
        return self._page(self.success, order), self._page(self.cancel, order)

    def _page(self, page: str, order: str) -> str:
        url = page if _is_url(page) else self.public_url.rstrip("/") + page
        return f"{url}{'&' if '?' in url else '?'}{urlencode({'order': order})}"


async def begin_order(
    fulfilment: Fulfilment, backend: BoundBackend, rules: OrderRules, account: str, amount: Nanos, author: str
) -> Order:
    """A new order with its page. `OrderRefused`: "amount_invalid", "amount_too_small", "amount_too_large", "not_payable",
    "currency_unknown". `BillingError`: there is no page, and the order is cancelled."""
    _check(backend, rules, amount)
    now = fulfilment.clock.wall_ms()
    order = Order(
        id=_new_id(),
        account=account,
        backend=backend.name,
        amount=amount,
        currency=rules.currency,
        created_ms=now,
        author=author,
    )
    success, cancel = rules.pages(order.id)
    while not await fulfilment.store.order_new(to_doc(order)):
        order = msgspec.structs.replace(order, id=_new_id())
        success, cancel = rules.pages(order.id)
    topup = TopUp(order=order.id, amount=amount // CENT, currency=rules.currency, success_url=success, cancel_url=cancel)
    try:
        checkout = await backend.begin_topup(topup)
    except BillingError:
        # Should there be a page nevertheless, money that is paid there is credited.
        await _change(fulfilment, order, ended="refused")
        raise
    return await _change(fulfilment, order, page=checkout.url, ref=checkout.ref, expires_ms=checkout.expires_ms)


async def redeem(fulfilment: Fulfilment, backend: BoundBackend, account: str, code: Secret) -> Order:
    """The order of a code that is this account's now, its credit moved. Asked again it is the same order.

    `CodeRefused`; `BillingError`; `StoreUnavailable`: it may be asked again; `OrderRefused("other_account")`.
    """
    redeemed = await backend.redeem(account, code)
    for _ in range(TRIES):
        found = await fulfilment.store.order_paid_by(backend.name, redeemed.payment)
        if found is not None:
            if found.account != account:
                raise OrderRefused("other_account", "the code is another account's")
            return await fulfilment.finish(from_doc(found))
        now = fulfilment.clock.wall_ms()
        order = Order(
            id=_new_id(),
            account=account,
            backend=backend.name,
            amount=redeemed.amount,
            currency="usd",
            created_ms=now,
            author=backend.name,
        )
        paid = paid_by_code(order, redeemed.payment, now)
        if await fulfilment.store.order_new(to_doc(paid)):
            return await fulfilment.finish(paid)
    raise StoreUnavailable("the order does not come to rest")


def _check(backend: BoundBackend, rules: OrderRules, amount: Nanos) -> None:
    if not backend.takes_payment:
        raise OrderRefused("not_payable", f"the backend {backend.name} takes no payments")
    if rules.currency not in backend.currencies:
        raise OrderRefused("currency_unknown", f"the backend {backend.name} does not charge in {rules.currency}")
    if amount % CENT:
        raise OrderRefused("amount_invalid", "an order is of whole cents")
    if amount < rules.least:
        raise OrderRefused("amount_too_small", f"the least is {format_usd(rules.least)} USD (orders.min)")
    if amount > rules.most:
        raise OrderRefused("amount_too_large", f"the most is {format_usd(rules.most)} USD (orders.max)")


async def _change(fulfilment: Fulfilment, order: Order, **changes: object) -> Order:
    """Write what became of the page, unless the order has gone on meanwhile."""
    for _ in range(TRIES):
        if order.payment is not None or order.ended:
            return order
        changed = next_rev(order, **changes)
        if await fulfilment.swap(changed):
            return changed
        order = await fulfilment.read(order.id)
    raise StoreUnavailable("the order does not come to rest")


def _is_url(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _new_id() -> str:
    return f"ord_{secrets.token_hex(_ID_BYTES)}"
