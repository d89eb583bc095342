"""What a posted event is taken for: forged ones are nothing, ours mean what they say, and nothing else gets through."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aurixel_stripe import Stripe, StripeSettings
from aurixel_stripe.events import TYPES
from hypothesis import given
from hypothesis import strategies as st

from aurixel.plugin import (
    ConfigError,
    CreditEvent,
    DisputeClosed,
    Disputed,
    Paid,
    Refunded,
    RefundEnded,
    Unpaid,
    Waiting,
    WebhookInvalid,
)
from aurixel.testing.billing_suite import BillingSuite
from aurixel.testing.host import ManualClock, PluginHost
from tests.stripe.samples import (
    CANARIES,
    KEY,
    NOW,
    ORDER,
    PAYMENT,
    SECRET,
    charge,
    dispute,
    encoded,
    event,
    refund,
    session,
    signed,
)

OTHER = "whsec_" + "x" * 32
SAMPLES = {
    "checkout.session.completed": session(),
    "checkout.session.async_payment_succeeded": session(),
    "checkout.session.async_payment_failed": session(payment_status="unpaid"),
    "checkout.session.expired": session(status="expired", payment_status="unpaid", payment_intent=None),
    "charge.refunded": charge(),
    "refund.created": refund(),
    "refund.updated": refund(),
    "refund.failed": refund(status="failed"),
    "charge.dispute.created": dispute(),
    "charge.dispute.funds_withdrawn": dispute(),
    "charge.dispute.closed": dispute(status="won"),
}


class TestContract(BillingSuite):
    plugin = "stripe"
    name = "stripe"
    settings = {"api_key": KEY, "webhook_secret": SECRET}  # noqa: RUF012 - read only
    needs = ("api_key", "webhook_secret")
    secrets = (KEY, SECRET)
    samples = tuple(
        (encoded(event(kind, sample, created=None)), (means,))
        for kind, sample, means in (
            ("checkout.session.completed", session(), Paid(order=ORDER, payment=PAYMENT, amount=1000, currency="usd")),
            ("charge.refunded", charge(), Refunded(payment=PAYMENT, total=1000, currency="usd")),
            ("refund.updated", refund(), RefundEnded(payment=PAYMENT, key="refund-1", done=True)),
        )
    )
    personal = tuple(word for word in CANARIES if word in repr((session(), charge(), refund())))

    def sign(self, body: bytes) -> dict[str, str]:
        return {"stripe-signature": signed(body)["stripe-signature"]}


def make(clock: ManualClock | None = None, **settings: Any) -> Stripe:
    values = {"api_key": KEY, "webhook_secret": SECRET} | settings
    return Stripe(StripeSettings(**values), PluginHost(clock))


def parsed(value: Any, backend: Stripe | None = None) -> Sequence[CreditEvent]:
    body = encoded(value)
    return (backend or make()).parse_webhook(body, signed(body))


def refused(value: Any, backend: Stripe | None = None) -> str:
    with pytest.raises(WebhookInvalid) as caught:
        parsed(value, backend)
    return caught.value.code


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"webhook_secret": None},
        {"webhook_secret": ""},
        {"webhook_secret": "  "},
        {"webhook_secret": "whsec_"},
        {"webhook_secret": None, "webhook_secrets": []},
        {"webhook_secret": None, "webhook_secrets": [""]},
        {"webhook_secrets": [SECRET, ""]},
        {"webhook_secret": KEY},
        {"webhook_secret": SECRET + "\n"},
    ],
)
def test_pitfall_13_no_secret_no_start(settings: dict[str, Any]) -> None:
    """An empty secret that is accepted lets anyone forge top-ups (new-api, CVE-2026-41432)."""
    with pytest.raises(ConfigError, match="webhook secret") as caught:
        make(**settings)
    assert "webhook_secret" in caught.value.place
    assert caught.value.mend
    assert KEY not in str(caught.value)


def test_a_secret_is_rotated_without_losing_an_event() -> None:
    body = encoded(event("checkout.session.completed", session()))
    both = make(webhook_secret=OTHER, webhook_secrets=[SECRET])
    assert both.parse_webhook(body, signed(body, SECRET)) == both.parse_webhook(body, signed(body, OTHER)) != ()
    # While a secret is rolled Stripe signs with both.
    old, new = (signed(body, secret)["stripe-signature"] for secret in (SECRET, OTHER))
    twice = {"stripe-signature": f"{old},{new.partition(',')[2]}"}
    assert make(webhook_secret=OTHER).parse_webhook(body, twice) == make().parse_webhook(body, twice) != ()
    with pytest.raises(WebhookInvalid):
        make(webhook_secret=OTHER).parse_webhook(body, signed(body, SECRET))


# --- signatures -------------------------------------------------------------------------------------------------------


def test_any_changed_byte_is_a_forgery() -> None:
    body = encoded(event("checkout.session.completed", session(customer_details=None, collected_information=None)))
    headers, backend = signed(body), make()
    for at in range(len(body)):
        forged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises(WebhookInvalid, match="signature"):
            backend.parse_webhook(forged, headers)
    for cut in (body[:-1], body + b" ", b""):
        with pytest.raises(WebhookInvalid, match="signature"):
            backend.parse_webhook(cut, headers)


@given(st.binary(max_size=40), st.one_of(st.text(max_size=80), st.from_regex(r"(t=[0-9]*,?|v1=[^,]*,?|v0=é)*", fullmatch=True)))
def test_any_header_but_the_right_one_is_refused(body: bytes, header: str) -> None:
    with pytest.raises(WebhookInvalid) as caught:
        make().parse_webhook(body, {"stripe-signature": header})
    assert caught.value.code == "signature"


@pytest.mark.parametrize("headers", [{}, {"stripe-signature": ""}, {"Stripe-Signature": "t=1"}])
def test_a_body_without_a_signature_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(WebhookInvalid, match="signature"):
        make().parse_webhook(b"{}", headers)


@pytest.mark.parametrize("scheme", ["v0", "v2", "V1"])
def test_only_the_scheme_of_today_counts(scheme: str) -> None:
    body = encoded(event("checkout.session.completed", session()))
    header = signed(body)["stripe-signature"].replace("v1=", f"{scheme}=")
    with pytest.raises(WebhookInvalid, match="signature"):
        make().parse_webhook(body, {"stripe-signature": header})


@pytest.mark.parametrize(
    ("away", "fresh"), [(0, True), (-300, True), (300, True), (-301, False), (301, False), (-(10**9), False), (10**9, False)]
)
def test_a_signature_is_fresh_by_the_hosts_clock(away: int, fresh: bool) -> None:
    """Not by the machine's: the library would refuse all of these, or none."""
    body = encoded(event("checkout.session.completed", session()))
    headers = signed(body, at=NOW + away)
    if fresh:
        assert make().parse_webhook(body, headers)
    else:
        with pytest.raises(WebhookInvalid, match="signature"):
            make().parse_webhook(body, headers)


def test_the_tolerance_is_a_setting() -> None:
    clock = ManualClock()
    backend = make(clock, tolerance=10)
    body = encoded(event("checkout.session.completed", session()))
    clock.advance(10)
    assert backend.parse_webhook(body, signed(body))
    clock.advance(1)
    with pytest.raises(WebhookInvalid, match="signature"):
        backend.parse_webhook(body, signed(body))


# --- whose event it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, "rk_test_1", "sk_live_1", "rk_live_1"])
@pytest.mark.parametrize("livemode", [True, False])
def test_a_test_event_is_no_money_and_a_live_one_no_test(key: str, livemode: bool) -> None:
    value = event("checkout.session.completed", session(), livemode=livemode)
    backend = make(api_key=key)
    if livemode == ("_live_" in key):
        assert parsed(value, backend)
    else:
        assert refused(value, backend) == "mode"


def test_an_event_of_another_account_is_refused() -> None:
    value = event("checkout.session.completed", session())
    ours, theirs = value | {"account": "acct_ours"}, value | {"account": "acct_theirs"}
    assert parsed(value)
    assert refused(ours) == refused(theirs) == "account"
    backend = make(account="acct_ours")
    assert parsed(ours, backend)
    assert refused(theirs, backend) == refused(value, backend) == "account"


# --- what events mean -------------------------------------------------------------------------------------------------

PAID = Paid(order=ORDER, payment=PAYMENT, amount=1000, currency="usd")
DISPUTED = Disputed(payment=PAYMENT, dispute="du_1QAurixel", amount=1000, currency="usd")
MEANINGS: list[tuple[str, Any, tuple[CreditEvent, ...]]] = [
    ("checkout.session.completed", session(), (PAID,)),
    ("checkout.session.completed", session(payment_status="unpaid"), (Waiting(order=ORDER),)),
    (
        "checkout.session.completed",
        session(payment_status="no_payment_required", payment_intent=None, amount_total=0),
        (Unpaid(order=ORDER, why="failed"),),
    ),
    ("checkout.session.async_payment_succeeded", session(), (PAID,)),
    ("checkout.session.async_payment_failed", session(payment_status="unpaid"), (Unpaid(order=ORDER, why="failed"),)),
    ("checkout.session.expired", SAMPLES["checkout.session.expired"], (Unpaid(order=ORDER, why="expired"),)),
    ("charge.refunded", charge(amount_refunded=400), (Refunded(payment=PAYMENT, total=400, currency="usd"),)),
    ("charge.refunded", charge(currency="eur"), (Refunded(payment=PAYMENT, total=1000, currency="eur"),)),
    ("charge.refunded", charge(payment_intent=None), ()),
    ("refund.created", refund(), (RefundEnded(payment=PAYMENT, key="refund-1", done=True),)),
    ("refund.updated", refund(), (RefundEnded(payment=PAYMENT, key="refund-1", done=True),)),
    ("refund.updated", refund(status="canceled"), (RefundEnded(payment=PAYMENT, key="refund-1", done=False),)),
    ("refund.failed", refund(status="failed"), (RefundEnded(payment=PAYMENT, key="refund-1", done=False),)),
    ("refund.updated", refund(status="pending"), ()),
    ("refund.updated", refund(status="requires_action"), ()),
    ("refund.updated", refund(status=None), ()),
    ("refund.updated", refund(metadata={}), ()),
    ("refund.updated", refund(metadata=None), ()),
    ("charge.dispute.created", dispute(), (DISPUTED,)),
    ("charge.dispute.created", dispute(status="warning_needs_response"), ()),
    ("charge.dispute.funds_withdrawn", dispute(), (DISPUTED,)),
    ("charge.dispute.created", dispute(payment_intent=None), ()),
    ("charge.dispute.closed", dispute(status="won"), (DisputeClosed(payment=PAYMENT, dispute="du_1QAurixel", won=True),)),
    (
        "charge.dispute.closed",
        dispute(status="lost"),
        (DISPUTED, DisputeClosed(payment=PAYMENT, dispute="du_1QAurixel", won=False)),
    ),
    ("charge.dispute.closed", dispute(status="warning_closed"), ()),
    ("charge.dispute.closed", dispute(status="prevented"), ()),
    ("charge.dispute.created", dispute(status="lost"), (DISPUTED,)),
    ("charge.dispute.created", dispute(status="prevented"), ()),
    # Not ours, or of no interest.
    ("checkout.session.completed", session(metadata={}), ()),
    ("checkout.session.completed", session(metadata=None), ()),
    ("checkout.session.completed", session(metadata={"aurixel_order": ""}), ()),
    ("checkout.session.completed", session(metadata={"order": "1"}, payment_status=7, amount_total="x"), ()),
    ("checkout.session.completed", session(mode="subscription", payment_intent=None), ()),
    ("checkout.session.expired", session(metadata={}), ()),
    ("checkout.session.expired", session(mode="setup"), ()),
    ("charge.refunded", charge(metadata={}), ()),
    ("payment_intent.succeeded", {"id": PAYMENT}, ()),
    ("customer.created", {"email": "canary-email@example.test"}, ()),
    ("", {}, ()),
]


@pytest.mark.parametrize(("type", "object", "means"), MEANINGS)
def test_what_an_event_means(type: str, object: Any, means: tuple[CreditEvent, ...]) -> None:
    at_ms = NOW * 1000
    assert tuple(parsed(event(type, object))) == tuple(msgspec.structs.replace(each, at_ms=at_ms) for each in means)


def test_an_event_need_not_say_when() -> None:
    assert tuple(parsed(event("checkout.session.completed", session(), created=None))) == (PAID,)


def test_every_type_is_tested_and_in_the_readme() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert set(SAMPLES) == set(TYPES) == {kind for kind, _, means in MEANINGS if means}
    assert not [kind for kind in TYPES if f"`{kind}`" not in readme]


def test_an_event_read_twice_says_the_same() -> None:
    backend = make()
    for kind, sample in SAMPLES.items():
        assert parsed(event(kind, sample), backend) == parsed(event(kind, sample), backend)


# --- what makes no sense ----------------------------------------------------------------------------------------------

NONSENSE = [
    event("checkout.session.completed", session(payment_intent=None)),
    event("checkout.session.completed", session(amount_total=None)),
    event("checkout.session.completed", session(amount_total=-1)),
    event("checkout.session.completed", session(amount_total=1.5)),
    event("checkout.session.completed", session(amount_total="1000")),
    event("checkout.session.completed", session(amount_total=2**60)),
    event("checkout.session.completed", session(amount_total=True)),
    event("checkout.session.completed", session(currency=None)),
    event("checkout.session.completed", session(currency="USD")),
    event("checkout.session.completed", session(currency="dollars")),
    event("checkout.session.completed", session(payment_status="perhaps")),
    event("checkout.session.completed", session(payment_intent="a name <x@example.test>")),
    event("checkout.session.completed", session(metadata={"aurixel_order": 7})),
    event("checkout.session.completed", session(metadata=[])),
    event("charge.refunded", charge(amount_refunded=None)),
    event("charge.dispute.created", dispute(status=None)),
    event("refund.updated", refund(id=None)),
    event("checkout.session.completed", {}) | {"data": {}},
    event("checkout.session.completed", {}) | {"data": None},
    event("checkout.session.completed", {}) | {"type": None},
    event("checkout.session.completed", {}) | {"livemode": "false"},
    event("checkout.session.completed", {}) | {"account": 7},
    event("checkout.session.completed", {}) | {"object": "v2.core.event"},
    {"object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", "livemode": False},
    [],
    "x",
    7,
    None,
]


@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_is_refused_by_name(value: Any) -> None:
    assert refused(value) == "shape"


@pytest.mark.parametrize("body", [b"", b"{", b"\xef\xbb\xbf{}", b"nul", b'{"object":' * 5000, b"[" * 100_000, b'"\\ud800"'])
def test_a_signed_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookInvalid) as caught:
        make().parse_webhook(body, signed(body))
    assert caught.value.code == "shape"


def test_depth_that_is_skipped_is_refused_too() -> None:
    body = encoded(event("checkout.session.completed", session()))[:-2] + b', "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with pytest.raises(WebhookInvalid, match="shape"):
        make().parse_webhook(body, signed(body))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12) | st.sampled_from(CANARIES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every field, at any depth."""
    found = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [(*path, name), *places(inner, (*path, name))]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """An event with some fields missing, null or of another type."""
    kind = draw(st.sampled_from(sorted(SAMPLES)))
    value = copy.deepcopy(event(kind, SAMPLES[kind]))
    for _ in range(draw(st.integers(1, 4))):
        *path, name = draw(st.sampled_from(places(value)))
        at = value
        for step in path:
            at = at[step]
        if draw(st.booleans()):
            at[name] = draw(JUNK)
        else:
            del at[name]
        if not value:
            break
    return value


def words(events: Sequence[CreditEvent]) -> str:
    return json.dumps([{name: getattr(each, name) for name in each.__struct_fields__} for each in events])


@given(mutated())
def test_a_mutated_event_is_refused_or_means_something_sound(value: Any) -> None:
    events: Sequence[CreditEvent] = ()
    try:
        events = parsed(value)
    except WebhookInvalid as error:
        said = error.args
    else:
        said = ()
    assert said in {(), ("mode",), ("account",), ("shape",)}
    for each in events:
        for name in ("amount", "total"):
            number = getattr(each, name, 0)
            assert type(number) is int
            assert number >= 0
        for name in ("order", "payment", "dispute", "key", "currency"):
            text = getattr(each, name, "x")
            assert isinstance(text, str)
            assert text


# --- what leaves ------------------------------------------------------------------------------------------------------


def test_canary_nothing_else_of_an_event_leaves() -> None:
    """Ids, states, amounts, our marks: each value that comes out is one of these, and no canary is among them."""
    known = {ORDER, PAYMENT, "refund-1", "du_1QAurixel", "usd", "failed", "expired", 1000, NOW * 1000, True, False}
    for kind, sample in SAMPLES.items():
        body = encoded(event(kind, sample))
        assert sum(canary.encode() in body for canary in CANARIES) >= 1, kind
        events = make().parse_webhook(body, signed(body))
        assert events
        assert {getattr(each, name) for each in events for name in each.__struct_fields__} <= known
        assert not [canary for canary in CANARIES if canary in words(events) + repr(events)]


def test_canary_a_refusal_does_not_quote_the_body(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("DEBUG")
    backend = make()
    for value in (event("charge.refunded", charge(amount_refunded="canary-extra")), {"canary-name": CANARIES}):
        body = encoded(value)
        for headers in (signed(body), signed(body, OTHER)):
            with pytest.raises(WebhookInvalid) as caught:
                backend.parse_webhook(body, headers)
            assert not [canary for canary in CANARIES if canary in f"{caught.value!r} {caught.value.__cause__!r}"]
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
