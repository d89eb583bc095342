"""`aurixel order`, and accounts that are suspended: as typed, for people and for machines, with the backend `acme`."""

from __future__ import annotations

import asyncio
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from aurixel.cli.payments import backend_of, fulfilment_of
from aurixel.config import load
from aurixel.payments import Webhooks, redeem
from aurixel.plugin.billing import CreditEvent, DisputeClosed, Disputed, Paid, Refunded
from aurixel.storage import open_store
from aurixel.values import Secret
from tests.cli.conftest import CONFIG, Run
from tests.harness.guard import ExpectedLogs
from tests.payments.acme import Processor, block, install, signed

Post = Callable[..., int]


@pytest.fixture
def processor(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    """The processor of `acme`, which is installed and configured."""
    install(folder / "site")
    monkeypatch.syspath_prepend(str(folder / "site"))
    importlib.invalidate_caches()
    text = CONFIG.replace('"demo"]', '"demo", "acme"]') + block(folder)
    text += '[server]\npublic_url = "https://ai.example.com"\n[receipts]\nname = "Ops & Co <Ltd>"\n'
    text += 'details = ["1 Main Street"]\ntax_name = "VAT"\ntax_rate = "19"\n'
    (folder / "conf/aurixel.toml").write_text(text)
    aurixel("account", "create", "ada@example.com")
    return Processor(folder)


@pytest.fixture
def post(folder: Path, processor: Processor) -> Post:
    """`post(event...)`: what a gateway would answer to that webhook."""

    def webhook(*events: CreditEvent) -> int:
        async def work() -> int:
            settings = load(folder / "conf/aurixel.toml")
            store = open_store(settings.store.url.reveal())
            await store.open()
            try:
                webhooks = Webhooks({"acme": backend_of(settings, store, "acme")}, fulfilment_of(settings, store))
                return (await webhooks.take("acme", *signed(*events))).status
            finally:
                await store.close()

        return asyncio.run(work())

    return webhook


def made(aurixel: Run, amount: str = "25.00") -> str:
    """The id of a new order."""
    return str(aurixel("order", "create", "ada@example.com", amount, "--json").json["order"])


def available(aurixel: Run) -> str:
    return str(aurixel("account", "show", "ada@example.com", "--json").json["available"])


def paid(order: str, payment: str = "p1", amount: int = 2500) -> Paid:
    return Paid(order=order, payment=payment, amount=amount, currency="usd")


def test_an_order_from_its_page_to_its_receipt(aurixel: Run, processor: Processor, post: Post) -> None:
    created = aurixel("order", "create", "ada@example.com", "25.00", "--json").json
    order = created["order"]
    assert created == {
        "order": order,
        "url": f"https://pay.acme.test/{order}",
        "backend": "acme",
        "amount": "25.00",
        "currency": "usd",
        "expires": "2039-09-07T15:47:35Z",
    }
    second = aurixel("order", "create", "ADA@example.com", "5")
    assert second.out.startswith("https://pay.acme.test/ord_")
    assert second.out.count("\n") == 1
    assert "pay 5.00 USD here" in second.err
    assert processor.read()["topups"][order]["success_url"] == f"https://ai.example.com/?order={order}"

    shown = aurixel("order", "show", order, "--json").json
    assert (shown["state"], shown["url"], shown["receipt"], shown["email"]) == (
        "created",
        created["url"],
        None,
        "ada@example.com",
    )
    refused = aurixel("order", "receipt", order, "--json")
    assert (refused.code, refused.error["code"]) == (1, "no_receipt")
    assert post(paid(order)) == 200
    assert available(aurixel) == "25.00"

    shown = aurixel("order", "show", order, "--json").json
    assert (shown["state"], shown["payment"], shown["credit"], shown["loss"]) == ("paid", "p1", "25.00", "0.00")
    assert (shown["url"], shown["receipt"], shown["open"]) == (None, 1, False)
    assert [(move["cause"], move["took"]) for move in shown["moves"]] == [("payment", "25.00")]
    assert "payment" in aurixel("order", "show", order).out

    receipt = aurixel("order", "receipt", order, "--json").json
    assert (receipt["number"], receipt["amount"], receipt["account"]) == (1, "25.00", "ada@example.com")
    assert receipt["tax"] == {"name": "VAT", "rate": "19", "amount": "3.99"}
    assert "contains 19 % VAT: 3.99 USD" in aurixel("order", "receipt", order).out
    page = aurixel("order", "receipt", order, "--html").out
    assert page.startswith("<!doctype html>")
    assert "Ops &amp; Co &lt;Ltd&gt;" in page

    rows = aurixel("order", "list", "--json").json
    assert [row["state"] for row in rows] == ["paid", "created"]
    assert rows[0] == {
        "order": order,
        "created": shown["created"],
        "email": "ada@example.com",
        "backend": "acme",
        "state": "paid",
        "amount": "25.00",
        "given_back": "0.00",
    }
    assert [row["order"] for row in aurixel("order", "list", "ada@example.com", "--state", "paid", "--json").json] == [order]
    assert order in aurixel("order", "list").out
    assert aurixel("order", "list", "--since", "2030-01-01").out == "no orders\n"
    assert aurixel("ledger", "verify").code == 0


def test_what_is_typed_wrong(aurixel: Run, processor: Processor) -> None:
    for words, code, told in (
        (("create", "ada@example.com", "4.99"), 2, "the least is 5.00 USD"),
        (("create", "ada@example.com", "1000.01"), 2, "the most is 1000.00 USD"),
        (("create", "ada@example.com", "5.001"), 2, "whole cents"),
        (("create", "ada@example.com", "-5"), 2, ""),
        (("create", "eve@example.com", "5"), 1, "no account"),
        (("create", "ada@example.com", "5", "--backend", "stripe"), 2, "there are: acme"),
        (("show", "ord_none"), 1, "no such order"),
        (("receipt", "ord_none"), 1, "no such order"),
        (("refund", "ord_none", "--yes"), 1, "no such order"),
        (("refund", "ord_none", "--json"), 2, "say --yes"),
        (("refund", "ord_none", "--id", "a:b", "--yes"), 2, "an id is"),
        (("refund", "ord_none", "--id", "", "--yes"), 2, "an id is"),
        (("list", "--state", "lost"), 2, "states are created"),
        (("reconcile", "--backend", "none"), 2, "there are: acme"),
    ):
        done = aurixel("order", *words)
        assert (done.code, done.out) == (code, ""), words
        assert told in done.err, words


def test_a_configuration_without_backends_says_so(aurixel: Run) -> None:
    aurixel("account", "create", "ada@example.com")
    done = aurixel("order", "create", "ada@example.com", "5")
    assert done.code == 2
    assert "the configuration has: none" in done.err


def test_a_refund_asks_first_and_is_made_once(
    aurixel: Run, processor: Processor, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = made(aurixel)
    post(paid(order))
    asked: list[str] = []

    def confirm(answer: bool) -> Callable[..., bool]:
        def ask(text: str, *, err: bool) -> bool:
            asked.append(text)
            return answer

        return ask

    monkeypatch.setattr(click, "confirm", confirm(False))
    assert aurixel("order", "refund", order, "10.00").code == 130
    assert asked == [f"Give back 10.00 USD of order {order} of ada@example.com?"]
    assert (available(aurixel), processor.read()["refunds"]) == ("25.00", {})
    monkeypatch.setattr(click, "confirm", confirm(True))
    done = aurixel("order", "refund", order, "10.00", "--reason", "asked by mail")
    assert done.out == "10.00 USD was given back; the order is partly_refunded\n"
    again = aurixel("order", "refund", order, "10.00")
    assert again.out.startswith("10.00 USD was given back: this refund was made before, and is not again")
    assert len(asked) == 2
    assert processor.read()["refunds"] == {f"{order}:10.00:1": ["p1", 1000]}
    other = aurixel("order", "refund", order, "10", "--id", "second", "--yes", "--json").json
    assert other == {
        "order": order,
        "refund": "second",
        "amount": "10.00",
        "state": "done",
        "order_state": "partly_refunded",
        "given_back": "20.00",
    }
    for words in (("--yes",), ()):
        otherwise = aurixel("order", "refund", order, "1.00", "--id", "second", *words)
        assert (otherwise.code, otherwise.out) == (1, "")
        assert "the refund second is one of 10.00 USD" in otherwise.err
    assert (len(asked), len(processor.read()["refunds"])) == (2, 2)
    rest = aurixel("order", "refund", order)
    assert asked[-1].startswith("Give back 5.00 USD")
    assert rest.out == "5.00 USD was given back; the order is refunded\n"
    assert available(aurixel) == "0.00"
    over = aurixel("order", "refund", order, "1", "--yes", "--json")
    assert (over.code, over.error["code"]) == (1, "not_refundable")
    shown = aurixel("order", "show", order, "--json").json
    assert [(each["id"], each["state"], each["reason"]) for each in shown["refunds"]] == [
        ("10.00", "done", "asked by mail"),
        ("second", "done", ""),
        ("all", "done", ""),
    ]
    assert aurixel("ledger", "verify").code == 0


def test_a_refund_that_nobody_can_be_asked_about_needs_yes(
    aurixel: Run, processor: Processor, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = made(aurixel)
    post(paid(order))
    for stdin in (io.StringIO(), None):  # at its end, and closed
        monkeypatch.setattr(sys, "stdin", stdin)
        done = aurixel("order", "refund", order, "4.00")
        assert (done.code, done.out) == (2, "")
        assert "error: nobody is here to be asked: say --yes\n" in done.err
    assert processor.read()["refunds"] == {}
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert aurixel("order", "refund", order, "4.00").out.startswith("4.00 USD was given back")


def test_what_is_asked_about_is_what_is_given_back(
    aurixel: Run, processor: Processor, post: Post, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs("aurixel.payments", "refuses the refund x", times=1)
    order = made(aurixel)
    post(paid(order))
    processor.write(answer="refused")
    assert aurixel("order", "refund", order, "4.00", "--id", "x", "--yes").code == 1
    processor.write(answer="done")
    asked: list[str] = []
    monkeypatch.setattr(click, "confirm", lambda text, err: asked.append(text) or err)
    assert aurixel("order", "refund", order, "6.00", "--id", "x").out.startswith("6.00 USD was given back")
    assert asked == [f"Give back 6.00 USD of order {order} of ada@example.com?"]


def test_an_order_that_was_not_paid_is_not_asked_about(aurixel: Run, processor: Processor) -> None:
    order = made(aurixel)
    for words in ((), ("--yes",), ("5.00", "--yes")):
        refused = aurixel("order", "refund", order, *words)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == "error: an order that is created cannot be refunded\n"
    assert processor.read()["refunds"] == {}


def test_a_refund_without_an_answer_is_finished_by_running_it_again(
    aurixel: Run, processor: Processor, post: Post, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "refuses the refund all", times=1)
    order = made(aurixel)
    post(paid(order))
    processor.write(answer="lost")
    silent = aurixel("order", "refund", order, "--yes", "--json")
    assert (silent.code, silent.error["code"]) == (1, "billing_failed")
    assert silent.error["message"].endswith("; the credit is taken: the same command, or a gateway within a minute, goes on")
    assert available(aurixel) == "0.00"
    processor.write(answer="done")
    assert aurixel("order", "refund", order, "--yes").code == 0
    assert processor.read()["refunds"] == {f"{order}:all:1": ["p1", 2500]}
    second = made(aurixel)
    post(paid(second, "p2"))
    processor.write(answer="refused")
    failed = aurixel("order", "refund", second, "--yes")
    assert (failed.code, available(aurixel)) == (1, "25.00")
    assert "its credit is back on the account" in failed.out


def test_a_dispute_suspends_until_the_account_is_resumed(
    aurixel: Run, processor: Processor, post: Post, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "is disputed: its account is suspended", times=1)
    order = made(aurixel)
    post(paid(order))
    assert post(Disputed(payment="p1", dispute="d1", amount=2500, currency="usd")) == 200
    assert aurixel("account", "show", "ada@example.com", "--json").json["status"] == "suspended"
    assert aurixel("key", "create", "ada@example.com", "--json").code == 1
    assert aurixel("order", "create", "ada@example.com", "5", "--json").error["code"] == "account_suspended"
    assert post(DisputeClosed(payment="p1", dispute="d1", won=True)) == 200
    assert aurixel("order", "show", order, "--json").json["state"] == "paid"
    assert aurixel("account", "show", "ada@example.com", "--json").json["status"] == "suspended"
    resumed = aurixel("account", "resume", "ada@example.com", "--json").json
    assert (resumed["status"], resumed["available"]) == ("active", "25.00")


def test_accounts_are_suspended_and_resumed_by_hand_but_not_closed_ones(aurixel: Run) -> None:
    aurixel("account", "create", "ada@example.com")
    for command, status in (("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active"), ("resume", "active")):
        assert aurixel("account", command, "ada@example.com", "--json").json["status"] == status
    aurixel("account", "close", "ada@example.com")
    for command in ("suspend", "resume"):
        assert aurixel("account", command, "ada@example.com", "--json").error["code"] == "account_closed"
    assert aurixel("account", "resume", "eve@example.com", "--json").error["code"] == "account_unknown"


def test_reconcile_says_what_differs_and_takes_it_in(aurixel: Run, processor: Processor, post: Post) -> None:
    order, other = made(aurixel), made(aurixel)
    post(paid(other, "p2"))
    events = [paid(order), Refunded(payment="p1", total=500, currency="usd"), paid("ord_foreign", "p3")]
    processor.has(*events)
    looked = aurixel("order", "reconcile", "--json")
    assert looked.code == 1
    assert {name: looked.json[name] for name in ("ok", "backend", "applied", "unknown")} == {
        "ok": False,
        "backend": "acme",
        "applied": False,
        "unknown": [other],
    }
    assert looked.json["lacking"] == [
        {"what": "Paid", "order": order, "payment": "p1"},
        {"what": "Refunded", "order": order, "payment": "p1"},
    ]
    assert looked.json["refused"] == [{"what": "Paid", "order": "ord_foreign", "payment": "p3", "code": "order_unknown"}]
    assert available(aurixel) == "25.00"
    processor.has(*events[:2], paid(other, "p2"))
    assert f"taken in: Paid of {order}" in aurixel("order", "reconcile", "--apply").out
    assert available(aurixel) == "45.00"
    done = aurixel("order", "reconcile", "--since", "7d")
    assert (done.code, done.out) == (0, "nothing differs\n")


def test_check_and_plugins_know_billing_backends(aurixel: Run, processor: Processor, folder: Path) -> None:
    assert aurixel("check", "--json").json["payments"] == ["acme"]
    assert "payments   acme" in aurixel("check").out
    listed = {row["name"]: row["brings"] for row in aurixel("plugins", "list", "--json").json}
    assert listed["acme"] == ["billing backend acme"]
    conf = folder / "conf/aurixel.toml"
    whole = conf.read_text()
    for before, after, code, told in (
        ("webhook_secret", "webhook_sekret", "config_invalid", "unknown setting 'webhook_sekret'"),
        ('"acme-webhook-secret"', '""', "config_invalid", "acme needs a webhook secret"),
        ("[payments.acme]", "[payments.acne]", "config_invalid", "no enabled plugin brings a billing backend named 'acne'"),
        (', "acme"]', "]", "config_invalid", "is its plugin in plugins.enabled?"),
        ('public_url = "https://ai.example.com"', "", "public_url_missing", "set server.public_url"),
    ):
        conf.write_text(whole.replace(before, after))
        checked = aurixel("check", "--json")
        assert checked.code == 1
        (fault,) = checked.json["faults"]
        assert fault["code"] == code
        assert told in f"{fault['message']} ({fault['mend']})"
        assert "aurixel.toml:" in fault["place"] or code == "public_url_missing"


def test_a_code_is_credited_once_from_a_command(aurixel: Run, processor: Processor, folder: Path) -> None:
    processor.write(codes={"good": 3_000_000_000})

    async def work() -> Any:
        settings = load(folder / "conf/aurixel.toml")
        store = open_store(settings.store.url.reveal())
        await store.open()
        try:
            profile = await store.profile_find("ada@example.com")
            assert profile is not None
            backend, fulfilment = backend_of(settings, store, "acme"), fulfilment_of(settings, store)
            return [await redeem(fulfilment, backend, profile.account, Secret("good")) for _ in range(2)]
        finally:
            await store.close()

    first, second = asyncio.run(work())
    assert first == second
    assert available(aurixel) == "3.00"
    refused = aurixel("order", "refund", first.id, "--yes", "--json")
    assert (refused.code, refused.error["code"]) == (1, "not_refundable")
    assert aurixel("order", "receipt", first.id, "--json").json["item"] == "credit by a code"
