"""What usage would have cost by other prices: the counts of records that are there, charged anew. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from aurixel.catalog.prices import PriceBook
from aurixel.storage import UsageRecord
from aurixel.values import Nanos


class RepricedLine(msgspec.Struct):
    """Sums in nano-dollars: what was charged, and what would have been. `surprises`: requests that used something the new
    prices lack, charged as docs/prices.md says of usage nobody priced."""

    requests: int = 0
    old: Nanos = 0
    new: Nanos = 0
    surprises: int = 0


class Repricing:
    """`books`: the new price of each model that changes; what the others charged stays."""

    def __init__(self, books: Mapping[str, PriceBook]) -> None:
        self._books = books
        self.lines: dict[str, RepricedLine] = {name: RepricedLine() for name in books}
        self.total = RepricedLine()

    def add(self, records: Iterable[UsageRecord]) -> None:
        """Count these records. One that was charged nothing, by how it ended, has no counts and costs nothing again."""
        for record in records:
            book, new, surprised = self._books.get(record.model), record.cost, False
            if book is not None and record.counts:
                _, new, surprised = book.settle({name: n for name, n in record.counts.items() if name != "requests"})
            for line in (self.lines.setdefault(record.model, RepricedLine()), self.total):
                line.requests += 1
                line.old += record.cost
                line.new += new
                line.surprises += surprised
