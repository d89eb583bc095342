"""Pitfall 9, the store's part: out of reach, silent, slow or locked, under load. Requests go on within what the node holds,
then they are refused; afterwards nothing is lost, nothing is charged twice, and the books add up.

`make torture` has MongoDB out of reach for a real minute: AURIXEL_TEST_OUTAGE is for how many seconds. What the ledger
waits for is scaled with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel import keys
from aurixel.app import App
from aurixel.config import load
from aurixel.ledger.liveness import beat
from aurixel.ledger.verify import verify
from aurixel.testing import scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.crowd import CELLS, Crowd, Figures
from tests.flow.gateway import Running, configure, running, upstream
from tests.flow.process import GatewayProcess
from tests.flow.shared import MovedClock
from tests.flow.test_endings import FAMILIES, Family
from tests.harness.guard import ExpectedLogs
from tests.harness.process import Server
from tests.storage.proxy import Proxy, proxied

OUTAGE = float(os.environ.get("AURIXEL_TEST_OUTAGE", "6"))
AWAY, BACK = "the store does not answer", "the store answers again"


async def lasting(seconds: float) -> None:
    """The time that a fault lasts is part of the fault."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def settings(folder: Path, up: ScriptedUpstream, store: str = "", more: str = "") -> Path:
    """A gateway in front of one upstream of both families."""
    upstreams = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
    return configure(folder, store=store, upstreams=upstreams, more=more)


async def unharmed(file: Path, crowd: Crowd, *, crashed: bool = False) -> Figures:
    """What came of it, and that all of it is as it must be."""
    async with running(file) as gw:
        figures = await crowd.check(gw)
    assert (figures.lost, figures.unrecorded, figures.doubled, figures.written_off, figures.held) == (0, 0, 0, 0, 0), figures
    assert figures.verified
    assert figures.cells.keys() <= (CELLS if crashed else CELLS - {"crash"})
    return figures


async def missing(http: aiohttp.ClientSession, ops_url: str) -> dict[str, str]:
    """What `/readyz` says is missing."""
    async with http.get(f"{ops_url}/readyz") as reply:
        answer: dict[str, Any] = await reply.json()
        assert (reply.status == 503) == bool(answer["missing"])
        found: dict[str, str] = answer["missing"]
        return found


@asynccontextmanager
async def loaded(file: Path, crowd: Crowd, scale: float) -> AsyncIterator[GatewayProcess]:
    """A real gateway and its crowd; in the end they leave, and it stops in good order."""
    async with running(file) as gw:
        await crowd.settle_in(gw)
    async with GatewayProcess(file, scale=scale) as process:
        await process.start()
        crowd.url = process.url
        crowd.open.set()
        async with crowd.asking():
            await crowd.complete(30)
            yield process
            await crowd.complete(30)
        assert await process.stop() == 0, process.log


@pytest.mark.deadline(120 + 3 * OUTAGE)
async def test_mongodb_out_of_reach_for_a_minute_under_load_loses_nothing(
    tmp_path: Path,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    mongodb_database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with proxied(mongodb_database) as (wire, url):
        file, crowd = settings(tmp_path, up, url), Crowd(http, up)
        async with loaded(file, crowd, OUTAGE / 60) as process:
            before = len(crowd.completed)
            await wire.leave()
            await process.said(AWAY)
            assert (await missing(http, process.ops_url)).keys() == {"store"}
            await lasting(OUTAGE / 2)
            half = len(crowd.completed)
            await lasting(OUTAGE / 2)
            after = len(crowd.completed)
            assert before < half < after, "requests go on within the leases, and long after keys would have to be asked for"
            await wire.listen()
            await process.said(BACK)
            assert await missing(http, process.ops_url) == {}
        assert (process.log.count(AWAY), process.log.count(BACK)) == (1, 1), process.log
        assert process.log.count('"level": "warning"') == 2, process.log
        figures = await unharmed(file, crowd)
    with capsys.disabled():
        if OUTAGE >= 30:
            print(f"\nMongoDB out of reach for {OUTAGE:g} s: {after - before} answers meanwhile; {figures}")


@pytest.mark.deadline(180)
async def test_mongodb_cut_again_and_again_under_load_loses_nothing(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, mongodb_database: str
) -> None:
    """Refused connections, a server that hangs, and resets of everything that is open."""
    async with proxied(mongodb_database) as (wire, url):
        file, crowd = settings(tmp_path, up, url), Crowd(http, up, seed=4)
        async with loaded(file, crowd, 0.1) as process:
            for turn in range(3):
                for fault in ("leave", "stop", "abort"):
                    await process.said(BACK, process.log.count(AWAY))
                    times = process.log.count(AWAY) + 1
                    if fault == "abort":
                        for _ in range(5):
                            wire.abort()
                            await crowd.complete(10)
                        continue
                    await (wire.leave() if fault == "leave" else _stop(wire))
                    await process.said(AWAY, times)
                    await lasting(0.3 * turn)
                    await (wire.listen() if fault == "leave" else _flow(wire))
                    await process.said(BACK, times)
                    await crowd.complete(20)
        await unharmed(file, crowd)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_node_that_ends_while_the_store_is_away_leaves_its_usage_to_the_next_start(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, mongodb_database: str, end: str
) -> None:
    async with proxied(mongodb_database) as (wire, url):
        file, crowd = settings(tmp_path, up, url), Crowd(http, up, seed=6)
        async with loaded(file, crowd, 0.1) as process:
            await wire.leave()
            await process.said(AWAY)
            await crowd.complete(20)
            crowd.open.clear()
            if end == "kill":
                await process.kill()
            else:
                assert await process.stop() == 0
                assert "the next start replays its journal" in process.log
            await wire.listen()
            await process.start()
            crowd.url = process.url
            crowd.open.set()
        figures = await unharmed(file, crowd, crashed=end == "kill")
        assert figures.cells["ok"] >= figures.completed


async def _stop(wire: Proxy) -> None:
    wire.stop()


async def _flow(wire: Proxy) -> None:
    wire.flow()


LOCKER = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
store.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
store.execute("ROLLBACK")
"""


@pytest.mark.deadline(180)
async def test_a_sqlite_file_locked_by_another_process_under_load_loses_nothing(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    file, crowd = settings(tmp_path, up), Crowd(http, up, seed=5)
    async with loaded(file, crowd, 0.1) as process:
        for turn in range(3):
            before = len(crowd.completed)
            with Server([sys.executable, "-c", LOCKER, str(tmp_path / "aurixel.db")]) as locker:
                await asyncio.to_thread(locker.line, 60)
                await process.said(AWAY, turn + 1)
                await lasting(1.0)
                assert len(crowd.completed) > before
            await process.said(BACK, turn + 1)
            await crowd.complete(20)
    await unharmed(file, crowd)


# --- in one loop: what happens before what ---------------------------------------------------------------------------------


@asynccontextmanager
async def watched(
    folder: Path, up: ScriptedUpstream, database: str, more: str = ""
) -> AsyncIterator[tuple[Running, Proxy, MovedClock]]:
    """A gateway in this loop on a MongoDB behind a wire, by a clock to turn."""
    async with proxied(database) as (wire, url):
        clock = MovedClock()
        app = App(load(settings(folder, up, url, more)), clock)
        await app.start()
        try:
            yield Running(app), wire, clock
        finally:
            wire.delay = 0.0
            wire.flow()
            await app.stop()


async def ask(http: aiohttp.ClientSession, gw: Running, key: str, family: Family) -> aiohttp.ClientResponse:
    """One request, read whole."""
    async with http.post(gw.url + family.path, json=family.body, headers={"x-api-key": key}) as reply:
        await reply.read()
        return reply


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


async def test_a_rich_accounts_requests_wait_for_nothing_of_the_store(
    tmp_path: Path,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    mongodb_database: str,
    expected_logs: ExpectedLogs,
    family: Family,
) -> None:
    """Counted, not timed: all are answered while not one byte passes between the gateway and its store."""
    expected_logs("aurixel.ledger", "the store", optional=True)
    up.reply(json=family.reply(family.usage()))
    async with watched(tmp_path, up, mongodb_database) as (gw, wire, clock):
        key = await gw.key(usd="100.00")
        assert (await ask(http, gw, key, family)).status == 200
        wire.stop()
        passed = wire.passed
        for turn in range(100):
            assert (await ask(http, gw, key, family)).status == 200
            if turn == 50:
                clock.ahead += 2.0  # the key's two seconds are over
        assert wire.passed == passed
        assert wire.held, "it was asked all the while"
        wire.flow()
        records = await gw.settled(count=101)
        assert {record.cost for record in records} == {family.cost(20, 7)}
        assert len(records) == 101
        assert (await verify(gw.store)).ok


@pytest.mark.deadline(120)
async def test_a_store_that_takes_seconds_for_each_call_is_posted_to_all_the_same(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, mongodb_database: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.ledger", "the store", optional=True)
    family = Family("openai")
    up.reply(json=family.reply(family.usage()))
    async with watched(tmp_path, up, mongodb_database) as (gw, wire, _):
        key = await gw.key(usd="100.00")
        assert (await ask(http, gw, key, family)).status == 200
        wire.delay = 1.5
        for _ in range(50):
            assert (await ask(http, gw, key, family)).status == 200
        ledger = gw.app.ledger
        while ledger.totals().unposted:
            await ledger.flush()  # no step of it fails
        wire.delay = 0.0
        assert (await verify(gw.store)).ok
        assert len(await gw.records()) == 51


async def test_what_is_refused_when_the_outage_outlasts_the_setting(
    tmp_path: Path,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    mongodb_database: str,
    expected_logs: ExpectedLogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected_logs("aurixel.ledger", "the store", optional=True)
    monkeypatch.setattr(keys, "LOOK_UP_WITHIN", 0.2)
    more = "[outage]\nadmit_for = 20\nbelieve_keys_for = 40\n"
    goes_on = asyncio.Event()
    async with watched(tmp_path, up, mongodb_database, more) as (gw, wire, clock):
        key = await gw.key(usd="100.00")
        stranger = await gw.key("b@example.com", "100.00")
        chat = Family("openai")
        events = chat.events(chat.usage())
        stream = scripted.event_stream(events[:3], end=False), scripted.wait(goes_on), scripted.chunked(events[3:])
        up.once(*stream)
        body = chat.body | {"stream": True}
        async with http.post(gw.url + chat.path, json=body, headers={"x-api-key": key}) as running_reply:
            await running_reply.content.readany()
            wire.stop()
            clock.ahead += 19
            up.reply(json=chat.reply(chat.usage()))
            assert (await ask(http, gw, key, chat)).status == 200
            unknown = await ask(http, gw, stranger, chat)
            assert (unknown.status, unknown.headers["retry-after"]) == (503, "1"), "the store never vouched for this key"
            for ahead, ledger in ((21, {"ledger": "the store was silent for too long"}), (41, None)):
                clock.ahead = ahead
                for name in FAMILIES:
                    await _refused(await ask(http, gw, key, Family(name)), Family(name))
                if ledger is not None:
                    monkeypatch.setattr("aurixel.edge.ops._CHECK_SECONDS", 0.1)
                    assert await missing(http, gw.ops_url) == ledger | {"store": "no answer in time"}
            goes_on.set()  # what runs ends as ever
            assert b"[DONE]" in await running_reply.read()
        assert gw.app.ledger.totals().held == 0
        wire.flow()
        await beat(gw.app.ledger._open_books())
        assert (await ask(http, gw, key, chat)).status == 200
        records = await gw.settled(count=3)
        assert [(record.cell, record.cost) for record in records] == [("ok", chat.cost(20, 7))] * 3


async def _refused(reply: aiohttp.ClientResponse, family: Family) -> None:
    error = (await reply.json())["error"]
    code = error["code"] if family.openai else error["details"]["error_code"]
    assert (reply.status, code) == (503, "store_unavailable")
    assert re.fullmatch(r"\d+", reply.headers["retry-after"])
