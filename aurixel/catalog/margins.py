"""What usage brought in and what upstreams charged for it, record by record. What nobody knows is counted, never guessed.

A cost is looked up in one version of the catalogue, the newest, for the instant the request came: it is what the operator
knows best today, not what a charge was made by. docs/prices.md says what a cost covers and what it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import msgspec

from aurixel.catalog.prices import Unpriced
from aurixel.catalog.snapshot import Snapshot
from aurixel.storage import UsageRecord
from aurixel.values import Nanos

By: TypeAlias = Literal["model", "day", "key"]

# No upstream was asked, or the one that was answered with a refusal: nobody bills for that.
_UNBILLED: Final = frozenset({"refused"})


class MarginLine(msgspec.Struct):
    """Sums in nano-dollars. `cost` is that of the requests whose cost is known; `unknown` counts the others, which brought
    in `unknown_revenue` of `revenue`."""

    requests: int = 0
    revenue: Nanos = 0
    cost: Nanos = 0
    unknown: int = 0
    unknown_revenue: Nanos = 0

    @property
    def margin(self) -> Nanos:
        """Of the requests whose cost is known."""
        return self.revenue - self.unknown_revenue - self.cost


class Unknown(msgspec.Struct, frozen=True, order=True):
    """Why a request's cost is not known: `missing` names the usage classes without a cost ("": none is given at all,
    "counts": an upstream was asked, and what it generated was not recorded)."""

    model: str
    upstream: str
    missing: str


class Margins:
    """Adds up records by model, day (UTC) or key."""

    def __init__(self, costs: Snapshot, by: By) -> None:
        self._costs, self._group = costs, _GROUPS[by]
        self.lines: dict[str, MarginLine] = {}
        self.total = MarginLine()
        self.unknown: dict[Unknown, int] = {}

    def add(self, records: Iterable[UsageRecord]) -> None:
        """Count these records."""
        for record in records:
            cost = self._cost(record)
            for line in (self.lines.setdefault(self._group(record), MarginLine()), self.total):
                line.requests += 1
                line.revenue += record.cost
                if isinstance(cost, Unknown):
                    line.unknown += 1
                    line.unknown_revenue += record.cost
                else:
                    line.cost += cost
            if isinstance(cost, Unknown):
                self.unknown[cost] = self.unknown.get(cost, 0) + 1

    def _cost(self, record: UsageRecord) -> Nanos | Unknown:
        if not record.counts:
            # A crash forgets who was asked: somebody may have been.
            if record.cell in _UNBILLED or not (record.upstream or record.cell == "crash"):
                return 0
            return Unknown(record.model, record.upstream, "counts")
        book = self._costs.cost(record.model, record.upstream, record.at_ms)
        if book is None:
            return Unknown(record.model, record.upstream, "")
        # `requests` is in the counts where customers are charged for one; whether upstreams are is for the cost to say.
        counts = {name: count for name, count in record.counts.items() if name != "requests"}
        if "requests" in book.rates:
            counts["requests"] = 1
        try:
            return book.exactly(counts)
        except Unpriced as missing:
            return Unknown(record.model, record.upstream, ", ".join(sorted(missing.classes)))


def _day(record: UsageRecord) -> str:
    return datetime.fromtimestamp(record.at_ms // 1000, UTC).date().isoformat()


_GROUPS: Final[dict[By, Callable[[UsageRecord], str]]] = {
    "model": lambda record: record.model,
    "key": lambda record: record.key_id,
    "day": _day,
}
