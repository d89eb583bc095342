"""What ledger tests are made of: a clock to turn, tiny durations, intents, endings, a crash, and accounts with credit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from aurixel.errors import StoreUnavailable
from aurixel.ledger import Intent, Ledger, LedgerSettings, Movements, NoMetrics, Settlement
from aurixel.ledger.liveness import Watch
from aurixel.ledger.node import _cancel
from aurixel.storage import AccountDoc, Store, UsageRecord, usage_stream

_numbers = itertools.count(1)
HOUR_MS = 3_600_000


class TestClock:
    """A clock that stands still until it is turned."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.ms

    def boot(self) -> float:
        return self.seconds


# Nothing happens by itself: a test does the rounds it means to. The waits are short, for the requests that must wait.
STILL = LedgerSettings(
    journal=Path("unset"),
    fsync_interval=0.001,
    post_every=3600,
    want_look=3600,
    beat_every=3600,
    sweep_every=3600,
    idle_return=3600,
    admit_within=75,
    dead_after=120,
    reclaim_after=60,
    recall_wait=0.05,
    recall_look=0.005,
    lease_target=1000,
    start_within=5,
    stop_within=5,
)
# Everything happens by itself, soon.
BRISK = msgspec.structs.replace(
    STILL, post_every=0.005, want_look=0.01, beat_every=0.05, sweep_every=0.02, idle_return=0.02, recall_wait=2.0
)


def settings(journal: Path, like: LedgerSettings = STILL, **changes: Any) -> LedgerSettings:
    return msgspec.structs.replace(like, journal=journal, **changes)


def ledger(store: Store, journal: Path, like: LedgerSettings = STILL, clock: TestClock | None = None, **changes: Any) -> Ledger:
    return Ledger(store, settings(journal, like, **changes), clock or TestClock(), "test", NoMetrics())


def intent(account: str = "a", request_id: str | None = None, **changes: Any) -> Intent:
    values = {
        "request_id": request_id or f"r{next(_numbers):08d}",
        "account": account,
        "key_id": "k1",
        "model": "m1",
        "operation": "chat",
        "dialect": "d",
        "stream": False,
        "client_ip": "192.0.2.1",
        "at_ms": 500 * HOUR_MS,
        "price_version": 1,
    }
    return Intent(**{**values, **changes})


def ending(cost: int, cell: str = "ok", **counts: int) -> Settlement:
    return Settlement(
        cell=cell, measured=True, upstream="u", status=200, done_ms=500 * HOUR_MS + 5, counts=counts or {"input": 1}, cost=cost
    )


async def fund(store: Store, account: str, amount: int) -> None:
    """A new account with this credit."""
    assert await store.account_new(account)
    if amount:
        await Movements(store, TestClock()).apply(account, "first", "grant", amount, "a test", "test")


async def crash(node: Ledger) -> None:
    """What `kill -9` leaves of a ledger: no task, no lock, no open file; what it wrote is with the kernel."""
    tasks = [*node._tasks, *([node._supervisor] if node._supervisor else [])]
    await _cancel(tasks)
    node._tasks, node._supervisor = [], None
    if node._books is not None and not node._books.journal.failed:
        node._books.journal.drop()
    node._unlock()


def watch_of(node: Ledger) -> Watch:
    """What this node sees of the others when a test looks, every 5 s of its clock; it does not look by itself."""
    books = node._open_books()
    books.settings = msgspec.structs.replace(books.settings, beat_every=5)
    return Watch(books)


async def account(store: Store, name: str = "a") -> AccountDoc:
    doc = await store.account_read(name)
    assert doc is not None
    return doc


async def records(store: Store, name: str = "a") -> dict[str, UsageRecord]:
    return {record.request_id: record async for record in usage_stream(store, name)}


async def request(node: Ledger, cost: int, want: int, name: str = "a", request_id: str | None = None) -> None:
    """One whole request."""
    async with node.hold(intent(name, request_id), want, want) as hold:
        await hold.settle(ending(cost))


async def until(step: Callable[[], Awaitable[Any]], tries: int = 200) -> Any:
    """Do it again while the store gives no answer."""
    for _ in range(tries):
        try:
            return await step()
        except StoreUnavailable:
            continue
    raise AssertionError("the store never answered")


async def eventually(condition: Callable[[], Awaitable[bool]], deadline_s: float = 10) -> None:
    """Let the ledger's tasks run until this is so."""
    async with asyncio.timeout(deadline_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0)
