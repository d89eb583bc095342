"""models.toml and prices.toml, read into the stored form: every fault is found, and named with its file and line.

Amounts are decimal strings in USD and stay exact: a TOML float or integer where money belongs is refused, not rounded.
The forms are described in docs/prices.md.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aurixel.catalog.prices import PER_MILLION
from aurixel.catalog.snapshot import OPERATIONS, REQUIRED, Route, StoredCatalogue, StoredModel, StoredPrice
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import KeyPath, TomlFile, nearest, read_toml
from aurixel.values import NANOS_PER_USD, USAGE_CLASSES, format_usd, parse_usd

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_QUALIFIER: Final = re.compile(r"[A-Za-z0-9_:/-]{1,64}")
_PER_MILLION: Final = tuple(name for name in USAGE_CLASSES if name not in ("images", "audio_seconds", "requests", "tool_calls"))
_PER_ONE: Final = ("audio_seconds", "requests")
_MODEL_KEYS: Final = ("operations", "context", "max_output", "routes", "image_patch", "image_multiplier", "image_cap")
_PRICE_KEYS: Final = ("model", "effective", *USAGE_CLASSES)
# Ceilings that keep every rate inside a signed 64-bit integer; a price above them is a slip of the pen.
_MAX_PER_MILLION: Final = 1_000_000 * NANOS_PER_USD
_MAX_PER_ONE: Final = 1_000 * NANOS_PER_USD
_MAX_TOKENS: Final = 1_000_000_000


def read_files(models: Path, prices: Path) -> StoredCatalogue:
    """Both files from disk; `ConfigError` for one that is missing or is not TOML, else as `parse_files`."""
    return parse_files(read_toml(models), read_toml(prices))


def parse_files(models: TomlFile, prices: TomlFile) -> StoredCatalogue:
    """Both files as one catalogue; `ConfigFaults` with everything that is wrong in either."""
    faults: list[ConfigError] = []
    parsed = _models(models, faults)
    listed = _prices(prices, parsed, _tables(models).keys(), faults)
    if faults:
        raise ConfigFaults(faults)
    return StoredCatalogue(models=parsed, prices=listed)


def route_faults(models: Path, catalogue: StoredCatalogue, upstreams: Iterable[str]) -> list[ConfigError]:
    """Routes of `catalogue`, which was read from `models`, to upstreams that the configuration does not have."""
    file, known = read_toml(models), frozenset(upstreams)
    return [
        ConfigError(
            f"the model {name!r} has a route to the upstream {route.upstream!r}, which is not configured",
            place=file.place(("models", name, "routes")),
            mend=nearest(route.upstream, known),
            code="upstream_unknown",
        )
        for name, model in catalogue.models.items()
        for route in model.routes
        if route.upstream not in known
    ]


def parse_prices(prices: TomlFile, models: Mapping[str, StoredModel]) -> list[StoredPrice]:
    """A price file by itself, for models that are known already; `ConfigFaults` with everything that is wrong."""
    faults: list[ConfigError] = []
    listed = _prices(prices, models, models.keys(), faults)
    if faults:
        raise ConfigFaults(faults)
    return listed


class _Reader:
    """One table of a file and the faults found in it."""

    def __init__(self, file: TomlFile, path: KeyPath, table: Mapping[str, Any], faults: list[ConfigError]) -> None:
        self.file, self.path, self.table, self.faults = file, path, table, faults

    def fault(self, message: str, mend: str = "", *, key: str | None = None, code: str = "catalogue_invalid") -> None:
        path = (*self.path, key) if key is not None else self.path
        self.faults.append(ConfigError(message, place=self.file.place(path), mend=mend, code=code))

    def unknown(self, known: tuple[str, ...]) -> None:
        for key in self.table.keys() - set(known):
            self.fault(f"unknown key {key!r}", nearest(key, known), key=key)

    def integer(self, key: str, *, required: bool = True) -> int | None:
        value = self.table.get(key)
        if value is None:
            if required:
                self.fault(f"{key!r} is missing", f"say how many tokens: {key} = 128000")
            return None
        if type(value) is not int or not 0 < value <= _MAX_TOKENS:
            self.fault(f"{key!r} must be a whole number from 1 to {_MAX_TOKENS}", key=key)
            return None
        return value

    def amount(self, key: str, value: Any, label: str, per_one: bool) -> int | None:
        """Nanos per million units, from USD per million, or USD per one."""
        if not isinstance(value, str):
            self.fault(f"the price {label!r} must be a string in quotes", f'write {key} = "0.15", exact in USD', key=key)
            return None
        try:
            nanos = parse_usd(value)
        except ValueError as error:
            self.fault(f"the price {label!r} is not an amount: {error}", key=key)
            return None
        if nanos < 0:
            self.fault(f"the price {label!r} is negative", key=key)
            return None
        ceiling = _MAX_PER_ONE if per_one else _MAX_PER_MILLION
        if nanos > ceiling:
            unit = "one" if per_one else "million"
            self.fault(f"the price {label!r} is above {format_usd(ceiling)} USD per {unit}", "is a point missing?", key=key)
            return None
        return nanos * PER_MILLION if per_one else nanos


# --- models -----------------------------------------------------------------------------------------------------------


def _tables(file: TomlFile) -> Mapping[str, Any]:
    tables = file.data.get("models", {})
    return tables if isinstance(tables, dict) else {}


def _models(file: TomlFile, faults: list[ConfigError]) -> dict[str, StoredModel]:
    top = _Reader(file, (), file.data, faults)
    top.unknown(("models",))
    if not isinstance(file.data.get("models", {}), dict):
        top.fault("'models' must be tables", 'write [models."name"]', key="models")
    parsed = {}
    for name, table in _tables(file).items():
        reader = _Reader(file, ("models", name), table if isinstance(table, dict) else {}, faults)
        if not isinstance(table, dict):
            reader.fault(f"the model {name!r} must be a table", f'write [models."{name}"]')
        elif not _MODEL_ID.fullmatch(name):
            reader.fault(f"{name!r} cannot be a model's name", "letters, digits and . _ : / @ + - only, at most 128")
        elif (model := _model(reader)) is not None:
            parsed[name] = model
    return parsed


def _model(reader: _Reader) -> StoredModel | None:
    before = len(reader.faults)
    reader.unknown(_MODEL_KEYS)
    operations = reader.table.get("operations", [])
    if not isinstance(operations, list) or not operations:
        reader.fault("'operations' is missing", 'say what the model does: operations = ["chat"]', key="operations")
        operations = []
    for operation in operations:
        if operation not in OPERATIONS:
            reader.fault(f"unknown operation {operation!r}", nearest(str(operation), OPERATIONS), key="operations")
    context, max_output = reader.integer("context"), reader.integer("max_output")
    if context is not None and max_output is not None and max_output > context:
        reader.fault(f"'max_output' {max_output} is above 'context' {context}", key="max_output")
    multiplier = reader.table.get("image_multiplier")
    if multiplier is not None and (type(multiplier) not in (int, float) or not 0 < multiplier <= 100):
        reader.fault("'image_multiplier' must be a number above 0, at most 100", key="image_multiplier")
        multiplier = None
    patch, cap = reader.integer("image_patch", required=False), reader.integer("image_cap", required=False)
    routes = _routes(reader)
    if len(reader.faults) > before or context is None or max_output is None:
        return None
    return StoredModel(
        operations=sorted(set(operations)),
        context=context,
        max_output=max_output,
        routes=routes,
        image_patch=patch,
        image_multiplier=None if multiplier is None else float(multiplier),
        image_cap=cap,
    )


def _routes(reader: _Reader) -> list[Route]:
    routes = reader.table.get("routes", [])
    if not isinstance(routes, list) or not routes:
        reader.fault("'routes' is missing", 'say who serves it: routes = [{ upstream = "NAME", model = "its name there" }]')
        return []
    parsed = []
    for route in routes:
        if not isinstance(route, dict) or not all(
            isinstance(route.get(key), str) and route[key] for key in ("upstream", "model")
        ):
            reader.fault("a route is { upstream, model }, both strings", key="routes")
            continue
        for key in route.keys() - {"upstream", "model"}:
            reader.fault(f"unknown key {key!r} in a route", nearest(key, ("upstream", "model")), key="routes")
        parsed.append(Route(route["upstream"], route["model"]))
    return parsed


# --- prices -----------------------------------------------------------------------------------------------------------


def _prices(file: TomlFile, models: Mapping[str, StoredModel], named: Any, faults: list[ConfigError]) -> list[StoredPrice]:
    """`models`: those read without a fault; `named`: all that are named, so that a fault in a model is told once."""
    top = _Reader(file, (), file.data, faults)
    top.unknown(("price",))
    tables = file.data.get("price", [])
    if not isinstance(tables, list):
        top.fault("'price' must be an array of tables", "write [[price]]", key="price")
        return []
    parsed: list[StoredPrice] = []
    seen: dict[tuple[str, int], str] = {}
    for index, table in enumerate(tables):
        if not isinstance(table, dict):
            top.fault("a price must be a table", "write [[price]]", key="price")
            continue
        reader = _Reader(file, ("price", index), table, faults)
        price = _price(reader, models, named)
        if price is None:
            continue
        here = file.place(reader.path)
        first = seen.setdefault((price.model, price.effective_ms), here)
        if first != here:
            reader.fault(f"{price.model!r} has two prices from the same instant on", f"the other is at {first}")
        parsed.append(price)
    return sorted(parsed, key=lambda price: (price.model, price.effective_ms))


def _price(reader: _Reader, models: Mapping[str, StoredModel], named: Any) -> StoredPrice | None:
    before = len(reader.faults)
    reader.unknown(_PRICE_KEYS)
    model = reader.table.get("model")
    if not isinstance(model, str):
        reader.fault("'model' is missing", 'name a model of models.toml: model = "..."', key="model")
    elif model not in named:
        reader.fault(f"there is no model {model!r}", nearest(model, named), key="model")
    effective = _instant(reader)
    rates = _rates(reader)
    if isinstance(model, str) and model in models and len(reader.faults) == before:
        for operation in models[model].operations:
            every, one = REQUIRED[operation]
            if lacking := every - rates.keys():
                reader.fault(f"a model for {operation!r} needs a price for {' and '.join(sorted(lacking))}")
            if one and not any(name.partition(".")[0] in one for name in rates):
                reader.fault(f"a model for {operation!r} needs a price for {' or '.join(sorted(one))}")
    if len(reader.faults) > before or effective is None:
        return None
    return StoredPrice(model=str(model), effective_ms=effective, rates=rates)


def _instant(reader: _Reader) -> int | None:
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


def _rates(reader: _Reader) -> dict[str, int]:
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
    return rates


def _image(reader: _Reader, image: Any) -> str | None:
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
