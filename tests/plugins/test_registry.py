"""The registry: what it loads, and each thing it refuses, with the plugin, the hook and the mend in the message."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aurixel.config import PaymentBlock, PolicyBlock, UpstreamBlock
from aurixel.errors import ConfigError
from aurixel.plugin import hookspecs
from aurixel.registry import Registry
from aurixel.registry.shapes import PAYMENT_KEYS, POLICY_KEYS, UPSTREAM_KEYS
from aurixel.testing.host import PluginHost
from aurixel.values import Secret
from tests.plugins.conftest import CHECK, DIALECT, PREAMBLE, PROVIDER, Install, hook

TINY = DIALECT + hook("register_dialects", "Tiny")
ACME = PROVIDER + hook("register_providers", "Acme")
GATE = CHECK + hook("register_policy_checks", "Gate")


def load(*enabled: str) -> Registry:
    return Registry.load(enabled, builtin=())


@pytest.fixture
def tiny(install: Install) -> None:
    """A dialect for providers to speak."""
    install("tiny", TINY)


def refusal(*enabled: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*enabled)
    assert caught.value.mend, "an error without a mend"
    assert caught.value.place == "plugins.enabled"
    assert caught.value.code == "plugin_refused"
    return str(caught.value)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_what_is_enabled_is_loaded_and_nothing_else(install: Install, tiny: None) -> None:
    install("acme", ACME)
    install("gate", GATE)
    install("trap", "raise RuntimeError('imported unasked')")
    registry = load("tiny", "acme", "gate")
    assert list(registry.dialects) == ["tiny_chat"]
    assert registry.dialects["tiny_chat"].operation == "chat"
    assert list(registry.providers) == ["acme"]
    assert list(registry.checks) == ["gate"]
    assert dict(registry.enforcers()) == {"height": registry.checks["gate"]}
    described = [(plugin.name, plugin.distribution, plugin.version, plugin.hooks) for plugin in registry.plugins]
    assert described == [
        ("tiny", "dist-tiny", "1.2.3", ("register_dialects",)),
        ("acme", "dist-acme", "1.2.3", ("register_providers",)),
        ("gate", "dist-gate", "1.2.3", ("register_policy_checks",)),
    ]
    assert registry.owner("provider", "acme") == "acme"


def test_our_own_plugins_and_dialects_come_through_the_same_door() -> None:
    registry = Registry.load(["openai", "anthropic", "demo", "limits"])
    assert {"openai_chat", "anthropic_messages"} <= set(registry.dialects)
    assert set(registry.providers) == {"openai", "anthropic", "demo"}
    assert set(registry.enforcers()) == {"models", "ips", "rpm", "tpm", "concurrency"}
    first = registry.plugins[0]
    assert (first.name, first.distribution, first.version) == ("aurixel.dialects", "aurixel", version("aurixel"))


def test_an_entry_point_may_name_an_object(install: Install, tiny: None) -> None:
    code = (
        PROVIDER
        + "\nclass Plugin:\n    @hookimpl\n    def register_providers(self):\n        return [Acme]\nplugin = Plugin()\n"
    )
    install("acme", code, target="plugin_dist_acme:plugin")
    assert list(load("tiny", "acme").providers) == ["acme"]


def test_one_distribution_may_bring_several_plugins(install: Install) -> None:
    install("tiny", TINY, distribution="many")
    install("rest", TINY, distribution="many", target="plugin_many:Rest")
    with pytest.raises(ConfigError, match="'rest' cannot be imported"):
        load("tiny", "rest")
    assert list(load("tiny").dialects) == ["tiny_chat"]


def test_no_hook_is_firstresult_and_each_is_documented() -> None:
    specs = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "aurixel_spec")}
    assert set(specs) == {
        "register_providers",
        "register_policy_checks",
        "register_billing_backends",
        "register_dialects",
        "register_commands",
        "observe",
    }
    for name, spec in specs.items():
        assert not spec.aurixel_spec["firstresult"], name
        assert not spec.aurixel_spec["historic"], name
        assert spec.__doc__, name


# --- plugins that are not there ---------------------------------------------------------------------------------------


def test_enabled_but_not_installed_names_the_nearest(install: Install) -> None:
    install("acme", ACME)
    assert "'acmee' is enabled but not installed" in (text := refusal("acmee"))
    assert "did you mean 'acme'?" in text
    assert "installed: " in refusal("zzzzzzzz")


def test_named_twice() -> None:
    assert "'demo' is named twice" in refusal("demo", "demo")


def test_two_distributions_with_one_name(install: Install) -> None:
    install("acme", ACME, distribution="first")
    install("acme", ACME, distribution="second")
    text = refusal("acme")
    assert "'first'" in text
    assert "'second'" in text


def test_two_names_for_one_object(install: Install, tiny: None) -> None:
    install("acme", ACME)
    install("other", ACME, distribution="dist-acme")
    assert "'acme' and 'other' are the same object" in refusal("tiny", "acme", "other")


@pytest.mark.parametrize("code", ["import no_such_module_anywhere", "raise ValueError('already registered')", "1 / 0", "def ("])
def test_cannot_be_imported(install: Install, code: str) -> None:
    install("acme", code)
    assert "'acme' cannot be imported: " in refusal("acme")


# --- hooks ------------------------------------------------------------------------------------------------------------

HOOKS: dict[str, tuple[str, str, str]] = {
    "misspelt": ("@hookimpl\ndef register_provider(): return []", "register_provider is no hook", "'register_providers'"),
    "unknown": ("@hookimpl\ndef xyzzy(): return []", "xyzzy is no hook", "docs/plugins.md"),
    "async": ("@hookimpl\nasync def register_providers(): return []", "register_providers is async", "plain functions"),
    "async generator": ("@hookimpl\nasync def register_providers(): yield 1", "register_providers is async", "plain"),
    "generator": ("@hookimpl\ndef register_providers(): yield 1", "register_providers is a generator", "return a list"),
    "wrapper": (
        "@hookimpl(wrapper=True)\ndef register_providers(): return (yield)",
        "register_providers is a wrapper",
        "alone",
    ),
    "hookwrapper": ("@hookimpl(hookwrapper=True)\ndef observe(event): yield", "observe is a wrapper", "alone"),
    "no generator in a wrapper": ("@hookimpl(wrapper=True)\ndef register_providers(): return []", "wrapper", "docs"),
    "tryfirst": ("@hookimpl(tryfirst=True)\ndef register_providers(): return []", "asks for tryfirst", "by name"),
    "trylast": ("@hookimpl(trylast=True)\ndef register_providers(): return []", "asks for tryfirst, trylast", "by name"),
    "optional": ("@hookimpl(optionalhook=True)\ndef register_providers(): return []", "optionalhook", "take the option"),
    "misspelt and optional": ("@hookimpl(optionalhook=True)\ndef observes(event): ...", "observes is no hook", "'observe'"),
    "firstresult": (
        "import pluggy\n@pluggy.HookspecMarker('aurixel')(firstresult=True)\ndef register_providers(): return []",
        "register_providers is declared as a hook",
        "@hookimpl",
    ),
    "default": ("@hookimpl\ndef observe(event=None): ...", "observe gives 'event' a default", "take the default out"),
    "keyword only": ("@hookimpl\ndef observe(*, event): ...", "observe takes 'event' by keyword only", "take the *"),
    "var": ("@hookimpl\ndef observe(*events): ...", "observe takes '*events'", "name the arguments"),
    "var keywords": ("@hookimpl\ndef observe(**events): ...", "observe takes '**events'", "name the arguments"),
    "unknown argument": ("@hookimpl\ndef observe(evnt): ...", "'observe'", "docs/plugins.md"),
    "unmarked": ("def register_providers(): return []", "register_providers is not marked", "@hookimpl"),
    "none at all": ("x = 1", "implements no hook", "@hookimpl"),
    "raises": ("@hookimpl\ndef register_providers(): 1 / 0", "register_providers raised ZeroDivisionError at plugin_", "line"),
    "raises late": (
        "@hookimpl\ndef register_providers(): return (1 / n for n in [0])",
        "register_providers raised ZeroDivisionError",
        "line",
    ),
    "returns nothing": ("@hookimpl\ndef register_providers(): ...", "returned a NoneType, not a list", "[TheClass]"),
    "returns a class": (PROVIDER + "@hookimpl\ndef register_providers(): return Acme", "returned the class Acme", "[TheClass]"),
    "returns text": ("@hookimpl\ndef register_providers(): return 'Acme'", "returned a str, not a list", "[TheClass]"),
    "returns instances": (
        PROVIDER + "@hookimpl\ndef register_providers(): return [Acme(None, None)]",
        "returned a Acme where a class belongs",
        "the host makes the instances",
    ),
}


@pytest.mark.parametrize("case", HOOKS)
@pytest.mark.filterwarnings("ignore:.*hookwrapper:DeprecationWarning")
def test_hooks_that_are_refused(install: Install, tiny: None, case: str) -> None:
    code, fault, mend = HOOKS[case]
    install("acme", PREAMBLE + code)
    text = refusal("tiny", "acme")
    assert "'acme'" in text
    assert fault in text
    assert mend in text


# --- contracts --------------------------------------------------------------------------------------------------------

CONTRACTS: dict[str, tuple[str, str, str, str]] = {
    # what is wrong: the class with its hook, the text to change, what it becomes, what the error says
    "no kind": (ACME, '= "acme", ', '= "", ', "Acme is no provider: `kind`"),
    "odd kind": (ACME, '= "acme", ', '= "Acme Corp", ', "`kind` is not a name"),
    "no dialects": (ACME, '{"chat": ["tiny_chat"]}', "{}", "`dialects` is not a mapping"),
    "dialects a list": (ACME, '{"chat": ["tiny_chat"]}', '["tiny_chat"]', "`dialects` is not a mapping"),
    "dialect a string": (ACME, '["tiny_chat"]', '"tiny_chat"', "`dialects['chat']` is not a list"),
    "unknown dialect": (ACME, "tiny_chat", "tiny_chatt", "did you mean 'tiny_chat'?"),
    "dialect of another operation": (ACME, '"chat": [', '"speech": [', "it is no dialect of 'speech'"),
    "no settings": (ACME, "class Settings(PluginSettings)", "class Other(PluginSettings)", "`Settings` is not a pydantic"),
    "settings a class": (ACME, "Settings(PluginSettings)", "Settings", "`Settings` is not a pydantic model"),
    "setting of the host": (ACME, "base_url: str", "idle_timeout: float", "`Settings.idle_timeout` is a key of the host's own"),
    "setting of policy": (GATE, "strict: bool", "deadline: bool", "`Settings.deadline` is a key of the host's own"),
    "no init": (ACME, "__init__", "init", "there is no method `__init__`"),
    "init without a host": (ACME, "(self, settings, host)", "(self, settings)", "`__init__` cannot be called with 2"),
    "no prepare": (ACME, "def prepare", "def prepares", "there is no method `prepare`"),
    "prepare async": (ACME, "def prepare", "async def prepare", "`prepare` must be a plain `def`"),
    "prepare by keyword": (ACME, "prepare(self, attempt, body)", "prepare(self, *, attempt, body)", "`prepare` cannot be"),
    "prepare a value": (ACME, "def prepare(self, attempt, body): ...", "prepare = 1", "`prepare` is not a method"),
    "classify short": (ACME, "classify(self, status, headers, body)", "classify(self, status)", "`classify` cannot be"),
    "classify missing": (ACME, "def classify", "def klassify", "there is no method `classify`"),
    "open async": (ACME, "def prepare", "async def open(self, o): ...\n    def prepare", "`open` must be a plain `def`"),
    "open undecorated": (ACME, "def prepare", "async def open(self, o): yield\n    def prepare", "@asynccontextmanager"),
    "only the protocol": (PREAMBLE + "class Acme(Provider): ..." + hook("register_providers", "Acme"), "", "", "`prepare`"),
    "check not async": (GATE, "async def check", "def check", "`check` must be `async def`"),
    "check a generator": (GATE, "return Allow()", "yield Allow()", "`check` is a generator"),
    "check missing": (GATE, "def check", "def czech", "there is no method `check`"),
    "finished async": (
        GATE,
        "async def check",
        "async def finished(self, o): ...\n    async def check",
        "`finished` must",
    ),
    "parse_limit missing": (GATE, "def parse_limit", "def parse_limits", "there is no method `parse_limit`"),
    "enforces a list": (GATE, 'frozenset({"height"})', '["height"]', "`enforces` is not a frozenset"),
    "no name": (GATE, 'name, enforces = "gate"', 'title, enforces = "gate"', "Gate is no policy check: `name`"),
    "dialect without family": (TINY, "family, ", "famly, ", "Tiny is no dialect: `family`"),
    "dialect method missing": (TINY, "def encode_error", "def encode_err", "there is no method `encode_error`"),
    "dialect method async": (TINY, "def stream_reader", "async def stream_reader", "`stream_reader` must be a plain"),
    "dialect wants more": (TINY, "def parse", "def __init__(self, host): ...\n    def parse", "`__init__` cannot be"),
    "dialect breaks": (TINY, "def parse", "def __init__(self): 1 / 0\n    def parse", "making the dialect 'tiny_chat' raised"),
}


@pytest.mark.parametrize("case", CONTRACTS)
def test_classes_that_are_refused(install: Install, case: str) -> None:
    code, before, after, fault = CONTRACTS[case]
    broken = code.replace(before, after) if before else code
    assert broken != code or not before
    install("broken", broken)
    install("fine", TINY.replace('"tiny_chat"', '"fine_chat"') if code is TINY else TINY)
    text = refusal("fine", "broken")
    assert "'broken'" in text
    assert fault in text


def test_the_hosts_own_keys_are_those_of_the_configuration() -> None:
    assert set(UpstreamBlock.model_fields) == UPSTREAM_KEYS
    assert set(PolicyBlock.model_fields) == POLICY_KEYS
    assert set(PaymentBlock.model_fields) == PAYMENT_KEYS


def test_inherited_and_decorated_methods_are_methods(install: Install, tiny: None) -> None:
    code = PROVIDER + (
        "class Child(Acme):\n    kind = 'child'\n"
        "    @staticmethod\n    def classify(status, headers, body): ...\n"
        "    @asynccontextmanager\n    async def open(self, outgoing):\n        yield None\n"
    )
    install("acme", code + hook("register_providers", "Acme", "Child"))
    assert set(load("tiny", "acme").providers) == {"acme", "child"}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (ACME, "both bring a provider named 'acme' (register_providers)"),
        (GATE, "both bring a policy check named 'gate' (register_policy_checks)"),
        (TINY, "both bring a dialect named 'tiny_chat' (register_dialects)"),
        (GATE.replace('"gate"', '"gate2"'), "both enforce the key limit 'height'"),
    ],
)
def test_duplicates_name_both_plugins(install: Install, code: str, fault: str) -> None:
    install("tiny", TINY)
    install("first", GATE if "gate2" in code else code)
    install("second", code)
    text = refusal("first", "second") if code is TINY else refusal("tiny", "first", "second")
    assert f"'first' and 'second' {fault}" in text


# --- instances --------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(install: Install, tiny: None) -> Registry:
    install("acme", ACME)
    install("gate", GATE)
    return load("tiny", "acme", "gate")


def test_instances_are_built_with_settings_and_host(registry: Registry) -> None:
    host = PluginHost()
    provider: Any = registry.build_provider("one", "acme", {"base_url": "u", "api_key": Secret("k")}, host)
    assert provider.settings.base_url == "u"
    assert provider.settings.api_key.get_secret_value() == "k"
    assert provider.host is host
    assert registry.build_provider("two", "acme", {"base_url": "v"}, host) is not provider
    check: Any = registry.build_check("gate", {"strict": True}, host)
    assert check.settings.strict is True


def fault_of(registry: Registry, settings: dict[str, Any], kind: str = "acme") -> str:
    with pytest.raises(ConfigError) as caught:
        registry.build_provider("one", kind, settings, PluginHost())
    assert caught.value.place.startswith("[upstreams.one]")
    assert caught.value.mend
    return str(caught.value)


def test_settings_that_are_refused(registry: Registry) -> None:
    assert "unknown setting 'base_ulr' (did you mean 'base_url'?)" in fault_of(registry, {"base_ulr": "u"})
    assert "there are: api_key, base_url" in fault_of(registry, {"zzzz": 1})
    assert "base_url: Field required" in fault_of(registry, {})
    text = fault_of(registry, {"base_url": Secret("hidden-value")})
    assert "base_url: is no secret" in text
    assert "hidden-value" not in text
    text = fault_of(registry, {"base_url": "u", "api_key": ["hidden-value"]})
    assert "api_key" in text
    assert "hidden-value" not in text
    with pytest.raises(ConfigError, match=r"\[policy.gate\] strickt: unknown setting 'strickt' \(did you mean 'strict'\?\)"):
        registry.build_check("gate", {"strickt": True}, PluginHost())


def test_kinds_that_are_not_there(registry: Registry) -> None:
    assert "no enabled plugin brings a provider named 'acmo' (did you mean 'acme'?)" in fault_of(registry, {}, "acmo")
    assert "is its plugin in plugins.enabled?" in fault_of(registry, {}, "zzzzzz")
    with pytest.raises(ConfigError, match=r"\[policy.gait\]: .*'gate'"):
        registry.build_check("gait", {}, PluginHost())


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise RuntimeError('says ' + settings.base_url)", "plugin 'acme': making Acme raised RuntimeError at plugin_"),
        ("raise ConfigError('no such region', mend='take another')", "no such region (take another)"),
        ("self.output_limit_field = 7", "an instance of 'acme' has no `output_limit_field`"),
    ],
)
def test_instances_that_cannot_be_made(install: Install, tiny: None, body: str, fault: str) -> None:
    install("acme", ACME.replace("self.settings, self.host = settings, host", body))
    text = fault_of(load("tiny", "acme"), {"base_url": "private-value"})
    assert fault in text
    assert "private-value" not in text


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_come_whole_or_not_at_all(install: Install) -> None:
    command = "import click\nclick_command = click.Command('{}', callback=lambda: click.echo('ran {}'))\n"
    adds = "@hookimpl\ndef register_commands(commands):\n    commands.add_command(click_command)\n"
    install("good", PREAMBLE + command.format("greet", "greet") + adds)
    install("bad", PREAMBLE + command.format("half", "half") + adds + "    1 / 0\n")
    install("clash", PREAMBLE + command.format("serve", "serve") + adds)
    install("none", PREAMBLE + "@hookimpl\ndef register_commands(): ...\n")

    group = click.Group("aurixel", commands={"serve": click.Command("serve", callback=lambda: click.echo("ours"))})

    @click.command
    def start() -> None:
        load("good", "bad", "clash", "none").add_commands(group)

    result = CliRunner().invoke(start)
    assert result.exit_code == 0, result.output
    bad, clash = result.stderr.splitlines()
    assert bad.startswith("plugin 'bad': register_commands raised ZeroDivisionError at plugin_dist_bad:")
    assert bad.endswith("; its commands are left out")
    assert clash == "plugin 'clash': register_commands adds 'serve', which exists already; its commands are left out"
    assert set(group.commands) == {"serve", "greet"}
    assert CliRunner().invoke(group, ["greet"]).output == "ran greet\n"
    assert CliRunner().invoke(group, ["serve"]).output == "ours\n"
