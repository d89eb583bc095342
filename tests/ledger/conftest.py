"""The stores that ledger tests run on: all three where a store could matter, the plain model for the rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from aurixel.ledger import journal
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


class Inline(Executor):
    """Does at once what a thread would do soon."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*args, **kwargs))
        return future


async def _inline(call: Any, *args: Any) -> Any:
    return call(*args)


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that start hundreds of nodes and cut them short: what threads and fsyncs add is not what they are about."""
    monkeypatch.setattr(journal, "ThreadPoolExecutor", lambda *_, **__: Inline())
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(asyncio, "to_thread", _inline)


@pytest.fixture
def memory() -> MemoryStore:
    """The plain model of the store."""
    return MemoryStore()
