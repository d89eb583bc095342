"""The catalogue in the store: versions that are whole, and nodes that follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from aurixel.catalog import Catalogue, StoredCatalogue, parse_files
from aurixel.errors import ConfigError, ConfigFaults, StoreUnavailable
from aurixel.storage import CatalogueDoc, Store, open_store
from aurixel.tomlfile import TomlFile
from tests.storage.faults import Fault, flaky

DAY = 86_400_000
START = 1_769_817_600_000  # 2026-01-31T00:00:00Z


class Clock:
    """Time stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def wall_ms(self) -> int:
        return self.now

    def boot(self) -> float:
        return self.now / 1000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    await store.open()
    yield store
    await store.close()


def files(*models: str, price: str = "1.00", effective: str = "2026-01-01") -> StoredCatalogue:
    rules = 'operations = ["chat"]\ncontext = 1000\nmax_output = 100\nroutes = [{ upstream = "a", model = "m" }]\n'
    return parse_files(
        TomlFile("models.toml", "".join(f"[models.{name}]\n{rules}" for name in models)),
        TomlFile("prices.toml", "".join(price_of(name, price, effective) for name in models)),
    )


def price_of(name: str, price: str, effective: str) -> str:
    return f'[[price]]\nmodel = "{name}"\neffective = {effective}\ninput = "{price}"\noutput = "{price}"\n'


def rate(catalogue: Catalogue, name: str, at_ms: int = START) -> int | None:
    book = catalogue.current.price(name, at_ms)
    return None if book is None else book.rates["input"]


async def test_an_empty_store_serves_nothing(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    assert not await catalogue.refresh()
    assert (catalogue.current.version, dict(catalogue.current.models)) == (0, {})
    assert catalogue.current.price("m", START) is None


async def test_only_an_empty_store_is_filled_from_the_files(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    assert await catalogue.seed(files("m"), "start")
    assert not await catalogue.seed(files("n"), "start")
    assert (catalogue.current.version, set(catalogue.current.models)) == (1, {"m"})


async def test_who_finds_the_store_filled_meanwhile_serves_what_is_there(store: Store) -> None:
    """Workers that start together on an empty store: one fills it, and none may listen with nothing to offer."""
    one, other = Catalogue(store, Clock()), Catalogue(store, Clock())
    assert not await other.refresh()
    assert await one.seed(files("m"), "start")
    assert not await other.seed(files("m"), "start")
    assert (other.current.version, set(other.current.models)) == (1, {"m"})


async def test_a_published_version_is_named_by_its_prices_and_reaches_every_node(store: Store) -> None:
    """Pitfall 12: two nodes price one call alike, and the charge says by which version."""
    one, other = Catalogue(store, Clock()), Catalogue(store, Clock())
    assert await one.publish(files("m"), "ada") == 1
    assert await one.publish(files("m", price="2.00"), "ada") == 2
    assert await other.refresh()
    for node in (one, other):
        book = node.current.price("m", START)
        assert book is not None
        assert (book.version, book.rates["input"]) == (2, 2_000_000_000)
    doc = await store.catalogue_read(1)
    assert doc is not None  # what was charged by stays
    assert doc.author == "ada"


async def test_saying_the_same_again_makes_no_version(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    assert await catalogue.publish(files("m", "n"), "a") == 1
    assert await catalogue.publish(files("m", "n"), "a") == 1


async def test_a_model_keeps_the_day_it_was_first_named(store: Store) -> None:
    clock = Clock()
    catalogue = Catalogue(store, clock)
    await catalogue.publish(files("m"), "a")
    clock.now += DAY
    await catalogue.publish(files("m", "n"), "a")
    assert [catalogue.current.models[name].created_ms for name in ("m", "n")] == [START, START + DAY]


async def test_a_price_takes_effect_at_its_instant_without_a_new_version(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(files("m", price="1.00", effective="2026-02-01"), "a")
    assert catalogue.current.unpriced(START) == ("m",)
    assert rate(catalogue, "m", START + DAY - 1) is None
    assert rate(catalogue, "m", START + DAY) == 1_000_000_000
    assert catalogue.current.unpriced(START + DAY) == ()


async def test_an_import_adds_and_replaces_prices_and_leaves_the_rest(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(files("m", "n"), "a")
    text = price_of("m", "3.00", "2026-01-01") + price_of("m", "4.00", "2026-02-01")
    assert await catalogue.import_prices(TomlFile("p.toml", text), "a") == 2
    assert (rate(catalogue, "m"), rate(catalogue, "m", START + DAY), rate(catalogue, "n")) == (
        3_000_000_000,
        4_000_000_000,
        1_000_000_000,
    )
    assert await catalogue.import_prices(TomlFile("p.toml", text), "a") == 2


async def test_a_fault_in_an_import_changes_nothing(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(files("m"), "a")
    text = price_of("m", "3.00", "2026-01-01") + price_of("x", "3.00", "2026-01-01")
    with pytest.raises(ConfigFaults, match=r"p.toml:7: there is no model 'x'"):
        await catalogue.import_prices(TomlFile("p.toml", text), "a")
    assert (await store.catalogue_version(), rate(catalogue, "m")) == (1, 1_000_000_000)


async def test_imports_at_the_same_time_lose_nothing(store: Store) -> None:
    names = [f"m{number}" for number in range(8)]
    nodes = [Catalogue(store, Clock()) for _ in names]
    await nodes[0].publish(files(*names), "a")
    imports = [
        node.import_prices(TomlFile("p.toml", price_of(name, "7.00", "2026-01-01")), name)
        for node, name in zip(nodes, names, strict=True)
    ]
    versions = await asyncio.gather(*imports)
    assert sorted(versions) == list(range(2, 10))
    for node in nodes:
        await node.refresh()
        assert {rate(node, name) for name in names} == {7_000_000_000}


async def test_a_snapshot_in_use_is_not_disturbed(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(files("m"), "a")
    held = catalogue.current
    await catalogue.publish(files("n"), "a")
    assert held.model("m") is not None
    assert held.model("n") is None
    assert catalogue.current.model("m") is None


async def test_what_cannot_be_read_leaves_the_last_version_in_force(store: Store) -> None:
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(files("m"), "a")
    assert await store.catalogue_put(CatalogueDoc(version=2, at_ms=0, author="future", body=b'{"models": 7}'))
    with pytest.raises(ConfigError) as refused:
        await catalogue.refresh()
    assert refused.value.code == "catalogue_unreadable"
    assert (catalogue.current.version, rate(catalogue, "m")) == (1, 1_000_000_000)


@pytest.mark.parametrize("fault", ["lost", "dropped"])
async def test_a_publication_without_an_answer(store: Store, fault: Fault) -> None:
    catalogue = Catalogue(flaky(store, lambda write: fault)[0], Clock())
    if fault == "lost":
        assert await catalogue.publish(files("m"), "a") == 1
        assert rate(catalogue, "m") == 1_000_000_000
    else:
        with pytest.raises(StoreUnavailable):
            await catalogue.publish(files("m"), "a")
        assert await store.catalogue_version() == 0


async def test_image_rules_survive_the_store(store: Store) -> None:
    stored = files("m")
    stored.models["m"] = msgspec.structs.replace(stored.models["m"], image_patch=32, image_multiplier=1.5, image_cap=99)
    catalogue = Catalogue(store, Clock())
    await catalogue.publish(stored, "a")
    rules = catalogue.current.models["m"].rules
    assert (rules.image_patch, rules.image_multiplier, rules.image_cap) == (32, 1.5, 99)
