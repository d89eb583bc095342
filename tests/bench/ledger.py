"""What credit costs: the CPU of one request's hold, intent, settlement and posting, and the time a replay takes.

Each figure is from a process of its own, with the ledger as `aurixel serve` runs it on the embedded store, and no HTTP around
it. Run as `python -m tests.bench.ledger request ACCOUNTS ROUNDS` or `... replay ENTRIES`: prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from aurixel.clock import SystemClock
from aurixel.ledger import Intent, Ledger, LedgerSettings, Movements, NoMetrics, Settlement, verify
from aurixel.ledger.lines import FORMAT, Begun, Entry, Head, Settled, pack
from aurixel.ledger.recovery import Recovery
from aurixel.metrics import LedgerCounters
from aurixel.storage.sqlite import SqliteStore

CREDIT = 10**15
TOGETHER = 200
# A round of requests, then a pause as long as settlements gather: a thousand requests a second or a little less.
ROUND, PAUSE = 500, 0.5
INC = "bench" * 5 + "x"


def figures(bare_us: float, scale: int) -> dict[str, Any]:
    """Both figures; the first beside what the bare relay takes for a small request, in the same run."""
    found: dict[str, Any] = {}
    for accounts in (1, 20):
        took = run("request", accounts, max(20 // scale, 4))
        name = f"credit of a request, CPU us ({accounts} account{'s' if accounts > 1 else ''})"
        found[name] = {"bare": bare_us, "aurixel": took["us"], "ratio": took["us"] / bare_us}
    took = run("replay", 1_000_000 // scale)
    found[f"replay of {1_000_000 // scale} entries, s"] = {"aurixel": took["seconds"]}
    found["replay, peak RSS, MB"] = {"aurixel": took["mb"]}
    return found


def run(*words: object) -> dict[str, float]:
    """One figure, from a process of its own."""
    command = [sys.executable, "-m", "tests.bench.ledger", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def intent(number: int, account: str, at_ms: int) -> Intent:
    """A request as the gateway writes it down."""
    return Intent(
        request_id=f"req_{number:028d}",
        account=account,
        key_id="abcdefghijkl",
        model="bench-small",
        operation="chat",
        dialect="openai_chat",
        stream=False,
        client_ip="127.0.0.1",
        at_ms=at_ms,
        price_version=1,
    )


def settlement(at_ms: int) -> Settlement:
    """Its end."""
    return Settlement(
        cell="ok", measured=True, upstream="up", status=200, done_ms=at_ms, counts={"input": 12, "output": 8}, cost=6600
    )


async def accounts(store: SqliteStore, count: int) -> list[str]:
    """Rich accounts."""
    names = [f"acct{number:022d}" for number in range(count)]

    async def make(name: str) -> None:
        await store.account_new(name)
        await Movements(store, SystemClock()).apply(name, "bench", "grant", CREDIT, "bench", "bench")

    for start in range(0, count, TOGETHER):
        await asyncio.gather(*map(make, names[start : start + TOGETHER]))
    return names


async def request(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """CPU microseconds a request: all of this process's, its writer thread's and its idle looks included."""
    store, clock = SqliteStore(folder / "bench.db"), SystemClock()
    await store.open()
    names = await accounts(store, count)
    node = Ledger(store, LedgerSettings(journal=folder / "journal"), clock, "bench", LedgerCounters(CollectorRegistry()))
    await node.start()
    number = 0

    async def one_round() -> None:
        nonlocal number
        for _ in range(ROUND):
            number += 1
            wanted = intent(number, names[number % count], clock.wall_ms())
            async with node.hold(wanted, 2_500_000, 100_000) as hold:
                await hold.settle(settlement(clock.wall_ms()))
        await asyncio.sleep(PAUSE)

    for _ in range(3):
        await one_round()
    started = time.process_time()
    for _ in range(rounds):
        await one_round()
    spent = time.process_time() - started
    await node.stop()
    await store.close()
    return {"us": spent / (rounds * ROUND) * 1e6}


async def replay(folder: Path, entries: int) -> dict[str, float]:
    """Seconds to read a journal and post all of it: the worst there is, of which nothing was posted before."""
    store, clock = SqliteStore(folder / "bench.db"), SystemClock()
    await store.open()
    names = await accounts(store, 1000)
    await store.node_start(INC, "bench")

    async def lease(name: str) -> None:
        doc = await store.account_read(name)
        assert doc is not None
        assert await store.lease_open(name, INC, doc.ver, 10**12, 0)

    for start in range(0, len(names), TOGETHER):
        await asyncio.gather(*map(lease, names[start : start + TOGETHER]))
    write(folder / "journal", a_life(entries // 2, names))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    recovery = Recovery("y" * 26, store, LedgerSettings(journal=folder / "journal"), clock, NoMetrics())
    (done,) = await recovery.all([INC])
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert done.requests == entries // 2
    report = await verify(store)
    assert report.ok, report.faults
    await store.close()
    return {"seconds": seconds, "cpu": cpu, "mb": peak / 1e3, "mb_before": before / 1e3}


def a_life(requests: int, names: list[str]) -> Iterator[Entry]:
    """Requests that came one after another, of many accounts, and ended."""
    at_ms = 1_764_000_000_000
    for number in range(requests):
        wanted = intent(number, names[number % len(names)], at_ms + number)
        yield wanted
        yield Settled(wanted.request_id, settlement(at_ms + number + 500))


def write(journal: Path, entries: Iterator[Entry]) -> None:
    """A journal of one segment."""
    (journal / INC).mkdir(parents=True)
    crc = 0
    with open(journal / INC / "00000001.log", "wb") as file:
        for beginning in (Head(FORMAT, INC, 1), Begun(0)):
            line, crc = pack(beginning, crc)
            file.write(line)
        for entry in entries:
            line, crc = pack(entry, crc)
            file.write(line)


def main(what: str, *numbers: int) -> dict[str, float]:
    """Measure one thing."""
    with tempfile.TemporaryDirectory(prefix="aurixel-bench-") as folder:
        work = request(Path(folder), *numbers) if what == "request" else replay(Path(folder), *numbers)
        return uvloop.run(work)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
