"""Reads the pixel size of a base64 image from its first bytes; it decodes no picture, and says None where it cannot tell.

PNG, JPEG, GIF and WebP. A JPEG's size may stand behind long metadata, so for that one more is looked at.
"""

from __future__ import annotations

import binascii
from typing import Final

_FIRST: Final = 4 << 10
_MORE: Final = 256 << 10  # three full metadata segments of a JPEG and something over


def base64_image_size(text: memoryview) -> tuple[int, int] | None:
    """Width and height of the image that `text`, base64 as it stands in JSON, begins with."""
    head = _decode(text, _FIRST)
    size = image_size(head)
    if size is None and head.startswith(b"\xff\xd8") and len(text) > _FIRST:
        size = image_size(_decode(text, _MORE))
    return size


def image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of the image that `head` begins with, both at least 1."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _pair(head, 16, 4, "big") if head[12:16] == b"IHDR" else None
    elif head.startswith((b"GIF87a", b"GIF89a")):
        size = _pair(head, 6, 2, "little")
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        size = _webp(head)
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg(head)
    else:
        size = None
    return size if size is not None and size[0] > 0 and size[1] > 0 else None


def _decode(text: memoryview, limit: int) -> bytes:
    part = bytes(text[:limit]).replace(b"\\/", b"/")
    try:
        return binascii.a2b_base64(part[: len(part) // 4 * 4])
    except binascii.Error:
        return b""


def _pair(data: bytes, at: int, width: int, order: str) -> tuple[int, int] | None:
    """Two unsigned integers of `width` bytes each."""
    if len(data) < at + 2 * width:
        return None
    little = order == "little"
    first, second = data[at : at + width], data[at + width : at + 2 * width]
    return int.from_bytes(first, "little" if little else "big"), int.from_bytes(second, "little" if little else "big")


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        size = _pair(data, 26, 2, "little")
        return None if size is None else (size[0] & 0x3FFF, size[1] & 0x3FFF)
    if kind == b"VP8L" and data[20:21] == b"\x2f" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        size = _pair(data, 24, 3, "little")
        return None if size is None else (size[0] + 1, size[1] + 1)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walks the segments up to the frame header (SOF0 to SOF15 without the three tables that share the range)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _pair(data, at + 5, 2, "big")
            return None if size is None else (size[1], size[0])
        if marker == 0xD9 or marker == 0xDA:
            return None
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD7 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
