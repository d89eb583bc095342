"""`aurixel journal`: what it shows of good and bad journals, and how a replay tells what it could not do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aurixel.ledger.folder import new_inc
from aurixel.ledger.lines import FORMAT, Begun, Done, Entry, Frozen, Head, Settled
from aurixel.storage import open_store
from tests.cli.conftest import Run
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import ending, intent
from tests.ledger.test_journal import packed


def a_journal(folder: Path, inc: str, *entries: Entry, torn: bytes = b"") -> Path:
    """A journal of one segment."""
    (folder / inc).mkdir(parents=True)
    file = folder / inc / "00000001.log"
    file.write_bytes(b"".join(packed([Head(FORMAT, inc, 1), Begun(0), *entries])) + torn)
    return file


LIFE = (
    intent(request_id="r1", at_ms=1_767_225_600_000),
    intent("b", request_id="r2", at_ms=1_767_225_599_000),
    intent(request_id="r3", at_ms=1_767_225_700_000),
    Settled("r1", ending(1_500_000_000)),
    Settled("r2", ending(1)),
    Frozen(1, "a", 0, ("r1",), 1_500_000_000),
)


def test_what_is_open_is_told(run: Run, tmp_path: Path) -> None:
    inc = new_inc()
    file = a_journal(tmp_path / "j", inc, *LIFE, torn=b"0123")
    shown = run("journal", "inspect", str(tmp_path / "j"), "--json")
    assert shown.code == 0
    size = file.stat().st_size
    assert shown.json == {
        "ok": True,
        "journals": [
            {
                "inc": inc,
                "folder": str(tmp_path / "j"),
                "set_aside": False,
                "segments": [{"file": "00000001.log", "bytes": size, "read": size - 4}],
                "lines": {"intents": 3, "settlements": 2, "frames": 1, "done": 0},
                "running": 1,
                "unposted": 2,
                "accounts": 2,
                "cost": "1.500000001",
                "oldest": "2025-12-31T23:59:59Z",
                "torn": 4,
                "fault": None,
            }
        ],
    }
    text = run("journal", "inspect", str(tmp_path / "j")).out
    assert f"{inc}      1" in text
    assert "1.500000001" in text
    assert run("journal", "inspect", str(file.parent), "--json").json == shown.json
    assert not (tmp_path / "j" / "lock").exists()


def test_what_is_done_is_not_open(run: Run, tmp_path: Path) -> None:
    a_journal(tmp_path, new_inc(), *LIFE, Done(1))
    (shown,) = run("journal", "inspect", str(tmp_path), "--json").json["journals"]
    assert (shown["unposted"], shown["accounts"], shown["cost"], shown["lines"]["done"]) == (1, 1, "0.000000001", 1)


def test_journals_of_workers_and_those_set_aside_are_found(run: Run, tmp_path: Path) -> None:
    first, second, lost = sorted(new_inc() for _ in range(3))
    a_journal(tmp_path / "0", first)
    a_journal(tmp_path / "1", second)
    a_journal(tmp_path / "1", lost, *LIFE)
    (tmp_path / "1" / lost).rename(tmp_path / "1" / f"{lost}.abandoned")
    shown = run("journal", "inspect", str(tmp_path), "--json").json["journals"]
    assert [(each["inc"], each["set_aside"], each["unposted"]) for each in shown] == [
        (first, False, 0),
        (second, False, 0),
        (lost, True, 2),
    ]
    assert f"{lost} (set aside)" in run("journal", "inspect", str(tmp_path)).out


def test_a_fault_is_told_with_file_and_offset_beside_what_could_be_read(run: Run, tmp_path: Path) -> None:
    whole, broken = sorted(new_inc() for _ in range(2))
    a_journal(tmp_path, whole, *LIFE)
    file = a_journal(tmp_path, broken, *LIFE)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    place = f"{file}:{sum(map(len, packed([Head(FORMAT, broken, 1), Begun(0), *LIFE])[:-1]))}"
    shown = run("journal", "inspect", str(tmp_path), "--json")
    assert (shown.code, shown.json["ok"]) == (1, False)
    assert [each["fault"] for each in shown.json["journals"]] == [
        None,
        {"place": place, "message": "this line is damaged, or not where it was written"},
    ]
    assert shown.json["journals"][1]["unposted"] == 2
    assert f"{place}: this line is damaged" in run("journal", "inspect", str(tmp_path)).out


def test_a_file_that_is_no_journal(run: Run, tmp_path: Path) -> None:
    (tmp_path / new_inc()).mkdir()
    shown = run("journal", "inspect", str(tmp_path))
    assert shown.code == 1
    assert "no segment of it is there" in shown.out


def test_the_configured_folder_is_looked_at(aurixel: Run, folder: Path) -> None:
    assert aurixel("journal", "inspect").out == "var/journal: no journal yet\n"
    a_journal(folder / "var" / "journal", new_inc())
    assert len(aurixel("journal", "inspect", "--json").json["journals"]) == 1


def test_a_folder_that_is_not_there(run: Run) -> None:
    for command in ("inspect", "replay"):
        refused = run("journal", command, "nowhere", "--json")
        assert (refused.code, refused.error["code"]) == (2, "usage")


def test_a_replay_needs_a_store(aurixel: Run, tmp_path: Path) -> None:
    a_journal(tmp_path / "j", new_inc())
    refused = aurixel("journal", "replay", str(tmp_path / "j"), "--json")
    assert (refused.code, refused.error["code"]) == (1, "store_missing")


def test_a_replay_tells_of_each_journal_what_became_of_it(aurixel: Run, folder: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.ledger", "abandoned node .* set aside", level=40, times=1)
    absent, abandoned, done, damaged = incs = sorted(new_inc() for _ in range(4))
    for inc in incs:
        file = a_journal(folder / "j", inc)
    file.write_bytes(file.read_bytes()[:-20] + b"\n")

    async def nodes() -> None:
        store = open_store("sqlite:///var/aurixel.db")
        await store.open()
        for inc in (abandoned, done, damaged):
            assert await store.node_start(inc, "test")
            assert await store.node_dead(inc, 0)
        assert await store.node_claim(done, "x")
        assert await store.node_done(done, "x")
        await store._engine.write(lambda db: db.execute("UPDATE nodes SET since_ms = 0"))  # type: ignore[attr-defined]
        assert await store.node_abandon(abandoned)
        await store.close()

    aurixel("reload")
    asyncio.run(nodes())
    replayed = aurixel("journal", "replay", "j", "--json")
    assert (replayed.code, replayed.json["ok"]) == (1, False)
    assert {each["inc"]: each["became"] for each in replayed.json["journals"]} == {
        absent: "absent",
        abandoned: "abandoned",
        done: "done",
        damaged: "failed",
    }
    again = aurixel("journal", "replay", "j")
    assert again.code == 1
    assert f"{absent}: the store does not know this node, its journal is kept: is this the right store?" in again.out
    assert f"{damaged}: j/{damaged}/00000001.log:" in again.out
    assert done not in again.out
    left = sorted(path.name for path in (folder / "j").iterdir())
    assert left == sorted([absent, f"{abandoned}.abandoned", damaged, "lock"])


def test_a_replay_that_cannot_write_says_where(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_journal(folder / "j", new_inc())
    (folder / "j" / "lock").mkdir()  # root may write everywhere else
    aurixel("reload")
    refused = aurixel("journal", "replay", "j", "--json")
    assert (refused.code, refused.error["code"]) == (1, "journal_unusable")
    assert "j: cannot be used (Is a directory)" in refused.error["message"]
