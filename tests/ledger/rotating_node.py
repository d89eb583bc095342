"""A node in a process of its own that is to be killed: requests without end, segments of a few lines, each end told.

Run as `python -m tests.ledger.rotating_node FOLDER`: prints the id of every request once its settlement is journaled.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from aurixel.clock import SystemClock
from aurixel.ledger import Ledger, NoMetrics
from aurixel.ledger.folder import new_inc
from aurixel.storage.sqlite import SqliteStore
from tests.ledger.kit import BRISK, ending, fund, intent, settings

SEGMENT = 2000
COST = 3


async def main(folder: Path) -> None:
    """Until the end."""
    store = SqliteStore(folder / "store.db", patience=30)
    await store.open()
    if await store.account_read("a") is None:
        await fund(store, "a", 10**9)
    node = Ledger(store, settings(folder / "journal", BRISK, segment=SEGMENT), SystemClock(), "test", NoMetrics())
    await node.start()

    async def client() -> None:
        while True:
            request_id = f"r{new_inc()}"
            async with node.hold(intent("a", request_id), 10, 10) as hold:
                await asyncio.sleep(0)
                await hold.settle(ending(COST))
            print(request_id, flush=True)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client())


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
