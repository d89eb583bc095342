"""A disk without room, under a whole gateway in a process of its own: new requests are turned away, running ones end, nothing
is lost, and it goes on by itself when there is room again.

The disk is made full by the limit that Linux puts on the length of files (RLIMIT_FSIZE), set from outside on the running
process: every write that would lengthen a file fails, of the journal and of the store. It needs no rights and no mount.
"""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.ledger import verify
from aurixel.testing import answers
from aurixel.testing.scripted import ScriptedUpstream, chunked, event_stream, wait
from tests.flow.gateway import OPENAI_BODY, configure, running, upstream
from tests.flow.process import GatewayProcess

CHAT = "/v1/chat/completions"
STREAM = OPENAI_BODY | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 50}
COST = 20 * 150 + 7 * 600
EVENTS = tuple(answers.openai_chat_events("some words", answers.openai_chat_usage(20, 7)))


def room(process: GatewayProcess, length: int) -> None:
    """How long files of the process may get; those that are longer stay, and get no longer."""
    assert process._process is not None
    _, hard = resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (length, hard))


@pytest.mark.deadline(120)
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
async def test_a_full_disk_turns_new_requests_away_and_loses_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, store: str
) -> None:
    url = "" if store == "sqlite" else request.getfixturevalue("mongodb_database")
    file = configure(tmp_path, store=url, upstreams=upstream("up", "openai", f"{up.url}/v1"))
    file.write_text(file.read_text().replace("[ledger]\n", '[ledger]\nsegment = "4 KiB"\n'))
    async with running(file) as gw:
        key = await gw.key(usd="100.00")
    headers = {"authorization": f"Bearer {key}"}
    process = GatewayProcess(file)
    await process.start()
    completed: set[str] = set()

    async def ask() -> Any:
        async with http.post(process.url + CHAT, json=STREAM, headers=headers) as reply:
            body = await reply.read()
            if reply.status == 200:
                assert body.endswith(b"data: [DONE]\n\n")
                completed.add(reply.headers["x-request-id"])
            else:
                assert b"data:" not in body
            return reply

    async def ready() -> bool:
        async with http.get(process.ops_url + "/readyz") as reply:
            return reply.status == 200

    async def until_ready(wanted: bool) -> None:
        while True:
            if await ready() is wanted:
                return

    up.on("*", event_stream(EVENTS))
    for _ in range(30):
        assert (await ask()).status == 200
    await until_ready(True)

    go_on = asyncio.Event()
    up.once(event_stream(EVENTS[:1], end=False), wait(go_on), chunked(EVENTS[1:]))
    before = len(up.requests)
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(ask())
        await up.received(before + 1)
        room(process, 64)
        refused = await ask()
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        await until_ready(False)
        for _ in range(20):
            assert (await ask()).status == 503
        go_on.set()
        assert (await slow).status == 200
    assert not await ready()
    asked = len(up.requests)
    assert (await ask()).status == 503
    assert len(up.requests) == asked, "nothing is asked of an upstream without a line in the journal"

    room(process, resource.RLIM_INFINITY)
    await until_ready(True)
    for _ in range(30):
        assert (await ask()).status == 200
    assert await process.stop() == 0, process.log
    assert len(completed) == 61
    async with running(file) as gw:
        found = {record.request_id: record for record in await gw.records()}
        assert {found[request_id].cost for request_id in completed} == {COST}
        assert set(found) == completed
        account = await gw.account()
        assert (account.leases, account.spent, account.written_off) == ({}, 61 * COST, 0)
        assert (await verify(gw.store)).ok
