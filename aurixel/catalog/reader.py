"""One table of models.toml or prices.toml, and the faults found in it, each with its line. Amounts stay exact.

Money is a decimal string in USD: a TOML float or integer where it belongs is refused, not rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aurixel.catalog.prices import PER_MILLION
from aurixel.errors import ConfigError
from aurixel.tomlfile import KeyPath, TomlFile, nearest
from aurixel.values import NANOS_PER_USD, format_usd, parse_usd

# Ceilings that keep every rate inside a signed 64-bit integer; a price above them is a slip of the pen.
_MAX_PER_MILLION: Final = 1_000_000 * NANOS_PER_USD
_MAX_PER_ONE: Final = 1_000 * NANOS_PER_USD
_MAX_TOKENS: Final = 1_000_000_000


class Reader:
    """One table of a file and the faults found in it."""

    def __init__(self, file: TomlFile, path: KeyPath, table: Mapping[str, Any], faults: list[ConfigError]) -> None:
        self.file, self.path, self.table, self.faults = file, path, table, faults

    def fault(self, message: str, mend: str = "", *, key: str | None = None, code: str = "catalogue_invalid") -> None:
        path = (*self.path, key) if key is not None else self.path
        self.faults.append(ConfigError(message, place=self.file.place(path), mend=mend, code=code))

    def within(self, *keys: str) -> Reader:
        """What is under a key of this table; its faults go with the others. No table there reads as an empty one."""
        table: Any = self.table
        for key in keys:
            table = table.get(key) if isinstance(table, Mapping) else None
        return Reader(self.file, (*self.path, *keys), table if isinstance(table, Mapping) else {}, self.faults)

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
