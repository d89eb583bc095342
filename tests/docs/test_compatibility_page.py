"""docs/compatibility.md says what the translations do: it is made from them, and what it calls kept is found upstream."""

from __future__ import annotations

import re

import pytest

from tests.docs.compatibility_page import CHAT, PAGE, Cell, cells, features, made, parts

CELLS = [pytest.param(feature, each, id=f"{client}-{upstream}-{feature}") for client, upstream, feature, each in cells()]


def test_the_page_is_made_from_the_translations() -> None:
    page = PAGE.read_text()
    assert page == made(page), "run `make docs`"
    assert re.findall(r"<!-- made: (\w+) -->", page) == list(parts())


def test_every_pair_is_on_it() -> None:
    pairs = {(client, upstream) for client, upstream, _, _ in cells()}
    assert pairs == {(client, upstream) for client in CHAT for upstream in CHAT if client != upstream}


@pytest.mark.parametrize(("feature", "each"), CELLS)
def test_what_is_not_dropped_reaches_the_upstream(feature: str, each: Cell) -> None:
    if "refused" in each.text or "dropped" in each.text:
        return
    for mark in features()[feature]["marks"]:
        assert mark in each.sent
