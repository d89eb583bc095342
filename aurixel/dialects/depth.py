"""How deep JSON may be nested, the same on every Python. It is judged by its brackets alone, and nothing is kept.

The decoder guards the stack by itself, but from about 900 levels on Python 3.11, and only from 10,000 on 3.13. This bound
is below every such guard, so that on each of them a client gets the same errors and an upstream the same bodies.

Nearly every text has too few brackets to be deep, which costs next to nothing to see. Of the others each byte outside of
short list items is looked at, for about 4 ns.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Final

import msgspec

MAX_DEPTH: Final = 850
_MANY: Final = 200_000
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # read as signed: one down, one up
_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(text: bytes) -> bool:
    """Whether the JSON is nested deeper than `MAX_DEPTH`; of what is no JSON this is a guess."""
    return _deeper(text, MAX_DEPTH)


def object_too_deep(text: bytes, values: Iterable[msgspec.Raw]) -> bool:
    """The same for valid JSON, an object of these values. Its lists, such as a long conversation, are taken item by item."""
    return _may_be_deeper(text, MAX_DEPTH) and any(_value_deeper(value, MAX_DEPTH - 1) for value in values)


def _value_deeper(value: msgspec.Raw, levels: int) -> bool:
    text = bytes(value)
    if not _may_be_deeper(text, levels):
        return False
    if text.startswith(b"[") and text.count(b",") < _MANY:
        items = _ITEMS.decode(text)
        return any(_deeper(bytes(item), levels - 1) for item in items if len(item) >= levels)
    return _depth(text) > levels


def _deeper(text: bytes, levels: int) -> bool:
    return _may_be_deeper(text, levels) and _depth(text) > levels


def _may_be_deeper(text: bytes, levels: int) -> bool:
    """By the brackets that open, in strings too. `find` is many times faster here than `count`."""
    if len(text) <= levels:
        return False
    for bracket in b"{[":
        at = text.find(bracket)
        while at >= 0:
            if not levels:
                return True
            levels -= 1
            at = text.find(bracket, at + 1)
    return False


def _depth(text: bytes) -> int:
    if b"\\" in text:  # then quotes that end no string; an escaped backslash before a quote is none of them
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(text.split(b'"')[::2])
    return max(accumulate(memoryview(outside.translate(_STEPS, _OTHERS)).cast("b")), default=0)
