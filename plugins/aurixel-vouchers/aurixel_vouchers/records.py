"""What is kept of batches and codes, each document whole by itself; a code's document is also its audit trail.

`b:K7QM` is a batch and never changes. `v:K7QM-3F9A2C7D` is a code: made, then redeemed once or revoked once, for good.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from aurixel.plugin import Nanos, Shelf

State: TypeAlias = Literal["ready", "redeemed", "revoked", "expired"]
STATES: Final[tuple[State, ...]] = ("ready", "redeemed", "revoked", "expired")
_PAGE: Final = 500


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Codes that were made together. `count` is how many were meant to be made."""

    amount: Nanos
    count: int
    author: str
    made_ms: int
    expires_ms: int | None = None
    note: str = ""


class Redemption(msgspec.Struct, frozen=True):
    """By which account, and when."""

    account: str
    at_ms: int


class Revocation(msgspec.Struct, frozen=True):
    """By whom, when and why."""

    author: str
    at_ms: int
    reason: str


class Voucher(msgspec.Struct, frozen=True, kw_only=True):
    """A code as it is kept: `hash` is the hexadecimal SHA-256 of it."""

    hash: str
    amount: Nanos
    expires_ms: int | None = None
    redeemed: Redemption | None = None
    revoked: Revocation | None = None

    def state(self, now_ms: int) -> State:
        """What it is good for at that instant."""
        if self.redeemed is not None:
            return "redeemed"
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and self.expires_ms <= now_ms else "ready"


def batch_key(id: str) -> str:
    """Where a batch is on the shelf."""
    return f"b:{id}"


def voucher_key(id: str) -> str:
    """Where a code is on the shelf."""
    return f"v:{id}"


def value_of(record: Batch | Voucher) -> dict[str, Any]:
    """A record as a value for the shelf."""
    value: dict[str, Any] = msgspec.to_builtins(record)
    return value


def voucher_of(value: Any) -> Voucher:
    """The record in a value from the shelf."""
    return msgspec.convert(value, Voucher)


async def batches(shelf: Shelf) -> AsyncIterator[tuple[str, Batch]]:
    """(id, batch) of all batches, in the order of their ids."""
    async for name, value in _walk(shelf, "b:"):
        yield name, msgspec.convert(value, Batch)


async def vouchers(shelf: Shelf, batch: str = "") -> AsyncIterator[tuple[str, Voucher]]:
    """(id, voucher) of one batch or of all, in the order of their ids."""
    async for name, value in _walk(shelf, f"v:{batch}-" if batch else "v:"):
        yield name, voucher_of(value)


async def _walk(shelf: Shelf, prefix: str) -> AsyncIterator[tuple[str, Any]]:
    after = ""
    while items := await shelf.page(prefix, after, _PAGE):
        for item in items:
            yield item.id.partition(":")[2], item.value
        after = items[-1].id
