"""A folder with a configuration, and the command line run in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aurixel.cli import main

SECRET = "k7Qz0pV3xW9aB2cD4eF6gH8jL1mN5rT_"
CONFIG = f"""
[security]
secret = "{SECRET}"
allow_demo = true
[plugins]
enabled = ["limits", "demo"]
[policy.limits]
[upstreams.demo]
provider = "demo"
[store]
url = "sqlite:///var/aurixel.db"
"""
MODELS = """
[models.small]
operations = ["chat"]
context = 1000
max_output = 100
routes = [{ upstream = "demo", model = "demo" }]
"""
PRICES = """
[[price]]
model = "small"
effective = 2026-01-01
input = "1.00"
output = "4.00"
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error it printed as JSON on stderr."""
        assert self.out == ""
        (only,) = json.loads(self.err).values()
        return only


Run = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("AURIXEL_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("account", "list")` in the working directory."""

    def command(*words: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return command


@pytest.fixture
def aurixel(folder: Path, run: Run) -> Run:
    """`run`, where a configuration with models and prices lies in conf/."""
    conf = folder / "conf"
    conf.mkdir()
    (conf / "aurixel.toml").write_text(CONFIG)
    (conf / "models.toml").write_text(MODELS)
    (conf / "prices.toml").write_text(PRICES)
    return run
