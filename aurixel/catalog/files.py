"""models.toml and prices.toml, read into the stored form: every fault is found, and named with its file and line.

The forms are described in docs/prices.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aurixel.catalog.price_files import prices_and_costs
from aurixel.catalog.reader import Reader
from aurixel.catalog.snapshot import OPERATIONS, Route, StoredCatalogue, StoredModel
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.plugin import MODEL_TRAITS
from aurixel.tomlfile import TomlFile, nearest, read_toml

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_MODEL_KEYS: Final = ("operations", "context", "max_output", "routes", "image_patch", "image_multiplier", "image_cap", "traits")


def read_files(models: Path, prices: Path) -> StoredCatalogue:
    """Both files from disk; `ConfigError` for one that is missing or is not TOML, else as `parse_files`."""
    return parse_files(read_toml(models), read_toml(prices))


def parse_files(models: TomlFile, prices: TomlFile) -> StoredCatalogue:
    """Both files as one catalogue; `ConfigFaults` with everything that is wrong in either."""
    faults: list[ConfigError] = []
    parsed = _models(models, faults)
    listed, costs = prices_and_costs(prices, parsed, _tables(models).keys(), faults)
    if faults:
        raise ConfigFaults(faults)
    return StoredCatalogue(models=parsed, prices=listed, costs=costs)


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


def _tables(file: TomlFile) -> Mapping[str, Any]:
    tables = file.data.get("models", {})
    return tables if isinstance(tables, dict) else {}


def _models(file: TomlFile, faults: list[ConfigError]) -> dict[str, StoredModel]:
    top = Reader(file, (), file.data, faults)
    top.unknown(("models",))
    if not isinstance(file.data.get("models", {}), dict):
        top.fault("'models' must be tables", 'write [models."name"]', key="models")
    parsed = {}
    for name, table in _tables(file).items():
        reader = Reader(file, ("models", name), table if isinstance(table, dict) else {}, faults)
        if not isinstance(table, dict):
            reader.fault(f"the model {name!r} must be a table", f'write [models."{name}"]')
        elif not _MODEL_ID.fullmatch(name):
            reader.fault(f"{name!r} cannot be a model's name", "letters, digits and . _ : / @ + - only, at most 128")
        elif (model := _model(reader)) is not None:
            parsed[name] = model
    return parsed


def _model(reader: Reader) -> StoredModel | None:
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
    traits, routes = _traits(reader), _routes(reader)
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
        traits=traits,
    )


def _traits(reader: Reader) -> list[str]:
    traits = reader.table.get("traits", [])
    if not isinstance(traits, list):
        reader.fault("'traits' must be a list", 'write traits = ["reasoning"], say', key="traits")
        return []
    for trait in traits:
        if trait not in MODEL_TRAITS:
            reader.fault(f"unknown trait {trait!r}", nearest(str(trait), MODEL_TRAITS), key="traits")
    return sorted({str(trait) for trait in traits})


def _routes(reader: Reader) -> list[Route]:
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
