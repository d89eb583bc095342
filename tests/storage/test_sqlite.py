"""What only the store in a file can get wrong: its schema, its neighbours, its plans, and a process that dies."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aurixel.errors import ConfigError, StoreUnavailable
from aurixel.storage import Lease, Store, open_store
from aurixel.storage.sqlite import SqliteStore
from aurixel.storage.sqlite_engine import MIGRATIONS
from tests.harness.process import Server
from tests.storage.samples import every_call, funded, leased, movement, order, post, read, record, rollup

NEWEST = max(int(path.name[:4]) for path in MIGRATIONS.glob("*.sql"))
VERSION_1 = (Path(__file__).parent / "version_1.sql").read_text("utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def opened(path: Path, patience: float = 5.0) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, patience=patience)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def schema(path: Path) -> tuple[int, list[tuple[str, ...]]]:
    """The version, and every table and index with its SQL, white space aside."""
    with raw(path) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    squeezed = [(kind, name, re.sub(r"\s*([(),])\s*", r"\1", " ".join(sql.split()))) for kind, name, sql in rows]
    return version, squeezed


# --- where ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite://x.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?mode=ro", "redis://x", ""]
)
def test_a_url_that_names_no_store(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.place == "store.url"
    assert "sqlite:///" in caught.value.mend


async def test_relative_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///deep/er/x.db", f"sqlite:///{tmp_path}/y.db"):
        store = open_store(url)
        await store.open()
        await store.close()
    assert (tmp_path / "deep/er/x.db").exists()
    assert (tmp_path / "y.db").exists()


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.account_new("a")
        files = list(path.parent.iterdir())
        assert len(files) == 3  # with its log and its index of the log
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    text, other, folder = tmp_path / "text", tmp_path / "other.db", tmp_path / "folder"
    text.write_text("not a database, but long enough to be read as one; " * 40)
    with raw(other) as connection:
        connection.execute("CREATE TABLE things (x)")
    folder.mkdir()
    for path, why in (
        (text, "not a SQLite"),
        (other, "another program"),
        (folder, "directory"),
        (text / "x.db", "directory|exists"),
    ):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ConfigError, match=f"(?i){why}") as caught:
            await SqliteStore(path).open()
        assert (caught.value.place, str(path) in caught.value.message) == ("store.url", True)
        assert not path.is_file() or path.read_bytes() == before


# --- migrations -----------------------------------------------------------------------------------------------------------


async def test_an_empty_file_gets_every_migration(path: Path) -> None:
    async with opened(path):
        pass
    assert schema(path)[0] == NEWEST


async def test_an_older_file_is_brought_up_and_keeps_what_it_holds(path: Path, tmp_path: Path) -> None:
    with raw(path) as connection:
        connection.executescript(VERSION_1)
    async with opened(path) as store:
        assert (await read(store)).leases == {"n1": Lease(393, 6)}
        assert await store.usage_page("a", 0, "", 9) == [record()]
        assert await store.movement_at("a", 1) == movement(took=1000)
        await store.post([record("r2", s=7)], [rollup(7)], [post(6, 7)])
        assert (await store.usage_sums("a", 0, "model"))[0].sums == {"requests": 2, "cost": 14}
        assert (await read(store)).spent == 14
    async with opened(tmp_path / "new.db"):
        pass
    assert schema(path) == schema(tmp_path / "new.db")


def test_the_older_file_is_what_the_first_migration_made(path: Path, tmp_path: Path) -> None:
    """Who edits a migration that is out there, instead of adding one, is told so."""
    with raw(path) as connection, raw(tmp_path / "first.db") as first:
        connection.executescript(VERSION_1)
        first.executescript((MIGRATIONS / "0001_start.sql").read_text("utf-8"))
    assert schema(path)[1] == schema(tmp_path / "first.db")[1]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    with raw(path) as connection:
        connection.executescript(VERSION_1)
        connection.execute("CREATE INDEX usage_by_time ON usage (at_ms)")
    before = schema(path)
    with pytest.raises(sqlite3.OperationalError, match="usage_by_time"):
        await SqliteStore(path).open()
    assert schema(path) == before


async def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with raw(path) as connection:
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    with pytest.raises(ConfigError, match=f"schema {NEWEST + 1}, this Aurixel knows up to {NEWEST}") as caught:
        await SqliteStore(path).open()
    assert caught.value.code == "store_too_new"
    assert schema(path)[0] == NEWEST + 1


async def test_many_open_one_new_file_at_once(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    assert sum(await asyncio.gather(*(store.account_new("a") for store in stores))) == 1
    await asyncio.gather(*(store.close() for store in stores))


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted(MIGRATIONS.iterdir()) if path.suffix == ".sql"]
    assert numbers == list(range(1, NEWEST + 1))


# --- neighbours -----------------------------------------------------------------------------------------------------------


async def test_a_locked_file_is_a_store_unavailable_and_then_is_not(path: Path) -> None:
    async with opened(path, patience=0.05) as store:
        await funded(store)
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            for call in (store.account_new("b"), store.post([record()], [], []), store.ping()):
                with pytest.raises(StoreUnavailable, match="SQLITE_BUSY"):
                    await call
            assert (await read(store)).available == 1000  # readers do not wait
            other.execute("ROLLBACK")
        assert await store.account_new("b")
        assert await store.usage_page("a", 0, "", 9) == []


async def test_a_writer_gets_its_turn_beside_a_busy_one(path: Path) -> None:
    """SQLite's own waiting starves here: it backs off to a tenth of a second, and a busy writer leaves gaps of microseconds."""
    async with opened(path) as busy, opened(path) as other:
        await busy.account_new("a")
        done = asyncio.Event()

        async def hammer() -> None:
            while not done.is_set():
                await busy.account_want("a", 1)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(hammer())
            for number in range(20):
                assert await other.account_new(f"b{number}")
            done.set()


async def test_one_that_fails_in_a_group_leaves_the_others(path: Path) -> None:
    async with opened(path) as store:
        with raw(path) as other:
            other.execute(
                """CREATE TRIGGER no BEFORE INSERT ON accounts WHEN new.id = 'a7'
                   BEGIN SELECT raise(ABORT, 'not this one'); END"""
            )
        calls = [store.account_new(f"a{number}") for number in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers.pop(7), sqlite3.IntegrityError)
        assert answers == [True] * 19
        assert len(await store.accounts_page("", 99)) == 19


async def test_a_batch_is_all_or_nothing(path: Path) -> None:
    async with opened(path) as store:
        before = await leased(store)
        with raw(path) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON rollup_sums BEGIN SELECT raise(ABORT, 'no'); END")
        with pytest.raises(sqlite3.IntegrityError):
            await store.post([record()], [rollup()], [post()])
        assert await store.usage_page("a", 0, "", 9) == []
        assert await read(store) == before
        with raw(path) as other:
            other.execute("DROP TRIGGER no")
        await store.post([record()], [rollup()], [post()])
        assert (await store.usage_sums("a", 0, "model"))[0].sums == {"requests": 1, "cost": 7}


async def test_a_full_disk_is_a_store_unavailable_and_then_is_not(path: Path) -> None:
    async with opened(path) as store:
        await funded(store)
        pages = await store._engine.write(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await store._engine.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        records = [record(f"r{number}") for number in range(500)]
        with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
            await store.post(records, [], [])
        assert await store.usage_page("a", 0, "", 9) == []
        await store._engine.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall())
        await store.post(records, [], [])
        assert await store.usage_cost("a") == 3500


# --- ends -----------------------------------------------------------------------------------------------------------------


async def test_close_answers_what_is_queued_and_then_refuses(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.account_new("a")
    await store.open()
    waiting = asyncio.gather(*(store.account_new(f"a{number}") for number in range(2000)))
    await asyncio.sleep(0)
    await store.close()
    assert await waiting == [True] * 2000
    for call in (store.account_new("b"), store.account_read("a1"), store.ping()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call


async def test_a_caller_that_gave_up_disturbs_nobody(path: Path) -> None:
    async with opened(path) as store, asyncio.TaskGroup() as group:
        gone = [group.create_task(store.account_new(f"a{number}")) for number in range(50)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        assert await store.account_new("b")
        assert len(await store.accounts_page("", 99)) == 51  # given up, and done all the same


async def test_a_commit_is_on_the_disk(path: Path) -> None:
    """No test can pull the plug: the settings that make SQLite wait for the disk are read back."""
    async with opened(path) as store:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
            sql = f"PRAGMA {pragma}"
            assert await store._engine.write(lambda connection, sql=sql: connection.execute(sql).fetchone()) == (value,)


WRITER = """
import asyncio, sys
from aurixel.storage.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    print("open", flush=True)
    async def write(name):
        for number in range(10**6):
            await store.account_new(f"{name}-{number}")
            print(f"{name}-{number}", flush=True)
    await asyncio.gather(*(write(name) for name in range(5)))

asyncio.run(main())
"""


async def test_kill_9_takes_nothing_that_was_answered(path: Path) -> None:
    with Server([sys.executable, "-c", WRITER, str(path)]) as server:
        assert server.line(30) == "open"
        answered = [server.line(30) for _ in range(500)]
        server.kill()
    async with opened(path) as store:
        found = await store.accounts_read(answered)
        assert set(found) == set(answered)


# --- plans ----------------------------------------------------------------------------------------------------------------

# Small tables that are read whole on purpose, and the index that holds nothing but what is asked for.
WHOLE = re.compile(r"SCAN (nodes|keys|json_each|movements USING INDEX movements_open|orders USING INDEX orders_open)\b")


async def test_no_statement_reads_more_than_it_asks_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, None] = {}
    connect = sqlite3.connect

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda sql: seen.setdefault(" ".join(sql.split())))
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    async with opened(path) as store:
        seen.clear()
        await every_call(store)
        await fill(store)
        with closing(connect(path)) as connection:
            connection.execute("ANALYZE")
            plans = {sql: connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall() for sql in seen if explainable(sql)}
    assert len(plans) > 40
    faults = [
        f"{sql}\n  {step[3]}"
        for sql, steps in plans.items()
        for step in steps
        if (step[3].startswith("SCAN") and not WHOLE.match(step[3])) or ("TEMP B-TREE" in step[3] and sorts(sql))
    ]
    assert faults == [], "\n".join(faults)


def explainable(sql: str) -> bool:
    return sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))


def sorts(sql: str) -> bool:
    """Reports, open movements and one frame's records are sorted once found; the rest comes in the order of an index."""
    return not re.search(r"GROUP BY|took IS NULL|min\(s\)", sql)


async def fill(store: Store) -> None:
    """Enough rows that the planner has something to choose between."""
    for number in range(20):
        account = f"account {number}"
        records = [record(f"{account} {n}", s=n, account=account, at_ms=n) for n in range(50)]
        rollups = [rollup(1, account, hour=hour) for hour in range(50)]
        await store.post(records, rollups, [])
        await store.account_new(account)
        for n in range(50):
            await store.order_new(order(f"{account} {n}", account, created_ms=n, payment=f"{account} {n}", open=n == 7))


# --- a file that is taken away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["moved", "replaced"])
async def test_a_file_that_is_moved_under_a_running_gateway_is_noticed(path: Path, how: str, expected_logs: Any) -> None:
    """What is written to it would be found by nobody; said once, however often it is asked."""
    expected_logs("aurixel.storage", f"{re.escape(str(path))} was moved or deleted", level=40, times=1)
    expected_logs("aurixel.storage", "is back", times=1)
    aside = path.with_name("aside")
    async with opened(path) as store:
        await store.ping()
        os.rename(path, aside)
        if how == "replaced":
            os.close(os.open(path, os.O_CREAT))
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.ping()
        with pytest.raises(StoreUnavailable):
            await store.account_new("a")
        os.replace(aside, path)
        await store.ping()
        assert await store.account_new("a")


async def test_a_file_that_is_deleted_under_a_running_gateway_is_noticed(path: Path, expected_logs: Any) -> None:
    expected_logs("aurixel.storage", "was moved or deleted", level=40, times=1)
    async with opened(path) as store:
        os.unlink(path)
        with pytest.raises(StoreUnavailable):
            await store.ping()
