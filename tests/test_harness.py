"""The harness catches what it promises to catch and lets through what was declared: one run of it over bad tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.require import require

ROOT = Path(__file__).parent.parent

BAD_TESTS = """
import asyncio, logging, sys, threading
import pytest
from hypothesis import given, strategies as st

log = logging.getLogger("aurixel.somewhere")

@pytest.fixture
async def background():
    task = asyncio.create_task(asyncio.Event().wait())
    yield asyncio.get_running_loop()
    task.cancel()

async def nothing(): pass

async def test_fixture_shares_the_loop__passes(background):
    assert background is asyncio.get_running_loop()
    assert type(background).__module__ == "uvloop"

class TestMethods:
    async def test_method__passes(self, background): await asyncio.sleep(0)

@given(st.integers())
async def test_hypothesis__passes(n): await asyncio.sleep(0)

def test_declared_log__passes(expected_logs):
    expected_logs("aurixel", r"hm \\d", times=1)
    log.warning("hm %d", 1)
    assert len(expected_logs.records) == 0

def test_declared_stderr__passes(expected_stderr):
    expected_stderr("^oops$")
    print("oops", file=sys.stderr)

def test_info__passes(): log.info("all is well")

def test_sets_up_logging__passes():
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.CRITICAL)

def test_does_not_see_it__passes(expected_logs):
    expected_logs("aurixel", "hm", level=logging.ERROR)
    log.error("hm")

async def test_leaves_a_task__errors(): asyncio.create_task(asyncio.Event().wait())

@pytest.mark.deadline(0.2)
async def test_waits_for_ever__fails(background): await asyncio.Event().wait()

@pytest.mark.deadline(-4.8)
async def test_blocks_the_loop__fails(): threading.Event().wait()

@pytest.mark.deadline(-4.8)
def test_blocks__fails(): threading.Event().wait()

def test_warns__errors(): log.warning("hm")
def test_wrong_level__errors(expected_logs):
    expected_logs("aurixel", "hm")
    log.error("hm")

def test_expects_in_vain__errors(expected_logs): expected_logs("aurixel", "hm")

def test_warns_on_a_deaf_logger__errors():
    deaf = logging.getLogger("deaf")
    deaf.propagate = False
    deaf.addHandler(logging.NullHandler())
    deaf.error("hm")

def test_writes_to_stderr__errors(): print("oops", file=sys.stderr)
def test_never_awaits__fails(): nothing()

async def test_never_awaits_in_a_cycle__errors():
    cycle = [nothing()]
    cycle.append(cycle)

async def test_task_fails_unseen__fails():
    async def fail(): raise ValueError
    task = asyncio.create_task(fail())
    await asyncio.wait([task])

def test_thread_fails_unseen__fails():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
"""

TORNADO_TESTS = """
import pytest, tornado.web

class Hello(tornado.web.RequestHandler):
    def get(self): self.write("hello")

@pytest.fixture
def app(): return tornado.web.Application([("/", Hello)])

@pytest.mark.gen_test
async def test_coroutine(http_client, base_url, io_loop):
    assert type(io_loop.asyncio_loop).__module__ == "uvloop"
    assert (await http_client.fetch(base_url)).body == b"hello"

@pytest.mark.gen_test
def test_generator(http_client, base_url):
    response = yield http_client.fetch(base_url)
    assert response.body == b"hello"
"""


def run(tmp_path: Path, source: str) -> dict[str, str]:
    """The worst outcome of each test in `source`: passed, failed, error or skipped."""
    file = tmp_path / "test_inner.py"
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += ["-p", "no:cacheprovider", "-vv", "-rN", "--tb=short", str(file)]
    ran = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    print(ran.stdout, ran.stderr)
    worst = {}
    for name, outcome in re.findall(r"::(test_\w+) (PASSED|FAILED|ERROR|SKIPPED)", ran.stdout):
        worst[name] = outcome.lower()  # an error at teardown comes after the outcome of the call
    return worst


def test_every_fault_is_caught_and_blamed_on_the_test_that_caused_it(tmp_path: Path) -> None:
    outcomes = run(tmp_path, BAD_TESTS)
    said = {"passes": "passed", "fails": "failed", "errors": "error"}
    wanted = {name: said[ending] for name in outcomes if (ending := name.rpartition("__")[2]) in said}
    assert len(wanted) == BAD_TESTS.count("def test_")
    assert outcomes == wanted


@pytest.mark.parametrize("names", ["all", "unobtainium", "mongodb, unobtainium"])
def test_what_is_missing_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("AURIXEL_TEST_REQUIRE", names)
    with pytest.raises(pytest.fail.Exception, match="there is none"):
        require(None, "unobtainium", "there is none")


@pytest.mark.parametrize("names", ["", "mongodb,node"])
def test_what_is_missing_is_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("AURIXEL_TEST_REQUIRE", names)
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        require(None, "unobtainium", "there is none")


def test_pytest_tornado_works_on_uvloop(tmp_path: Path) -> None:
    assert run(tmp_path, TORNADO_TESTS) == {"test_coroutine": "passed", "test_generator": "passed"}
