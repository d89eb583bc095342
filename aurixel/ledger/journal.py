"""The journal of one incarnation: what it will do and has done, on local disk before anyone else hears of it.

It promises that a line is with the kernel when `append` returns (a killed process loses nothing), on disk when `sync`
returns, and that a line read back is the line written: each carries its length and checksum. An unfinished last line is
what a crash leaves and is dropped; any other damage is a `JournalError` that names file and offset, never guessed around.
It knows nothing of the store.

A line: eight hex digits of CRC-32, the length of the JSON, the JSON. The files are `<dir>/<inc>/<number>.log`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from aurixel.errors import JournalError
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, Settlement
from aurixel.values import Nanos

FORMAT: Final = 1
FIRST: Final = "00000001.log"
SYNC_WITHIN_S: Final = 30.0
# As long as the longest lines, and nothing but what a reader ignores at the end of a file.
_TRIAL: Final = b"\0" * 4096


class Head(msgspec.Struct, frozen=True, tag="head", tag_field="t"):
    """The first line of a file."""

    format: int
    inc: str


class Settled(msgspec.Struct, frozen=True, tag="settled", tag_field="t"):
    """The end of a request whose intent is in an earlier line."""

    request_id: str
    settlement: Settlement


class Frozen(msgspec.Struct, frozen=True, tag="frame", tag_field="t"):
    """A frame: settlements that are posted together as number `s`, right after `prev` (None: never posted)."""

    s: int
    account: str
    prev: int | None
    requests: tuple[str, ...]
    cost: Nanos


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="t"):
    """Frame `s` is in the store, whole."""

    s: int


Entry: TypeAlias = Head | Intent | Settled | Frozen | Done

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def pack(entry: Entry) -> bytes:
    """The line of an entry."""
    body = _encode(entry)
    return b"%08x %d %b\n" % (crc32(body), len(body), body)


class Line(msgspec.Struct, frozen=True):
    """An entry and where it stands: `place` is `file:offset`, `end` the offset after it."""

    entry: Entry
    place: str
    end: int


def unpack(data: bytes, name: str) -> Iterator[Line]:
    """The lines of a file, but for a torn last one; `JournalError` at the first damaged one."""
    start = 0
    while (newline := data.find(b"\n", start)) >= 0:
        place = f"{name}:{start}"
        line = data[start : newline + 1]
        body = line[9:-1].partition(b" ")[2]
        if line != b"%08x %d %b\n" % (crc32(body), len(body), body):
            raise JournalError("this line is damaged", place=place)
        try:
            entry = _decode(body)
        except msgspec.MsgspecError as error:
            raise JournalError("this line is not of a known kind or version", place=place) from error
        yield Line(entry, place, newline + 1)
        start = newline + 1
    # A cut line is shorter than it says. One as long as it says lost its line end to something other than a crash;
    # a file system may leave zeros after a power failure.
    tail = data[start:].rstrip(b"\0")
    length, _, body = tail[9:].partition(b" ")
    if length.isdigit() and len(length) < 20 and len(body) > int(length):
        raise JournalError("this line has lost its end", place=f"{name}:{start}")


class Journal:
    """An open journal file. `append` is synchronous; `sync` groups its callers into as few fsyncs as the disk allows."""

    def __init__(self, path: Path, size: int, settings: LedgerSettings, metrics: LedgerMetrics) -> None:
        self.path = path
        self.always = settings.fsync == "always"
        self.failed = self._dropped = False
        self.refusing = False  # the last line was not taken
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = self._synced = size
        self._interval = settings.fsync_interval if settings.fsync == "batch" else None
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Future[float] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="journal-sync")

    @classmethod
    async def create(cls, inc: str, settings: LedgerSettings, metrics: LedgerMetrics) -> Journal:
        """A new incarnation's journal, its directory durable."""
        folder = settings.journal / inc
        try:
            folder.mkdir(mode=0o700)
            journal = cls(folder / FIRST, 0, settings, metrics)
        except OSError as error:
            raise JournalError(f"cannot be made ({error.strerror})", place=str(folder)) from error
        try:
            journal.append(Head(FORMAT, inc))
            await journal.sync()
            await journal._loop.run_in_executor(journal._pool, _sync_folders, folder, settings.journal)
        except BaseException:
            journal.drop()
            raise
        return journal

    def append(self, entry: Entry) -> None:
        """Hand one line to the kernel. `JournalError` if it would not have it: then nothing of the line is left."""
        if self.failed:
            raise JournalError("the journal is out of order", place=str(self.path))
        line = pack(entry)
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self.refusing = True
            self._cut_back()
            raise JournalError(f"cannot write ({error.strerror})", place=f"{self.path}:{self._size}") from error
        if written != len(line):
            self.refusing = True
            self._cut_back()
            raise JournalError("the disk is full", place=f"{self.path}:{self._size}")
        self.refusing = False
        self._size += written
        if self._interval is not None and self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def fault(self) -> JournalError | None:
        """What keeps it from its work: it was moved or deleted, or it refused a line and would refuse one now."""
        if self.failed:
            return JournalError("the journal is out of order", place=str(self.path))
        if not self._in_place():
            return JournalError("was moved or deleted under this node", place=str(self.path))
        if self.refusing:
            try:
                self.refusing = os.write(self._fd, _TRIAL) != len(_TRIAL)
            except OSError:
                pass
            self._cut_back()
        return JournalError("cannot be written", place=str(self.path)) if self.refusing else None

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    @property
    def size(self) -> int:
        """How far it has been written."""
        return self._size

    async def sync(self, upto: int | None = None) -> None:
        """Everything appended so far, or up to that size, is on disk when this returns. `JournalError` if it cannot be."""
        target = self._size if upto is None else upto
        while self._synced < target:
            if self.failed:
                raise JournalError("the journal is out of order", place=str(self.path))
            running = self._start()
            done, _ = await asyncio.wait((running,), timeout=SYNC_WITHIN_S)
            if not done:
                raise JournalError("the disk does not answer", place=str(self.path))

    async def close(self) -> None:
        """Make it durable and let go."""
        try:
            await self.sync()
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go at once, as a crash would: what was appended stays with the kernel."""
        if self._dropped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.failed = self._dropped = True
        self._pool.shutdown(wait=self._running is not None)
        os.close(self._fd)

    def _tick(self) -> None:
        self._timer = None
        if self._synced < self._size and not self.failed:
            self._start()

    def _start(self) -> asyncio.Future[float]:
        if self._running is None:
            self._running = self._loop.run_in_executor(self._pool, self._sync_now)
            self._running.add_done_callback(partial(self._ended, self._size))
        return self._running

    def _sync_now(self) -> float:
        started = time.perf_counter()
        os.fdatasync(self._fd)
        return time.perf_counter() - started

    def _ended(self, size: int, running: asyncio.Future[float]) -> None:
        self._running = None
        if running.cancelled() or running.exception() is not None:
            # What the kernel could not write it may have forgotten: a later fsync that succeeds proves nothing.
            self.failed = True
            return
        self._metrics.synced(running.result())
        self._synced = max(self._synced, size)
        if self._interval is not None and self._timer is None and self._synced < self._size and not self.failed:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self.failed = True


def _sync_folders(*folders: Path) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
