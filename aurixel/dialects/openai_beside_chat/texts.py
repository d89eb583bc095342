"""The `prompt` or `input` of the OpenAI family: one text or several, or the numbers of their tokens. Nothing is kept of it."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from aurixel.dialects.bounds import Media, measure
from aurixel.dialects.json_fields import MAX_INT, Fields, decode_field, wrong
from aurixel.plugin.contracts import InputBound

_Token: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
_EXPECTED: Final = "a text, a list of texts, a list of tokens or a list of such lists"
_SHAPE: Final = msgspec.json.Decoder(str | list[msgspec.Raw])
_STRINGS: Final = msgspec.json.Decoder(list[str])
_TOKENS: Final = msgspec.json.Decoder(list[_Token])
_LISTS: Final = msgspec.json.Decoder(list[list[_Token]])


class Texts(msgspec.Struct, frozen=True):
    """How many texts there are, and of how many tokens where they came as such: `tokens` is 0 for words."""

    count: int
    tokens: int = 0


def read_texts(raw: msgspec.Raw, name: str) -> Texts:
    """`ClientError` for what is neither; an empty list is none of it."""
    value = decode_field(_SHAPE, raw, name, _EXPECTED)
    if isinstance(value, str):
        return Texts(1)
    if not value:
        raise wrong(name, _EXPECTED)
    first = bytes(value[0])[:1]
    if first == b'"':
        return Texts(len(decode_field(_STRINGS, raw, name, _EXPECTED)))
    if first == b"[":
        lists = decode_field(_LISTS, raw, name, _EXPECTED)
        if not all(lists):
            raise wrong(name, _EXPECTED)
        return Texts(len(lists), sum(map(len, lists)))
    return Texts(1, len(decode_field(_TOKENS, raw, name, _EXPECTED)))


def bound_of(fields: Fields, not_input: frozenset[str], name: str, texts: Texts) -> InputBound:
    """What bounds the input of a request whose texts are the field `name`: every other field that may bear input, too."""
    text_bytes = sum(
        len(raw) for field, raw in fields.items() if field not in not_input and (field != name or not texts.tokens)
    )
    bound = measure(Media(), text_bytes=text_bytes, messages=texts.count, tools=0)
    return msgspec.structs.replace(bound, exact_tokens=texts.tokens)


__all__ = ["Texts", "bound_of", "read_texts"]
