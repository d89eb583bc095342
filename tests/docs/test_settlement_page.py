"""docs/settlement.md says what the matrix says; it is made from it."""

from __future__ import annotations

import re

from aurixel.ledger import MATRIX, matrix_in_force
from aurixel.tomlfile import TomlFile
from tests.docs.settlement_page import PAGE, made, parts


def test_the_page_is_made_from_the_matrix() -> None:
    page = PAGE.read_text()
    assert page == made(page), "run `make docs`"


def test_every_part_is_on_the_page_and_every_ending_in_it() -> None:
    page = PAGE.read_text()
    assert re.findall(r"<!-- made: (\w+) -->", page) == list(parts())
    for cell, ending in MATRIX.items():
        (row,) = re.findall(rf"^\| `{cell}` \|.*$", page, re.MULTILINE)
        assert ending.words in row
        assert row.count(f"`{ending.rules['chat']}`") == len(ending.rules)
    assert made(page.replace("| `died` |", "| `dyed` |")) == page


def test_the_example_on_the_page_is_sound() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    matrix = matrix_in_force(TomlFile("settlement.md", example).data["ledger"]["settlement"])
    assert (matrix["chat"]["client_gone"], matrix["image"]["client_gone"]) == ("delivered", "measured")


def test_other_pages_link_to_it_and_repeat_nothing() -> None:
    for name in ("ledger.md", "flow.md", "configuration.md", "metrics.md"):
        text = (PAGE.parent / name).read_text()
        assert "(settlement.md" in text, name
        assert "| `timeout_mid_stream`" not in text, name
