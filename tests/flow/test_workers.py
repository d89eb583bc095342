"""`aurixel serve --workers N`, with real processes: one port, one page of metrics, a worker that dies, a supervisor that
dies, workers that are no longer configured, and starts that are refused."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from aurixel.testing import scripted
from aurixel.testing.scripted import ScriptedUpstream
from aurixel.values import parse_usd
from tests.edge.test_ops import check_metrics
from tests.flow.fleet import COST, REPLY, TIMING, ask, books, get, make_key, metric, samples
from tests.flow.gateway import configure, upstream
from tests.flow.process import GatewayProcess

pytestmark = pytest.mark.deadline(120)


@pytest.fixture
def file(tmp_path: Path, up: ScriptedUpstream) -> Path:
    up.on("*", scripted.answer(json=REPLY))
    return configure(tmp_path, upstreams=upstream("up", "openai", f"{up.url}/v1"), more=TIMING)


@pytest.fixture
async def two(file: Path) -> AsyncIterator[GatewayProcess]:
    """Two workers, killed with their supervisor if the test did not stop them."""
    async for process in some(file, "--workers", "2"):
        yield process


async def some(file: Path, *words: str) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(file, *words)
    await process.start()
    try:
        yield process
    finally:
        for pid in process.workers().values() if process._process is not None else ():
            psutil.Process(pid).kill()
        await process.kill()


def journals(file: Path) -> list[Path]:
    """The journals that are left."""
    return list((file.parent / "journal").rglob("*.log"))


async def test_two_workers_are_one_gateway(file: Path, promtool: Path) -> None:
    key = await make_key(file)
    async for process in some(file, "--workers", "2"):
        for _ in range(40):
            status, body, _ = await ask(process.url, key)
            assert status == 200, body
        status, page = await get(process.ops_url + "/metrics")
        assert status == 200
        check_metrics(promtool, page)
        found = await samples(process)
        assert found["aurixel_requests_total", (("dialect", "openai_chat"), ("ending", "ok"))] == 40
        assert found["aurixel_request_seconds_bucket", (("dialect", "openai_chat"), ("le", "+Inf"))] == 40
        assert found["aurixel_serving_workers", ()] == 2
        assert found["aurixel_held_usd", ()] == 0
        assert await get(process.ops_url + "/healthz") == (200, b'{"status":"ok"}')
        assert await get(process.ops_url + "/readyz") == (200, b'{"ready":true,"missing":{}}')
        async with books(file) as store:
            nodes = await store.store.nodes("live")
            assert {node.name for node in nodes} == {f"{socket.gethostname()}/{slot}" for slot in (0, 1)}
        assert await process.stop() == 0, process.log
    assert not journals(file)
    async with books(file) as store:
        account, records = await store.at_rest(40)
        assert account.spent == 40 * COST
        assert len(records) == 40
        assert len({record.inc for record in records.values()}) == 2, "one of them took nothing"


async def test_a_worker_that_dies_is_started_again_and_charges_what_it_left(
    file: Path, up: ScriptedUpstream, two: GatewayProcess
) -> None:
    """Neither its requests nor what it had counted is lost; the other one goes on meanwhile."""
    async with books(file) as store:
        key = await make_key(file, email="b@example.com")
        for _ in range(30):
            assert (await ask(two.url, key))[0] == 200
        before = await samples(two)
        pids = two.workers()
        psutil.Process(pids[1]).kill()
        await two.said("worker 1 ended by SIGKILL; it is started again in 0.5 s")
        await two.said("worker 1 listens", 2)
        assert two.workers()[0] == pids[0]
        assert two.workers()[1] != pids[1]
        while (await metric(two, "aurixel_serving_workers")) != 2:
            pass
        after = await samples(two)
        counters = [key for key in before if key[0].endswith(("_total", "_count", "_bucket", "_sum"))]
        assert len(counters) > 100
        assert [key for key in counters if after[key] < before[key]] == []
        assert await metric(two, "aurixel_worker_restarts_total") == 1
        assert await metric(two, "aurixel_requests_total") == 30
        for _ in range(10):
            assert (await ask(two.url, key))[0] == 200
        assert await metric(two, "aurixel_requests_total") == 40
        assert await two.stop() == 0, two.log
        account, records = await store.at_rest(40, "b@example.com")
        assert (account.spent, len(records)) == (40 * COST, 40)
    assert not journals(file)


async def test_workers_end_when_their_supervisor_is_gone(file: Path, two: GatewayProcess, up: ScriptedUpstream) -> None:
    pids = two.workers()
    gone = [psutil.Process(pid) for pid in pids.values()]
    await two.kill()  # waits for the end of stderr, which the workers have too
    assert two.log.count("the supervisor is gone: this worker ends") == 2
    _, alive = await asyncio.to_thread(psutil.wait_procs, gone, 30)
    assert not alive
    assert not journals(file)


async def kill_all(process: GatewayProcess) -> None:
    """Everything at once, as when a machine fails."""
    pids = process.workers().values()
    psutil.Process(process.pid).suspend()  # so that it starts nothing again
    for pid in pids:
        psutil.Process(pid).kill()
    await process.kill()


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 2), (1, 2)])
async def test_the_journals_of_workers_that_are_not_configured_any_more_are_replayed(
    file: Path, up: ScriptedUpstream, before: int, after: int
) -> None:
    """From several to one and to fewer; and the journal of a single process is found by several."""
    key = await make_key(file)
    gate = asyncio.Event()
    up.on("*", scripted.wait(gate), scripted.answer(json=REPLY))
    process = GatewayProcess(file, "--workers", str(before))
    await process.start()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(lost(process.url, key)) for _ in range(24)]
        await up.received(24)
        assert len(journals(file)) == before
        await (kill_all(process) if before > 1 else process.kill())
    assert [task.result() for task in asked] == [False] * 24
    again = GatewayProcess(file, "--workers", str(after))
    await again.start()
    assert await metric(again, "aurixel_crashed_requests_total") == 24
    assert await again.stop() == 0, again.log
    assert not journals(file)
    async with books(file) as store:
        account, records = await store.at_rest(24)
        assert {record.cell for record in records.values()} == {"crash"}
        assert len({record.inc for record in records.values()}) == before, "one of them took nothing"
        assert account.spent == 0
        assert {node.state for node in await store.store.nodes()} == {"done"}


async def lost(url: str, key: str) -> bool:
    """A request whose gateway dies: whether it got an answer all the same."""
    try:
        await ask(url, key)
    except aiohttp.ClientError:
        return False
    return True


def variant(file: Path, old: str, new: str) -> Path:
    """The same configuration but for this."""
    text = file.read_text()
    assert old in text
    path = file.with_name("variant.toml")
    path.write_text(text.replace(old, new))
    return path


async def test_a_start_that_is_refused_says_why_once_and_leaves_nothing_behind(file: Path) -> None:
    async def refused(config: Path) -> str:
        process = GatewayProcess(config, "--workers", "2")
        with pytest.raises(RuntimeError):
            await process.start()
        assert await process.died() == 1
        assert process.log.count("error: ") == 1, process.log
        return process.log

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ("\nlisten", "\nops_listen"):
            said = await refused(variant(file, f'{setting} = "127.0.0.1:0"', f'{setting} = "{address}"'))
            assert f"cannot listen on {address}: Address already in use" in said
    async for process in some(file, "--workers", "2"):
        # The same folder of journals: every worker would say so, and one does.
        assert "another process keeps its journal here" in await refused(file)
        # The same port, which both would share without a word: not even with other workers.
        port = process.url.rpartition(":")[2]
        same = variant(file, '\nlisten = "127.0.0.1:0"', f'\nlisten = "127.0.0.1:{port}"')
        assert "Address already in use" in await refused(variant(same, "/journal", "/other-journal"))
    assert "opennai" in await refused(variant(file, 'enabled = ["openai"', 'enabled = ["opennai"'))


async def test_a_worker_that_cannot_start_again_is_tried_until_it_can(file: Path, two: GatewayProcess) -> None:
    """Its journal is in other hands for a while: it says so each time, waits longer each time, and the other one serves."""
    key = await make_key(file)
    with open(file.parent / "journal/slot-1/lock") as lock:  # noqa: ASYNC230 - to hold it is the point
        psutil.Process(two.workers()[1]).kill()
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        await two.said(
            "another process keeps its journal here (stop that process, or name another folder); it is started again"
        )
        await two.said("it is started again in 2 s")
        status, page = await get(two.ops_url + "/readyz")
        assert (status, json.loads(page)) == (200, {"ready": True, "missing": {"worker 1": "starting"}})
        for _ in range(5):
            assert (await ask(two.url, key))[0] == 200
    await two.said("worker 1 listens", 2)
    assert "worker 1 cannot start" in two.log
    assert await two.stop() == 0, two.log
    assert not journals(file)


async def test_sighup_publishes_the_catalogue_once(file: Path, two: GatewayProcess) -> None:
    prices = file.with_name("prices.toml")
    prices.write_text(prices.read_text().replace('"0.15"', '"0.30"'))
    two.signal(signal.SIGHUP)
    await two.said("the catalogue is at version 2")
    key, row = await make_key(file), 0
    while row < 12:  # the worker that was not told finds the new version within a second
        _, _, headers = await ask(two.url, key)
        row = row + 1 if parse_usd(headers["x-aurixel-cost"]) == 20 * 300 + 7 * 600 else 0
    assert two.log.count("the catalogue is at version") == 1
    assert await two.stop() == 0
    async with books(file) as store:
        assert await store.store.catalogue_version() == 2


async def test_a_worker_that_hangs_is_told_and_the_others_serve(file: Path, two: GatewayProcess) -> None:
    before = await metric(two, "aurixel_journal_sync_seconds_count")
    hung = psutil.Process(two.workers()[1])
    hung.suspend()
    try:
        status, page = await get(two.ops_url + "/readyz")
        assert (status, json.loads(page)) == (200, {"ready": True, "missing": {"worker 1": "no answer in time"}})
        assert await metric(two, "aurixel_journal_sync_seconds_count") >= before
    finally:
        hung.resume()
    while (await get(two.ops_url + "/readyz"))[1] != b'{"ready":true,"missing":{}}':
        pass
    assert await two.stop() == 0
