"""Money through a whole gateway: an order paid at stripe-mock, webhooks as Stripe posts them, refunds and disputes.

Named for issue 4 and pitfalls 13 and 14: duplicate, late, out of order, forged, wrong amount, wrong currency, wrong
account, test mode in live. After each, the account has what it must have, and the ledger adds up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.cli.payments import backend_of, fulfilment_of
from aurixel.errors import ConfigError
from aurixel.ledger import verify
from aurixel.payments import Order, begin_order, reconcile, refund
from aurixel.values import format_usd, parse_usd
from tests.flow.gateway import Running, configure, running
from tests.flow.test_canary import files
from tests.stripe.samples import CANARIES, KEY, SECRET, charge, dispute, encoded, event, session, signed
from tests.stripe.samples import refund as refund_object

EMAIL = "payer@example.com"
OLD = "whsec_" + "o" * 32
LIVE = "rk_live_51Aurixel"


def payments(url: str, **settings: str) -> str:
    """The TOML of a gateway that takes payments at `url`."""
    block = {"api_key": KEY, "webhook_secret": SECRET, "api_base": url} | settings
    lines = "".join(f'{name} = "{value}"\n' for name, value in block.items())
    return f'[payments.stripe]\nwebhook_secrets = ["{OLD}"]\n{lines}'


def configured(folder: Path, block: str, store: str = "") -> Path:
    """The configuration of a gateway with the plugin."""
    file = configure(folder, store=store, more=block)
    text = file.read_text().replace('"limits"]', '"limits", "stripe"]')
    file.write_text(text.replace("[server]\n", '[server]\npublic_url = "http://127.0.0.1:8700"\n'))
    return file


class Shop:
    """A gateway, one account, and Stripe's mouth."""

    def __init__(self, gateway: Running, client: aiohttp.ClientSession) -> None:
        self.gateway, self._client = gateway, client
        self.fulfilment = fulfilment_of(gateway.settings, gateway.store)

    @property
    def backend(self) -> Any:
        return backend_of(self.gateway.settings, self.gateway.store, "stripe")

    async def order(self, usd: str = "10.00") -> Order:
        """A new order, with its page at stripe-mock."""
        account = (await self.gateway.account(EMAIL)).id
        rules = self.gateway.settings.order_rules
        order = await begin_order(self.fulfilment, self.backend, rules, account, parse_usd(usd), "test")
        assert order.page.startswith("https://checkout.stripe.com/")
        assert order.ref.startswith("cs_test_")
        return order

    async def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """The status, and the word."""
        async with self._client.post(f"{self.gateway.url}/webhooks/stripe", data=body, headers=headers) as reply:
            answer = await reply.json()
            return reply.status, answer.get("result") or answer["error"]["code"]

    async def says(self, kind: str, about: Any, *, secret: str = SECRET, ago: int = 0, **fields: Any) -> tuple[int, str]:
        """Stripe posts an event, signed `ago` seconds ago."""
        now = int(time.time())
        body = encoded(event(kind, about, **{"created": now, **fields}))
        return await self.post(body, signed(body, secret, now - ago))

    async def paid(self, order: Order, payment: str = "pi_1", **fields: Any) -> tuple[int, str]:
        """Stripe says that the order is paid."""
        return await self.says("checkout.session.completed", checkout(order, payment), **fields)

    async def state(self, order: Order) -> str:
        """What has become of the order."""
        return (await self.fulfilment.read(order.id)).state

    async def credit(self) -> str:
        """What the account has in USD, once it is sure that everything adds up."""
        report = await verify(self.gateway.store)
        assert report.ok, report
        doc = await self.gateway.account(EMAIL)
        return format_usd(doc.available)

    async def status(self) -> str:
        """Whether the account may go on."""
        profile = await self.gateway.store.profile_find(EMAIL)
        assert profile is not None
        return profile.status


def mark(order: Order) -> dict[str, str]:
    return {"aurixel_order": order.id}


def checkout(order: Order, payment: str = "pi_1", **fields: Any) -> dict[str, Any]:
    return session(metadata=mark(order), payment_intent=payment, **fields)


@asynccontextmanager
async def open_shop(file: Path) -> AsyncIterator[Shop]:
    async with running(file) as gateway, aiohttp.ClientSession() as client:
        await gateway.key(EMAIL, usd="")
        yield Shop(gateway, client)


@pytest.fixture(params=["sqlite", "mongodb"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path, stripe_mock: str) -> AsyncIterator[Shop]:
    store = "" if request.param == "sqlite" else str(request.getfixturevalue("mongodb_database"))
    async with open_shop(configured(tmp_path, payments(stripe_mock), store)) as opened:
        yield opened


# --- what Stripe says -------------------------------------------------------------------------------------------------


async def test_money_becomes_credit(shop: Shop) -> None:
    order = await shop.order()
    assert (await shop.state(order), await shop.credit()) == ("created", "0.00")
    assert await shop.paid(order) == (200, "done")
    assert (await shop.state(order), await shop.credit()) == ("paid", "10.00")


async def test_a_transfer_is_waited_for(shop: Shop) -> None:
    order, other = await shop.order(), await shop.order("20.00")
    for each in (order, other):
        waiting = checkout(each, payment_status="unpaid", amount_total=each.amount // 10_000_000)
        assert await shop.says("checkout.session.completed", waiting) == (200, "done")
        assert (await shop.state(each), await shop.credit()) == ("pending", "0.00")
    assert await shop.says("checkout.session.async_payment_succeeded", checkout(order)) == (200, "done")
    assert await shop.says("checkout.session.async_payment_failed", checkout(other, payment_status="unpaid")) == (200, "done")
    assert (await shop.state(order), await shop.state(other), await shop.credit()) == ("paid", "cancelled", "10.00")


async def test_a_duplicate_credits_once(shop: Shop) -> None:
    """Pitfall 14: also under the other secret, as another event, and ten at once."""
    order = await shop.order()
    assert await shop.paid(order) == (200, "done")
    assert await shop.paid(order) == (200, "nothing")
    assert await shop.paid(order, secret=OLD) == (200, "nothing")
    assert await shop.says("checkout.session.async_payment_succeeded", checkout(order)) == (200, "nothing")
    again = await shop.order()
    answers = await asyncio.gather(*(shop.paid(again, "pi_2") for _ in range(10)))
    assert sorted(answers) == [(200, "done")] + [(200, "nothing")] * 9
    assert await shop.credit() == "20.00"


async def test_a_late_event_still_counts(shop: Shop) -> None:
    """Money that came although the page had expired; a delivery that took Stripe three weeks."""
    order = await shop.order()
    expired = checkout(order, status="expired", payment_status="unpaid") | {"payment_intent": None}
    assert await shop.says("checkout.session.expired", expired) == (200, "done")
    assert (await shop.state(order), await shop.credit()) == ("expired", "0.00")
    assert await shop.paid(order, created=int(time.time()) - 21 * 86_400) == (200, "done")
    assert (await shop.state(order), await shop.credit()) == ("paid", "10.00")
    assert await shop.says("checkout.session.expired", expired) == (200, "nothing")
    assert await shop.credit() == "10.00"


async def test_events_out_of_order_come_to_the_same(shop: Shop, expected_logs: Any) -> None:
    """What needs the payment is sent again by Stripe until the payment is there."""
    expected_logs("aurixel.payments", "is disputed", times=1)
    order = await shop.order()
    refunded = charge(metadata=mark(order), payment_intent="pi_1", amount_refunded=400)
    case = dispute(payment_intent="pi_1", amount=600)
    assert await shop.says("charge.dispute.closed", case | {"status": "won"}) == (409, "not_yet")
    assert await shop.says("charge.dispute.created", case) == (409, "not_yet")
    assert await shop.says("charge.refunded", refunded) == (409, "not_yet")
    assert await shop.credit() == "0.00"
    assert await shop.paid(order) == (200, "done")
    waiting = checkout(order, payment_status="unpaid")
    assert await shop.says("checkout.session.completed", waiting) == (200, "nothing")
    assert await shop.says("charge.dispute.closed", case | {"status": "won"}) == (409, "not_yet")
    assert await shop.says("charge.refunded", refunded) == (200, "done")
    assert await shop.says("charge.refunded", refunded | {"amount_refunded": 300}) == (200, "nothing")
    assert await shop.credit() == "6.00"
    assert await shop.says("charge.dispute.created", case) == (200, "done")
    assert await shop.says("charge.dispute.closed", case | {"status": "won"}) == (200, "done")
    assert (await shop.state(order), await shop.credit()) == ("partly_refunded", "6.00")


async def test_a_dispute_suspends_and_takes_what_is_there(shop: Shop, expected_logs: Any) -> None:
    expected_logs("aurixel.payments", "is disputed", times=1)
    order = await shop.order()
    await shop.paid(order)
    assert await shop.says("charge.dispute.created", dispute(payment_intent="pi_1", status="warning_needs_response")) == (
        200,
        "nothing",
    )
    assert (await shop.status(), await shop.credit()) == ("active", "10.00")
    assert await shop.says("charge.dispute.funds_withdrawn", dispute(payment_intent="pi_1")) == (200, "done")
    assert await shop.says("charge.dispute.created", dispute(payment_intent="pi_1")) == (200, "nothing")
    assert (await shop.status(), await shop.state(order), await shop.credit()) == ("suspended", "disputed", "0.00")
    assert await shop.says("charge.dispute.closed", dispute(payment_intent="pi_1", status="lost")) == (200, "done")
    assert (await shop.state(order), await shop.credit()) == ("disputed", "0.00")


async def test_a_refund_of_ours_is_counted_once(shop: Shop) -> None:
    order = await shop.order()
    await shop.paid(order)
    _, made = await refund(
        shop.fulfilment, shop.backend, order.id, amount=parse_usd("4.00"), name="one", author="test", reason="asked for"
    )
    assert (made.state, await shop.credit()) == ("done", "6.00")
    about = charge(metadata=mark(order), payment_intent="pi_1", amount_refunded=400)
    await shop.says("charge.refunded", about)
    done = refund_object(payment_intent="pi_1", metadata={"aurixel_refund": made.key})
    assert await shop.says("refund.updated", done) == (200, "nothing")
    assert (await shop.state(order), await shop.credit()) == ("partly_refunded", "6.00")
    assert await shop.says("refund.failed", done | {"status": "failed"}) == (200, "done")
    assert await shop.credit() == "10.00"
    # Somebody refunds on Stripe's own pages: that is ours to take from the account as well.
    await shop.says("charge.refunded", about | {"amount_refunded": 1000})
    assert await shop.credit() == "4.00"


# --- what is not so ---------------------------------------------------------------------------------------------------


async def test_a_forged_event_is_nothing(shop: Shop) -> None:
    """Pitfall 13: unsigned, signed by a stranger, changed on the way, or replayed later."""
    order = await shop.order()
    body = encoded(event("checkout.session.completed", checkout(order), created=int(time.time())))
    now = int(time.time())
    forged = [
        (body, {}),
        (body, {"stripe-signature": ""}),
        (body, {"stripe-signature": "t=1,v1=00"}),
        (body, signed(body, "whsec_" + "f" * 32, now)),
        (body, signed(body, "", now)),
        (body.replace(b"1000", b"9000"), signed(body, SECRET, now)),
        (body, signed(body, SECRET, now - 3600)),
        (body, signed(body, SECRET, now + 3600)),
        (b"", {}),
        (b"\xff", {"stripe-signature": "t=1,v1=\xff"}),
    ]
    for each, headers in forged:
        assert await shop.post(each, {"content-type": "application/json", **headers}) == (400, "webhook_invalid")
    assert (await shop.state(order), await shop.credit()) == ("created", "0.00")
    assert await shop.post(body, signed(body, SECRET, now)) == (200, "done")


@pytest.mark.parametrize("fields", [{"amount_total": 999}, {"amount_total": 100_000}, {"amount_total": 0}])
async def test_a_wrong_amount_is_refused(shop: Shop, fields: Any, expected_logs: Any) -> None:
    expected_logs("aurixel.payments", "wrong_amount", times=1)
    order = await shop.order()
    assert await shop.says("checkout.session.completed", checkout(order, **fields)) == (422, "wrong_amount")
    assert (await shop.state(order), await shop.credit()) == ("created", "0.00")


async def test_a_wrong_currency_is_refused(shop: Shop, expected_logs: Any) -> None:
    expected_logs("aurixel.payments", "wrong_currency", times=2)
    order = await shop.order()
    assert await shop.says("checkout.session.completed", checkout(order, currency="idr")) == (422, "wrong_currency")
    assert (await shop.state(order), await shop.credit()) == ("created", "0.00")
    await shop.paid(order)
    refunded = charge(metadata=mark(order), payment_intent="pi_1", currency="eur")
    assert await shop.says("charge.refunded", refunded) == (422, "wrong_currency")
    assert await shop.credit() == "10.00"


async def test_an_event_of_another_account_is_refused(shop: Shop) -> None:
    order = await shop.order()
    assert await shop.paid(order, account="acct_other") == (400, "webhook_invalid")
    assert await shop.paid(order, account="") == (400, "webhook_invalid")
    assert (await shop.state(order), await shop.credit()) == ("created", "0.00")


async def test_a_test_payment_buys_nothing_in_live_mode(tmp_path: Path, stripe_mock: str) -> None:
    """The order was begun in live mode, as far as the gateway can know; the event is of Stripe's test mode."""
    async with open_shop(configured(tmp_path, payments(stripe_mock))) as shop:
        order = await shop.order()
        assert await shop.paid(order, livemode=True) == (400, "webhook_invalid")
    live = payments("https://127.0.0.1:9", api_key=LIVE)
    async with open_shop(configured(tmp_path, live)) as shop:
        assert await shop.paid(order) == (400, "webhook_invalid")
        assert (await shop.state(order), await shop.credit()) == ("created", "0.00")
        assert await shop.paid(order, livemode=True) == (200, "done")
        assert await shop.credit() == "10.00"


async def test_the_payments_of_others_are_not_ours(shop: Shop, expected_logs: Any) -> None:
    """Another application on the same Stripe account: nothing to us, and nothing that Stripe would send again for ever."""
    assert await shop.says("checkout.session.completed", session(metadata={"their": "order"})) == (200, "nothing")
    assert await shop.says("charge.refunded", charge(metadata={}, payment_intent="pi_theirs")) == (200, "nothing")
    assert await shop.says("payment_intent.succeeded", {"id": "pi_theirs"}) == (200, "nothing")
    long_ago = int(time.time()) - 2 * 86_400
    assert await shop.says("charge.dispute.created", dispute(payment_intent="pi_theirs"), created=long_ago) == (200, "unknown")
    expected_logs("aurixel.payments", "order_unknown", times=1)
    stranger = session(metadata={"aurixel_order": "ord_of_another_gateway"})
    assert await shop.says("checkout.session.completed", stranger) == (422, "order_unknown")


async def test_one_payment_pays_one_order(shop: Shop, expected_logs: Any) -> None:
    expected_logs("aurixel.payments", "payment_of_another_order|other_payment", times=2)
    order, other = await shop.order(), await shop.order()
    await shop.paid(order)
    assert await shop.paid(other) == (422, "payment_of_another_order")
    assert await shop.paid(order, "pi_2") == (422, "other_payment")
    assert await shop.credit() == "10.00"


async def test_the_gateway_does_not_start_without_a_secret(tmp_path: Path, stripe_mock: str) -> None:
    block = payments(stripe_mock, webhook_secret="").replace(f'"{OLD}"', "")
    with pytest.raises(ConfigError, match="webhook secret"):
        async with open_shop(configured(tmp_path, block)):
            pass


async def test_canary_of_a_payment_only_order_state_amounts_and_ids_stay(
    tmp_path: Path, stripe_mock: str, caplog: pytest.LogCaptureFixture, expected_logs: Any
) -> None:
    """Names, addresses and cards are in every event, and in no file, log line or metric of ours."""
    expected_logs("aurixel.payments", "is disputed", times=1)
    caplog.set_level("DEBUG")
    async with open_shop(configured(tmp_path, payments(stripe_mock))) as shop:
        order = await shop.order()
        assert await shop.paid(order) == (200, "done")
        assert await shop.says("charge.refunded", charge(metadata=mark(order), payment_intent="pi_1", amount_refunded=100))
        assert await shop.says("charge.dispute.created", dispute(payment_intent="pi_1", amount=900)) == (200, "done")
        assert await shop.says("charge.dispute.created", dispute(amount="canary-extra")) == (400, "webhook_invalid")
        await reconcile(shop.fulfilment, shop.backend, 0, apply=False)
        async with aiohttp.ClientSession() as client, client.get(f"{shop.gateway.ops_url}/metrics") as reply:
            metrics = await reply.text()
    stored = files(tmp_path)
    sinks = {"log": caplog.text, "metrics": metrics, **stored}
    assert any("pi_1" in text for text in stored.values())
    leaks = [(name, word) for name, text in sinks.items() for word in (*CANARIES, SECRET, KEY) if word in text]
    assert [leak for leak in leaks if not leak[0].endswith("aurixel.toml") and leak[1] != "4242"] == []
