"""A frame: settlements of one account that go to the store together, exactly once; and what is sent for it.

Pure: it says which records, sums and post a frame means, and how its cost is split; it sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from aurixel.ledger.contracts import Intent, Settlement
from aurixel.ledger.lines import Frozen
from aurixel.storage import Post, RollupAdd, UsageRecord
from aurixel.values import Nanos

FRAME_MAX: Final = 500
HOUR_MS: Final = 3_600_000

Item: TypeAlias = tuple[Intent, Settlement]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Frame `s` of an account follows `prev`; it never changes once it is journaled."""

    s: int
    account: str
    prev: int | None
    items: tuple[Item, ...]
    cost: Nanos

    def line(self) -> Frozen:
        """What the journal keeps of it."""
        return Frozen(self.s, self.account, self.prev, tuple(intent.request_id for intent, _ in self.items), self.cost)

    def records(self, inc: str) -> Iterator[UsageRecord]:
        """The usage record of each request."""
        for intent, settlement in self.items:
            yield UsageRecord(
                request_id=intent.request_id,
                account=self.account,
                inc=inc,
                s=self.s,
                key_id=intent.key_id,
                model=intent.model,
                upstream=settlement.upstream,
                operation=intent.operation,
                dialect=intent.dialect,
                stream=intent.stream,
                client_ip=intent.client_ip,
                at_ms=intent.at_ms,
                done_ms=settlement.done_ms,
                cell=settlement.cell,
                measured=settlement.measured,
                status=settlement.status,
                counts=settlement.counts,
                cost=settlement.cost,
                price_version=intent.price_version,
                via=settlement.via,
                losses=settlement.losses,
            )

    def rollups(self, inc: str) -> Iterator[RollupAdd]:
        """Its sums by hour, model and key."""
        buckets: dict[tuple[int, str, str], dict[str, int]] = {}
        for intent, settlement in self.items:
            sums = buckets.setdefault((intent.at_ms // HOUR_MS, intent.model, intent.key_id), {})
            count_in(sums, settlement.cost, settlement.counts)
        for (hour, model, key_id), sums in buckets.items():
            yield RollupAdd(account=self.account, hour=hour, model=model, key_id=key_id, inc=inc, s=self.s, sums=sums)

    def post(self, inc: str, cover: Nanos, available: Nanos) -> Post:
        """The post, its cost taken from `cover` (the lease, less running holds) first, then from `available`, just read.

        What neither has is written off. Not for a frame without `prev`.
        """
        assert self.prev is not None
        lease = min(self.cost, max(cover, 0))
        rest = min(self.cost - lease, available)
        return Post(
            account=self.account,
            inc=inc,
            prev=self.prev,
            s=self.s,
            lease=lease,
            available=rest,
            written_off=self.cost - lease - rest,
        )


def count_in(sums: dict[str, int], cost: Nanos, counts: Mapping[str, int], requests: int = 1) -> None:
    """Add a request to the sums of a rollup, or with `requests` = -1 take it out."""
    sums["requests"] = sums.get("requests", 0) + requests
    sums["cost"] = sums.get("cost", 0) + requests * cost
    for name, units in counts.items():
        if name != "requests":  # the class of that name counts the same thing
            sums[name] = sums.get(name, 0) + requests * units


def freeze(s: int, account: str, prev: int | None, items: tuple[Item, ...]) -> Frame:
    """A new frame."""
    return Frame(s, account, prev, items, sum(settlement.cost for _, settlement in items))
