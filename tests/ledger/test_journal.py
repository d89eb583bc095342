"""The journal: what is read back is what was written, up to where a crash cut it; anything else is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from aurixel.errors import JournalError
from aurixel.ledger import NoMetrics
from aurixel.ledger.journal import Journal, segment
from aurixel.ledger.lines import FORMAT, Begun, Confirmed, Done, Entry, Frozen, Head, Lines, Settled, pack
from aurixel.ledger.replay import read_journal
from tests.ledger.kit import ending, eventually, intent, settings

INC = "i" * 26


def a_journal() -> list[Entry]:
    first, second = intent(request_id="r1"), intent(request_id="r2")
    return [
        Head(FORMAT, INC, 1),
        Begun(0),
        first,
        Settled("r1", ending(5)),
        second,
        Frozen(1, "a", 0, ("r1",), 5),
        Done(1),
        Settled("r2", ending(7)),
        Frozen(2, "a", 1, ("r2",), 7),
    ]


def packed(entries: Iterable[Entry]) -> list[bytes]:
    """The lines of a file."""
    lines, crc = [], 0
    for entry in entries:
        line, crc = pack(entry, crc)
        lines.append(line)
    return lines


def offsets(lines: list[bytes]) -> list[int]:
    """Where each line ends, and 0 before them."""
    return [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]


def test_a_journal_cut_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    entries, file = a_journal(), tmp_path / "j"
    lines = packed(entries)
    data, ends = b"".join(lines), offsets(lines)
    for cut in range(len(data) + 1):
        whole = max(n for n, end in enumerate(ends) if end <= cut)
        file.write_bytes(data[:cut])
        read = Lines(file)
        assert list(read) == entries[:whole]
        assert (read.end, read.torn) == (ends[whole], cut - ends[whole])


def test_zeros_behind_a_cut_are_a_cut(tmp_path: Path) -> None:
    lines, file = packed(a_journal()), tmp_path / "j"
    data = b"".join(lines)
    for cut in range(len(data) - len(lines[-1]), len(data)):
        file.write_bytes(data[:cut] + b"\0" * 4096)
        assert len(list(Lines(file))) == len(lines) - 1


def test_a_changed_byte_is_named_wherever_it_is(tmp_path: Path) -> None:
    lines, file = packed(a_journal()), tmp_path / "j"
    data = b"".join(lines)
    start = 0
    for line in lines:
        for offset in range(start, start + len(line)):
            for bit in (1, 32, 128):
                damaged = bytearray(data)
                damaged[offset] ^= bit
                file.write_bytes(damaged)
                with pytest.raises(JournalError) as error:
                    list(Lines(file))
                assert error.value.place == f"{file}:{start}"
        start += len(line)


def test_a_line_that_is_missing_doubled_or_moved_is_named(tmp_path: Path) -> None:
    """Each is whole by itself; but a checksum is over all lines before it, too."""
    lines, file = packed(a_journal()), tmp_path / "j"
    for number in range(len(lines) - 1):
        for wrong, at in (
            ([*lines[:number], *lines[number + 1 :]], number),
            ([*lines[: number + 1], *lines[number:]], number + 1),
            ([*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]], number),
        ):
            file.write_bytes(b"".join(wrong))
            with pytest.raises(JournalError, match="not where it was written") as error:
                list(Lines(file))
            assert error.value.place == f"{file}:{offsets(wrong)[at]}"


def test_entries_that_cannot_follow_each_other_are_named(tmp_path: Path) -> None:
    """Sound lines, as a mistake of ours would write them."""
    entries, file = a_journal(), tmp_path / "00000001.log"
    begun = entries[:2]
    for kept in (
        [*begun, entries[3]],  # an end without a beginning
        [*begun, entries[2], entries[2]],
        [*begun, entries[2], entries[3], entries[2]],
        [*begun, entries[2], entries[3], entries[3]],
        [*begun, entries[2], entries[5]],  # a frame of a request that has not ended
        [*entries[:6], entries[5]],
        [*entries[:4], Frozen(1, "a", 0, ("r1",), 6)],
        [*entries[:4], Frozen(1, "b", 0, ("r1",), 5)],
        [*entries[:4], Frozen(0, "a", 0, ("r1",), 5)],  # a number that was given before
        [*begun, Done(1)],
        [*entries[:7], Done(1)],
        [*begun, Begun(0)],
        [*begun, Confirmed("a", 1)],
        [entries[0], entries[2], Settled("r1", ending(5)), Frozen(3, "a", 0, ("r1",), 5), Begun(2)],
        entries[1:2],  # no head
        [entries[0], entries[0]],
        [Head(FORMAT, "j" * 26, 1)],
        [Head(FORMAT, INC, 2)],
        [Head(FORMAT + 1, INC, 1)],
    ):
        lines = packed(kept)
        file.write_bytes(b"".join(lines))
        with pytest.raises(JournalError) as error:
            read_journal(tmp_path, INC)
        assert error.value.place == f"{file}:{offsets(lines)[-2]}"


def write(folder: Path, number: int, *entries: Entry, torn: bytes = b"") -> None:
    segment(folder, number).write_bytes(b"".join(packed([Head(FORMAT, INC, number), *entries])) + torn)


def test_the_newest_segment_that_is_begun_stands_for_all(tmp_path: Path) -> None:
    write(tmp_path, 1, Begun(0), intent(request_id="r1"))
    write(tmp_path, 2, intent(request_id="r2"), Confirmed("b", 3), Begun(7), torn=b"00")
    replay = read_journal(tmp_path, INC)
    assert (set(replay.begun), replay.last_s, replay.confirmed) == ({"r2"}, 7, {"b": 3})
    assert replay.path == segment(tmp_path, 2)


@pytest.mark.parametrize("torn", [b"", b"1234", b"\0" * 100])
def test_a_segment_that_was_not_begun_counts_for_nothing(tmp_path: Path, torn: bytes) -> None:
    write(tmp_path, 1, Begun(0), intent(request_id="r1"), torn=b"00")
    write(tmp_path, 2, intent(request_id="r2"), torn=torn)
    segment(tmp_path, 3).write_bytes(b"")
    replay = read_journal(tmp_path, INC)
    assert (set(replay.begun), replay.path, replay.torn) == ({"r1"}, segment(tmp_path, 1), 2)


def test_a_journal_without_a_beginning_is_named(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(JournalError, match="none that was begun") as error:
            read_journal(tmp_path, INC)
        assert error.value.place == str(tmp_path)
        write(tmp_path, 2, intent(request_id="r2"))


def test_damage_in_the_newest_segment_is_not_passed_over(tmp_path: Path) -> None:
    """Nobody falls back to an older one because of it."""
    write(tmp_path, 1, Begun(0))
    write(tmp_path, 2, intent(request_id="r2"), Begun(0))
    data = bytearray(segment(tmp_path, 2).read_bytes())
    data[60] ^= 1
    segment(tmp_path, 2).write_bytes(data)
    with pytest.raises(JournalError, match=r"00000002\.log:\d+: this line is damaged"):
        read_journal(tmp_path, INC)


def test_read_back(tmp_path: Path) -> None:
    (tmp_path / "00000001.log").write_bytes(b"".join(packed(a_journal())) + b"0000")
    replay = read_journal(tmp_path, INC)
    assert (replay.begun, replay.ended, list(replay.frames), replay.confirmed) == ({}, {}, [2], {"a": 1})
    frame, place = replay.frames[2]
    assert [item.request_id for item, _ in frame.items] == ["r2"]
    assert place == f"{replay.path}:{offsets(packed(a_journal()))[-2]}"
    assert (replay.last_s, replay.accounts(), replay.requests(), replay.cost()) == (2, ("a",), 1, 7)
    assert replay.size == (tmp_path / "00000001.log").stat().st_size - 4


async def test_what_is_resumed_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    journal = await Journal.create(INC, settings(tmp_path), NoMetrics())
    journal.append(intent(request_id="r1"))
    journal.drop()
    journal.path.write_bytes(journal.path.read_bytes() + b"01234567 [torn")
    again = await read_journal(tmp_path / INC, INC).resume(settings(tmp_path), NoMetrics())
    again.append(intent(request_id="r2"))
    await again.close()
    assert set(read_journal(tmp_path / INC, INC).begun) == {"r1", "r2"}


@pytest.mark.parametrize("fsync", ["batch", "always", "off"])
async def test_an_appended_line_survives_without_a_close(tmp_path: Path, fsync: str) -> None:
    journal = await Journal.create(INC, settings(tmp_path, fsync=fsync), NoMetrics())
    for entry in a_journal()[2:]:
        journal.append(entry)
    journal.drop()
    replay = read_journal(tmp_path / INC, INC)
    assert list(replay.frames) == [2]
    with pytest.raises(JournalError):
        journal.append(a_journal()[2])


async def test_sync_covers_what_was_appended_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of appends and syncs: when `sync` returns, an fsync has begun after the append."""
    synced: list[int] = []
    journal = await Journal.create(INC, settings(tmp_path, fsync="off"), NoMetrics())
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))

    async def writer(number: int) -> None:
        journal.append(intent(request_id=f"r{number}"))
        upto = journal.size
        await journal.sync()
        assert max(synced) >= upto

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(writer(number))
    assert len(synced) < 50, "callers share an fsync"
    await journal.close()


async def test_batches_sync_by_themselves(tmp_path: Path) -> None:
    journal = await Journal.create(INC, settings(tmp_path, fsync="batch"), NoMetrics())
    for number in range(3):
        journal.append(intent(request_id=f"r{number}"))

        async def synced() -> bool:
            return journal._synced == journal.size

        await eventually(synced)
    await journal.close()


async def test_an_fsync_that_failed_is_never_believed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = await Journal.create(INC, settings(tmp_path, fsync="off"), NoMetrics())
    journal.append(intent())

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(JournalError):
        await journal.sync()
    monkeypatch.undo()
    with pytest.raises(JournalError):
        await journal.sync()
    with pytest.raises(JournalError):
        journal.append(intent())
    journal.drop()


async def test_a_line_the_disk_has_no_room_for_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = await Journal.create(INC, settings(tmp_path, fsync="off"), NoMetrics())
    before = journal.size
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(JournalError, match="the disk is full"):
        journal.append(intent())
    monkeypatch.undo()
    assert journal.size == before == (tmp_path / INC / "00000001.log").stat().st_size
    journal.append(intent(request_id="later"))
    journal.drop()
    assert set(read_journal(tmp_path / INC, INC).begun) == {"later"}
