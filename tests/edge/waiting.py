"""Waiting for both sides of a connection without a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aurixel.gateway.exchange import Exchange


def stream_of(exchange: Exchange) -> object:
    return exchange._stream  # type: ignore[attr-defined]


async def until(true: Callable[[], object]) -> None:
    """Turns of the loop until `true()`; the test's deadline ends what never comes."""
    while not true():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


async def settled(value: Callable[[], object]) -> None:
    """Turns of the loop until `value()` stays the same for many of them: both sides then wait for the other."""
    last, same = None, 0
    while same < 3000:
        await asyncio.sleep(0)
        now = value()
        same = same + 1 if now == last else 0
        last = now
