"""Calls into plugin code: under a deadline, timed, and counted against the plugin; it decides nothing about the request.

A failure stops at `Exception`: cancellation, and whatever else ends a task, always passes. What is logged is the kind
of exception and where it was raised, never its text, which may quote anything.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from aurixel.errors import AurixelError, RequestError

T = TypeVar("T")
P = ParamSpec("P")

_log = logging.getLogger("aurixel.plugins")


async def bounded(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What `work` returns, or `TimeoutError` after `seconds`.

    A coroutine that finishes without ever waiting pays nothing for its deadline: a timer is armed only once it waits.
    A cancellation or a deadline that `work` swallows takes effect when `work` returns.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return await _within(work, waits_for, seconds)


async def _within(work: Coroutine[Any, Any, T], waits_for: Any, seconds: float) -> T:
    """The rest of a coroutine that waits, under its deadline."""
    task = asyncio.current_task()
    assert task is not None
    cancels = task.cancelling()
    async with asyncio.timeout(seconds) as deadline:
        result = await _rest(work, waits_for)
    if task.cancelling() > cancels:
        raise asyncio.CancelledError
    if deadline.expired():
        raise TimeoutError
    return result


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was stepped by hand, first handing the loop what it waits for."""
    try:
        yield waits_for
    except BaseException as error:  # noqa: BLE001 - thrown on into `work`, whose matter it is
        try:
            waits_for = work.throw(error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        return (yield from _rest(work, waits_for))
    return (yield from work.__await__())


class PluginFailed(AurixelError):
    """A plugin raised what it should not have. Says who and where, not what."""

    def __init__(self, plugin: str, where: str) -> None:
        super().__init__(f"plugin {plugin} failed in {where}")
        self.plugin, self.where = plugin, where


class PluginMeter(Protocol):
    """What counts calls into plugins. Bound once a place, so that a call costs no look-up of labels."""

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        """Takes the seconds of one call (`aurixel_plugin_seconds`); counts one error (`aurixel_plugin_errors_total`)."""


class NoMeter:
    """Counts nothing."""

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        """Two that do nothing."""
        del plugin, where
        return _nothing_of_float, _nothing


def _nothing_of_float(seconds: float) -> None:
    del seconds


def _nothing() -> None:
    pass


def raised_at(error: BaseException) -> str:
    """The kind of an exception and the line that raised it; never its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = type(error).__name__
    if trace is None:
        return name
    return f"{name} at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"


class CallSite:
    """One place where the host calls one plugin. Make it once, call it often.

    `passes` are a plugin's ways to say no; any other exception is counted, logged once a kind, and becomes `PluginFailed`.
    """

    __slots__ = ("_count", "_logged", "_passes", "_took", "plugin", "where")

    def __init__(
        self, plugin: str, where: str, meter: PluginMeter, passes: tuple[type[Exception], ...] = (RequestError,)
    ) -> None:
        self._passes = passes
        self.plugin: Final = plugin
        self.where: Final = where
        self._took, self._count = meter.bind(plugin, where)
        self._logged: set[str] = set()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a plain function of the plugin."""
        started = perf_counter()
        try:
            return function(*args, **kwargs)
        except self._passes:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises ends here, counted
            self.failed(error)
            raise PluginFailed(self.plugin, self.where) from None
        finally:
            self._took(perf_counter() - started)

    async def bounded(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Await a coroutine of the plugin, under a deadline; a passed deadline is a failure like any other."""
        started = perf_counter()
        try:
            try:  # as in `bounded`, without a coroutine of its own: this is called for every request
                waits_for = work.send(None)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            return await _within(work, waits_for, seconds)
        except self._passes:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises ends here, counted
            self.failed(error)
            raise PluginFailed(self.plugin, self.where) from None
        finally:
            self._took(perf_counter() - started)

    def tell(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a plain function whose answer nobody waits for: whatever it raises is counted, and ends here."""
        started = perf_counter()
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - as above; a refusal has no meaning here
            self.failed(error)
        finally:
            self._took(perf_counter() - started)

    def failed(self, error: Exception) -> None:
        """Count a failure, and log it the first time its kind is seen here."""
        self._count()
        kind = type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            _log.error("plugin %s failed in %s: %s", self.plugin, self.where, raised_at(error))
