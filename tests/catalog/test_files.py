"""models.toml and prices.toml: what they may say, and that every fault is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurixel.catalog import parse_files, read_files
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import TomlFile

ROOT = Path(__file__).parents[2]
MODELS = """\
[models.small]
operations = ["chat"]
context = 128000
max_output = 16384
routes = [{ upstream = "a", model = "s-1" }, { upstream = "b", model = "s" }]
"""
PRICES = """\
[[price]]
model = "small"
effective = 2026-01-31
input = "0.15"
output = "0.60"
"""


def faults(models: str = MODELS, prices: str = PRICES) -> list[tuple[str, str]]:
    with pytest.raises(ConfigFaults) as refused:
        parse_files(TomlFile("models.toml", models), TomlFile("prices.toml", prices))
    return [(fault.place, f"{fault.message} ({fault.mend})") for fault in refused.value.faults]


def test_a_sound_pair_of_files() -> None:
    stored = parse_files(TomlFile("models.toml", MODELS), TomlFile("prices.toml", PRICES))
    assert [(route.upstream, route.model) for route in stored.models["small"].routes] == [("a", "s-1"), ("b", "s")]
    (price,) = stored.prices
    assert price.effective_ms == 1_769_817_600_000  # 2026-01-31T00:00:00Z
    assert price.rates == {"input": 150_000_000, "output": 600_000_000}


def test_the_prices_of_a_tier_are_those_of_qualified_classes() -> None:
    tiers = (
        'tiers.fast = { input = "0.3", cache_read = "0.2", output = "1.2" }\n[price.tiers.flex]\ninput = "0"\noutput = "0.1"\n'
    )
    (price,) = parse_files(TomlFile("models.toml", MODELS), TomlFile("prices.toml", PRICES + tiers)).prices
    assert price.rates == {
        "input": 150_000_000,
        "output": 600_000_000,
        "input.fast": 300_000_000,
        "cache_read.fast": 200_000_000,
        "output.fast": 1_200_000_000,
        "input.flex": 0,
        "output.flex": 100_000_000,
    }


def test_a_cost_of_a_tier_need_not_be_whole() -> None:
    cost = '[[cost]]\nmodel = "small"\neffective = 2026-01-31\ntiers.fast = { input = "0.3" }\n'
    stored = parse_files(TomlFile("models.toml", MODELS), TomlFile("prices.toml", PRICES + cost))
    assert [each.rates for each in stored.costs] == [{"input.fast": 300_000_000}]


def test_only_chat_is_served_at_tiers() -> None:
    prices = PRICES + 'tiers.fast = { input = "1", output = "1" }\n'
    assert faults(MODELS.replace("chat", "embeddings"), prices) == [
        ("prices.toml:6", "only a model for 'chat' is served at tiers ()")
    ]


@pytest.mark.parametrize(
    ("written", "at_ms"),
    [
        ("2026-01-31", 1_769_817_600_000),
        ('"2026-01-31"', 1_769_817_600_000),
        ("2026-01-31T00:00:00Z", 1_769_817_600_000),
        ("2026-01-31T02:00:00.500+02:00", 1_769_817_600_500),
        ('"2026-01-31T00:00:01Z"', 1_769_817_601_000),
    ],
)
def test_dates_and_instants(written: str, at_ms: int) -> None:
    prices = PRICES.replace("2026-01-31", written)
    stored = parse_files(TomlFile("models.toml", MODELS), TomlFile("prices.toml", prices))
    assert stored.prices[0].effective_ms == at_ms


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('input = "0.15"', "input = 0.15", 4, 'must be a string in quotes (write input = "0.15"'),
        ('input = "0.15"', "input = 1", 4, "must be a string in quotes"),
        ('input = "0.15"', 'input = "-0.15"', 4, "negative"),
        ('input = "0.15"', 'input = "1e3"', 4, "not an amount"),
        ('input = "0.15"', 'input = "0.0000000001"', 4, "at most nine decimals"),
        ('input = "0.15"', 'input = "2000000"', 4, "is a point missing?"),
        ('input = "0.15"', 'inputs = "0.15"', 4, "unknown key 'inputs' (did you mean 'input'?)"),
        ('model = "small"', 'model = "smal"', 2, "no model 'smal' (did you mean 'small'?)"),
        ('model = "small"', "", 1, "'model' is missing"),
        ('output = "0.60"', "", 1, "needs a price for output"),
        ("2026-01-31", "2026-01-31T00:00:00", 3, "no offset (end it with Z for UTC)"),
        ("2026-01-31", '"soon"', 3, "not an instant"),
        ("2026-01-31", "20260131", 3, "not an instant"),
        ("effective = 2026-01-31", "", 1, "'effective' is missing"),
        ("[[price]]", "[price]", 1, "write [[price]]"),
        ("[[price]]", "[[prices]]", 1, "unknown key 'prices' (did you mean 'price'?)"),
        ('output = "0.60"', 'output = "0.60"\ntool_calls.search = 1', 6, "in quotes"),
        ('output = "0.60"', 'output = "0.60"\ntool_calls."a b" = "1"', 6, "a tool's name"),
        ('output = "0.60"', 'output = "0.60"\nimages = [\n  { size = "1x1" },\n]', 6, "an entry of 'images' is"),
        ('output = "0.60"', 'output = "0.60"\nimages = [{ size = "1x1", usd = "1", hd = 1 }]', 6, "unknown key 'hd'"),
        ('output = "0.60"', 'output = "0.60"\nrequests = "1001"', 6, "above 1000.00 USD per one"),
        ('output = "0.60"', 'output = "0.60"\ntiers = "1"', 6, "'tiers' must be a table (tiers.priority = {"),
        ('output = "0.60"', 'output = "0.60"\ntiers.fast = "1"', 6, "a tier must be a table (tiers.priority = {"),
        ('output = "0.60"', 'output = "0.60"\ntiers.auto = { input = "1", output = "2" }', 6, "'auto' cannot be a tier"),
        ('output = "0.60"', 'output = "0.60"\ntiers."a.b" = { input = "1", output = "2" }', 6, "'a.b' cannot be a tier"),
        ('output = "0.60"', 'output = "0.60"\n\ntiers.fast = { input = "1" }', 7, "a tier needs a price for output of its own"),
        ('output = "0.60"', 'output = "0.60"\ntiers.fast = {}', 6, "a tier needs a price for input and output of its own"),
        (
            'output = "0.60"',
            'output = "0.60"\ntiers.fast.input = "1"\ntiers.fast.output = 2',
            7,
            "'output.fast' must be a string",
        ),
        (
            'output = "0.60"',
            'output = "0.60"\ntiers.fast.input = "1"\ntiers.fast.ouput = "2"',
            7,
            "unknown key 'ouput' (did you",
        ),
        ('output = "0.60"', 'output = "0.60"\n[price.tiers.fast]\ninput = "1"\nrequests = "2"', 8, "unknown key 'requests'"),
        (
            'output = "0.60"',
            'output = "0.60"\ntiers.fast = { input = "0.0000000001", output = "1" }',
            6,
            "at most nine decimals",
        ),
    ],
)
def test_a_fault_in_the_prices(old: str, new: str, line: int, words: str) -> None:
    found = faults(prices=PRICES.replace(old, new))
    assert found[0][0] == f"prices.toml:{line}"
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('["chat"]', '["chatt"]', 2, "unknown operation 'chatt' (did you mean 'chat'?)"),
        ('["chat"]', "[]", 2, "'operations' is missing"),
        ("128000", '"128000"', 3, "a whole number"),
        ("context = 128000", "", 1, "'context' is missing"),
        ("16384", "128001", 4, "'max_output' 128001 is above 'context' 128000"),
        ("16384", "0", 4, "a whole number from 1"),
        ("max_output", "maxoutput", 4, "unknown key 'maxoutput' (did you mean 'max_output'?)"),
        ('{ upstream = "a", model = "s-1" }', '{ upstream = "a" }', 5, "a route is { upstream, model }"),
        ('{ upstream = "a", model', '{ upstream = "a", weight = 1, model', 5, "unknown key 'weight' in a route"),
        ("[models.small]", '[models."no spaces"]', 1, "cannot be a model's name"),
        ("[models.small]", "[model.small]", 1, "unknown key 'model' (did you mean 'models'?)"),
        ("context", 'image_multiplier = "2"\ncontext', 3, "'image_multiplier' must be a number"),
    ],
)
def test_a_fault_in_the_models(old: str, new: str, line: int, words: str) -> None:
    found = faults(models=MODELS.replace(old, new, 1))
    assert found[0][0] == f"models.toml:{line}"
    assert words in found[0][1]


def test_all_faults_of_both_files_are_told_at_once_and_each_only_once() -> None:
    found = faults(MODELS.replace("128000", '"x"'), PRICES.replace("0.60", "free").replace("0.15", "-1"))
    assert [place for place, _ in found] == ["models.toml:3", "prices.toml:4", "prices.toml:5"]


def test_two_prices_from_the_same_instant_on() -> None:
    found = faults(prices=PRICES + PRICES.replace("2026-01-31", "2026-01-31T01:00:00+01:00"))
    assert found == [("prices.toml:6", "'small' has two prices from the same instant on (the other is at prices.toml:1)")]


@pytest.mark.parametrize(
    ("operation", "price", "words"),
    [
        ("embeddings", 'output = "1"', "needs a price for input"),
        ("images", 'input = "1"', "needs a price for images or output_image"),
        ("speech", 'input = "1"', "needs a price for characters or output_audio"),
        ("images", 'output_image = "1"', "that is priced by tokens needs a price for input"),
        ("speech", 'output_audio = "1"', "that is priced by tokens needs a price for input"),
        ("transcription", 'input = "1"', "needs a price for audio_seconds or input_audio"),
        ("moderation", 'output = "1"', "needs a price for input or requests"),
    ],
)
def test_each_operation_says_what_must_be_priced(operation: str, price: str, words: str) -> None:
    """Pitfall 11: a price list that forgets the unit of a modality is no price list for it."""
    prices = f'[[price]]\nmodel = "small"\neffective = 2026-01-01\n{price}\n'
    assert faults(MODELS.replace("chat", operation), prices)[0][1].startswith(f"a model for '{operation}' {words}")


def test_a_file_that_is_no_toml_names_its_line() -> None:
    with pytest.raises(ConfigError) as refused:
        TomlFile("prices.toml", "[[price]]\nmodel = \n")
    assert (refused.value.place, refused.value.code) == ("prices.toml:2", "toml_syntax")


def test_a_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_files(tmp_path / "models.toml", tmp_path / "prices.toml")
    assert refused.value.code == "file_missing"
    assert refused.value.place.endswith("models.toml")


@pytest.mark.parametrize("folder", ["conf", "aurixel/cli/demo"])
def test_the_files_we_ship_are_sound_and_price_every_model(folder: str) -> None:
    stored = read_files(ROOT / folder / "models.toml", ROOT / folder / "prices.toml")
    assert {price.model for price in stored.prices} == set(stored.models)
