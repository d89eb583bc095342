"""Reads an upload as far as the demo needs it: the fields of a form, and how large its file is and how long it lasts.

It believes what it is given: the gateway has read the same bytes before, and strictly.
"""

from __future__ import annotations

import io
import re
import wave
from typing import Any, Final

import msgspec

_NAME: Final = re.compile(rb'[; ]name="([^"]*)"')
_NUMBERS: Final = frozenset({"n", "partial_images"})
# What is no WAV file is taken for one of this many bytes a second.
_RATE: Final = 16_000


def as_json(body: bytes) -> bytes:
    """The request that a form is, as JSON: its fields, and of its file `seconds` and nothing else."""
    first, _, _ = body.partition(b"\r\n")
    request: dict[str, Any] = {}
    for part in (b"\r\n" + body).split(b"\r\n" + first)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        found = _NAME.search(head)
        name = found[1].decode() if found else ""
        if b'filename="' in head:
            request["seconds"] = _seconds(value)
        elif name == "stream":
            request[name] = value == b"true"
        elif name in _NUMBERS:
            request[name] = int(value)
        else:
            request[name] = value.decode()
    return msgspec.json.encode(request)


def _seconds(data: bytes) -> float:
    try:
        with wave.open(io.BytesIO(data)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return len(data) / _RATE
