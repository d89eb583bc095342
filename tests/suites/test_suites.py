"""The SDKs' own tests, once against a mock of the vendor's API and once through Aurixel in front of the same mock.

`expected.toml` names every test that fails, and why. A test that fails and is not named there, or is named and passes, is
a failure here. What is blamed on the mock must fail without Aurixel too, and all else must pass there.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from tests.flow.gateway import configure, running, upstream
from tests.suites.catalogue import models, prices
from tests.suites.fixture import HERE, SDKS, SOURCES, Suites

EXPECTED = tomllib.loads((HERE / "expected.toml").read_text())
MOCK = "mock"
# What must pass of each suite: without a floor, a suite that sends nothing would agree with everything.
FLOORS = {"openai": 1, "anthropic": 1}


def _named(sdk: str, tests: set[str]) -> dict[str, str]:
    """Test -> the class it is expected to fail by. Each pattern must fit some test, and no test two of them."""
    found: dict[str, str] = {}
    for kind, patterns in EXPECTED[sdk].items():
        for pattern in patterns:
            fits = {test for test in tests if re.fullmatch(pattern, test)}
            assert fits, f"{sdk}, {kind}: no test is called {pattern}"
            assert not fits & found.keys(), f"{sdk}: named twice: {sorted(fits & found.keys())}"
            found |= dict.fromkeys(fits, kind)
    return found


def _failed(results: dict[str, str]) -> set[str]:
    return {test for test, outcome in results.items() if outcome != "passed"}


def _told(tests: set[str], results: dict[str, str]) -> str:
    return "\n".join(f"  {test}: {results[test][:400]}" for test in sorted(tests))


def test_the_sources_are_of_the_versions_that_are_installed() -> None:
    pinned = dict(re.findall(r"^([a-z]+)==(\S+)", SOURCES.read_text(), re.MULTILINE))
    assert pinned == {sdk: importlib.metadata.version(sdk) for sdk in SDKS}


def test_every_expected_failure_is_explained() -> None:
    page = (HERE.parents[1] / "docs" / "compatibility-suites.md").read_text()
    kinds = {kind for sdk in SDKS for kind in EXPECTED[sdk]}
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == kinds


@pytest.mark.deadline(240)
@pytest.mark.parametrize("sdk", SDKS)
async def test_the_sdks_own_tests(sdk: str, suites: Suites, tmp_path: Path) -> None:
    mock = suites.mocks[sdk]
    base = mock if sdk == "openai" else f"{mock}"
    file = configure(tmp_path, upstreams=upstream("up", sdk, base), models=models(sdk), prices=prices(sdk))
    async with running(file) as gateway:
        key = await gateway.key(usd="1000")
        url = f"{gateway.url}/v1" if sdk == "openai" else gateway.url
        async with asyncio.TaskGroup() as tasks:
            direct = tasks.create_task(suites.run(sdk, mock, "any", tmp_path / "direct.json"))
            through = tasks.create_task(suites.run(sdk, url, key, tmp_path / "through.json"))
        await gateway.settled(count=0)
    alone, ours = direct.result(), through.result()
    assert alone.keys() == ours.keys()
    failed = _failed(ours)
    expected = _named(sdk, set(ours))
    assert not failed - expected.keys(), f"fails, and expected.toml does not say so:\n{_told(failed - expected.keys(), ours)}"
    assert not expected.keys() - failed, f"passes, and expected.toml says it fails: {sorted(expected.keys() - failed)}"
    blamed = {test for test, kind in expected.items() if kind == MOCK}
    assert not blamed - _failed(alone), f"passes without Aurixel: {sorted(blamed - _failed(alone))}"
    assert len(ours) - len(failed) >= FLOORS[sdk]
