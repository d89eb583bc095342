"""Rotation: the next segment says what all before it said, and a crash or a power failure at any step of it loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aurixel.ledger import Ledger, verify
from aurixel.ledger.inspection import inspect
from aurixel.ledger.journal import segment, segments
from aurixel.ledger.posting import post_round
from aurixel.ledger.replay import Replay
from aurixel.ledger.rotation import rotate, rotate_when_full
from aurixel.storage import Store
from aurixel.storage.sqlite import SqliteStore
from tests.harness.guard import ExpectedLogs
from tests.harness.process import Server
from tests.ledger.disk import Disk
from tests.ledger.faults import Blown, Fuse
from tests.ledger.kit import BRISK, account, crash, ending, eventually, fund, intent, ledger, records, request
from tests.ledger.rotating_node import COST
from tests.ledger.test_recovery import CREDIT, Day, come_back, the_accounts
from tests.storage.model import MemoryStore


def said(replay: Replay) -> Any:
    """What a replay goes by."""
    frames = {s: frame for s, (frame, _) in replay.frames.items()}
    ended = {account: list(items.items()) for account, items in replay.ended.items()}
    return replay.begun, ended, frames, replay.last_s


def read(node: Ledger, path: Path) -> Replay:
    """What one segment says."""
    replay = Replay(node.inc, path)
    assert replay.read()
    return replay


async def gone(folder: Path, count: int) -> bool:
    return len(segments(folder)) == count


async def test_the_next_segment_says_what_all_before_it_said(memory: MemoryStore, tmp_path: Path) -> None:
    """With requests that run, that ended, that are frozen and not confirmed, and that are posted."""
    await fund(memory, "a", CREDIT)
    await fund(memory, "b", CREDIT)
    node = ledger(memory, tmp_path)
    await node.start()
    books, folder = node._open_books(), tmp_path / node.inc
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3):
            await request(node, 5, 100, "a", f"posted{number}")
        await post_round(books)
        for name in "ab":
            await stack.enter_async_context(node.hold(intent(name, f"runs-{name}"), 10, 10))
            for number in range(3):
                await request(node, 7 + number, 100, name, f"ended-{name}{number}")
            books.tab(name).freeze()
            await request(node, 1, 100, name, f"later-{name}")
        before = segment(folder, 1).read_bytes()
        for number in (2, 3):
            rotate(books)
            await eventually(partial(gone, folder, 1))
            (only,) = segments(folder)
            assert only == segment(folder, number)
            segment(folder, 1).write_bytes(before)
            assert said(read(node, only)) == said(read(node, segment(folder, 1)))
            assert read(node, only).confirmed == {"a": 1, "b": 2}
            segment(folder, 1).unlink()
        await crash(node)
        books.void = True  # its memory is gone
    await come_back(memory, tmp_path)
    spent = {name: (await account(memory, name)).spent for name in "ab"}
    assert spent == {"a": 3 * 5 + 7 + 8 + 9 + 1, "b": 7 + 8 + 9 + 1}
    assert (await verify(memory)).ok


async def test_a_request_that_runs_for_an_hour_keeps_no_segment(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1_000_000)
    node = ledger(store, tmp_path / "j", segment=20_000, fsync="batch")
    await node.start()
    books, folder = node._open_books(), tmp_path / "j" / node.inc
    rotations = 0
    async with node.hold(intent("a", "long"), 10, 10) as running:
        for number in range(1000):
            await request(node, 1, 10, "a", f"r{number}")
            if number % 50 == 0:
                await post_round(books)
            before = books.journal.path
            rotate_when_full(books)
            rotations += books.journal.path != before
            assert books.journal.length < 40_000
        assert rotations > 5
        await eventually(partial(gone, folder, 1))
        await running.settle(ending(9))
    await crash(node)
    await come_back(store, tmp_path / "j")
    found = await records(store)
    assert len(found) == 1001
    assert found["long"].cost == 9
    assert (await account(store)).spent == 1009
    assert (await verify(store)).ok


async def test_a_node_rotates_by_itself(store: Store, tmp_path: Path) -> None:
    await fund(store, "a", 1_000_000)
    node = ledger(store, tmp_path / "j", BRISK, segment=5000)
    await node.start()
    first = node._open_books().journal.path
    for number in range(100):
        await request(node, 1, 10, "a", f"r{number}")

    async def rotated() -> bool:
        return not first.exists()

    await eventually(rotated)
    await node.stop()
    assert (await account(store)).spent == 100


async def test_what_is_mostly_open_is_not_written_again(memory: MemoryStore, tmp_path: Path) -> None:
    """While the store is away nothing is posted: a new segment would say the same, and the one after it again."""
    await fund(memory, "a", 1_000_000)
    node = ledger(memory, tmp_path, segment=1000)
    await node.start()
    books = node._open_books()
    for number in range(100):
        await request(node, 1, 10, "a", f"r{number}")
        rotate_when_full(books)
    assert books.journal.path.name == "00000001.log"
    await post_round(books)
    rotate_when_full(books)
    assert books.journal.path.name == "00000002.log"
    await node.stop()


class RotatingDay(Day):
    """A day on which every request, and every call to the store, has a rotation behind it."""

    async def _request(self, node: Ledger, name: str, request_id: str, want: int, cost: int) -> None:
        await super()._request(node, name, request_id, want, cost)
        rotate(node._open_books())


class RotatingStore:
    """Rotates while frames are open: before and after they are sent."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner
        self.node: Ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def post(self, *batch: Any) -> None:
        if self.node._books is not None:
            rotate(self.node._books)
        await self._inner.post(*batch)
        if self.node._books is not None:
            rotate(self.node._books)


@pytest.mark.deadline(240)
@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("end", ["killed", "no power", "no power, names last"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_every_step_of_the_disk(
    after: bool, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    """With `fsync = "always"` not even a power failure loses what was answered."""
    expected_logs("asyncio", "Exception in callback .*Journal._ended", level=40)  # the process died in there
    for step in range(1, 2000):
        with monkeypatch.context() as patched:
            fuse, store, day, journal = Fuse(), MemoryStore(), RotatingDay(), tmp_path / str(step)
            await the_accounts(store)
            disk = Disk(journal, fuse, patched)
            fuse.arm(step, after)
            rotating: Any = RotatingStore(store)
            node = rotating.node = ledger(rotating, journal, idle_return=0, lease_target=500, fsync="always")
            with contextlib.suppress(Blown):
                await day.live(node)
            await crash(node)
            blown = fuse.blown
            fuse.repair()
            if end != "killed":
                disk.lose_power(names_last=end.endswith("last"))
        await come_back(store, journal)
        await day.check(store)
        if not blown:
            assert set(day.done) == {f"r{n}" for n in range(1, 9)}
            assert {"open", "write", "fdatasync", "fsync", "unlink"} <= set(disk.steps)
            assert step > 100, "the disk does not see the steps"
            return
    raise AssertionError("it never came through")


KILLS = 8


def rotated(journal: Path) -> bool:
    """Whether the one journal there is has left its first segment."""
    (left,) = [path for path in journal.iterdir() if path.is_dir()]
    return segments(left)[-1] > segment(left, 1)


@pytest.mark.deadline(60 + 10 * KILLS)
async def test_kill_9_of_a_process_that_rotates_all_the_time(tmp_path: Path) -> None:
    chance, ended = random.Random(7), set()
    for kill in range(KILLS):
        server = Server([sys.executable, "-m", "tests.ledger.rotating_node", str(tmp_path)])
        ended |= {server.line(30) for _ in range(chance.randrange(200, 1000))}
        while kill % 4 and not rotated(tmp_path / "journal"):
            ended.add(server.line(30))
        server.kill()
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    await come_back(store, tmp_path / "journal")
    found = await records(store)
    assert ended <= found.keys()
    assert {found[request_id].cost for request_id in ended} == {COST}
    assert {record.cost for record in found.values() if record.cell == "crash"} <= {0}
    doc = await account(store)
    assert (doc.leases, doc.spent) == ({}, sum(record.cost for record in found.values()))
    assert (await verify(store)).ok
    await store.close()


async def test_a_node_that_rotates_is_looked_at_without_a_fault(memory: MemoryStore, tmp_path: Path) -> None:
    """From another thread, while files come and go and lines are half written."""
    await fund(memory, "a", 10**6)
    node = ledger(memory, tmp_path, fsync="off")
    await node.start()
    books, looks = node._open_books(), 0
    async with node.hold(intent("a", "long"), 10, 10) as running:
        while looks < 100:
            look = asyncio.get_running_loop().run_in_executor(None, inspect, tmp_path)
            while not look.done():
                await request(node, 1, 10)
                rotate(books)
                await post_round(books)
                await asyncio.sleep(0)
            (seen,) = look.result()
            assert seen.fault == ""
            assert seen.running >= 1
            looks += 1
        assert int(books.journal.path.stem) > 100
        await running.settle(ending(1))
    await node.stop()
