"""The journal of one incarnation: what it will do and has done, on local disk before anyone else hears of it.

It promises that a line is with the kernel when `append` returns (a killed process loses nothing), and on disk when `sync`
returns. Its files are segments, `<dir>/<inc>/<number>.log`, of which one is written: the next begins with all that is still
open, and once that is on disk the older ones go. So a journal is as long as what is open and one segment, however long the
node runs. It knows neither the store nor what is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from aurixel.errors import JournalUnwritable
from aurixel.ledger.contracts import LedgerMetrics, LedgerSettings
from aurixel.ledger.lines import FORMAT, Begun, Entry, Head, pack, pack_all

SYNC_WITHIN_S: Final = 30.0
# As long as the longest lines, and nothing but what a reader ignores at the end of a file.
_TRIAL: Final = b"\0" * 4096
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def segment(folder: Path, number: int) -> Path:
    """The path of a segment."""
    return folder / f"{number:08d}.log"


def segments(folder: Path) -> list[Path]:
    """The segments that are there, in order."""
    return sorted(path for path in folder.glob("*.log") if path.stem.isdigit() and len(path.stem) == 8)


class Journal:
    """An open journal. `append` is synchronous; `sync` groups its callers into as few fsyncs as the disk allows."""

    def __init__(self, path: Path, end: int, crc: int, settings: LedgerSettings, metrics: LedgerMetrics) -> None:
        self.path = path
        self.always = settings.fsync == "always"
        self.failed = self._dropped = False
        self.refusing = False  # the last line was not taken
        self._inc, self._number = path.parent.name, int(path.stem)
        self._fd = os.open(path, _FLAGS, 0o600)
        self._end, self._crc = end, crc
        # A position counts what was written to all segments: what is durable up to one is durable whichever file it is in.
        self._size = self._synced = end
        self._behind: list[tuple[int, Path]] = []  # open segments that go once the present one is durable
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
            journal = cls(segment(folder, 1), 0, 0, settings, metrics)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise JournalUnwritable(f"cannot be made ({error.strerror})", place=str(folder)) from error
        try:
            journal.append(Head(FORMAT, inc, 1))
            journal.append(Begun(0))
            await journal.sync()
            await journal._sync_names(folder, settings.journal)
        except JournalUnwritable:
            # Nobody has heard of it: the next try has another name.
            journal.drop()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:
            journal.drop()
            raise
        return journal

    @classmethod
    async def resume(cls, path: Path, end: int, crc: int, settings: LedgerSettings, metrics: LedgerMetrics) -> Journal:
        """A dead process's journal, to go on behind its last whole line, all of it durable.

        `end` and `crc` are where that line ends, and its checksum. `JournalUnwritable` where it cannot be written.
        """
        try:
            os.truncate(path, end)
            journal = cls(path, end, crc, settings, metrics)
        except OSError as error:
            raise JournalUnwritable(f"cannot be written ({error.strerror})", place=str(path)) from error
        journal._synced = -1
        try:
            await journal.sync()
            await journal._sync_names(path.parent)
        except BaseException:
            journal.drop()
            raise
        return journal

    async def _sync_names(self, *folders: Path) -> None:
        """What is in these folders is there after a power failure."""
        try:
            await self._loop.run_in_executor(self._pool, _sync_folders, *folders)
        except OSError as error:
            raise JournalUnwritable(f"cannot be made durable ({error.strerror})", place=str(folders[0])) from error

    def append(self, entry: Entry) -> None:
        """Hand one line to the kernel. `JournalUnwritable` if it would not have it: then nothing of the line is left."""
        if self.failed:
            raise JournalUnwritable("the journal is out of order", place=str(self.path))
        line, crc = pack(entry, self._crc)
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self.refusing = True
            self._cut_back()
            raise JournalUnwritable(f"cannot write ({error.strerror})", place=f"{self.path}:{self._end}") from error
        if written != len(line):
            self.refusing = True
            self._cut_back()
            raise JournalUnwritable("the disk is full", place=f"{self.path}:{self._end}")
        self.refusing = False
        self._crc = crc
        self._end += written
        self._size += written
        if self._interval is not None and self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def rotate(self, carried: Iterable[Entry], s: int) -> None:
        """Go on in a new segment that begins with `carried`, all that is open; `s` is the number of the last frame made.

        The caller lets nothing happen between looking at what is open and this. `JournalUnwritable` if the new segment
        cannot be written: then the present one goes on, and nothing is left of the other. The older ones are removed later,
        once the new one is on disk, in every `fsync` mode.
        """
        if self.failed:
            raise JournalUnwritable("the journal is out of order", place=str(self.path))
        number = self._number + 1
        path = segment(self.path.parent, number)
        data, crc = pack_all(self._beginning(number, carried, s))
        try:
            fd = os.open(path, _FLAGS | os.O_TRUNC, 0o600)
        except OSError as error:
            raise JournalUnwritable(f"cannot be made ({error.strerror})", place=str(path)) from error
        try:
            _write_all(fd, data)
        except OSError as error:
            # Should it be left over, it is a beginning without its last line: nobody reads more from it than that.
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise JournalUnwritable(f"cannot write ({error.strerror})", place=str(path)) from error
        self._behind.append((self._fd, self.path))
        self.path, self._fd, self._number = path, fd, number
        self._end, self._crc = len(data), crc
        self._size += len(data)
        if self._running is None:
            self._start()

    def _beginning(self, number: int, carried: Iterable[Entry], s: int) -> Iterator[Entry]:
        return chain((Head(FORMAT, self._inc, number),), carried, (Begun(s),))

    def fault(self) -> JournalUnwritable | None:
        """What keeps it from its work: it was moved or deleted, or it refused a line and would refuse one now."""
        if self.failed:
            return JournalUnwritable("the journal is out of order", place=str(self.path))
        if not self._in_place():
            return JournalUnwritable("was moved or deleted under this node", place=str(self.path))
        if self.refusing:
            try:
                self.refusing = os.write(self._fd, _TRIAL) != len(_TRIAL)
            except OSError:
                pass
            self._cut_back()
        return JournalUnwritable("cannot be written", place=str(self.path)) if self.refusing else None

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    @property
    def size(self) -> int:
        """How far it has been written, over all segments: a position for `sync`."""
        return self._size

    @property
    def length(self) -> int:
        """The bytes of the present segment."""
        return self._end

    async def sync(self, upto: int | None = None) -> None:
        """Everything appended so far, or up to that size, is on disk when this returns. `JournalUnwritable` if it cannot be."""
        target = self._size if upto is None else upto
        while self._synced < target:
            if self.failed:
                raise JournalUnwritable("the journal is out of order", place=str(self.path))
            running = self._start()
            done, _ = await asyncio.wait((running,), timeout=SYNC_WITHIN_S)
            if not done:
                raise JournalUnwritable("the disk does not answer", place=str(self.path))

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
        for fd, _ in self._behind:
            os.close(fd)
        self._behind = []

    def _tick(self) -> None:
        self._timer = None
        if self._synced < self._size and not self.failed:
            self._start()

    def _start(self) -> asyncio.Future[float]:
        if self._running is None:
            behind, self._behind = self._behind, []
            self._running = self._loop.run_in_executor(self._pool, _sync, self._fd, self.path, behind)
            self._running.add_done_callback(partial(self._ended, self._size))
        return self._running

    def _ended(self, size: int, running: asyncio.Future[float]) -> None:
        self._running = None
        if running.cancelled() or running.exception() is not None:
            # What the kernel could not write it may have forgotten: a later fsync that succeeds proves nothing.
            self.failed = True
            return
        self._metrics.synced(running.result())
        self._synced = max(self._synced, size)
        if self.failed:
            return
        if self._behind:
            self._start()
        elif self._interval is not None and self._timer is None and self._synced < self._size:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self.failed = True


def _sync(fd: int, path: Path, behind: list[tuple[int, Path]]) -> float:
    """Make a segment durable; where it is new, its name too, and then let those behind it go."""
    started = time.perf_counter()
    try:
        os.fdatasync(fd)
        if behind:
            _sync_folders(path.parent)
    finally:
        for old, _ in behind:
            os.close(old)
    seconds = time.perf_counter() - started
    if behind:
        for older in segments(path.parent):
            if older < path:
                with contextlib.suppress(OSError):  # it does no harm, and is tried again at the next rotation
                    older.unlink()
    return seconds


def _write_all(fd: int, data: bytes) -> None:
    """`OSError` unless all of it was taken."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folders(*folders: Path) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
