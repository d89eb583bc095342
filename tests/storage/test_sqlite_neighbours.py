"""Several processes that write one SQLite file as fast as they can, with hardly any patience: one that does not get its turn
is told so and nothing else happens; what was answered is there, once; and no call is torn."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aurixel.storage.sqlite import SqliteStore
from tests.harness.process import Server
from tests.storage.samples import funded

WRITERS, FRAMES = 4, 150
# Each posts frames of two records under a lease of its own, and sends again what gets no answer, as the ledger does.
WRITER = """
import asyncio, json, sys
from aurixel.errors import StoreUnavailable
from aurixel.storage.sqlite import SqliteStore
from tests.storage.samples import post, record, rollup

async def main(path, inc, frames):
    store = SqliteStore(path, patience=0.002)
    while True:
        try:
            await store.open()
            break
        except StoreUnavailable:
            pass
    print("open", flush=True)
    silences = 0
    for s in range(1, frames + 1):
        records = [record(f"{inc}-{s}-{n}", cost=2, s=s, inc=inc) for n in range(2)]
        sums = [rollup(s=s, inc=inc, sums={"requests": 2, "cost": 4})]
        while True:
            try:
                await store.post(records, sums, [post(prev=s - 1, s=s, lease=3, available=1, inc=inc)])
                break
            except StoreUnavailable:
                silences += 1
    await store.close()
    print(json.dumps(silences), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.deadline(180)
async def test_writers_that_wait_for_each_other_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await funded(store, "a", WRITERS * FRAMES * 4 + 100)
    incs = [f"n{number}" for number in range(WRITERS)]
    for ver, inc in enumerate(incs):
        assert await store.lease_open("a", inc, ver, FRAMES * 3, 0)
    servers = [
        Server([sys.executable, "-c", WRITER, str(path), inc, str(FRAMES)], cwd=Path(__file__).parents[2]) for inc in incs
    ]
    try:
        for server in servers:
            assert server.line(60) == "open"
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")  # longer than their patience: nobody gets through without a silence
            await asyncio.to_thread(lambda: [other_waits(path) for _ in range(5)])
            other.execute("ROLLBACK")
        silences = [json.loads(await asyncio.to_thread(server.line, 120)) for server in servers]
    finally:
        for server in servers:
            server.stop()
    assert sum(silences) > 0, "nobody had to wait"
    doc = await store.account_read("a")
    assert doc is not None
    assert (doc.spent, doc.written_off, doc.available) == (WRITERS * FRAMES * 4, 0, 100)
    assert {inc: (lease.amount, lease.seq) for inc, lease in doc.leases.items()} == dict.fromkeys(incs, (0, FRAMES))
    assert await store.usage_cost("a") == doc.spent
    (line,) = await store.usage_sums("a", 0, "model")
    assert line.sums == {"requests": WRITERS * FRAMES * 2, "cost": doc.spent}
    await store.close()


def other_waits(path: Path) -> None:
    """A writer that is refused after ten milliseconds: so long the lock is held at least."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.01)) as connection, pytest.raises(sqlite3.Error):
        connection.execute("BEGIN IMMEDIATE")
