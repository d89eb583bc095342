"""The commands about money: corrections, exports, repairs, previews and margins, on a real store."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from aurixel.storage import RollupAdd, Store, open_store
from tests.cli.conftest import PRICES, Run
from tests.storage.samples import movement, record

NOW_MS = 1_769_817_600_000  # 2026-01-31


def in_store(folder: Path, work: Callable[[Store, str], Awaitable[object]]) -> None:
    """Do it with the open store and the id of a@b's account."""

    async def run() -> None:
        store = open_store(f"sqlite:///{folder / 'var/aurixel.db'}")
        await store.open()
        try:
            profile = await store.profile_find("a@b")
            assert profile is not None
            await work(store, profile.account)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def books(aurixel: Run, folder: Path) -> Run:
    """`run`, with an account a@b that has 5 USD and three records of 2026-01-31: 1000 in, 100 out, each a second later."""
    aurixel("reload")
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "5", "--reason", "=welcome", "--author", "ops")

    async def fill(store: Store, account: str) -> None:
        counts = {"input": 1_000, "output": 100}
        records = [
            record(f"r{n}", 1_400_000, account=account, upstream="demo", at_ms=NOW_MS + n * 1000, counts=counts)
            for n in range(3)
        ]
        await store.post(records, [], [])

    in_store(folder, fill)
    return aurixel


# --- credit adjust ------------------------------------------------------------------------------------------------------


def test_a_correction_up_and_down_and_once(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    up = aurixel("credit", "adjust", "a@b", "2.50", "--reason", "outage", "--json")
    assert (up.code, up.json["amount"], up.json["available"]) == (0, "2.50", "2.50")
    assert up.json["id"].startswith("adjustment:")
    words = ("credit", "adjust", "a@b", "-0.000000001", "--reason", "a nano too much", "--id", "x", "--author", "ops")
    for _ in range(2):
        assert aurixel(*words, "--json").json == {
            "id": "adjustment:x",
            "n": 2,
            "amount": "-0.000000001",
            "available": "2.499999999",
        }
    assert "adjusted by -0.000000001 USD before, and not again (adjustment:x)" in aurixel(*words).out
    assert aurixel("ledger", "verify").code == 0
    rows = list(csv.DictReader(io.StringIO(aurixel("ledger", "export", "movements").out)))
    assert [(row["kind"], row["amount"], row["reason"], row["author"]) for row in rows][1] == (
        "adjustment",
        "-0.000000001",
        "a nano too much",
        "ops",
    )


def test_a_correction_that_credit_does_not_cover_takes_nothing_and_is_kept(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "1", "--reason", "x")
    words = ("credit", "adjust", "a@b", "-1.01", "--reason", "y", "--id", "y")
    assert aurixel(*words).err == (
        "error: nothing was taken: the account had less than 1.01 USD (adjustment:y); under another id it may be tried again\n"
    )
    refused = aurixel(*words, "--json")
    assert (refused.code, refused.error["code"]) == (1, "movement_refused")
    assert aurixel("account", "show", "a@b", "--json").json["available"] == "1.00"
    lines = aurixel("ledger", "export", "movements", "--format", "jsonl").out.splitlines()
    assert json.loads(lines[1])["state"] == "refused"


@pytest.mark.parametrize(
    "words", [("0", "--reason", "x"), ("-0.00", "--reason", "x"), ("5",), ("5", "--reason", " "), ("--five", "--reason", "x")]
)
def test_a_correction_needs_an_amount_and_a_reason(aurixel: Run, words: tuple[str, ...]) -> None:
    aurixel("account", "create", "a@b")
    refused = aurixel("credit", "adjust", "a@b", *words, "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


def test_a_closed_account_may_be_corrected(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "1", "--reason", "x")
    aurixel("account", "close", "a@b")
    assert aurixel("credit", "adjust", "a@b", "-1", "--reason", "paid out").code == 0


# --- ledger verify ------------------------------------------------------------------------------------------------------


def test_a_charge_that_its_counts_and_price_do_not_make_is_found(books: Run, folder: Path) -> None:
    async def wrong(store: Store, account: str) -> None:
        await store.post([record("odd", 5, account=account, counts={"input": 1})], [], [])
        await store.post([record("ghost", 5, account=account, counts={"input": 1}, price_version=9)], [], [])

    in_store(folder, wrong)
    found = books("ledger", "verify", "--json")
    assert found.code == 1
    texts = {fault["code"]: fault["text"] for fault in found.json["faults"]}
    # Neither posted nor in a rollup either: records that were put by hand.
    assert texts.keys() == {"usage", "rollups", "charge"}
    assert texts["charge"].startswith("2 records do not cost what their counts and prices make, first: ghost, small, cost")
    assert found.json["records"] == 5
    assert "charge" not in [fault["code"] for fault in books("ledger", "verify", "--quick", "--json").json["faults"]]


def test_open_movements_are_named(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    in_store(folder, lambda store, account: store.movement_put(movement(account=account, amount=5)))
    found = aurixel("ledger", "verify", "--json")
    assert (found.code, found.json["ok"]) == (0, True)
    (one,) = found.json["open"]
    assert (one["n"], one["id"], one["kind"], one["amount"], one["at"]) == (
        *(1, "m1", "topup", "0.000000005"),
        "2023-11-14T22:13:20Z",
    )
    assert "movement 1 is not finished: topup m1" in aurixel("ledger", "verify").out


# --- ledger export ------------------------------------------------------------------------------------------------------


def test_an_export_to_a_file_and_to_stdout_are_the_same(books: Run, folder: Path) -> None:
    for table in ("movements", "usage", "balances"):
        for form in ("csv", "jsonl"):
            words = ("ledger", "export", table, "--format", form)
            told = books(*words, "--output", "out", "--force", "--json").json
            assert told == {"table": table, "format": form, "rows": 3 if table == "usage" else 1, "file": "out"}
            assert (folder / "out").read_bytes().decode() == books(*words).out
    refused = books("ledger", "export", "usage", "--output", "out")
    assert (refused.code, "--force" in refused.err) == (2, True)
    assert "'=welcome" in books("ledger", "export", "movements").out


def test_an_export_of_a_span_and_an_account(books: Run) -> None:
    def rows(*words: str) -> int:
        return len(books("ledger", "export", "usage", "--format", "jsonl", *words).out.splitlines())

    assert rows("--since", "2026-01-31T00:00:01", "--until", "2026-01-31T00:00:02") == 1
    assert rows("--until", "2026-01-31") == 0
    assert rows("--account", "a@b") == 3
    books("account", "create", "c@d")
    assert rows("--account", "c@d") == 0
    assert (
        books("ledger", "export", "usage", "--account", "no@body", "--json", "--output", "x").error["code"] == "account_unknown"
    )
    assert books("ledger", "export", "balances", "--since", "1d").code == 2
    assert books("ledger", "export", "usage", "--json").code == 2


def test_an_export_that_fails_leaves_no_file(books: Run, folder: Path) -> None:
    before = sorted(folder.iterdir())
    assert books("ledger", "export", "usage", "--output", "no/such/folder/x").code == 1
    assert books("ledger", "export", "usage", "--account", "no@body", "--output", "x").code == 1
    assert sorted(folder.iterdir()) == before


def test_a_terminal_sees_how_far_an_export_is(books: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = books("ledger", "export", "usage", "--output", "x")
    assert "100%" in done.err
    assert "3 rows" in done.err
    assert done.out == "3 rows of usage in x\n"


# --- ledger repair ------------------------------------------------------------------------------------------------------


def test_a_repair_is_shown_asked_for_and_done(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aurixel("account", "create", "a@b")
    in_store(folder, lambda store, account: store.movement_put(movement(account=account, amount=5)))
    planned = aurixel("ledger", "repair", "finish-movements", "--json").json
    assert (len(planned["steps"]), planned["done"]) == (1, 0)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    no = aurixel("ledger", "repair", "finish-movements")
    assert "finish movement 1, a topup of 0.000000005 USD (m1)" in no.out
    assert "do this?" in no.err
    assert no.out.endswith("0 done\n")
    assert aurixel("account", "show", "a@b", "--json").json["available"] == "0.00"
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert aurixel("ledger", "repair", "finish-movements", "--account", "a@b").out.endswith("1 done\n")
    assert aurixel("account", "show", "a@b", "--json").json["available"] == "0.000000005"
    assert aurixel("ledger", "repair", "finish-movements", "--yes").out == "nothing to repair\n"


def test_what_needs_a_human_ends_with_1(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    in_store(folder, lambda store, account: store.post([record("r1", 5, account=account)], [], []))
    refused = aurixel("ledger", "repair", "rollups", "--yes")
    assert refused.code == 1
    assert "REFUSED: its records do not add up to its charges" in refused.out
    assert aurixel("ledger", "repair", "rollups", "--json").json["steps"][0]["refused"]


def test_a_span_that_is_over_before_it_begins_is_a_typing_error(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    for since, until in (("2026-02-01", "2026-01-01"), ("2026-01-01", "2026-01-01"), ("2d", "3d")):
        done = aurixel("ledger", "export", "movements", "--since", since, "--until", until, "--json", "--output", "x.csv")
        assert (done.code, done.error["code"]) == (2, "usage")
        assert "--until is not after --since" in done.error["message"]
    assert not Path("x.csv").exists()


def test_a_file_that_cannot_be_written_is_the_one_that_was_named(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    done = aurixel("ledger", "export", "movements", "--output", "nowhere/x.csv")
    assert (done.code, done.err) == (1, "error: nowhere/x.csv: No such file or directory\n")


def test_a_proof_needs_no_stderr(aurixel: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    aurixel("account", "create", "a@b")
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it where the descriptor is closed
    assert aurixel("ledger", "verify") == (0, "1 account, 0 records: everything adds up\n", "")


def test_the_repairs_there_are(aurixel: Run) -> None:
    listed = aurixel("ledger", "repair", "--json").json
    assert set(listed["repairs"]) == {"finish-movements", "close-done-leases", "rollups"}
    assert "aurixel credit adjust" in listed["advice"]["usage"]
    assert "close-done-leases: " in aurixel("ledger", "repair").out
    assert aurixel("ledger", "repair", "everything").code == 2


# --- prices import --preview --------------------------------------------------------------------------------------------


def test_a_preview_says_what_usage_would_have_cost_and_publishes_nothing(books: Run, folder: Path) -> None:
    (folder / "new.toml").write_text(
        PRICES.replace("2026-01-01", "2030-01-01").replace('"1.00"', '"2.00"')
        + PRICES.replace("2026-01-01", "2029-01-01").replace('"1.00"', '"9.00"')
    )
    shown = books("prices", "import", "new.toml", "--preview", "--since", "2026-01-31", "--json")
    line = {"requests": 3, "old": "0.0042", "new": "0.0072", "difference": "0.003", "without_price": 0}
    assert shown.json == {"since": "2026-01-31T00:00:00Z", "rows": [{"model": "small", **line}], "total": line}
    text = books("prices", "import", "new.toml", "--preview", "--since", "2026-01-31").out
    assert "total" in text
    assert "0.0072" in text
    assert "nothing was changed" in text
    assert books("reload", "--json").json["version"] == 1
    assert books("prices", "import", "new.toml", "--preview", "--json").json["total"]["requests"] == 0  # a week back
    assert books("prices", "import", "new.toml", "--json").json["version"] == 2
    assert books("prices", "import", "new.toml", "--since", "1d").code == 2
    (folder / "new.toml").write_text(PRICES.replace("small", "smal"))
    assert books("prices", "import", "new.toml", "--preview", "--json").error["code"] == "catalogue_invalid"


def test_a_preview_names_what_the_new_prices_lack(books: Run, folder: Path) -> None:
    counts = {"input": 5, "tool_calls.web_search": 2}
    in_store(folder, lambda store, account: store.post([record("r9", 7, account=account, at_ms=NOW_MS, counts=counts)], [], []))
    (folder / "new.toml").write_text(PRICES)
    words = ("prices", "import", "new.toml", "--preview", "--since", "2026-01-31")
    assert "1 request used something that has no price in new.toml" in books(*words).out
    assert books(*words, "--json").json["total"]["without_price"] == 1


def test_what_was_used_at_a_tier_in_previews_and_margins(books: Run, folder: Path) -> None:
    """It is charged anew at that tier, shown with the prices, and costs what the tier costs, or nobody knows."""
    counts = {"input.fast": 5, "cache_read.fast": 3, "output.fast": 2}
    post = [record("r9", 7, account="", upstream="demo", at_ms=NOW_MS + 86_400_000, counts=counts)]
    in_store(
        folder, lambda store, account: store.post([msgspec.structs.replace(each, account=account) for each in post], [], [])
    )
    tiers = 'tiers.fast = { input = "0.10", output = "0.70" }\n'
    (folder / "new.toml").write_text(PRICES.rstrip("\n") + "\n" + tiers)
    words = ("prices", "import", "new.toml", "--preview", "--since", "2026-02-01", "--json")
    assert books(*words).json["total"] == {
        "requests": 1,
        "old": "0.000000007",
        "new": "0.0000022",  # 8 * 100 + 2 * 700
        "difference": "0.000002193",
        "without_price": 0,
    }
    assert books("prices", "import", "new.toml", "--json").json["version"] == 2
    (served,) = (model for model in books("check", "--json").json["models"] if model["model"] == "small")
    assert (served["prices"]["input.fast"], served["prices"]["output.fast"]) == ("0.10", "0.70")
    margin = ("usage", "--margin", "--since", "2026-02-01", "--json")
    cost = '[[cost]]\nmodel = "small"\neffective = 2026-01-31\ninput = "0.50"\noutput = "2.00"\n'
    (folder / "costs.toml").write_text(cost + 'tiers.fast = { input = "1.00", output = "2.00" }\n')
    books("prices", "import", "costs.toml")
    assert [each["missing"] for each in books(*margin).json["unknown"]] == ["cache_read.fast"]
    (folder / "costs.toml").write_text(cost + 'tiers.fast = { input = "1.00", cache_read = "1.00", output = "2.00" }\n')
    books("prices", "import", "costs.toml")
    assert books(*margin).json["total"]["cost"] == "0.000012"  # 8 * 1000 + 2 * 2000


# --- usage --margin -----------------------------------------------------------------------------------------------------


def test_margins_by_the_costs_of_the_file_and_what_is_unknown(books: Run, folder: Path) -> None:
    words = ("usage", "--margin", "--since", "2026-01-31", "--json")
    none = books(*words).json
    assert (none["total"]["revenue"], none["total"]["cost"], none["total"]["margin"]) == ("0.0042", None, None)
    assert none["unknown"] == [{"model": "small", "upstream": "demo", "missing": "cost", "requests": 3}]
    cost = '[[cost]]\nmodel = "small"\nupstream = "demo"\neffective = 2026-01-31T00:00:01Z\ninput = "0.50"\noutput = "2.00"\n'
    (folder / "costs.toml").write_text(cost)
    assert books("prices", "import", "costs.toml", "--json").json["version"] == 2
    for more in ((), ("a@b",)):
        shown = books("usage", *more, *words[1:]).json
        row = {"requests": 3, "revenue": "0.0042", "cost": "0.0014", "margin": "0.0014"}
        assert shown["total"] == {**row, "unknown_requests": 1, "unknown_revenue": "0.0014"}
        assert shown["rows"] == [{"model": "small", **shown["total"]}]
        assert shown["email"] == (more[0] if more else None)
    text = books(*words[:-1], "--by", "day").out
    assert "2026-01-31" in text
    assert "1 request of small at demo: no cost in prices.toml" in text
    assert books("usage", "--margin").out == "nothing was used\n"


def test_usage_of_all_accounts_together(aurixel: Run, folder: Path) -> None:
    for email in ("a@b", "c@d"):
        aurixel("account", "create", email)

    async def fill(store: Store, _: str) -> None:
        for doc in await store.accounts_page("", 10):
            hour, sums = NOW_MS // 3_600_000, {"requests": 1, "cost": 5, "input": 3}
            add = RollupAdd(account=doc.id, hour=hour, model="small", key_id="k", inc="i" * 26, s=1, sums=sums)
            await store.post([], [add], [])

    in_store(folder, fill)
    shown = aurixel("usage", "--since", "2026-01-01", "--json").json
    assert (shown["email"], shown["total"]) == (None, {"requests": 2, "cost": "0.00000001", "counts": {"input": 6}})
    assert aurixel("usage", "c@d", "--since", "2026-01-01", "--json").json["total"]["requests"] == 1
