"""Frozen values that travel between the rooms; they compute, and never do I/O.

Money is an `int` of nano-dollars everywhere (1 USD = 10**9); token counts are plain ints; instants are `int`
milliseconds since the epoch, UTC, and end in `_ms`; durations are `float` seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

Nanos: TypeAlias = int
NANOS_PER_USD: Final = 10**9
NANOS_PER_CENT: Final = NANOS_PER_USD // 100
# Amounts stay under this in every store and counter: two of them still add up inside a signed 64-bit integer.
MAX_NANOS: Final = 2**62 - 1

_USD = re.compile(r"-?0*(\d+)(\.\d{1,9})?", re.ASCII)
_MOST_DIGITS: Final = 18


def parse_usd(text: str) -> Nanos:
    """The nano-dollars in a decimal USD string such as `"10.00"`; `ValueError` if it is not exact to the nano-dollar."""
    found = _USD.fullmatch(text)
    if not found:
        raise ValueError("an amount in USD is digits with at most nine decimals, such as 10.00")
    if len(found[1]) > _MOST_DIGITS:
        raise ValueError("the amount is too large")
    try:
        nanos = int(Decimal(text).scaleb(9))
    except InvalidOperation as error:  # pragma: no cover - the pattern above leaves nothing for it
        raise ValueError("not an amount") from error
    if abs(nanos) > MAX_NANOS:
        raise ValueError("the amount is too large")
    return nanos


def format_usd(nanos: Nanos) -> str:
    """The exact decimal USD string of an amount: at least two decimals, no trailing zeros beyond them."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS_PER_USD)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


# The disjoint usage classes (design 4). `images` and `tool_calls` carry a qualifier after a dot: `tool_calls.web_search`,
# `images.1024x1024.hd`; a class of tokens the tier it was charged at, where that is not the plain one: `input.priority`.
USAGE_CLASSES: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output",
    "reasoning",
    "output_audio",
    "output_image",
    "images",
    "audio_seconds",
    "characters",
    "requests",
    "tool_calls",
)

Counts: TypeAlias = Mapping[str, int]
NO_COUNTS: Final[Counts] = MappingProxyType({})


class Usage(msgspec.Struct, frozen=True):
    """What one request consumed: class -> units, zero classes left out; `measured` by the upstream, or estimated by us.

    `guessed`: the classes that are estimates, where the others are not (the characters of a speech are known, its tokens
    are not); empty: all of them or none, as `measured` says. `tier`: the tier that the upstream says it was served at, where
    that is not the plain one; the classes of `counts` are the plain ones all the same.
    """

    counts: dict[str, int]
    measured: bool = True
    guessed: frozenset[str] = frozenset()
    tier: str = ""

    def certain(self, counts: Counts) -> bool:
        """Whether these classes of it are no estimates."""
        return self.measured or (bool(self.guessed) and self.guessed.isdisjoint(counts))


class Secret:
    """A string that prints nothing: for keys and tokens in memory. `reveal()` at the one place that sends it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


# The limit of a key that the gateway itself keeps: nothing of a request may be lost in a translation.
STRICT_LIMIT: Final = "strict"


class Principal(msgspec.Struct, frozen=True):
    """Who calls: the account, the key, and the limits the key carries (name -> value, as the enforcing check parsed them)."""

    account: str
    key_id: str
    limits: Mapping[str, Any] = MappingProxyType({})


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy check may know of a request: metadata only. `tokens` is the upper bound the hold is sized by."""

    request_id: str
    operation: str
    dialect: str
    model: str
    stream: bool
    client_ip: str
    at_ms: int
    tokens: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a checked request ended: `ending` is a cell of the settlement matrix or the code it was refused with."""

    request_id: str
    ending: str
    usage: Usage | None = None
    cost: Nanos = 0


class RequestFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A request is over and recorded: metadata only, for `observe`. `seconds` from first header to last byte."""

    request_id: str
    account: str
    key_id: str
    model: str
    upstream: str
    dialect: str
    stream: bool
    ending: str
    status: int
    cost: Nanos
    counts: Mapping[str, int]
    seconds: float


class UpstreamAttempted(msgspec.Struct, frozen=True, kw_only=True):
    """One try at one upstream is over: `status` 0 where none came; `code` is empty for success."""

    request_id: str
    upstream: str
    model: str
    status: int
    code: str
    seconds: float


Event: TypeAlias = RequestFinished | UpstreamAttempted
