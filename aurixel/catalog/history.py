"""Every version of the catalogue that a charge can name, read when it is first asked for. It publishes nothing.

A charge names the version that was in force on its node; within that version the price in effect at `at_ms`, when the
request came, is the one that counts. So version, model and instant name one price for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from aurixel.catalog.prices import PriceBook, Unpriced
from aurixel.catalog.snapshot import Snapshot, snapshot_of
from aurixel.errors import ConfigError
from aurixel.storage import Store, UsageRecord
from aurixel.values import Nanos


class PriceHistory:
    """The versions in `store`. A version that is not there, or cannot be read, has no prices."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[int, Snapshot | None] = {}

    async def load(self, versions: Iterable[int]) -> None:
        """Have these versions at hand. May raise `StoreUnavailable`."""
        for version in versions:
            if version not in self._versions:
                doc = await self._store.catalogue_read(version)
                try:
                    self._versions[version] = snapshot_of(doc) if doc is not None else None
                except ConfigError:
                    self._versions[version] = None

    def price(self, version: int, model: str, at_ms: int) -> PriceBook | None:
        """The price that a charge of a loaded version was made by."""
        snapshot = self._versions[version]
        return snapshot.price(model, at_ms) if snapshot is not None else None

    def expected(self, record: UsageRecord) -> Nanos | None:
        """What the record's counts cost by the price it names; None where there is no such price."""
        price = self.price(record.price_version, record.model, record.at_ms)
        try:
            return price.charge(record.counts) if price is not None else None
        except Unpriced:
            return None
