"""How long the books take to prove: a store with a million usage records, and `ledger verify` over it in a process of its own.

`python -m tests.bench.books [--records N] [--accounts N]... [--store URL]` prints the seconds; `make bench` does both shapes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aurixel.catalog import Catalogue, PriceBook, StoredCatalogue, StoredModel, StoredPrice
from aurixel.catalog.snapshot import Route
from aurixel.clock import SystemClock
from aurixel.ledger.frames import HOUR_MS
from aurixel.storage import Movement, Post, RollupAdd, Store, UsageRecord, open_store

RATES = {"input": 150_000_000, "cache_read": 75_000_000, "output": 600_000_000}
MODELS, KEYS = ("small", "large"), ("k1", "k2", "k3")
SINCE_HOUR = 490_000
DAYS = 90
FRAME = 2000
INC = "benchbenchbenchbenchbenchb"


async def build(store: Store, accounts: int, records: int) -> None:
    """`records` in all, spread evenly over the accounts and over `DAYS`, posted as nodes post them."""
    model = StoredModel(operations=["chat"], context=1000, max_output=100, routes=[Route("demo", "demo")])
    prices = [StoredPrice(model=name, effective_ms=0, rates=RATES) for name in MODELS]
    await Catalogue(store, SystemClock()).publish(StoredCatalogue(models=dict.fromkeys(MODELS, model), prices=prices), "bench")
    for number in range(accounts):
        account, each = f"account{number:06d}", records // accounts
        await open_account(store, account)
        for frame in frames(account, each):
            await store.post(*frame)
        doc = await store.account_read(account)
        assert doc is not None
        lease = doc.leases[INC]
        await store.lease_close(account, INC, doc.ver, lease.amount, lease.seq)


async def open_account(store: Store, account: str) -> None:
    """Credit enough for everything, all of it leased."""
    credit = 2**50
    await store.account_new(account)
    given = Movement(account=account, n=1, id="first", kind="grant", amount=credit, at_ms=0, reason="bench")
    await store.movement_put(given)
    await store.movement_apply(account, 1, credit, credit, 0)
    await store.movement_close(account, 1, credit)
    await store.lease_open(account, INC, 0, credit, 0)


def frames(account: str, count: int) -> Iterator[tuple[list[UsageRecord], list[RollupAdd], list[Post]]]:
    """The account's records, up to a frame's worth at a time, with their sums and their post."""
    price, span_ms = PriceBook(version=1, effective_ms=0, rates=RATES), DAYS * 24 * HOUR_MS
    for s, start in enumerate(range(0, count, FRAME), 1):
        records, sums = [], dict[tuple[int, str, str], dict[str, int]]()
        for number in range(start, min(start + FRAME, count)):
            at_ms = SINCE_HOUR * HOUR_MS + number * span_ms // count
            counts = {"input": 200 + number % 900, "cache_read": number % 50, "output": 1 + number % 700}
            model, key_id = MODELS[number % len(MODELS)], KEYS[number % len(KEYS)]
            record = UsageRecord(
                request_id=f"{account}-{number:09d}",
                account=account,
                inc=INC,
                s=s,
                key_id=key_id,
                model=model,
                upstream="demo",
                operation="chat",
                dialect="openai_chat",
                stream=True,
                client_ip="192.0.2.1",
                at_ms=at_ms,
                done_ms=at_ms + 900,
                cell="ok",
                measured=True,
                status=200,
                counts=counts,
                cost=price.charge(counts),
                price_version=1,
            )
            records.append(record)
            bucket = sums.setdefault((at_ms // HOUR_MS, model, key_id), {"requests": 0, "cost": 0})
            for unit, n in (("requests", 1), ("cost", record.cost), *counts.items()):
                bucket[unit] = bucket.get(unit, 0) + n
        rollups = [
            RollupAdd(account=account, hour=hour, model=model, key_id=key_id, inc=INC, s=s, sums=bucket)
            for (hour, model, key_id), bucket in sums.items()
        ]
        cost = sum(record.cost for record in records)
        yield records, rollups, [Post(account=account, inc=INC, prev=s - 1, s=s, lease=cost, available=0, written_off=0)]


async def build_at(url: str, accounts: int, records: int) -> float:
    """Fill the store at `url`; the seconds it took."""
    store, began = open_store(url), time.monotonic()
    await store.open()
    try:
        await build(store, accounts, records)
    finally:
        await store.close()
    return time.monotonic() - began


def verified(folder: Path, url: str, *options: str) -> float:
    """The seconds of one `aurixel ledger verify`, start of the process included; it must find nothing."""
    config = folder / "aurixel.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    command = [sys.executable, "-m", "aurixel", "ledger", "verify", "--config", str(config), "--json", *options]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    took = time.monotonic() - began
    if done.returncode or not json.loads(done.stdout)["ok"]:
        raise SystemExit(f"the bench's books do not add up: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


def measure(records: int, shapes: tuple[int, ...] = (1, 1000), url: str = "") -> dict[str, float]:
    """Figures by name, in seconds: each shape is how many accounts share the records."""
    figures = {}
    for accounts in shapes:
        with tempfile.TemporaryDirectory(prefix="aurixel-bench-") as name:
            folder = Path(name)
            place = url or f"sqlite:///{folder / 'store.db'}"
            shape = f"{records:,} records, {accounts:,} account{'s' if accounts > 1 else ''}"
            figures[f"build {shape}, s"] = asyncio.run(build_at(place, accounts, records))
            figures[f"verify {shape}, s"] = verified(folder, place)
            figures[f"verify --quick {shape}, s"] = verified(folder, place, "--quick")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.books", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, action="append", help="a shape; may be given again (1 and 1000 unless said)")
    parser.add_argument("--store", default="", help="a store of its own for one shape, empty: a MongoDB URL, say")
    options = parser.parse_args()
    show(measure(options.records, tuple(options.accounts or (1, 1000)), options.store))


def show(figures: dict[str, float]) -> None:
    """The table."""
    for name, seconds in figures.items():
        print(f"{name:60}{seconds:8.2f}")


if __name__ == "__main__":
    main()
