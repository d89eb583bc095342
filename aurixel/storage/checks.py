"""What every store checks before it sends anything: amounts, counters, incarnations. Nothing here knows a store.

A failure is a `ValueError`: a bug of the caller, never something a store or a client caused. The texts name the
argument and not its value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aurixel.storage import Movement, OrderDoc, Post, ReceiptDoc, RollupAdd, UsageRecord
from aurixel.values import MAX_NANOS

# An incarnation is a field name in MongoDB: nothing that means something there may be in it.
_INC: Final = re.compile(r"[a-z0-9]{1,64}")
# The name of a shelf ends where an id begins: neither has a slash, and nothing in them means anything to a store.
_SHELF: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SHELF_ID: Final = re.compile(r"[A-Za-z0-9:._-]{1,200}")
SHELF_BODY: Final = 16 * 1024
_WIDEST: Final = 2**63 - 1
_LAST_HOUR: Final = 70_000_000  # some time in the year 9955: beyond 9999 a day has no name


def amounts(**values: int) -> None:
    """Amounts and counters: whole numbers, 0 <= value < 2**62."""
    for name, value in values.items():
        if type(value) is not int or not 0 <= value <= MAX_NANOS:
            raise ValueError(f"{name} must be a whole number from 0 up, below 2**62")


def signed(**values: int) -> None:
    """Amounts of movements: whole numbers, abs(value) < 2**62."""
    for name, value in values.items():
        if type(value) is not int or abs(value) > MAX_NANOS:
            raise ValueError(f"{name} must be a whole number, below 2**62 either way")


def times(**values: int) -> None:
    """Instants and bounds that are compared, not added up: what fits a signed 64-bit integer."""
    for name, value in values.items():
        if type(value) is not int or abs(value) > _WIDEST:
            raise ValueError(f"{name} must be a whole number of at most 64 bits")


def page(limit: int) -> None:
    """How much is asked for at once: at least one (zero and less mean something else to every store)."""
    if type(limit) is not int or not 1 <= limit <= 100_000:
        raise ValueError("limit must be 1 to 100000")


@lru_cache(maxsize=64)  # a batch names the same one for every record
def _is_inc(value: str) -> bool:
    return _INC.fullmatch(value) is not None


def inc(value: str) -> None:
    """An incarnation: lower-case letters and digits."""
    if not _is_inc(value):
        raise ValueError("an incarnation is 1 to 64 lower-case letters and digits")


def shelf(name: str, id: str, body: bytes = b"") -> None:
    """Where a document lies on a shelf, and how much of it there is."""
    if not _SHELF.fullmatch(name):
        raise ValueError("a shelf is named in at most 64 lower-case letters, digits, - and _")
    if not _SHELF_ID.fullmatch(id):
        raise ValueError("an id on a shelf must be 1 to 200 of A-Z, a-z, 0-9, colon, dot, _ and -")
    if len(body) > SHELF_BODY:
        raise ValueError(f"a document on a shelf must be at most {SHELF_BODY} bytes of JSON")


def shelf_range(name: str, prefix: str, after: str, limit: int) -> tuple[str, str]:
    """What `shelf_page` asks for: ids from the first, which may be among them, up to the second, which is none."""
    page(limit)
    for part in (prefix, after):
        shelf(name, part or "-")
    # `!` sorts before, `~` behind every character of an id.
    return max(prefix, f"{after}!"), f"{prefix}~"


@lru_cache(maxsize=256)  # there are few, and every record has some
def _is_unit(name: str) -> bool:
    return bool(name) and "\0" not in name and len(name) <= 200


def units(name: str, values: dict[str, int]) -> None:
    """Sums and counts by unit: no empty name, no NUL, no negative number."""
    for unit, value in values.items():
        if not _is_unit(unit):
            raise ValueError(f"{name} has a unit without a usable name")
        if type(value) is not int or not 0 <= value <= MAX_NANOS:
            raise ValueError(f"{name} must hold whole numbers from 0 up, below 2**62")


def movement(value: Movement) -> None:
    """A movement as `movement_put` takes it."""
    amounts(n=value.n)
    signed(amount=value.amount)
    times(at_ms=value.at_ms)
    if value.n < 1:
        raise ValueError("movements are numbered from 1")
    if value.took is not None:
        raise ValueError("a movement is put with `took` unset")


def mend(rollup: RollupAdd, was: int | None) -> None:
    """What `rollup_mend` takes."""
    batch((), (rollup,), ())
    if was is not None:
        amounts(was=was)
        if rollup.s <= was:
            raise ValueError("a mended rollup's s is above the one it had")


def order(value: OrderDoc, *, new: bool) -> None:
    """An order as `order_new` and `order_swap` take it."""
    amounts(rev=value.rev)
    times(created_ms=value.created_ms)
    if not value.id or not value.account or not value.backend or value.payment == "":
        raise ValueError("an order must have an id, an account and a backend, and no empty payment")
    if (value.rev == 1) is not new or not value.rev:
        raise ValueError("an order's rev must be 1 when it is new, and higher each time it changes")


def receipt(value: ReceiptDoc) -> None:
    """A receipt as `receipt_put` takes it."""
    amounts(number=value.number)
    times(at_ms=value.at_ms)
    if value.number < 1:
        raise ValueError("receipts must be numbered from 1")


def batch(records: Sequence[UsageRecord], rollups: Sequence[RollupAdd], posts: Sequence[Post]) -> None:
    """What `post` takes. A rollup may appear once: its frames are added in order, one call after another."""
    for record in records:
        inc(record.inc)
        amounts(s=record.s, cost=record.cost)
        units("counts", record.counts)
    seen = set()
    for rollup in rollups:
        inc(rollup.inc)
        amounts(s=rollup.s, hour=rollup.hour)
        if rollup.hour > _LAST_HOUR:
            raise ValueError("hour is too far off")
        units("sums", rollup.sums)
        seen.add((rollup.account, rollup.hour, rollup.model, rollup.key_id, rollup.inc))
    if len(seen) != len(rollups):
        raise ValueError("a rollup appears twice in one batch")
    for post in posts:
        inc(post.inc)
        amounts(prev=post.prev, s=post.s, lease=post.lease, available=post.available, written_off=post.written_off)
        amounts(sum=post.lease + post.available)
        if post.s <= post.prev:
            raise ValueError("a frame's s is above the seq it follows")
