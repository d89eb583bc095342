"""Calls into plugins: deadlines that cost nothing unless needed, failures that are counted and attributed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from aurixel.errors import PolicyError
from aurixel.registry import CallSite, PluginFailed, bounded


class Meter:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        def took(seconds: float) -> None:
            assert seconds >= 0
            self.calls[plugin, where] += 1

        def failed() -> None:
            self.errors[plugin, where] += 1

        return took, failed


async def value(result: Any) -> Any:
    return result


async def after_waiting(result: Any, times: int = 1) -> Any:
    for _ in range(times):
        await asyncio.sleep(0)
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(ready.set_result, result)
    return await ready


async def forever() -> None:
    await asyncio.Event().wait()


# --- bounded ----------------------------------------------------------------------------------------------------------


async def test_what_does_not_wait_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(seconds: float) -> Any:
        pytest.fail("a timer was armed")

    monkeypatch.setattr(asyncio, "timeout", no_timer)
    assert await bounded(value(7), 5) == 7
    with pytest.raises(KeyError):
        await bounded(raising(KeyError("x")), 5)


async def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("times", [0, 1, 5])
async def test_what_waits_gets_what_it_waited_for(times: int) -> None:
    assert await bounded(after_waiting("x", times), 5) == "x"


async def test_what_waits_may_raise() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await bounded(work(), 5)


async def test_what_it_awaits_may_fail() -> None:
    async def work() -> str:
        waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(waits.set_exception, KeyError("x"))
        try:
            await waits
        except KeyError:
            await asyncio.sleep(0)
            return "recovered"
        return "no"

    assert await bounded(work(), 5) == "recovered"


async def test_the_deadline_ends_it_and_lets_it_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(TimeoutError):
        await bounded(work(), 0.01)
    assert cleaned == [True]
    await asyncio.sleep(0)  # and the task itself is not left half cancelled


async def test_a_swallowed_deadline_takes_effect_all_the_same() -> None:
    async def work() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "late"

    with pytest.raises(TimeoutError):
        await bounded(work(), 0.01)


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_cancellation_always_passes(swallows: bool) -> None:
    waiting = asyncio.Event()

    async def work() -> str:
        try:
            waiting.set()
            await forever()
        except asyncio.CancelledError:
            if not swallows:
                raise
        return "swallowed"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(bounded(work(), 30))
        await waiting.wait()
        task.cancel()
    assert task.cancelled()


async def test_nested_deadlines_and_tasks_inside() -> None:
    async def work() -> int:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(after_waiting(number)) for number in range(3)]
        return sum(task.result() for task in tasks)

    assert await bounded(bounded(work(), 20), 20) == 3


# --- call sites -------------------------------------------------------------------------------------------------------


def divide(number: int) -> float:
    return 1 / number


async def test_calls_are_timed_and_failures_counted_and_logged_once_a_kind(
    expected_logs: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("aurixel.plugins", r"^plugin acme failed in prepare: ", level=logging.ERROR, times=3)
    meter = Meter()
    site = CallSite("acme", "prepare", meter)
    assert site.call(divide, 2) == 0.5
    for _ in range(3):
        with pytest.raises(PluginFailed, match=r"^plugin acme failed in prepare$") as caught:
            site.call(divide, 0)
        assert caught.value.__cause__ is None
    with pytest.raises(PluginFailed):
        site.call(divide, "content")  # type: ignore[arg-type]
    with pytest.raises(PluginFailed):
        await site.bounded(raising(ValueError("private content")), 5)
    with pytest.raises(PluginFailed):
        await site.bounded(raising(ValueError("private content")), 5)
    assert meter.calls == {("acme", "prepare"): 7}
    assert meter.errors == {("acme", "prepare"): 6}
    assert "ZeroDivisionError at tests.plugins.test_calls:" in caplog.text
    assert "content" not in caplog.text


async def test_a_passed_deadline_is_a_failure(expected_logs: Callable[..., None]) -> None:
    expected_logs("aurixel.plugins", "plugin acme failed in check: TimeoutError", level=logging.ERROR, times=1)
    meter = Meter()
    with pytest.raises(PluginFailed):
        await CallSite("acme", "check", meter).bounded(forever(), 0.01)
    assert meter.errors.total() == meter.calls.total() == 1


async def test_a_refusal_is_no_failure() -> None:
    meter = Meter()
    site = CallSite("acme", "check", meter)
    with pytest.raises(PolicyError):
        await site.bounded(raising(PolicyError("policy_denied", "no")), 5)

    def refuse() -> None:
        raise PolicyError("policy_denied", "no")

    with pytest.raises(PolicyError):
        site.call(refuse)
    assert meter.errors.total() == 0
    assert meter.calls.total() == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_ends_a_process_or_a_task_passes(error: BaseException) -> None:
    site = CallSite("acme", "prepare", Meter())

    def end() -> None:
        raise error

    for call in (site.call, site.tell):
        with pytest.raises(type(error)):
            call(end)
