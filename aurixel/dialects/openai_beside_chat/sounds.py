"""Tells of a sound file how long it lasts, from its first and last bytes and its size; it decodes nothing.

Seconds are no fewer than the size of the file allows, and a bound by it where its headers say nothing. More than that is
believed, up to a day, of what may hold silence in no bytes at all. Why the reader of headers is the one it is:
docs/decisions/0021-uploads.md.
"""

from __future__ import annotations

import io
from math import ceil
from struct import unpack_from
from typing import BinaryIO, Final, cast

from tinytag import TinyTag, TinyTagException

from aurixel.dialects.openai_beside_chat.magic import sound_kind
from aurixel.dialects.openai_beside_chat.multipart import ENDS, File

# The sparsest encoding of speech that is in use, in bytes a second: what says nothing of its length lasts no longer.
SPARSEST: Final = 1000
# The most that a header is believed, in seconds: a day.
MAX_SECONDS: Final = 24 * 60 * 60
# What may last longer than its bytes at `SPARSEST`: silence takes none. An MP3 has a least rate, which is just that; of a
# WAV `longest` tells.
_SPARSE: Final = frozenset({"flac", "ogg", "mp4"})
# The densest of each kind: none is shorter than its bytes at this rate (pictures inside it aside).
_DENSEST: Final = {"mp3": 48_000, "ogg": 64_000, "mp4": 256_000, "flac": 1_600_000}
_NOWHERE: Final = 1 << 62
_PLAIN: Final = (1, 3, 0xFFFE)  # codings of a WAV: samples as they are


class Sound(File):
    """A sound while it passes. Beside its ends it keeps `ENDS` bytes from where its headers stand, if that is elsewhere: the
    index of an MP4, and what follows the pictures at the beginning of an MP3."""

    def __init__(self, name: str, filename: str, kind: str) -> None:
        super().__init__(name, filename, kind)
        self._mark = -1  # where that is; -1: nobody knows yet
        self._marked = b""
        self._box = 0  # where the next box of an MP4 begins, at the top level
        self._box_head = b""
        self._seconds: float | None = None

    def write(self, data: bytes, start: int, end: int) -> None:
        """See `File`."""
        at = self.size
        super().write(data, start, end)
        if self._mark < 0:
            self._find(data, start, end, at)
        wanted = self._mark + len(self._marked)
        if self._mark >= 0 and at <= wanted < self.size and len(self._marked) < ENDS:
            begin = start + wanted - at
            self._marked += data[begin : min(end, begin + ENDS - len(self._marked))]

    def let_go(self) -> None:
        """See `File`."""
        super().let_go()
        self._marked = b""

    def _find(self, data: bytes, start: int, end: int, at: int) -> None:
        """Look for the place in `data[start:end]`, which stands at `at` of the file."""
        head = self.head[:10]
        kind = sound_kind(head)
        if kind == "mp4":
            self._walk(data, start, end, at)
        elif head[:3] == b"ID3" and len(head) == 10:
            self._mark = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        elif len(head) == 10:
            self._mark = _NOWHERE

    def _walk(self, data: bytes, start: int, end: int, at: int) -> None:
        """Follow the boxes of an MP4."""
        while self._box + len(self._box_head) < at + end - start:
            have = start + self._box + len(self._box_head) - at
            self._box_head += data[have : min(end, have + 16 - len(self._box_head))]
            size = int.from_bytes(self._box_head[:4], "big")
            if len(self._box_head) < (16 if size == 1 else 8):
                return
            if self._box_head[4:8] == b"moov":
                self._mark, self._marked = self._box, self._box_head[: max(0, at - self._box)]
                return
            if size == 1:
                size = int.from_bytes(self._box_head[8:16], "big")
            if size < 8:  # the last box, or nonsense
                self._mark = _NOWHERE
                return
            self._box += size
            self._box_head = b""

    @property
    def most_seconds(self) -> int:
        """What it lasts at most, whole seconds, if it is no larger than now and does not say more at its end."""
        return longest(self.head, self.size)

    def seconds(self) -> tuple[int, bool]:
        """How long it lasts, rounded up to whole seconds, and whether its headers say so: else it is the bound."""
        most = self.most_seconds
        if self._seconds is None:
            self._seconds = self._told()
        if not self._seconds > 0:
            return most, False
        kind = sound_kind(self.head) or ""
        least = self.size / _DENSEST.get(kind, 1 << 62)
        if kind in _SPARSE:
            most = max(most, MAX_SECONDS)
        return ceil(min(most, max(self._seconds, least))), True

    def _told(self) -> float:
        """Seconds by the headers; 0 where they say nothing."""
        kind = sound_kind(self.head)
        if kind is None or kind == "webm":
            return 0.0
        skipped = self._mark if kind == "mp3" and self._mark < self.size else 0
        tail = (self.size - skipped - len(self.tail), self.tail)
        parts = ((0, self._marked), tail) if skipped else ((0, self.head), tail, (self._mark, self._marked))
        ends = io.BytesIO(_joined_pages(self)) if kind == "ogg" else _Ends(self.size - skipped, *parts)
        try:
            tag = TinyTag.get(file_obj=cast(BinaryIO, ends), tags=False)
        except (TinyTagException, OverflowError):
            return 0.0
        missed = isinstance(ends, _Ends) and ends.missed
        if kind == "mp3" and missed:  # it looked for more frames than were kept: their mean rate is known
            return (self.size - skipped) / (tag.bitrate * 125) if tag.bitrate else 0.0
        return tag.duration or 0.0


def longest(head: bytes, size: int) -> int:
    """Whole seconds that a file of `size` bytes lasts at most, as far as its first bytes tell: of plain samples by their
    number, else at `SPARSEST`, or as long as its header says, if that is longer."""
    by_size = size / SPARSEST
    kind = sound_kind(head)
    if kind == "wav":
        by_size, said = _wave(head, size)
    elif kind == "flac":
        said = _flac(head)
    else:
        said = _index(head) if kind == "mp4" else 0.0
    return max(1, ceil(by_size), ceil(min(said, MAX_SECONDS)))


def _wave(head: bytes, size: int) -> tuple[float, float]:
    """Seconds of a WAV by its size, and as its header says."""
    said, samples, plain, at = 0.0, 0, False, 12
    by_size = size / SPARSEST
    while len(head) >= at + 12:
        name, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"fmt " and len(head) >= at + 24:
            coding, channels, samples, rate, block, bits = unpack_from("<HHIIHH", head, at + 8)
            plain = coding in _PLAIN and min(channels, samples, bits // 8) > 0
            if plain:
                rate = samples * min(block or _NOWHERE, channels * (bits // 8))
            if rate:
                said = size / rate
                by_size = said if plain and rate > SPARSEST else by_size
        elif name == b"fact" and samples and not plain:
            said = max(said, int.from_bytes(head[at + 8 : at + 12], "little") / samples)
        elif name == b"data":
            break
        at += 8 + length + length % 2
    return by_size, said


def _flac(head: bytes) -> float:
    """Seconds of a FLAC as its first block says; 0 where it does not."""
    if len(head) < 26:
        return 0.0
    info = int.from_bytes(head[18:26], "big")
    return (info & ((1 << 36) - 1)) / (info >> 44) if info >> 44 else 0.0


def _index(head: bytes) -> float:
    """Seconds of an MP4 as its index says, where that is among its first bytes; else 0."""
    at = 0
    while len(head) >= at + 8:
        size, name = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        if name == b"moov":
            size = 8
        elif name == b"mvhd":
            wide = head[at + 8 : at + 9] == b"\1"
            scale, length = (at + 28, 8) if wide else (at + 20, 4)
            if len(head) < scale + 4 + length:
                return 0.0
            ticks = int.from_bytes(head[scale : scale + 4], "big")
            return int.from_bytes(head[scale + 4 : scale + 4 + length], "big") / ticks if ticks else 0.0
        if size < 8:
            return 0.0
        at += size
    return 0.0


def _joined_pages(sound: Sound) -> bytes:
    """An Ogg file without its middle: what counts its samples is in its first and in its last pages."""
    if sound.size <= ENDS:
        return sound.head
    return sound.head[: sound.head.rfind(b"OggS")] + sound.tail[max(0, sound.tail.find(b"OggS")) :]


class _Ends:
    """A file of which only parts are left. `missed`: something else of it was asked for, and not given."""

    def __init__(self, size: int, *parts: tuple[int, bytes]) -> None:
        """`parts` are places in the file, and what stands there."""
        self._parts, self._size = parts, size
        self._at = 0
        self.missed = False

    def read(self, size: int = -1) -> bytes:
        """As a file's; nothing where there is a hole."""
        size = max(0, self._size - self._at) if size < 0 else min(size, max(0, self._size - self._at))
        pieces = []
        for begin, part in self._parts:
            if size and 0 <= self._at - begin < len(part):
                pieces.append(part[self._at - begin : self._at - begin + size])
                self._at += len(pieces[-1])
                size -= len(pieces[-1])
        self.missed |= size > 0
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """As a file's."""
        return self._at


__all__ = ["MAX_SECONDS", "SPARSEST", "Sound", "longest"]
