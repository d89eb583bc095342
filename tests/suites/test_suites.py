"""The SDKs' own tests, sent through Aurixel to a mock of the vendor's API that checks each request against the vendor's spec.

`expected.toml` names every test that fails, why, and what it says. A test that fails otherwise, or is named and passes, is
a failure here.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from tests.flow.gateway import configure, running, upstream
from tests.suites.catalogue import models, prices
from tests.suites.fixture import HERE, SDKS, SOURCES, Suites

EXPECTED = tomllib.loads((HERE / "expected.toml").read_text())
PAGE = (HERE.parents[1] / "docs" / "compatibility-suites.md").read_text()
SPEAKS = {"openai": 'speaks = ["chat", "responses", "completions"]\n', "anthropic": ""}


def _differences(sdk: str, results: dict[str, str]) -> list[str]:
    """What `expected.toml` says otherwise than `results`."""
    found, named = [], dict.fromkeys(results, 0)
    for group in EXPECTED[sdk]:
        for pattern in group["tests"]:
            fits = [test for test in results if re.fullmatch(pattern, test)]
            if not fits:
                found.append(f"{group['kind']}: no test fits {pattern}")
            for test in fits:
                named[test] += 1
                if not re.search(group["told"], results[test]):
                    found.append(f"{test}: expected {group['kind']}, is {results[test][:300]}")
    found += [f"{test}: named {times} times" for test, times in named.items() if times > 1]
    unnamed = (test for test, times in named.items() if not times and results[test] != "passed")
    return found + [f"{test}: not expected: {results[test][:300]}" for test in unnamed]


def test_the_sources_are_of_the_versions_that_are_installed() -> None:
    pinned = dict(re.findall(r"^([a-z]+)==(\S+)", SOURCES.read_text(), re.MULTILINE))
    assert pinned == {sdk: importlib.metadata.version(sdk) for sdk in SDKS}, "sources.txt is to follow conf/lock/dev.txt"


def test_each_kind_of_failure_is_explained_and_no_other() -> None:
    kinds = {group["kind"] for sdk in SDKS for group in EXPECTED[sdk]}
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == kinds


def test_a_difference_is_seen() -> None:
    stream = "test_messages.py::TestMessages::test_method_create_overload_2[loose]"
    fails, passes = {stream: "failed: a word of its own"}, {stream: "passed"}
    assert any("expected no-stream, is failed" in each for each in _differences("anthropic", fails))
    assert any("expected no-stream, is passed" in each for each in _differences("anthropic", passes))
    assert f"{stream}x: not expected: failed" in _differences("openai", {f"{stream}x": "failed"})


@pytest.mark.deadline(240)
@pytest.mark.parametrize("sdk", SDKS)
async def test_the_sdks_own_tests(sdk: str, suites: Suites, tmp_path: Path) -> None:
    upstreams = upstream("up", sdk, suites.mocks[sdk]) + SPEAKS[sdk]
    async with running(configure(tmp_path, upstreams=upstreams, models=models(sdk), prices=prices(sdk))) as gateway:
        key = await gateway.key(usd="1000")
        url = f"{gateway.url}/v1" if sdk == "openai" else gateway.url
        results = await suites.run(sdk, url, key, tmp_path / "results.json")
        records = await gateway.settled(count=1)
    told = _differences(sdk, results)
    assert not told, "\n".join(told)
    passed = list(results.values()).count("passed")
    assert f"| {sdk} | {len(results)} | {passed} |" in PAGE, f"docs/compatibility-suites.md: {passed} of {len(results)} pass"
    # What passed has passed through: but for models and counts, each request is in the books.
    assert len(records) > len(results) / 6
