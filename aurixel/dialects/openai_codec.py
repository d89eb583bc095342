"""What the codecs of both chat dialects of the OpenAI family read and write alike."""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.dialects.json_fields import wrong
from aurixel.plugin.canonical import Effort

# A budget of thinking, in tokens, below which it is little or middling effort.
LOW_BUDGET: Final = 2048
MEDIUM_BUDGET: Final = 8192
# What a tool of free text takes as a function.
FREE_TEXT: Final = msgspec.Raw(b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}')


def effort_of(budget: int) -> Effort:
    """The word for a budget of thinking."""
    return "low" if budget < LOW_BUDGET else "medium" if budget < MEDIUM_BUDGET else "high"


def data_url_parts(url: str, field: str) -> tuple[str, str]:
    """The media type and the base64 of a data URL in a field of that name."""
    comma = url.find(",", 0, 256)
    media_type, *options = url[5 : max(comma, 5)].lower().split(";")
    if comma < 0 or not media_type or options[-1:] != ["base64"]:
        raise wrong(field, "a list in which each data URL has a type and base64")
    return media_type, url[comma + 1 :]
