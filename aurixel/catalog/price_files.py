"""prices.toml: what usage is charged, and what upstreams charge us for it, block by block; every fault has its line.

The forms are described in docs/prices.md. What a price must have depends on what its model does; a cost need not be whole.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from aurixel.catalog.prices import TOKENS, priced_by_units
from aurixel.catalog.reader import Reader
from aurixel.catalog.snapshot import PROMPTED, REQUIRED, StoredCost, StoredModel, StoredPrice
from aurixel.dialects.tiers import PLAIN_TIERS, TIER_NAME
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import TomlFile, nearest
from aurixel.values import USAGE_CLASSES

_QUALIFIER: Final = re.compile(r"[A-Za-z0-9_:/-]{1,64}")
_PER_MILLION: Final = tuple(name for name in USAGE_CLASSES if name not in ("images", "audio_seconds", "requests", "tool_calls"))
_PER_ONE: Final = ("audio_seconds", "requests")
_PRICE_KEYS: Final = ("model", "effective", *USAGE_CLASSES, "tiers")
_COST_KEYS: Final = ("model", "upstream", "effective", *USAGE_CLASSES, "tiers")
_TIERS_FORM: Final = 'tiers.priority = { input = "0.30", output = "1.20" }'
_Dated = TypeVar("_Dated", StoredPrice, StoredCost)


def parse_prices(file: TomlFile, models: Mapping[str, StoredModel]) -> tuple[list[StoredPrice], list[StoredCost]]:
    """A price file by itself, for models that are known already; `ConfigFaults` with everything that is wrong."""
    faults: list[ConfigError] = []
    found = prices_and_costs(file, models, models.keys(), faults)
    if faults:
        raise ConfigFaults(faults)
    return found


def prices_and_costs(
    file: TomlFile, models: Mapping[str, StoredModel], named: Iterable[str], faults: list[ConfigError]
) -> tuple[list[StoredPrice], list[StoredCost]]:
    """What a file says; what is wrong with it is added to `faults`.

    `models`: those read without a fault; `named`: all that are named, so that a fault in a model is told once.
    """
    Reader(file, (), file.data, faults).unknown(("price", "cost"))
    known = frozenset(named)
    prices = _once((reader, _price(reader, models, known)) for reader in _blocks(file, "price", faults))
    costs = _once((reader, _cost(reader, known)) for reader in _blocks(file, "cost", faults))
    return prices, costs


def _blocks(file: TomlFile, name: str, faults: list[ConfigError]) -> Iterator[Reader]:
    top = Reader(file, (), file.data, faults)
    tables = file.data.get(name, [])
    if not isinstance(tables, list):
        top.fault(f"{name!r} must be an array of tables", f"write [[{name}]]", key=name)
        return
    for index, table in enumerate(tables):
        if isinstance(table, dict):
            yield Reader(file, (name, index), table, faults)
        else:
            top.fault(f"a {name} must be a table", f"write [[{name}]]", key=name)


def _once(parsed: Iterator[tuple[Reader, _Dated | None]]) -> list[_Dated]:
    """In order, each model and instant once."""
    found: dict[tuple[str, ...], tuple[str, _Dated]] = {}
    for reader, dated in parsed:
        if dated is None:
            continue
        here = reader.file.place(reader.path)
        key = tuple(map(str, dated.key))
        first, _ = found.setdefault(key, (here, dated))
        if first != here:
            what = reader.path[0]
            reader.fault(f"{dated.model!r} has two {what}s from the same instant on", f"the other is at {first}")
    return sorted((dated for _, dated in found.values()), key=lambda dated: dated.key)


def _price(reader: Reader, models: Mapping[str, StoredModel], named: frozenset[str]) -> StoredPrice | None:
    before = len(reader.faults)
    reader.unknown(_PRICE_KEYS)
    model, effective, rates = _model(reader, named), _instant(reader), _rates(reader)
    if len(reader.faults) == before:
        for tier in reader.table.get("tiers", ()):
            if bare := [name for name in ("input", "output") if f"{name}.{tier}" not in rates]:
                what = f"a tier needs a price for {' and '.join(bare)} of its own"
                reader.within("tiers", tier).fault(what, "no other tier's holds for it")
    if model in models and len(reader.faults) == before:
        if "tiers" in reader.table and "chat" not in models[model].operations:
            reader.fault("only a model for 'chat' is served at tiers", key="tiers")
        for operation in models[model].operations:
            every, one = REQUIRED[operation]
            if lacking := every - rates.keys():
                reader.fault(f"a model for {operation!r} needs a price for {' and '.join(sorted(lacking))}")
            if one and not any(name.partition(".")[0] in one for name in rates):
                reader.fault(f"a model for {operation!r} needs a price for {' or '.join(sorted(one))}")
            elif operation in PROMPTED and "input" not in rates and not priced_by_units(operation, rates):
                reader.fault(
                    f"a model for {operation!r} that is priced by tokens needs a price for input", 'free is input = "0"'
                )
    if len(reader.faults) > before or effective is None:
        return None
    return StoredPrice(model=model, effective_ms=effective, rates=rates)


def _cost(reader: Reader, named: frozenset[str]) -> StoredCost | None:
    before = len(reader.faults)
    reader.unknown(_COST_KEYS)
    model, effective, rates = _model(reader, named), _instant(reader), _rates(reader)
    upstream = reader.table.get("upstream", "")
    if not isinstance(upstream, str) or ("upstream" in reader.table and not upstream):
        reader.fault("'upstream' must be a name", "that of a block [upstreams.NAME]; leave it out for any", key="upstream")
    if len(reader.faults) == before and not rates:
        reader.fault("a cost says what at least one class costs", 'write input = "0.10", say')
    if len(reader.faults) > before or effective is None:
        return None
    return StoredCost(model=model, upstream=upstream, effective_ms=effective, rates=rates)


def _model(reader: Reader, named: frozenset[str]) -> str:
    model = reader.table.get("model")
    if not isinstance(model, str):
        reader.fault("'model' is missing", 'name a model of models.toml: model = "..."', key="model")
        return ""
    if model not in named:
        reader.fault(f"there is no model {model!r}", nearest(model, named), key="model")
    return model


def _instant(reader: Reader) -> int | None:
    value = reader.table.get("effective")
    mend = "a date such as 2026-01-31 (midnight UTC), or an instant such as 2026-01-31T12:00:00Z"
    if value is None:
        reader.fault("'effective' is missing", mend)
        return None
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value) if len(value) > 10 else dt.date.fromisoformat(value)
        except ValueError:
            reader.fault("'effective' is not an instant", mend, key="effective")
            return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            reader.fault("'effective' has a time but no offset", "end it with Z for UTC", key="effective")
            return None
        return round(value.timestamp() * 1000)
    if isinstance(value, dt.date):
        return round(dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC).timestamp() * 1000)
    reader.fault("'effective' is not an instant", mend, key="effective")
    return None


def _rates(reader: Reader) -> dict[str, int]:
    rates: dict[str, int] = {}

    def put(key: str, name: str, value: Any, *, per_one: bool) -> None:
        if name in rates:
            reader.fault(f"{name!r} is priced twice", key=key)
        elif (rate := reader.amount(key, value, name, per_one)) is not None:
            rates[name] = rate

    for name in _PER_MILLION:
        if name in reader.table:
            put(name, name, reader.table[name], per_one=False)
    for name in _PER_ONE:
        if name in reader.table:
            put(name, name, reader.table[name], per_one=True)
    match reader.table.get("tool_calls"):
        case None:
            pass
        case dict() as tools:
            for tool, value in tools.items():
                if _QUALIFIER.fullmatch(tool):
                    put("tool_calls", f"tool_calls.{tool}", value, per_one=True)
                else:
                    reader.fault(f"{tool!r} cannot be a tool's name", key="tool_calls")
        case value:
            put("tool_calls", "tool_calls", value, per_one=True)
    match reader.table.get("images"):
        case None:
            pass
        case list() as images:
            for image in images:
                if (size := _image(reader, image)) is not None:
                    put("images", size, image["usd"], per_one=True)
        case value:
            put("images", "images", value, per_one=True)
    rates.update(_tiers(reader))
    return rates


def _tiers(reader: Reader) -> dict[str, int]:
    """The rates of the tokens of each tier, as `input.TIER`."""
    tiers = reader.table.get("tiers", {})
    if not isinstance(tiers, dict):
        reader.fault("'tiers' must be a table", _TIERS_FORM, key="tiers")
        return {}
    rates = {}
    for tier, table in tiers.items():
        at = reader.within("tiers", tier)
        if tier in PLAIN_TIERS or not TIER_NAME.fullmatch(tier):
            at.fault(f"{tier!r} cannot be a tier: it is the plain one, or no name")
        elif not isinstance(table, dict):
            at.fault("a tier must be a table", _TIERS_FORM)
        else:
            at.unknown(TOKENS)
            for name in TOKENS:
                if name in table and (rate := at.amount(name, table[name], f"{name}.{tier}", per_one=False)) is not None:
                    rates[f"{name}.{tier}"] = rate
    return rates


def _image(reader: Reader, image: Any) -> str | None:
    """The usage class of one entry of `images`: by size, or by size and quality."""
    if not isinstance(image, dict) or "usd" not in image or not isinstance(image.get("size"), str):
        reader.fault('an entry of \'images\' is { size = "1024x1024", quality = "hd", usd = "0.08" }', key="images")
        return None
    for key in image.keys() - {"size", "quality", "usd"}:
        reader.fault(f"unknown key {key!r} in 'images'", nearest(key, ("size", "quality", "usd")), key="images")
    parts = [part for part in (image["size"], image.get("quality")) if part is not None]
    for part in parts:
        if not isinstance(part, str) or not _QUALIFIER.fullmatch(part):
            reader.fault(f"{part!r} cannot be a size or a quality", key="images")
            return None
    return ".".join(("images", *parts))
