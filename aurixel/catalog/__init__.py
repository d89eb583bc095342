"""The catalogue: which models are served, by whom, at which price. One versioned document; nothing fetches prices.

The store is the truth. A change is a new version, inserted whole or not at all; every node polls the number and swaps
its snapshot by reference. Charges name the version they were made with, and old versions are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from aurixel.catalog.files import parse_files, read_files, route_faults
from aurixel.catalog.history import PriceHistory
from aurixel.catalog.margins import MarginLine, Margins, Unknown
from aurixel.catalog.price_files import parse_prices
from aurixel.catalog.prices import OUTPUT_SIDE, PER_MILLION, PriceBook, Timeline, Unpriced, known_class
from aurixel.catalog.repricing import RepricedLine, Repricing
from aurixel.catalog.snapshot import (
    EMPTY,
    OPERATIONS,
    Model,
    Route,
    Snapshot,
    StoredCatalogue,
    StoredCost,
    StoredModel,
    StoredPrice,
    decode,
    snapshot_of,
)
from aurixel.clock import Clock
from aurixel.errors import GatewayError, StoreUnavailable
from aurixel.storage import CatalogueDoc, Store
from aurixel.tomlfile import TomlFile

__all__ = [
    "OPERATIONS",
    "OUTPUT_SIDE",
    "PER_MILLION",
    "Catalogue",
    "MarginLine",
    "Margins",
    "Model",
    "PriceBook",
    "PriceHistory",
    "RepricedLine",
    "Repricing",
    "Route",
    "Snapshot",
    "StoredCatalogue",
    "StoredCost",
    "StoredModel",
    "StoredPrice",
    "Timeline",
    "Unknown",
    "Unpriced",
    "known_class",
    "parse_files",
    "parse_prices",
    "preview",
    "read_files",
    "route_faults",
]


def preview(catalogue: StoredCatalogue, at_ms: int) -> Snapshot:
    """The snapshot that publishing `catalogue` would make, as version 0; nothing is stored."""
    return snapshot_of(CatalogueDoc(version=0, at_ms=at_ms, author="", body=msgspec.json.encode(catalogue)))


# How often a publication is tried again when somebody else's version came first.
_TRIES: Final = 20


class Catalogue:
    """A node's view of the stored catalogue. `current` is the snapshot in force; version 0 is the empty one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.current: Snapshot = EMPTY

    async def refresh(self) -> bool:
        """Take over the newest version; True if there was a newer one. `current` is untouched on any error.

        `ConfigError("catalogue_unreadable")` for a document this program does not understand; `StoreUnavailable`.
        """
        version = await self._store.catalogue_version()
        if version <= self.current.version:
            return False
        doc = await self._store.catalogue_read(version)
        if doc is None:
            return False
        snapshot = snapshot_of(doc)
        if snapshot.version > self.current.version:  # another refresh may have overtaken this one
            self.current = snapshot
        return True

    async def seed(self, catalogue: StoredCatalogue, author: str) -> bool:
        """Publish `catalogue` if the store has none yet; False where it has one. What is there then is in force here."""
        written = not await self._store.catalogue_version() and await self._put(1, self._dated(catalogue, {}), author)
        await self.refresh()
        return written

    async def publish(self, catalogue: StoredCatalogue, author: str) -> int:
        """Make `catalogue` the newest version, and return its number; the present one's if it says the same already.

        Models named before keep their `created_ms`. `author` says who, for the record.
        """
        for _ in range(_TRIES):
            version, stored = await self._newest()
            dated = self._dated(catalogue, stored.models)
            if version and dated == stored:
                await self.refresh()
                return version
            if await self._put(version + 1, dated, author):
                await self.refresh()
                return version + 1
        raise GatewayError("store_unavailable", "The catalogue is being changed by others; try again.")

    async def differs(self, catalogue: StoredCatalogue) -> bool:
        """Whether publishing `catalogue` would make a new version."""
        version, stored = await self._newest()
        return not version or self._dated(catalogue, stored.models) != stored

    async def import_prices(self, file: TomlFile, author: str) -> int:
        """Publish what `with_prices` gives; the number of the version that says so.

        `ConfigFaults` names what is wrong in the file, models unknown to the catalogue among it.
        """
        for _ in range(_TRIES):
            version, stored = await self._newest()
            combined = _combined(stored, file)
            if combined == stored:
                await self.refresh()
                return version
            if await self._put(version + 1, combined, author):
                await self.refresh()
                return version + 1
        raise GatewayError("store_unavailable", "The catalogue is being changed by others; try again.")

    async def with_prices(self, file: TomlFile) -> StoredCatalogue:
        """The newest version with a price file's prices and costs: one for the same model (and upstream) and instant is
        replaced, the rest stays. Nothing is published."""
        _, stored = await self._newest()
        return _combined(stored, file)

    async def _newest(self) -> tuple[int, StoredCatalogue]:
        version = await self._store.catalogue_version()
        doc = await self._store.catalogue_read(version) if version else None
        return (version, decode(doc.body)) if doc is not None else (0, StoredCatalogue(models={}, prices=[]))

    def _dated(self, catalogue: StoredCatalogue, before: Mapping[str, StoredModel]) -> StoredCatalogue:
        now = self._clock.wall_ms()
        models = {
            name: msgspec.structs.replace(model, created_ms=before[name].created_ms if name in before else now)
            for name, model in catalogue.models.items()
        }
        return msgspec.structs.replace(catalogue, models=models)

    async def _put(self, version: int, catalogue: StoredCatalogue, author: str) -> bool:
        """Insert a version. What landed without an answer is told apart from somebody else's by reading it."""
        body = msgspec.json.encode(catalogue)
        doc = CatalogueDoc(version=version, at_ms=self._clock.wall_ms(), author=author, body=body)
        try:
            return await self._store.catalogue_put(doc)
        except StoreUnavailable:
            landed = await self._store.catalogue_read(version)
            if landed is None:
                raise
            return landed.body == body


def _combined(stored: StoredCatalogue, file: TomlFile) -> StoredCatalogue:
    new_prices, new_costs = parse_prices(file, stored.models)
    prices = {price.key: price for price in (*stored.prices, *new_prices)}
    costs = {cost.key: cost for cost in (*stored.costs, *new_costs)}
    return StoredCatalogue(
        models=stored.models,
        prices=[prices[key] for key in sorted(prices)],
        costs=[costs[key] for key in sorted(costs)],
    )
