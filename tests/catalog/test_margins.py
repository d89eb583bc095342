"""Costs of upstreams, margins, and usage at other prices: exact where it is known, said where it is not."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.catalog import Margins, PriceBook, Repricing, StoredCatalogue, Unknown, Unpriced, parse_files, preview
from aurixel.catalog.margins import By
from aurixel.catalog.snapshot import decode
from aurixel.errors import ConfigFaults
from aurixel.storage import UsageRecord
from aurixel.tomlfile import TomlFile
from tests.storage.samples import record

DAY_MS = 86_400_000
START = 1_767_225_600_000  # 2026-01-01
MODELS = """
[models.small]
operations = ["chat"]
context = 1000
max_output = 100
routes = [{ upstream = "a", model = "s" }, { upstream = "b", model = "s" }]
"""
PRICES = """
[[price]]
model = "small"
effective = 2026-01-01
input = "1.00"
output = "4.00"
requests = "0.01"
tool_calls.web_search = "0.02"
"""
COSTS = """
[[cost]]
model = "small"
effective = 2026-01-01
input = "0.50"
output = "2.00"

[[cost]]
model = "small"
upstream = "b"
effective = 2026-01-02
input = "0.25"
output = "1.00"
cache_read = "0.10"
requests = "0.001"
tool_calls = "0.01"
"""


def stored(prices: str = PRICES + COSTS) -> StoredCatalogue:
    return parse_files(TomlFile("models.toml", MODELS), TomlFile("prices.toml", prices))


def used(upstream: str = "a", day: int = 0, cost: int = 10, **more: object) -> UsageRecord:
    counts = more.pop("counts", {"input": 1_000, "output": 100})
    return record(f"r{next(_numbers)}", cost, upstream=upstream, at_ms=START + day * DAY_MS, counts=counts, **more)


_numbers = iter(range(10**9))


def margins(*records: UsageRecord, by: By = "model") -> Margins:
    found = Margins(preview(stored(), START), by)
    found.add(records)
    return found


# --- the file -----------------------------------------------------------------------------------------------------------


def test_costs_are_kept_and_read_back() -> None:
    catalogue = stored()
    assert [(cost.upstream, cost.rates["input"]) for cost in catalogue.costs] == [("", 500_000_000), ("b", 250_000_000)]
    assert decode(msgspec.json.encode(catalogue)) == catalogue


def test_a_catalogue_from_before_there_were_costs_has_none() -> None:
    old = msgspec.to_builtins(stored())
    del old["costs"]
    assert decode(msgspec.json.encode(old)).costs == []


@pytest.mark.parametrize(
    ("cost", "place", "words"),
    [
        ("model = 'smal'\neffective = 2026-01-01\ninput = '1'", "prices.toml:11", "there is no model 'smal'"),
        ("model = 'small'\ninput = '1'", "prices.toml:10", "'effective' is missing"),
        ("model = 'small'\neffective = 2026-01-01", "prices.toml:10", "a cost says what at least one class costs"),
        ("model = 'small'\neffective = 2026-01-01\ninput = 1", "prices.toml:13", "must be a string in quotes"),
        ("model = 'small'\neffective = 2026-01-01\ninput = '1'\nupstream = ''", "prices.toml:14", "must be a name"),
        ("model = 'small'\neffective = 2026-01-01\ninput = '1'\nupstreem = 'a'", "prices.toml:14", "unknown key 'upstreem'"),
        ("model = 'small'\neffective = 2026-01-01\ninput = '-1'", "prices.toml:13", "is negative"),
    ],
)
def test_what_is_wrong_with_a_cost_is_told_with_its_line(cost: str, place: str, words: str) -> None:
    with pytest.raises(ConfigFaults) as refused:
        stored(f"{PRICES}\n[[cost]]\n{cost}\n")
    (fault,) = refused.value.faults
    assert fault.place == place
    assert words in fault.message


def test_two_costs_of_one_upstream_from_one_instant_on_are_one_too_many() -> None:
    stored(PRICES + COSTS + COSTS.replace("2026-01-0", "2026-02-0"))
    with pytest.raises(ConfigFaults) as refused:
        stored(PRICES + COSTS + COSTS)
    assert [fault.message for fault in refused.value.faults] == ["'small' has two costs from the same instant on"] * 2


# --- margins ------------------------------------------------------------------------------------------------------------


def test_the_cost_is_that_of_the_upstream_at_the_instant_or_else_of_any() -> None:
    at = preview(stored(), START).cost

    def rate(upstream: str, day: int) -> int | None:
        book = at("small", upstream, START + day * DAY_MS)
        return book.rates["input"] if book else None

    assert [rate("a", -1), rate("a", 0), rate("a", 9)] == [None, 500_000_000, 500_000_000]
    assert [rate("b", 0), rate("b", 1)] == [500_000_000, 250_000_000]
    assert at("large", "a", START) is None


def test_revenue_cost_and_margin() -> None:
    found = margins(used("a", cost=2_000_000), used("b", 1, cost=3_000_000))
    line = found.lines["small"]
    # a: 1000 * 0.50 + 100 * 2.00 per million; b: 1000 * 0.25 + 100 * 1.00 per million, and 0.001 for the request
    assert (line.requests, line.revenue, line.cost) == (2, 5_000_000, 700_000 + 350_000 + 1_000_000)
    assert line.margin == 5_000_000 - line.cost
    assert line == found.total
    assert found.unknown == {}


def test_what_customers_pay_for_a_request_is_no_cost() -> None:
    counts = {"input": 1_000, "output": 100, "requests": 1}
    assert margins(used("a", counts=counts)).total.cost == 700_000
    assert margins(used("b", 1, counts=counts)).total.cost == 1_350_000


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (used("a", -1), Unknown("small", "a", "")),
        (used("a", model="large"), Unknown("large", "a", "")),
        (used("a", counts={"input": 1, "cache_read": 5}), Unknown("small", "a", "cache_read")),  # not as input: no guess
        (used("a", counts={"tool_calls.x": 1, "reasoning": 2}), Unknown("small", "a", "reasoning, tool_calls.x")),
        (used("a", cost=0, counts={}, cell="client_gone"), Unknown("small", "a", "counts")),
        (used("a", cost=0, counts={}, cell="timeout_first_byte"), Unknown("small", "a", "counts")),
        (used("", cost=0, counts={}, cell="crash"), Unknown("small", "", "counts")),
    ],
)
def test_what_is_not_known_is_counted_and_in_no_sum(one: UsageRecord, why: Unknown) -> None:
    known = used("a")
    found = margins(known, one)
    total = found.total
    assert found.unknown == {why: 1}
    assert (total.requests, total.unknown) == (2, 1)
    assert (total.revenue, total.unknown_revenue) == (known.cost + one.cost, one.cost)
    assert (total.cost, total.margin) == (700_000, known.cost - 700_000)


@pytest.mark.parametrize(
    "one",
    [
        used("", cost=0, counts={}, cell="refused"),
        used("a", cost=0, counts={}, cell="refused"),
        used("", cost=0, counts={}, cell="client_gone"),
        used("b", 1, cost=0, counts={"cache_read": 0, "tool_calls.x": 0}, cell="ok"),
    ],
)
def test_what_no_upstream_bills_costs_nothing(one: UsageRecord) -> None:
    found = margins(one)
    assert found.unknown == {}
    assert found.total.cost == (1_000_000 if one.counts else 0)  # b takes something for each request


def test_lines_by_model_day_and_key() -> None:
    records = [used("a", 0), used("a", 1, model="large", key_id="k2"), used("a", 1)]
    assert {by: sorted(margins(*records, by=by).lines) for by in ("model", "day", "key")} == {
        "model": ["large", "small"],
        "day": ["2026-01-01", "2026-01-02"],
        "key": ["k1", "k2"],
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 2), st.integers(0, 10**6), st.integers(0, 10**6))))
def test_lines_add_up_to_the_total_and_costs_are_exact(requests: list[tuple[str, int, int, int]]) -> None:
    records = [used(up, day, cost, counts={"input": n} if n else {}, cell="ok") for up, day, n, cost in requests]
    found = margins(*records, by="day")
    for field in ("requests", "revenue", "cost", "unknown", "unknown_revenue", "margin"):
        assert sum(getattr(line, field) for line in found.lines.values()) == getattr(found.total, field)
    exact = Fraction(0)
    for up, day, n, _ in requests:
        if day >= 0 and n:
            own = up == "b" and day >= 1
            exact += Fraction(n * (250 if own else 500)) + (1_000_000 if own else 0)
    assert exact <= found.total.cost < exact + len(records) + 1
    assert sum(found.unknown.values()) == found.total.unknown


def test_exactly_has_no_neighbours() -> None:
    book = PriceBook(version=1, effective_ms=0, rates={"input": 1_000_000, "tool_calls": 5_000_000})
    assert book.exactly({"input": 3, "tool_calls.x": 1, "output": 0}) == 8
    with pytest.raises(Unpriced) as refused:
        book.exactly({"input": 3, "cache_read": 1, "output": 2})
    assert refused.value.classes == {"cache_read", "output"}
    assert book.charge({"cache_read": 1}) == 1


def test_what_a_tier_costs_is_never_guessed_from_the_plain_one() -> None:
    book = PriceBook(version=1, effective_ms=0, rates={"input": 1_000_000, "output": 1_000_000, "input.fast": 3_000_000})
    assert book.exactly({"input.fast": 3, "input": 2}) == 11
    with pytest.raises(Unpriced) as refused:
        book.exactly({"input.fast": 3, "output.fast": 1, "cache_read.fast": 1})
    assert refused.value.classes == {"output.fast", "cache_read.fast"}


# --- other prices -------------------------------------------------------------------------------------------------------


def test_usage_at_other_prices() -> None:
    new = PriceBook(version=0, effective_ms=0, rates={"input": 2_000_000_000, "output": 4_000_000_000, "requests": 7_000_000})
    repricing = Repricing({"small": new, "idle": new})
    repricing.add(
        [
            used(cost=1_400_000, counts={"input": 1_000, "output": 100}),
            used(cost=5, counts={"input": 1, "requests": 1}),  # charged for the request as such before, and again
            used(cost=0, counts={}, cell="refused"),  # charged nothing
            used(cost=9, model="other"),  # keeps its price
            used(cost=5, counts={"input": 1, "output_audio": 2, "tool_calls.x": 1}),  # what the new price lacks
        ]
    )
    line = repricing.lines["small"]
    assert (line.requests, line.old, line.surprises) == (4, 1_400_010, 1)
    assert line.new == (2_400_000 + 7) + (2_000 + 7) + (2_000 + 2 * 4_000 + 7)
    other = repricing.lines["other"]
    assert (other.old, other.new) == (9, 9)
    assert repricing.lines["idle"].requests == 0
    assert (repricing.total.old, repricing.total.new) == (line.old + 9, line.new + 9)


def test_usage_at_a_tier_at_other_prices() -> None:
    """By the tier's new price, or by the plain one where the new price has no such tier: which is counted."""
    rates = {"input": 1_000_000, "output": 2_000_000}
    record = used(cost=5, counts={"input.fast": 10, "cache_read.fast": 5, "output.fast": 1})
    for tiers, new, surprises in (({"input.fast": 3_000_000, "output.fast": 7_000_000}, 52, 0), ({}, 17, 1)):
        repricing = Repricing({"small": PriceBook(version=0, effective_ms=0, rates=rates | tiers)})
        repricing.add([record])
        assert (repricing.total.new, repricing.total.surprises) == (new, surprises)
