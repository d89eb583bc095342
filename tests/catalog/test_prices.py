"""What usage costs: golden amounts worked out by hand, and properties against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.catalog import PriceBook, Timeline, Unpriced, known_class, parse_prices
from aurixel.catalog.prices import FALLBACKS, TOKENS
from aurixel.catalog.snapshot import Route, StoredModel
from aurixel.tomlfile import TomlFile
from aurixel.values import USAGE_CLASSES

# Rates, read as an operator writes them.
PRICES = """
[[price]]
model = "openai-like"
effective = 2026-01-01
input = "0.15"
cache_read = "0.075"
output = "0.60"
input_audio = "10.00"
output_audio = "20.00"
output_image = "32"
requests = "0.0001"
tool_calls.web_search = "0.01"

[[price]]
model = "anthropic-like"
effective = 2026-01-01
input = "3.00"
cache_read = "0.30"
cache_write_5m = "3.75"
cache_write_1h = "6.00"
output = "15.00"
tool_calls = "0.02"

[[price]]
model = "media"
effective = 2026-01-01
images = [{ size = "1024x1024", quality = "hd", usd = "0.08" }, { size = "1024x1024", usd = "0.04" }]
characters = "15"
audio_seconds = "0.0001"

[[price]]
model = "tiered"
effective = 2026-01-01
input = "2.00"
cache_read = "0.20"
output = "8.00"
input_audio = "40.00"
output_audio = "80.00"
tiers.priority = { input = "3.50", cache_read = "0.875", output = "14.00" }
tiers.flex = { input = "1.00", output = "4.00", reasoning = "5.00" }

[[price]]
model = "dust"
effective = 2026-01-01
input = "0.000000001"
output = "0"
"""


def _model() -> StoredModel:
    return StoredModel(operations=[], context=1000, max_output=100, routes=[Route("x", "y")])


def book(name: str) -> PriceBook:
    models = {price: _model() for price in ("openai-like", "anthropic-like", "media", "tiered", "dust")}
    models["tiered"].operations.append("chat")
    (rates,) = (price.rates for price in parse_prices(TomlFile("prices.toml", PRICES), models)[0] if price.model == name)
    return PriceBook(version=1, effective_ms=0, rates=rates)


# (price list, counts, nano-dollars): each class alone, then whole requests in both families' shapes.
GOLDEN = [
    ("openai-like", {"input": 1}, 150),
    ("openai-like", {"cache_read": 1}, 75),
    ("openai-like", {"output": 1}, 600),
    ("openai-like", {"reasoning": 1}, 600),  # as output
    ("openai-like", {"input_image": 1}, 150),  # as input
    ("openai-like", {"cache_write_5m": 1}, 150),  # as input
    ("openai-like", {"input_audio": 1}, 10_000),
    ("openai-like", {"output_audio": 1}, 20_000),
    ("openai-like", {"output_image": 1}, 32_000),
    ("openai-like", {"requests": 1}, 100_000),
    ("openai-like", {"tool_calls.web_search": 1}, 10_000_000),
    (
        "openai-like",
        {
            "input": 1_000,  # 150,000
            "cache_read": 2_000,  # 150,000
            "input_audio": 10,  # 100,000
            "output": 300,  # 180,000
            "reasoning": 500,  # 300,000
            "output_audio": 7,  # 140,000
            "requests": 1,  # 100,000
            "tool_calls.web_search": 2,  # 20,000,000
        },
        21_120_000,
    ),
    ("anthropic-like", {"input": 1}, 3_000),
    ("anthropic-like", {"cache_read": 1}, 300),
    ("anthropic-like", {"cache_write_5m": 1}, 3_750),
    ("anthropic-like", {"cache_write_1h": 1}, 6_000),
    ("anthropic-like", {"output": 1}, 15_000),
    ("anthropic-like", {"reasoning": 1}, 15_000),
    ("anthropic-like", {"tool_calls.web_search": 1}, 20_000_000),  # the rate of all tools
    ("anthropic-like", {"input": 7, "cache_read": 10, "cache_write_5m": 4, "cache_write_1h": 2, "output": 3}, 96_000),
    ("media", {"images.1024x1024.hd": 2}, 160_000_000),
    ("media", {"images.1024x1024.low": 1}, 40_000_000),  # by size, whatever the quality
    ("media", {"images.1024x1024": 1}, 40_000_000),
    ("media", {"characters": 11}, 165_000),
    ("media", {"audio_seconds": 61}, 6_100_000),
    ("tiered", {"input.priority": 1}, 3_500),
    ("tiered", {"cache_read.priority": 1}, 875),
    ("tiered", {"cache_write_1h.priority": 1}, 3_500),  # as the tier's input
    ("tiered", {"output.priority": 1, "reasoning.priority": 1}, 28_000),
    ("tiered", {"cache_read.flex": 1}, 1_000),  # as the tier's input, not as the plain cache
    ("tiered", {"input.flex": 1, "output.flex": 1, "reasoning.flex": 1}, 10_000),
    ("dust", {"input": 1}, 1),  # rounded up
    ("dust", {"input": 1_000_000}, 1),
    ("dust", {"input": 2_000_001}, 3),
    ("dust", {"input": 1, "cache_read": 1}, 1),  # rounded once, not once a class
    ("dust", {"output": 10**9}, 0),  # priced, at nothing
    ("dust", {}, 0),
]


@pytest.mark.parametrize(("name", "counts", "nanos"), GOLDEN)
def test_golden_charges(name: str, counts: dict[str, int], nanos: int) -> None:
    assert book(name).charge(counts) == nanos


def test_every_usage_class_has_a_golden_price() -> None:
    """Pitfall 11: no class of any modality can be forgotten, and so be free."""
    assert {counted.partition(".")[0] for _, counts, _ in GOLDEN for counted in counts} == set(USAGE_CLASSES)


@pytest.mark.parametrize("name", ["input_audio", "output_audio", "output_image", "images.9x9", "audio_seconds", "characters"])
def test_a_class_without_a_price_is_refused_by_name_and_never_free(name: str) -> None:
    """Pitfall 11."""
    with pytest.raises(Unpriced) as refused:
        book("anthropic-like").charge({"input": 1, name: 1, "tool_calls.x": 1})
    assert refused.value.classes == {name}
    assert refused.value.priced == 20_003_000


@pytest.mark.parametrize(
    "name", ["inputs", "input.", "input.x.y", "characters.fast", "", ".", "images2", "requests.x", "tool_call.web_search"]
)
def test_an_unknown_class_is_refused(name: str) -> None:
    assert not known_class(name)
    with pytest.raises(Unpriced):
        book("openai-like").charge({name: 1})


# (tier, what an upstream reports, what is recorded, nano-dollars, whether it is a surprise)
SERVED = [
    ("", {"input": 10, "cache_read": 4, "output": 2}, {"input": 10, "cache_read": 4, "output": 2}, 36_800, False),
    (
        "priority",
        {"input": 10, "cache_read": 4, "output": 2},
        {"input.priority": 10, "cache_read.priority": 4, "output.priority": 2},
        66_500,
        False,
    ),
    ("flex", {"cache_write_5m": 3, "reasoning": 2}, {"cache_write_5m.flex": 3, "reasoning.flex": 2}, 13_000, False),
    ("batch", {"input": 10, "cache_read": 4, "output": 2}, {"input": 10, "cache_read": 4, "output": 2}, 36_800, True),
    ("batch", {"input": 0}, {}, 0, False),
    ("priority", {"input_audio": 3, "output_audio": 2}, {"input.priority": 3, "output.priority": 2}, 38_500, True),
    ("priority", {"output_image": 2, "tool_calls.x": 1}, {"output.priority": 2}, 28_000, True),
    (
        "",
        {"input.gone": 5, "cache_read.gone": 5, "input_audio.gone": 1},
        {"input": 5, "cache_read": 5, "input_audio": 1},
        51_000,
        True,
    ),
]


@pytest.mark.parametrize(("tier", "usage", "counts", "nanos", "surprised"), SERVED)
def test_usage_is_charged_at_its_tier_and_never_by_a_plain_price_where_the_tier_has_any(
    tier: str, usage: dict[str, int], counts: dict[str, int], nanos: int, surprised: bool
) -> None:
    assert book("tiered").settle(usage, tier) == (counts, nanos, surprised)


def test_a_tier_that_is_asked_for_needs_prices_of_its_own() -> None:
    tiered = book("tiered")
    assert tiered.tiers == {"priority", "flex"}
    assert tiered.missing_at("priority", {"cache_read", "tool_calls.x"}) == frozenset()
    assert tiered.missing_at("flex", {"cache_read"}) == {"cache_read.flex"}
    assert tiered.missing_at("batch") == {"input.batch", "output.batch"}
    half = PriceBook(version=1, effective_ms=0, rates={"input": 1, "output": 1, "input.fast": 2})
    assert half.tiers == frozenset()
    assert half.settle({"input": 1_000_000}, "fast") == ({"input": 1_000_000}, 1, True)


def test_the_dearest_of_a_tier_is_never_below_that_of_the_plain_one() -> None:
    tiered = book("tiered")
    assert tiered.dearest() == (40_000_000_000, 80_000_000_000)
    assert tiered.dearest("priority") == tiered.dearest("flex") == tiered.dearest()
    small = PriceBook(
        version=1, effective_ms=0, rates={"input": 2, "output": 3, "input.fast": 5, "output.fast": 7, "input.slow": 1}
    )
    assert (small.dearest(), small.dearest("fast"), small.dearest("slow")) == ((2, 3), (5, 7), (2, 3))


def test_a_negative_count_is_a_bug_and_not_a_credit() -> None:
    with pytest.raises(ValueError, match="negative"):
        book("openai-like").charge({"output": 1_000, "input": -1})


def test_classes_that_a_request_may_incur_need_prices_of_their_own() -> None:
    """Pitfall 10: a fallback is for what an upstream reports unasked, not for what the client asked for."""
    needs = {"cache_write_5m", "tool_calls.web_search", "cache_read"}
    assert book("openai-like").missing(needs) == {"cache_write_5m"}
    assert book("anthropic-like").missing(needs) == frozenset()
    assert book("dust").missing(needs) == needs
    assert book("dust").rate("cache_read") == 1
    assert book("dust").rate("tool_calls.web_search") is None


def test_a_longer_cache_write_falls_back_to_the_shorter_one_first() -> None:
    both = PriceBook(version=1, effective_ms=0, rates={"input": 1, "cache_write_5m": 2})
    assert both.rate("cache_write_1h") == 2
    assert PriceBook(version=1, effective_ms=0, rates={"input": 1}).rate("cache_write_1h") == 1


def test_the_price_of_an_instant_is_the_latest_one_in_effect() -> None:
    books = [PriceBook(version=3, effective_ms=at, rates={"input": at}) for at in (300, 100, 200)]
    line = Timeline.of(books)
    assert [found.effective_ms if (found := line.at(at)) else None for at in (0, 99, 100, 199, 200, 299, 300, 10**15)] == [
        None,
        None,
        100,
        100,
        200,
        200,
        300,
        300,
    ]


# --- properties -------------------------------------------------------------------------------------------------------

NAMES = [name for name in USAGE_CLASSES if name not in ("images", "tool_calls")]
NAMES += [
    f"{name}.{tier}"
    for name in ("input", "cache_read", "cache_write_1h", "output", "output_audio")
    for tier in ("fast", "slow")
]
NAMES += ["images", "images.1x1", "images.1x1.hd", "tool_calls", "tool_calls.search"]
books = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**18), max_size=8).map(
    lambda rates: PriceBook(version=1, effective_ms=0, rates=rates)
)
counted = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**12), max_size=8)


def priced(book: PriceBook, counts: dict[str, int]) -> dict[str, int]:
    return {name: units for name, units in counts.items() if book.rate(name) is not None}


def exactly(book: PriceBook, counts: dict[str, int]) -> Fraction:
    """The charge before rounding, found without the code under test: own rate, shorter name, or fallback, in that order."""
    total = Fraction(0)
    for name, units in counts.items():
        names = [name]
        while "." in names[-1]:
            names.append(names[-1].rpartition(".")[0])
        base, dot, tier = name.partition(".")
        if base in TOKENS:
            names = [name, *(f"{other}{dot}{tier}" for other in FALLBACKS.get(base, ()))]
        rate = next(book.rates[each] for each in names if each in book.rates)
        total += Fraction(units * rate, 1_000_000)
    return total


@given(books, counted)
def test_a_charge_is_the_exact_sum_rounded_up_once(book: PriceBook, counts: dict[str, int]) -> None:
    counts = priced(book, counts)
    assert book.charge(counts) == ceil(exactly(book, counts))


@given(books, counted)
def test_a_charge_is_never_negative_and_nothing_priced_above_zero_is_free(book: PriceBook, counts: dict[str, int]) -> None:
    counts = priced(book, counts)
    charge = book.charge(counts)
    assert charge >= 0
    assert (charge == 0) == all(units == 0 or book.rate(name) == 0 for name, units in counts.items())


@given(books, counted, counted)
def test_more_usage_never_costs_less_and_parts_cost_no_less_than_the_whole(
    book: PriceBook, one: dict[str, int], two: dict[str, int]
) -> None:
    one, two = priced(book, one), priced(book, two)
    whole = {name: one.get(name, 0) + two.get(name, 0) for name in one.keys() | two.keys()}
    parts = book.charge(one) + book.charge(two)
    assert book.charge(one) <= book.charge(whole)
    assert parts - 1 <= book.charge(whole) <= parts


@given(books, counted)
def test_what_has_no_price_is_named_and_the_rest_is_charged(book: PriceBook, counts: dict[str, int]) -> None:
    bare = {name for name, units in counts.items() if units and book.rate(name) is None}
    if not bare:
        assert book.charge(counts) == book.charge(priced(book, counts))
        return
    with pytest.raises(Unpriced) as refused:
        book.charge(counts)
    assert refused.value.classes == bare
    assert refused.value.priced == book.charge(priced(book, counts))


@given(books, counted)
def test_what_is_recorded_of_a_settled_request_costs_what_it_was_charged(book: PriceBook, usage: dict[str, int]) -> None:
    usage.pop("requests", None)  # no upstream reports it: a request is one
    counts, charge, surprised = book.settle(usage)
    assert book.charge(counts) == charge
    assert all(counts.values())
    assert ("requests" in counts) == bool(book.rates.get("requests"))
    assert surprised == any(units and book.rate(name) is None for name, units in usage.items())
    again = {name: units for name, units in counts.items() if name != "requests"}
    assert book.settle(again)[:2] == (counts, charge)


plain = st.dictionaries(st.sampled_from([*TOKENS, "tool_calls.search"]), st.integers(0, 10**12), max_size=8)


@given(books, plain, st.sampled_from(["", "fast", "slow", "unheard-of"]))
def test_what_is_served_at_a_tier_costs_what_is_recorded_and_no_token_leaves_the_tier(
    book: PriceBook, usage: dict[str, int], tier: str
) -> None:
    counts, charge, surprised = book.settle(usage, tier)
    assert book.charge(counts) == charge
    tokens = {name: count for name, count in counts.items() if name.partition(".")[0] in TOKENS}
    if tier and tier not in book.tiers:
        assert surprised == (any(usage.get(name) for name in TOKENS) or book.settle(usage)[2])
        assert (counts, charge) == book.settle(usage)[:2]
    else:
        assert all(name.partition(".")[2] == tier for name in tokens)
    again = {name: units for name, units in counts.items() if name != "requests"}
    assert book.settle(again)[:2] == (counts, charge)
    if tier in book.tiers:  # a whole tier has something to charge every token by
        assert sum(tokens.values()) == sum(count for name, count in usage.items() if name in TOKENS)
