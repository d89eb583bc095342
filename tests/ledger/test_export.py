"""Tables of the books: exact, in one order, without a formula for a spreadsheet, whole or not there at all."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.ledger import Movements, Refused
from aurixel.ledger import export as exporting
from aurixel.ledger.export import TABLES, Format, Span, export, harmless, whole_file
from aurixel.storage import Profile, Store
from aurixel.values import NANOS_PER_USD
from tests.ledger.kit import TestClock
from tests.storage.model import MemoryStore
from tests.storage.samples import leased, movement, record

EVERYTHING = Span()


async def written(store: Store, table: str, format: Format, span: Span = EVERYTHING) -> str:
    parts: list[str] = []
    rows = await export(store, TABLES[table], span, format, parts.append)
    text = "".join(parts)
    assert rows == text.count("\n") - (format == "csv")
    return text


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def books(store: Store) -> None:
    """Two accounts with movements, records and one profile."""
    for account in ("b", "a"):
        await leased(store, account)
    await store.profile_new(Profile(account="a", email="ada@example.org", status="active", created_ms=1))
    clock = TestClock()
    movements = Movements(store, clock, recall_wait=0)
    await movements.apply("a", "r", "refund", -1, '=HYPERLINK("http://x")', "ops", "inv-1")
    with pytest.raises(Refused):
        await movements.apply("a", "too-much", "adjustment", -NANOS_PER_USD, "for nothing", "ops")
    await store.movement_put(movement(4, "open", 123_456_789))
    numbers = ((n, account) for n in (3, 1, 2) for account in "ab")
    at = 1_700_000_000_000
    put = [record(f"{account}{i}", n, account=account, at_ms=at + n % 3) for i, (n, account) in enumerate(numbers)]
    await store.post(put, [], [])


async def test_movements_in_both_forms(store: Store) -> None:
    await books(store)
    lines = [json.loads(line) for line in (await written(store, "movements", "jsonl")).splitlines()]
    assert [(line["account"], line["n"]) for line in lines] == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1)]
    assert lines[1] == {
        "account": "a",
        "email": "ada@example.org",
        "n": 2,
        "id": "r",
        "kind": "refund",
        "at": "2023-11-14T22:13:20.000Z",
        "amount": "-0.000000001",
        "took": "-0.000000001",
        "state": "done",
        "reason": '=HYPERLINK("http://x")',
        "ref": "inv-1",
        "author": "ops",
    }
    assert [line["state"] for line in lines] == ["done", "done", "refused", "open", "done"]
    assert (lines[3]["amount"], lines[3]["took"]) == ("0.123456789", None)
    rows = cells(await written(store, "movements", "csv"))
    assert list(rows[0]) == list(TABLES["movements"].columns) == list(lines[0])
    assert rows[1]["reason"] == "'" + lines[1]["reason"]
    assert rows[1]["amount"] == "-0.000000001"
    assert rows[3]["took"] == ""
    assert rows[4]["email"] == ""


async def test_usage_in_the_order_of_instants_account_by_account(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await books(store)
    whole = await written(store, "usage", "csv")
    rows = cells(whole)
    assert [row["request_id"] for row in rows] == ["a0", "a2", "a4", "b1", "b3", "b5"]
    assert [row["at"][-5:] for row in rows[:3]] == [".000Z", ".001Z", ".002Z"]
    assert rows[0]["counts"] == "input=3 output=5"
    assert rows[0]["cost"] == "0.000000003"
    assert (rows[0]["stream"], rows[0]["ending"], rows[0]["measured"]) == ("true", "ok", "true")
    assert "192.0.2.1" not in whole
    lines = [json.loads(line) for line in (await written(store, "usage", "jsonl")).splitlines()]
    assert lines[0]["counts"] == {"input": 3, "output": 5}
    assert sum(Decimal(line["cost"]) for line in lines) == Decimal("0.000000012")
    for size in (1, 2, 3):
        monkeypatch.setattr(exporting, "PAGE", size)
        assert await written(store, "usage", "csv") == whole


async def test_a_span_has_its_beginning_and_not_its_end_and_spans_side_by_side_have_all(store: Store) -> None:
    await books(store)
    start = 1_700_000_000_000
    for table in ("usage", "movements"):
        whole = cells(await written(store, table, "csv", Span(account="a")))
        for cut in (start, start + 1, start + 2):
            before = cells(await written(store, table, "csv", Span(account="a", until_ms=cut)))
            after = cells(await written(store, table, "csv", Span(account="a", since_ms=cut)))
            assert sorted(map(str, before + after)) == sorted(map(str, whole))
            assert all(row["at"] < f"2023-11-14T22:13:20.{cut - start:03d}Z" for row in before)
            assert all(row["at"] >= f"2023-11-14T22:13:20.{cut - start:03d}Z" for row in after)


async def test_balances_as_they_are_now(store: Store) -> None:
    await books(store)
    rows = cells(await written(store, "balances", "csv"))
    assert rows[0] == {
        "account": "a",
        "email": "ada@example.org",
        "state": "open",
        "available": "0.000000599",
        "leased": "0.0000004",
        "credited": "0.000000999",
        "spent": "0.00",
        "written_off": "0.00",
    }


async def test_an_empty_table_has_its_head() -> None:
    assert await written(MemoryStore(), "balances", "csv") == ",".join(f'"{c}"' for c in TABLES["balances"].columns) + "\r\n"
    assert await written(MemoryStore(), "usage", "jsonl") == ""


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("=+-@\t\r\n;,'\" ＝")))
def test_no_cell_is_a_formula_under_any_separator(text: str) -> None:
    line = f'"first","{harmless(text)}"'
    for separator in (",", ";", "\t"):
        for cell in line.split(separator):
            inside = cell.strip().strip('"').strip()
            assert not inside.startswith(tuple("=+@＝＋－＠")), line
            assert not inside.startswith("-") or harmless(text) == text, line
    assert "\n" not in harmless(text)
    assert "\r" not in harmless(text)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("-1.50", "-1.50"),
        ("-1+1", "'-1+1"),
        ("=1", "'=1"),
        ("  =1", "'  =1"),
        ("\t=1", "' =1"),
        ("a;=1", "a;'=1"),
        ("'a", "''a"),
        ("welcome - twice", "welcome - twice"),
        ("line\r\nline", "line line"),
    ],
)
def test_what_a_cell_becomes(text: str, cell: str) -> None:
    assert harmless(text) == cell


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"

    def stop_halfway() -> None:
        with whole_file(path) as write:
            write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with whole_file(path) as write:
        write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
