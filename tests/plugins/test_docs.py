"""The page on plugins has every hook with its signature, every public name and every member of a contract."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import aurixel.plugin
from aurixel.plugin import hookspecs
from aurixel.registry.shapes import (
    BILLING,
    PAYMENT_KEYS,
    POLICY_CHECK,
    POLICY_KEYS,
    PROVIDER,
    REDEEMS_CODES,
    TAKES_PAYMENT,
    UPSTREAM_KEYS,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
HOOKS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "aurixel_spec")}
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_has_a_heading_with_its_signature(name: str) -> None:
    signature = str(inspect.signature(HOOKS[name])).replace("'", "")
    assert f"### `{name}{signature}`\n" in PAGE


def test_no_heading_is_of_a_hook_that_is_gone() -> None:
    assert set(re.findall(r"^### `(\w+)", PAGE, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_has_a_use_in_the_tests(name: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "plugins").glob("test_*.py"))
    assert re.search(rf"def {name}\(|hook\(\"{name}\"", tests), f"no test implements {name}"


@pytest.mark.parametrize("name", aurixel.plugin.__all__)
def test_each_public_name_is_on_the_page(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_each_member_of_a_contract_and_each_key_of_the_host_is_on_the_page() -> None:
    members = {method.name for method in (*PROVIDER, *POLICY_CHECK, *BILLING, *TAKES_PAYMENT, *REDEEMS_CODES)} - {"__init__"}
    keys = (UPSTREAM_KEYS | POLICY_KEYS | PAYMENT_KEYS) - {"settings"}
    missing = {name for name in members | keys if not re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE)}
    assert not missing


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_plugin_of_ours_has_a_page_and_its_package_carries_it(plugin: str) -> None:
    folder = ROOT / "plugins" / plugin
    assert (folder / "README.md").read_text().startswith(f"# {plugin}\n")
    assert 'readme = "README.md"' in (folder / "pyproject.toml").read_text()
    assert list((folder / "tests").glob("test_*.py"))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_setting_of_ours_is_on_its_page(plugin: str) -> None:
    from aurixel.registry import Registry

    name = plugin.removeprefix("aurixel-")
    registry = Registry.load([name])
    page = (ROOT / "plugins" / plugin / "README.md").read_text()
    classes = [*registry.providers.values(), *registry.checks.values(), *registry.backends.values()]
    assert classes
    missing = {key for cls in classes for key in cls.Settings.model_fields if f"`{key}`" not in page}
    assert not missing
