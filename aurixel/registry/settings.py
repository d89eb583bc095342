"""Turns a block of the configuration into a plugin's settings model; no value ever shows in what it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from aurixel.errors import ConfigError
from aurixel.registry.loading import nearest
from aurixel.values import Secret

M = TypeVar("M", bound=BaseModel)


def read_settings(model: type[M], values: Mapping[str, Any], place: str) -> M:
    """The settings of a block, or `ConfigError` naming each faulty key. A `Secret` fits a `SecretStr` field only."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    for key in values:
        if key not in known:
            have = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"unknown setting '{key}'", place=place, mend=nearest(key, known, f"there are: {have}"))
    try:
        return model.model_validate({key: _plain(value) for key, value in values.items()})
    except ValidationError as error:
        raise ConfigError(_words(error), place=place, mend="see the plugin's README") from None


def _plain(value: Any) -> Any:
    return SecretStr(value.reveal()) if isinstance(value, Secret) else value


def _words(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}" for fault in faults)
