"""A plugin's shelf: the one in the store and the one that plugin authors test with keep the same promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurixel.errors import StoreUnavailable
from aurixel.plugin import Shelf, ShelfItem
from aurixel.storage.shelf import StoreShelf
from aurixel.testing.host import MemoryShelf
from tests.storage.conftest import Place


@pytest.fixture(params=["for tests", "sqlite", "mongo"])
async def shelf(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    if request.param == "for tests":
        yield MemoryShelf()
        return
    place: Place = request.getfixturevalue(f"{request.param}_place")
    store = place.make()
    await store.open()
    await StoreShelf(store, "other").put("v:1", {"not": "ours"})
    yield StoreShelf(store, "mine")
    await store.close()


VALUES: list[dict[str, Any]] = [
    {},
    {"n": 2**62 - 1, "m": -1, "x": 1.5, "yes": True, "none": None, "list": [1, [], {"a.b": "$c"}], "": "ü\0\n"},
    {"$set": {"a": 1}, "_id": 5, "rev": 9},
]


async def test_what_is_put_comes_back_as_it_went_in(shelf: Shelf) -> None:
    for number, value in enumerate(VALUES):
        assert await shelf.put(f"v:{number}", value)
        assert not await shelf.put(f"v:{number}", {})
        assert await shelf.get(f"v:{number}") == ShelfItem(f"v:{number}", 1, value)
    assert await shelf.page("v:", "", 9) == [ShelfItem(f"v:{number}", 1, value) for number, value in enumerate(VALUES)]
    assert await shelf.page("v:", "v:0", 1) == [ShelfItem("v:1", 1, VALUES[1])]
    assert await shelf.get("v:9") is None


async def test_a_swap_needs_the_revision_that_was_read(shelf: Shelf) -> None:
    assert not await shelf.swap("a", 0, {"n": 1})
    assert not await shelf.swap("a", 1, {"n": 1})
    assert await shelf.get("a") is None
    await shelf.put("a", {"n": 1})
    assert await shelf.swap("a", 1, {"n": 2})
    assert not await shelf.swap("a", 1, {"n": 3})
    assert await shelf.get("a") == ShelfItem("a", 2, {"n": 2})


async def test_what_was_read_is_nobodys_but_the_readers(shelf: Shelf) -> None:
    value: dict[str, Any] = {"list": [1]}
    await shelf.put("a", value)
    value["list"].append(2)
    item = await shelf.get("a")
    assert item is not None
    item.value["list"].append(3)
    assert await shelf.get("a") == ShelfItem("a", 1, {"list": [1]})


NESTED: list[Any] = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "value",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {1: "a"},
        {"x": (1,)},
        {"x": b"a"},
        {"x": object()},
        {"x": NESTED},
    ],
    ids=["nan", "inf", "number-key", "tuple", "bytes", "object", "nested"],
)
async def test_a_value_that_would_come_back_as_another_is_refused(shelf: Shelf, value: Any) -> None:
    with pytest.raises(ValueError, match="must be JSON"):
        await shelf.put("a", value)
    await shelf.put("a", {})
    with pytest.raises(ValueError, match="must be JSON"):
        await shelf.swap("a", 1, value)
    assert await shelf.get("a") == ShelfItem("a", 1, {})


async def test_limits_are_checked_before_anything_is_sent(shelf: Shelf) -> None:
    for name in ("", "a b", "ü", "x" * 201, "a/b"):
        with pytest.raises(ValueError, match="an id on a shelf"):
            await shelf.put(name, {})
        with pytest.raises(ValueError, match="an id on a shelf"):
            await shelf.get(name)
    with pytest.raises(ValueError, match="16384 bytes"):
        await shelf.put("a", {"x": "y" * 16_377})
    assert await shelf.put("a", {"x": "y" * 16_376})
    with pytest.raises(ValueError, match="limit"):
        await shelf.page("", "", 0)


async def test_the_shelf_for_tests_loses_answers() -> None:
    shelf = MemoryShelf()
    shelf.lose("put", "get")
    with pytest.raises(StoreUnavailable):
        await shelf.put("a", {"n": 1})
    with pytest.raises(StoreUnavailable):
        await shelf.get("a")
    assert await shelf.get("a") is None
    shelf.lose("put", "swap", done=True)
    with pytest.raises(StoreUnavailable):
        await shelf.put("a", {"n": 1})
    with pytest.raises(StoreUnavailable):
        await shelf.swap("a", 1, {"n": 2})
    assert await shelf.get("a") == ShelfItem("a", 2, {"n": 2})
