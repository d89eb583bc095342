"""What only the store behind a network can get wrong: what goes over the wire, and wires that are cut."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pymongo.monitoring
import pytest
from bson.int64 import Int64
from pymongo.errors import BulkWriteError

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.storage import Lease, ShelfDoc, Store, mongo, open_store
from aurixel.storage.mongo import INDEXES, MongoStore
from tests.storage.conftest import MongoPlace
from tests.storage.proxy import Proxy, proxy
from tests.storage.samples import every_call, funded, leased, movement, post, read, record, rollup


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[MongoStore]:
    store = MongoStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# --- opening --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mongodb://u:pa/ss@h/x", "mongodb://", "mongodb://h:port/x", "mongodb://h/x?tls=maybe"])
async def test_a_url_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_store(url).open()
    assert caught.value.place == "store.url"
    assert "ss@h" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "motor", None)
    monkeypatch.setitem(sys.modules, "motor.motor_asyncio", None)
    monkeypatch.delitem(sys.modules, "aurixel.storage.mongo")
    monkeypatch.delattr("aurixel.storage.mongo")
    with pytest.raises(ConfigError, match=r"aurixel\[mongo\]"):
        open_store("mongodb://127.0.0.1/x")


async def test_a_newer_store_is_refused(mongo_place: MongoPlace) -> None:
    async with opened(mongo_place.url):
        pass
    with mongo_place.client() as client:
        client.get_default_database()["meta"].update_one({"_id": "schema"}, {"$inc": {"version": 1}})
    with pytest.raises(ConfigError, match=f"schema {mongo.SCHEMA + 1}, this Aurixel knows up to {mongo.SCHEMA}") as caught:
        await MongoStore(mongo_place.url).open()
    assert caught.value.code == "store_too_new"


async def test_the_indexes_are_there(mongo_place: MongoPlace) -> None:
    async with opened(mongo_place.url), opened(mongo_place.url):
        pass
    with mongo_place.client() as client:
        database = client.get_default_database()
        for name, indexes in INDEXES.items():
            there = {tuple(key for key, _ in index["key"]) for index in database[name].index_information().values()}
            assert {tuple(index.document["key"]) for index in indexes} <= there, name


async def test_a_url_without_a_database_means_aurixel(mongodb_url: str) -> None:
    async with opened(mongodb_url) as store:
        assert store._database is not None
        assert store._database.name == "aurixel"


# --- what goes over the wire ----------------------------------------------------------------------------------------------


class Listener(pymongo.monitoring.CommandListener):
    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None: ...
    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
async def wire(mongo_place: MongoPlace) -> list[dict[str, Any]]:
    """Every command of a pass over all operations, after opening."""
    listener = Listener()
    async with opened(f"{mongo_place.url}?retryWrites=true", listeners=[listener]) as store:
        listener.commands.clear()
        await every_call(store)
    assert len(listener.commands) > 50
    return listener.commands


WRITES = ("insert", "update", "findAndModify", "delete")
READS = ("find", "aggregate", "distinct", "count")
NOT_SHARDED = {"meta", "nodes", "profiles", "keys", "catalogue", "orders", "receipts"}
# A start-up count, a list of a dozen, and the newest of a handful.
READ_WHOLE = [("keys", ("revoked_ms",)), ("nodes", ()), ("catalogue", ()), ("receipts", ())]


def filters(commands: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any], list[str]]]:
    """(command, collection, filter, fields sorted by) of everything that looks for documents."""
    for command in commands:
        name = next(iter(command))
        if name == "find":
            yield name, command[name], command["filter"], list(command.get("sort", {}))
        elif name == "aggregate":
            yield name, command[name], command["pipeline"][0]["$match"], []
        elif name == "findAndModify":
            yield name, command[name], command["query"], []
        elif name == "update":
            for one in command["updates"]:
                yield name, command[name], one["q"], []


async def test_every_write_waits_for_a_majority_and_its_journal_and_is_sent_once(wire: list[dict[str, Any]]) -> None:
    writes = [command for command in wire if next(iter(command)) in WRITES]
    assert {next(iter(command)) for command in writes} == {"insert", "update", "findAndModify"}
    for command in writes:
        assert command["writeConcern"] == {"w": "majority", "j": True, "wtimeout": 5000}
        assert "txnNumber" not in command
        assert all("multi" not in one or not one["multi"] for one in command.get("updates", []))
        assert not isinstance(command.get("update"), list)  # no pipeline updates
        assert all(isinstance(one["u"], dict) for one in command.get("updates", []))


async def test_every_read_is_of_what_a_majority_has(wire: list[dict[str, Any]]) -> None:
    reads = [command for command in wire if next(iter(command)) in READS]
    assert {next(iter(command)) for command in reads} == {"find", "aggregate"}
    for command in reads:
        assert command["readConcern"] == {"level": "majority"}
        assert command.get("$readPreference", {"mode": "primary"}) == {"mode": "primary"}


async def test_account_updates_ask_for_the_new_document_and_only_its_fields(wire: list[dict[str, Any]]) -> None:
    updates = [command for command in wire if "findAndModify" in command]
    assert len(updates) >= 9
    for command in updates:
        assert command["findAndModify"] == "accounts"
        assert command["new"] is True
        assert set(command["fields"]) == {*mongo._ACCOUNT}


async def test_every_filter_names_the_shard_key(wire: list[dict[str, Any]]) -> None:
    missing = [
        (command, collection, where)
        for command, collection, where, _ in filters(wire)
        if collection not in NOT_SHARDED and ("_id" if collection in ("accounts", "shelf") else "account") not in where
    ]
    # Reads across accounts: what a node holds, and what is to be finished by anyone.
    assert {(command, collection, *where) for command, collection, where in missing} == {
        ("find", "accounts", "holders"),
        ("find", "accounts", "holders", "want"),
        ("find", "movements", "open"),
    }


async def test_every_filter_and_order_has_an_index(wire: list[dict[str, Any]]) -> None:
    """mongo-java-server ignores indexes that are not unique, and has no `explain`: so it is read off here."""
    without = []
    for _, collection, where, order in filters(wire):
        fields = {name for name in where if not name.startswith("$")}
        known = [("_id",), *(tuple(index.document["key"]) for index in INDEXES.get(collection, ()))]
        equal = {name for name in fields if not isinstance(where[name], dict)}
        for key in known:
            rest = key[len(equal) :]
            sorted_by_it = not order or set(order) <= equal or list(rest[: len(order)]) == order
            ranged = fields - equal
            if {*key[: len(equal)]} == equal and ranged <= {*rest[:1]} and sorted_by_it:
                break
        else:
            if "_id" not in equal:
                without.append((collection, tuple(fields), tuple(order)))
    allowed = [*READ_WHOLE, ("movements", ("open",))]  # the open ones are few, and sorted once found
    assert [one for one in without if (one[0], one[1]) not in allowed] == []


async def test_every_integer_is_stored_as_64_bits(mongo_place: MongoPlace) -> None:
    async with opened(mongo_place.url) as store:
        await every_call(store)

    def small(value: Any, at: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from small(inner, f"{at}.{name}")
        elif isinstance(value, list):
            for inner in value:
                yield from small(inner, at)
        elif isinstance(value, int) and not isinstance(value, (Int64, bool)):
            yield at

    with mongo_place.client() as client:
        database = client.get_default_database()
        for name in (*INDEXES, "meta"):
            docs = list(database[name].find())
            assert docs, name
            assert [place for doc in docs for place in small(doc, name)] == []


# --- wires that are cut ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def cuttable(mongo_place: MongoPlace) -> AsyncIterator[tuple[Store, Proxy]]:
    host, _, rest = mongo_place.url.removeprefix("mongodb://").partition(":")
    port, _, database = rest.partition("/")
    async with proxy(host, int(port)) as wire, opened(f"mongodb://127.0.0.1:{wire.port}/{database}") as store:
        yield store, wire


async def test_a_request_that_is_lost_did_not_happen(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    before = await leased(store)
    wire.cut(b"findAndModify", "request")
    with pytest.raises(StoreUnavailable, match="MongoDB: "):
        await store.lease_draw("a", "n1", 1, 5)
    assert await read(store) == before
    assert await store.lease_draw("a", "n1", 1, 5)


async def test_an_answer_that_is_lost_happened_once(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    await leased(store)
    sent = wire.count(b"findAndModify")
    wire.cut(b"findAndModify", "answer")
    with pytest.raises(StoreUnavailable):
        await store.lease_draw("a", "n1", 1, 5)
    assert wire.count(b"findAndModify") == sent + 1
    await until(lambda: account_is(store, leases={"n1": Lease(405, 5)}))
    assert await store.lease_draw("a", "n1", 1, 5) is None


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    """What the call whose wire was cut does at the server, it may be doing still. Each look waits for the server."""
    for _ in range(1000):
        if await look():
            return
    pytest.fail("it never came")


async def account_is(store: Store, **fields: Any) -> bool:
    doc = await read(store)
    return all(getattr(doc, name) == value for name, value in fields.items())


async def test_a_batch_that_is_cut_is_done_in_order_and_sent_again(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    before = await leased(store)
    frame = ([record("r1", 3), record("r2", 4)], [rollup()], [post()])

    wire.cut(b"rollups", "request")
    with pytest.raises(StoreUnavailable):
        await store.post(*frame)
    assert await store.usage_cost("a") == 7  # the records are there, and nothing else
    assert await store.usage_sums("a", 0, "model") == []
    assert await read(store) == before

    wire.cut(b"rollups", "answer")
    with pytest.raises(StoreUnavailable):
        await store.post(*frame)
    assert await read(store) == before

    wire.cut(b"leases.n1.seq", "answer")
    with pytest.raises(StoreUnavailable):
        await store.post(*frame)
    await until(lambda: account_is(store, spent=7))

    await store.post(*frame)
    assert (await read(store)).spent == 7
    assert (await store.usage_sums("a", 0, "model"))[0].sums == {"requests": 1, "cost": 7}
    assert await store.usage_cost("a") == 7


async def test_records_whose_answer_is_lost_stop_the_batch(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    before = await leased(store)
    wire.cut(b"usage", "answer")
    with pytest.raises(StoreUnavailable):
        await store.post([record()], [rollup()], [post()])
    assert await store.usage_sums("a", 0, "model") == []
    assert await read(store) == before


async def test_a_change_on_a_shelf_whose_answer_is_lost_happened_once(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    assert await store.shelf_put("vouchers", "v:1", b"1")
    wire.cut(b"update", "request")
    with pytest.raises(StoreUnavailable):
        await store.shelf_swap("vouchers", "v:1", 1, b"2")
    assert await store.shelf_get("vouchers", "v:1") == ShelfDoc(shelf="vouchers", id="v:1", rev=1, body=b"1")
    wire.cut(b"update", "answer")
    with pytest.raises(StoreUnavailable):
        await store.shelf_swap("vouchers", "v:1", 1, b"2")

    async def changed() -> bool:
        return await store.shelf_get("vouchers", "v:1") == ShelfDoc(shelf="vouchers", id="v:1", rev=2, body=b"2")

    await until(changed)
    assert not await store.shelf_swap("vouchers", "v:1", 1, b"3")


async def test_inserts_whose_answer_is_lost(cuttable: tuple[Store, Proxy]) -> None:
    store, wire = cuttable
    await funded(store)
    wire.cut(b"movements", "answer")
    with pytest.raises(StoreUnavailable):
        await store.movement_put(movement(2, "m2"))
    await until(lambda: store.movement_at("a", 2))
    assert not await store.movement_put(movement(2, "m2"))


async def test_a_server_that_is_gone_is_a_store_unavailable(mongo_place: MongoPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mongo._TIMEOUTS, "serverSelectionTimeoutMS", 300)
    host, _, rest = mongo_place.url.removeprefix("mongodb://").partition(":")
    port, _, database = rest.partition("/")
    async with proxy(host, int(port)) as wire:
        store = MongoStore(f"mongodb://127.0.0.1:{wire.port}/{database}")
        await store.open()
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await MongoStore(f"mongodb://127.0.0.1:{wire.port}/{database}").open()
    for call in (store.ping(), store.account_read("a"), store.account_new("a"), store.post([record()], [], [])):
        with pytest.raises(StoreUnavailable, match="MongoDB: "):
            await call
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


# --- what this server cannot be made to say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "concern", "success"),
    [
        ([11000, 11000], [], True),
        ([11000], [{"code": 64, "errmsg": "waiting for replication timed out"}], False),
        ([], [{"code": 64}], False),
        ([11000, 112], [], False),
        ([91], [], False),
    ],
)
def test_duplicates_are_success_only_where_they_are_durable(codes: list[int], concern: list[Any], success: bool) -> None:
    details = {"writeErrors": [{"code": code} for code in codes], "writeConcernErrors": concern}

    def batch() -> None:
        with mongo._asking(), mongo._duplicates_are_success():
            raise BulkWriteError(details)

    if success:
        batch()
    else:
        with pytest.raises(StoreUnavailable, match="BulkWriteError"):
            batch()
