"""Pitfall 11: no price, no service. Elsewhere 43 of 55 models billed by the second were free, for want of their unit.

A price of each usage class goes the whole way, from the operator's file through the store to a charge, in its own unit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from aurixel.catalog import OPERATIONS, Catalogue, PriceBook, Unpriced, parse_files
from aurixel.clock import SystemClock
from aurixel.errors import ConfigFaults
from aurixel.ledger import MODALITY_OF
from aurixel.ledger.settlement import MODALITIES
from aurixel.storage import open_store
from aurixel.tomlfile import TomlFile
from aurixel.values import USAGE_CLASSES

MODEL = """[models.{name}]
operations = ["{operation}"]
context = 1000
max_output = 100
routes = [{{ upstream = "a", model = "m" }}]
"""
PRICE = '[[price]]\nmodel = "{name}"\neffective = 2026-01-01\n'

# (operation, the price as the operator writes it, what is counted, nano-dollars). Every amount is different, so that no
# class can be charged by another's price.
PER_MILLION_TOKENS = [
    ("chat", "input", "0.11", 1, 110),
    ("chat", "cache_read", "0.012", 1_000_000, 12_000_000),
    ("chat", "cache_write_5m", "0.13", 7, 910),
    ("chat", "cache_write_1h", "0.14", 3, 420),
    ("chat", "input_audio", "15", 2, 30_000),
    ("chat", "input_image", "0.16", 765, 122_400),
    ("chat", "output", "0.17", 1_000, 170_000),
    ("chat", "reasoning", "0.18", 11, 1_980),
    ("chat", "output_audio", "19.5", 4, 78_000),
    ("chat", "output_image", "20", 1_290, 25_800_000),
    ("embeddings", "input", "0.021", 8, 168),
    ("moderation", "input", "0.022", 9, 198),
    ("images", "output_image", "40", 1_056, 42_240_000),
    ("speech", "output_audio", "12", 650, 7_800_000),
    ("transcription", "input_audio", "6", 500, 3_000_000),
]
OTHER_UNITS = [
    ("speech", "characters", 'characters = "15"', "characters", 4_096, 61_440_000),  # USD per million characters
    ("transcription", "audio_seconds", 'audio_seconds = "0.0001"', "audio_seconds", 61, 6_100_000),  # for a second
    ("chat", "requests", 'requests = "0.002"', "requests", 1, 2_000_000),  # for one
    ("moderation", "requests", 'requests = "0.003"', "requests", 2, 6_000_000),
    ("chat", "tool_calls", 'tool_calls = { web_search = "0.01" }', "tool_calls.web_search", 3, 30_000_000),
    (
        "images",
        "images",
        'images = [{ size = "1024x1024", quality = "hd", usd = "0.08" }]',
        "images.1024x1024.hd",
        2,
        160_000_000,
    ),
    ("images", "images", 'images = [{ size = "512x512", usd = "0.018" }]', "images.512x512.low", 1, 18_000_000),
]
GOLDEN = [
    (operation, name, f'{name} = "{usd}"', name, units, nanos) for operation, name, usd, units, nanos in PER_MILLION_TOKENS
] + OTHER_UNITS


async def published(tmp_path: Path, operation: str, price: str) -> PriceBook:
    """The price of a model as a node finds it that has only the store."""
    models = TomlFile("models.toml", MODEL.format(name="m", operation=operation))
    prices = TomlFile("prices.toml", PRICE.format(name="m") + price + "\n")
    store, clock = open_store(f"sqlite:///{tmp_path / 'a.db'}"), SystemClock()
    await store.open()
    try:
        await Catalogue(store, clock).publish(parse_files(models, prices), "test")
        node = Catalogue(store, clock)
        await node.refresh()
        book = node.current.price("m", clock.wall_ms())
        assert book is not None
        return book
    finally:
        await store.close()


def needed(operation: str, name: str) -> str:
    """What a model of the operation must have a price for beside that class."""
    wanted = {"chat": ["input", "output"], "images": ["input"], "speech": ["input"], "transcription": ["input"]}.get(
        operation, []
    )
    return "".join(f'{each} = "999"\n' for each in wanted if each != name)


@pytest.mark.parametrize(("operation", "name", "price", "counted", "units", "nanos"), GOLDEN)
async def test_pitfall_11_each_class_is_charged_in_its_own_unit(
    tmp_path: Path, operation: str, name: str, price: str, counted: str, units: int, nanos: int
) -> None:
    """Pitfall 11: a golden price for each modality and unit."""
    book = await published(tmp_path, operation, needed(operation, name) + price)
    assert book.charge({counted: units}) == nanos
    assert book.prices(counted)
    assert book.missing([counted]) == frozenset()


@pytest.mark.parametrize(("operation", "name", "price", "counted", "units", "nanos"), GOLDEN)
async def test_pitfall_11_a_class_without_its_price_is_refused_and_never_free(
    tmp_path: Path, operation: str, name: str, price: str, counted: str, units: int, nanos: int
) -> None:
    """Pitfall 11: the price list says everything but this one."""
    others = {
        "embeddings": None,  # must have a price for input, and has no other class
        "images": 'input = "1"\noutput_image = "1"' if name == "images" else 'images = [{ size = "1x1", usd = "1" }]',
        "speech": 'input = "1"\noutput_audio = "1"' if name == "characters" else 'characters = "1"',
        "transcription": 'input = "1"\ninput_audio = "1"' if name == "audio_seconds" else 'audio_seconds = "1"',
        "moderation": 'input = "1"' if name == "requests" else 'requests = "1"',
        "chat": 'input = "1"\noutput = "1"',
    }[operation]
    if others is None or (operation == "chat" and name in ("input", "output")):
        with pytest.raises(ConfigFaults, match=f"needs a price for {name}"):
            await published(tmp_path, operation, "" if others is None else others.replace(f'{name} = "1"', ""))
        return
    book = await published(tmp_path, operation, others)
    assert book.missing([counted]) == {counted}, "who asks for it is refused before anything is sent"
    if (rate := book.rate(counted)) is None:
        with pytest.raises(Unpriced) as refused:
            book.charge({counted: units})
        assert refused.value.classes == {counted}
    else:  # a neighbour of the same side stands in for what an upstream reports unasked
        assert rate > 0
        assert book.charge({counted: units}) > 0


def test_pitfall_11_every_class_every_operation_and_every_modality_is_among_them() -> None:
    """Pitfall 11: none can be forgotten."""
    assert {name for _, name, *_ in GOLDEN} == set(USAGE_CLASSES)
    assert {operation for operation, *_ in GOLDEN} == set(OPERATIONS)
    assert {MODALITY_OF[operation] for operation, *_ in GOLDEN} == set(MODALITIES)
    amounts = [nanos for *_, nanos in GOLDEN]
    assert len(set(amounts)) == len(amounts)
