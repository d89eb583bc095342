"""The configuration: the file, the overrides, the environment's secrets, and all faults at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aurixel.config import Settings, load, serve_faults
from aurixel.config.sections import is_loopback
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.values import Secret

ROOT = Path(__file__).parents[2]
DRAWN = "k7Qz0pV3xW9aB2cD4eF6gH8jL1mN5rT_"
SOUND = f"""
[security]
secret = "{DRAWN}"
[store]
url = "sqlite:///state/a.db"
[ledger]
journal = "state/journal"
[upstreams.main]
provider = "openai"
base_url = "https://upstream.example/v1"
"""
Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("AURIXEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = Path("a.toml")
        path.write_text(text)
        return path

    return to_file


def faults(path: Path, *needs: str) -> list[ConfigError]:
    with pytest.raises(ConfigFaults) as refused:
        load(path, needs=needs or None)
    return list(refused.value.faults)


def test_the_defaults_need_no_file() -> None:
    settings = load(None)
    assert (str(settings.server.listen), str(settings.server.ops_listen)) == ("127.0.0.1:8700", "127.0.0.1:9700")
    assert settings.server.max_body == 64 * 1024 * 1024
    assert settings.store.url.reveal() == "sqlite:///var/aurixel.db"
    assert settings.plugins.enabled == ("openai", "anthropic", "limits")


def test_a_block_is_split_into_the_hosts_part_and_the_providers(write: Write) -> None:
    settings = load(
        write('[upstreams.x]\nprovider = "p"\ntotal_timeout = 5\nbase_url = "u"\nsettings = 1\n[policy.y]\ndeadline = 2\nz = 3')
    )
    block = settings.upstreams["x"]
    assert (block.provider, block.total_timeout, block.settings) == ("p", 5.0, {"base_url": "u", "settings": 1})
    assert (settings.policy["y"].deadline, settings.policy["y"].settings) == (2.0, {"z": 3})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beat = 30\n", "admit_within must be at least 3 times beat"),
        ("admit_within = 100\n", "dead_after must be at least 1.5 times admit_within"),
        ("dead_after = 75\n", "dead_after must be at least 1.5 times admit_within"),
        ("beat = 0\n", "greater than 0"),
        ("heart = 1\n", "unknown setting 'heart'"),
    ],
)
def test_timings_that_would_not_be_safe_are_refused(write: Write, text: str, words: str) -> None:
    (fault,) = faults(write(f"[ledger.timing]\n{text}"))
    assert words in str(fault)
    assert fault.place.startswith("a.toml:")


def test_timings_may_be_longer_or_shorter_together(write: Write) -> None:
    timing = load(write("[ledger.timing]\nbeat = 20\nadmit_within = 60\ndead_after = 90\n")).ledger.timing
    assert (timing.beat, timing.admit_within, timing.dead_after, timing.sweep) == (20, 60, 90, 60)


@pytest.mark.parametrize("workers", [0, -1, 257, '"many"'])
def test_workers_are_at_least_one_and_not_absurdly_many(write: Write, workers: object) -> None:
    (fault,) = faults(write(f"[server]\nworkers = {workers}\n"))
    assert fault.place == "a.toml:2 (server.workers)"


def test_policies_keep_the_order_of_the_file(write: Write) -> None:
    assert list(load(write("[policy.b]\n[policy.a]\n[policy.c]")).policy) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[server]\nlistne = 1", "a.toml:2 (server.listne)", "unknown setting 'listne' (did you mean 'listen'?)"),
        ("[servr]\n", "a.toml:1 (servr)", "unknown section 'servr' (did you mean 'server'?)"),
        ("loose = 1", "a.toml:1 (loose)", "unknown section 'loose'"),
        ("[upstreams.x]\nbase_url = 'u'", "a.toml:1 (upstreams.x.provider)", "'provider' is missing"),
        ("[upstreams.x]\nprovider = 'p'\ntotal_timeout = 0", "a.toml:3 (upstreams.x.total_timeout)", "greater than 0"),
        ("[upstreams.X]\nprovider = 'p'", "a.toml:1 (upstreams)", "cannot be a name"),
        ("[upstreams.a__b]\nprovider = 'p'", "a.toml:1 (upstreams)", "cannot be a name"),
        ("[server]\nlisten = '8700'", "a.toml:2 (server.listen)", "an address and a port"),
        ("[server]\nlisten = '1.2.3.4:70000'", "a.toml:2 (server.listen)", "an address and a port"),
        ("[server]\nmax_body = '\u0663'", "a.toml:2 (server.max_body)", 'such as "64 MiB"'),
        ("[server]\nmax_body = '64 Megs'", "a.toml:2 (server.max_body)", 'such as "64 MiB"'),
        ("[server]\nbody_timeout = inf", "a.toml:2 (server.body_timeout)", "finite"),
        ("[server]\ntrusted_proxies = ['10.0.0.1/8']", "a.toml:2 (server.trusted_proxies.0", "server.trusted_proxies.0"),
        ("[ledger]\nfsync = 'never'", "a.toml:2 (ledger.fsync)", "'batch', 'always' or 'off'"),
        ("[ledger]\nlease_target = 1.5", "a.toml:2 (ledger.lease_target)", "in quotes"),
        ("[security]\nsecret = 5", "a.toml:2 (security.secret)", "must be a string"),
        ("[policy]\nlimits = 1", "a.toml:2 (policy.limits)", "must be a table"),
        ("[plugins]\nenabled = [1]", "a.toml:2 (plugins.enabled.0)", "valid string"),
    ],
)
def test_a_fault_names_its_place_and_its_mend(write: Write, text: str, place: str, words: str) -> None:
    (fault,) = faults(write(text))[:1]
    assert fault.place.startswith(place)
    assert words in str(fault)


def test_all_faults_are_told_at_once(write: Write) -> None:
    found = faults(write("[server]\nlistne = 1\nmax_body = -1\n[security]\nsecret = 'env:NOT_THERE'\n[nothing]"))
    assert {fault.place for fault in found} == {
        "a.toml:2 (server.listne)",
        "a.toml:3 (server.max_body)",
        "a.toml:5 (security.secret)",
        "a.toml:6 (nothing)",
    }


def test_no_value_ever_shows_in_a_fault_or_in_a_repr(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 24."""
    monkeypatch.setenv("KEY", "canary-1")
    text = """
[security]
secret = 'canary-2-but-long-enough-to-pass-as-drawn'
[upstreams.x]
provider = 'p'
api_key = 'env:KEY'
other = 'canary-3'
[store]
url = 'mongodb://user:canary-4@host/db?x=canary-5'
"""
    settings = load(write(text))
    assert settings.store.shown == "mongodb://host/db"
    assert "canary" not in repr(settings) + str(settings)
    assert settings.upstreams["x"].settings["api_key"].reveal() == "canary-1"
    wrong = "[server]\nlisten = 'canary-6'\nmax_body = 'canary-7'\n[ledger]\nfsync = 'canary-8'"
    broken = faults(write(text.replace("provider = 'p'", "") + wrong))
    assert "canary" not in "".join(f"{fault}{fault!r}" for fault in broken)


# --- overrides and the environment ------------------------------------------------------------------------------------


def test_the_environment_overrides_any_value(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {
        "AURIXEL_SERVER__LISTEN": "[::1]:1234",
        "AURIXEL_SERVER__MAX_BODY": "1 MiB",
        "AURIXEL_SERVER__TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1/32",
        "AURIXEL_PLUGINS__ENABLED": "openai,limits",
        "AURIXEL_SECURITY__ALLOW_DEMO": "true",
        "AURIXEL_UPSTREAMS__MAIN__TOTAL_TIMEOUT": "7.5",
        "AURIXEL_UPSTREAMS__MAIN__API_KEY": "0123",
        "AURIXEL_UPSTREAMS__SECOND__PROVIDER": "p",
    }
    for name, value in overrides.items():
        monkeypatch.setenv(name, value)
    settings = load(write(SOUND))
    assert (settings.server.listen.host, settings.server.listen.port, str(settings.server.listen)) == (
        "::1",
        1234,
        "[::1]:1234",
    )
    assert settings.server.max_body == 1024 * 1024
    assert [str(network) for network in settings.server.trusted_proxies] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert settings.plugins.enabled == ("openai", "limits")
    assert settings.security.allow_demo
    assert settings.upstreams["main"].total_timeout == 7.5
    assert settings.upstreams["main"].settings == {"base_url": "https://upstream.example/v1", "api_key": "0123"}
    assert settings.upstreams["second"].provider == "p"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AURIXEL_SERVER__LISTNE", "unknown setting 'listne' (did you mean 'listen'?)"),
        ("AURIXEL_SERVR__LISTEN", "unknown section 'servr' (did you mean 'server'?)"),
        ("AURIXEL_SERVER__MAX_BODY", "must be bytes, or a size"),
    ],
)
def test_an_override_that_is_wrong_is_named(write: Write, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.setenv(name, "x")
    (fault,) = faults(write(SOUND))
    assert fault.place == f"the environment's {name}"
    assert words in str(fault)


def test_a_variable_without_a_section_is_no_override(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURIXEL_SECRET", "anything")
    monkeypatch.setenv("AURIXEL_STORE", "anything")
    load(write(SOUND))


def test_env_reads_a_value_and_an_override_may_say_env_too(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", DRAWN)
    monkeypatch.setenv("PORT_LINE", "127.0.0.1:1")
    monkeypatch.setenv("AURIXEL_SECURITY__SECRET", "env:MINE")
    settings = load(write("[security]\nsecret = 'env:NOT_THERE'\n[server]\nlisten = 'env:PORT_LINE'"))
    assert settings.security.secret.reveal() == DRAWN
    assert settings.server.listen.port == 1


def test_a_missing_variable_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[upstreams.x]\nprovider = 'p'\napi_key = 'env:NOT_THERE'"
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("NOT_THERE", value)
        (fault,) = faults(write(text))
        assert (fault.code, fault.place) == ("env_missing", "a.toml:3 (upstreams.x.api_key)")
        assert "export NOT_THERE=" in fault.mend


def test_a_command_needs_only_the_secrets_of_its_sections(write: Write) -> None:
    path = write("[upstreams.x]\nprovider = 'p'\napi_key = 'env:NOT_THERE'\n[security]\nsecret = 'env:NEITHER'")
    assert not load(path, needs=("store",)).security.secret
    assert [fault.place for fault in faults(path, "store", "security")] == ["a.toml:5 (security.secret)"]


def test_catalogue_files_are_found_from_the_files_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "a.toml"
    path.write_text("[catalogue]\nprices = '/abs/p.toml'")
    assert load(path).catalogue_files == (folder / "models.toml", Path("/abs/p.toml"))


# --- what serve refuses -----------------------------------------------------------------------------------------------


def test_a_sound_configuration_is_served(write: Write) -> None:
    assert serve_faults(load(write(SOUND))) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (f'secret = "{DRAWN}"', "", "the server's secret is not set"),
        (DRAWN, "short-but-varied-0123456789", "too weak"),
        (DRAWN, "change-me-" * 4, "too weak"),
        ("[upstreams.main]", "[policy.none]", "there are no upstreams"),
        ("https://", "http://", "the upstream 'main' is plain http"),
        ('provider = "openai"', 'provider = "demo"', "the upstream 'main' is the demo"),
        ("[store]", "[server]\nops_listen = '0.0.0.0:9700'\n[store]", "the ops port"),
        ("[store]", "[server]\nops_listen = '127.0.0.1:8700'\n[store]", "listen and ops_listen are the same"),
        ("[store]", "[server]\ntrusted_proxies = ['0.0.0.0/0']\n[store]", "every client could name its own address"),
        ("[store]", "[server]\npublic_url = 'http://ai.example'\n[store]", "public_url is not https"),
        ("sqlite:///state/a.db", "sqlite:///a.toml/in/a.db", "the store's folder a.toml/in"),
        ("state/journal", "a.toml/journal", "the journal's folder a.toml/journal"),
    ],
)
def test_what_is_unsafe_is_refused(write: Write, old: str, new: str, words: str) -> None:
    text = SOUND.replace(old, new)
    assert text != SOUND
    (fault,) = serve_faults(load(write(text)))
    assert words in fault.message
    assert fault.mend
    assert fault.place.startswith("a.toml")


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("https://", "http://", "allow_plain_http"),
        ('provider = "openai"', 'provider = "demo"', "allow_demo"),
        ("[store]", "[server]\nops_listen = '0.0.0.0:9700'\n[store]", "allow_public_ops"),
    ],
)
def test_the_operator_may_say_yes(write: Write, old: str, new: str, allowed: str) -> None:
    text = SOUND.replace(old, new)
    assert serve_faults(load(write(text)))
    assert serve_faults(load(write(text.replace("[security]", f"[security]\n{allowed} = true")))) == []


def test_plain_http_to_this_machine_is_fine(write: Write) -> None:
    assert serve_faults(load(write(SOUND.replace("https://upstream.example", "http://127.0.0.1:4010")))) == []
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "::1", "localhost.example", "10.0.0.1")] == [True] * 3 + [
        False
    ] * 2


def test_everything_unsafe_is_told_at_once(write: Write) -> None:
    settings = load(
        write("[server]\nops_listen = '0.0.0.0:1'\n[upstreams.x]\nprovider = 'demo'\nbase_url = 'http://far.example'")
    )
    assert len(serve_faults(settings)) == 4


def test_the_configuration_we_ship_asks_for_its_secrets_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "conf/aurixel.toml"
    assert {fault.code for fault in faults(path)} == {"env_missing"}
    for name, value in (("AURIXEL_SECRET", DRAWN), ("OPENAI_API_KEY", "x"), ("ANTHROPIC_API_KEY", "y")):
        monkeypatch.setenv(name, value)
    settings: Settings = load(path)
    assert serve_faults(settings) == []
    assert isinstance(settings.upstreams["openai"].settings["api_key"], Secret)


# --- payments -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("[orders]\nmin = '0.00'", "must be above zero", 2),
        ("[orders]\nmin = '5.001'", "must be whole cents", 2),
        ("[orders]\nmin = 5", "an amount of USD in quotes", 2),
        ("[orders]\nmin = '1001.00'", "max must be at least min", 1),
        ("[orders]\ncurrency = 'eur'", "'usd'", 2),
        ("[orders]\nsuccess = 'paid'", "a path such as", 2),
        ("[orders]\ncancel = '/a b'", "a path such as", 2),
        ("[orders]\nmost = '5.00'", "unknown setting 'most'", 2),
        ("[receipts]\ntax_name = 'VAT'", "must be set together", 1),
        ("[receipts]\ntax_rate = '19'", "must be set together", 1),
        ("[receipts]\ntax_name = 'VAT'\ntax_rate = '0'", "must be percent", 3),
        ("[receipts]\ntax_name = 'VAT'\ntax_rate = '100'", "must be percent", 3),
        ("[receipts]\ntax_name = 'VAT'\ntax_rate = '\u0661\u0669'", "must be percent", 3),
        ("[receipts]\ntax_name = 'VAT'\ntax_rate = '19 %'", "must be percent", 3),
        ("[payments.acme]\ndeadline = 0", "greater than 0", 2),
        ("[payments.Acme]\n", "cannot be a name", 1),
    ],
)
def test_what_is_wrong_about_payments(write: Write, text: str, words: str, line: int) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(write(text))
    (fault,) = caught.value.faults
    assert words in f"{fault.message} ({fault.mend})"
    assert fault.place.startswith(f"a.toml:{line}" if line > 1 else "a.toml")


def test_the_rules_that_payments_get(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "shh")
    text = """
[server]
public_url = "https://ai.test"
[orders]
min = "1.00"
success = "/thanks"
[receipts]
name = "Ops"
details = ["a street, a town", "a number"]
tax_name = "VAT"
tax_rate = "7.7"
[payments.acme]
deadline = 3
webhook_secret = "env:HOOK"
"""
    settings = load(write(text))
    rules = settings.order_rules
    assert (rules.least, rules.most, rules.pages("o")[0]) == (10**9, 10**12, "https://ai.test/thanks?order=o")
    assert settings.receipt_rules.details == ("a street, a town", "a number")
    block = settings.payments["acme"]
    assert (block.deadline, block.settings["webhook_secret"].reveal()) == (3, "shh")
