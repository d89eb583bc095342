"""Tells of a sound file how long it lasts, from its first and last bytes and its size; it decodes nothing.

Seconds are bounded on both sides by the size of the file, whatever its headers claim, and are a bound where they say
nothing. Why the reader of headers is the one it is: docs/decisions/0021-uploads.md.
"""

from __future__ import annotations

import io
from math import ceil
from typing import BinaryIO, Final, cast

from tinytag import TinyTag, TinyTagException

from aurixel.dialects.magic import sound_kind
from aurixel.dialects.multipart import ENDS, File

# The sparsest encoding of speech that is in use, in bytes a second: no file lasts longer than its bytes at this rate.
SPARSEST: Final = 1000
# The densest of each kind: none is shorter than its bytes at this rate (pictures inside it aside).
_DENSEST: Final = {"mp3": 48_000, "ogg": 64_000, "mp4": 256_000, "flac": 1_600_000}
_NOWHERE: Final = 1 << 62


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
        """What it lasts at most, whole seconds, if it is no larger than now."""
        return longest(self.head, self.size)

    def seconds(self) -> tuple[int, bool]:
        """How long it lasts, rounded up to whole seconds, and whether its headers say so: else it is the bound."""
        most = self.most_seconds
        if self._seconds is None:
            self._seconds = self._told()
        if not self._seconds > 0:
            return most, False
        least = self.size / _DENSEST.get(sound_kind(self.head) or "", 1 << 62)
        return min(most, ceil(max(self._seconds, least))), True

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
    """Whole seconds that a file of `size` bytes lasts at most: of plain samples by their number, else at `SPARSEST`."""
    rate = SPARSEST
    at = head.find(b"fmt ", 12, 4096) if sound_kind(head) == "wav" else -1
    if at >= 0 and len(head) >= at + 24:
        coding, channels = (int.from_bytes(head[at + 8 + 2 * n : at + 10 + 2 * n], "little") for n in (0, 1))
        samples, bits = int.from_bytes(head[at + 12 : at + 16], "little"), int.from_bytes(head[at + 22 : at + 24], "little")
        if coding in (1, 3, 0xFFFE) and channels and samples and bits >= 8:
            rate = max(SPARSEST, channels * samples * (bits // 8))
    return max(1, -(-size // rate))


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


__all__ = ["SPARSEST", "Sound", "longest"]
