"""One SQLite file: a writer thread that commits in groups, a few readers beside it, and the migrations.

It promises that a write is answered after the commit that holds it, with `synchronous=FULL`, and that each write is
whole by itself whatever happens to its neighbours in the group. Several processes may share the file; one that does not
get its turn in time raises `StoreUnavailable`, and so does every write while the file is not where it was opened: nobody would
find again what was written. It knows no table: the operations are functions of a connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

from aurixel.errors import ConfigError, StoreDamaged, StoreUnavailable

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]
_Job: TypeAlias = tuple[Work[Any], "asyncio.Future[Any]"]
_Answer: TypeAlias = tuple["asyncio.Future[Any]", Any, Exception | None]

_log: Final = logging.getLogger("aurixel.storage")

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_OLDEST_SQLITE: Final = (3, 38, 0)  # STRICT tables, RETURNING, json_each built in
_OURS: Final = 0x41585253  # application_id: "AXRS"
_GROUP: Final = 512  # operations a commit takes at most, so that no process holds the file for long
_READERS: Final = 2
_CACHE_KIB: Final = 16_384  # of the writer: records go into indexes at random, and a replay writes thousands at a time
_POLL_S: Final = 0.001
# https://www.sqlite.org/rescode.html: what is the statement's fault, and so ours
_BUGS: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE})


class Engine:
    """The file and its threads. `patience` is how long, in seconds, a write waits for other processes."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._readers: ThreadPoolExecutor | None = None
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._file: os.stat_result | None = None
        self._gone = False

    async def open(self) -> None:
        """Make the file if there is none, bring its schema up to date, start the threads. `ConfigError` if it cannot be."""
        loop = asyncio.get_running_loop()
        connections = await loop.run_in_executor(None, self._connect)
        for reader in connections[1:]:
            self._idle.put(reader)
        self._loop = loop
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        # A daemon: a process that ends without closing must not hang, and loses nothing that was answered.
        self._writer = threading.Thread(target=self._write_all, args=(connections[0],), name="store-write", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """Finish what is queued and let go of the file. Closing twice is closing once."""
        writer, readers, loop = self._writer, self._readers, self._loop
        self._writer = self._readers = self._loop = None
        if writer is None or readers is None or loop is None:
            return
        self._jobs.put(None)
        await loop.run_in_executor(None, self._stop, writer, readers)

    def _stop(self, writer: threading.Thread, readers: ThreadPoolExecutor) -> None:
        writer.join()
        readers.shutdown()
        for _ in range(_READERS):
            self._idle.get().close()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in the next commit, whole by itself; its result after that commit, or what it raised."""
        if self._loop is None:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((work, future))
        return await future

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one snapshot that holds every write answered so far."""
        if self._loop is None or self._readers is None:
            raise StoreUnavailable("the store is closed")
        return await self._loop.run_in_executor(self._readers, self._read, work)

    # --- in the threads ---------------------------------------------------------------------------------------------

    def _read(self, work: Work[T]) -> T:
        connection = self._idle.get()
        try:
            with _translated(), self._turn(connection, "BEGIN"):
                return work(connection)
        finally:
            self._idle.put(connection)

    def _write_all(self, connection: sqlite3.Connection) -> None:
        stopping = False
        while not stopping:
            group: list[_Job] = []
            while (job := self._jobs.get()) is not None:
                group.append(job)
                if len(group) == _GROUP or self._jobs.empty():
                    break
            stopping = job is None
            if group:
                self._answer(self._commit(connection, group))
        connection.close()

    def _commit(self, connection: sqlite3.Connection, group: list[_Job]) -> list[_Answer]:
        try:
            self._see_file()
            with _translated(), self._turn(connection, "BEGIN IMMEDIATE"):
                if len(group) > 1:
                    return [_one(connection, *job) for job in group]
                # Alone it needs no savepoint, for which SQLite copies every page it changes.
                work, future = group[0]
                return [(future, work(connection), None)]
        except Exception as error:  # noqa: BLE001 - nothing of the group is committed, whatever went wrong: all are told
            return [(future, None, error) for _, future in group]

    def _see_file(self) -> None:
        """`StoreUnavailable` where the path is not our open file any more; said once, and once when it is back."""
        try:
            gone = self._file is None or not os.path.samestat(self._file, os.stat(self._path))
        except OSError:
            gone = True
        if gone != self._gone:
            self._gone = gone
            if gone:
                mend = "put it back, or stop, mend store.url and start again"
                _log.error("the store's file %s was moved or deleted while in use: %s", self._path, mend)
            else:
                _log.warning("the store's file %s is back", self._path)
        if gone:
            raise StoreUnavailable("the store's file was moved or deleted")

    def _answer(self, answers: list[_Answer]) -> None:
        loop = answers[0][0].get_loop()
        try:
            loop.call_soon_threadsafe(_deliver, answers)
        except RuntimeError:
            return  # the loop is closed: nobody is left to tell

    @contextmanager
    def _turn(self, connection: sqlite3.Connection, begin: str) -> Iterator[None]:
        """A write transaction, once the other processes let us."""
        self._until_free(connection, begin)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # --- opening ----------------------------------------------------------------------------------------------------

    def _connect(self) -> list[sqlite3.Connection]:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigError(
                f"SQLite {sqlite3.sqlite_version} is too old",
                place="store.url",
                mend="use a Python with SQLite 3.38 or later",
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # e-mails and hashes of keys: nobody else's
        except OSError as error:
            raise self._unusable(f"cannot be opened ({error.strerror})") from None
        connections: list[sqlite3.Connection] = []
        try:
            with _translated():
                connections.extend(self._connection() for _ in range(1 + _READERS))
                with self._turn(connections[0], "BEGIN"):
                    version = self._version(connections[0])  # before another program's file is touched
                self._until_free(connections[0], "PRAGMA journal_mode = WAL")
                if version < len(_migrations()):
                    self._migrate(connections[0])
                for reader in connections[1:]:
                    reader.execute("PRAGMA query_only = ON")
                connections[0].execute("PRAGMA busy_timeout = 0")  # see _until_free
                connections[0].execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        except BaseException as error:
            for connection in connections:
                connection.close()
            if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
                raise self._unusable("is not a SQLite database") from None
            raise
        self._file, self._gone = os.stat(self._path), False
        return connections

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=self._patience, cached_statements=256
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")  # the first look into the file
        except BaseException:
            connection.close()
            raise
        return connection

    def _until_free(self, connection: sqlite3.Connection, statement: str) -> None:
        """SQLite's own waiting backs off to 100 ms, and starves beside a busy writer: this asks about every millisecond."""
        until = time.monotonic() + self._patience
        while True:
            try:
                connection.execute(statement).fetchall()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(_POLL_S * (0.5 + random.random()))

    def _migrate(self, connection: sqlite3.Connection) -> None:
        known = _migrations()
        with self._turn(connection, "BEGIN EXCLUSIVE"):
            for path in known[self._version(connection) :]:
                for statement in _statements(path.read_text("utf-8")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_OURS}")
            connection.execute(f"PRAGMA user_version = {len(known)}")

    def _version(self, connection: sqlite3.Connection) -> int:
        """The schema in the file, 0 for none yet; `ConfigError` where it is not ours or beyond us."""
        version, newest = _pragma(connection, "user_version"), len(_migrations())
        if _pragma(connection, "application_id") != _OURS:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise self._unusable("holds another program's data")
            return 0
        if version > newest:
            raise ConfigError(
                f"the store is of schema {version}, this Aurixel knows up to {newest}",
                place=str(self._path),
                mend="use the version of Aurixel that wrote it, or a newer one",
                code="store_too_new",
            )
        return version

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(f"the store's file {self._path} {why}", place="store.url", mend="name another file")


def _one(connection: sqlite3.Connection, work: Work[Any], future: asyncio.Future[Any]) -> _Answer:
    """One operation of a group, whole by itself. Raises only where the transaction as a whole is gone."""
    connection.execute("SAVEPOINT operation")
    try:
        with _translated():
            result = work(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return future, None, error
    connection.execute("RELEASE operation")
    return future, result, None


def _deliver(answers: list[_Answer]) -> None:
    for future, result, error in answers:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's own troubles (locked, full, unreadable, damaged) become `StoreUnavailable`; our bugs stay what they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _BUGS or code & 0xFF == sqlite3.SQLITE_NOTADB:
            raise
        if code & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise StoreDamaged(error.sqlite_errorname) from None
        raise StoreUnavailable(f"SQLite: {error.sqlite_errorname}") from None


def _migrations() -> list[Path]:
    return sorted(MIGRATIONS.glob("[0-9]*.sql"))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a migration, one by one: `executescript` would commit what is open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise ValueError("a migration ends in the middle of a statement")
