"""Seeing it: metrics that Prometheus accepts with bounded labels, readiness that is true, request ids, costs and stages on
replies, and a process that drains on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
from pathlib import Path

import aiohttp

from aurixel.testing import answers, scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import ANTHROPIC_BODY, OPENAI_BODY, Running, configure, running, upstream
from tests.flow.process import GatewayProcess
from tests.harness.guard import ExpectedLogs

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


async def test_metrics_are_what_prometheus_accepts(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, promtool: Path
) -> None:
    key = await gw.key()
    up.reply(json=answers.openai_chat_reply("Hi", answers.openai_chat_usage(20, 7)))
    for body in (OPENAI_BODY, OPENAI_BODY | {"model": "nothing"}):
        async with http.post(gw.url + CHAT, json=body, headers={"authorization": f"Bearer {key}"}) as reply:
            await reply.read()
    await gw.settled()
    async with http.get(f"{gw.ops_url}/metrics") as scrape:
        text = await scrape.text()
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    samples = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    assert samples['aurixel_requests_total{dialect="openai_chat",ending="ok"}'] == "1.0"
    assert samples['aurixel_refusals_total{code="model_not_found",kind="client"}'] == "1.0"
    assert samples['aurixel_usage_units_total{class="input"}'] == "20.0"
    assert float(samples["aurixel_charged_usd_total"]) == (20 * 150 + 7 * 600) / 1e9
    assert samples["aurixel_held_usd"] == "0.0"
    assert all(name.startswith(("aurixel_", "python_", "process_")) for name in samples)
    account = await gw.account()
    for secret in (account.id, key, key.split("-")[1], "example.com", "127.0.0.1"):
        assert secret not in text


async def test_labels_do_not_grow_with_what_clients_send(gw: Running, http: aiohttp.ClientSession) -> None:
    """Pitfall 20: the number of series is the same after a thousand different models, paths and keys."""

    async def series() -> int:
        async with http.get(f"{gw.ops_url}/metrics") as scrape:
            return len((await scrape.text()).splitlines())

    key = await gw.key()

    async def noise(number: int) -> None:
        body = OPENAI_BODY | {"model": f"model-{number}"}
        token = key if number % 2 else f"ax-{number}"
        url = f"{gw.url}{CHAT if number % 3 else f'/v1/path-{number}'}"
        async with http.post(url, json=body, headers={"authorization": f"Bearer {token}"}) as reply:
            assert reply.status in (401, 404)

    for number in range(6):
        await noise(number)
    before = await series()
    await asyncio.gather(*(noise(number) for number in range(1000)))
    assert await series() == before


async def test_every_reply_is_named_and_says_what_it_cost_and_where_time_went(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    key = await gw.key()
    up.reply(json=answers.anthropic_messages_reply("Hi", answers.anthropic_messages_usage(1000, 10)))
    async with http.post(gw.url + MESSAGES, json=ANTHROPIC_BODY, headers={"x-api-key": key}) as reply:
        assert reply.status == 200
        assert reply.headers["x-aurixel-cost"] == "0.00315"
        assert reply.headers["request-id"] == reply.headers["x-request-id"]
        stages = [stage.split(";")[0] for stage in reply.headers["server-timing"].split(", ")]
        assert stages == ["auth", "parse", "policy", "hold", "upstream"]
    (record,) = await gw.settled()
    assert (record.request_id, record.cost) == (reply.headers["x-request-id"], 3_150_000)
    assert (record.model, record.upstream, record.client_ip) == ("claude-test", "upa", "127.0.0.1")
    assert record.counts == {"input": 1000, "output": 10}
    assert record.price_version == 1
    assert record.at_ms <= record.done_ms
    for path in ("/nothing", "/v1/models", CHAT):
        async with http.get(gw.url + path) as refused:
            assert refused.status in (401, 404, 405)
            assert refused.headers["x-request-id"].startswith("req_")


async def test_readiness_is_true(gw: Running, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{gw.ops_url}/healthz") as health:
        assert health.status == 200
    async with http.get(f"{gw.ops_url}/readyz") as ready:
        assert (ready.status, (await ready.json())["ready"]) == (200, True)
    await gw.store.close()
    async with http.get(f"{gw.ops_url}/readyz") as ready:
        assert (ready.status, (await ready.json())["missing"].keys()) == (503, {"store"})
    await gw.store.open()


async def test_a_store_or_journal_that_is_moved_away_is_not_ready(
    gw: Running, http: aiohttp.ClientSession, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.storage", "was moved or deleted while in use", level=logging.ERROR, times=1)
    expected_logs("aurixel.storage", "is back", times=1)
    expected_logs("aurixel.ledger", "the store|the journal: .*moved or deleted", level=logging.ERROR, optional=True)
    expected_logs("aurixel.ledger", "the store|the journal is written again", optional=True)
    for name, missing in (("aurixel.db", {"store": "StoreUnavailable"}), ("journal", {"ledger": "no journal"})):
        os.rename(tmp_path / name, tmp_path / "aside")
        async with http.get(f"{gw.ops_url}/readyz") as ready:
            assert (ready.status, (await ready.json())["missing"]) == (503, missing)
        os.rename(tmp_path / "aside", tmp_path / name)
        async with http.get(f"{gw.ops_url}/readyz") as ready:
            assert ready.status == 200


async def test_a_catalogue_change_takes_effect_without_a_restart_whole_or_not_at_all(
    gateway_file: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    """Pitfall 12: two nodes on one store charge by the version they name; a broken file changes nothing."""
    folder = gateway_file.parent
    second = folder / "second"
    second.mkdir()
    other_file = configure(
        second, store=f"sqlite:///{folder / 'aurixel.db'}", upstreams=upstream("up", "openai", f"{up.url}/v1")
    )
    up.reply(json=answers.openai_chat_reply("Hi", answers.openai_chat_usage(1_000_000, 0) | {"completion_tokens": 1}))
    async with running(gateway_file) as one, running(other_file) as two:
        key = await one.key()

        async def charge(node: Running) -> str:
            async with http.post(node.url + CHAT, json=OPENAI_BODY, headers={"authorization": f"Bearer {key}"}) as reply:
                assert reply.status == 200
                return reply.headers["x-aurixel-cost"]

        assert [await charge(one), await charge(two)] == ["0.1500006", "0.1500006"]
        prices = folder / "prices.toml"
        old = prices.read_text()
        prices.write_text(old.replace('input = "0.15"', 'input = "0.30"'))
        await one.app.reload()
        assert await charge(one) == "0.3000006"
        await two.app.catalogue.refresh()
        assert await charge(two) == "0.3000006"
        records = await one.settled(count=4)
        assert [record.price_version for record in records] == [1, 1, 2, 2]


async def test_a_broken_price_file_changes_nothing(gw: Running, expected_logs: object) -> None:
    import logging

    expected_logs("aurixel.app", "the catalogue is unchanged: .*prices.toml", level=logging.ERROR)  # type: ignore[operator]
    prices = gw.settings.catalogue_files[1]
    prices.write_text(prices.read_text() + '\n[[price]]\nmodel = "gpt-test"\neffective = 2025-02-01\ninput = "-1"\n')
    before = gw.app.catalogue.current
    await gw.app.reload()
    assert gw.app.catalogue.current is before
    assert await gw.store.catalogue_version() == 1


async def test_sigterm_drains_then_ends_streams_with_an_error_event_and_settles(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    file = configure(tmp_path, upstreams=upstream("up", "openai", f"{up.url}/v1"))
    file.write_text(file.read_text().replace("drain_deadline = 5", "drain_deadline = 0.5"))
    async with running(file) as gw:
        key = await gw.key()
    process = GatewayProcess(file)
    await process.start()
    events = answers.openai_chat_events("words that never end", answers.openai_chat_usage(20, 7))
    up.on("*", scripted.event_stream(events[:3], end=False), scripted.stall)
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(process.url + CHAT, json=OPENAI_BODY | {"stream": True}, headers=headers) as reply:
        first = await reply.content.readany()
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(process.stop())
            rest = await reply.content.read()
        assert stopping.result() == 0, process.log
    last = json.loads((first + rest).rstrip().rpartition(b"data: ")[2])
    assert last["error"]["code"] == "shutting_down"
    async with running(file) as gw:
        (record,) = await gw.records()
        account = await gw.account()
    assert (record.cell, record.measured) == ("died", False)
    assert (account.leases, account.spent) == ({}, record.cost)
    assert record.cost > 0
    for line in process.log.splitlines():
        assert json.loads(line)["level"] == "info"
