"""Reads aurixel.toml, applies the overrides, resolves `env:NAME`, and tells every fault with its place and its mend.

The order: the file; then `AURIXEL_SECTION__KEY`, which wins; then each value that says `env:NAME` is read from the
environment. In a plugin's block such a value is a `Secret` from then on. No value ever shows in an error.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from aurixel.config.sections import PREFIX, PluginBlock, Settings, override_name, place_of
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import KeyPath, TomlFile, nearest, read_toml
from aurixel.values import Secret

_ENV: Final = "env:"
_PLUGINS: Final = ("upstreams", "policy", "payments")


class _Overrides(EnvSettingsSource):
    """`AURIXEL_SECTION__KEY`, each as the text it is: what it must be is for the section to say."""

    def __init__(self) -> None:
        super().__init__(Settings)
        # AURIXEL_STORE is the operator's own variable, whatever it is: an override has a section and a key.
        self.env_vars = {name: value for name, value in self.env_vars.items() if "__" in name}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Not as JSON: a key of digits only would become a number."""
        return value


def load(path: Path | TomlFile | None, *, needs: Collection[str] | None = None) -> Settings:
    """The settings of a file (one already read; None: the defaults) under the environment's overrides.

    `needs` names the sections a command will use: an `env:NAME` without a value in another one does no harm (None: all
    are used). `ConfigFaults` has everything that is wrong.
    """
    file = read_toml(path) if isinstance(path, Path) else path
    faults = _unknown_sections()
    values = _merge(file.data if file is not None else {}, _Overrides()())
    absent: list[KeyPath] = []
    resolved = _resolve(values, (), absent)
    for where in absent:
        if needs is None or where[0] in needs:
            variable = _at(values, where).removeprefix(_ENV)
            faults.append(_absent(variable, place_of(file, where)))
    try:
        settings = Settings(**resolved)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            if not any(detail["loc"][: len(where)] == where for where in absent):
                faults.append(_fault(file, detail))
        settings = None
    if faults:
        raise ConfigFaults(faults)
    if settings is None:  # an absent value in a section that is not needed, but must have a form of its own
        raise ConfigFaults([_absent(_at(values, where).removeprefix(_ENV), place_of(file, where)) for where in absent])
    settings._file = file
    return settings


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _resolve(value: Any, where: KeyPath, absent: list[KeyPath]) -> Any:
    """`env:NAME` becomes its value, empty where the environment has none; a `Secret` where a plugin will take it."""
    if isinstance(value, dict):
        return {key: _resolve(inner, (*where, key), absent) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(_ENV):
        found = os.environ.get(value.removeprefix(_ENV), "")
        if not found:
            absent.append(where)
        return Secret(found) if where[0] in _PLUGINS else found
    return value


def _at(values: Any, where: KeyPath) -> Any:
    for part in where:
        values = values[part]
    return values


def _absent(variable: str, place: str) -> ConfigError:
    return ConfigError(f"the environment has no {variable}", place=place, mend=f"export {variable}=...", code="env_missing")


def _unknown_sections() -> list[ConfigError]:
    """Overrides of sections that do not exist; a name without `__` is not an override."""
    faults = []
    for name in sorted(os.environ):
        section, separator, _ = name.upper().removeprefix(PREFIX).partition("__")
        if name.upper().startswith(PREFIX) and separator and section.lower() not in Settings.model_fields:
            fault = f"unknown section {section.lower()!r}"
            mend = nearest(section.lower(), Settings.model_fields)
            faults.append(ConfigError(fault, place=f"the environment's {name}", mend=mend, code="setting_unknown"))
    return faults


def _fault(file: TomlFile | None, detail: ErrorDetails) -> ConfigError:
    where = tuple(detail["loc"])
    place = place_of(file, where)
    if detail["type"] == "extra_forbidden":
        what = "section" if len(where) == 1 else "setting"
        mend = nearest(str(where[-1]), _known(where[:-1]))
        return ConfigError(f"unknown {what} {str(where[-1])!r}", place=place, mend=mend, code="setting_unknown")
    if detail["type"] == "missing":
        return ConfigError(f"{str(where[-1])!r} is missing", place=place, mend=f"or set {override_name(where)}")
    words = detail["msg"].removeprefix("Value error, ")
    return ConfigError(f"{words[:1].lower()}{words[1:]}", place=place)


def _known(where: KeyPath) -> list[str]:
    """The keys that may stand in a table of the file."""
    model: type[BaseModel] = Settings
    for part in where:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # the name of a block
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        model = next((kind for kind in kinds if issubclass(kind, BaseModel)), model)
    hidden = {"settings"} if issubclass(model, PluginBlock) else set()
    return [name for name in model.model_fields if name not in hidden]
