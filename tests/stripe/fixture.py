"""stripe-mock, Stripe's own stand-in: it checks each request against Stripe's description of its API, and remembers none.

It is built by Go from its module, once. Debian's stable Go may be older than the module asks for: then that Go fetches a
newer one, which is a Go module as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.once import once
from tests.harness.process import Server
from tests.harness.require import require

MODULE = "github.com/stripe/stripe-mock@v0.203.0"
# What its go.mod asks for, and the toolchain that an older Go builds it with.
NEEDS = (1, 22)
TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.22.12"


def _go(command: list[str], env: dict[str, str]) -> str:
    ran = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=540)
    if ran.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed: {ran.stderr}", pytrace=False)
    return ran.stdout.strip()


def _build(go: str, folder: Path) -> None:
    path = folder / "go"
    env = {
        **os.environ,
        "GOPATH": str(path),
        "GOBIN": str(folder),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    version = re.search(r"go(\d+)\.(\d+)", _go([go, "version"], env))
    if version is None or (int(version[1]), int(version[2])) < NEEDS:
        system, machine = _go([go, "env", "GOOS", "GOARCH"], env).split()
        module = f"{TOOLCHAIN}.{system}-{machine}"
        _go([go, "mod", "download", module], env)
        root = path / "pkg" / "mod" / module
        for program in (*root.glob("bin/*"), *root.glob("pkg/tool/*/*")):
            program.chmod(0o755)  # a module's files are not executable
        go = str(root / "bin" / "go")
    _go([go, "install", MODULE], env)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def stripe_mock_binary() -> Path:
    """The path of stripe-mock, built by the first test that asks."""
    go = require(shutil.which("go"), "stripe-mock", "no Go to build it with (Debian: golang-go)")
    folder = Path(sys.prefix, "stripe-mock")
    return once(folder, [Path(__file__)], lambda folder: _build(go, folder)) / "stripe-mock"


@pytest.fixture(scope="session")
def stripe_mock(stripe_mock_binary: Path) -> Iterator[str]:
    """`http://127.0.0.1:PORT`, for `api_base`."""
    # Without an address of its own it would listen for TLS on every interface.
    command = [str(stripe_mock_binary), "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
    with Server(command) as server:
        while (found := re.search(r"HTTP at address: (127\.0\.0\.1:\d+)", server.line(60))) is None:
            pass
        yield f"http://{found[1]}"
