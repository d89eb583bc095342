"""Makes the tables of docs/settlement.md from the matrix: `python -m tests.docs.settlement_page` (`make docs`) writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from aurixel.dialects import register_dialects
from aurixel.ledger.settlement import MATRIX, MODALITIES, MODALITY_OF, RULES

PAGE = Path(__file__).parents[2] / "docs" / "settlement.md"
_PART = re.compile(r"(?<=<!-- made: )(?P<name>\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def parts() -> Mapping[str, str]:
    """The made parts by name."""
    endings = [
        [
            f"`{cell}`",
            ending.words,
            *(f"`{ending.rules[modality]}`" for modality in MODALITIES),
        ]
        for cell, ending in MATRIX.items()
    ]
    fixed = [f"- `{cell}` has this rule only: {ending.fixed}.\n" for cell, ending in MATRIX.items() if ending.fixed]
    fixed += [
        f"- `{cell}` is kept for later, and no request ends so yet: {ending.unreached}.\n"
        for cell, ending in MATRIX.items()
        if ending.unreached
    ]
    dialects = register_dialects()
    operations = [
        [
            f"`{operation}`",
            modality,
            ", ".join(f"`{each.name}`" for each in dialects if each.operation == operation) or "not yet",
        ]
        for operation, modality in MODALITY_OF.items()
    ]
    return {
        "rules": table(("rule", "what is charged"), [[f"`{rule}`", words] for rule, words in RULES.items()]),
        "endings": table(("ending", "what happened", *MODALITIES), endings),
        "fixed": "".join(fixed),
        "operations": table(("operation", "modality", "served in"), operations),
    }


def made(page: str) -> str:
    """The page with its parts as they should be; `KeyError` for a part that is not known."""
    known = parts()
    return _PART.sub(lambda found: f"{found['name']} -->\n{known[found['name']]}", page)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
