"""What `aurixel check` finds and `aurixel serve` refuses: everything at once, each with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SECRET, Run


def test_check_finds_every_fault_and_ends_with_1(aurixel: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    text = config.read_text().replace("allow_demo = true", "").replace('provider = "demo"', 'provider = "demo"\nspeed = 1')
    config.write_text(text + "[policy.nobody]\n")
    prices = folder / "conf/prices.toml"
    prices.write_text(prices.read_text().replace('"1.00"', "1.00"))
    done = aurixel("check", "--json")
    assert done.code == 1
    messages = [fault["message"] for fault in done.json["faults"]]
    for words in ("is the demo", "'nobody'", "unknown setting 'speed'", "must be a string in quotes"):
        assert any(words in message for message in messages), words
    assert len(messages) == 4
    assert aurixel("check").out.count("\n") > 4


def test_check_finds_keys_whose_limits_nobody_enforces(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    aurixel("key", "create", "a@b", "--rpm", "1")
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace("[policy.limits]", ""))
    aurixel("key", "create", "a@b", "--name", "free", "--strict")
    (fault,) = aurixel("check", "--json").json["faults"]
    assert fault == {
        "code": "limit_unenforced",
        "message": "1 key carries the limit 'rpm', which no enabled check enforces",
        "place": "conf/aurixel.toml (policy)",
        "mend": "add the block [policy.limits], or revoke what carries it",
    }
    config.write_text(config.read_text().replace('"limits", ', ""))
    (fault,) = aurixel("check", "--json").json["faults"]
    assert (fault["place"], "enable the plugin" in fault["mend"]) == ("conf/aurixel.toml:6 (plugins.enabled)", True)


def test_a_misspelt_plugin_is_one_fault_and_no_other_follows(aurixel: Run, folder: Path) -> None:
    aurixel("account", "create", "a@b")
    aurixel("key", "create", "a@b", "--rpm", "1")
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace('"limits"', '"limts"'))
    (fault,) = aurixel("check", "--json").json["faults"]
    assert (fault["place"], fault["mend"]) == ("conf/aurixel.toml:6 (plugins.enabled)", "did you mean 'limits'?")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_everything_is_told_at_once_and_each_thing_once(aurixel: Run, folder: Path, command: str) -> None:
    config = folder / "conf/aurixel.toml"
    weak = config.read_text().replace(SECRET, "hush")
    config.write_text(
        weak.replace(
            'provider = "demo"\n', 'provider = "demo"\n[upstreams.far]\nprovider = "openai"\napi_key = "env:NOT_THERE"\n'
        ).replace('"limits", ', '"limits", "openai", ')
        + "[ledger.settlement]\nok = 'sometimes'\n"
    )
    done = aurixel(command, "--json")
    faults = done.json["faults"] if command == "check" else done.error["faults"]
    assert [(fault["code"], fault["place"]) for fault in faults] == [
        ("env_missing", "conf/aurixel.toml:12 (upstreams.far.api_key)"),
        ("secret_weak", "conf/aurixel.toml:3 (security.secret)"),
        ("config_invalid", "conf/aurixel.toml:16 (ledger.settlement.ok)"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('provider = "demo"', 'provider = "dmo"', "conf/aurixel.toml:9 (upstreams.demo.provider)"),
        ('provider = "demo"', 'provider = "demo"\nspeed = 1', "conf/aurixel.toml:10 (upstreams.demo.speed)"),
        ('provider = "demo"', 'provider = "demo"\ndelay = "x"', "conf/aurixel.toml:10 (upstreams.demo.delay)"),
        ("[policy.limits]", "[policy.limits]\nrpm = 1", "conf/aurixel.toml:8 (policy.limits.rpm)"),
        ('["limits", "demo"]', '["limits", "demo", "demo"]', "conf/aurixel.toml:6 (plugins.enabled)"),
        ("sqlite:///var/aurixel.db", "sqlite:///conf/models.toml", "conf/aurixel.toml:11 (store.url)"),
        ("sqlite:///var/aurixel.db", "redis://x", "conf/aurixel.toml:11 (store.url)"),
    ],
)
def test_a_fault_has_file_and_line_in_check_and_serve(aurixel: Run, folder: Path, old: str, new: str, place: str) -> None:
    config = folder / "conf/aurixel.toml"
    config.write_text(config.read_text().replace(old, new))
    (fault,) = aurixel("check", "--json").json["faults"]
    assert fault["place"] == place
    words = [sys.executable, "-c", "from aurixel.cli import main; main()", "serve", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stderr.splitlines()[-1])["error"]["faults"][0]["place"] == place


def test_a_route_to_an_unknown_upstream_is_a_fault(aurixel: Run, folder: Path) -> None:
    models = folder / "conf/models.toml"
    models.write_text(models.read_text().replace('upstream = "demo"', 'upstream = "dem"'))
    (fault,) = aurixel("check", "--json").json["faults"]
    assert (fault["code"], fault["place"], fault["mend"]) == ("upstream_unknown", "conf/models.toml:6", "did you mean 'demo'?")
    refused = aurixel("reload", "--json")
    assert [each["code"] for each in refused.error["faults"]] == ["upstream_unknown"]


def test_a_model_without_an_upstream_is_said_to_have_none(aurixel: Run, folder: Path) -> None:
    models = folder / "conf/models.toml"
    models.write_text(models.read_text().replace('upstream = "demo"', 'upstream = "other"'))
    (model,) = aurixel("check", "--json").json["models"]
    assert (model["state"], model["upstreams"]) == ("no upstream", [])


def test_serve_refuses_what_is_unsafe_and_says_all_of_it(aurixel: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    config.write_text('[server]\nops_listen = "0.0.0.0:9700"\n')
    refused = aurixel("serve", "--json")
    assert refused.code == 1
    assert [fault["code"] for fault in refused.error["faults"]] == ["secret_missing", "unsafe", "no_upstreams"]
    refused = aurixel("serve")
    assert refused.err.startswith("3 faults:\n")
    assert "conf/aurixel.toml:2 (server.ops_listen)" in refused.err


def test_a_catalogue_that_is_not_there_is_none(aurixel: Run, folder: Path) -> None:
    (folder / "conf/models.toml").unlink()
    done = aurixel("check")
    assert (done.code, "\ncatalogue  none\n" in done.out) == (1, True)


def test_the_configuration_to_start_from_has_no_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AURIXEL_SECRET", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    conf = Path(__file__).parents[2] / "conf"
    done = run("check", "--config", str(conf / "aurixel.toml"), "--json")
    assert (done.code, done.json["faults"]) == (0, [])
    assert {model["state"] for model in done.json["models"]} == {"served"}
