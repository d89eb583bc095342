"""What usage costs: integer nano-dollars, one rounding, and a named refusal for what has no price. No I/O, no clock.

A rate is nano-dollars per **million** units of a usage class, so that every price of a price list is an exact integer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aurixel.dialects.tiers import TIER_NAME
from aurixel.errors import AurixelError
from aurixel.values import USAGE_CLASSES, Counts, Nanos

PER_MILLION: Final = 1_000_000
# A class without a rate of its own is charged at the first of these that has one. Audio, output images, pictures, tools,
# seconds, characters and requests have no such neighbour: without a rate they are refused.
FALLBACKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "cache_read": ("input",),
        "cache_write_5m": ("input",),
        "cache_write_1h": ("cache_write_5m", "input"),
        "input_image": ("input",),
        "reasoning": ("output",),
    }
)
# Usage that nobody asked for, in one of those classes, is charged at its side's plain price once an upstream has reported it.
STAND_INS: Final[Mapping[str, str]] = MappingProxyType(
    {"input_audio": "input", "output_audio": "output", "output_image": "output"}
)
# What a token of either side of a request can be counted as.
INPUT_SIDE: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "input_image", "input_audio")
OUTPUT_SIDE: Final = ("output", "reasoning", "output_audio", "output_image")
# These may carry the tier that they are charged at, `input.priority`; a rate of the plain tier never holds for them.
TOKENS: Final = (*INPUT_SIDE, *OUTPUT_SIDE)
# Classes that may carry a qualifier: `tool_calls.web_search`, `images.1024x1024.hd`. A rate without one holds for all.
QUALIFIED: Final = frozenset({"images", "tool_calls"})


# What a model of such an operation may be priced by instead of tokens. Where a price has any of it, tokens are not charged;
# where it has none, such units are not.
UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {"images": "images", "speech": "characters", "transcription": "audio_seconds", "moderation": "requests"}
)
# The size and the quality of a picture that leaves them to the upstream.
AUTO: Final = "auto"
# What is charged beside either.
_BESIDE: Final = ("requests", "tool_calls")


class Unpriced(AurixelError):
    """Usage was reported in classes that have no price: `classes` names them, `priced` is the charge for the others."""

    def __init__(self, classes: frozenset[str], priced: Nanos) -> None:
        super().__init__(f"no price for {', '.join(sorted(classes))}")
        self.classes, self.priced = classes, priced


class PriceBook(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of one model from `effective_ms` on: `rates` maps a usage class to nanos per million units.

    `version` is the catalogue version that charges name. `lookup` is `rates` with the fallbacks filled in; `dearest_input`
    and `dearest_output` are the highest rates that a token of either side can turn out to have at the plain tier. `tiers`:
    those that are priced, each with an input and an output of its own.
    """

    version: int
    effective_ms: int
    rates: Mapping[str, int]
    lookup: Mapping[str, int] = {}
    dearest_input: int = 0
    dearest_output: int = 0
    tiers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        lookup = dict(self.rates)
        tiers = {tier for base, _, tier in (name.partition(".") for name in self.rates) if tier and base in TOKENS}
        for suffix in ("", *(f".{tier}" for tier in tiers)):
            for name, others in FALLBACKS.items():
                at = (f"{other}{suffix}" for other in others)
                if (
                    name + suffix not in lookup
                    and (rate := next((lookup[each] for each in at if each in lookup), None)) is not None
                ):
                    lookup[name + suffix] = rate
        whole = frozenset(tier for tier in tiers if not self.missing_at(tier))
        msgspec.structs.force_setattr(self, "tiers", whole)
        msgspec.structs.force_setattr(self, "lookup", lookup)
        for field, side in (("dearest_input", INPUT_SIDE), ("dearest_output", OUTPUT_SIDE)):
            msgspec.structs.force_setattr(self, field, max((lookup.get(name, 0) for name in side), default=0))

    def charge(self, counts: Counts) -> Nanos:
        """Nano-dollars for `counts`: the sum over the classes, rounded up once. Nothing is ever silently free.

        `Unpriced` names the classes without a price; `ValueError` for a negative count (an adapter's bug).
        """
        total, lookup = 0, self.lookup
        unpriced: list[str] = []
        for name, units in counts.items():
            if units < 0:
                raise ValueError(f"a negative count of {name}")
            rate = lookup.get(name)
            if rate is None:
                rate = self._general(name)
                if rate is None:
                    if units:
                        unpriced.append(name)
                    continue
            total += units * rate
        nanos = -(-total // PER_MILLION)
        if unpriced:
            raise Unpriced(frozenset(unpriced), nanos)
        return nanos

    def charge_at_most(self, counts: Counts) -> Nanos:
        """As `charge`, with pictures whose size or quality is left to the upstream at the dearest that it may choose."""
        charged = self.charge(counts)
        for name, count in counts.items():
            if (dearest := self._dearest_picture(name)) is not None:
                charged = max(charged, -(-count * dearest // PER_MILLION))
        return charged

    def by_units(self, operation: str) -> bool:
        """Whether a model of this operation is priced by its units (images, characters, seconds) and not by tokens."""
        return priced_by_units(operation, self.rates)

    def charged(self, operation: str, usage: Counts) -> Counts:
        """Of what was used, the classes that this model is priced by."""
        unit = UNITS.get(operation)
        if unit is None:
            return usage
        by_units = self.by_units(operation)
        kept = {}
        for name, count in usage.items():
            base = name.partition(".")[0]
            if base in _BESIDE or (base == unit) == by_units:
                kept[name] = count
        return kept

    def settle(self, usage: Counts, tier: str = "") -> tuple[dict[str, int], Nanos, bool]:
        """The counts a request that used this is recorded with, its charge, and whether something in it had no price.

        What nobody asked for and has no price is charged as its stand-in, or not at all, and is counted as that. Tokens are
        charged at `tier` where it is priced, else at the plain one.
        """
        counts = {name: count for name, count in usage.items() if count}
        surprised = False
        if tier in self.tiers:
            counts = {f"{name}.{tier}" if name in TOKENS else name: count for name, count in counts.items()}
        elif tier:
            surprised = any(name in TOKENS for name in counts)
        if self.rates.get("requests"):
            counts["requests"] = 1
        try:
            return counts, self.charge(counts), surprised
        except Unpriced as surprise:
            for name in surprise.classes:
                count = counts.pop(name)
                if stand_in := self._stand_in(name):
                    counts[stand_in] = counts.get(stand_in, 0) + count
            return counts, self.charge(counts), True

    def exactly(self, counts: Counts) -> Nanos:
        """As `charge`, with no class at its neighbour's rate: `Unpriced` for what has no rate of its own."""
        if missing := self.missing(name for name, count in counts.items() if count):
            raise Unpriced(missing, 0)
        return self.charge(counts)

    def rate(self, name: str) -> int | None:
        """Nanos per million units as they are charged, fallbacks included; None: unpriced."""
        found = self.lookup.get(name)
        return found if found is not None else self._general(name)

    def prices(self, name: str) -> bool:
        """Whether the class has a rate of its own: not a fallback, though `tool_calls` prices `tool_calls.web_search`."""
        return name in self.rates or self._general(name) is not None

    def missing(self, needs: Iterable[str]) -> frozenset[str]:
        """Those of `needs` that have no rate of their own."""
        return frozenset(name for name in needs if not self.prices(name))

    def missing_at(self, tier: str, needs: Iterable[str] = ()) -> frozenset[str]:
        """What has no rate of its own at that tier, of plain input and output and the tokens among `needs`: as `missing`."""
        return self.missing(f"{name}.{tier}" for name in {"input", "output", *needs} if name in TOKENS)

    def dearest(self, tier: str = "") -> tuple[int, int]:
        """The highest rates that a token of the input and of the output can turn out to have where `tier` was asked for."""
        if not tier:
            return self.dearest_input, self.dearest_output
        of_input, of_output = (max(self.lookup.get(f"{name}.{tier}", 0) for name in side) for side in (INPUT_SIDE, OUTPUT_SIDE))
        return max(self.dearest_input, of_input), max(self.dearest_output, of_output)

    def _stand_in(self, name: str) -> str | None:
        """As what usage in a class without a price is charged; None: not at all. It stays at a tier that has prices."""
        base, _, tier = name.partition(".")
        if base not in TOKENS:
            return None
        side = STAND_INS.get(base, base)
        others = (f"{side}.{tier}",) if tier in self.tiers else (base, side)
        return next((other for other in others if self.rate(other) is not None), None)

    def _dearest_picture(self, name: str) -> int | None:
        """The highest rate of any picture that `name` leaves open; None where it leaves nothing open."""
        base, *asked = name.split(".")
        if base != "images" or AUTO not in asked:
            return None
        return max(
            rate
            for known, rate in self.rates.items()
            if known.partition(".")[0] == base
            and all(mine in (AUTO, theirs) for mine, theirs in zip(asked, known.split(".")[1:], strict=False))
        )

    def _general(self, name: str) -> int | None:
        """The rate of a qualified class under a shorter name: `images.1024x1024.hd`, then `images.1024x1024`, then `images`."""
        if name.partition(".")[0] not in QUALIFIED:
            return None
        while name:
            if (rate := self.rates.get(name)) is not None:
                return rate
            name = name.rpartition(".")[0]
        return None


class Timeline(msgspec.Struct, frozen=True):
    """One model's price books, oldest first."""

    starts: tuple[int, ...]
    books: tuple[PriceBook, ...]

    @classmethod
    def of(cls, books: Iterable[PriceBook]) -> Timeline:
        """Books in any order, each with an `effective_ms` of its own."""
        ordered = tuple(sorted(books, key=lambda book: book.effective_ms))
        return cls(tuple(book.effective_ms for book in ordered), ordered)

    def at(self, at_ms: int) -> PriceBook | None:
        """The latest book in effect at that instant; None before the first."""
        if at_ms >= self.starts[-1]:
            return self.books[-1]
        index = bisect_right(self.starts, at_ms)
        return self.books[index - 1] if index else None


def priced_by_units(operation: str, classes: Iterable[str]) -> bool:
    """Whether a price that has these classes is one by the units of the operation."""
    unit = UNITS.get(operation)
    return unit is not None and any(name.partition(".")[0] == unit for name in classes)


def known_class(name: str) -> bool:
    """Whether `name` is a usage class, qualified where it may be."""
    base, dot, rest = name.partition(".")
    if base in TOKENS:
        return not dot or TIER_NAME.fullmatch(rest) is not None
    return base in USAGE_CLASSES and (not dot or (base in QUALIFIED and bool(rest)))
