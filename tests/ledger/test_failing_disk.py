"""A disk that fails: what was settled stays in the journal or in memory, and is charged once it can be."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aurixel.errors import GatewayError, JournalError
from aurixel.ledger import node as node_module
from aurixel.ledger.rotation import rotate_when_full
from aurixel.storage import Store
from tests.ledger.kit import BRISK, account, ending, eventually, fund, intent, ledger, records, request


def _broken(_: int) -> None:
    raise OSError(5, "EIO")


@pytest.mark.parametrize("when", ["before-stop", "in-stop"])
async def test_settlements_survive_a_sync_that_fails_at_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Any, when: str
) -> None:
    """A disk cannot be made to fail on demand: the one call that would is replaced."""
    expected_logs("aurixel.ledger", "could not be ended: the next start replays its journal", times=1)
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    await request(node, 42, 100, request_id="r1")
    inc = node.inc
    monkeypatch.setattr(os, "fdatasync", _broken)
    if when == "before-stop":
        with pytest.raises(JournalError):
            await node.flush()
    await node.stop()
    monkeypatch.undo()
    assert (tmp_path / "j" / inc).is_dir()
    assert await records(store) == {}

    node = ledger(store, tmp_path / "j")
    await node.start()
    await node.stop()
    assert (await account(store)).spent == 42
    assert [record.cost for record in (await records(store)).values()] == [42]
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["lock"]


async def test_a_node_that_refused_for_a_full_disk_is_ready_again_without_a_request(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Any
) -> None:
    """Nobody sends requests to a node that is not ready, so it must find out by itself."""
    expected_logs("aurixel.ledger", "the journal: .*No space", level=40, times=1)
    expected_logs("aurixel.ledger", "the journal is written again", times=1)
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    file = tmp_path / "j" / node.inc / "00000001.log"
    size = file.stat().st_size

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(GatewayError):
            await request(node, 1, 100)
        assert node.missing == "no journal"
        node._open_books().look_at_journal()
    node._open_books().look_at_journal()
    assert node.missing is None
    assert file.stat().st_size == size  # the trial leaves nothing
    await request(node, 1, 100)
    await node.stop()


@pytest.mark.parametrize("how", ["no room", "half a segment", "no name"])
async def test_a_segment_that_cannot_be_begun_leaves_the_present_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Any, how: str
) -> None:
    """Nothing is left of it, requests go on, it is complained of, and begun as soon as it can be."""
    expected_logs("aurixel.ledger", "the journal: .*00000002.log: cannot", level=40, times=1)
    expected_logs("aurixel.ledger", "the journal is written again", times=1)
    await fund(store, "a", 1_000_000)
    node = ledger(store, tmp_path / "j", segment=1000)
    await node.start()
    books, folder = node._open_books(), tmp_path / "j" / node.inc
    first = books.journal.path
    for number in range(20):
        await request(node, 1, 10, request_id=f"r{number}")
    await node.flush()
    real_open, real_write = os.open, os.write
    opened: list[int] = []

    def watched(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_TRUNC and how == "no name":
            raise OSError(28, "No space left on device")
        fd = real_open(path, flags, *mode)
        opened.extend([fd] if flags & os.O_TRUNC else [])
        return fd

    def full(fd: int, data: bytes) -> int:
        if fd not in opened:
            return real_write(fd, data)
        if how == "no room" or len(data) < 50:
            raise OSError(28, "No space left on device")
        return real_write(fd, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", watched)
        patched.setattr(os, "write", full)
        for _ in range(3):
            opened.clear()
            books.look_at_journal()
            rotate_when_full(books)
            opened.clear()
            assert [path.name for path in folder.iterdir()] == [first.name]
            assert node.missing is None
            await request(node, 1, 10)
            await node.flush()
    rotate_when_full(books)
    books.look_at_journal()
    assert books.journal.path.name == "00000002.log"
    await node.stop()
    assert (await account(store)).spent == 23


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_journal_that_is_moved_away_is_noticed(store: Store, tmp_path: Path, expected_logs: Any, what: str) -> None:
    expected_logs("aurixel.ledger", "the journal: .*moved or deleted", level=40, times=1)
    expected_logs("aurixel.ledger", "the journal is written again", times=1)
    node = ledger(store, tmp_path / "j")
    await node.start()
    place = tmp_path / "j" if what == "folder" else tmp_path / "j" / node.inc / "00000001.log"
    place.rename(tmp_path / "elsewhere")
    assert node.missing == "no journal"
    for _ in range(2):
        node._open_books().look_at_journal()
    (tmp_path / "elsewhere").rename(place)
    node._open_books().look_at_journal()
    assert node.missing is None
    await node.stop()


async def test_what_a_moved_journal_holds_ends_and_nothing_begins(store: Store, tmp_path: Path, expected_logs: Any) -> None:
    """The next start would not find it: what began there must not be followed by more."""
    expected_logs("aurixel.ledger", "the journal: .*moved or deleted", level=40, times=1)
    expected_logs("aurixel.ledger", "the journal is written again", times=1)
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    async with node.hold(intent(), 100, 100) as running:
        (tmp_path / "j").rename(tmp_path / "elsewhere")
        node._open_books().look_at_journal()
        with pytest.raises(GatewayError) as refused:
            await request(node, 1, 100)
        assert (refused.value.code, refused.value.retry_after) == ("journal_unavailable", 1)
        await running.settle(ending(42))
    await node.flush()
    assert (await account(store)).spent == 42
    assert node.held("a") == 0
    (tmp_path / "elsewhere").rename(tmp_path / "j")
    node._open_books().look_at_journal()
    await request(node, 1, 100)
    await node.stop()
    assert (await account(store)).spent == 43


async def test_a_running_node_looks_after_its_journal_by_itself(
    store: Store, tmp_path: Path, caplog: Any, expected_logs: Any
) -> None:
    expected_logs("aurixel.ledger", "the journal: .*moved or deleted", level=40)
    expected_logs("aurixel.ledger", "the journal is written again")
    node = ledger(store, tmp_path / "j", BRISK)
    await node.start()

    async def said(word: str) -> bool:
        return word in caplog.text

    (tmp_path / "j").rename(tmp_path / "elsewhere")
    await eventually(partial(said, "moved or deleted"))
    (tmp_path / "elsewhere").rename(tmp_path / "j")
    await eventually(partial(said, "written again"))
    await node.stop()


@pytest.mark.parametrize("how", ["no folder", "no line", "no name"])
async def test_a_node_whose_disk_was_gone_begins_again_once_it_is_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Any, how: str
) -> None:
    """A disk that is full fails the sync, and then the next incarnation's journal: nobody should have to restart for that."""
    expected_logs("aurixel.ledger", "the journal: .*(out of order|No space)", level=40)  # whichever meets the disk first
    expected_logs("aurixel.ledger", "is dead: its journal failed", level=40, times=1)
    expected_logs("aurixel.ledger", "gives no holds until its journal can be written: .*No space", level=40, times=1)
    expected_logs("aurixel.ledger", "this node gives holds again", times=1)
    monkeypatch.setattr(node_module, "DISK_RETRY_S", 0.001)
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j", BRISK)
    await node.start()
    inc, tried = node.inc, 0
    steps = {"no folder": (Path, "mkdir"), "no line": (os, "write"), "no name": (os, "fsync")}
    real = getattr(*steps[how])

    def full(what: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal tried
        path = what if isinstance(what, Path) else Path(os.readlink(f"/proc/self/fd/{what}"))
        if not path.is_relative_to(tmp_path / "j"):
            return real(what, *args, **kwargs)
        tried += 1
        raise OSError(28, "No space left on device")

    async def tried_twice() -> bool:
        return tried > 2

    async def back() -> bool:
        return node.admitting and node.inc != inc

    with monkeypatch.context() as broken:
        await request(node, 42, 100)
        broken.setattr(*steps[how], full)
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", _broken)
            await node._open_books().dead.wait()
        await eventually(tried_twice)
        assert not node.admitting
    await eventually(back)
    await request(node, 1, 100)
    await node.stop()
    assert (await account(store)).spent == 43
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["lock"]
