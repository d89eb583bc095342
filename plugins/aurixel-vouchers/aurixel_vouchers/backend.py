"""The billing backend `vouchers`: makes codes, and makes each one some account's exactly once. It moves no credit.

A code is redeemed by one guarded update of its one document, which names the account: whoever asks at once, one is told yes,
and asked again by the same account the answer is the same, so that a crash between here and the credit is mended by asking
again. An unknown code, a used one, a revoked and an expired one get one answer. A code is in memory only while it is read,
and in no log, document or message.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel, Field

from aurixel.plugin import BillingHost, CodeRefused, Nanos, PluginSettings, Redeemed, Secret, Shelf, StoreUnavailable
from aurixel_vouchers.codes import Code, new_batch, new_code, read_code
from aurixel_vouchers.records import (
    Batch,
    Redemption,
    Revocation,
    State,
    Voucher,
    batch_key,
    value_of,
    voucher_key,
    voucher_of,
    vouchers,
)
from aurixel_vouchers.throttle import Rate, Throttle

T = TypeVar("T")

# Hears how far long work is: (done, of).
Told: TypeAlias = Callable[[int, int], object]

_AT_ONCE: Final = 64

Seconds = Annotated[float, Field(ge=0.001, le=86_400)]


class VouchersSettings(PluginSettings):
    """The block `[payments.vouchers]`: how many wrong codes are taken, and how soon another one is, in seconds."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    attempts_every: Seconds = 60.0
    total_attempts: Annotated[int, Field(ge=1, le=100_000)] = 100
    total_every: Seconds = 1.0


class Revoked(msgspec.Struct, frozen=True):
    """What a revocation came to: the ids that are revoked now, and how many were redeemed, revoked or expired before."""

    ids: tuple[str, ...]
    redeemed: int
    revoked: int
    expired: int


def _nobody(done: int, of: int) -> None:
    del done, of


class Unfinished(Exception):
    """The store gave out while a batch was made: none of its codes may be given out. `batch` is its id."""

    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.batch = batch


class Vouchers:
    """One instance for `[payments.vouchers]`. Any number of processes may work on one shelf."""

    name: ClassVar[str] = "vouchers"
    Settings: ClassVar[type[BaseModel]] = VouchersSettings

    def __init__(self, settings: VouchersSettings, host: BillingHost) -> None:
        self.shelf: Final[Shelf] = host.shelf
        self.clock: Final = host.clock
        account = Rate(settings.attempts, round(settings.attempts_every * 1000))
        total = Rate(settings.total_attempts, round(settings.total_every * 1000))
        self._throttle = Throttle(host.shelf, host.clock, account, total)

    async def redeem(self, account: str, code: Secret) -> Redeemed:
        """Make the code this account's. `CodeRefused`: "mistyped", "throttled", "invalid"."""
        read = read_code(code.reveal())
        if read is None:
            raise CodeRefused("mistyped")
        async with self._throttle.attempt(account) as attempt:
            voucher = await self._claim(account, read)
            if voucher is None:
                raise CodeRefused("invalid")
            attempt.good()
        return Redeemed(payment=read.id, amount=voucher.amount)

    async def _claim(self, account: str, code: Code) -> Voucher | None:
        """The voucher, which is this account's now or was already; None where it is not to be had."""
        key = voucher_key(code.id)
        while (item := await self.shelf.get(key)) is not None:
            voucher = voucher_of(item.value)
            if not hmac.compare_digest(voucher.hash, code.hash):
                return None
            now = self.clock.wall_ms()
            if voucher.state(now) != "ready":
                mine = voucher.redeemed is not None and voucher.redeemed.account == account
                return voucher if mine else None
            claimed = replace(voucher, redeemed=Redemption(account, now))
            if await self.shelf.swap(key, item.rev, value_of(claimed)):
                return claimed
        return None

    async def make(
        self,
        amount: Nanos,
        count: int,
        author: str,
        *,
        expires_ms: int | None = None,
        note: str = "",
        told: Told = _nobody,
    ) -> tuple[str, list[Code]]:
        """The id of a new batch and its codes, to be given out this once. `told` hears how many of how many are made.

        `Unfinished`, or `StoreUnavailable` where not even the batch is known to be there.
        """
        batch = Batch(amount=amount, count=count, author=author, made_ms=self.clock.wall_ms(), expires_ms=expires_ms, note=note)
        while not await self.shelf.put(batch_key(name := new_batch()), value_of(batch)):
            pass
        made: list[Code] = []
        while len(made) < count:
            try:
                made += await _together([self._new(name, batch) for _ in range(min(_AT_ONCE, count - len(made)))])
            except StoreUnavailable:
                raise Unfinished(name) from None
            told(len(made), count)
        return name, made

    async def _new(self, id: str, batch: Batch) -> Code:
        while True:
            code = new_code(id)
            voucher = Voucher(hash=code.hash, amount=batch.amount, expires_ms=batch.expires_ms)
            if await self.shelf.put(voucher_key(code.id), value_of(voucher)):
                return code

    async def revoke(self, id: str, author: str, reason: str, told: Told = _nobody) -> Revoked | None:
        """Revoke one code by its id, or every code of a batch that is still good; None where there is none.

        Done again it does what was left. `told` hears how many of how many have been looked at. `StoreUnavailable`: some are
        revoked, some may not be.
        """
        ids = [id] if "-" in id else [each async for each, _ in vouchers(self.shelf, id)]
        found: list[State | None] = []
        for start in range(0, len(ids), _AT_ONCE):
            found += await _together([self._revoke(each, author, reason) for each in ids[start : start + _AT_ONCE]])
            told(len(found), len(ids))
        if not any(found):
            return None
        done = tuple(each for each, state in zip(ids, found, strict=True) if state == "ready")
        return Revoked(done, found.count("redeemed"), found.count("revoked"), found.count("expired"))

    async def _revoke(self, id: str, author: str, reason: str) -> State | None:
        """The state it was in; None for no such code."""
        key = voucher_key(id)
        while (item := await self.shelf.get(key)) is not None:
            voucher = voucher_of(item.value)
            now = self.clock.wall_ms()
            if (state := voucher.state(now)) != "ready":
                return state
            if await self.shelf.swap(key, item.rev, value_of(replace(voucher, revoked=Revocation(author, now, reason)))):
                return state
        return None


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What each returns; `StoreUnavailable` where one had no answer."""
    lost: BaseException | None = None
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(one) for one in work]
    except* StoreUnavailable as errors:
        lost = errors.exceptions[0]
    if lost is not None:
        raise lost
    return [task.result() for task in tasks]
