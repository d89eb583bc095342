"""The store in MongoDB, through Motor: every operation is one guarded update of one document; the only module with the driver.

It promises what `aurixel.storage.Store` says on a standalone server, a replica set and a sharded cluster alike: no
transactions, no pipeline updates, writes that a majority has on disk, reads of what a majority has. Anything that is not
a clean answer is `StoreUnavailable`. The driver sends each operation once: what is sent again is decided by the ledger,
which reads first, and a hidden second sending would only land later. It stays whole, so that the day
the driver must go one file changes.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ASCENDING, IndexModel, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.storage import (
    AccountDoc,
    CatalogueDoc,
    KeyDoc,
    Movement,
    NodeDoc,
    NodeState,
    OrderDoc,
    Post,
    Profile,
    ProfileStatus,
    ReceiptDoc,
    RollupAdd,
    ShelfDoc,
    UsageRecord,
    UsageSums,
    checks,
)
from aurixel.values import Nanos

_Doc: TypeAlias = dict[str, Any]
_Collection: TypeAlias = "AsyncIOMotorCollection[_Doc]"
_S = TypeVar("_S", bound=msgspec.Struct)

SCHEMA: Final = 1
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_DUPLICATE: Final = 11000
_REFUSED: Final = frozenset({13, 18, 8000})  # unauthorized, authentication failed, the same from a hosted service
_TIMEOUTS: Final[dict[str, Any]] = {
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "waitQueueTimeoutMS": 5_000,
    "socketTimeoutMS": 10_000,
}
_WRITE_MS: Final = 5_000  # how long a majority may take; less than the socket's patience, so that we are told


def _index(*fields: str, **options: Any) -> IndexModel:
    return IndexModel([(field, ASCENDING) for field in fields], **options)


# Beside `_id`. Unique ones start with the shard key; `profiles`, `keys`, `nodes`, `catalogue`, `orders` and `receipts` are
# small and not sharded: a webhook knows an order's id or its payment, and no account.
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "accounts": [_index("holders", "want")],
    "movements": [
        _index("account", "n", unique=True),
        _index("account", "id", unique=True),
        _index("open", sparse=True),
    ],
    "usage": [_index("account", "inc", "s", "cost"), _index("account", "at_ms", "_id")],
    "rollups": [_index("account", "hour")],
    "nodes": [_index("state")],
    "profiles": [_index("email_lower", unique=True)],
    "keys": [_index("account", "created_ms", "_id")],
    "catalogue": [],
    "orders": [
        _index("paid_by", unique=True, sparse=True),
        _index("account", "created_ms", "_id"),
        _index("created_ms", "_id"),
        _index("open", "_id"),
    ],
    "receipts": [_index("order", unique=True)],
    "shelf": [],
}

_ACCOUNT: Final = {name: True for name in AccountDoc.__struct_fields__ if name != "id"}


class _PlainInt(TypeDecoder):
    """64-bit integers come back as plain ones: msgspec and JSON know no other."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


_CODEC: Final[CodecOptions[_Doc]] = CodecOptions(
    document_class=dict,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    type_registry=TypeRegistry([_PlainInt()]),
)


class MongoStore:
    """The store in the database that `url` names, `aurixel` if it names none. `listeners`: pymongo's, to watch commands.

    The methods without a docstring do what `Store` says of them.
    """

    def __init__(self, url: str, *, listeners: Sequence[Any] = ()) -> None:
        self._url = url
        self._listeners = listeners
        self._client: AsyncIOMotorClient[_Doc] | None = None
        self._database: AsyncIOMotorDatabase[_Doc] | None = None

    async def open(self) -> None:
        """Connect and ensure the indexes. `ConfigError` for a URL, credentials or a database that cannot be used."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # an option it does not know: a misspelt `tls` is no detail
                client: AsyncIOMotorClient[_Doc] = AsyncIOMotorClient(
                    self._url,
                    io_loop=asyncio.get_running_loop(),
                    appname="aurixel",
                    retryWrites=False,
                    event_listeners=list(self._listeners),
                    **_TIMEOUTS,
                )
        except (ConfigurationError, InvalidURI, ValueError, UserWarning):
            # The driver's own words may quote a password.
            raise ConfigError(
                "the MongoDB URL cannot be used",
                place="store.url",
                mend="write mongodb://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS, the password percent-encoded",
            ) from None
        self._client = client
        self._database = client.get_default_database("aurixel").with_options(
            codec_options=_CODEC,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", j=True, wtimeout=_WRITE_MS),
        )
        try:
            await self._ensure()
        except BaseException:
            await self.close()
            raise

    async def _ensure(self) -> None:
        meta = self._of("meta")
        try:
            schema = await meta.find_one({"_id": "schema"})
            if schema is not None and schema["version"] > SCHEMA:
                raise ConfigError(
                    f"the store is of schema {schema['version']}, this Aurixel knows up to {SCHEMA}",
                    place="store.url",
                    mend="use the version of Aurixel that wrote it, or a newer one",
                    code="store_too_new",
                )
            for name, indexes in INDEXES.items():
                if indexes:
                    await self._of(name).create_indexes(list(indexes))
            await meta.update_one({"_id": "schema"}, {"$max": {"version": Int64(SCHEMA)}}, upsert=True)
        except OperationFailure as error:
            if error.code in _REFUSED:
                raise ConfigError("MongoDB refuses the credentials, or they may not write here", place="store.url") from None
            if error.code in (85, 86):  # the same index with other options, or another by the same name
                raise ConfigError("an index stands in the way of one of ours", place="store.url") from None
            raise _unavailable(error) from None
        except PyMongoError as error:
            raise _unavailable(error) from None

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client, self._database = self._client, None, None
        if client is not None:
            client.close()

    async def ping(self) -> None:
        with _asking():
            await self._of("meta").find_one({"_id": "schema"})

    # --- credit -----------------------------------------------------------------------------------------------------

    async def account_new(self, account: str) -> bool:
        numbers = dict.fromkeys(("available", "credited", "spent", "written_off", "ver", "want"), Int64(0))
        log = {"n": Int64(0), "took": Int64(0)}
        doc = {"_id": account, "state": "open", **numbers, "log": log, "leases": {}, "holders": []}
        return await self._inserted("accounts", doc)

    async def account_read(self, account: str) -> AccountDoc | None:
        with _asking():
            return _account(await self._of("accounts").find_one({"_id": account}, _ACCOUNT))

    async def accounts_read(self, accounts: Sequence[str]) -> dict[str, AccountDoc]:
        docs = await self._found("accounts", {"_id": {"$in": list(accounts)}}, shape=_ACCOUNT)
        return {doc["_id"]: _known_account(doc) for doc in docs}

    async def accounts_page(self, after: str, limit: int) -> list[AccountDoc]:
        checks.page(limit)
        docs = await self._found("accounts", {"_id": {"$gt": after}}, ["_id"], limit, shape=_ACCOUNT)
        return [_known_account(doc) for doc in docs]

    async def accounts_held(self, inc: str) -> list[str]:
        docs = await self._found("accounts", {"holders": inc}, shape={"_id": True})
        return sorted(doc["_id"] for doc in docs)

    async def accounts_wanted(self, inc: str) -> list[tuple[str, int]]:
        docs = await self._found("accounts", {"holders": inc, "want": {"$gt": Int64(0)}}, shape={"want": True})
        return sorted((doc["_id"], doc["want"]) for doc in docs)

    async def account_want(self, account: str, ver: int) -> None:
        checks.amounts(ver=ver)
        await self._matched("accounts", {"_id": account}, {"$max": {"want": Int64(ver)}})

    async def lease_open(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        entry = f"leases.{inc}"
        return await self._account(
            account,
            {"state": "open", "ver": Int64(ver), entry: {"$exists": False}, "available": {"$gte": Int64(amount)}},
            {
                "$inc": {"available": Int64(-amount), "ver": Int64(1)},
                "$set": {entry: {"amount": Int64(amount), "seq": Int64(seq)}},
                "$addToSet": {"holders": inc},
            },
        )

    async def lease_draw(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._account(
            account,
            {
                "state": "open",
                "ver": Int64(ver),
                f"leases.{inc}": {"$exists": True},
                "available": {"$gte": Int64(amount)},
            },
            {"$inc": {"available": Int64(-amount), f"leases.{inc}.amount": Int64(amount), "ver": Int64(1)}},
        )

    async def lease_return(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._account(
            account,
            {"ver": Int64(ver), f"leases.{inc}.amount": {"$gte": Int64(amount)}},
            {"$inc": {"available": Int64(amount), f"leases.{inc}.amount": Int64(-amount), "ver": Int64(1)}},
        )

    async def lease_close(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        entry = f"leases.{inc}"
        return await self._account(
            account,
            {"ver": Int64(ver), f"{entry}.amount": Int64(amount), f"{entry}.seq": Int64(seq)},
            {
                "$inc": {"available": Int64(amount), "ver": Int64(1)},
                "$unset": {entry: ""},
                "$pull": {"holders": inc},
            },
        )

    async def lease_fence(self, account: str, inc: str) -> AccountDoc | None:
        checks.inc(inc)
        return await self._account(account, {f"leases.{inc}": {"$exists": True}}, {"$inc": {"ver": Int64(1)}})

    async def lease_reclaim(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._account(
            account,
            {"ver": Int64(ver), f"leases.{inc}.amount": Int64(amount)},
            {"$inc": {"available": Int64(amount), "ver": Int64(1)}, "$set": {f"leases.{inc}.amount": Int64(0)}},
        )

    async def account_closing(self, account: str) -> AccountDoc | None:
        return await self._account(account, {"state": "open"}, {"$set": {"state": "closing"}})

    async def account_remove(self, account: str) -> AccountDoc | None:
        guard = {"state": "closing", "holders": [], "available": Int64(0)}
        return await self._account(account, guard, {"$set": {"state": "removed"}})

    async def post(self, records: Sequence[UsageRecord], rollups: Sequence[RollupAdd], posts: Sequence[Post]) -> None:
        checks.batch(records, rollups, posts)
        with _asking():
            if records:
                with _duplicates_are_success():
                    await self._of("usage").insert_many([_usage_doc(record) for record in records], ordered=False)
            if rollups:
                with _duplicates_are_success():
                    await self._of("rollups").bulk_write([_rollup_add(add) for add in rollups], ordered=False)
            if posts:
                await self._of("accounts").bulk_write([_usage_post(post) for post in posts], ordered=False)

    # --- movements --------------------------------------------------------------------------------------------------

    async def movement_find(self, account: str, id: str) -> Movement | None:
        with _asking():
            return _struct(Movement, await self._of("movements").find_one({"account": account, "id": id}))

    async def movement_at(self, account: str, n: int) -> Movement | None:
        checks.amounts(n=n)
        with _asking():
            return _struct(Movement, await self._of("movements").find_one({"account": account, "n": Int64(n)}))

    async def movement_put(self, movement: Movement) -> bool:
        checks.movement(movement)
        doc = _wide(msgspec.structs.asdict(movement))
        del doc["took"]
        return await self._inserted("movements", {"_id": f"{movement.account}:{movement.n}", **doc, "open": True})

    async def movement_apply(self, account: str, n: int, amount: Nanos, took: Nanos, available: Nanos) -> AccountDoc | None:
        checks.amounts(n=n, available=available)
        checks.signed(amount=amount, took=took)
        if took != amount and available + took < 0:
            return None
        return await self._account(
            account,
            {
                "state": {"$ne": "removed"},
                "log.n": Int64(n - 1),
                "available": {"$gte": Int64(-took)} if took == amount else Int64(available),
            },
            {
                "$inc": {"available": Int64(took), "credited": Int64(took)},
                "$set": {"log": {"n": Int64(n), "took": Int64(took)}},
            },
        )

    async def movement_close(self, account: str, n: int, took: Nanos) -> bool:
        checks.amounts(n=n)
        checks.signed(took=took)
        return await self._matched(
            "movements",
            {"_id": f"{account}:{n}", "account": account, "took": {"$exists": False}},
            {"$set": {"took": Int64(took)}, "$unset": {"open": ""}},
        )

    async def movements_open(self, limit: int) -> list[Movement]:
        checks.page(limit)
        docs = await self._found("movements", {"open": True}, ["account", "n"], limit)
        return [_known(Movement, doc) for doc in docs]

    async def movements_page(self, account: str, after_n: int, limit: int) -> list[Movement]:
        checks.page(limit)
        checks.times(after_n=after_n)
        docs = await self._found("movements", {"account": account, "n": {"$gt": Int64(after_n)}}, ["n"], limit)
        return [_known(Movement, doc) for doc in docs]

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def node_start(self, inc: str, name: str) -> bool:
        checks.inc(inc)
        new = {"name": name, "state": "live", "by": "", "beat": Int64(0)}
        # An upsert that never matches: a plain insert cannot say `since` by the server's clock.
        update = {"$setOnInsert": new, "$currentDate": {"since": True}}
        try:
            with _asking():
                await self._of("nodes").update_one({"_id": inc, "beat": {"$lt": Int64(0)}}, update, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    async def node_beat(self, inc: str, by: str) -> bool:
        guard = {"_id": inc, "state": "recovering" if by else "live", "by": by}
        return await self._matched("nodes", guard, {"$inc": {"beat": Int64(1)}})

    async def node_dead(self, inc: str, beat: int) -> bool:
        checks.amounts(beat=beat)
        guard = {"_id": inc, "state": {"$in": ["live", "recovering"]}, "beat": Int64(beat)}
        return await self._matched("nodes", guard, _becomes("dead"))

    async def node_claim(self, inc: str, by: str) -> bool:
        checks.inc(by)
        guard = {"_id": inc, "state": {"$in": ["live", "dead", "recovering"]}}
        return await self._matched("nodes", guard, _becomes("recovering", by=by))

    async def node_done(self, inc: str, by: str) -> bool:
        guard = {"_id": inc, "state": "recovering", "by": by}
        return await self._matched("nodes", guard, _becomes("done"))

    async def node_abandon(self, inc: str) -> bool:
        a_day = {"$lte": ["$since", {"$subtract": ["$$NOW", _DAY_MS]}]}
        guard = {"_id": inc, "state": "dead", "$expr": a_day}
        return await self._matched("nodes", guard, _becomes("abandoned"))

    async def node_read(self, inc: str) -> NodeDoc | None:
        with _asking():
            doc = await self._of("nodes").find_one({"_id": inc})
        return None if doc is None else _node(doc)

    async def nodes(self, *states: NodeState) -> list[NodeDoc]:
        docs = await self._found("nodes", {"state": {"$in": list(states)}} if states else {})
        return sorted((_node(doc) for doc in docs), key=lambda node: node.inc)

    # --- usage, read back -------------------------------------------------------------------------------------------

    async def usage_read(self, account: str, request_id: str) -> UsageRecord | None:
        with _asking():
            doc = await self._of("usage").find_one({"_id": request_id, "account": account})
        return None if doc is None else _usage(doc)

    async def usage_page(self, account: str, since_ms: int, after: str, limit: int) -> list[UsageRecord]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        where = {"account": account, **_later("at_ms", since_ms, after)}
        return [_usage(doc) for doc in await self._found("usage", where, ["at_ms", "_id"], limit)]

    async def usage_lowest(self, account: str, inc: str, after_s: int) -> list[UsageRecord]:
        checks.times(after_s=after_s)
        frame: _Doc = {"account": account, "inc": inc}
        lowest = await self._found("usage", {**frame, "s": {"$gt": Int64(after_s)}}, ["s"], 1, shape={"s": True})
        if not lowest:
            return []
        docs = await self._found("usage", {**frame, "s": Int64(lowest[0]["s"])})
        return sorted((_usage(doc) for doc in docs), key=lambda record: record.request_id)

    async def usage_cost(self, account: str, inc: str | None = None, after_s: int = -1) -> Nanos:
        checks.times(after_s=after_s)
        frames: _Doc = {} if inc is None else {"inc": inc, "s": {"$gt": Int64(after_s)}}
        return await self._sum("usage", {"account": account, **frames}, "cost")

    async def usage_sums(self, account: str, since_ms: int, by: Literal["model", "day", "key"]) -> list[UsageSums]:
        checks.times(since_ms=since_ms)
        group = {"model": "$model", "day": "$day", "key": "$key_id"}[by]
        rows = await self._aggregated(
            "rollups",
            {"account": account, "hour": {"$gte": Int64(since_ms // _HOUR_MS)}},
            {"$project": {"group": group, "sums": {"$objectToArray": "$sums"}}},
            {"$unwind": "$sums"},
            {"$group": {"_id": {"group": "$group", "unit": "$sums.k"}, "n": {"$sum": "$sums.v"}}},
        )
        groups: dict[str, dict[str, int]] = {}
        for row in rows:
            groups.setdefault(row["_id"]["group"], {})[_unescaped(row["_id"]["unit"])] = row["n"]
        return [UsageSums(group=group, sums=groups[group]) for group in sorted(groups)]

    async def rollups_page(self, account: str, since_hour: int, limit: int) -> list[RollupAdd]:
        checks.page(limit)
        checks.times(since_hour=since_hour)
        where = {"account": account, "hour": {"$gte": Int64(since_hour)}}
        return [_rollup(doc) for doc in await self._found("rollups", where, ["hour"], limit)]

    async def rollup_mend(self, rollup: RollupAdd, was: int | None) -> bool:
        checks.mend(rollup, was)
        place: _Doc = {"_id": rollup.id, "account": rollup.account}
        content = {"s": Int64(rollup.s), "sums": {_escaped(unit): Int64(n) for unit, n in rollup.sums.items()}}
        if was is None:
            return await self._inserted("rollups", {**place, **_bucket(rollup), **content})
        return await self._matched("rollups", {**place, "s": Int64(was)}, {"$set": content})

    # --- people and keys --------------------------------------------------------------------------------------------

    async def profile_new(self, profile: Profile) -> bool:
        doc = _wide(msgspec.structs.asdict(profile))
        return await self._inserted("profiles", {"_id": doc.pop("account"), **doc, "email_lower": profile.email.lower()})

    async def profile_read(self, account: str) -> Profile | None:
        with _asking():
            return _struct(Profile, await self._of("profiles").find_one({"_id": account}), account="_id")

    async def profile_find(self, email: str) -> Profile | None:
        with _asking():
            doc = await self._of("profiles").find_one({"email_lower": email.lower()})
        return _struct(Profile, doc, account="_id")

    async def profiles_page(self, after: str, limit: int) -> list[Profile]:
        checks.page(limit)
        docs = await self._found("profiles", {"_id": {"$gt": after}}, ["_id"], limit)
        return [_known(Profile, doc, account="_id") for doc in docs]

    async def profile_status(self, account: str, status: ProfileStatus, was: ProfileStatus | None = None) -> bool:
        guard = {"_id": account} if was is None else {"_id": account, "status": was}
        return await self._matched("profiles", guard, {"$set": {"status": status}})

    async def key_new(self, key: KeyDoc) -> bool:
        doc = _wide(msgspec.structs.asdict(key))
        limits = {"limits": msgspec.json.encode(key.limits).decode(), "limit_names": sorted(key.limits)}
        return await self._inserted("keys", {"_id": doc.pop("id"), **doc, **limits})

    async def key_read(self, id: str) -> KeyDoc | None:
        with _asking():
            doc = await self._of("keys").find_one({"_id": id})
        return None if doc is None else _key(doc)

    async def keys_of(self, account: str) -> list[KeyDoc]:
        return [_key(doc) for doc in await self._found("keys", {"account": account}, ["created_ms", "_id"])]

    async def key_limits(self) -> Mapping[str, int]:
        count = {"$group": {"_id": "$limit_names", "n": {"$sum": 1}}}
        rows = await self._aggregated("keys", {"revoked_ms": None}, {"$unwind": "$limit_names"}, count)
        return {row["_id"]: row["n"] for row in rows}

    async def key_revoke(self, id: str, at_ms: int) -> bool:
        checks.times(at_ms=at_ms)
        return await self._matched("keys", {"_id": id, "revoked_ms": None}, {"$set": {"revoked_ms": Int64(at_ms)}})

    # --- catalogue --------------------------------------------------------------------------------------------------

    async def catalogue_version(self) -> int:
        return await self._highest("catalogue")

    async def catalogue_read(self, version: int) -> CatalogueDoc | None:
        checks.amounts(version=version)
        with _asking():
            doc = await self._of("catalogue").find_one({"_id": Int64(version)})
        return _struct(CatalogueDoc, doc, version="_id")

    async def catalogue_put(self, doc: CatalogueDoc) -> bool:
        checks.amounts(version=doc.version)
        values = _wide(msgspec.structs.asdict(doc))
        return await self._inserted("catalogue", {"_id": values.pop("version"), **values})

    # --- orders and receipts ------------------------------------------------------------------------------------------

    async def order_new(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=True)
        values = _wide(msgspec.structs.asdict(doc))
        if doc.payment is not None:
            values["paid_by"] = _paid_by(doc.backend, doc.payment)
        return await self._inserted("orders", {"_id": values.pop("id"), **values})

    async def order_read(self, id: str) -> OrderDoc | None:
        with _asking():
            return _struct(OrderDoc, await self._of("orders").find_one({"_id": id}), id="_id")

    async def order_paid_by(self, backend: str, payment: str) -> OrderDoc | None:
        with _asking():
            doc = await self._of("orders").find_one({"paid_by": _paid_by(backend, payment)})
        return _struct(OrderDoc, doc, id="_id")

    async def order_swap(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=False)
        values: _Doc = {
            "state": doc.state,
            "payment": doc.payment,
            "open": doc.open,
            "rev": Int64(doc.rev),
            "body": doc.body,
        }
        guard = {"_id": doc.id, "backend": doc.backend, "rev": Int64(doc.rev - 1)}
        update: _Doc = {"$set": values}
        if doc.payment is None:
            update["$unset"] = {"paid_by": ""}
        else:
            values["paid_by"] = _paid_by(doc.backend, doc.payment)
        try:
            return await self._matched("orders", guard, update)
        except DuplicateKeyError:
            return False

    async def orders_page(self, account: str | None, since_ms: int, after: str, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        whose = {} if account is None else {"account": account}
        where = {**whose, **_later("created_ms", since_ms, after)}
        return [_known(OrderDoc, doc, id="_id") for doc in await self._found("orders", where, ["created_ms", "_id"], limit)]

    async def orders_open(self, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        return [_known(OrderDoc, doc, id="_id") for doc in await self._found("orders", {"open": True}, ["_id"], limit)]

    async def receipt_last(self) -> int:
        return await self._highest("receipts")

    async def receipt_put(self, doc: ReceiptDoc) -> bool:
        checks.receipt(doc)
        values = _wide(msgspec.structs.asdict(doc))
        return await self._inserted("receipts", {"_id": values.pop("number"), **values})

    async def receipt_of(self, order: str) -> ReceiptDoc | None:
        with _asking():
            return _struct(ReceiptDoc, await self._of("receipts").find_one({"order": order}), number="_id")

    # --- shelves: `_id` is `<shelf>/<id>`, the shard key -------------------------------------------------------------

    async def shelf_put(self, shelf: str, id: str, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        return await self._inserted("shelf", {"_id": f"{shelf}/{id}", "rev": Int64(1), "body": body})

    async def shelf_get(self, shelf: str, id: str) -> ShelfDoc | None:
        checks.shelf(shelf, id)
        with _asking():
            doc = await self._of("shelf").find_one({"_id": f"{shelf}/{id}"})
        return None if doc is None else _shelf_doc(doc)

    async def shelf_swap(self, shelf: str, id: str, rev: int, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        checks.amounts(rev=rev)
        change = {"$set": {"body": body}, "$inc": {"rev": Int64(1)}}
        return await self._matched("shelf", {"_id": f"{shelf}/{id}", "rev": Int64(rev)}, change)

    async def shelf_page(self, shelf: str, prefix: str, after: str, limit: int) -> list[ShelfDoc]:
        first, end = checks.shelf_range(shelf, prefix, after, limit)
        where = {"_id": {"$gte": f"{shelf}/{first}", "$lt": f"{shelf}/{end}"}}
        return [_shelf_doc(doc) for doc in await self._found("shelf", where, ["_id"], limit)]

    # --- ways of asking ---------------------------------------------------------------------------------------------

    def _of(self, collection: str) -> _Collection:
        if self._database is None:
            raise StoreUnavailable("the store is closed")
        return self._database[collection]

    async def _account(self, account: str, guard: _Doc, update: _Doc) -> AccountDoc | None:
        """One guarded update of an account: the document after it, or None for no match."""
        with _asking():
            doc = await self._of("accounts").find_one_and_update(
                {"_id": account, **guard}, update, projection=_ACCOUNT, return_document=ReturnDocument.AFTER
            )
        return _account(doc)

    async def _matched(self, collection: str, guard: _Doc, update: _Doc) -> bool:
        with _asking():
            return (await self._of(collection).update_one(guard, update)).matched_count == 1

    async def _inserted(self, collection: str, doc: _Doc) -> bool:
        """False where a unique key is taken. Then nothing is proved, not even that what stands there is durable."""
        try:
            with _asking():
                await self._of(collection).insert_one(doc)
        except DuplicateKeyError:
            return False
        return True

    async def _found(
        self, collection: str, where: _Doc, order: Iterable[str] = (), limit: int = 0, shape: _Doc | None = None
    ) -> list[_Doc]:
        with _asking():
            cursor = self._of(collection).find(where, shape, sort=[(field, ASCENDING) for field in order] or None)
            return await cursor.limit(limit).to_list(None)

    async def _aggregated(self, collection: str, where: _Doc, *stages: _Doc) -> list[_Doc]:
        with _asking():
            return await self._of(collection).aggregate([{"$match": where}, *stages]).to_list(None)

    async def _highest(self, collection: str) -> int:
        """The highest id, 0 where there is none."""
        with _asking():
            doc = await self._of(collection).find_one({}, {"_id": True}, sort=[("_id", -1)])
        return 0 if doc is None else int(doc["_id"])

    async def _sum(self, collection: str, where: _Doc, field: str) -> int:
        rows = await self._aggregated(collection, where, {"$group": {"_id": None, "sum": {"$sum": f"${field}"}}})
        return int(rows[0]["sum"]) if rows else 0


# --- answers ----------------------------------------------------------------------------------------------------------


@contextmanager
def _asking() -> Iterator[None]:
    """Whatever is not a clean answer is `StoreUnavailable`. A duplicate key is an answer, left to the caller."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except PyMongoError as error:
        raise _unavailable(error) from None


def _unavailable(error: PyMongoError) -> StoreUnavailable:
    """The kind of failure and its number: the driver's own words quote documents."""
    code = getattr(error, "code", None)
    return StoreUnavailable(f"MongoDB: {type(error).__name__}" + ("" if code is None else f" {code}"))


@contextmanager
def _duplicates_are_success() -> Iterator[None]:
    """What was there already is success, if that is all that was wrong: a failed write concern beside it is not."""
    try:
        yield
    except BulkWriteError as error:
        details = error.details or {}
        refused = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or not refused or any(one["code"] != _DUPLICATE for one in refused):
            raise


# --- shapes -----------------------------------------------------------------------------------------------------------


def _wide(values: _Doc) -> _Doc:
    """The values with every integer as 64 bits, whatever its size today."""
    return {name: Int64(value) if type(value) is int else value for name, value in values.items()}


def _paid_by(backend: str, payment: str) -> str:
    """One field, as a unique index on two would take orders without a payment for the same."""
    return f"{backend}:{payment}"


def _later(field: str, since_ms: int, after: str) -> _Doc:
    """A filter: what comes after (`since_ms`, `after`) in the order of (`field`, `_id`)."""
    since = Int64(since_ms)
    return {field: {"$gte": since}, "$or": [{field: {"$gt": since}}, {field: since, "_id": {"$gt": after}}]}


def _escaped(unit: str) -> str:
    """A unit as a field name: dots and dollars mean something there."""
    return unit.replace("%", "%25").replace(".", "%2E").replace("$", "%24")


def _unescaped(name: str) -> str:
    return name.replace("%24", "$").replace("%2E", ".").replace("%25", "%")


def _struct(shape: type[_S], doc: _Doc | None, **renamed: str) -> _S | None:
    return None if doc is None else _known(shape, doc, **renamed)


def _known(shape: type[_S], doc: _Doc, **renamed: str) -> _S:
    return shape(**{name: doc.get(renamed.get(name, name)) for name in shape.__struct_fields__})


def _account(doc: _Doc | None) -> AccountDoc | None:
    return None if doc is None else _known_account(doc)


def _known_account(doc: _Doc) -> AccountDoc:
    return msgspec.convert({**doc, "id": doc["_id"], "holders": sorted(doc["holders"])}, AccountDoc)


def _node(doc: _Doc) -> NodeDoc:
    return _known(NodeDoc, {**doc, "since_ms": int(doc["since"])}, inc="_id")


def _becomes(state: NodeState, **values: str) -> _Doc:
    return {"$set": {"state": state, **values}, "$currentDate": {"since": True}}


def _key(doc: _Doc) -> KeyDoc:
    return _known(KeyDoc, {**doc, "limits": msgspec.json.decode(doc["limits"])}, id="_id")


def _shelf_doc(doc: _Doc) -> ShelfDoc:
    shelf, _, name = doc["_id"].partition("/")
    return ShelfDoc(shelf=shelf, id=name, rev=doc["rev"], body=doc["body"])


def _usage_doc(record: UsageRecord) -> _Doc:
    doc = _wide(msgspec.structs.asdict(record))
    doc["counts"] = {_escaped(unit): Int64(n) for unit, n in record.counts.items()}
    return {"_id": doc.pop("request_id"), **doc}


def _usage(doc: _Doc) -> UsageRecord:
    counts = {_unescaped(unit): n for unit, n in doc["counts"].items()}
    return _known(UsageRecord, {**doc, "counts": counts}, request_id="_id")


def _rollup(doc: _Doc) -> RollupAdd:
    sums = {_unescaped(unit): n for unit, n in doc.get("sums", {}).items()}
    return _known(RollupAdd, {**doc, "sums": sums})


def _bucket(add: RollupAdd) -> _Doc:
    """What a rollup is of, which never changes."""
    return {
        "inc": add.inc,
        "hour": Int64(add.hour),
        "day": datetime.fromtimestamp(add.hour * 3600, UTC).date().isoformat(),
        "model": add.model,
        "key_id": add.key_id,
    }


def _rollup_add(add: RollupAdd) -> UpdateOne:
    update: _Doc = {"$set": {"s": Int64(add.s)}, "$setOnInsert": _bucket(add)}
    if add.sums:
        update["$inc"] = {f"sums.{_escaped(unit)}": Int64(n) for unit, n in add.sums.items()}
    return UpdateOne({"_id": add.id, "account": add.account, "s": {"$lt": Int64(add.s)}}, update, upsert=True)


def _usage_post(post: Post) -> UpdateOne:
    entry = f"leases.{post.inc}"
    available = Int64(post.available)
    return UpdateOne(
        {
            "_id": post.account,
            f"{entry}.seq": Int64(post.prev),
            f"{entry}.amount": {"$gte": Int64(post.lease)},
            "available": available if post.written_off > 0 else {"$gte": available},
        },
        {
            "$inc": {
                f"{entry}.amount": Int64(-post.lease),
                "available": Int64(-post.available),
                "spent": Int64(post.lease + post.available),
                "written_off": Int64(post.written_off),
            },
            "$set": {f"{entry}.seq": Int64(post.s)},
        },
    )
