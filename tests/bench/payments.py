"""How long a webhook takes from its first byte to its 200, through a whole gateway on SQLite, at a steady rate.

The gateway is a process of its own; the backend is the tests' own `acme`; each webhook pays another order, so that each is
two changes of the order, a movement and a receipt, all durable before the answer.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from aurixel.ledger import verify
from aurixel.payments import CENT
from aurixel.storage import open_store
from tests.bench.gateway import CONF, serving
from tests.payments.acme import block, install, signed
from tests.payments.kit import begun, paid, person

ACCOUNTS = 20


def figures(count: int, rate: float = 100.0) -> dict[str, Any]:
    """Milliseconds: median, 99th percentile and the longest; and whether every webhook was credited exactly once."""
    with tempfile.TemporaryDirectory(prefix="aurixel-bench-payments-") as name:
        folder = Path(name)
        install(folder / "site")
        text = CONF.format(folder=folder, upstream=1).replace('"limits"]', '"limits", "acme"]')
        text = text.replace("[server]\n", '[server]\npublic_url = "https://bench.test"\n')
        (folder / "aurixel.toml").write_text(text + block(folder))
        (folder / "models.toml").write_text("")
        (folder / "prices.toml").write_text("")
        env = {
            **os.environ,
            "AURIXEL_CONFIG": str(folder / "aurixel.toml"),
            "AURIXEL_BENCH_SECRET": "bench-0123456789-abcdefghijklmnop",
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.getcwd()]),
        }
        url = f"sqlite:///{folder}/aurixel.db"
        asyncio.run(_prepare(url, count))
        process = subprocess.Popen([sys.executable, "-m", "aurixel", "serve"], env=env, stderr=subprocess.PIPE, text=True)
        try:
            port = serving(process)
            before = sum(psutil.Process(process.pid).cpu_times()[:2])
            times = asyncio.run(_load(port, count, rate))
            cpu = sum(psutil.Process(process.pid).cpu_times()[:2]) - before
        finally:
            process.terminate()
            process.wait(60)
        asyncio.run(_prove(url, count))
    times.sort()
    return {
        "webhooks a second": rate,
        "webhooks": count,
        "ms p50": times[count // 2],
        "ms p99": times[min(count - 1, count * 99 // 100)],
        "ms max": times[-1],
        "CPU ms": cpu / count * 1e3,
    }


async def _prepare(url: str, count: int) -> None:
    store = open_store(url)
    await store.open()
    for number in range(ACCOUNTS):
        await person(store, f"a{number}")
    for number in range(count):
        await begun(store, f"o{number}", f"a{number % ACCOUNTS}")
    await store.close()


async def _load(port: int, count: int, rate: float) -> list[float]:
    """Begun by the clock, whether those before are answered or not."""
    times: list[float] = []

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body, headers = signed(paid(f"o{number}", f"p{number}"))
        began = time.perf_counter()
        async with session.post(f"http://127.0.0.1:{port}/webhooks/acme", data=body, headers=headers) as reply:
            await reply.read()
            if reply.status != 200:
                raise SystemExit(f"a webhook was answered {reply.status}")
        times.append((time.perf_counter() - began) * 1e3)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        start = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            group.create_task(one(session, number))
    return times


async def _prove(url: str, count: int) -> None:
    store = open_store(url)
    await store.open()
    docs = [await store.account_read(f"a{number}") for number in range(ACCOUNTS)]
    credited = sum(doc.credited for doc in docs if doc is not None)
    report = await verify(store)
    await store.close()
    if credited != count * 1000 * CENT or not report.ok:
        raise SystemExit("the webhooks were not credited exactly once")


def show(found: dict[str, Any]) -> None:
    """One line."""
    times = ", ".join(f"{name} {found[f'ms {name}']:.1f} ms" for name in ("p50", "p99", "max"))
    rate, cpu = found["webhooks a second"], found["CPU ms"]
    print(f"\n{found['webhooks']} webhooks at {rate:.0f} a second: {times}, {cpu:.2f} ms of CPU each")


if __name__ == "__main__":
    show(figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3000))
