"""Imports go one way, and the doors between the rooms are few (the contracts of pyproject.toml, and two more)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.tree import ROOT, imports, modules, plugin_modules


def test_the_contracts_of_pyproject_hold() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    ran = subprocess.run([lint, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_plugin_knows_the_plugin_contract_only() -> None:
    """Ours are written as a stranger would write them: what they need and cannot have is missing from `aurixel.plugin`."""
    faults = []
    for path in plugin_modules():
        own = path.parts[2]
        for line, name in imports(path):
            others = name.startswith("aurixel_") and name.partition(".")[0] != own
            core = name.partition(".")[0] == "aurixel" and name.split(".")[1:2] != ["plugin"]
            if others or core:
                faults.append(f"{path}:{line} imports {name}")
    assert not faults


@pytest.mark.parametrize("room", ["aurixel/dialects", "aurixel/plugin", "aurixel/values.py", "aurixel/errors.py"])
def test_what_is_pure_cannot_do_io(room: str) -> None:
    banned = {"aiohttp", "asyncio", "http", "logging", "os", "pathlib", "socket", "sqlite3", "subprocess", "threading", "time"}
    banned |= {"tornado", "urllib", "uvloop"}
    allowed = {"urllib.parse"}
    if room == "aurixel/plugin":
        allowed.add("logging")  # a host gives its plugin a logger: the type is part of the contract
    faults = [
        f"{path}:{line} imports {name}"
        for path in modules(room)
        for line, name in imports(path)
        if name.partition(".")[0] in banned and not any(f"{name}.".startswith(f"{module}.") for module in allowed)
    ]
    assert not faults
