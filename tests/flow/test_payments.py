"""Webhooks through a whole gateway: forged, doubled, early and late ones, a store that is away, kills, and who is suspended."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aurixel.app import App
from aurixel.config import load
from aurixel.errors import ConfigError
from aurixel.ledger import verify
from aurixel.payments import CENT, decide
from aurixel.payments.orders import from_doc, to_doc
from aurixel.plugin.billing import CreditEvent
from aurixel.testing import answers
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import OPENAI_BODY, Running, configure, running, upstream
from tests.flow.process import GatewayProcess
from tests.harness.guard import ExpectedLogs
from tests.payments.acme import SIGNATURE, block, install, signed
from tests.payments.kit import begun, disputed, paid, refunded

HOOK = "/webhooks/acme"
KILLS = 5
pytestmark = pytest.mark.deadline(60)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `acme` is installed, for this process and for those it starts."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part))
    importlib.invalidate_caches()
    return folder


def with_acme(file: Path, folder: Path) -> Path:
    """The configuration with the backend."""
    text = file.read_text().replace('"limits"]', '"limits", "acme"]')
    file.write_text(text.replace("[server]\n", '[server]\npublic_url = "https://ai.test"\n') + block(folder))
    return file


@pytest.fixture
async def pay(gateway_file: Path, site: Path, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway with the backend."""
    async with running(with_acme(gateway_file, tmp_path)) as gateway:
        yield gateway


async def post(http: aiohttp.ClientSession, url: str, *events: CreditEvent) -> tuple[int, Any]:
    """A signed webhook: its status and its answer."""
    body, headers = signed(*events)
    async with http.post(url + HOOK, data=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def order_of(gw: Running, name: str = "o1", email: str = "a@example.com") -> None:
    """An order of 10.00 for an account that is made where it does not exist."""
    await gw.key(email, "")
    profile = await gw.store.profile_find(email)
    assert profile is not None
    await begun(gw.store, name, profile.account)


async def swept(gw: Running) -> None:
    """Until no order has work left: the sweep is at it."""
    while await gw.store.orders_open(1):  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


async def test_a_webhook_becomes_credit_that_is_spent_and_a_dispute_takes_the_rest(
    pay: Running, http: aiohttp.ClientSession, up: ScriptedUpstream, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "order o1 is disputed", times=1)
    key = await pay.key(usd="")
    headers = {"authorization": f"Bearer {key}"}
    up.reply(json=answers.openai_chat_reply("hello", answers.openai_chat_usage(20, 7)))

    async def ask(method: str, path: str, **more: Any) -> int:
        async with http.request(method, pay.url + path, headers=headers, **more) as reply:
            await reply.read()
            return reply.status

    assert await ask("POST", "/v1/chat/completions", json=OPENAI_BODY) in (402, 429)
    await order_of(pay)
    assert await post(http, pay.url, refunded(100)) == (409, {"error": {"code": "not_yet"}})
    assert await post(http, pay.url, paid()) == (200, {"result": "done"})
    assert await post(http, pay.url, paid()) == (200, {"result": "nothing"})
    assert (await pay.account()).credited == 1000 * CENT
    assert await ask("POST", "/v1/chat/completions", json=OPENAI_BODY) == 200
    await pay.settled()
    assert await post(http, pay.url, refunded(100)) == (200, {"result": "done"})
    assert await post(http, pay.url, disputed(900)) == (200, {"result": "done"})
    while await ask("GET", "/v1/models") != 403:  # a key is believed for a moment
        pass
    account = await pay.account()
    assert account.available + sum(lease.amount for lease in account.leases.values()) == 0
    assert (await verify(pay.store)).ok
    async with http.get(pay.ops_url + "/metrics") as reply:
        found = {
            (sample.name, sample.labels.get("result", "")): sample.value
            for family in text_string_to_metric_families(await reply.text())
            for sample in family.samples
        }
    assert found["aurixel_webhooks_total", "done"] == 3
    assert found["aurixel_webhooks_total", "nothing"] == 1
    assert found["aurixel_webhooks_total", "not_yet"] == 1
    assert found["aurixel_payment_losses_usd_total", ""] > 0


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'[{"type": "Paid"}]', b"x" * 262_144])
async def test_pitfall_13_what_is_not_signed_is_a_400_and_never_a_500(
    pay: Running, http: aiohttp.ClientSession, body: bytes
) -> None:
    await order_of(pay)
    for headers in ({}, {SIGNATURE: "x" * 64}, {SIGNATURE: "é"}, signed(paid())[1], signed(paid(), secret="guessed")[1]):
        async with http.post(pay.url + HOOK, data=body, headers=headers) as reply:
            assert (reply.status, await reply.json()) == (400, {"error": {"code": "webhook_invalid"}})
            assert reply.headers["cache-control"] == "no-store"
    assert (await pay.account()).credited == 0


async def test_only_its_own_path_and_method_and_size(pay: Running, http: aiohttp.ClientSession) -> None:
    body, headers = signed(paid())
    key = await pay.key()
    for path in ("/webhooks/other", "/webhooks/", "/webhooks", "/webhooks/acme/", "/webhooks/acme/x", "/WEBHOOKS/acme"):
        async with http.post(pay.url + path, data=body, headers=headers) as reply:
            assert reply.status == 404
    async with http.get(pay.url + HOOK, headers={"authorization": f"Bearer {key}"}) as reply:
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
    async with http.post(pay.url + HOOK, data=b"x" * 262_145, headers=headers) as reply:
        assert reply.status == 413


async def test_two_hundred_at_once_four_of_each_are_credited_once(pay: Running, http: aiohttp.ClientSession) -> None:
    for number in range(50):
        await order_of(pay, f"o{number}", f"user{number % 5}@example.com")
    events = [paid(f"o{number}", f"p{number}") for number in range(50)] * 4
    random.Random(4).shuffle(events)
    answered = await asyncio.gather(*(post(http, pay.url, event) for event in events))
    assert {status for status, _ in answered} == {200}
    for number in range(5):
        assert (await pay.account(f"user{number}@example.com")).available == 10 * 1000 * CENT
    assert await pay.store.receipt_last() == 50
    assert (await verify(pay.store)).ok


async def test_a_store_that_is_away_is_a_503_and_the_retry_credits(
    pay: Running, http: aiohttp.ClientSession, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.storage", "was moved or deleted while in use", level=logging.ERROR)
    expected_logs("aurixel.storage", "is back")
    await order_of(pay)
    file, elsewhere = tmp_path / "aurixel.db", tmp_path / "elsewhere.db"
    os.rename(file, elsewhere)
    assert await post(http, pay.url, paid()) == (503, {"error": {"code": "store_unavailable"}})
    os.rename(elsewhere, file)
    assert await post(http, pay.url, paid()) == (200, {"result": "done"})
    assert (await pay.account()).available == 1000 * CENT


@pytest.mark.deadline(90 + 15 * KILLS)
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
async def test_pitfall_14_kill_9_under_webhooks_then_retries_credit_each_once(
    request: pytest.FixtureRequest, tmp_path: Path, site: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, store: str
) -> None:
    """As a processor does: each webhook is sent again until it is answered 2xx, and one in ten once more."""
    url = "" if store == "sqlite" else request.getfixturevalue("mongodb_database")
    file = with_acme(configure(tmp_path, store=url, upstreams=upstream("up", "openai", f"{up.url}/v1")), tmp_path)
    count = 40 * KILLS
    async with running(file) as gw:
        for number in range(count):
            await order_of(gw, f"o{number:03}", f"user{number % 4}@example.com")
    chance = random.Random(5)
    waiting = [paid(f"o{number:03}", f"p{number:03}") for number in range(count)]
    waiting += [refunded(100, f"p{number:03}") for number in range(0, count, 3)]  # type: ignore[misc]
    chance.shuffle(waiting)
    alive, news = asyncio.Event(), asyncio.Event()
    answered = 0

    async def processor() -> None:
        nonlocal answered
        while waiting:
            event = waiting.pop()
            await alive.wait()
            status = 0
            with suppress(aiohttp.ClientError, ConnectionError):
                status, _ = await post(http, process.url, event)
                assert status in (200, 409, 503)
                answered += 1
            if status != 200 or chance.random() < 0.1:
                waiting.insert(chance.randrange(len(waiting) + 1), event)
            news.set()

    async with GatewayProcess(file) as process, asyncio.TaskGroup() as group:
        await process.start()
        alive.set()
        for _ in range(8):
            group.create_task(processor())
        for _ in range(KILLS):
            enough = answered + chance.randrange(5, 25)
            while waiting and answered < enough:
                news.clear()
                await news.wait()
            alive.clear()
            await process.kill()
            await process.start()
            alive.set()
    async with running(file) as gw:
        await swept(gw)
        expected = [0, 0, 0, 0]
        for number in range(count):
            expected[number % 4] += 1000 - (100 if number % 3 == 0 else 0)
        found = [(await gw.account(f"user{number}@example.com")).available for number in range(4)]
        assert found == [cents * CENT for cents in expected]
        assert await gw.store.receipt_last() == count
        report = await verify(gw.store)
        assert report.ok, report.faults


async def test_what_a_crash_left_is_finished_by_the_sweep_of_the_next_start(
    gateway_file: Path, site: Path, tmp_path: Path
) -> None:
    file = with_acme(gateway_file, tmp_path)
    async with running(file) as gw:
        await order_of(gw)
        doc = await gw.store.order_read("o1")
        assert doc is not None
        assert await gw.store.order_swap(to_doc(decide(from_doc(doc), paid(), 1)))
    async with running(file) as gw:
        await swept(gw)
        assert (await gw.account()).available == 1000 * CENT


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('webhook_secret = "acme-webhook-secret"\n', "", "acme needs a webhook secret"),
        ('public_url = "https://ai.test"\n', "", "payers need an address to come back to"),
        ("[payments.acme]", "[payments.acne]", "no enabled plugin brings a billing backend named 'acne'"),
    ],
)
async def test_pitfall_13_without_its_secret_nothing_starts(
    gateway_file: Path, site: Path, tmp_path: Path, before: str, after: str, told: str
) -> None:
    file = with_acme(gateway_file, tmp_path)
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(ConfigError, match=told):
        await App(load(file)).start()


async def test_nothing_of_a_webhook_is_logged_or_kept_but_ids_and_amounts(
    pay: Running, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", r"^Paid of acme is refused: order_unknown$", times=1)
    caplog.set_level(logging.DEBUG)
    await order_of(pay)
    canary = "canary-7f3a9c51e2"
    body, headers = signed(paid())
    async with http.post(pay.url + HOOK, data=body + canary.encode(), headers=headers | {"user-agent": canary}) as reply:
        assert reply.status == 400
    async with http.post(pay.url + HOOK + "?q=" + canary, data=body, headers=headers | {"cookie": canary}) as reply:
        assert reply.status == 200
    assert (await post(http, pay.url, paid(canary)))[0] == 422
    for event in (refunded(1, canary), disputed(1, payment=canary)):
        assert (await post(http, pay.url, event))[0] == 409
    async with http.get(pay.ops_url + "/metrics") as reply:
        assert canary not in await reply.text()
    ours = [str(record.__dict__) for record in caplog.records if record.name.startswith("aurixel")]
    assert canary not in "\n".join(ours)
    await pay.app.stop()
    found = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}  # noqa: ASYNC240 - a test's own files
    assert any(name.endswith("aurixel.db") for name in found)
    assert [name for name, data in found.items() if canary.encode() in data] == []
