"""Several gateway processes on one store: pitfall 4 (budgets kept per node overshoot), a process that is suspended until
the others call it dead, and one that dies with usage to post and comes back after its lease was taken back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from aurixel.storage import NodeState
from aurixel.testing import answers, scripted
from aurixel.testing.scripted import ScriptedUpstream
from aurixel.values import NANOS_PER_USD, format_usd
from tests.flow.fleet import COST, REPLY, TIMING, Books, ask, books, make_key, metric, until
from tests.flow.gateway import configure, upstream
from tests.flow.process import GatewayProcess


class Fleet:
    """Gateways on one store, each a process with its own folder; or one process with several workers."""

    def __init__(self, processes: list[GatewayProcess], files: list[Path], books: Books) -> None:
        self.processes, self.files, self.books = processes, files, books

    def url(self, number: int) -> str:
        return self.processes[number % len(self.processes)].url

    async def sum(self, name: str) -> float:
        """A metric, added up over all."""
        return sum([await metric(process, name) for process in self.processes])


async def fleet(
    folder: Path, up: ScriptedUpstream, store: str, count: int, *words: str, more: str = ""
) -> AsyncIterator[Fleet]:
    """`count` processes of `aurixel serve` with these words; killed at the end if the test did not stop them."""
    files = []
    for number in range(count):
        (folder / str(number)).mkdir()
        files.append(
            configure(folder / str(number), store=store, upstreams=upstream("up", "openai", f"{up.url}/v1"), more=more)
        )
    processes = [GatewayProcess(file, *words) for file in files]
    async with AsyncExitStack() as stack:
        for process in processes:
            stack.push_async_callback(process.kill)
        # One after another: the first fills the catalogue.
        for process in processes:
            await process.start()
        opened = await stack.enter_async_context(books(files[0]))
        yield Fleet(processes, files, opened)


@pytest.fixture(params=["mongodb-3-nodes", "mongodb-2-workers", "sqlite-3-nodes", "sqlite-3-workers"])
async def many(request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Fleet]:
    """Three gateways, or one of several workers, on either store."""
    kind, number, what = request.param.split("-")
    store = request.getfixturevalue("mongodb_database") if kind == "mongodb" else f"sqlite:///{tmp_path / 'aurixel.db'}"
    count, words = (int(number), ()) if what == "nodes" else (1, ("--workers", number))
    async for started in fleet(tmp_path, up, store, count, *words):
        yield started


@pytest.mark.deadline(240)
async def test_pitfall_4_a_storm_on_one_poor_account_overshoots_by_nothing(many: Fleet, up: ScriptedUpstream) -> None:
    """500 requests at once, on all nodes, against credit for 7: exactly 7 run. Then, request by request, the credit is
    spent to the last that it covers; nothing stays held, nothing is negative, and the books add up."""
    rich, gate = await many.books.key("rich@example.com", "1.00"), asyncio.Event()
    reply = answers.openai_chat_reply("x", answers.openai_chat_usage(20, 300))
    up.on("*", scripted.wait(gate), scripted.answer(json=reply))
    async with asyncio.TaskGroup() as group:
        probe = group.create_task(ask(many.url(0), rich))
        await up.received()
        one = round(await many.sum("aurixel_held_usd") * NANOS_PER_USD)
        gate.set()
        assert (await probe)[0] == 200
    gate.clear()
    already = len(up.requests)
    credit = one * 7 + one // 2
    key = await many.books.key("poor@example.com", format_usd(credit))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(many.url(number), key)) for number in range(500)]
        await up.received(already + 7)
        while len(waiting := [task for task in asked if not task.done()]) > 7:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert round(await many.sum("aurixel_held_usd") * NANOS_PER_USD) == 7 * one
        gate.set()
    assert Counter(task.result()[0] for task in asked) == {200: 7, 429: 493}
    codes = {json.loads(task.result()[1])["error"]["code"] for task in asked if task.result()[0] == 429}
    assert codes == {"credit_balance_exhausted"}
    assert len(up.requests) - already == 7
    cost = 20 * 150 + 300 * 600
    affordable = (credit - one) // cost + 1
    served, refused = 7, 0
    while refused < 2 * len(many.processes):
        status, body, _ = await ask(many.url(served + refused), key)
        assert status in (200, 429), body
        served, refused = (served + 1, 0) if status == 200 else (served, refused + 1)
    assert served == affordable, "the last affordable request was refused, or one too many was served"
    account, records = await many.books.at_rest(affordable, "poor@example.com")
    assert len([record for record in records.values() if record.cost]) == affordable
    assert (account.spent, account.written_off) == (affordable * cost, 0)
    assert account.available == credit - affordable * cost < one
    assert await many.sum("aurixel_held_usd") == 0
    for process in many.processes:
        assert await process.stop() == 0, process.log


@pytest.fixture(params=["sqlite", "mongodb"])
async def two(request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Fleet]:
    """Two nodes that find each other dead within seconds."""
    shared = f"sqlite:///{tmp_path / 'aurixel.db'}"
    store = request.getfixturevalue("mongodb_database") if request.param == "mongodb" else shared
    async for started in fleet(tmp_path, up, store, 2, more=TIMING):
        yield started


async def state(store: Books, inc: str, wanted: NodeState) -> None:
    """Wait until the node is in this state."""

    async def is_so() -> bool:
        node = await store.store.node_read(inc)
        return node is not None and node.state == wanted

    await until(is_so)


async def taken_back(store: Books, inc: str) -> None:
    """Wait until the node is dead and its lease is empty."""
    await state(store, inc, "dead")

    async def empty() -> bool:
        return not (await store.account()).leases[inc].amount

    await until(empty)


async def live(store: Books) -> set[str]:
    return {node.inc for node in await store.store.nodes("live")}


@pytest.mark.deadline(120)
async def test_a_suspended_process_that_wakes_admits_nothing_and_begins_anew(two: Fleet, up: ScriptedUpstream) -> None:
    """SIGSTOP until the other node has called it dead and taken its lease back, then SIGCONT: its running request ends
    and is charged under the old name, what is asked meanwhile is refused and reaches no upstream, then it serves again."""
    store, (sleeper, waking) = two.books, two.processes
    up.on("*", scripted.answer(json=REPLY))
    key = await make_key(two.files[0])
    before = await live(store)
    assert (await ask(sleeper.url, key))[0] == 200
    (inc,) = (await store.account()).holders
    gate = asyncio.Event()
    up.on("*", scripted.wait(gate), scripted.answer(json=REPLY))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ask(sleeper.url, key))
        await up.received(2)
        sleeper.signal(signal.SIGSTOP)
        # It listens still, but does not answer: these wait for it to wake.
        waiting = [group.create_task(ask(sleeper.url, key)) for _ in range(5)]
        await taken_back(store, inc)
        assert await metric(waking, "aurixel_reclaimed_usd_total") > 0
        sleeper.signal(signal.SIGCONT)
        await sleeper.said(f"incarnation {inc} is dead: its beat was refused")
        status, _, _ = await running
        assert status == 503, "its request was ended under the old name"
        answers = [await task for task in waiting]
    assert {status for status, _, _ in answers} <= {200, 503}
    codes = {json.loads(body)["error"]["code"] for status, body, _ in answers if status == 503}
    assert codes <= {"shutting_down"}
    gate.set()
    await state(store, inc, "done")
    assert len(await live(store)) == 2
    assert inc not in await live(store)
    assert before & await live(store), "the other one lives on"
    while (await ask(sleeper.url, key))[0] != 200:
        pass
    for process in two.processes:
        assert await process.stop() == 0, process.log
    account, records = await store.at_rest(3)
    charged = [record for record in records.values() if record.cost]
    assert account.spent == len(charged) * COST
    assert account.written_off == 0
    assert {record.cell for record in records.values()} <= {"ok", "refused", "died"}
    assert len([record for record in records.values() if record.inc == inc]) == 2, "it gave a hold after it had been dead"


@pytest.mark.deadline(120)
async def test_late_usage_is_charged_after_the_lease_was_taken_back(two: Fleet, up: ScriptedUpstream) -> None:
    """`kill -9` with a completed request that is not posted; the other node calls it dead and takes the lease back; the
    process is started again: its journal is charged from what is available, and the entry goes."""
    store, (victim, other) = two.books, two.processes
    up.on("*", scripted.answer(json=REPLY))
    key = await make_key(two.files[0])
    # Enough at once that the last are not posted yet when it dies.
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(lost(victim.url, key)) for _ in range(60)]
        await up.received(40)
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await victim.kill()
    completed = {name for task in asked if (name := task.result())}
    assert completed
    account = await store.account()
    (inc,) = account.leases
    posted = len(await store.records())
    await taken_back(store, inc)
    account = await store.account()
    assert account.available == account.credited - account.spent, "all of it is spendable again"
    assert (await ask(other.url, key))[0] == 200
    await victim.start()
    await state(store, inc, "done")
    for process in two.processes:
        assert await process.stop() == 0, process.log
    account, records = await store.at_rest(len(completed) + 1)
    assert completed <= records.keys()
    assert {records[name].cost for name in completed} == {COST}
    assert len(records) > posted + 1, "nothing was left to charge late"
    assert account.written_off == 0
    assert account.spent == sum(record.cost for record in records.values())


async def lost(url: str, key: str) -> str:
    """A request whose gateway may die: its id if it was answered whole."""
    try:
        status, _, headers = await ask(url, key)
    except aiohttp.ClientError:
        return ""
    return headers["x-request-id"] if status == 200 else ""
