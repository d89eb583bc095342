"""The lines of a journal: what can be said in one, how it is written, and how it is read back.

It promises that a line read back is the line written, in the place where it was written: each carries a checksum over
itself and all lines before it in its file, so that a changed, missing, repeated or moved line is seen. An unfinished last
line is what a crash leaves and is not read; any other damage is a `JournalError` that names file and offset, never guessed
around. It opens files to read only.

A line: eight hex digits of CRC-32, a space, a JSON array, a line end. The arrays are positional: a field that comes later
goes last, with a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from aurixel.errors import JournalError
from aurixel.ledger.contracts import Intent, Settlement
from aurixel.values import Nanos

FORMAT: Final = 2
_BUFFER: Final = 1 << 20


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="head"):
    """The first line of a segment."""

    format: int
    inc: str
    number: int


class Confirmed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="c"):
    """Carried forward: frame `s` of an account is in the store, and none after it was seen there."""

    account: str
    s: int


class Begun(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="begun"):
    """What was open is carried forward whole: from here on the segment stands for all before it. `s`: the last frame made."""

    s: int


class Settled(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="s", gc=False):
    """The end of a request whose intent is in an earlier line."""

    request_id: str
    settlement: Settlement


class Frozen(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="f"):
    """A frame: settlements that are posted together as number `s`, right after `prev` (None: never posted)."""

    s: int
    account: str
    prev: int | None
    requests: tuple[str, ...]
    cost: Nanos


class Done(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="d"):
    """Frame `s` is in the store, whole."""

    s: int


Entry: TypeAlias = Head | Confirmed | Begun | Intent | Settled | Frozen | Done

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def pack(entry: Entry, before: int) -> tuple[bytes, int]:
    """The line of an entry, and its checksum; `before` is that of the line before it, 0 for the first of a file."""
    body = _encode(entry)
    crc = crc32(body, before)
    return b"%08x %b\n" % (crc, body), crc


def pack_all(entries: Iterator[Entry]) -> tuple[bytes, int]:
    """The first lines of a file, and the checksum of the last."""
    lines, crc = [], 0
    for entry in entries:
        line, crc = pack(entry, crc)
        lines.append(line)
    return b"".join(lines), crc


class Lines:
    """The entries of one file, once. `start` and `end` are the offsets of the one just given, `crc` its checksum."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = self.end = self.crc = 0
        self.torn = 0  # bytes behind the last whole line, once all are read

    @property
    def place(self) -> str:
        """Where the line just given stands."""
        return f"{self.path}:{self.start}"

    def __iter__(self) -> Iterator[Entry]:
        """`FileNotFoundError` where the file is gone, `JournalError` at the first damaged line."""
        try:
            with open(self.path, "rb", buffering=_BUFFER) as file:
                for line in file:
                    self.start = self.end
                    if not line.endswith(b"\n"):
                        # No more of it is read: a running node may be writing it.
                        self._check_torn(line)
                        return
                    yield self._entry(line)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise JournalError(f"cannot be read ({error.strerror})", place=str(self.path)) from error

    def _entry(self, line: bytes) -> Entry:
        body = line[9:-1]
        crc = crc32(body, self.crc)
        if line != b"%08x %b\n" % (crc, body):
            raise JournalError("this line is damaged, or not where it was written", place=self.place)
        try:
            entry: Entry = _decode(body)
        except msgspec.MsgspecError as error:
            raise JournalError("this line is not of a known kind or version", place=self.place) from error
        self.end += len(line)
        self.crc = crc
        return entry

    def _check_torn(self, tail: bytes) -> None:
        """A cut line is shorter than it was meant: one that is whole lost its line end to something other than a crash."""
        self.torn = len(tail)
        text = tail.rstrip(b"\0")  # a file system may leave zeros after a power failure
        body = text[9:-1]
        if body and text[:9] == b"%08x " % crc32(body, self.crc):
            raise JournalError("this line has lost its end", place=self.place)
