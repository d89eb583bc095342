"""`aurixel voucher` on a real store, from making codes to the ledger's proof, and what commands of any plugin are given."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aurixel.storage import Store, open_store
from tests.cli.conftest import Done, Run
from tests.harness.guard import ExpectedLogs

CODE = re.compile(r"^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){6}$", re.MULTILINE)
ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture
def shop(aurixel: Run, folder: Path) -> Run:
    """The command line where vouchers are sold, with two accounts."""
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace('"limits", ', '"limits", "vouchers", ') + "\n[payments.vouchers]\n")
    for email in (ADA, BOB):
        assert aurixel("account", "create", email).code == 0
    return aurixel


@pytest.fixture
def redeem(shop: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`redeem(EMAIL, CODE, ...)`, the code on stdin."""

    def run(email: str, code: str, *more: str) -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{code}\n"))
        return shop("voucher", "redeem", email, *more)

    return run


def made(shop: Run, *words: str) -> list[dict[str, str]]:
    codes: list[dict[str, str]] = shop("voucher", "create", "10.00", *words, "--json").json["codes"]
    return codes


def available(shop: Run, email: str) -> str:
    return str(shop("account", "show", email, "--json").json["available"])


def test_codes_are_printed_once_each_alone_on_its_line(shop: Run) -> None:
    done = shop("voucher", "create", "12.50", "--count", "70", "--note", "conference")
    assert done.code == 0
    assert len(CODE.findall(done.out)) == len(done.out.splitlines()) == len(set(done.out.splitlines())) == 70
    batch = done.out[:4]
    assert done.err == f"batch {batch}, 70 codes of 12.50 USD, shown this once:\n"
    for words in (("list",), ("list", "--json"), ("batches",), ("batches", "--json")):
        shown = shop("voucher", *words)
        assert not CODE.search(shown.out + shown.err)
    value = shop("voucher", "create", "1", "--expires", "2999-01-01", "--json").json
    assert (value["amount"], value["expires"], len(value["codes"])) == ("1.00", "2999-01-01T00:00:00Z", 1)
    assert value["codes"][0]["id"].startswith(value["batch"] + "-")


def test_a_code_is_credited_once(shop: Run, redeem: Run) -> None:
    (code,) = made(shop)
    first = redeem(ADA, code["code"], "--json")
    assert {name: first.json[name] for name in ("payment", "amount", "available")} == {
        "payment": code["id"],
        "amount": "10.00",
        "available": "10.00",
    }
    again = redeem(ADA, code["code"].lower().replace("-", " "), "--json")
    assert again.json == first.json
    told = redeem(ADA, code["code"])
    assert "10.00 USD were credited before, and are not again" in told.out
    other = redeem(BOB, code["code"], "--json")
    assert (other.code, other.error["code"]) == (1, "code_invalid")
    assert (available(shop, ADA), available(shop, BOB)) == ("10.00", "0.00")
    assert shop("ledger", "verify", "--json").json["ok"]


def test_a_code_that_is_spent_for_nothing_is_no_success(shop: Run, redeem: Run, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", "settle it by hand", level=logging.ERROR, times=1)
    for _ in range(4):
        assert shop("credit", "grant", ADA, "1000000000", "--reason", "rich").code == 0
    code = shop("voucher", "create", "1000000000", "--json").json["codes"][0]["code"]
    for _ in range(2):
        done = redeem(ADA, code)
        assert done.code == 1
        assert done.out.startswith("0.00 USD were credited")


def test_a_code_may_be_an_argument(shop: Run) -> None:
    (code,) = made(shop)
    assert shop("voucher", "redeem", ADA, code["code"]).code == 0
    assert available(shop, ADA) == "10.00"


def test_a_code_is_asked_for_at_a_terminal(shop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = made(shop)
    terminal = io.StringIO(f"{code['code']}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    done = shop("voucher", "redeem", ADA)
    assert (done.code, done.err.startswith("code: ")) == (0, True)
    assert available(shop, ADA) == "10.00"


def test_a_typing_error_is_the_typists(shop: Run, redeem: Run) -> None:
    (code,) = made(shop)
    wrong = code["code"][:-1] + ("0" if code["code"][-1] != "0" else "1")
    for typed in (wrong, "", "hello"):
        done = redeem(ADA, typed, "--json")
        assert (done.code, done.error) == (2, {"code": "code_mistyped", "message": "that is no code: a typing error"})
    assert wrong not in str(done)


def test_no_code_is_read_where_stdin_is_closed(shop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    refused = shop("voucher", "redeem", ADA, "--json")
    assert (refused.code, refused.error["code"]) == (2, "code_mistyped")


def test_too_many_wrong_codes_wait(shop: Run, redeem: Run) -> None:
    (code, good) = made(shop, "--count", "2")
    redeem(BOB, code["code"])
    codes = [redeem(ADA, code["code"], "--json").error["code"] for _ in range(11)]
    assert codes == ["code_invalid"] * 10 + ["code_throttled"]
    told = redeem(ADA, good["code"])
    assert (told.code, told.out) == (1, "")
    assert re.search(r"try again in \d+ seconds?", told.err)
    assert redeem(BOB, good["code"]).code == 0


def test_who_has_no_account_spends_no_code(shop: Run, redeem: Run) -> None:
    (code,) = made(shop)
    refused = redeem("eve@example.com", code["code"], "--json")
    assert (refused.code, refused.error["code"]) == (1, "account_unknown")
    assert shop("voucher", "list", "--state", "ready", "--json").json[0]["id"] == code["id"]


def test_the_trail(shop: Run, redeem: Run) -> None:
    codes = made(shop, "--count", "3", "--note", "conference", "--author", "carol", "--expires", "30d")
    (other,) = made(shop)
    batch = codes[0]["id"][:4]
    redeem(ADA, codes[0]["code"])
    revoked = shop("voucher", "revoke", codes[1]["id"].lower(), "--reason", "stolen", "--author", "dan", "--json").json
    assert revoked == {"revoked": [codes[1]["id"]], "already": 0, "redeemed": 0, "expired": 0}

    rows = {row["id"]: row for row in shop("voucher", "list", "--json").json}
    assert rows.keys() == {code["id"] for code in (*codes, other)}
    assert rows[codes[0]["id"]] | {"at": "", "expires": ""} == {
        "id": codes[0]["id"],
        "amount": "10.00",
        "state": "redeemed",
        "expires": "",
        "account": ADA,
        "at": "",
        "by": None,
        "reason": None,
    }
    assert [rows[codes[1]["id"]][name] for name in ("state", "by", "reason")] == ["revoked", "dan", "stolen"]
    ready = shop("voucher", "list", "--batch", batch.lower(), "--state", "ready", "--json").json
    assert [row["id"] for row in ready] == [codes[2]["id"]]
    assert ADA in shop("voucher", "list", "--state", "redeemed").out

    (mine,) = (row for row in shop("voucher", "batches", "--json").json if row["batch"] == batch)
    assert {name: mine[name] for name in ("count", "ready", "redeemed", "revoked", "expired", "author", "note")} == {
        "count": 3,
        "ready": 1,
        "redeemed": 1,
        "revoked": 1,
        "expired": 0,
        "author": "carol",
        "note": "conference",
    }
    assert "conference" in shop("voucher", "batches").out
    told = shop("voucher", "revoke", batch, "--reason", "over").out
    assert told == "revoked 1 code; left as they are: 1 redeemed, 1 revoked\n"
    assert redeem(BOB, codes[2]["code"]).code == 1


def test_an_erased_account_leaves_its_id(shop: Run, redeem: Run, folder: Path) -> None:
    (code,) = made(shop)
    redeem(ADA, code["code"])

    async def account(store: Store) -> str:
        profile = await store.profile_find(ADA)
        assert profile is not None
        return profile.account

    ada = in_store(folder, account)
    assert shop("voucher", "list", "--json").json[0]["account"] == ADA
    with closing(sqlite3.connect(folder / "var/aurixel.db")) as connection, connection:
        connection.execute("DELETE FROM profiles WHERE account = ?", (ada,))
    assert shop("voucher", "list", "--json").json[0]["account"] == ada


def test_nothing_yet(shop: Run) -> None:
    assert shop("voucher", "list").out == "no codes\n"
    assert shop("voucher", "batches").out == "no batches\n"
    assert shop("voucher", "list", "--json").json == shop("voucher", "batches", "--json").json == []


@pytest.mark.parametrize(
    "words",
    [
        ("create", "0"),
        ("create", "ten"),
        ("create", "1", "--count", "0"),
        ("create", "1", "--count", "10001"),
        ("create", "1", "--expires", "2020-01-01"),
        ("create", "1", "--expires", "0d"),
        ("create", "1", "--expires", "9999-12-31T23:59:59-14:00"),
        ("create", "1", "--note", "x" * 501),
        ("list", "--batch", "what?"),
        ("list", "--batch", "K7QM-3F9A2C7D"),
        ("list", "--state", "lost"),
        ("revoke", "K7QM"),
        ("revoke", "K7QM", "--reason", "x"),
        ("revoke", "K7QM", "--reason", " "),
        ("list", "--batch", ""),
        ("revoke", "../..", "--reason", "x"),
        ("redeem",),
    ],
)
def test_what_is_typed_wrong_changes_nothing(shop: Run, words: tuple[str, ...]) -> None:
    done = shop("voucher", *words, "--json")
    assert (done.code, done.error["code"]) == (2, "usage")
    assert shop("voucher", "list", "--json").json == []


def test_without_its_block_the_backend_is_not_enabled(shop: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace("[payments.vouchers]", ""))
    refused = shop("voucher", "list", "--json")
    assert refused.code == 1
    assert "there is no [payments.vouchers]" in refused.error["message"]


def test_a_wrong_setting_is_named_with_its_line(shop: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text() + "attempts = 0\n")
    (fault,) = shop("voucher", "list", "--json").error["faults"]
    assert re.fullmatch(r"conf/aurixel.toml:\d+ \(payments.vouchers.attempts\)", fault["place"])


def test_a_terminal_sees_how_far_it_is(shop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = shop("voucher", "create", "1", "--count", "130")
    assert "100%" in done.err
    assert len(CODE.findall(done.out)) == 130
    assert "100%" in shop("voucher", "revoke", done.out[:4], "--reason", "x").err
    assert shop("voucher", "create", "1", "--json").err == ""


# --- commands of any plugin ---------------------------------------------------------------------------------------------


def plugin(folder: Path, source: str) -> None:
    """A plugin `extra` on the path, enabled."""
    (folder / "extra_commands.py").write_text(
        f"import click\nfrom aurixel.plugin import hookimpl, CommandHost\n{source}\n"
        "@hookimpl\ndef register_commands(commands):\n    commands.add_command(extra)\n"
    )
    told = folder / "extra_commands-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-commands\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[aurixel]\nextra = extra_commands\n")
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace('"limits", ', '"limits", "extra", '))


@pytest.fixture
def extra(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "extra_commands", raising=False)
    return aurixel


def test_a_command_prints_as_ours_do(extra: Run, folder: Path) -> None:
    plugin(
        folder,
        "@click.command()\n@click.argument('word')\n@click.pass_obj\ndef extra(host, word):\n"
        "    host.note('a word')\n"
        "    host.show({'word': word, 'json': host.json}, host.table(('word', 'by'), [[word, 'x' * bool(host.user)]]))\n",
    )
    assert extra("extra", "hello") == (0, "word   by\nhello  x\n", "a word\n")
    assert extra("extra", "hello", "--json").json == {"word": "hello", "json": True}
    assert extra("extra", "hello", "--json").err == ""
    assert "--config" in extra("extra", "--help").out
    assert extra("extra", "--json").error["code"] == "usage"


def test_plugins_are_those_of_the_configuration_that_is_named(extra: Run, folder: Path) -> None:
    plugin(folder, "@click.command()\n@click.pass_obj\ndef extra(host):\n    host.show({}, 'here')\n")
    (folder / "conf/aurixel.toml").rename(folder / "other.toml")
    assert extra("extra").code == 2
    assert extra("extra", "--config", "other.toml").out == "here\n"
    assert extra("extra", "--config=other.toml").out == "here\n"


@pytest.mark.parametrize("option", ["'--json'", "'--config'", "'--other', 'as_json'"])
def test_a_command_that_takes_our_options_for_itself_is_left_out(extra: Run, folder: Path, option: str) -> None:
    plugin(folder, f"@click.group()\ndef extra(): ...\n@extra.command()\n@click.option({option})\ndef sub(**_): ...\n")
    done = extra("extra", "sub")
    assert done.code == 2
    assert re.search(r"plugin 'extra': register_commands gives 'sub' \S+, which every command has from the host", done.err)


def in_store(folder: Path, work: object) -> str:
    async def run() -> str:
        store = open_store(f"sqlite:///{folder / 'var/aurixel.db'}")
        await store.open()
        try:
            return await work(store)  # type: ignore[operator, no-any-return]
        finally:
            await store.close()

    return asyncio.run(run())
