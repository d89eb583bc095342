"""Slows guessing down: attempts are counted on the shelf before a code is looked at, and given back when it was good.

Each account has a bucket of failed attempts that empties by one every so often; a full one refuses, and says for how long.
No wait is longer than that step, whatever clocks do. A bucket for all accounts together takes the attempts of those that
have failed lately, so that who just types in a good code never waits for what others do. What is kept is one instant a
bucket, under a hash of the account's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from aurixel.plugin import Clock, CodeRefused, Shelf, StoreUnavailable

_TOTAL: Final = "t:total"
# Each lost swap is somebody else's attempt in the same bucket: after so many it is as good as full.
_TRIES: Final = 50


class Rate(msgspec.Struct, frozen=True):
    """`burst` attempts at once, and another one every `every_ms`."""

    burst: int
    every_ms: int


def fill(rate: Rate, empty_ms: int, now_ms: int) -> tuple[int, int]:
    """(when the bucket is empty after one more attempt, 0), or (as it is, milliseconds to wait) where it is full.

    `empty_ms`: when it is empty as it stands. One that would be fuller than full, as a clock was wrong, is full.
    """
    full = now_ms + rate.burst * rate.every_ms
    empty = min(max(empty_ms, now_ms), full)
    over = empty + rate.every_ms - full
    return (empty, over) if over > 0 else (empty + rate.every_ms, 0)


class Attempt:
    """One attempt that is being made."""

    def __init__(self) -> None:
        self.was_good = False

    def good(self) -> None:
        """The code was good: this attempt does not count."""
        self.was_good = True


class Throttle:
    """The buckets of all accounts, on the shelf: any number of processes share them."""

    def __init__(self, shelf: Shelf, clock: Clock, account: Rate, total: Rate) -> None:
        self._shelf, self._clock = shelf, clock
        self._account, self._total = account, total

    @asynccontextmanager
    async def attempt(self, account: str) -> AsyncIterator[Attempt]:
        """Count an attempt; `CodeRefused("throttled")` where there is no room for it. It counts unless it was `good`."""
        attempt = Attempt()
        own = f"t:{hashlib.sha256(account.encode()).hexdigest()[:32]}"
        failed_lately = await self._take(own, self._account)
        if failed_lately:
            try:
                await self._take(_TOTAL, self._total)
            except CodeRefused:
                await self._give_back(own, self._account)
                raise
        yield attempt
        if attempt.was_good:
            await self._give_back(own, self._account)
            if failed_lately:
                await self._give_back(_TOTAL, self._total)

    async def _take(self, bucket: str, rate: Rate) -> bool:
        """Whether there were attempts in it already."""
        already, wait = False, 0

        def take(empty_ms: int) -> int:
            nonlocal already, wait
            now = self._clock.wall_ms()
            already = empty_ms > now
            empty, wait = fill(rate, empty_ms, now)
            return empty

        if not await self._change(bucket, take):
            wait = rate.every_ms
        if wait:
            raise CodeRefused("throttled", retry_after=wait / 1000)
        return already

    async def _give_back(self, bucket: str, rate: Rate) -> None:
        try:
            await self._change(bucket, lambda empty_ms: empty_ms - rate.every_ms)
        except StoreUnavailable:
            pass  # it stays counted, and runs out by itself

    async def _change(self, bucket: str, change: Callable[[int], int]) -> bool:
        """Put what `change` makes of the instant; False where others were faster every time."""
        for _ in range(_TRIES):
            item = await self._shelf.get(bucket)
            old = 0 if item is None else item.value["empty_ms"]
            if (new := change(old)) == old:
                return True
            value = {"empty_ms": new}
            if await (self._shelf.put(bucket, value) if item is None else self._shelf.swap(bucket, item.rev, value)):
                return True
        return False
