"""What tests of several gateway processes share: a fleet on one store, its accounts and keys, and what its pages say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from aurixel.app import App
from aurixel.config import load
from aurixel.ledger.verify import verify
from aurixel.storage import AccountDoc, Store, UsageRecord
from aurixel.testing import answers
from tests.flow.gateway import OPENAI_BODY, Running
from tests.flow.process import GatewayProcess

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = OPENAI_BODY | {"max_tokens": 1000}
REPLY = answers.openai_chat_reply("x", answers.openai_chat_usage(20, 7))
COST = 20 * 150 + 7 * 600
# Nodes that find each other dead within seconds. They must hold on a loaded machine: a beat may come late by a second.
TIMING = "[ledger.timing]\nbeat = 0.5\nadmit_within = 2\ndead_after = 4\nreclaim_after = 0.5\nsweep = 0.25\n"


class Books:
    """The store behind a fleet, as an operator sees it: opened in the test's own process, and no node."""

    def __init__(self, gw: Running) -> None:
        self.store: Store = gw.store
        self.key = gw.key
        self.account = gw.account
        self.records = gw.records

    async def at_rest(self, count: int, email: str = "a@example.com") -> tuple[AccountDoc, dict[str, UsageRecord]]:
        """The account and its records, once there are `count` and no node has a lease; then the books add up."""

        async def rests() -> bool:
            return len(await self.records(email)) >= count and not (await self.account(email)).leases

        await until(rests)
        account = await self.account(email)
        records = {record.request_id: record for record in await self.records(email)}
        report = await verify(self.store)
        assert report.ok, report.faults
        assert account.spent + account.written_off == sum(record.cost for record in records.values())
        return account, records


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again, as the test's deadline allows."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0)


async def make_key(file: Path, usd: str = "10.00", email: str = "a@example.com") -> str:
    """A key with credit, made beside whatever runs."""
    async with books(file) as store:
        return await store.key(email, usd)


@asynccontextmanager
async def books(file: Path) -> AsyncIterator[Books]:
    """The books behind a configuration."""
    app = App(load(file))
    await app.store.open()
    try:
        yield Books(Running(app))
    finally:
        await app.store.close()


async def ask(url: str, key: str, **more: Any) -> tuple[int, bytes, Mapping[str, str]]:
    """One chat request on a connection of its own, so that the kernel chooses who takes it: status, body, headers."""
    async with (
        aiohttp.ClientSession() as alone,
        alone.post(url + CHAT, json=BODY | more, headers={"authorization": f"Bearer {key}"}) as reply,
    ):
        return reply.status, await reply.read(), reply.headers


async def get(url: str) -> tuple[int, bytes]:
    """A page of the ops port."""
    async with aiohttp.ClientSession() as alone, alone.get(url) as reply:
        return reply.status, await reply.read()


async def samples(process: GatewayProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What `/metrics` says now: (name, labels) -> value."""
    _, page = await get(process.ops_url + "/metrics")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def metric(process: GatewayProcess, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(value for (found, _), value in (await samples(process)).items() if found == name)
