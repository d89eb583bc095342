"""Makes JSON schemas what `anthropic_messages` takes: of an object, and closed where they bind an answer.

A schema that is fine passes as it was written.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aurixel.dialects.json_fields import wrong

_EMPTY: Final = {"type": "object", "properties": {}}
# What the grammar behind structured outputs does not know; it goes into the description, where the model reads it.
_UNKNOWN: Final = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "uniqueItems",
    }
)
_SCHEMAS: Final = frozenset({"additionalItems", "contains", "items", "not"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS: Final = frozenset({"$defs", "definitions", "patternProperties", "properties"})


class _Outline(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()


_OUTLINE: Final = msgspec.json.Decoder(_Outline)
_TOP: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY: Final = msgspec.json.Decoder(dict[str, Any])


def object_schema(schema: msgspec.Raw | None, field: str) -> Any:
    """The schema with its type, which this dialect wants said; an empty object's for none."""
    if schema is None:
        return _EMPTY
    try:
        if _OUTLINE.decode(schema).type:
            return schema
        return {"type": "object", **_TOP.decode(schema)}
    except (msgspec.DecodeError, RecursionError):
        raise wrong(field, "described by a JSON schema that is an object") from None


def closed_schema(schema: msgspec.Raw, field: str) -> tuple[Any, bool]:
    """The schema with every object closed and no keyword that is unknown there, and whether that changed its meaning."""
    try:
        found = _ANY.decode(schema)
        written, touched, changed = _closed(found)
    except (msgspec.DecodeError, RecursionError):
        raise wrong(field, "described by a JSON schema that is an object") from None
    return (written if touched else schema), changed


def _closed(schema: Any) -> tuple[Any, bool, bool]:
    """The schema, whether it differs, and whether it means something else."""
    if not isinstance(schema, dict):
        return schema, False, False
    out: dict[str, Any] = {}
    told: list[str] = []
    touched = changed = False
    for key, value in schema.items():
        if key in _UNKNOWN or (key == "minItems" and value not in (0, 1)):
            told.append(f"{key}: {msgspec.json.encode(value).decode()}")
            touched = changed = True
            continue
        inner = _inner(key, value)
        if inner is not None:
            touched, changed = touched or inner[1], changed or inner[2]
            out[key] = inner[0]
            continue
        out[key] = value
    if _is_object(schema) and schema.get("additionalProperties") is not False:
        changed = changed or "additionalProperties" in schema
        out["additionalProperties"] = False
        touched = True
    if told:
        words = "; ".join(told)
        before = out.get("description")
        out["description"] = f"{before} ({words})" if isinstance(before, str) and before else words
    return out, touched, changed


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)


def _inner(key: str, value: Any) -> tuple[Any, bool, bool] | None:
    """Of the schemas under this keyword; None where it has none."""
    if isinstance(value, dict) and key in _MAPS:
        named = {name: _closed(item) for name, item in value.items()}
        parts = list(named.values())
        return {name: part[0] for name, part in named.items()}, any(p[1] for p in parts), any(p[2] for p in parts)
    if isinstance(value, list) and key in _LISTS:
        parts = [_closed(item) for item in value]
        return [part[0] for part in parts], any(p[1] for p in parts), any(p[2] for p in parts)
    return _closed(value) if key in _SCHEMAS else None
