"""The settlement matrix: by which rule each ending of a request is charged, for each modality, and what the operator may
change of it. It is data; it computes no price. docs/settlement.md is made from it (`make docs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from aurixel.errors import ConfigError, ConfigFaults
from aurixel.tomlfile import nearest

Modality: TypeAlias = Literal["chat", "image", "audio", "embedding"]
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)

# Moderation is charged as embeddings are: input and one whole answer without output, so that "no output" makes neither free.
MODALITY_OF: Final[Mapping[str, Modality]] = MappingProxyType(
    {
        "chat": "chat",
        "images": "image",
        "speech": "audio",
        "transcription": "audio",
        "embeddings": "embedding",
        "moderation": "embedding",
    }
)

Rule: TypeAlias = Literal["measured", "delivered", "measured_or_delivered", "nothing"]
RULES: Final[Mapping[Rule, str]] = MappingProxyType(
    {
        "measured": (
            "What the upstream reported, whole, whether the client had it or not. Without a whole report: what was "
            "reported so far, and an estimate of all output that the upstream was seen to generate."
        ),
        "delivered": (
            "The input as reported, else estimated, and the part of the output that reached the client. Of a report that "
            "covers more than reached it, each output class is charged in proportion."
        ),
        "measured_or_delivered": "`measured` where the upstream's report is whole, else `delivered`.",
        "nothing": "Nothing.",
    }
)

# The rules of one modality, by ending; and of all modalities.
Rules: TypeAlias = Mapping[str, Rule]
Matrix: TypeAlias = Mapping[Modality, Rules]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the matrix: `words` say what happened, `rules` how it is charged. `fixed`: why no other rule may be chosen;
    `unreached`: no request ends so yet, and why."""

    words: str
    rules: Mapping[Modality, Rule]
    fixed: str = ""
    unreached: str = ""


def _all(rule: Rule) -> Mapping[Modality, Rule]:
    return MappingProxyType(dict.fromkeys(MODALITIES, rule))


MATRIX: Final[Mapping[str, Ending]] = MappingProxyType(
    {
        "ok": Ending(
            words="The whole answer is on its way to the client.",
            rules=_all("measured"),
        ),
        "refused": Ending(
            words="An error before any output: the upstream's, or ours before it was asked.",
            rules=_all("nothing"),
        ),
        "failed_leg": Ending(
            words="Another upstream answered after this one had failed.",
            rules=_all("nothing"),
            unreached="a failed attempt has no record of its own",
        ),
        "empty": Ending(
            words="The upstream ended well and generated nothing, though output was asked for.",
            rules=_all("nothing"),
        ),
        "timeout_first_byte": Ending(
            words="The upstream was too slow before the client had a byte.",
            rules=_all("nothing"),
        ),
        "crash": Ending(
            words="The gateway was killed while the request ran.",
            rules=_all("nothing"),
            fixed="nobody knows what was delivered",
        ),
        "hedge_loser": Ending(
            words="Another upstream, asked at the same time, was faster.",
            rules=_all("nothing"),
            unreached="no request is sent to two upstreams at a time",
        ),
        "died": Ending(
            words="The answer broke off, or became unreadable, after the client had a part of it.",
            rules=_all("delivered"),
        ),
        "error_event": Ending(
            words="The upstream sent an error event after the client had a part of the answer.",
            rules=_all("delivered"),
        ),
        "timeout_mid_stream": Ending(
            words="The upstream fell silent, or took too long, after the client had a part of the answer.",
            rules=_all("delivered"),
        ),
        "client_gone": Ending(
            words="The client left before the answer was complete.",
            rules=_all("measured_or_delivered"),
        ),
    }
)


def matrix_in_force(overrides: Mapping[str, object] = MappingProxyType({})) -> Matrix:
    """The matrix under `[ledger.settlement]`: `ending = rule` for every modality, `modality.ending = rule` for one, which
    goes before. `ConfigFaults` names everything that is wrong."""
    faults: list[ConfigError] = []
    rules = {modality: {cell: ending.rules[modality] for cell, ending in MATRIX.items()} for modality in MODALITIES}
    single: list[tuple[Modality, str, Rule]] = []
    for name, value in overrides.items():
        modality = next((modality for modality in MODALITIES if modality == name), None)
        if modality is None:
            if (rule := _judge((name,), value, (*MATRIX, *MODALITIES), faults)) is not None:
                for each in rules.values():
                    each[name] = rule
        elif not isinstance(value, Mapping):
            faults.append(_fault((name,), f"{name!r} is a modality", f'write {name}.client_gone = "delivered"'))
        else:
            for cell, inner in value.items():
                if (rule := _judge((name, cell), inner, MATRIX, faults)) is not None:
                    single.append((modality, cell, rule))
    for modality, cell, rule in single:
        rules[modality][cell] = rule
    if faults:
        raise ConfigFaults(faults)
    return MappingProxyType({modality: MappingProxyType(each) for modality, each in rules.items()})


def _judge(path: tuple[str, ...], value: object, known: Iterable[str], faults: list[ConfigError]) -> Rule | None:
    cell = path[-1]
    ending = MATRIX.get(cell)
    if ending is None:
        faults.append(_fault(path, f"there is no ending {cell!r}", nearest(cell, known)))
        return None
    rule = next((rule for rule in RULES if rule == value), None)
    if rule is None:
        mend = nearest(value, RULES) if isinstance(value, str) else f"one of {', '.join(RULES)}, in quotes"
        if isinstance(value, Mapping) and len(path) == 1 and value.keys() & MODALITIES:
            mend = f"a modality stands first: {next(iter(value))}.{cell} = ..."
        faults.append(_fault(path, "there is no such rule", mend))
        return None
    why = ending.fixed or ending.unreached
    if why and rule not in ending.rules.values():
        faults.append(_fault(path, f"the ending {cell!r} has one rule only: {why}", "leave it out"))
        return None
    return rule


def _fault(path: tuple[str, ...], message: str, mend: str) -> ConfigError:
    return ConfigError(message, place=".".join(("ledger", "settlement", *path)), mend=mend)


def overridden(matrix: Matrix) -> Iterator[tuple[str, Modality, Rule]]:
    """Where a matrix is not as we ship it: ending, modality, and the rule in force."""
    for cell, ending in MATRIX.items():
        for modality in MODALITIES:
            if matrix[modality][cell] != ending.rules[modality]:
                yield cell, modality, matrix[modality][cell]
