"""Loaded by `-p` into the pytest that runs an SDK's own tests: gives their clients a key, one try, and writes what came out.

Nothing else about the suite is changed. Left out are tests that send nothing (they mock the transport, or expect the SDK to
refuse by itself), and those that SUITE_LEFT_OUT fits. Further asked by SUITE_KEY, SUITE_MODULE (`openai` or `anthropic`)
and SUITE_RESULTS (a file to write).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

_results: dict[str, str] = {}


def _sends(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    sends = not fixtures & {"respx_mock", "respx2_mock"} and "_path_params_" not in item.name
    return sends and not re.search(os.environ["SUITE_LEFT_OUT"], item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _sends(item)]
    items[:] = [item for item in items if _sends(item)]
    config.hook.pytest_deselected(items=left_out)
    sdk = importlib.import_module(os.environ["SUITE_MODULE"])
    for name, client in vars(sdk).items():
        if name.lower() in {sdk.__name__, f"async{sdk.__name__}"}:
            client.__init__.__kwdefaults__["max_retries"] = 0  # a second try would hide a failure, and takes its time
    vars(sys.modules["tests.conftest"])["api_key"] = os.environ["SUITE_KEY"]


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or (report.outcome != "passed" and report.nodeid not in _results):
        words = "" if report.outcome == "passed" else _told(report)
        _results[report.nodeid] = f"{report.outcome}: {words}" if words else report.outcome


def _told(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)[:2000]


def pytest_sessionfinish() -> None:
    Path(os.environ["SUITE_RESULTS"]).write_text(json.dumps(_results, indent=0))
