"""The store in one SQLite file: each operation is one function of a connection, with the guard of docs/ledger.md in SQL.

It promises what `aurixel.storage.Store` says, for any number of processes on one machine. Leases are rows, a row being
both lease and holder. It holds no rule of money beyond the guards, and no thread: those are the engine's. It stays whole, as
`Store` is: one protocol, one file beside `mongo` to hold against it, and hardly a line that is not SQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from aurixel.clock import Clock, SystemClock
from aurixel.storage import (
    AccountDoc,
    CatalogueDoc,
    KeyDoc,
    Lease,
    LogMark,
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
from aurixel.storage.sqlite_engine import Engine
from aurixel.values import Nanos

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_Row = tuple[Any, ...]
_S = TypeVar("_S", bound=msgspec.Struct)


def _columns(shape: type[msgspec.Struct], **renamed: str) -> str:
    return ", ".join(renamed.get(name, name) for name in shape.__struct_fields__)


def _marks(shape: type[msgspec.Struct]) -> str:
    return ", ".join("?" for _ in shape.__struct_fields__)


_ACCOUNT: Final = "id, state, available, credited, spent, written_off, ver, log_n, log_took, want"
_MOVEMENT: Final = _columns(Movement)
_USAGE: Final = _columns(UsageRecord)
_NODE: Final = _columns(NodeDoc, by="claimed_by")
_PROFILE: Final = _columns(Profile)
_KEY: Final = _columns(KeyDoc)
_CATALOGUE: Final = _columns(CatalogueDoc)
_SHELF: Final = _columns(ShelfDoc)
_ORDER: Final = _columns(OrderDoc)
_RECEIPT: Final = _columns(ReceiptDoc, order="order_id")

_encode: Final = msgspec.json.Encoder().encode
_COUNTS: Final = UsageRecord.__struct_fields__.index("counts")
_RECORD_PUT: Final = f"INSERT INTO usage ({_USAGE}) VALUES ({_marks(UsageRecord)}) ON CONFLICT (request_id) DO NOTHING"
_ROLLUP_TAKE: Final = """
    INSERT INTO rollups (account, hour, model, key_id, inc, s) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (account, hour, model, key_id, inc) DO UPDATE SET s = excluded.s WHERE rollups.s < excluded.s
    RETURNING id"""
_ROLLUP_ADD: Final = """
    INSERT INTO rollup_sums (rollup, unit, n) VALUES (?, ?, ?)
    ON CONFLICT (rollup, unit) DO UPDATE SET n = n + excluded.n"""
_POST_LEASE: Final = """
    UPDATE leases SET amount = amount - :lease, seq = :s
    WHERE account = :account AND inc = :inc AND seq = :prev AND amount >= :lease AND EXISTS (
        SELECT 1 FROM accounts WHERE id = :account
        AND CASE WHEN :written_off > 0 THEN available = :available ELSE available >= :available END)"""
_POST_ACCOUNT: Final = """
    UPDATE accounts SET available = available - :available, spent = spent + :lease + :available,
        written_off = written_off + :written_off
    WHERE id = :account"""
_ROLLUPS: Final = """
    SELECT hour, model, key_id, inc, s, unit, n FROM rollups LEFT JOIN rollup_sums ON rollup = id
    WHERE account = ? AND hour >= ? ORDER BY hour, model, key_id, inc"""
_ROLLUP_NEW: Final = """
    INSERT INTO rollups (account, hour, model, key_id, inc, s) VALUES (:account, :hour, :model, :key_id, :inc, :s)
    ON CONFLICT DO NOTHING RETURNING id"""
_ROLLUP_STILL: Final = """
    UPDATE rollups SET s = :s WHERE account = :account AND hour = :hour AND model = :model AND key_id = :key_id
    AND inc = :inc AND s = :was RETURNING id"""
_SUMS: Final = """
    SELECT {group} AS name, unit, sum(n) FROM rollups JOIN rollup_sums ON rollup = id
    WHERE account = ? AND hour >= ? GROUP BY name, unit ORDER BY name, unit"""
_SUM_GROUPS: Final = {"model": "model", "key": "key_id", "day": "date(hour * 3600, 'unixepoch')"}


class SqliteStore:
    """The store in the file `path`, made if absent. `patience`: seconds a write waits for other processes.

    The methods without a docstring do what `Store` says of them.
    """

    def __init__(self, path: Path | str, *, clock: Clock | None = None, patience: float = 5.0) -> None:
        self._engine = Engine(Path(path), patience)
        self._clock = clock or SystemClock()

    async def open(self) -> None:
        """Make the file or bring it up to date. `ConfigError` when it cannot be used."""
        await self._engine.open()

    async def close(self) -> None:
        """Finish what is queued and let go of the file."""
        await self._engine.close()

    async def ping(self) -> None:
        """A commit of nothing: the file can be written."""
        await self._engine.write(lambda connection: None)

    # --- credit -----------------------------------------------------------------------------------------------------

    async def account_new(self, account: str) -> bool:
        sql = f"INSERT INTO accounts ({_ACCOUNT}) VALUES (?, 'open', 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
        return await self._changed(sql, account)

    async def account_read(self, account: str) -> AccountDoc | None:
        return await self._engine.read(lambda connection: _account(connection, account))

    async def accounts_read(self, accounts: Sequence[str]) -> dict[str, AccountDoc]:
        def read(connection: sqlite3.Connection) -> dict[str, AccountDoc]:
            return {doc.id: doc for account in accounts if (doc := _account(connection, account))}

        return await self._engine.read(read)

    async def accounts_page(self, after: str, limit: int) -> list[AccountDoc]:
        checks.page(limit)

        def read(connection: sqlite3.Connection) -> list[AccountDoc]:
            rows = connection.execute("SELECT id FROM accounts WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
            return [doc for (account,) in rows.fetchall() if (doc := _account(connection, account))]

        return await self._engine.read(read)

    async def accounts_held(self, inc: str) -> list[str]:
        rows = await self._rows("SELECT account FROM leases WHERE inc = ? ORDER BY account", inc)
        return [account for (account,) in rows]

    async def accounts_wanted(self, inc: str) -> list[tuple[str, int]]:
        sql = "SELECT account, want FROM leases JOIN accounts ON id = account WHERE inc = ? AND want > 0 ORDER BY account"
        return [(account, want) for account, want in await self._rows(sql, inc)]

    async def account_want(self, account: str, ver: int) -> None:
        checks.amounts(ver=ver)
        await self._changed("UPDATE accounts SET want = max(want, ?) WHERE id = ?", ver, account)

    async def lease_open(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available - :n, ver = ver + 1
                   WHERE id = :a AND state = 'open' AND ver = :ver AND available >= :n
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc)""",
                "INSERT INTO leases (account, inc, amount, seq) VALUES (:a, :inc, :n, :seq)",
            ),
            {"a": account, "inc": inc, "ver": ver, "n": amount, "seq": seq},
        )

    async def lease_draw(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available - :n, ver = ver + 1
                   WHERE id = :a AND state = 'open' AND ver = :ver AND available >= :n
                   AND EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc)""",
                "UPDATE leases SET amount = amount + :n WHERE account = :a AND inc = :inc",
            ),
            {"a": account, "inc": inc, "ver": ver, "n": amount},
        )

    async def lease_return(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available + :n, ver = ver + 1 WHERE id = :a AND ver = :ver
                   AND EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc AND amount >= :n)""",
                "UPDATE leases SET amount = amount - :n WHERE account = :a AND inc = :inc",
            ),
            {"a": account, "inc": inc, "ver": ver, "n": amount},
        )

    async def lease_close(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount, seq=seq)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available + :x, ver = ver + 1 WHERE id = :a AND ver = :ver
                   AND EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc AND amount = :x AND seq = :q)""",
                "DELETE FROM leases WHERE account = :a AND inc = :inc",
            ),
            {"a": account, "inc": inc, "ver": ver, "x": amount, "q": seq},
        )

    async def lease_fence(self, account: str, inc: str) -> AccountDoc | None:
        checks.inc(inc)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET ver = ver + 1
                   WHERE id = :a AND EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc)""",
            ),
            {"a": account, "inc": inc},
        )

    async def lease_reclaim(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None:
        checks.inc(inc)
        checks.amounts(ver=ver, amount=amount)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available + :x, ver = ver + 1 WHERE id = :a AND ver = :ver
                   AND EXISTS (SELECT 1 FROM leases WHERE account = :a AND inc = :inc AND amount = :x)""",
                "UPDATE leases SET amount = 0 WHERE account = :a AND inc = :inc",
            ),
            {"a": account, "inc": inc, "ver": ver, "x": amount},
        )

    async def account_closing(self, account: str) -> AccountDoc | None:
        sql = "UPDATE accounts SET state = 'closing' WHERE id = :a AND state = 'open'"
        return await self._lease(account, (sql,), {"a": account})

    async def account_remove(self, account: str) -> AccountDoc | None:
        sql = """UPDATE accounts SET state = 'removed' WHERE id = :a AND state = 'closing' AND available = 0
                 AND NOT EXISTS (SELECT 1 FROM leases WHERE account = :a)"""
        return await self._lease(account, (sql,), {"a": account})

    async def post(self, records: Sequence[UsageRecord], rollups: Sequence[RollupAdd], posts: Sequence[Post]) -> None:
        """Here the whole call is one write: all of it or nothing."""
        checks.batch(records, rollups, posts)
        rows = [_usage_row(record) for record in records]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_RECORD_PUT, rows)
            for rollup in rollups:
                key = (rollup.account, rollup.hour, rollup.model, rollup.key_id, rollup.inc, rollup.s)
                for (number,) in connection.execute(_ROLLUP_TAKE, key).fetchall():
                    connection.executemany(_ROLLUP_ADD, [(number, unit, n) for unit, n in rollup.sums.items()])
            for post in posts:
                values = msgspec.structs.asdict(post)
                if connection.execute(_POST_LEASE, values).rowcount:
                    connection.execute(_POST_ACCOUNT, values)

        await self._engine.write(work)

    # --- movements --------------------------------------------------------------------------------------------------

    async def movement_find(self, account: str, id: str) -> Movement | None:
        rows = await self._rows(f"SELECT {_MOVEMENT} FROM movements WHERE account = ? AND id = ?", account, id)
        return _struct(Movement, rows[0]) if rows else None

    async def movement_at(self, account: str, n: int) -> Movement | None:
        checks.amounts(n=n)
        rows = await self._rows(f"SELECT {_MOVEMENT} FROM movements WHERE account = ? AND n = ?", account, n)
        return _struct(Movement, rows[0]) if rows else None

    async def movement_put(self, movement: Movement) -> bool:
        checks.movement(movement)
        sql = f"INSERT INTO movements ({_MOVEMENT}) VALUES ({_marks(Movement)}) ON CONFLICT DO NOTHING"
        return await self._changed(sql, *msgspec.structs.astuple(movement))

    async def movement_apply(self, account: str, n: int, amount: Nanos, took: Nanos, available: Nanos) -> AccountDoc | None:
        checks.amounts(n=n, available=available)
        checks.signed(amount=amount, took=took)
        return await self._lease(
            account,
            (
                """UPDATE accounts SET available = available + :t, credited = credited + :t, log_n = :n, log_took = :t
                   WHERE id = :a AND state <> 'removed' AND log_n = :n - 1 AND available + :t >= 0
                   AND (:t = :amount OR available = :av)""",
            ),
            {"a": account, "n": n, "amount": amount, "t": took, "av": available},
        )

    async def movement_close(self, account: str, n: int, took: Nanos) -> bool:
        checks.amounts(n=n)
        checks.signed(took=took)
        sql = "UPDATE movements SET took = ? WHERE account = ? AND n = ? AND took IS NULL"
        return await self._changed(sql, took, account, n)

    async def movements_open(self, limit: int) -> list[Movement]:
        checks.page(limit)
        sql = f"SELECT {_MOVEMENT} FROM movements WHERE took IS NULL ORDER BY account, n LIMIT ?"
        return [_struct(Movement, row) for row in await self._rows(sql, limit)]

    async def movements_page(self, account: str, after_n: int, limit: int) -> list[Movement]:
        checks.page(limit)
        checks.times(after_n=after_n)
        sql = f"SELECT {_MOVEMENT} FROM movements WHERE account = ? AND n > ? ORDER BY n LIMIT ?"
        return [_struct(Movement, row) for row in await self._rows(sql, account, after_n, limit)]

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def node_start(self, inc: str, name: str) -> bool:
        checks.inc(inc)
        sql = f"INSERT INTO nodes ({_NODE}) VALUES (?, ?, 'live', '', 0, ?) ON CONFLICT DO NOTHING"
        return await self._changed(sql, inc, name, self._clock.wall_ms())

    async def node_beat(self, inc: str, by: str) -> bool:
        sql = "UPDATE nodes SET beat = beat + 1 WHERE inc = ? AND state = ? AND claimed_by = ?"
        return await self._changed(sql, inc, "recovering" if by else "live", by)

    async def node_dead(self, inc: str, beat: int) -> bool:
        checks.amounts(beat=beat)
        sql = "UPDATE nodes SET state = 'dead', since_ms = ? WHERE inc = ? AND beat = ? AND state IN ('live', 'recovering')"
        return await self._changed(sql, self._clock.wall_ms(), inc, beat)

    async def node_claim(self, inc: str, by: str) -> bool:
        checks.inc(by)
        sql = """UPDATE nodes SET state = 'recovering', claimed_by = ?, since_ms = ?
                 WHERE inc = ? AND state IN ('live', 'dead', 'recovering')"""
        return await self._changed(sql, by, self._clock.wall_ms(), inc)

    async def node_done(self, inc: str, by: str) -> bool:
        sql = "UPDATE nodes SET state = 'done', since_ms = ? WHERE inc = ? AND state = 'recovering' AND claimed_by = ?"
        return await self._changed(sql, self._clock.wall_ms(), inc, by)

    async def node_abandon(self, inc: str) -> bool:
        now = self._clock.wall_ms()
        sql = "UPDATE nodes SET state = 'abandoned', since_ms = ? WHERE inc = ? AND state = 'dead' AND since_ms <= ?"
        return await self._changed(sql, now, inc, now - _DAY_MS)

    async def node_read(self, inc: str) -> NodeDoc | None:
        rows = await self._rows(f"SELECT {_NODE} FROM nodes WHERE inc = ?", inc)
        return _struct(NodeDoc, rows[0]) if rows else None

    async def nodes(self, *states: NodeState) -> list[NodeDoc]:
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        rows = await self._rows(f"SELECT {_NODE} FROM nodes {where}", *states)
        return sorted((_struct(NodeDoc, row) for row in rows), key=lambda node: node.inc)

    # --- usage, read back -------------------------------------------------------------------------------------------

    async def usage_read(self, account: str, request_id: str) -> UsageRecord | None:
        rows = await self._rows(f"SELECT {_USAGE} FROM usage WHERE request_id = ? AND account = ?", request_id, account)
        return _usage(rows[0]) if rows else None

    async def usage_page(self, account: str, since_ms: int, after: str, limit: int) -> list[UsageRecord]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        sql = f"""SELECT {_USAGE} FROM usage WHERE account = ? AND (at_ms, request_id) > (?, ?)
                  ORDER BY at_ms, request_id LIMIT ?"""
        return [_usage(row) for row in await self._rows(sql, account, since_ms, after, limit)]

    async def usage_lowest(self, account: str, inc: str, after_s: int) -> list[UsageRecord]:
        checks.times(after_s=after_s)
        sql = f"""SELECT {_USAGE} FROM usage WHERE account = :a AND inc = :inc AND s =
                  (SELECT min(s) FROM usage WHERE account = :a AND inc = :inc AND s > :s) ORDER BY request_id"""
        return [_usage(row) for row in await self._rows(sql, {"a": account, "inc": inc, "s": after_s})]

    async def usage_cost(self, account: str, inc: str | None = None, after_s: int = -1) -> Nanos:
        checks.times(after_s=after_s)
        if inc is None:
            return await self._number("SELECT sum(cost) FROM usage WHERE account = ?", account)
        sql = "SELECT sum(cost) FROM usage WHERE account = ? AND inc = ? AND s > ?"
        return await self._number(sql, account, inc, after_s)

    async def usage_sums(self, account: str, since_ms: int, by: Literal["model", "day", "key"]) -> list[UsageSums]:
        checks.times(since_ms=since_ms)
        sql = _SUMS.format(group=_SUM_GROUPS[by])
        groups: dict[str, dict[str, int]] = {}
        for group, unit, n in await self._rows(sql, account, since_ms // _HOUR_MS):
            groups.setdefault(group, {})[unit] = n
        return [UsageSums(group=group, sums=sums) for group, sums in groups.items()]

    async def rollups_page(self, account: str, since_hour: int, limit: int) -> list[RollupAdd]:
        checks.page(limit)
        checks.times(since_hour=since_hour)

        def read(connection: sqlite3.Connection) -> list[RollupAdd]:
            found: dict[_Row, dict[str, int]] = {}
            with closing(connection.execute(_ROLLUPS, (account, since_hour))) as rows:
                for *of, unit, n in rows:
                    key = tuple(of)
                    if key not in found:
                        if len(found) == limit:
                            break
                        found[key] = {}
                    if unit is not None:
                        found[key][unit] = n
            return [
                RollupAdd(account=account, hour=hour, model=model, key_id=key_id, inc=inc, s=s, sums=sums)
                for (hour, model, key_id, inc, s), sums in found.items()
            ]

        return await self._engine.read(read)

    async def rollup_mend(self, rollup: RollupAdd, was: int | None) -> bool:
        checks.mend(rollup, was)
        values = {**msgspec.structs.asdict(rollup), "was": was}
        sums = values.pop("sums")

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(_ROLLUP_NEW if was is None else _ROLLUP_STILL, values).fetchone()
            if row is not None:
                connection.execute("DELETE FROM rollup_sums WHERE rollup = ?", row)
                connection.executemany(_ROLLUP_ADD, [(*row, unit, n) for unit, n in sums.items()])
            return row is not None

        return await self._engine.write(work)

    # --- people and keys --------------------------------------------------------------------------------------------

    async def profile_new(self, profile: Profile) -> bool:
        sql = f"INSERT INTO profiles ({_PROFILE}, email_lower) VALUES ({_marks(Profile)}, ?) ON CONFLICT DO NOTHING"
        return await self._changed(sql, *msgspec.structs.astuple(profile), profile.email.lower())

    async def profile_read(self, account: str) -> Profile | None:
        rows = await self._rows(f"SELECT {_PROFILE} FROM profiles WHERE account = ?", account)
        return _struct(Profile, rows[0]) if rows else None

    async def profile_find(self, email: str) -> Profile | None:
        rows = await self._rows(f"SELECT {_PROFILE} FROM profiles WHERE email_lower = ?", email.lower())
        return _struct(Profile, rows[0]) if rows else None

    async def profiles_page(self, after: str, limit: int) -> list[Profile]:
        checks.page(limit)
        sql = f"SELECT {_PROFILE} FROM profiles WHERE account > ? ORDER BY account LIMIT ?"
        return [_struct(Profile, row) for row in await self._rows(sql, after, limit)]

    async def profile_status(self, account: str, status: ProfileStatus, was: ProfileStatus | None = None) -> bool:
        sql = "UPDATE profiles SET status = ?1 WHERE account = ?2 AND status = coalesce(?3, status)"
        return await self._changed(sql, status, account, was)

    async def key_new(self, key: KeyDoc) -> bool:
        sql = f"INSERT INTO keys ({_KEY}) VALUES ({_marks(KeyDoc)}) ON CONFLICT DO NOTHING"
        row = {**msgspec.structs.asdict(key), "limits": msgspec.json.encode(key.limits).decode()}
        return await self._changed(sql, *row.values())

    async def key_read(self, id: str) -> KeyDoc | None:
        rows = await self._rows(f"SELECT {_KEY} FROM keys WHERE id = ?", id)
        return _key(rows[0]) if rows else None

    async def keys_of(self, account: str) -> list[KeyDoc]:
        rows = await self._rows(f"SELECT {_KEY} FROM keys WHERE account = ? ORDER BY created_ms, id", account)
        return [_key(row) for row in rows]

    async def key_limits(self) -> Mapping[str, int]:
        sql = "SELECT key, count(*) FROM keys, json_each(limits) WHERE revoked_ms IS NULL GROUP BY key"
        return dict(await self._rows(sql))

    async def key_revoke(self, id: str, at_ms: int) -> bool:
        checks.times(at_ms=at_ms)
        return await self._changed("UPDATE keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL", at_ms, id)

    # --- catalogue --------------------------------------------------------------------------------------------------

    async def catalogue_version(self) -> int:
        return await self._number("SELECT max(version) FROM catalogue")

    async def catalogue_read(self, version: int) -> CatalogueDoc | None:
        checks.amounts(version=version)
        rows = await self._rows(f"SELECT {_CATALOGUE} FROM catalogue WHERE version = ?", version)
        return _struct(CatalogueDoc, rows[0]) if rows else None

    async def catalogue_put(self, doc: CatalogueDoc) -> bool:
        checks.amounts(version=doc.version)
        sql = f"INSERT INTO catalogue ({_CATALOGUE}) VALUES ({_marks(CatalogueDoc)}) ON CONFLICT DO NOTHING"
        return await self._changed(sql, *msgspec.structs.astuple(doc))

    # --- orders and receipts ----------------------------------------------------------------------------------------

    async def order_new(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=True)
        sql = f"INSERT INTO orders ({_ORDER}) VALUES ({_marks(OrderDoc)}) ON CONFLICT DO NOTHING"
        return await self._changed(sql, *msgspec.structs.astuple(doc))

    async def order_read(self, id: str) -> OrderDoc | None:
        return _order(await self._rows(f"SELECT {_ORDER} FROM orders WHERE id = ?", id))

    async def order_paid_by(self, backend: str, payment: str) -> OrderDoc | None:
        return _order(await self._rows(f"SELECT {_ORDER} FROM orders WHERE backend = ? AND payment = ?", backend, payment))

    async def order_swap(self, doc: OrderDoc) -> bool:
        checks.order(doc, new=False)
        sql = """UPDATE OR IGNORE orders SET state = :state, payment = :payment, open = :open, rev = :rev, body = :body
                 WHERE id = :id AND backend = :backend AND rev = :rev - 1"""
        values = msgspec.structs.asdict(doc)
        return await self._engine.write(lambda connection: connection.execute(sql, values).rowcount == 1)

    async def orders_page(self, account: str | None, since_ms: int, after: str, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        checks.times(since_ms=since_ms)
        where, whose = ("", ()) if account is None else ("account = ? AND", (account,))
        sql = f"SELECT {_ORDER} FROM orders WHERE {where} (created_ms, id) > (?, ?) ORDER BY created_ms, id LIMIT ?"
        return [_known_order(row) for row in await self._rows(sql, *whose, since_ms, after, limit)]

    async def orders_open(self, limit: int) -> list[OrderDoc]:
        checks.page(limit)
        rows = await self._rows(f"SELECT {_ORDER} FROM orders WHERE open = 1 ORDER BY id LIMIT ?", limit)
        return [_known_order(row) for row in rows]

    async def receipt_last(self) -> int:
        return await self._number("SELECT max(number) FROM receipts")

    async def receipt_put(self, doc: ReceiptDoc) -> bool:
        checks.receipt(doc)
        sql = f"INSERT INTO receipts ({_RECEIPT}) VALUES ({_marks(ReceiptDoc)}) ON CONFLICT DO NOTHING"
        return await self._changed(sql, *msgspec.structs.astuple(doc))

    async def receipt_of(self, order: str) -> ReceiptDoc | None:
        rows = await self._rows(f"SELECT {_RECEIPT} FROM receipts WHERE order_id = ?", order)
        return _struct(ReceiptDoc, rows[0]) if rows else None

    # --- shelves ----------------------------------------------------------------------------------------------------

    async def shelf_put(self, shelf: str, id: str, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        sql = f"INSERT INTO shelf_docs ({_SHELF}) VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING"
        return await self._changed(sql, shelf, id, body)

    async def shelf_get(self, shelf: str, id: str) -> ShelfDoc | None:
        checks.shelf(shelf, id)
        rows = await self._rows(f"SELECT {_SHELF} FROM shelf_docs WHERE shelf = ? AND id = ?", shelf, id)
        return _struct(ShelfDoc, rows[0]) if rows else None

    async def shelf_swap(self, shelf: str, id: str, rev: int, body: bytes) -> bool:
        checks.shelf(shelf, id, body)
        checks.amounts(rev=rev)
        sql = "UPDATE shelf_docs SET body = ?, rev = rev + 1 WHERE shelf = ? AND id = ? AND rev = ?"
        return await self._changed(sql, body, shelf, id, rev)

    async def shelf_page(self, shelf: str, prefix: str, after: str, limit: int) -> list[ShelfDoc]:
        first, end = checks.shelf_range(shelf, prefix, after, limit)
        sql = f"SELECT {_SHELF} FROM shelf_docs WHERE shelf = ? AND id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [_struct(ShelfDoc, row) for row in await self._rows(sql, shelf, first, end, limit)]

    # --- ways of asking ---------------------------------------------------------------------------------------------

    async def _changed(self, sql: str, *values: Any) -> bool:
        """Whether the one statement changed a row."""
        return await self._engine.write(lambda connection: connection.execute(sql, values).rowcount == 1)

    async def _lease(self, account: str, steps: Sequence[str], values: dict[str, Any]) -> AccountDoc | None:
        """The first step holds the guard; the rest follow where it matched. The document after it, or None."""

        def work(connection: sqlite3.Connection) -> AccountDoc | None:
            if connection.execute(steps[0], values).rowcount == 0:
                return None
            for step in steps[1:]:
                connection.execute(step, values)
            return _account(connection, account)

        return await self._engine.write(work)

    async def _rows(self, sql: str, *values: Any) -> list[_Row]:
        bound = values[0] if values and isinstance(values[0], dict) else values
        return await self._engine.read(lambda connection: connection.execute(sql, bound).fetchall())

    async def _number(self, sql: str, *values: Any) -> int:
        rows = await self._rows(sql, *values)
        return int(rows[0][0] or 0)


def _account(connection: sqlite3.Connection, account: str) -> AccountDoc | None:
    row = connection.execute(f"SELECT {_ACCOUNT} FROM accounts WHERE id = ?", (account,)).fetchone()
    if row is None:
        return None
    sql = "SELECT inc, amount, seq FROM leases WHERE account = ? ORDER BY inc"
    leases = {inc: Lease(amount, seq) for inc, amount, seq in connection.execute(sql, (account,)).fetchall()}
    state, available, credited, spent, written_off, ver, log_n, log_took, want = row[1:]
    return AccountDoc(
        id=account,
        state=state,
        available=available,
        credited=credited,
        spent=spent,
        written_off=written_off,
        ver=ver,
        log=LogMark(log_n, log_took),
        leases=leases,
        holders=tuple(leases),
        want=want,
    )


def _struct(shape: type[_S], row: _Row) -> _S:
    return shape(**dict(zip(shape.__struct_fields__, row, strict=True)))


def _usage_row(record: UsageRecord) -> _Row:
    row = msgspec.structs.astuple(record)
    losses = _encode(record.losses).decode() if record.losses else "{}"
    return (*row[:_COUNTS], _encode(record.counts).decode(), *row[_COUNTS + 1 : -1], losses)


def _usage(row: _Row) -> UsageRecord:
    values = dict(zip(UsageRecord.__struct_fields__, row, strict=True))
    values["counts"], values["losses"] = msgspec.json.decode(values["counts"]), msgspec.json.decode(values["losses"])
    values["stream"], values["measured"] = bool(values["stream"]), bool(values["measured"])
    return UsageRecord(**values)


def _order(rows: Sequence[_Row]) -> OrderDoc | None:
    return _known_order(rows[0]) if rows else None


def _known_order(row: _Row) -> OrderDoc:
    order = _struct(OrderDoc, row)
    return msgspec.structs.replace(order, open=bool(order.open))


def _key(row: _Row) -> KeyDoc:
    values = dict(zip(KeyDoc.__struct_fields__, row, strict=True))
    values["limits"] = msgspec.json.decode(values["limits"])
    return KeyDoc(**values)
