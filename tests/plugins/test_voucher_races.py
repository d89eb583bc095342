"""Pitfall 15, "a voucher claimed twice at once", on both stores: in one process, from two stores, and from two processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aurixel_vouchers import Vouchers, VouchersSettings
from aurixel_vouchers.records import vouchers

from aurixel.clock import SystemClock
from aurixel.plugin import CodeRefused, Redeemed, Secret
from aurixel.storage import open_store
from aurixel.storage.shelf import StoreShelf
from aurixel.testing.host import PluginHost

ROOT = Path(__file__).parents[2]
FIVE = 5 * 10**9
MANY = 200


@pytest.fixture(params=["sqlite", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("mongodb_database"))


@asynccontextmanager
async def desk(url: str) -> AsyncIterator[Vouchers]:
    """A backend on a store of its own."""
    store = open_store(url)
    await store.open()
    try:
        host = PluginHost(shelf=StoreShelf(store, "vouchers"))
        host.clock = SystemClock()  # type: ignore[assignment] - processes must agree
        yield Vouchers(VouchersSettings(), host)
    finally:
        await store.close()


async def redeem(backend: Vouchers, account: str, code: Secret) -> Redeemed | str:
    try:
        return await backend.redeem(account, code)
    except CodeRefused as refused:
        return refused.code


async def owner(backend: Vouchers, id: str) -> str:
    """Whose code it is, as the store has it."""
    (kept,) = [one async for name, one in vouchers(backend.shelf) if name == id]
    assert kept.redeemed is not None
    return kept.redeemed.account


@pytest.mark.deadline(120)
async def test_pitfall_15_a_voucher_claimed_twice_at_once(url: str) -> None:
    """Hundreds of accounts through two stores: one has it, the others hear that it is not valid."""
    async with AsyncExitStack() as exits:
        both = [await exits.enter_async_context(desk(url)) for _ in range(2)]
        _, (code,) = await both[0].make(FIVE, 1, "ops")
        accounts = [f"account-{number}" for number in range(MANY)]
        answers = await asyncio.gather(
            *(redeem(both[number % 2], account, code.text) for number, account in enumerate(accounts))
        )
        winners = [account for account, answer in zip(accounts, answers, strict=True) if isinstance(answer, Redeemed)]
        assert winners == [await owner(both[0], code.id)]
        assert sorted(map(str, answers)).count("invalid") == MANY - 1


async def test_pitfall_15_by_one_account_twice_at_once_is_one_payment(url: str) -> None:
    """A double click: both hear yes, and the same payment, which is one movement."""
    async with desk(url) as one, desk(url) as other:
        _, (code,) = await one.make(FIVE, 1, "ops")
        answers = await asyncio.gather(*(redeem((one, other)[number % 2], "a", code.text) for number in range(8)))
        assert set(answers) == {Redeemed(payment=code.id, amount=FIVE)}


PROCESS = f"""
import asyncio, json, sys
from tests.plugins.test_voucher_races import desk, redeem
from aurixel.plugin import Redeemed, Secret

async def main():
    url, code, name = json.loads(sys.stdin.readline())
    async with desk(url) as backend:
        print("ready", flush=True)
        sys.stdin.readline()
        accounts = [f"{{name}}-{{number}}" for number in range({MANY})]
        answers = await asyncio.gather(*(redeem(backend, account, Secret(code)) for account in accounts))
        print(json.dumps([a for a, answer in zip(accounts, answers, strict=True) if isinstance(answer, Redeemed)]))

asyncio.run(main())
"""


@pytest.mark.deadline(180)
async def test_pitfall_15_from_two_processes(url: str) -> None:
    async with desk(url) as backend:
        _, (code,) = await backend.make(FIVE, 1, "ops")
        processes = [await started(url, code.text.reveal(), name) for name in "xy"]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        winners: list[str] = [account for out, _ in outs for account in json.loads(out)]
        assert winners == [await owner(backend, code.id)]


async def started(url: str, code: str, name: str) -> asyncio.subprocess.Process:
    pipe: Any = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, stdin=pipe, stdout=pipe, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(json.dumps([url, code, name]).encode() + b"\n")
    return process
