"""Pitfalls 1, 3 and 4: many requests at once against little credit admit exactly what it covers, on either store and with
two nodes on one; and a mixed load of thousands leaves books that add up to the last nano-dollar."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.ledger.verify import verify
from aurixel.testing import answers, scripted
from aurixel.testing.scripted import Call, ScriptedUpstream
from aurixel.values import format_usd, parse_usd
from tests.flow.gateway import OPENAI_BODY, Running, configure, running, upstream
from tests.harness.guard import ExpectedLogs

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = OPENAI_BODY | {"max_tokens": 1000}


@pytest.fixture(params=["sqlite", "mongodb", "mongodb-two-nodes"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[list[Running]]:
    """One node on either store, or two on one MongoDB."""
    store = "" if request.param == "sqlite" else request.getfixturevalue("mongodb_database")
    async with AsyncExitStack() as stack:
        started = []
        for number in range(2 if request.param == "mongodb-two-nodes" else 1):
            folder = tmp_path / str(number)
            folder.mkdir()
            file = configure(folder, store=store, upstreams=upstream("up", "openai", f"{up.url}/v1"))
            started.append(await stack.enter_async_context(running(file)))
        yield started


@pytest.mark.deadline(120)
async def test_500_at_once_against_credit_for_7_admit_exactly_7(
    nodes: list[Running], up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    # What one request holds: the refusals of a poor account say nothing, so ask a node that can pay.
    gw = nodes[0]
    rich = await gw.key("rich@example.com", "1.00")
    gate = asyncio.Event()
    up.on("*", scripted.wait(gate), scripted.answer(json=answers.openai_chat_reply("x", answers.openai_chat_usage(20, 7))))
    async with asyncio.TaskGroup() as group:
        probe = group.create_task(ask(http, gw, rich))
        await up.received()
        one = gw.app.ledger.totals().held
        gate.set()
        assert (await probe)[0] == 200
    gate.clear()
    already = len(up.requests)
    key = await gw.key("poor@example.com", format_usd(one * 7 + one // 2))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(http, nodes[number % len(nodes)], key)) for number in range(500)]
        await up.received(already + 7)
        while len(waiting := [task for task in asked if not task.done()]) > 7:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
    statuses = Counter(task.result()[0] for task in asked)
    assert statuses == {200: 7, 429: 493}
    assert len(up.requests) - already == 7
    errors = {json.loads(task.result()[1])["error"]["code"] for task in asked if task.result()[0] == 429}
    assert errors == {"credit_balance_exhausted"}
    for node in nodes:
        await node.app.ledger.flush()  # a node's records are there before its post is
    records = await gw.settled("poor@example.com", 7)
    assert len([record for record in records if record.cost]) == 7
    account = await gw.account("poor@example.com")
    assert account.spent == sum(record.cost for record in records) == 7 * (20 * 150 + 7 * 600)
    assert account.written_off == 0
    assert sum(node.app.ledger.totals().held for node in nodes) == 0


async def ask(http: aiohttp.ClientSession, gw: Running, key: str, **more: Any) -> tuple[int, bytes]:
    """One chat request: status and body."""
    async with http.post(gw.url + CHAT, json=BODY | more, headers={"authorization": f"Bearer {key}"}) as reply:
        return reply.status, await reply.read()


class Moody:
    """An upstream that does something else at every request, and remembers what each good answer should cost."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def __call__(self, call: Call) -> None:
        request = call.request.json()
        prompt, completion = self._random.randrange(1, 5000), self._random.randrange(1, 1000)
        usage = answers.openai_chat_usage(prompt, completion, cached=self._random.randrange(0, prompt))
        events = answers.openai_chat_events("one two three four", usage)
        mood = self._random.random()
        step: Any
        if mood < 0.08:
            step = scripted.answer(status=self._random.choice([400, 401, 429, 500]), json=answers.openai_error("no"))
        elif mood < 0.12:
            step = scripted.reset
        elif mood < 0.16:
            step = scripted.answer(body=b"nonsense", headers=[("content-type", "application/json")])
        elif request.get("stream") and mood < 0.24:
            step = scripted.event_stream(events[: self._random.randrange(1, 6)], end=self._random.random() < 0.5)
        elif request.get("stream"):
            step = scripted.event_stream(events)
        else:
            step = scripted.answer(json=answers.openai_chat_reply("one two three four", usage))
        await step(call)
        if step is not scripted.reset and mood >= 0.16 and mood < 0.24 and request.get("stream"):
            call.close()


@pytest.mark.deadline(300)
async def test_ten_thousand_mixed_requests_leave_books_that_add_up(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.gateway", "refuses our key")
    total, wide = 10_000, 64
    keys = [await gw.key(f"user{number}@example.com", "50.00") for number in range(5)]
    up.on("*", Moody(7))
    chance = random.Random(11)
    told: dict[str, str] = {}
    streamed: dict[str, tuple[int, int, int]] = {}
    statuses: Counter[int | str] = Counter()
    left = iter(range(total))

    async def one(number: int) -> None:
        stream, leave = chance.random() < 0.5, chance.random() < 0.06
        body = BODY | {"stream": stream} | ({"stream_options": {"include_usage": True}} if stream else {})
        headers = {"authorization": f"Bearer {keys[number % len(keys)]}"}
        try:
            async with http.post(gw.url + CHAT, json=body, headers=headers) as reply:
                statuses[reply.status] += 1
                if leave:
                    await reply.content.readany()
                    reply.close()
                    return
                text = await reply.read()
        except aiohttp.ClientError as error:
            statuses[type(error).__name__] += 1
            return
        request_id = reply.headers["x-request-id"]
        if (cost := reply.headers.get("x-aurixel-cost")) is not None:
            told[request_id] = cost
        if stream and reply.status == 200 and text.endswith(b"data: [DONE]\n\n"):
            last = json.loads(text.split(b"data: ")[-2])["usage"]
            cached = last["prompt_tokens_details"]["cached_tokens"]
            streamed[request_id] = (last["prompt_tokens"] - cached, cached, last["completion_tokens"])

    async def worker() -> None:
        for number in left:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(wide):
            group.create_task(worker())

    records = {}
    for number in range(5):
        email = f"user{number}@example.com"
        while True:  # until all that was settled is posted
            account = await gw.account(email)
            totals = gw.app.ledger.totals()
            if not totals.unposted and not totals.open:
                break
            await gw.app.ledger.flush()
        found = await gw.records(email)
        assert account.spent + account.written_off == sum(record.cost for record in found)
        assert account.written_off == 0
        records |= {record.request_id: record for record in found}
    assert len(records) == total
    assert gw.app.ledger.totals().held == 0
    assert len(told) > 4000
    assert len(streamed) > 3000
    for request_id, cost in told.items():
        assert parse_usd(cost) == records[request_id].cost
    for request_id, (plain, cached, output) in streamed.items():
        record = records[request_id]
        assert (record.cell, record.measured) == ("ok", True)
        assert record.cost == -(-(plain * 150_000_000 + cached * 75_000_000 + output * 600_000_000) // 1_000_000)
    report = await verify(gw.store)
    assert report.ok, report.faults
    print(statuses, Counter(record.cell for record in records.values()))
