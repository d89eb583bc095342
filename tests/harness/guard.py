"""Nothing goes wrong quietly: a test fails on any log record at WARNING or above, and on anything written to stderr.

What a test means to happen it declares, with the fixtures `expected_logs` and `expected_stderr`; what is declared and
does not happen fails it too. Exceptions nobody saw (in `__del__`, in a thread, of a coroutine never awaited) are turned
into warnings by pytest and into failures by `filterwarnings = error`; a collection after each test makes sure that they
fail the test that caused them. How a test set up logging is undone after it. The idea is Tornado's: its test run fails
on any unexpected log line.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class _Expected:
    logger: str
    pattern: re.Pattern[str]
    level: int
    times: int | None
    optional: bool
    seen: int = 0

    def takes(self, record: logging.LogRecord) -> bool:
        named = record.name == self.logger or record.name.startswith(self.logger + ".")
        return named and record.levelno == self.level and self.pattern.search(record.getMessage()) is not None

    def fault(self) -> str | None:
        if self.seen == self.times or (self.times is None and (self.seen or self.optional)):
            return None
        wanted = "at least once" if self.times is None else f"{self.times} times"
        level = logging.getLevelName(self.level)
        return f"expected {wanted}, came {self.seen} times: {level} {self.logger}: /{self.pattern.pattern}/"


class ExpectedLogs:
    """What the fixture `expected_logs` is. Declare before or after the fact, any number of times.

    `expected_logs("aurixel.upstream", r"refused", times=1)`: the logger named (or one below it) writes a record whose
    message matches; `times=None` means at least once, `times=0` none, and with `optional` it may come or
    not: for what is said once in a while by a gateway that other tests have used too. `records` holds what was taken so far.
    """

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self._expected: list[_Expected] = []

    def __call__(
        self,
        logger: str,
        message: str,
        *,
        level: int = logging.WARNING,
        times: int | None = None,
        optional: bool = False,
    ) -> None:
        self._expected.append(_Expected(logger, re.compile(message), level, times, optional))

    def _judge(self, records: list[logging.LogRecord]) -> list[str]:
        """The faults: records nobody expected, expectations nobody met."""
        faults = []
        for record in records:
            for expected in self._expected:
                if expected.takes(record):
                    expected.seen += 1
                    self.records.append(record)
                    break
            else:
                faults.append(_line(record))
        return faults


@dataclass
class _Guard:
    """One for the whole run: a record that comes between two tests is held against the next."""

    pending: list[logging.LogRecord] = field(default_factory=list)

    def take(self) -> list[logging.LogRecord]:
        records, self.pending = self.pending, []
        return records


_guard = _Guard()
_logs = pytest.StashKey[ExpectedLogs]()
_stderr = pytest.StashKey[list[re.Pattern[str]]]()
_failed = pytest.StashKey[bool]()
_call_handlers = logging.Logger.callHandlers


def _line(record: logging.LogRecord) -> str:
    text = f"{record.levelname} {record.name}: {record.getMessage()} ({record.pathname}:{record.lineno})"
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return text


def _watched(self: logging.Logger, record: logging.LogRecord) -> None:
    if record.levelno >= logging.WARNING:
        _guard.pending.append(record)
    _call_handlers(self, record)


def pytest_configure() -> None:
    # Not a handler on the root logger: a logger that does not propagate would escape it. Filters have run by then.
    logging.Logger.callHandlers = _watched  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]


def collect() -> None:
    """Find what this test left in cycles. What it leaves alive is wider fixtures' and modules': frozen, so that the next
    collection looks at the next test's objects only and takes a millisecond, not fifty."""
    gc.collect()
    gc.freeze()


def pytest_runtestloop() -> None:
    collect()


@pytest.fixture
def expected_logs(request: pytest.FixtureRequest) -> ExpectedLogs:
    """Declares log records at WARNING or above that this test means to cause; any other fails it."""
    return request.node.stash[_logs]


@pytest.fixture
def expected_stderr(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Declares lines (a regular expression each) that this test may write to stderr; any other fails it."""
    patterns = request.node.stash[_stderr]
    return lambda pattern: patterns.append(re.compile(pattern))


def _loggers() -> dict[logging.Logger, tuple[list[logging.Handler], list[Any], int, bool, bool]]:
    """How every logger is set up now."""
    known = [
        logging.root,
        *(logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)),
    ]
    return {log: ([*log.handlers], [*log.filters], log.level, log.propagate, log.disabled) for log in known}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    # A command called in this process sets up logging, as commands do: to a stream that is closed when its test is over.
    before = _loggers()
    result = yield
    for log, (handlers, filters, level, propagate, disabled) in before.items():
        log.handlers[:], log.filters[:] = handlers, filters
        log.propagate, log.disabled = propagate, disabled
        if log.level != level:
            log.setLevel(level)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[_logs] = ExpectedLogs()
    item.stash[_stderr] = []
    item.stash[_failed] = False
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    result = yield
    if "garbage" not in getattr(item, "fixturenames", ()):  # tests/harness/aio.py has collected for a coroutine test
        collect()
    logs = item.stash[_logs]
    faults = logs._judge(_guard.take())
    if not item.stash[_failed]:  # a test that failed or was skipped has said enough
        if faults:
            pytest.fail("unexpected log records:\n" + "\n".join(faults), pytrace=False)
        unmet = [fault for expected in logs._expected if (fault := expected.fault())]
        if unmet:
            pytest.fail("log records that did not come:\n" + "\n".join(unmet), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when != "teardown":
        item.stash[_failed] |= not report.passed
    elif report.passed and not item.stash[_failed]:
        text = "".join(content for name, content in report.sections if name.startswith("Captured stderr"))
        stray = [line for line in text.splitlines() if not any(p.search(line) for p in item.stash[_stderr])]
        if stray:
            report.outcome = "failed"
            report.longrepr = "written to stderr:\n" + "\n".join(stray)
    return report
