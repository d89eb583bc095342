"""Observers: off the request path, bounded, each alone, and drained at shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from aurixel.registry import NoMeter, Observers, Registry
from aurixel.values import Event, UpstreamAttempted
from tests.plugins.conftest import PREAMBLE, Install
from tests.plugins.test_calls import Meter


def event(number: int) -> Event:
    return UpstreamAttempted(request_id=f"req-{number}", upstream="one", model="m", status=200, code="", seconds=float(number))


class Seen:
    """An observer that can be waited for."""

    def __init__(self, enough: int) -> None:
        self.events: list[Event] = []
        self._enough, self._done = enough, asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) == self._enough:
            self._done.set()

    async def wait(self) -> None:
        await self._done.wait()

    @property
    def numbers(self) -> list[int]:
        return [int(event.seconds) for event in self.events]


async def test_each_event_reaches_each_observer_in_order() -> None:
    first, second = Seen(100), Seen(100)
    observers = Observers([("a", first), ("b", second)], NoMeter())
    observers.start()
    for number in range(100):
        observers.emit(event(number))
    await first.wait()
    await second.wait()
    for number in range(100, 120):
        observers.emit(event(number))
    await observers.stop(5)
    assert first.numbers == second.numbers == list(range(120))


async def test_a_failing_observer_is_counted_and_harms_nobody(expected_logs: Callable[..., None]) -> None:
    expected_logs("aurixel.plugins", r"plugin bad failed in observe: ZeroDivisionError at", level=logging.ERROR, times=1)
    meter, seen = Meter(), Seen(5)

    def bad(event: Event) -> None:
        del event
        1 / 0  # noqa: B018 - the failure is the point

    observers = Observers([("bad", bad), ("good", seen)], meter)
    observers.start()
    for number in range(5):
        observers.emit(event(number))
    await seen.wait()
    await observers.stop(5)
    assert meter.errors == {("bad", "observe"): 5}
    assert meter.calls == {("bad", "observe"): 5, ("good", "observe"): 5}


async def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    seen, dropped = Seen(10), []
    observers = Observers([("a", seen)], NoMeter(), capacity=10, dropped=lambda: dropped.append(1))
    observers.start()
    for number in range(25):  # the loop has had no turn yet
        observers.emit(event(number))
    await seen.wait()
    await observers.stop(5)
    assert seen.numbers == list(range(15, 25))
    assert len(dropped) == 15


async def test_the_loop_has_its_turn_between_slices() -> None:
    seen = Seen(1000)
    observers = Observers([("a", seen)], NoMeter())
    observers.start()
    for number in range(1000):
        observers.emit(event(number))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(seen.events) < 1000
    await observers.stop(5)
    assert len(seen.events) == 1000


async def test_stop_drains_only_as_long_as_it_may() -> None:
    dropped: list[int] = []
    seen = Seen(10_000)
    observers = Observers([("a", seen)], NoMeter(), capacity=10_000, dropped=lambda: dropped.append(1))
    observers.start()
    for number in range(10_000):
        observers.emit(event(number))
    await observers.stop(0)
    assert len(seen.events) < 10_000
    assert len(seen.events) + len(dropped) == 10_000
    observers.emit(event(1))
    await observers.stop(5)
    assert len(seen.events) + len(dropped) == 10_000


async def test_nobody_observes() -> None:
    observers = Observers([], NoMeter(), dropped=lambda: pytest.fail("nothing was queued"), capacity=1)
    observers.start()
    observers.emit(event(1))
    observers.emit(event(2))
    await observers.stop(5)


async def test_implementations_may_take_fewer_arguments(install: Install) -> None:
    install("full", PREAMBLE + "seen = []\n@hookimpl\ndef observe(event): seen.append(event.request_id)\n")
    install("bare", PREAMBLE + "seen = []\n@hookimpl\ndef observe(): seen.append('called')\n")
    registry = Registry.load(["full", "bare"], builtin=())
    assert [plugin for plugin, _ in registry.observers()] == ["full", "bare"]
    observers = Observers(registry.observers(), NoMeter())
    observers.start()
    observers.emit(event(3))
    await observers.stop(5)
    seen: list[Any] = [__import__(f"plugin_dist_{name}").seen for name in ("full", "bare")]
    assert seen == [["req-3"], ["called"]]
