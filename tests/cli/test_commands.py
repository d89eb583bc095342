"""Every command on a real store: what it prints for people and for machines, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aurixel.keys import parse
from aurixel.storage import RollupAdd, Store, open_store
from tests.cli.conftest import SECRET, Done, Run

KEY = re.compile(r"^ax-[a-z0-9]{12}-[0-9A-Za-z]{38}$", re.MULTILINE)
NOTHING = dict.fromkeys(("available", "leased", "held", "credited", "spent", "written_off"), "0.00")


# --- accounts and credit ----------------------------------------------------------------------------------------------


def test_an_account_from_opening_to_closing(aurixel: Run) -> None:
    assert aurixel("account", "create", "Ada@example.com", "--json").json == {
        "email": "ada@example.com",
        "status": "active",
        **NOTHING,
    }
    assert aurixel("account", "create", "ada@example.com", "--json").error["code"] == "account_exists"
    shown = aurixel("account", "show", "ada@example.com")
    assert shown.code == 0
    assert "available    0.00" in shown.out
    assert [each["email"] for each in aurixel("account", "list", "--json").json] == ["ada@example.com"]
    assert "ada@example.com" in aurixel("account", "list").out
    assert aurixel("account", "close", "ada@example.com", "--json").json["status"] == "closed"
    refused = aurixel("credit", "grant", "ada@example.com", "1", "--reason", "x", "--json")
    assert (refused.code, refused.error["code"]) == (1, "account_closed")


def test_no_accounts_yet(aurixel: Run) -> None:
    aurixel("reload")
    assert aurixel("account", "list").out == "no accounts yet\n"
    assert aurixel("account", "list", "--json").json == []


def test_a_grant_is_exact_and_its_id_makes_it_once(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    grant = ("credit", "grant", "a@b", "10.000000001", "--reason", "welcome", "--id", "w1", "--json")
    first, again = aurixel(*grant), aurixel(*grant)
    assert first.json == again.json == {"id": "grant:w1", "n": 1, "amount": "10.000000001", "available": "10.000000001"}
    assert "10.000000001 USD was granted before, and is not again (grant:w1)" in aurixel(*grant[:-1]).out
    other = aurixel("credit", "grant", "a@b", "11", "--reason", "welcome", "--id", "w1", "--json")
    assert (other.code, other.error["code"]) == (1, "movement_conflict")
    assert "granted 1.00 USD" in aurixel("credit", "grant", "a@b", "1", "--reason", "more").out
    assert aurixel("account", "show", "a@b", "--json").json["available"] == "11.000000001"


def test_an_amount_of_twenty_digits_is_too_large(aurixel: Run) -> None:
    refused = aurixel("credit", "grant", "a@b", "99999999999999999999", "--reason", "x", "--json")
    assert "the amount is too large" in refused.error["message"]


def test_a_word_that_is_no_email_is_repeated(aurixel: Run) -> None:
    refused = aurixel("account", "create", "ada", "--json")
    assert (refused.code, refused.error["message"]) == (2, "'ada' is not an e-mail address")


@pytest.mark.parametrize("amount", ["0", "ten", "1e3", "0.0000000001", "1,00", "99999999999999999999", "\u0663", "1.\u0663"])
def test_an_amount_that_is_none(aurixel: Run, amount: str) -> None:
    aurixel("account", "create", "a@b")
    refused = aurixel("credit", "grant", "a@b", amount, "--reason", "x", "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


@pytest.mark.parametrize("word", ["grant", "adjust"])
def test_an_id_that_says_nothing_is_a_script_that_lost_it(aurixel: Run, word: str) -> None:
    aurixel("account", "create", "a@b")
    for empty in ("", " "):
        refused = aurixel("credit", word, "a@b", "1", "--reason", "invoice", "--id", empty, "--json")
        assert (refused.code, refused.error["code"]) == (2, "usage")
    assert aurixel("account", "show", "a@b", "--json").json["available"] == "0.00"


def test_a_grant_needs_a_reason(aurixel: Run) -> None:
    refused = aurixel("credit", "grant", "a@b", "1")
    assert refused.code == 2
    assert "--reason" in refused.err


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_printed_once_and_alone_on_its_line(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    made = aurixel("key", "create", "a@b", "--name", "laptop")
    assert KEY.fullmatch(made.out.removesuffix("\n"))
    assert made.out.strip() not in made.err
    as_json = aurixel("key", "create", "a@b", "--json")
    assert set(as_json.json) == {"id", "key"}
    assert as_json.err == ""
    parsed = parse(as_json.json["key"])
    assert parsed is not None
    assert parsed[0] == as_json.json["id"]
    listed = aurixel("key", "list", "a@b")
    assert "laptop" in listed.out
    assert made.out[16:48] not in listed.out


def test_a_key_for_a_model_that_is_not_there_is_made_with_a_warning(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    aurixel("reload")
    made = aurixel("key", "create", "a@b", "--model", "smal", "--model", "small")
    assert KEY.fullmatch(made.out.removesuffix("\n"))
    assert "warning: the catalogue has no model 'smal' now" in made.err
    assert "'small'" not in made.err


def test_a_keys_limits_are_those_the_enabled_checks_enforce(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    words = ("--model", "small", "--model", "large", "--ip", "10.0.0.0/8", "--rpm", "60", "--tpm", "1000", "--concurrency", "2")
    assert aurixel("key", "create", "a@b", *words).code == 0
    (key,) = aurixel("key", "list", "a@b", "--json").json
    assert key["limits"] == {"models": ["small", "large"], "ips": ["10.0.0.0/8"], "rpm": 60, "tpm": 1000, "concurrency": 2}
    assert aurixel("key", "create", "a@b", "--strict").code == 0
    assert [key["limits"] for key in aurixel("key", "list", "a@b", "--json").json][1:] == [{"strict": True}]
    refused = aurixel("key", "create", "a@b", "--limit", "strict=maybe", "--json")
    assert (refused.code, refused.error["code"]) == (2, "limit_invalid")
    refused = aurixel("key", "create", "a@b", "--ip", "10.0.0.1/8", "--json")
    assert (refused.code, refused.error["code"]) == (2, "limit_invalid")
    refused = aurixel("key", "create", "a@b", "--limit", "colour=red", "--json")
    assert (refused.code, refused.error["code"]) == (2, "limit_unenforced")
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace("[policy.limits]", ""))
    refused = aurixel("key", "create", "a@b", "--rpm", "60", "--json")
    assert refused.error["code"] == "limit_unenforced"
    assert "rpm" in refused.error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("--rpm", "0"),
        ("--rpm", "x"),
        ("--expires", "soon"),
        ("--expires", "\u0663d"),
        ("--expires", "2001-01-01"),
        ("--expires", "9999-12-31T23:59:59-14:00"),
        ("--limit", "rpm"),
    ],
)
def test_words_for_a_key_that_make_no_sense(aurixel: Run, words: tuple[str, str]) -> None:
    aurixel("account", "create", "a@b")
    assert aurixel("key", "create", "a@b", *words).code == 2
    assert aurixel("key", "list", "a@b", "--json").json == []


def test_an_expiry_is_a_date_or_a_span(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    for when in ("2099-12-31", "2099-12-31T01:00:00+01:00", "9999-12-31T23:59:59.999999", "90d"):
        assert aurixel("key", "create", "a@b", "--expires", when).code == 0
    expiries = sorted(key["expires"] for key in aurixel("key", "list", "a@b", "--json").json)
    assert expiries[1:] == ["2099-12-31T00:00:00Z", "2099-12-31T00:00:00Z", "9999-12-31T23:59:59Z"]
    assert expiries[0] < "2099"


def test_a_time_that_could_not_be_printed_again_is_none(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    assert aurixel("usage", "--since", "0001-01-01T00:00:00+14:00").code == 2
    assert aurixel("usage", "--since", "0001-01-01", "--json").json["since"] == "0001-01-01T00:00:00Z"


def test_a_key_is_revoked_for_good(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    made = aurixel("key", "create", "a@b", "--json").json
    assert aurixel("key", "revoke", "a@b", made["id"], "--json").json == {"id": made["id"], "revoked": True}
    assert "was revoked before" in aurixel("key", "revoke", "a@b", made["id"]).out
    assert [key["status"] for key in aurixel("key", "list", "a@b", "--json").json] == ["revoked"]
    refused = aurixel("key", "revoke", "a@b", "nothing", "--json")
    assert (refused.code, refused.error["code"]) == (1, "key_unknown")


def test_keys_are_not_hashed_without_a_secret(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    config = folder / "conf/aurixel.toml"
    config.write_text(re.sub(r"secret = .*", 'secret = "short"', config.read_text()))
    refused = aurixel("key", "create", "a@b", "--json")
    assert (refused.code, refused.error["code"]) == (1, "secret_weak")


# --- usage ------------------------------------------------------------------------------------------------------------


def in_store(folder: Path, work: object) -> None:
    async def run() -> None:
        store = open_store(f"sqlite:///{folder / 'var/aurixel.db'}")
        await store.open()
        try:
            await work(store)  # type: ignore[operator]
        finally:
            await store.close()

    asyncio.run(run())


def test_usage_by_model_day_and_key(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    assert aurixel("usage", "a@b").out == "nothing was used\n"
    hour = 1_769_817_600_000 // 3_600_000  # 2026-01-31

    async def fill(store: Store) -> None:
        profile = await store.profile_find("a@b")
        assert profile is not None
        rollups = [
            RollupAdd(
                account=profile.account,
                hour=at,
                model=model,
                key_id=key,
                inc="i" * 26,
                s=1,
                sums={"requests": 2, "cost": cost, "input": 10},
            )
            for at, model, key, cost in (
                (hour, "small", "k1", 1),
                (hour, "large", "k1", 5),
                (hour + 24, "small", "k2", 1_000_000_000),
            )
        ]
        await store.post((), rollups, ())

    in_store(folder, fill)
    report = aurixel("usage", "a@b", "--since", "2026-01-01", "--json").json
    assert report["rows"] == [
        {"model": "large", "requests": 2, "cost": "0.000000005", "counts": {"input": 10}},
        {"model": "small", "requests": 4, "cost": "1.000000001", "counts": {"input": 20}},
    ]
    assert report["total"] == {"requests": 6, "cost": "1.000000006", "counts": {"input": 30}}
    assert report["since"] == "2026-01-01T00:00:00Z"
    by_day = aurixel("usage", "a@b", "--since", "2026-01-01", "--by", "day", "--json").json
    assert [(row["day"], row["requests"]) for row in by_day["rows"]] == [("2026-01-31", 4), ("2026-02-01", 2)]
    later = aurixel("usage", "a@b", "--since", "2026-02-01", "--by", "key", "--json").json
    assert [(row["key"], row["cost"]) for row in later["rows"]] == [("k2", "1.00")]
    assert "1.000000006" in aurixel("usage", "a@b", "--since", "2026-01-01").out


# --- catalogue, check, plugins, ledger, nodes -------------------------------------------------------------------------


def test_reload_publishes_the_files_and_check_says_what_is_served(aurixel: Run, folder: Path) -> None:
    before = aurixel("check", "--json").json
    assert (before["ok"], before["catalogue"]) == (True, {"source": "files", "version": 0, "files_differ": False})
    assert not (folder / "var").exists()  # checking changes nothing
    assert aurixel("reload", "--json").json == {"version": 1, "models": ["small"], "unpriced": []}
    models = folder / "conf/models.toml"
    models.write_text(models.read_text() + models.read_text().replace("small", "bare"))
    assert aurixel("check", "--json").json["catalogue"] == {"source": "store", "version": 1, "files_differ": True}
    assert "`aurixel reload`" in aurixel("check").out
    assert aurixel("reload", "--json").json == {"version": 2, "models": ["bare", "small"], "unpriced": ["bare"]}
    after = aurixel("check", "--json").json
    assert after["catalogue"] == {"source": "store", "version": 2, "files_differ": False}
    assert [(model["model"], model["state"], model["prices"]) for model in after["models"]] == [
        ("bare", "unpriced", {}),
        ("small", "served", {"input": "1.00", "output": "4.00"}),
    ]
    text = aurixel("check")
    assert text.code == 0
    assert re.search(r"bare +unpriced", text.out)


def test_imported_prices_take_effect_and_the_rest_stays(aurixel: Run, folder: Path) -> None:
    aurixel("reload")
    (folder / "p.toml").write_text('[[price]]\nmodel = "small"\neffective = 2026-02-01\ninput = "2"\noutput = "3"\n')
    assert aurixel("prices", "import", "p.toml", "--json").json["version"] == 2
    (model,) = aurixel("check", "--json").json["models"]
    assert (model["prices"], model["effective"]) == ({"input": "2.00", "output": "3.00"}, "2026-02-01T00:00:00Z")
    (folder / "p.toml").write_text('[[price]]\nmodel = "smal"\neffective = 2026-02-01\ninput = 2\n')
    refused = aurixel("prices", "import", "p.toml", "--json")
    assert refused.code == 1
    assert [fault["place"] for fault in refused.error["faults"]] == ["p.toml:2", "p.toml:4"]
    assert aurixel("prices", "import", "nowhere.toml").code == 2


def test_plugins_are_listed_with_what_they_bring(aurixel: Run) -> None:
    listed = {row["name"]: row for row in aurixel("plugins", "list", "--json").json}
    assert (listed["demo"]["enabled"], listed["demo"]["brings"]) == (True, ["provider demo"])
    assert listed["limits"]["brings"] == ["policy check limits"]
    assert listed["openai"]["enabled"] is False
    assert re.search(r"openai +\S+ +installed", aurixel("plugins", "list").out)


def test_the_books_of_a_new_store_add_up(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "5", "--reason", "x")
    done = aurixel("ledger", "verify", "--json")
    assert (done.code, done.json["ok"], done.json["accounts"], done.json["faults"]) == (0, True, 1, [])
    assert aurixel("ledger", "verify").out == "1 account, 0 records: everything adds up\n"


def test_books_that_do_not_add_up_end_with_1(aurixel: Run, folder: Path) -> None:
    import sqlite3

    aurixel("account", "create", "a@b")
    aurixel("credit", "grant", "a@b", "5", "--reason", "x")
    with sqlite3.connect(folder / "var/aurixel.db") as db:
        db.execute("UPDATE accounts SET available = available + 1")
    db.close()
    done = aurixel("ledger", "verify", "--json")
    assert (done.code, done.json["ok"], done.json["faults"][0]["code"]) == (1, False, "sum")
    assert aurixel("ledger", "verify").out.endswith("\n1 account, 0 records: 1 fault\n")


def test_a_terminal_sees_how_far_the_proof_is(aurixel: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    aurixel("account", "create", "a@b")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = aurixel("ledger", "verify")
    assert "100%" in done.err
    assert done.out == "1 account, 0 records: everything adds up\n"
    assert aurixel("ledger", "verify", "--json").err == ""


def test_a_plugin_brings_a_command(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "extra_greeting.py").write_text(
        "import click\nfrom aurixel.plugin import hookimpl\n"
        "@hookimpl\ndef register_commands(commands):\n"
        "    commands.add_command(click.Command('greet', callback=lambda: click.echo('hello')))\n"
    )
    told = folder / "extra_greeting-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-greeting\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[aurixel]\ngreeting = extra_greeting\n")
    monkeypatch.syspath_prepend(str(folder))
    assert aurixel("greet").code == 2
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace('"limits", ', '"limits", "greeting", '))
    assert aurixel("greet") == (0, "hello\n", "")
    (row,) = (row for row in aurixel("plugins", "list", "--json").json if row["name"] == "greeting")
    assert (row["distribution"], row["brings"]) == ("extra-greeting", ["commands"])


@pytest.mark.parametrize(
    "words",
    [
        "account list",
        "account show a@b",
        "account close a@b",
        "key list a@b",
        "key create a@b",
        "key revoke a@b x",
        "credit grant a@b 1 --reason x",
        "usage a@b",
        "ledger verify",
        "node list",
        "node abandon i --yes",
    ],
)
def test_a_store_is_not_made_by_who_only_asks(aurixel: Run, folder: Path, words: str) -> None:
    """An empty store where another was meant answers everything, and all of it wrong."""
    done = aurixel(*words.split(), "--json")
    assert (done.code, done.error["code"]) == (1, "store_missing")
    assert done.error["message"].startswith("conf/aurixel.toml:11 (store.url): there is no store at sqlite:///var/aurixel.db")
    assert "aurixel account create" in done.error["message"]
    assert [path.name for path in folder.iterdir()] == ["conf"]


def test_a_store_that_does_not_answer_is_named_without_its_password(aurixel: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "mongodb://me:hush@127.0.0.1:9/books?serverSelectionTimeoutMS=50"
    monkeypatch.setenv("AURIXEL_STORE__URL", url)
    done = aurixel("account", "list", "--json")
    assert (done.code, done.error["code"]) == (1, "store_unavailable")
    assert "the store mongodb://127.0.0.1:9/books gives no answer" in done.error["message"]
    assert "hush" not in done.err


# --- the shell --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_damaged_is_not_one_to_wait_for(aurixel: Run, folder: Path) -> None:
    file = folder / "var/aurixel.db"
    aurixel("account", "create", "a@b")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4096] + bytes(len(whole) - 4096)):
        file.write_bytes(damaged)
        done = aurixel("account", "list", "--json")
        assert (done.code, done.error["code"]) == (1, "store_damaged")
        assert "is damaged (SQLITE_CORRUPT) (restore it from a backup)" in done.error["message"]


def test_a_store_that_is_locked_says_why(aurixel: Run, folder: Path) -> None:
    import sqlite3

    aurixel("account", "create", "a@b")
    with closing(sqlite3.connect(folder / "var/aurixel.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = aurixel("credit", "grant", "a@b", "1", "--reason", "x", "--json")
    assert (done.code, done.error["code"]) == (1, "store_unavailable")
    assert "gives no answer: SQLite: SQLITE_BUSY (is it running? try again)" in done.error["message"]


def test_without_a_configuration_a_command_says_so(run: Run, folder: Path) -> None:
    refused = run("account", "list", "--json")
    assert (refused.code, refused.error["code"]) == (1, "config_missing")
    refused = run("account", "list", "--config", "gone.toml", "--json")
    assert (refused.code, refused.error["code"]) == (1, "file_missing")
    (folder / "var/dev").mkdir(parents=True)
    (folder / "var/dev/aurixel.toml").touch()
    assert "--config var/dev/aurixel.toml" in run("account", "list").err


def test_the_environment_may_name_the_configuration(aurixel: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "conf/aurixel.toml").rename(folder / "other.toml")
    monkeypatch.setenv("AURIXEL_CONFIG", "other.toml")
    assert aurixel("account", "create", "a@b").code == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("acount",), "account"),
        (("account", "crate", "a@b"), "create"),
        (("account", "show"), "EMAIL"),
        (("usage", "a@b", "--by", "hour"), "model"),
        (("usage", "a@b", "--jsn"), "--json"),
    ],
)
def test_what_was_typed_wrong_ends_with_2_and_a_hint(aurixel: Run, words: tuple[str, ...], hint: str) -> None:
    done = aurixel(*words)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err
    assert "--help` says more" in done.err


def test_a_command_that_plugins_could_not_be_asked_for_says_so(aurixel: Run, folder: Path) -> None:
    nowhere = aurixel("voucher", "create", "1", "--config", "nowhere.toml")
    assert nowhere.code == 2
    assert "No such command 'voucher'. Plugins could not be asked: nowhere.toml: there is no such file" in nowhere.err
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace('"limits", ', '"limits", "greeting", '))
    absent = aurixel("voucher", "create", "1", "--json")
    assert (absent.code, absent.error["code"]) == (2, "usage")
    assert "Plugins could not be asked: conf/aurixel.toml:6 (plugins.enabled): the plugin 'greeting'" in absent.error["message"]
    config.write_text("[nonsense]\n[rubbish]\n")
    broken = aurixel("voucher", "create", "1", "--json").error["message"]
    assert "Plugins could not be asked: conf/aurixel.toml:1 (nonsense): unknown section" in broken
    assert "\n" not in broken
    config.unlink()
    unset = aurixel("acount")
    assert "Did you mean 'account'?" in unset.err
    assert "Plugins could not be asked: conf/aurixel.toml: there is no configuration file" in unset.err


def test_a_word_that_is_no_text_is_the_typists(aurixel: Run) -> None:
    aurixel("account", "create", "a@b")
    for words in (("account", "show", "a\udcff@b"), ("credit", "grant", "a@b", "1", "--reason", "\udcff", "--json")):
        done = aurixel(*words)
        assert (done.code, done.out) == (2, "")
        assert "is not UTF-8" in done.err
        done.err.encode()


def test_an_error_is_json_where_json_was_asked_for(aurixel: Run) -> None:
    for words in (("usage", "x@y"), ("usage", "xy"), ("nothing",), ("credit", "grant", "--nothing")):
        error = aurixel(*words, "--json").error
        assert set(error) >= {"code", "message"}
        assert "\n" not in error["message"]


def test_every_command_has_help_json_and_config(run: Run) -> None:
    from aurixel.cli import cli

    def walk(command: object, words: tuple[str, ...]) -> int:
        import click

        if isinstance(command, click.Group):
            return sum(walk(each, (*words, name)) for name, each in command.commands.items())
        done = run(*words, "--help")
        assert done.code == 0
        for option in ("--json", "--config"):
            assert option in done.out, words
        return 1

    assert walk(cli, ()) >= 16


def test_no_summary_of_a_command_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurixel.cli import cli

    monkeypatch.setenv("COLUMNS", "80")
    for words in ((), *((name,) for name, each in cli.commands.items() if hasattr(each, "commands"))):
        assert "..." not in run(*words, "--help").out.partition("Commands:")[2], words


def test_a_setting_is_named_once(aurixel: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    for text in (config.read_text().replace(SECRET, "hush"), config.read_text() + "[server]\nmax_body = 'x'\n"):
        config.write_text(text)
        told = aurixel("serve").err
        assert told.count("security.secret") + told.count("server.max_body") == 1, told


def test_a_group_without_a_command_is_answered_with_its_help(aurixel: Run) -> None:
    for words in ((), ("account",)):
        done = aurixel(*words)
        assert done.code == 2
        assert done.err.startswith("Usage: aurixel")
        assert done.err.count("Usage:") == 1


def test_help_loads_neither_server_nor_driver_nor_plugins() -> None:
    heavy = {"tornado", "aiohttp", "motor", "pymongo", "pydantic", "uvloop", "prometheus_client", "aurixel_demo"}
    program = (
        "import sys, aurixel.cli\n"
        "try: aurixel.cli.main(['--help'])\n"
        f"finally: sys.exit(','.join({heavy!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "aurixel dev" in done.stdout


def test_a_closed_pipe_is_no_traceback(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    program = [sys.executable, "-c", "from aurixel.cli import main; main()", "account", "list", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_result_that_nobody_can_be_told_is_no_success(aurixel: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    aurixel("account", "create", "a@b")
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where the descriptor is closed
    for words in (("key", "create", "a@b"), ("ledger", "export", "balances")):
        done = aurixel(*words)
        assert (done.code, done.out) == (1, "")
        assert done.err.endswith("error: stdout is closed\n")


def test_a_result_says_what_was_done(aurixel: Run) -> None:
    done: Done = aurixel("account", "create", "a@b")
    assert (done.code, done.err) == (0, "")
