"""The journal: what is read back is what was written, up to where a crash cut it; anything else is named."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from aurixel.errors import JournalError
from aurixel.ledger import NoMetrics
from aurixel.ledger.journal import Done, Entry, Frozen, Head, Journal, Settled, pack, unpack
from aurixel.ledger.replay import read_journal
from tests.ledger.kit import ending, eventually, intent, settings

INC = "i" * 26


def a_journal() -> list[Entry]:
    first, second = intent(request_id="r1"), intent(request_id="r2")
    return [
        Head(1, INC),
        first,
        Settled("r1", ending(5)),
        second,
        Frozen(1, "a", 0, ("r1",), 5),
        Done(1),
        Settled("r2", ending(7)),
        Frozen(2, "a", 1, ("r2",), 7),
    ]


def test_a_journal_cut_anywhere_gives_its_whole_lines() -> None:
    entries = a_journal()
    lines = [pack(entry) for entry in entries]
    data = b"".join(lines)
    ends = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    for cut in range(len(data) + 1):
        whole = max(n for n, end in enumerate(ends) if end <= cut)
        assert [line.entry for line in unpack(data[:cut], "j")] == entries[:whole]


def test_zeros_behind_a_cut_are_a_cut() -> None:
    lines = [pack(entry) for entry in a_journal()]
    data = b"".join(lines)
    for cut in range(len(data) - len(lines[-1]), len(data)):
        assert len(list(unpack(data[:cut] + b"\0" * 4096, "j"))) == len(lines) - 1


def test_a_changed_byte_is_named_wherever_it_is() -> None:
    lines = [pack(entry) for entry in a_journal()]
    data = b"".join(lines)
    start = 0
    for line in lines:
        for offset in range(start, start + len(line)):
            for bit in (1, 32, 128):
                damaged = bytearray(data)
                damaged[offset] ^= bit
                with pytest.raises(JournalError) as error:
                    list(unpack(bytes(damaged), "file"))
                assert error.value.place == f"file:{start}"
        start += len(line)


def test_a_missing_or_repeated_line_is_named(tmp_path: Path) -> None:
    """Whole lines that cannot follow each other: copied, reordered or taken out by something other than a crash."""
    entries = a_journal()
    for kept in (
        [entries[0], entries[2]],  # an end without a beginning
        [entries[0], entries[1], entries[1]],
        [entries[0], entries[1], entries[2], entries[2]],
        [entries[0], entries[1], entries[4]],  # a frame of a request that has not ended
        [*entries[:5], entries[4]],
        [*entries[:3], Frozen(1, "a", 0, ("r1",), 6)],
        [*entries[:3], Frozen(1, "b", 0, ("r1",), 5)],
        entries[1:],  # no head
        [entries[0], entries[0]],
        [Head(1, "j" * 26)],
        [Head(2, INC)],
    ):
        (tmp_path / "00000001.log").write_bytes(b"".join(map(pack, kept)))
        with pytest.raises(JournalError) as error:
            read_journal(tmp_path, INC)
        assert error.value.place == f"{tmp_path / '00000001.log'}:{sum(len(pack(entry)) for entry in kept[:-1])}" or (
            kept == entries[1:] and error.value.place.endswith(":0")
        )


def test_only_the_last_file_may_be_cut(tmp_path: Path) -> None:
    (tmp_path / "00000001.log").write_bytes(pack(Head(1, INC)) + b"torn")
    (tmp_path / "00000002.log").write_bytes(pack(Head(1, INC)))
    with pytest.raises(JournalError, match=r"00000001\.log:\d+: .*lost its end"):
        read_journal(tmp_path, INC)


def test_read_back(tmp_path: Path) -> None:
    (tmp_path / "00000001.log").write_bytes(b"".join(map(pack, a_journal())) + b"0000")
    replay = read_journal(tmp_path, INC)
    assert set(replay.intents) == set(replay.settlements) == {"r1", "r2"}
    assert [frame.s for frame, _ in replay.frames["a"]] == [1, 2]
    assert (replay.done, replay.last_s, replay.open_accounts()) == ({1}, 2, ("a",))
    assert replay.size == (tmp_path / "00000001.log").stat().st_size - 4


@pytest.mark.parametrize("fsync", ["batch", "always", "off"])
async def test_an_appended_line_survives_without_a_close(tmp_path: Path, fsync: str) -> None:
    journal = await Journal.create(INC, settings(tmp_path, fsync=fsync), NoMetrics())
    for entry in a_journal()[1:]:
        journal.append(entry)
    journal.drop()
    replay = read_journal(tmp_path / INC, INC)
    assert set(replay.settlements) == {"r1", "r2"}
    with pytest.raises(JournalError):
        journal.append(a_journal()[1])


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
    assert set(read_journal(tmp_path / INC, INC).intents) == {"later"}
