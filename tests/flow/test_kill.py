"""Pitfall 9, with real kills: `kill -9` at any moment and at every step of a request; after it all nothing is lost, nothing
is charged twice, and what a client saw complete has exactly one charge.

`make torture` is the same with many more kills: AURIXEL_TEST_KILLS is how many a store gets.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from aurixel.ledger.verify import verify
from aurixel.testing import scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.crowd import ALMS, CELLS, POOR, Crowd
from tests.flow.gateway import beside, configure, grant, running, upstream
from tests.flow.launch import ONLY_MONGODB, REPLAY, STEPS
from tests.flow.process import GatewayProcess
from tests.flow.test_endings import Family

KILLS = int(os.environ.get("AURIXEL_TEST_KILLS", "40"))
TELL_EVERY = 50


@pytest.fixture(params=["sqlite", "mongodb"])
def file(request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream) -> Path:
    """The configuration of a gateway on each store."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("mongodb_database")
    upstreams = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
    return configure(tmp_path, store=url, upstreams=upstreams)


@pytest.mark.deadline(120 + 6 * KILLS)
async def test_kill_9_at_random_moments_under_load_loses_and_doubles_nothing(
    file: Path, up: ScriptedUpstream, http: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    crowd, chance = Crowd(http, up), random.Random(3)
    async with running(file) as gw:
        await crowd.settle_in(gw)
    async with GatewayProcess(file) as process:
        async with beside(file) as store, crowd.asking():
            for kill in range(1, KILLS + 1):
                await process.begin()
                if chance.random() < 0.15:  # while it starts: it replays what the last one left
                    with suppress(TimeoutError):
                        async with asyncio.timeout(chance.uniform(0.2, 0.7)):
                            await process.listening()
                else:
                    await process.listening()
                    crowd.url = process.url
                    crowd.open.set()
                    await crowd.pieces(chance.randrange(5, 150))
                await process.kill()
                crowd.open.clear()
                if kill % 10 == 0:
                    for email in POOR:
                        await grant(store, email, ALMS)
                if kill % TELL_EVERY == 0:
                    with capsys.disabled():
                        print(f"\n{kill} kills, {crowd.requests} requests, {len(crowd.completed)} seen complete", end="")
            await process.start()
            crowd.url = process.url
            crowd.open.set()
            await crowd.complete(20)
        assert await process.stop() == 0, process.log
    async with running(file) as gw:
        figures = await crowd.check(gw)
    if KILLS >= TELL_EVERY:
        with capsys.disabled():
            print(f"\n{'mongodb' if mongodb(file) else 'sqlite'}: {KILLS} kills, {figures}")
    # Whatever a client saw a byte of had its intent journaled before: it has a record, charged or cut by the crash.
    assert (figures.lost, figures.unrecorded, figures.doubled, figures.written_off, figures.held) == (0, 0, 0, 0, 0), figures
    assert figures.verified
    assert figures.completed > KILLS
    assert figures.cells.keys() <= CELLS
    assert {"ok", "crash"} <= figures.cells.keys()


# --- every step ---------------------------------------------------------------------------------------------------------

CHARGED = STEPS[STEPS.index("after the settlement") :]
# A whole reply has no middle, and its charge goes before its first byte.
WHOLE = ("after the intent", "upstream called", "before the settlement", "before the first byte", "first byte", "last byte")
REPLAYED = tuple(REPLAY + step for step in CHARGED if step.endswith(("the frame", "done", "posted", "stored", "added")))


class Asker:
    """Sends one request at a time to a gateway that dies meanwhile. The upstream goes on only once the client has had what
    came before, so that a stream has a beginning, a middle and an end."""

    def __init__(self, http: aiohttp.ClientSession, up: ScriptedUpstream, key: str) -> None:
        self._http, self._up, self._key = http, up, key

    async def ask(self, url: str, family: Family, stream: bool) -> bool:
        """Whether the answer was complete."""
        body = family.body | ({"stream": True} if stream else {})
        arrived = asyncio.Semaphore(0)
        self._up.on("*", *_answer(family, stream, arrived))
        text = b""
        try:
            async with self._http.post(url + family.path, json=body, headers={"authorization": f"Bearer {self._key}"}) as reply:
                async for chunk in reply.content.iter_any():
                    text += chunk
                    arrived.release()
        except aiohttp.ClientError:
            return False
        finally:
            for _ in range(2):
                arrived.release()
        return not stream or text.endswith((b"data: [DONE]\n\n", b'{"type":"message_stop"}\n\n'))


def _answer(family: Family, stream: bool, arrived: asyncio.Semaphore) -> tuple[scripted.Step, ...]:
    """20 tokens in and 7 out."""
    if not stream:
        return (scripted.answer(json=family.reply(family.usage())),)

    async def taken(call: scripted.Call) -> None:
        await arrived.acquire()

    events = family.events(family.usage())
    parts = scripted.event_stream(events[:3], end=False), scripted.chunked(events[3:4], end=False), scripted.chunked(events[4:])
    return (parts[0], taken, parts[1], taken, parts[2])


@pytest.mark.deadline(180)
async def test_kill_9_at_every_step_of_a_request(file: Path, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    """Pitfall 9: before its settlement is journaled a request costs nothing, from then on it is charged, whatever the client
    got of it; what the client got whole is always charged."""
    async with running(file) as gw:
        asker = Asker(http, up, await gw.key(usd="100.00"))
    walk = [(step, True) for step in STEPS] + [(step, False) for step in WHOLE]
    expected, complete = [], []
    async with GatewayProcess(file, scale=0.2) as process:
        for number, (step, stream) in enumerate(walk):
            if step in ONLY_MONGODB and not mongodb(file):
                continue
            family = Family("openai" if number % 2 else "anthropic")
            await process.start(kill=step)
            complete.append(await asker.ask(process.url, family, stream))
            await died(process, step)
            if step != "before the intent":
                charged = step in CHARGED or (not stream and "byte" in step)
                assert charged or not complete[-1], step
                expected.append((step, stream, "ok" if charged else "crash", family.cost(20, 7) if charged else 0))
        # What was settled and nothing more is left to the next start, which dies at every step of its replay.
        family = Family("openai")
        for step in REPLAYED:
            if step.removeprefix(REPLAY) in ONLY_MONGODB and not mongodb(file):
                continue
            await process.start(kill="after the settlement")
            assert not await asker.ask(process.url, family, True)
            await died(process, step)
            expected.append((step, True, "ok", family.cost(20, 7)))
            await process.begin(kill=step)
            await died(process, step)
    assert True in complete
    async with running(file) as gw:
        records, account = await gw.records(), await gw.account()
        found = [(record.cell, record.cost) for record in records]
        assert found == [(cell, cost) for _, _, cell, cost in expected], list(zip(expected, found, strict=False))
        assert (account.spent, account.written_off) == (sum(cost for _, cost in found), 0)
        assert account.leases == {}
        assert (await verify(gw.store)).ok


async def died(process: GatewayProcess, step: str) -> None:
    """It has killed itself at the step."""
    try:
        async with asyncio.timeout(20):
            assert await process.died() == -signal.SIGKILL, step
    except TimeoutError:
        raise AssertionError(f"it never came to the step {step!r}:\n{process.log}") from None


def mongodb(file: Path) -> bool:
    """Which store it is."""
    return "mongodb://" in file.read_text()
