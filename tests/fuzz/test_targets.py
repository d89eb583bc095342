"""The targets hold for what they start from, for what was found before, and see a fault when there is one."""

from __future__ import annotations

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import FOUND, seeds
from tests.fuzz.targets import HEAD, TARGETS, bounded


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    given = list(seeds(name))
    assert given
    for data in given:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_a_few_changes_of_its_seeds(name: str) -> None:
    for number, data in enumerate(list(seeds(name))[:40]):
        TARGETS[name](mutated(data, 4096, number))


@pytest.mark.parametrize("name", TARGETS)
def test_a_byte_that_is_no_text_is_seen_wherever_it_stands(name: str) -> None:
    """A decoder that leaves a value as it is written does not look at its text; whoever decodes it later must not fall."""
    for data in seeds(name):
        for at in range(HEAD, len(data), max(1, len(data) // 40)):
            TARGETS[name](data[:at] + b"\xff" + data[at + 1 :])


def test_what_was_found_belongs_to_a_target() -> None:
    assert {path.name.partition("-")[0] for path in FOUND.glob("*")} <= TARGETS.keys()


def test_growth_is_seen() -> None:
    with pytest.raises(AssertionError):
        bounded(1 << 20, 10)


def test_a_change_is_always_a_change_of_what_is_there() -> None:
    given = b"\0\0" + b'{"a": [1, {"b": "c"}]}'
    found = {mutated(given, 4096, number) for number in range(200)}
    assert len(found) > 50
    assert all(each[:1] == b"\0" for each in found)
