"""Real distributions, made on the spot: a module and its metadata on sys.path, as an installer leaves them."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# What the code of most plugins in these tests begins with.
PREAMBLE = """
from contextlib import asynccontextmanager
from aurixel.plugin import *
"""

DIALECT = (
    PREAMBLE
    + """
class Tiny:
    name, family, operation = "tiny_chat", "tiny", "chat"
    def parse_request(self, body, headers): ...
    def patch_request(self, request, changes): ...
    def bound_input(self, request, rules): ...
    def estimate_input(self, request, rules): ...
    def reply_reader(self, request, input_tokens): ...
    def stream_reader(self, request): ...
    def encode_error(self, error, request_id): ...
    def encode_stream_error(self, error, request_id): ...
"""
)

PROVIDER = (
    PREAMBLE
    + """
from pydantic import SecretStr

class Acme:
    kind, dialects, output_limit_field = "acme", {"chat": ["tiny_chat"]}, None
    class Settings(PluginSettings):
        base_url: str
        api_key: SecretStr | None = None
    def __init__(self, settings, host):
        self.settings, self.host = settings, host
    def prepare(self, attempt, body): ...
    def classify(self, status, headers, body): ...
"""
)

CHECK = (
    PREAMBLE
    + """
class Gate:
    name, enforces = "gate", frozenset({"height"})
    class Settings(PluginSettings):
        strict: bool = False
    def __init__(self, settings, host):
        self.settings = settings
    def parse_limit(self, name, value):
        return value
    async def check(self, principal, facts):
        return Allow()
"""
)


def hook(name: str, *classes: str) -> str:
    """The implementation of a registration hook."""
    return f"\n@hookimpl\ndef {name}():\n    return [{', '.join(classes)}]\n"


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(plugin, code, distribution=None)`: from now on `plugin` is installed and its module holds `code`."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []

    def add(plugin: str, code: str, *, distribution: str | None = None, target: str | None = None) -> None:
        name = distribution or f"dist-{plugin}"
        module = f"plugin_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        info = site / f"{name.replace('-', '_')}-1.2.3.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
        with (info / "entry_points.txt").open("a") as file:
            if file.tell() == 0:
                file.write("[aurixel]\n")
            file.write(f"{plugin} = {target or module}\n")
        modules.append(module)
        importlib.invalidate_caches()

    yield add
    for module in modules:
        sys.modules.pop(module, None)
