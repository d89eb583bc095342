"""The manual names every setting with its default, and the examples are sound."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from aurixel.catalog import known_class, read_files
from aurixel.cli import cli
from aurixel.cli.quiet import QuietHost
from aurixel.config import Settings, load, serve_faults
from aurixel.config.sections import PaymentBlock, PolicyBlock, UpstreamBlock
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.values import USAGE_CLASSES

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "conf/examples"


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The tables in a model, by name."""
    return {
        name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


SECTIONS = sections(Settings)
# Tables of their own in a section: they have a heading of their own in the manual, and no row in their section's.
INNER = {
    f"{outer}.{name}": model
    for outer, section in SECTIONS.items()
    for name, model in sections(section).items()
    if name not in ("listen", "ops_listen")
}


def described(page: str) -> dict[str, set[str]]:
    """Section -> the keys its table has."""
    parts = re.split(r"^## \[([^\]]+)\]\n", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE))
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_setting_is_in_the_manual_and_nothing_else() -> None:
    tables = {**SECTIONS, **INNER, "policy.NAME": PolicyBlock, "upstreams.NAME": UpstreamBlock, "payments.NAME": PaymentBlock}
    inner = {name.rpartition(".")[2] for name in INNER}
    assert described("configuration.md") == {
        name: model.model_fields.keys() - {"settings"} - inner for name, model in tables.items()
    }
    assert SECTIONS.keys() | {"policy", "upstreams", "payments"} == Settings.model_fields.keys()


def test_the_defaults_in_the_manual_are_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    lines, section = [], ""
    for line in text.splitlines():
        if header := re.match(r"## \[([^\]]+)\]", line):
            section = header[1].replace("NAME", "x")
            lines.append(f"[{section}]")
        elif row := re.match(r"\| `(\w+)` \| `([^`]+)` \|", line):
            lines.append(f"{row[1]} = {row[2]}")
        elif line.startswith("| `provider` |"):
            lines.append('provider = "p"')
    path = tmp_path / "aurixel.toml"
    path.write_text("\n".join(lines))
    written, bare = load(path), load(None)
    for name in SECTIONS:
        assert getattr(written, name) == getattr(bare, name) or name in ("security", "store"), name
    assert written.store.url.reveal() == bare.store.url.reveal()
    assert written.policy["x"] == PolicyBlock()
    assert written.payments["x"] == PaymentBlock()
    assert written.upstreams["x"] == UpstreamBlock(provider="p")


def test_every_usage_class_is_on_the_page_of_prices() -> None:
    text = (ROOT / "docs/prices.md").read_text()
    assert [name for name in USAGE_CLASSES if not re.search(rf"`{name}\b", text)] == []


def test_every_command_is_on_its_page() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for name, command in cli.commands.items():
        line = next((line for line in text.splitlines() if line.startswith(f"| `aurixel {name}")), "")
        assert line, name
        for inner in getattr(command, "commands", {}):
            assert inner in line


def test_the_examples_of_vendors_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AURIXEL_"):
            monkeypatch.delenv(name)
    path = EXAMPLES / "vendors.toml"
    for name in re.findall(r"env:(\w+)", path.read_text()):
        monkeypatch.setenv(name, "x")
    settings = load(path)
    registry = Registry.load(settings.plugins.enabled)
    for name, block in settings.upstreams.items():
        registry.build_provider(name, block.provider, block.settings, QuietHost(name))
    assert {fault.code for fault in serve_faults(settings)} <= {"secret_missing", "not_writable"}


def test_the_example_of_payments_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_live_x")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_" + "x" * 32)
    settings = load(EXAMPLES / "payments.toml")
    registry = Registry.load(settings.plugins.enabled)
    for name, block in settings.payments.items():
        registry.build_backend(name, block.settings, PluginHost())
    assert list(settings.payments) == ["stripe"]


def test_the_examples_of_models_and_prices_are_sound_and_show_every_class() -> None:
    stored = read_files(EXAMPLES / "every-model.toml", EXAMPLES / "every-price.toml")
    assert {price.model for price in stored.prices} == set(stored.models)
    shown = {name for price in stored.prices for name in price.rates}
    assert all(known_class(name) for name in shown)
    assert set(USAGE_CLASSES) - {name.partition(".")[0] for name in shown} == {"output_image"}
