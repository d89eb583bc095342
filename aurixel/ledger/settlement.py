"""The settlement matrix: for every ending of a request, by which rule it is charged. Data; it computes no price."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from aurixel.errors import ConfigError

# `measured`: what the upstream reported. `delivered`: the input, and the output that reached the client, by what the
# upstream reported as far as it came. `measured_or_delivered`: the first where the upstream said, else the second.
Rule: TypeAlias = Literal["measured", "delivered", "measured_or_delivered", "nothing"]
RULES: Final[tuple[Rule, ...]] = ("measured", "delivered", "measured_or_delivered", "nothing")

MATRIX: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "ok": "measured",
        "refused": "nothing",
        "failed_leg": "nothing",
        "empty": "nothing",
        "timeout_first_byte": "nothing",
        "crash": "nothing",
        "hedge_loser": "nothing",
        "died": "delivered",
        "error_event": "delivered",
        "timeout_mid_stream": "delivered",
        "client_gone": "measured_or_delivered",
    }
)


def charge_rule(cell: str, overrides: Mapping[str, Rule] = MappingProxyType({})) -> Rule:
    """The rule of a cell; `KeyError` for a cell that does not exist: a bug of the caller."""
    rule = MATRIX[cell]
    return overrides.get(cell, rule)


def check_overrides(overrides: Mapping[str, str]) -> Mapping[str, Rule]:
    """The operator's overrides, checked; `ConfigError` names what is wrong.

    `crash` cannot be changed: after a crash nobody knows what was delivered.
    """
    checked: dict[str, Rule] = {}
    for cell, name in overrides.items():
        place = f"ledger.settlement.{cell}"
        if cell not in MATRIX:
            raise ConfigError("there is no such ending", place=place, mend=f"one of {', '.join(MATRIX)}")
        rule = next((rule for rule in RULES if rule == name), None)
        if rule is None:
            raise ConfigError("there is no such rule", place=place, mend=f"one of {', '.join(RULES)}")
        if cell == "crash" and rule != "nothing":
            raise ConfigError("a request cut by a crash has no known usage", place=place, mend='leave it "nothing"')
        checked[cell] = rule
    return MappingProxyType(checked)
