"""What is asked of Stripe and what its answers mean: against stripe-mock, and against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import stripe
from aurixel_stripe import Stripe, StripeSettings
from aurixel_stripe import api as api_module

from aurixel.plugin import (
    BillingError,
    Checkout,
    ConfigError,
    DisputeClosed,
    Disputed,
    Paid,
    Refund,
    Refunded,
    RefundEnded,
    Secret,
    TopUp,
    Unpaid,
    Waiting,
)
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.testing.scripted import ScriptedUpstream, Step, answer, close, head, reset, send, stall
from tests.stripe.samples import CANARIES, KEY, MARK, PAYMENT, SECRET, charge, dispute, refund, session

TOPUP = TopUp(
    order="order-7",
    amount=1000,
    currency="usd",
    success_url="https://gw.example/orders/order-7?paid",
    cancel_url="https://gw.example/orders/order-7",
)
BEGUN = {"id": "cs_test_a1", "object": "checkout.session", "url": "https://pay.example/c/1", "expires_at": 1_767_312_000}


def make(url: str, **settings: Any) -> Stripe:
    values = {"api_key": KEY, "webhook_secret": SECRET, "api_base": url, "retries": 0} | settings
    return Stripe(StripeSettings(**values), PluginHost())


def page(*items: Any, more: bool = False) -> dict[str, Any]:
    return {"object": "list", "url": "/v1/x", "has_more": more, "data": list(items)}


def fields(text: bytes | str) -> dict[str, str]:
    """A form or a query."""
    parsed = parse_qs(text.decode() if isinstance(text, bytes) else text, strict_parsing=True)
    assert all(len(values) == 1 for values in parsed.values())
    return {name: values[0] for name, values in parsed.items()}


async def failed(call: Any) -> BillingError:
    with pytest.raises(BillingError) as caught:
        await call
    return caught.value


# --- against Stripe's own description ---------------------------------------------------------------------------------


async def test_stripe_mock_takes_every_request(stripe_mock: str) -> None:
    """It refuses a parameter that Stripe's API does not have, and answers with what objects look like."""
    backend = make(stripe_mock, statement_suffix="CREDIT", product_name="Guthaben")
    begun = await backend.begin_topup(TOPUP)
    assert begun.ref.startswith("cs_test_")
    assert begun.url.startswith("https://")
    given_back = await backend.refund(PAYMENT, 400, "usd", "refund-1")
    assert given_back.id.startswith("re_")
    assert given_back.state == "done"
    assert await backend.reconcile(1_767_225_600_000) == ()  # its sessions, refunds and disputes bear no mark


async def test_stripe_mock_refuses_what_stripe_would(stripe_mock: str) -> None:
    error = await failed(make(stripe_mock).begin_topup(TopUp(**{**_fields(TOPUP), "amount": "many"})))
    assert not error.again
    assert "400" in error.message


def _fields(topup: TopUp) -> dict[str, Any]:
    return {name: getattr(topup, name) for name in topup.__struct_fields__}


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_payment_page_is_asked_for_with_nothing_of_the_payer(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.reply(json=BEGUN)
    begun = await make(scripted_upstream.url).begin_topup(TOPUP)
    assert begun == Checkout(url="https://pay.example/c/1", ref="cs_test_a1", expires_ms=1_767_312_000_000)
    (request,) = scripted_upstream.requests
    assert (request.method, request.target) == ("POST", "/v1/checkout/sessions")
    assert fields(request.body) == {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "1000",
        "line_items[0][price_data][product_data][name]": "Prepaid credit",
        "metadata[aurixel_order]": "order-7",
        "payment_intent_data[metadata][aurixel_order]": "order-7",
        "success_url": "https://gw.example/orders/order-7?paid",
        "cancel_url": "https://gw.example/orders/order-7",
        "adaptive_pricing[enabled]": "false",
    }
    headers = request.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"] == "aurixel-order-order-7"
    assert headers["stripe-version"] == stripe.api_version
    assert "x-stripe-client-telemetry" not in headers
    assert "telemetry_id" not in headers["x-stripe-client-user-agent"]
    assert "platform" not in headers["x-stripe-client-user-agent"]
    assert "stripe-account" not in headers


async def test_the_same_order_is_the_same_request(scripted_upstream: ScriptedUpstream) -> None:
    """So that Stripe knows it by its key, also from another process."""
    scripted_upstream.reply(json=BEGUN, headers=[("Request-Id", "req_1")])
    for _ in range(2):
        await make(scripted_upstream.url, account="acct_1").begin_topup(TOPUP)
    first, second = scripted_upstream.requests
    assert (first.body, first.headers) == (second.body, second.headers)
    assert first.headers["stripe-account"] == "acct_1"


async def test_a_refund_is_marked_and_has_our_key(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.once(answer(json=page(refund(metadata={"aurixel_refund": "another"}), refund(metadata=None))))
    scripted_upstream.once(answer(json=refund(id="re_new", status="pending")))
    assert await make(scripted_upstream.url).refund(PAYMENT, 400, "usd", "refund-1") == Refund("re_new", "waiting")
    looked, asked = scripted_upstream.requests
    assert looked.method == "GET"
    assert fields(looked.query) == {"payment_intent": PAYMENT, "limit": "100"}
    assert (asked.method, asked.target) == ("POST", "/v1/refunds")
    assert fields(asked.body) == {"payment_intent": PAYMENT, "amount": "400", "metadata[aurixel_refund]": "refund-1"}
    assert asked.headers["idempotency-key"] == "aurixel-refund-refund-1"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("succeeded", "done"),
        ("pending", "waiting"),
        ("requires_action", "waiting"),
        ("failed", "failed"),
        ("canceled", "failed"),
    ],
)
async def test_a_refund_asked_for_again_is_not_made_again(scripted_upstream: ScriptedUpstream, status: str, state: str) -> None:
    """Stripe forgets idempotency keys after a day: then only the mark tells."""
    scripted_upstream.once(answer(json=page(refund(id="re_x", metadata={}), more=True)))
    scripted_upstream.once(answer(json=page(refund(status=status))))
    assert await make(scripted_upstream.url).refund(PAYMENT, 400, "usd", "refund-1") == Refund("re_3QAurixel", state)
    assert [request.method for request in scripted_upstream.requests] == ["GET", "GET"]
    assert fields(scripted_upstream.requests[1].query)["starting_after"] == "re_x"
    await scripted_upstream.closed()


# --- what Stripe has --------------------------------------------------------------------------------------------------


async def test_reconcile_tells_what_has_become_of_ours(scripted_upstream: ScriptedUpstream) -> None:
    def paid(name: str, status: str = "succeeded", refunded: int = 0, **more: Any) -> dict[str, Any]:
        latest = charge(payment_intent=f"pi_{name}", amount_refunded=refunded)
        intent = {"id": f"pi_{name}", "object": "payment_intent", "status": status, "latest_charge": latest}
        return session(id=f"cs_{name}", payment_intent=intent, metadata={"aurixel_order": name}, **more)

    scripted_upstream.on(
        "/v1/checkout/sessions",
        pages(
            page(paid("a"), paid("b", refunded=300), session(id="cs_other", metadata={}, currency=9), more=True),
            page(
                session(id="cs_open", status="open", payment_status="unpaid", payment_intent=None),
                session(id="cs_gone", status="expired", payment_status="unpaid", payment_intent=None),
                paid("c", "processing", payment_status="unpaid"),
                paid("d", "requires_payment_method", payment_status="unpaid"),
                session(id="cs_sub", mode="subscription", payment_intent=None),
            ),
        ),
    )
    old, other = charge(payment_intent="pi_old"), charge(payment_intent="pi_other", metadata={})
    scripted_upstream.reply(
        path="/v1/refunds",
        json=page(
            refund(charge=old, payment_intent="pi_old"),
            refund(id="re_by_hand", charge=charge(payment_intent="pi_b", amount_refunded=300), metadata={}),
            refund(id="re_other", charge=other, payment_intent="pi_other", metadata={}),
        ),
    )
    scripted_upstream.reply(
        path="/v1/disputes",
        json=page(
            dispute(id="du_1", charge=old, payment_intent="pi_old"),
            dispute(id="du_2", charge=charge(payment_intent="pi_a"), payment_intent="pi_a", status="lost"),
            dispute(id="du_3", charge=other, payment_intent="pi_other"),
            dispute(id="du_4", charge=old, status="warning_needs_response"),
        ),
    )
    found = await make(scripted_upstream.url).reconcile(1_767_225_600_999)
    assert found == (
        Paid(order="a", payment="pi_a", amount=1000, currency="usd"),
        Paid(order="b", payment="pi_b", amount=1000, currency="usd"),
        Refunded(payment="pi_b", total=300, currency="usd"),
        Unpaid(order=MARK["aurixel_order"], why="expired"),
        Waiting(order="c"),
        Unpaid(order="d", why="failed"),
        RefundEnded(payment="pi_old", key="refund-1", done=True),
        Refunded(payment="pi_old", total=1000, currency="usd"),
        Disputed(payment="pi_old", dispute="du_1", amount=1000, currency="usd"),
        Disputed(payment="pi_a", dispute="du_2", amount=1000, currency="usd"),
        DisputeClosed(payment="pi_a", dispute="du_2", won=False),
    )
    first, second, *rest = scripted_upstream.requests
    assert fields(first.query) == {
        "created[gte]": "1767225600",
        "limit": "100",
        "expand[0]": "data.payment_intent.latest_charge",
    }
    assert fields(second.query) == {**fields(first.query), "starting_after": "cs_other"}
    assert [fields(request.query).get("expand[0]") for request in rest] == ["data.charge", "data.charge"]
    assert not [canary for canary in CANARIES if canary in repr(found)]


async def test_a_list_without_end_is_given_up(scripted_upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MOST", 5)
    scripted_upstream.reply(json=page(session(), session(), more=True))
    error = await failed(make(scripted_upstream.url).reconcile(0))
    assert "more than 5" in error.message
    assert len(scripted_upstream.requests) == 3


async def test_a_page_that_promises_more_and_is_empty_is_the_last(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.reply(json=page(more=True))
    assert await make(scripted_upstream.url).reconcile(0) == ()


def pages(*each: dict[str, Any]) -> Step:
    """Page after page, a request each."""
    left = list(each)

    async def step(call: Any) -> None:
        await answer(json=left.pop(0))(call)

    return step


# --- what goes wrong --------------------------------------------------------------------------------------------------


def refusal(status: int, **error: Any) -> Step:
    told = {"type": "invalid_request_error", "message": "No such thing: canary-name, sk_test_****", **error}
    return answer(json={"error": told}, status=status, headers=[("Request-Id", "req_abc123")])


@pytest.mark.parametrize(
    ("steps", "again", "says"),
    [
        ([refusal(400, code="parameter_invalid", param="line_items[0]")], False, ["400", "parameter_invalid", "line_items[0]"]),
        ([refusal(400, type="idempotency_error")], False, ["400", "idempotency_error"]),
        ([refusal(400, code="canary-name <a b>", param=7)], False, ["400"]),
        ([refusal(401)], False, ["401", "API key"]),
        ([refusal(403)], False, ["403", "README"]),
        ([refusal(402, type="card_error", code="card_declined")], False, ["402", "card_declined"]),
        ([refusal(404, code="resource_missing")], False, ["404", "resource_missing"]),
        ([refusal(409, code="idempotency_key_in_use")], True, ["409"]),
        ([refusal(429, code="rate_limit")], True, ["429"]),
        ([refusal(500, type="api_error")], True, ["500"]),
        ([answer(body=b"<html>canary-name", status=503)], True, ["503"]),
        ([answer(body=b"<html>canary-name")], True, ["200"]),
        ([answer(body=b"\xff\xfe")], True, []),
        ([answer(json=[])], True, ["cannot be read"]),
        ([answer(json={"object": []})], True, ["cannot be read"]),
        ([answer(json={"id": 7, "url": "canary-name"})], True, ["cannot be read"]),
        ([answer(json=BEGUN | {"url": None})], True, ["cannot be read"]),
        ([answer(json=BEGUN | {"url": "javascript:x"})], True, ["cannot be read"]),
        ([close], True, ["reached"]),
        ([reset], True, ["reached"]),
        ([send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), close], True, ["reached"]),
        ([head(200, [("Content-Length", "100")]), stall], True, ["within 0.3 s"]),
        ([stall], True, ["within 0.3 s"]),
    ],
)
async def test_what_a_failure_means(
    scripted_upstream: ScriptedUpstream, steps: Sequence[Step], again: bool, says: Sequence[str]
) -> None:
    scripted_upstream.on("*", *steps)
    error = await failed(make(scripted_upstream.url, timeout=0.3 if stall in steps else 30).begin_topup(TOPUP))
    assert error.again is again, error.message
    assert [word for word in says if word not in error.message] == [], error.message
    assert not [word for word in (*CANARIES, "sk_test", KEY) if word in f"{error!r} {error.message}"]
    if "req_abc123" not in error.message:
        assert "answered 4" not in error.message
    await scripted_upstream.closed()


async def test_an_unreachable_stripe() -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        error = await failed(make(f"http://127.0.0.1:{taken.getsockname()[1]}").begin_topup(TOPUP))
    assert (error.again, error.message) == (True, "Stripe cannot be reached")


async def test_what_may_pass_is_sent_again_under_the_same_key(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.once(refusal(503))
    scripted_upstream.once(answer(json=BEGUN))
    assert (await make(scripted_upstream.url, retries=1).begin_topup(TOPUP)).ref == "cs_test_a1"
    first, second = scripted_upstream.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


async def test_a_call_that_is_given_up_leaves_nothing_open(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.on("*", stall)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(make(scripted_upstream.url).begin_topup(TOPUP))
        await scripted_upstream.received()
        call.cancel()
    await scripted_upstream.closed()


# --- settings and silence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "pk_test_1"},
        {"api_key": "sk_org_live_1"},
        {"api_key": KEY + "\n"},
        {"tolerance": 0},
        {"tolerance": 86_400},
        {"timeout": 0},
        {"retries": 9},
        {"account": "acct"},
        {"currencies": []},
        {"currencies": ["USD"]},
        {"product_name": ""},
        {"statement_suffix": "more than twenty-two characters"},
        {"statement_suffix": "123"},
        {"statement_suffix": "a*b"},
        {"api_base": "stripe.example"},
        {"no_such_setting": 1},
    ],
)
def test_settings_that_would_fail_later_are_refused_now(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        make("http://127.0.0.1:9", **settings)
    assert KEY not in str(caught.value)


def test_a_key_of_another_kind_is_refused_with_the_reason() -> None:
    settings = {"api_key": Secret("pk_test_1"), "webhook_secret": Secret(SECRET)}
    with pytest.raises(ConfigError, match="secret or restricted key") as caught:
        Registry.load(["stripe"]).build_backend("stripe", settings, PluginHost())
    assert "pk_test_1" not in str(caught.value)


def test_a_live_key_is_not_sent_in_the_open() -> None:
    with pytest.raises(ConfigError, match="https"):
        make("http://127.0.0.1:9", api_key="sk_live_1")
    make("https://127.0.0.1:9", api_key="sk_live_1")


def test_a_library_that_would_print_bodies_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_LOG", "debug")
    with pytest.raises(ConfigError, match="STRIPE_LOG"):
        make("http://127.0.0.1:9")


async def test_canary_nothing_is_logged_or_printed_or_written(
    scripted_upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # where the library's telemetry keeps its id
    backend = make(scripted_upstream.url, retries=1)
    caplog.set_level(logging.DEBUG)
    scripted_upstream.once(refusal(500, param="canary-name"))
    scripted_upstream.reply(json=session(url="https://pay.example/c/1"), headers=[("Request-Id", "req_1")])
    await backend.begin_topup(TOPUP)
    scripted_upstream.once(refusal(400, code="canary_name"))
    await failed(backend.begin_topup(TOPUP))
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert capfd.readouterr() == ("", "")
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240 - a look at an empty folder


def test_settings_do_not_print_their_secrets() -> None:
    settings = StripeSettings(api_key=KEY, webhook_secret=SECRET, webhook_secrets=[SECRET])
    assert not [secret for secret in (KEY, SECRET) if secret in f"{settings!r} {settings}"]


def test_the_library_keeps_no_state_of_ours() -> None:
    make("http://127.0.0.1:9")
    assert (stripe.api_key, stripe.default_http_client, stripe.app_info) == (None, None, None)
    assert stripe.api_base == "https://api.stripe.com"
