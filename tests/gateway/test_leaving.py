"""Interruptible sections: what is raised, what passes through, and what never happens after the section."""

from __future__ import annotations

import asyncio

import pytest

from aurixel.errors import ClientGone
from aurixel.gateway.leaving import Interruptible


async def test_now_raises_the_error_at_the_waiting_place() -> None:
    async with asyncio.TaskGroup() as group:
        stop = Interruptible()
        waiting = asyncio.Event()

        async def section() -> str:
            try:
                with stop:
                    waiting.set()
                    await asyncio.Event().wait()
            except ClientGone:
                return "gone"
            return "finished"

        task = group.create_task(section())
        await waiting.wait()
        stop.now(ClientGone())
        assert await task == "gone"
        assert task.cancelling() == 0


async def test_the_first_error_counts() -> None:
    async with asyncio.TaskGroup() as group:
        stop = Interruptible()
        waiting = asyncio.Event()

        async def section() -> None:
            with stop:
                waiting.set()
                await asyncio.Event().wait()

        task = group.create_task(_outcome(section()))
        await waiting.wait()
        stop.now(ClientGone())
        stop.now(ValueError())
        assert isinstance(await task, ClientGone)


async def test_a_cancellation_from_outside_passes_untouched() -> None:
    stop = Interruptible()
    waiting = asyncio.Event()

    async def section() -> None:
        with stop:
            waiting.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(section())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_beside_the_interruption_wins() -> None:
    stop = Interruptible()
    waiting = asyncio.Event()

    async def section() -> None:
        with stop:
            waiting.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(section())
        await waiting.wait()
        stop.now(ClientGone())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_after_the_section_nothing_happens() -> None:
    stop = Interruptible()
    with stop:
        pass
    stop.now(ClientGone())
    await asyncio.sleep(0)


async def test_an_error_of_the_section_itself_is_kept() -> None:
    with pytest.raises(KeyError), Interruptible():
        raise KeyError("own")


async def _outcome(work: object) -> object:
    try:
        return await work  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


async def test_within_ends_a_section_that_is_not_over_in_time_and_no_other() -> None:
    async def late() -> None:
        with Interruptible() as stop:
            stop.within(0, ClientGone())
            stop.within(3600, ValueError())
            await asyncio.Event().wait()

    assert isinstance(await _outcome(late()), ClientGone)
    with Interruptible() as stop:
        stop.within(0, ClientGone())
    stop.within(0, ClientGone())
    for _ in range(3):  # nothing comes after the section
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
