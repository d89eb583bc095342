"""Turns a block of the configuration into a plugin's settings model; no value ever shows in what it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from aurixel.errors import ConfigError
from aurixel.registry.loading import nearest
from aurixel.values import Secret

M = TypeVar("M", bound=BaseModel)

_NO_SECRET: Final = "is no secret, and env: is for secrets; the environment can set it as AURIXEL_UPSTREAMS__NAME__SETTING"


def read_settings(model: type[M], values: Mapping[str, Any], place: str) -> M:
    """The settings of a block, or `ConfigError` naming each faulty key. A `Secret` fits a `SecretStr` field only."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    for key in values:
        if key not in known:
            have = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"unknown setting '{key}'", place=f"{place} {key}", mend=nearest(key, known, f"there are: {have}")
            )
    try:
        return model.model_validate(_wrapped(values))
    except ValidationError as error:
        words = _words(error, values)
        place = f"{place} {next(iter(words))}" if len(words) == 1 else place
        text = "; ".join(f"{name}: {word}" for name, word in words.items())
        raise ConfigError(text, place=place, mend="the plugin's README has its settings") from None


def _wrapped(value: Any) -> Any:
    """Secrets in pydantic's own wrapping, however deep."""
    if isinstance(value, Secret):
        return SecretStr(value.reveal())
    if isinstance(value, Mapping):
        return {key: _wrapped(inner) for key, inner in value.items()}
    return [_wrapped(inner) for inner in value] if isinstance(value, list) else value


def _words(error: ValidationError, values: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> what is wrong with it."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    words: dict[str, str] = {}  # of a union the first complaint will do
    for fault in faults:
        name = ".".join(str(part) for part in fault["loc"][:2]) or "settings"
        said = fault["type"] == "value_error"  # by the plugin's own check, which a secret came through to
        no_secret = not said and isinstance(_at(values, fault["loc"]), Secret)
        words.setdefault(name, _NO_SECRET if no_secret else fault["msg"].removeprefix("Value error, "))
    return words


def _at(values: Any, loc: tuple[int | str, ...]) -> Any:
    for part in loc:
        if not isinstance(values, Mapping) or part not in values:
            break
        values = values[part]
    return values
