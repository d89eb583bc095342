"""Codes: made, read in whatever clothes they come, and told apart from every single typing error."""

from __future__ import annotations

import hashlib
import re

import pytest
from aurixel_vouchers.codes import ALPHABET, Code, new_batch, new_code, read_code, read_id
from hypothesis import given
from hypothesis import strategies as st

SHAPE = re.compile(rf"[{ALPHABET}]{{4}}(-[{ALPHABET}]{{4}}){{6}}")
CODES = st.builds(lambda: new_code(new_batch()))


def text(code: Code) -> str:
    return code.text.reveal()


def test_a_code_is_seven_groups_and_begins_with_its_batch() -> None:
    code = new_code("K7QM")
    assert SHAPE.fullmatch(text(code))
    assert text(code).startswith("K7QM-")
    assert (code.batch, code.id[:5], len(code.id)) == ("K7QM", "K7QM-", 13)
    assert read_code(text(code)) == code or text(read_code(text(code))) == text(code)  # type: ignore[arg-type]


def test_codes_differ_and_have_a_hundred_bits() -> None:
    codes = [text(new_code("0000")) for _ in range(2000)]
    assert len(set(codes)) == 2000
    symbols = "".join(code[5:].replace("-", "")[:20] for code in codes)  # the random part, whole symbols of it
    assert set(symbols) == set(ALPHABET)
    assert max(symbols.count(symbol) for symbol in ALPHABET) < 1.25 * len(symbols) / 32


def test_nothing_of_a_code_is_printed_or_kept() -> None:
    code = new_code("K7QM")
    shown = f"{code!r} {code}"
    assert not [group for group in text(code).split("-")[1:] if group in shown.replace(code.id, "").upper()]
    plain = text(code).replace("-", "")
    assert code.hash == hashlib.sha256(f"aurixel-voucher-1:{plain}".encode()).hexdigest()  # what is out there stays good


@given(CODES, st.sampled_from(["", " ", "-", "–", "\u00a0", "\u200b", " - ", "\u2011", "\t"]), st.booleans(), st.booleans())
def test_a_code_is_read_in_any_clothes(code: Code, between: str, lower: bool, alike: bool) -> None:
    typed = between.join(text(code).split("-"))
    if alike:
        typed = typed.replace("1", "l").replace("0", "o")
    read = read_code(f"  {typed.lower() if lower else typed}\r\n")
    assert read is not None
    assert (read.id, read.hash, text(read)) == (code.id, code.hash, text(code))


def typo(code: Code, place: int, symbols: str) -> str:
    plain = text(code).replace("-", "")
    return plain[:place] + symbols + plain[place + len(symbols) :]


def test_every_wrong_symbol_is_told_without_a_look_up() -> None:
    code = new_code(new_batch())
    plain = text(code).replace("-", "")
    for place, right in enumerate(plain):
        for symbol in ALPHABET:
            assert (read_code(typo(code, place, symbol)) is None) == (symbol != right)


@given(CODES, st.integers(0, 26))
def test_neighbours_that_are_swapped_are_told(code: Code, place: int) -> None:
    plain = text(code).replace("-", "")
    first, second = plain[place : place + 2]
    assert (read_code(typo(code, place, second + first)) is None) == (first != second)


@given(CODES, st.integers(0, 25), st.text(ALPHABET, min_size=3, max_size=3))
def test_whatever_is_wrong_in_three_symbols_in_a_row_is_told(code: Code, place: int, symbols: str) -> None:
    plain = text(code).replace("-", "")
    assert (read_code(typo(code, place, symbols)) is None) == (plain[place : place + 3] != symbols)


@given(st.text(max_size=300) | st.text(ALPHABET, min_size=28, max_size=28))
def test_anything_else_is_no_code(typed: str) -> None:
    """One in 65,536 texts of the right shape would be: none of a few hundred is."""
    assert read_code(typed) is None


def test_rows_of_one_symbol_are_no_codes() -> None:
    assert [symbol for symbol in ALPHABET if read_code(symbol * 28)] == []


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("K7QM", "K7QM"),
        (" k7qm ", "K7QM"),
        ("loi7", "1017"),
        ("k7qm-3f9a2c7d", "K7QM-3F9A2C7D"),
        ("", None),
        ("K7Q", None),
        ("K7QMX", None),
        ("K7QM-", None),
        ("K7QM-3F9A", None),
        ("K7QU", None),
        ("K7QM/3F9A2C7D", None),
    ],
)
def test_ids_are_read(typed: str, id: str | None) -> None:
    assert read_id(typed) == id
