"""Pitfall 9, with real kills: `kill -9` under streaming load, again and again; after it all nothing is lost, nothing is
charged twice, and what the client saw complete has exactly one charge."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from aurixel.ledger.verify import verify
from aurixel.testing import answers
from aurixel.testing.scripted import Call, ScriptedUpstream, event_stream
from tests.flow.gateway import OPENAI_BODY, configure, running, upstream
from tests.flow.process import GatewayProcess

KILLS = int(os.environ.get("AURIXEL_TEST_KILLS", "20"))
CHAT = "/v1/chat/completions"
BODY = OPENAI_BODY | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 50}
COST = 20 * 150 + 7 * 600


async def slowly(call: Call) -> None:
    """A stream that takes a few turns of the loop for each event, so that kills hit it in the middle."""
    events = answers.openai_chat_events("some words that take their time to come", answers.openai_chat_usage(20, 7))
    await event_stream(events)(call)


@pytest.mark.deadline(60 + 6 * KILLS)
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
async def test_kill_9_under_streaming_load_loses_and_doubles_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, store: str
) -> None:
    url = "" if store == "sqlite" else request.getfixturevalue("mongodb_database")
    file = configure(tmp_path, store=url, upstreams=upstream("up", "openai", f"{up.url}/v1"))
    async with running(file) as gw:
        key = await gw.key(usd="100.00")
    up.on("*", slowly)
    process = GatewayProcess(file)
    chance = random.Random(3)
    completed: set[str] = set()
    seen: set[str] = set()
    stopping = asyncio.Event()
    arrived = asyncio.Event()

    async def client() -> None:
        while not stopping.is_set():
            with suppress(aiohttp.ClientError, ConnectionError):
                async with http.post(process.url + CHAT, json=BODY, headers={"authorization": f"Bearer {key}"}) as reply:
                    assert reply.status in (200, 503), await reply.read()
                    request_id = reply.headers["x-request-id"]
                    text = b""
                    async for chunk in reply.content.iter_any():
                        seen.add(request_id)
                        text += chunk
                        arrived.set()
                    if text.endswith(b"data: [DONE]\n\n"):
                        completed.add(request_id)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        await process.start()
        for _ in range(8):
            group.create_task(client())
        for _ in range(KILLS):
            for _ in range(chance.randrange(5, 120)):
                arrived.clear()
                await arrived.wait()
            await process.kill()
            await process.start()
        arrived.clear()
        await arrived.wait()
        stopping.set()
    assert await process.stop() == 0, process.log
    async with running(file) as gw:
        records = {record.request_id: record for record in await gw.records()}
        assert len(records) == len(await gw.records())
        account = await gw.account()
        assert account.leases == {}
        assert account.written_off == 0
        assert account.spent == sum(record.cost for record in records.values())
        missing = completed - records.keys()
        assert not missing
        assert {records[request_id].cell for request_id in completed} == {"ok"}
        assert {records[request_id].cost for request_id in completed} == {COST}
        assert len(completed) > KILLS
        report = await verify(gw.store)
        assert report.ok, report.faults
    # Whatever the client saw a byte of had its intent journaled before: it has a record, charged or cut by the crash.
    assert seen <= records.keys()
    assert {record.cell for record in records.values()} <= {"ok", "crash", "died", "client_gone", "refused"}
    assert "crash" in {record.cell for record in records.values()}
