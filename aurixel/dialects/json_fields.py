"""Takes a request body apart at its top level, and reads single fields from it; it never quotes what it read.

Values stay as written (`msgspec.Raw` slices of the body). Whatever is wrong is a `ClientError` that names the field.
Nesting is bounded for the whole body at once (`depth`), so that no part of it needs to be looked at again.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Final, TypeAlias, TypeVar

import msgspec

from aurixel.dialects.depth import object_too_deep, too_deep
from aurixel.errors import ClientError

Fields: TypeAlias = Mapping[str, msgspec.Raw]
T = TypeVar("T")

# Above any limit or count that a model knows; keeps products of them far inside 64 bits.
MAX_INT: Final = 2**31 - 1
_PIECE: Final = 1 << 16
# The decoder's words for a wrong type: types and a path of our own field names and positions, nothing of the body.
_TOLD: Final = re.compile(r"Expected `(?P<types>[a-z| ]+)`, got `\w+` - at `\$(?P<path>[a-z_.\[\]0-9]+)`")
_TYPES: Final = {
    "array": "a list",
    "bool": "true or false",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
}


class _Key(str):
    """A top-level key; a type of its own makes the decoder call back for each, so that a repeated one is seen."""

    __slots__ = ()


_OBJECT: Final = dict[_Key, msgspec.Raw]
_PLAIN: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SHORT: Final = 64 * 1024  # a longer body is not looked at twice
_STRING: Final = msgspec.json.Decoder(str)
_INTEGER: Final = msgspec.json.Decoder(int)
_BOOLEAN: Final = msgspec.json.Decoder(bool)


def check_content_type(headers: Mapping[str, str]) -> None:
    """JSON, or not named at all; anything else is refused before it is looked at."""
    value = headers.get("content-type")
    if value and value != "application/json" and value.partition(";")[0].strip().lower() != "application/json":
        raise ClientError("unsupported_content_type", "The body must be sent as application/json.")


def _compact(body: bytes) -> dict[str, msgspec.Raw] | None:
    """The fields of an object written as the SDKs write it, without white space; None: look again.

    Its length is then what its fields add up to. White space, an escape in a key and a field given twice can only make the
    body longer, so that equal lengths prove that there is none of them.
    """
    try:
        fields = _PLAIN.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    length = 1 + sum([len(key) + len(raw) + 4 for key, raw in fields.items()])
    return fields if length == len(body) else None


def decode_object(body: bytes) -> dict[str, msgspec.Raw]:
    """The top level of a JSON object. `ClientError`: empty_body, invalid_utf8, invalid_json, too_deep, duplicate_key or
    invalid_request (JSON, but not an object)."""
    if not body or body.isspace():
        raise ClientError("empty_body", "The request has no body.")
    if not body.isascii():
        _check_utf8(body)
    if len(body) <= _SHORT and (plain := _compact(body)) is not None:
        return plain
    keys: list[str] = []

    def seen(_: type, key: str) -> _Key:
        keys.append(key)
        return _Key(key)

    try:
        fields = msgspec.json.decode(body, type=_OBJECT, dec_hook=seen)
    except msgspec.ValidationError:
        raise ClientError("invalid_request", "The body must be a JSON object.") from None
    except msgspec.DecodeError:
        if too_deep(body):
            raise _too_deep(None) from None
        raise ClientError("invalid_json", "The body is not valid JSON.") from None
    except RecursionError:
        raise _too_deep(None) from None
    if len(keys) != len(fields):
        raise ClientError("duplicate_key", "A field is given twice at the top level of the body.")
    if object_too_deep(body, fields.values()):
        raise _too_deep(None)
    return dict(zip(keys, fields.values(), strict=True))


def decode_field(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw, name: str, expected: str) -> T:
    """One field through a typed decoder; `expected` completes the sentence "`name` must be ..."."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_inside(name, str(error)) or wrong(name, expected) from None
    except msgspec.DecodeError:
        raise ClientError("invalid_json", "The body is not valid JSON.", param=name) from None
    except RecursionError:
        raise _too_deep(name) from None


def given(fields: Fields, name: str) -> msgspec.Raw | None:
    """The field as written; None where it is absent or null."""
    raw = fields.get(name)
    return None if raw is None or raw == _NULL else raw


def read_str(fields: Fields, name: str) -> str | None:
    """A string field, None where absent or null."""
    raw = given(fields, name)
    return None if raw is None else decode_field(_STRING, raw, name, "a string")


def read_bool(fields: Fields, name: str) -> bool:
    """A boolean field, False where absent or null."""
    raw = given(fields, name)
    return False if raw is None else decode_field(_BOOLEAN, raw, name, "true or false")


def read_int(fields: Fields, name: str, low: int, high: int = MAX_INT) -> int | None:
    """An integer field between `low` and `high`, None where absent or null."""
    raw = given(fields, name)
    if raw is None:
        return None
    value = decode_field(_INTEGER, raw, name, "an integer")
    if not low <= value <= high:
        raise wrong(name, f"an integer of at least {low}" if value < low else f"an integer of at most {high}")
    return value


def read_model(fields: Fields) -> str:
    """The model's name: present, not empty, short, printable."""
    model = read_str(fields, "model")
    if model is None:
        raise missing("model")
    if not 0 < len(model) <= 256 or not model.isprintable():
        raise wrong("model", "the name of a model")
    return model


def wrong(name: str, expected: str) -> ClientError:
    """A field has the wrong type or value."""
    return ClientError("invalid_request", f"'{name}' must be {expected}.", param=name)


def _wrong_inside(name: str, told: str) -> ClientError | None:
    """Which part of a field has the wrong type; None where it is the field itself, or the decoder says something else."""
    found = _TOLD.fullmatch(told)
    words = [_TYPES.get(word) for word in found["types"].split(" | ")] if found else []
    if found is None or None in words:
        return None
    text = " or ".join(word for word in words if word)
    return ClientError("invalid_request", f"'{name}{found['path']}' must be {text}.", param=name)


def missing(name: str) -> ClientError:
    """A field that has to be there is not."""
    return ClientError("invalid_request", f"'{name}' is required.", param=name)


def unpriced(name: str, what: str) -> ClientError:
    """A field asks for something that changes the price in a way no price here describes."""
    return ClientError("unpriced_feature", f"{what} has no price here and is not served.", param=name)


def unsupported(name: str, what: str) -> ClientError:
    """A field asks for something the gateway does not do."""
    return ClientError("unsupported_parameter", f"{what} is not supported here.", param=name)


_NULL: Final = msgspec.Raw(b"null")


def _too_deep(name: str | None) -> ClientError:
    return ClientError("too_deep", "The body is nested too deeply.", param=name)


def _check_utf8(body: bytes) -> None:
    """In pieces, most of which are plain ASCII: a large body with one accent in it costs no more than one without."""
    rest = b""
    try:
        for at in range(0, len(body), _PIECE):
            piece = rest + body[at : at + _PIECE]
            if piece.isascii():
                rest = b""
            else:
                rest = piece[codecs.utf_8_decode(piece, "strict", False)[1] :]
    except UnicodeDecodeError:
        rest = b"?"
    if rest:
        raise ClientError("invalid_utf8", "The body is not valid UTF-8.")
