"""A price with a date takes effect at that instant, on every node, without a new version; each record says which it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from aurixel.app import App
from aurixel.catalog import PriceHistory
from aurixel.clock import SystemClock
from aurixel.config import load
from aurixel.ledger import verify
from aurixel.storage import UsageRecord
from aurixel.testing import answers
from aurixel.testing.scripted import ScriptedUpstream
from aurixel.tomlfile import TomlFile
from tests.flow.gateway import MODELS, OPENAI_BODY, PRICES, Running, configure, upstream

CHAT = "/v1/chat/completions"
CHANGE = round(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
LATER = """
[[price]]
model = "gpt-test"
effective = 2026-03-01T12:00:00Z
input = "1.00"
output = "2.00"
"""
# 20 tokens in, 7 out.
OLD, NEW = 20 * 150 + 7 * 600, 20 * 1000 + 7 * 2000


class SetClock(SystemClock):
    """The wall clock says what it is told; time since boot runs on."""

    def __init__(self) -> None:
        self.now = CHANGE - 86_400_000

    def wall_ms(self) -> int:
        return self.now


class Nodes(NamedTuple):
    """Two gateways on one store, each with a clock of its own."""

    both: tuple[Running, Running]
    clocks: tuple[SetClock, SetClock]
    up: ScriptedUpstream
    http: aiohttp.ClientSession
    key: str

    def at(self, now: int) -> None:
        for clock in self.clocks:
            clock.now = now

    async def ask(self, which: int) -> UsageRecord:
        """One request to that node, and its record."""
        before = {record.request_id for record in await self.both[0].records()}
        self.up.reply(json=answers.openai_chat_reply("Hi", answers.openai_chat_usage(20, 7)))
        headers = {"authorization": f"Bearer {self.key}"}
        async with self.http.post(self.both[which].url + CHAT, json=OPENAI_BODY, headers=headers) as reply:
            assert reply.status == 200
            await reply.read()
        (record,) = [r for r in await self.both[which].settled(count=len(before) + 1) if r.request_id not in before]
        return record

    async def right(self) -> None:
        """Every charge follows from the record and the stored versions alone."""
        for gw in self.both:
            await gw.app.ledger.flush()
        report = await verify(self.both[0].store, charges=PriceHistory(self.both[0].store))
        assert report.ok, report.faults


@pytest.fixture(params=["sqlite", "mongo"])
async def nodes(
    request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> AsyncIterator[Nodes]:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "mongo":
        url = request.getfixturevalue("mongodb_database")
    async with AsyncExitStack() as stack:
        running, clocks = [], []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            more = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
            file = configure(folder, store=url, upstreams=more, models=MODELS, prices=PRICES + LATER)
            clocks.append(SetClock())
            app = App(load(file), clocks[-1])
            await app.start()
            stack.push_async_callback(app.stop)
            running.append(Running(app))
        yield Nodes((running[0], running[1]), (clocks[0], clocks[1]), up, http, await running[0].key())


async def test_a_dated_price_takes_effect_at_its_instant_on_every_node(nodes: Nodes) -> None:
    for now, cost in ((CHANGE - 1, OLD), (CHANGE, NEW), (CHANGE + 86_400_000, NEW)):
        nodes.at(now)
        for which in (0, 1):
            record = await nodes.ask(which)
            assert (record.cost, record.at_ms, record.price_version) == (cost, now, 1)
    await nodes.right()


async def test_a_request_is_charged_by_the_price_of_the_instant_it_came(nodes: Nodes) -> None:
    """Its head came before the change; its body, and its answer, after."""
    nodes.at(CHANGE - 1)
    nodes.up.reply(json=answers.openai_chat_reply("Hi", answers.openai_chat_usage(20, 7)))
    body = json.dumps(OPENAI_BODY).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: x", f"Authorization: Bearer {nodes.key}", f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "Expect: 100-continue", "Connection: close", "", ""])
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.both[0].app.ports[0])
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    nodes.at(CHANGE + 1)
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    (record,) = await nodes.both[0].settled()
    assert (record.cost, record.at_ms) == (OLD, CHANGE - 1)
    await nodes.right()


async def test_an_imported_price_waits_for_its_date_on_nodes_that_run(nodes: Nodes) -> None:
    nodes.at(CHANGE)
    sooner = LATER.replace("12:00:00Z", "13:00:00Z").replace('"1.00"', '"3.00"')
    first = nodes.both[0].app.catalogue
    assert await first.import_prices(TomlFile("new.toml", sooner), "test") == 2
    assert (await nodes.ask(1)).price_version == 1  # has not looked yet: what it charges by, it says
    await nodes.both[1].app.catalogue.refresh()
    for now, cost in ((CHANGE + 3_599_999, NEW), (CHANGE + 3_600_000, 20 * 3000 + 7 * 2000)):
        nodes.at(now)
        for which in (0, 1):
            record = await nodes.ask(which)
            assert (record.cost, record.price_version) == (cost, 2)
    await nodes.right()
