"""The matrix is data: each ending has one rule, and the operator may choose another where it makes sense."""

from __future__ import annotations

import pytest

from aurixel.errors import ConfigError
from aurixel.ledger import MATRIX, charge_rule, check_overrides


def test_the_defaults() -> None:
    nothing = {"refused", "failed_leg", "empty", "timeout_first_byte", "crash", "hedge_loser"}
    delivered = {"died", "error_event", "timeout_mid_stream"}
    assert {cell for cell, rule in MATRIX.items() if rule == "nothing"} == nothing
    assert {cell for cell, rule in MATRIX.items() if rule == "delivered"} == delivered
    assert set(MATRIX) - nothing - delivered == {"ok", "client_gone"}
    assert (charge_rule("ok"), charge_rule("client_gone")) == ("measured", "measured_or_delivered")


def test_an_override() -> None:
    overrides = check_overrides({"empty": "measured"})
    assert charge_rule("empty", overrides) == "measured"
    assert charge_rule("refused", overrides) == "nothing"


@pytest.mark.parametrize("overrides", [{"nonsense": "nothing"}, {"ok": "nonsense"}, {"crash": "delivered"}])
def test_a_wrong_override_is_named(overrides: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_overrides(overrides)
    assert error.value.place == f"ledger.settlement.{next(iter(overrides))}"


def test_a_cell_that_does_not_exist_is_a_bug() -> None:
    with pytest.raises(KeyError):
        charge_rule("nonsense", {})
