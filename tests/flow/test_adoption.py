"""A node that is gone for good: its journal is moved to another folder and replayed there, by `aurixel journal`, as typed.

The node is a real process and ends by `kill -9`; the store outlives it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.clock import SystemClock
from aurixel.ledger import Movements, verify
from aurixel.storage import Store, open_store
from aurixel.testing import answers
from aurixel.testing.scripted import ScriptedUpstream, answer, stall
from tests.flow.gateway import OPENAI_BODY, Running, configure, running, upstream
from tests.flow.process import GatewayProcess

CHAT = "/v1/chat/completions"
COST = 20 * 150 + 7 * 600
REPLY = answer(json=answers.openai_chat_reply("hello", answers.openai_chat_usage(20, 7)))


async def command(*words: str | Path) -> tuple[int, Any, Any]:
    """A run of `aurixel`: exit code, stdout and stderr as JSON (None for nothing)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "aurixel"),
        *(str(word) for word in words),
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, *(json.loads(text) if text else None for text in (out, err))


async def killed_with_usage(
    file: Path, folder: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, key: str
) -> tuple[str, set[str]]:
    """Serve requests until a `kill -9` leaves some that are settled and not posted, and one that runs.

    The incarnation, and the requests that were answered in all.
    """
    process, headers = GatewayProcess(file), {"authorization": f"Bearer {key}"}
    completed: set[str] = set()
    while True:
        await process.start()

        async def ask() -> None:
            async with http.post(process.url + CHAT, json=OPENAI_BODY, headers=headers) as reply:
                assert reply.status == 200
                await reply.read()
                completed.add(reply.headers["x-request-id"])

        async def hang() -> None:
            with suppress(aiohttp.ClientError):
                await http.post(process.url + CHAT, json=OPENAI_BODY, headers=headers)

        count = len(up.requests) + 1
        up.once(stall)
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(hang())
            await up.received(count)
            await asyncio.gather(*(ask() for _ in range(5)))
            await process.kill()
            await hanging
        _, seen, _ = await command("journal", "inspect", folder)
        (left,) = seen["journals"]
        if left["unposted"]:
            assert left["running"] == 1
            assert left["fault"] is None
            assert left["cost"] == f"{left['unposted'] * COST / 1e9:.9f}".rstrip("0")
            return left["inc"], completed


async def the_books_are_right(gw: Running, completed: set[str], written_off: int) -> None:
    records = {record.request_id: record for record in await gw.records()}
    assert completed <= records.keys()
    assert {records[request_id].cost for request_id in completed} == {COST}
    assert "crash" in {record.cell for record in records.values()}
    assert {record.cost for record in records.values() if record.cell == "crash"} == {0}
    account = await gw.account()
    assert account.leases == {}
    assert account.spent + account.written_off == len(completed) * COST
    assert account.written_off == written_off
    report = await verify(gw.store)
    assert report.ok, report.faults


async def another_node_buries(store: Store, inc: str, account: str) -> None:
    """What a live node does of its own accord, two and then one minute later."""
    node = await store.node_read(inc)
    assert node is not None
    assert await store.node_dead(inc, node.beat)
    doc = await store.account_read(account)
    assert doc is not None
    assert await store.lease_reclaim(account, inc, doc.ver, doc.leases[inc].amount)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
async def test_the_journal_of_a_killed_node_is_moved_and_replayed(
    request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, store: str
) -> None:
    """Late usage, too: its lease was taken back meanwhile, and what the account had left was refunded but for one charge."""
    url = "" if store == "sqlite" else request.getfixturevalue("mongodb_database")
    file = configure(tmp_path, store=url, upstreams=upstream("up", "openai", f"{up.url}/v1"))
    up.on("*", REPLY)
    async with running(file) as gw:
        key = await gw.key(usd="10.00")
        account = (await gw.account()).id
    inc, completed = await killed_with_usage(file, tmp_path / "journal", up, http, key)

    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "journal").rename(elsewhere)
    opened = open_store(url or f"sqlite:///{tmp_path / 'aurixel.db'}")
    await opened.open()
    await another_node_buries(opened, inc, account)
    doc = await opened.account_read(account)
    assert doc is not None
    assert doc.leases[inc].amount == 0
    await Movements(opened, SystemClock()).apply(account, "back", "refund", COST - doc.available, "test", "test")
    await opened.close()

    (code, seen, _) = await command("journal", "inspect", elsewhere)
    unposted = seen["journals"][0]["unposted"]
    assert (code, seen["journals"][0]["inc"]) == (0, inc)
    code, out, err = await command("journal", "replay", elsewhere, "--config", file)
    assert (code, err) == (0, None)
    assert out == {
        "ok": True,
        "journals": [
            {"inc": inc, "folder": str(elsewhere), "became": "replayed", "requests": unposted + 1, "crashed": 1, "fault": None}
        ],
    }
    assert [path.name for path in elsewhere.iterdir()] == ["lock"]
    assert await command("journal", "replay", elsewhere, "--config", file) == (0, {"ok": True, "journals": []}, None)
    async with running(file) as gw:
        await the_books_are_right(gw, completed, written_off=(unposted - 1) * COST)


@pytest.mark.deadline(120)
async def test_the_journal_of_a_running_node_is_looked_at_and_never_replayed(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    """Neither in its place, where it has the lock, nor a copy of it: its beat moves within seconds."""
    file = configure(tmp_path, upstreams=upstream("up", "openai", f"{up.url}/v1"))
    up.on("*", REPLY)
    async with running(file) as gw:
        key = await gw.key(usd="10.00")
    process = GatewayProcess(file)
    await process.start()
    async with http.post(process.url + CHAT, json=OPENAI_BODY, headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 200
        await reply.read()
    _, seen, _ = await command("journal", "inspect", "--config", file)
    (journal,) = seen["journals"]
    assert (journal["lines"]["intents"], journal["lines"]["settlements"], journal["fault"]) == (1, 1, None)
    code, _, err = await command("journal", "replay", tmp_path / "journal", "--config", file)
    assert (code, err["error"]["code"]) == (1, "journal_unusable")
    assert "another process keeps its journal here" in err["error"]["message"]
    shutil.copytree(tmp_path / "journal", tmp_path / "copy")
    code, out, err = await command("journal", "replay", tmp_path / "copy", "--dead", "--config", file)
    assert (code, out, err["error"]["code"]) == (1, None, "node_alive")
    assert journal["inc"] in err["error"]["message"]
    assert (tmp_path / "copy" / journal["inc"]).is_dir()
    assert await process.stop() == 0
    async with running(file) as gw:
        assert [record.cost for record in await gw.records()] == [COST]
        assert (await verify(gw.store)).ok
