"""The stores that tests of payments run on, with one account in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from aurixel.storage import Store
from aurixel.storage.mongo import MongoStore
from aurixel.storage.sqlite import SqliteStore
from tests.payments.kit import person
from tests.storage.model import MemoryStore


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    """Each store, with the accounts a and b."""
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "store.db")
    else:
        made = MongoStore(request.getfixturevalue("mongodb_database"))
    await made.open()
    for account in "ab":
        await person(made, account)
    yield made
    await made.close()


@pytest.fixture
async def memory() -> MemoryStore:
    """The plain model of the store, with the accounts a and b."""
    made = MemoryStore()
    for account in "ab":
        await person(made, account)
    return made
