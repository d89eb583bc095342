"""A plugin's shelf in the store: its own few documents, under its own name. It promises what `aurixel.plugin.Shelf` says.

It turns values into JSON and back, and keeps one plugin from another's documents; it caches nothing, decides nothing and
sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aurixel.plugin.billing import ShelfItem
from aurixel.storage import ShelfDoc, Store


class StoreShelf:
    """The shelf of the plugin `name`. The methods do what `Shelf` says of them."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name

    async def put(self, id: str, value: Mapping[str, Any]) -> bool:
        """Insert; False where the id is taken."""
        return await self._store.shelf_put(self._name, id, encode(value))

    async def get(self, id: str) -> ShelfItem | None:
        """The document, or None."""
        doc = await self._store.shelf_get(self._name, id)
        return None if doc is None else _item(doc)

    async def swap(self, id: str, rev: int, value: Mapping[str, Any]) -> bool:
        """Replace the value where `rev` is still that."""
        return await self._store.shelf_swap(self._name, id, rev, encode(value))

    async def page(self, prefix: str, after: str, limit: int) -> Sequence[ShelfItem]:
        """Documents by the beginning of their ids, in order."""
        return [_item(doc) for doc in await self._store.shelf_page(self._name, prefix, after, limit)]


def encode(value: Mapping[str, Any]) -> bytes:
    """The JSON of a value; `ValueError` for one that would come back as another (a NaN, a tuple, keys that are numbers)."""
    try:
        body = msgspec.json.encode(dict(value))
        same = msgspec.json.decode(body) == dict(value)
    except (TypeError, ValueError, RecursionError):
        same, body = False, b""
    if not same:
        raise ValueError("a value on a shelf must be JSON: objects, lists, strings, numbers, true, false and null")
    return body


def _item(doc: ShelfDoc) -> ShelfItem:
    return ShelfItem(doc.id, doc.rev, msgspec.json.decode(doc.body))
