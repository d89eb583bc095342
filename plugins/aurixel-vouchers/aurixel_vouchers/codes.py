"""Voucher codes: how they are made, read and told apart from typing errors. Pure; a code prints nothing of itself.

A code is 28 symbols in seven groups: `K7QM-3F9A-2C7D-...`. The first group names its batch and is no secret; then come 104
random bits and a CRC-16 over all before it, which finds every wrong symbol, every two neighbours swapped, whatever is
wrong within three symbols in a row, and all but one in 65,536 of other errors. The alphabet is Crockford's base 32, without
I, L, O and U (https://www.crockford.com/base32.html): I and L are read as 1, O as 0, and case, spaces and dashes do not matter.

What is kept of a code is its SHA-256. It needs no key: nobody can go through 2**104 codes, and a key that is lost, or
changed, would void every printed code.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import secrets
import unicodedata
from typing import Final

import msgspec

from aurixel.plugin import Secret

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 28
BATCH: Final = 4
LOCATOR: Final = 8
SECRET_BITS: Final = 104
_CHECK_BITS: Final = 16
_VALUES: Final = {symbol: value for value, symbol in enumerate(ALPHABET)}
_LIKE: Final = str.maketrans("ILO", "110")
_ID: Final = re.compile(rf"[{ALPHABET}]{{{BATCH}}}(-[{ALPHABET}]{{{LOCATOR}}})?")
_LONGEST: Final = 200


class Code(msgspec.Struct, frozen=True):
    """A well-formed code. `batch` and `id` are public: `id` is the batch and the first 40 bits of the hash."""

    text: Secret
    batch: str
    id: str
    hash: str


def new_batch() -> str:
    """A name for a batch: 20 random bits."""
    return _symbols(secrets.randbits(5 * BATCH), BATCH)


def new_code(batch: str) -> Code:
    """A code of the system's randomness."""
    stem = (_number(batch) << SECRET_BITS) | secrets.randbits(SECRET_BITS)
    return _code(_symbols((stem << _CHECK_BITS) | _check(stem), LENGTH))


def read_code(text: str) -> Code | None:
    """What was typed, or None where it is no code or its check does not fit. No look-up."""
    if len(text) > _LONGEST:
        return None
    symbols = [symbol for symbol in unicodedata.normalize("NFKC", text).upper().translate(_LIKE) if not _is_filler(symbol)]
    if len(symbols) != LENGTH or not all(symbol in _VALUES for symbol in symbols):
        return None
    number = _number("".join(symbols))
    stem = number >> _CHECK_BITS
    if _check(stem) != number & (1 << _CHECK_BITS) - 1:
        return None
    return _code(_symbols(number, LENGTH))


def read_id(text: str) -> str | None:
    """The id of a batch or of a code, as it was typed; None for anything else."""
    found = _ID.fullmatch(text.strip().upper().translate(_LIKE))
    return None if found is None else found[0]


def _code(symbols: str) -> Code:
    batch = symbols[:BATCH]
    digest = hashlib.sha256(f"aurixel-voucher-1:{symbols}".encode()).digest()
    locator = _symbols(int.from_bytes(digest[:5]), LOCATOR)
    grouped = "-".join(symbols[start : start + 4] for start in range(0, LENGTH, 4))
    return Code(Secret(grouped), batch, f"{batch}-{locator}", digest.hex())


def _is_filler(symbol: str) -> bool:
    """Spaces, dashes of any length, and what is not seen at all: what comes along when a code is copied."""
    return symbol.isspace() or unicodedata.category(symbol) in ("Pd", "Cf", "Cc")


def _check(stem: int) -> int:
    # The bits are in the order of the symbols, so that errors in neighbours are one burst; all ones to begin with, so
    # that a row of zeros is no code.
    return binascii.crc_hqx(stem.to_bytes(16), 0xFFFF)


def _number(symbols: str) -> int:
    number = 0
    for symbol in symbols:
        number = number << 5 | _VALUES[symbol]
    return number


def _symbols(number: int, length: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(length)))
