"""The stores that ledger tests run on: all three where a store could matter, the plain model for the rest."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from aurixel.storage import Store
from aurixel.storage.mongo import MongoStore
from aurixel.storage.sqlite import SqliteStore
from tests.storage.model import MemoryStore


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    """An empty store, one for each implementation."""
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "store.db")
    else:
        made = MongoStore(request.getfixturevalue("mongodb_database"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def memory() -> MemoryStore:
    """The plain model of the store."""
    return MemoryStore()
