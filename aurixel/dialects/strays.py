"""Finds what a request says inside its fields and no codec reads: the names go to `Losses`, values are never looked at.

A dialect lists the keys it knows at each place. A request that has no others, as nearly all, costs one strict decoding that
copies no content; only in one that has are the names collected. A key whose value is null says nothing. Places are told
without positions: `messages.content.KEY` is the same in every message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from aurixel.dialects.json_fields import Fields
from aurixel.plugin.canonical import Losses


class Keys:
    """An object. `leaves` are read, told elsewhere or without meaning for another upstream, whatever is in them; `inner` are
    looked into; with `open` so are no others."""

    def __init__(self, *leaves: str, open: bool = False, **inner: Shape) -> None:
        self.open = open
        self.keys: dict[str, Shape | None] = {**dict.fromkeys(leaves), **inner}


class Kinds:
    """An object whose key `tag` says of which kind it is; `default` where it does not. One of another kind is refused or told
    as a whole by the codec, or told here as `others`."""

    def __init__(
        self, kinds: Mapping[str, Keys], *, tag: str = "type", default: str | None = None, others: str | None = None
    ) -> None:
        self.tag, self.default, self.others = tag, default, others
        self.kinds = dict(kinds)


# Where an object is expected, a list of such objects and a string pass too.
Shape: TypeAlias = Keys | Kinds
Decoder: TypeAlias = msgspec.json.Decoder[Any]

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_NULL: Final = msgspec.Raw(b"null")
_UNKNOWN: Final = Keys()
# Every level is read over again. What is nested deeper than any request makes sense is told as lost, unseen.
_DEEPEST: Final = 8


class Strays:
    """What one dialect knows: a field of its request -> the shape of its value."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._known = {name: (*_decoders(shape), shape) for name, shape in shapes.items()}

    def tell(self, fields: Fields, losses: Losses) -> None:
        """Drops what is not known. The fields have been read before: what is malformed has been refused."""
        for name, raw in fields.items():
            if (known := self._known.get(name)) is None:
                continue
            plain, strict, shape = known
            if not _fits(plain, raw) and (strict is plain or not _fits(strict, raw)):
                _tell(raw, shape, name, losses)


def _fits(decoder: Decoder, raw: msgspec.Raw) -> bool:
    try:
        decoder.decode(raw)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def _decoders(shape: Shape) -> tuple[Decoder, Decoder]:
    """For what is all of the default kind, which then need not say so, and for all kinds, each of which must."""
    strict = msgspec.json.Decoder(_strict(shape, ()))
    if isinstance(shape, Keys) or shape.default is None:
        return strict, strict
    literal: Any = Literal
    told = (shape.tag, literal[shape.default] | None, None)
    struct: Any = _struct(shape.kinds[shape.default], (shape,), {}, told)
    return msgspec.json.Decoder(list[struct] | str), strict


def _strict(shape: Shape, above: tuple[Shape, ...]) -> Any:
    """A type that takes only what is known. A shape inside itself passes once; deeper down the names are collected."""
    if above.count(shape) > 1:
        return None
    above = (*above, shape)
    if isinstance(shape, Keys):
        made: Any = _struct(shape, above, {})
    else:
        made = None
        for kind, keys in shape.kinds.items():
            struct = _struct(keys, above, {"tag_field": shape.tag, "tag": kind})
            made = struct if made is None else made | struct
    return made | list[made] | str | None


def _struct(keys: Keys, above: tuple[Shape, ...], tag: Mapping[str, Any], *more: tuple[str, Any, Any]) -> Any:
    fields: list[Any] = [
        (f"key_{place}", msgspec.Raw if inner is None else _strict(inner, above), msgspec.Raw() if inner is None else None)
        for place, inner in enumerate(keys.keys.values())
    ]
    renamed = {f"key_{place}": name for place, name in enumerate(keys.keys)}
    return msgspec.defstruct("Known", [*more, *fields], rename=renamed, forbid_unknown_fields=not keys.open, gc=False, **tag)


def _tell(raw: msgspec.Raw, shape: Shape, place: str, losses: Losses, depth: int = 0) -> None:
    if depth == _DEEPEST:
        losses.drop(place)
        return
    first = bytes(memoryview(raw)[:1])
    if first == b"{":
        _tell_object(_OBJECT.decode(raw), shape, place, losses, depth)
    elif first == b"[":
        try:
            objects = _OBJECTS.decode(raw)
        except msgspec.ValidationError:
            return  # no list of objects: nothing that a codec takes apart
        for fields in objects:
            _tell_object(fields, shape, place, losses, depth)


def _tell_object(fields: dict[str, msgspec.Raw], shape: Shape, place: str, losses: Losses, depth: int) -> None:
    keys = shape if isinstance(shape, Keys) else _kind(fields, shape, losses)
    if keys is None or keys.open:
        return
    for name, value in fields.items():
        inner = keys.keys.get(name, _UNKNOWN)
        if inner is None or value == _NULL:
            continue
        if inner is _UNKNOWN:
            losses.drop(f"{place}.{name}")
        else:
            _tell(value, inner, f"{place}.{name}", losses, depth + 1)


def _kind(fields: dict[str, msgspec.Raw], kinds: Kinds, losses: Losses) -> Keys | None:
    raw = fields.pop(kinds.tag, _NULL)
    kind = kinds.default if raw == _NULL else msgspec.json.decode(raw)
    keys = kinds.kinds.get(kind) if isinstance(kind, str) else None
    if keys is None and kinds.others is not None:
        losses.drop(kinds.others)
    return keys


__all__ = ["Keys", "Kinds", "Shape", "Strays"]
