"""Changes an input where it means something: a value or a member of its JSON, a whole event of its stream.

libFuzzer's own changes, of single bytes, mostly end at the JSON parser, which is another project's.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, Final

from tests.fuzz.targets import HEAD

_EVENTS: Final = re.compile(rb"(?<=\n\n)")
_DATA: Final = re.compile(rb"^data: ?(.*)$", re.MULTILINE)
# Values that some reader may take for what they are not.
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 1.5, 1e308, 2**31, 2**63, 10**30, -(2**63), "", "x", "\0", "\u2028", "\ud83d\ude00",
    "0", "auto", "m", "text", "user", "assistant", "tool", "function", "data:image/png;base64,AA==", "data:,",
    "https://a/b", "{}", "[]", "null", [], {}, [[]], [{}], [None], {"type": "text", "text": "x"}, {"type": "x"}, {"": None},
)  # fmt: skip


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """`data` with one to three changes, at most `most` bytes of it; the same for the same seed. Its head stays."""
    chance = random.Random(seed)
    head, body = data[:HEAD], data[HEAD:]
    for _ in range(chance.randint(1, 3)):
        body = _of_stream(body, chance) if b"data:" in body else _of_json(body, chance)
    return (head + body)[:most]


def _of_stream(body: bytes, chance: random.Random) -> bytes:
    events = _EVENTS.split(body)
    at = chance.randrange(len(events))
    match chance.randrange(8):
        case 0:
            del events[at]
        case 1:
            events.insert(chance.randrange(len(events) + 1), events[at])
        case 2:
            other = chance.randrange(len(events))
            events[at], events[other] = events[other], events[at]
        case 3:
            events[at] = events[at].replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n")))
        case _:
            events[at] = _DATA.sub(lambda found: b"data: " + _of_json(found[1], chance), events[at], count=1)
    return b"".join(events)


def _of_json(body: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body
    places: list[tuple[Any, Any]] = []
    _walk(value, places)
    if not places:
        return _written(chance.choice(_ODD))
    inside, key = chance.choice(places)
    other, name = chance.choice(places)
    match chance.randrange(7):
        case 0:
            del inside[key]
        case 1:
            inside[key] = other[name]
        case 2 if isinstance(inside, list):
            inside.insert(key, other[name])
        case 3 if isinstance(inside, dict):
            inside[str(name)] = inside.pop(key)
        case 4:
            inside[key] = [inside[key]]
        case 5 if isinstance(inside[key], str):
            inside[key] = inside[key] * chance.choice((2, 9)) + chance.choice(("", "\n", '"', "\\", "\u00e9"))
        case _:
            inside[key] = chance.choice(_ODD)
    return _written(value)


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        places.append((value, key))
        _walk(inner, places)


def _written(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # a value put into itself
        return b"{}"
