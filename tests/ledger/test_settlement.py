"""The matrix is data: each ending has one rule in each modality, and the operator may choose another where it makes sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.catalog import OPERATIONS
from aurixel.errors import ConfigFaults
from aurixel.ledger import MATRIX, MODALITY_OF, matrix_in_force, overridden
from aurixel.ledger.settlement import MODALITIES, RULES

OPEN = [cell for cell, ending in MATRIX.items() if not (ending.fixed or ending.unreached)]


def faults(overrides: dict[str, Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigFaults) as refused:
        matrix_in_force(overrides)
    return [(fault.place.removeprefix("ledger.settlement."), fault.message, fault.mend) for fault in refused.value.faults]


def test_the_defaults_are_the_same_in_every_modality() -> None:
    nothing = {"refused", "failed_leg", "empty", "timeout_first_byte", "crash", "hedge_loser"}
    delivered = {"died", "error_event", "timeout_mid_stream"}
    for rules in matrix_in_force().values():
        assert {cell for cell, rule in rules.items() if rule == "nothing"} == nothing
        assert {cell for cell, rule in rules.items() if rule == "delivered"} == delivered
        assert set(MATRIX) - nothing - delivered == {"ok", "client_gone"}
        assert (rules["ok"], rules["client_gone"]) == ("measured", "measured_or_delivered")


def test_every_operation_has_a_modality_and_every_modality_an_operation() -> None:
    assert set(MODALITY_OF) == set(OPERATIONS)
    assert set(MODALITY_OF.values()) == set(MODALITIES) == set(matrix_in_force())


def test_an_override_holds_for_every_modality_or_for_one_and_the_one_goes_before() -> None:
    matrix = matrix_in_force({"image": {"died": "nothing", "empty": "measured"}, "died": "measured"})
    assert {modality: rules["died"] for modality, rules in matrix.items()} == {
        "chat": "measured",
        "image": "nothing",
        "audio": "measured",
        "embedding": "measured",
    }
    assert list(overridden(matrix)) == [
        ("empty", "image", "measured"),
        ("died", "chat", "measured"),
        ("died", "image", "nothing"),
        ("died", "audio", "measured"),
        ("died", "embedding", "measured"),
    ]


@pytest.mark.parametrize(
    ("overrides", "place", "message", "mend"),
    [
        ({"client_left": "nothing"}, "client_left", "there is no ending 'client_left'", "did you mean 'client_gone'?"),
        ({"imges": {"died": "nothing"}}, "imges", "there is no ending 'imges'", "did you mean 'image'?"),
        ({"image": {"dyed": "nothing"}}, "image.dyed", "there is no ending 'dyed'", "did you mean 'died'?"),
        ({"died": "deliverd"}, "died", "there is no such rule", "did you mean 'delivered'?"),
        ({"died": 3}, "died", "there is no such rule", "one of measured, delivered, measured_or_delivered, nothing, in quotes"),
        ({"died": {"image": "nothing"}}, "died", "there is no such rule", "a modality stands first: image.died = ..."),
        ({"chat": "nothing"}, "chat", "'chat' is a modality", 'write chat.client_gone = "delivered"'),
        (
            {"crash": "delivered"},
            "crash",
            "the ending 'crash' has one rule only: nobody knows what was delivered",
            "leave it out",
        ),
        (
            {"audio": {"hedge_loser": "measured"}},
            "audio.hedge_loser",
            "the ending 'hedge_loser' has one rule only: no request is sent to two upstreams at a time",
            "leave it out",
        ),
    ],
)
def test_a_wrong_override_is_named_with_its_mend(overrides: dict[str, Any], place: str, message: str, mend: str) -> None:
    assert faults(overrides) == [(place, message, mend)]


def test_every_fault_is_told_at_once() -> None:
    found = faults({"okay": "nothing", "died": "x", "image": {"crash": "measured", "empty": "delivered"}})
    assert [place for place, _, _ in found] == ["okay", "died", "image.crash"]


@given(
    st.dictionaries(st.sampled_from(OPEN), st.sampled_from(list(RULES))),
    st.dictionaries(
        st.sampled_from(MODALITIES), st.dictionaries(st.sampled_from(OPEN), st.sampled_from(list(RULES)), min_size=1)
    ),
)
def test_what_is_overridden_is_what_was_asked_for(every: dict[str, Any], single: dict[str, Any]) -> None:
    matrix = matrix_in_force({**every, **single})
    for modality, rules in matrix.items():
        for cell, rule in rules.items():
            assert rule == single.get(modality, {}).get(cell, every.get(cell, MATRIX[cell].rules[modality]))
    assert {(cell, modality): rule for cell, modality, rule in overridden(matrix)} == {
        (cell, modality): rule
        for modality, rules in matrix.items()
        for cell, rule in rules.items()
        if rule != MATRIX[cell].rules[modality]
    }
