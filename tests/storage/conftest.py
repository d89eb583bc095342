"""The stores under test. `place` is where data lives, `store` an open store there; both run once for each implementation."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pymongo
import pytest
from msgspec.structs import replace

from aurixel.storage import Store, open_store
from tests.storage.model import MemoryStore


class Place(Protocol):
    """Where a store keeps its data: `make()` gives a store there, not yet opened, any number of times."""

    kind: str

    def make(self) -> Store: ...

    def age(self, inc: str, ms: int) -> None:
        """Let the node's last change of state be this much longer ago: a day cannot be waited for."""


class MemoryPlace:
    kind = "memory"

    def __init__(self) -> None:
        self.store = MemoryStore()

    def make(self) -> Store:
        return self.store

    def age(self, inc: str, ms: int) -> None:
        node = self.store.node_docs[inc]
        self.store.node_docs[inc] = replace(node, since_ms=node.since_ms - ms)


class SqlitePlace:
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def make(self) -> Store:
        return open_store(self.url)

    def age(self, inc: str, ms: int) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("UPDATE nodes SET since_ms = since_ms - ? WHERE inc = ?", (ms, inc))


class MongoPlace:
    kind = "mongo"

    def __init__(self, url: str) -> None:
        self.url = url

    def make(self) -> Store:
        return open_store(self.url)

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """The driver without a store, for what a test must see or break."""
        return pymongo.MongoClient(self.url, tz_aware=True, serverSelectionTimeoutMS=5_000)

    def age(self, inc: str, ms: int) -> None:
        with self.client() as client:
            nodes = client.get_default_database()["nodes"]
            since: datetime = nodes.find_one({"_id": inc})["since"].astimezone(UTC)  # type: ignore[index]
            nodes.update_one({"_id": inc}, {"$set": {"since": since - timedelta(milliseconds=ms)}})


@pytest.fixture
def sqlite_place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "store.db")


@pytest.fixture
def mongo_place(mongodb_database: str) -> MongoPlace:
    return MongoPlace(mongodb_database)


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return MemoryPlace()
    return request.getfixturevalue(f"{request.param}_place")  # type: ignore[no-any-return]


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.make()
    await store.open()
    yield store
    await store.close()
