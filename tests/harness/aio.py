"""`async def test_x()` just works: on uvloop, under a deadline, and with no task left over.

AnyIO's pytest plugin runs the test and its async fixtures (of any scope) in one task of one loop; what it lacks is
here: every coroutine test is taken without a mark, `@pytest.mark.deadline(seconds)` (60 unless said) ends a test that
waits for what never comes, and a task that outlives the test and its fixtures fails it. Not here: tests marked
`gen_test`, which are pytest-tornado's. Why AnyIO: docs/decisions/0002-test-runner.md.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest

from tests.harness.guard import collect

DEADLINE_S = 60.0
# How long a task may take to notice that the test is over: a server's handler has to read the end of its connection.
GRACE_S = 0.5


def _is_runner(task: asyncio.Task[Any]) -> bool:
    # AnyIO's runner wraps each fixture's set-up and teardown, so this one too, in a task of its own.
    return getattr(task.get_coro(), "__qualname__", "") == "TestRunner._call_in_runner_task"


def deadline_of(item: pytest.Item) -> float:
    """How long a test may take, in seconds."""
    mark = item.get_closest_marker("deadline")
    return float(mark.args[0]) if mark else DEADLINE_S


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that production runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def garbage() -> Iterator[None]:
    """Torn down after the loop is closed: a coroutine nobody awaited, in a cycle, then fails this test and not the next."""
    yield
    collect()


@pytest.fixture
async def owned_tasks() -> AsyncGenerator[None]:
    """Set up before and torn down after all others of the test: by then every task must have been awaited by its owner."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not _is_runner(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    if left:
        names = "\n".join(f"  {task.get_name()}: {task.get_coro()!r}" for task in left)
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=GRACE_S)
        pytest.fail(f"tasks left over at the end of the test:\n{names}", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    if not collector.istestfunction(obj, name):
        return
    hypothesis = getattr(obj, "hypothesis", None)
    if not inspect.iscoroutinefunction(hypothesis.inner_test if hypothesis else obj):
        return
    marks = [*getattr(obj, "pytestmark", ()), *collector.iter_markers()]
    if any(mark.name == "gen_test" for mark in marks):
        return
    # Hypothesis runs a test many times under one set of fixtures: a check at the end would blame no one example.
    fixtures = ["anyio_backend"] if hypothesis else ["anyio_backend", "garbage", "owned_tasks"]
    pytest.mark.usefixtures(*fixtures)(obj)  # type: ignore[call-overload]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # For what the loop's own clock cannot end: a call that blocks, a test that swallows its cancellation.
        item.add_marker(pytest.mark.timeout(deadline_of(item) + 5, method="signal"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if inspect.iscoroutinefunction(pyfuncitem.obj) and "owned_tasks" in pyfuncitem.fixturenames:
        pyfuncitem.obj = _under_deadline(pyfuncitem.obj, deadline_of(pyfuncitem))
    return (yield)


def _under_deadline(test: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(test)
    async def run(*args: object, **kwargs: object) -> None:
        try:
            async with asyncio.timeout(seconds) as deadline:
                await test(*args, **kwargs)
        except TimeoutError:
            if deadline.expired():
                pytest.fail(f"not done within its deadline of {seconds:g} s; it was waiting here")
            raise

    return run
