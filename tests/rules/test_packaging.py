"""The core and its plugins are one release, and the lock names everything that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib

from tests.rules.tree import ROOT

CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGINS = {path.parent: tomllib.loads(path.read_text()) for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-") for requirement in requirements}


def _locked(file: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "conf/lock" / file).read_text().replace("_", "-"), re.MULTILINE))


def test_there_are_plugins() -> None:
    assert PLUGINS


def test_versions_are_in_lockstep() -> None:
    version = CORE["project"]["version"]
    for folder, plugin in PLUGINS.items():
        assert plugin["project"]["version"] == version, folder.name
        assert f"aurixel=={version}" in plugin["project"]["dependencies"], folder.name


def test_a_plugin_is_named_after_its_folder_and_has_one_entry_point() -> None:
    for folder, plugin in PLUGINS.items():
        module = folder.name.replace("-", "_")
        assert plugin["project"]["name"] == folder.name
        assert plugin["project"]["entry-points"]["aurixel"] == {folder.name.removeprefix("aurixel-"): module}
        assert (folder / module / "py.typed").exists()


def test_the_import_contracts_know_every_plugin() -> None:
    modules = [folder.name.replace("-", "_") for folder in PLUGINS]
    linter = CORE["tool"]["importlinter"]
    assert sorted(linter["root_packages"]) == sorted(["aurixel", *modules])
    for contract in linter["contracts"]:
        assert contract["type"] != "forbidden" or sorted(contract["source_modules"]) == sorted(linter["root_packages"])


def test_the_lock_is_resolved_from_what_the_plugins_ask_for() -> None:
    needs = {need for plugin in PLUGINS.values() for need in plugin["project"]["dependencies"]}
    asked = {need for need in needs if not need.startswith("aurixel==")}
    lines = (ROOT / "conf/lock/plugins.in").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == asked


def test_the_lock_is_whole() -> None:
    own = set(PLUGINS) and {folder.name for folder in PLUGINS} | {"aurixel"}
    run = _names(CORE["project"]["dependencies"])
    for plugin in PLUGINS.values():
        run |= _names(plugin["project"]["dependencies"])
    dev = run | _names([name for extra in CORE["project"]["optional-dependencies"].values() for name in extra])
    assert run - own <= _locked("run.txt")
    assert dev - own <= _locked("dev.txt")
