"""Which tier a request asks for, and which one its answer says that it was served at: one rule for every dialect.

A tier is any word but the plain ones; what it costs is the catalogue's to say. Whatever cannot be the name of a tier becomes
one that nothing prices, so that it is refused in a request and counted in an answer, and never taken for a plain one.
"""

from __future__ import annotations

import re
from typing import Final

from aurixel.dialects.json_fields import Fields, read_str

# What asks for nothing beside the plain price, in every family's words.
PLAIN_TIERS: Final = frozenset({"auto", "default", "standard", "standard_only"})
TIER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS: Final = ("service_tier", "speed")
_NAMELESS: Final = "?"


def tier_of(*said: object) -> str:
    """The tier that an upstream's words come to, "" for the plain one. Null and "" say nothing; two tiers at once are one
    of their own, `priority-fast`."""
    tiers = []
    for word in said:
        if word is None or word == "" or (isinstance(word, str) and word in PLAIN_TIERS):
            continue
        tiers.append(word if isinstance(word, str) and TIER_NAME.fullmatch(word) else _NAMELESS)
    return "-".join(tiers)


def asked_tier(fields: Fields, *names: str) -> str:
    """The tier that these fields of a request ask for, "" for the plain one."""
    asked = [read_str(fields, name) for name in names if name in fields]
    return tier_of(*[_NAMELESS if word == "" else word for word in asked])


def tier_fields(fields: Fields) -> tuple[str, ...]:
    """Of a request that asks for a tier: the fields that do so."""
    return tuple(name for name in _FIELDS if asked_tier(fields, name))
