"""`promtool`, which reads the metrics page and the alert rules as Prometheus would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.harness.require import require


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The path of promtool, found on PATH; Debian has it in the package `prometheus`."""
    return Path(
        require(shutil.which("promtool"), "promtool", "not on PATH (Debian: the package promtool, before trixie prometheus)")
    )
