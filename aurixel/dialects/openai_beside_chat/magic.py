"""Tells by its first bytes what a file is, and whether it can be what its sender says it is. It reads no further.

It refuses what is plainly something else, or lacks the beginning that its kind always has. Another kind of sound or of
picture than the name says is the upstream's to judge: they go by the bytes as well.
"""

from __future__ import annotations

from typing import Final

# How many first bytes tell what a file is.
TELLING: Final = 64
# What a name and a media type call a kind. Each of these has one beginning only.
_SOUNDS: Final = frozenset(
    {"wav", "wave", "x-wav", "vnd.wave", "flac", "x-flac", "ogg", "oga", "opus", "webm", "m4a", "x-m4a", "mp4"}
)
_PICTURES: Final = frozenset({"png", "jpg", "jpeg", "gif", "webp"})
_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_OTHER: Final = (b"%PDF-", b"PK\x03\x04", b"\x1f\x8b", b"\x7fELF", b"\xd0\xcf\x11\xe0")
_TEXT: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n\x0c"
# Sounds that begin with letters, and are rare enough not to have a kind here.
_LETTERS: Final = (b"#!AMR", b"FORM", b"caff")


def sound_kind(head: bytes) -> str | None:
    """wav, flac, ogg, mp4, webm, mp3 or None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[4:8] in _BOXES:
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "webm"
    frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return "mp3" if head[:3] == b"ID3" or frame else None


def picture_kind(head: bytes) -> str | None:
    """png, jpeg, gif, webp or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def is_no_sound(head: bytes, filename: str, kind: str) -> bool:
    """Whether a file that begins so is no sound; `kind` is the media type its sender gives it, or empty."""
    if picture_kind(head) is not None:
        return True
    return sound_kind(head) is None and _is_other(head, filename, kind, _SOUNDS)


def is_no_picture(head: bytes, filename: str, kind: str) -> bool:
    """Whether a file that begins so is no picture."""
    if picture_kind(head) is not None:
        return False
    return sound_kind(head) not in (None, "mp4") or _is_other(head, filename, kind, _PICTURES)


def _is_other(head: bytes, filename: str, kind: str, strict: frozenset[str]) -> bool:
    text = not head.startswith(_LETTERS) and not head.translate(None, _TEXT)
    said = {filename.rpartition(".")[2].lower(), kind.partition("/")[2]}
    return text or head.startswith(_OTHER) or not said.isdisjoint(strict)


__all__ = ["TELLING", "is_no_picture", "is_no_sound", "picture_kind", "sound_kind"]
