"""The test server does what our store will ask of any MongoDB, through Motor; and the file-backed one survives a crash."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import motor.motor_asyncio
import pymongo
import pymongo.errors
import pytest

from tests.harness.require import require
from tests.mongodb.fixture import MISSING, java_server


@pytest.fixture
async def database(mongodb_database: str) -> AsyncIterator[motor.motor_asyncio.AsyncIOMotorDatabase]:
    client = motor.motor_asyncio.AsyncIOMotorClient(mongodb_database)
    yield client.get_default_database()
    client.close()


async def test_one_guarded_update_wins_at_a_time(database):
    accounts = database.get_collection("accounts", write_concern=pymongo.WriteConcern("majority", j=True))
    await accounts.insert_one({"_id": "a", "available": 10})

    async def draw():
        guard = {"_id": "a", "available": {"$gte": 1}}
        return await accounts.find_one_and_update(guard, {"$inc": {"available": -1}}, return_document=True)

    after = await asyncio.gather(*(draw() for _ in range(50)))
    assert sorted(doc["available"] for doc in after if doc) == list(range(10))


async def test_a_unique_index_refuses_the_second(database):
    await database.keys.create_index([("account", 1), ("name", 1)], unique=True)
    await database.keys.insert_one({"account": "a", "name": "n"})
    with pytest.raises(pymongo.errors.DuplicateKeyError):
        await database.keys.insert_one({"account": "a", "name": "n"})


async def test_bulk_upserts_are_idempotent(database):
    records = [pymongo.UpdateOne({"_id": n}, {"$setOnInsert": {"cost": n}}, upsert=True) for n in range(100)]
    for _ in range(2):
        await database.usage.bulk_write(records, ordered=False)
    [total] = await database.usage.aggregate([{"$group": {"_id": None, "cost": {"$sum": "$cost"}}}]).to_list(None)
    assert total["cost"] == sum(range(100))


def test_the_file_backed_server_survives_a_restart(tmp_path: Path):
    require(shutil.which("javac") and shutil.which("mvn"), "mongodb", MISSING)
    for expected in (0, 1):
        server, url = java_server(tmp_path / "store.mv")
        with server, pymongo.MongoClient(url) as client:
            assert client.db.things.count_documents({}) == expected
            client.db.things.insert_one({"_id": expected})
