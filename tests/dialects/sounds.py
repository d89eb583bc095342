"""Sound files made by hand, of any length and of no content: enough of each format for what reads their headers. It holds no
test."""

from __future__ import annotations

import struct


def mp3(seconds: float, kbps: int = 64, *, tag: int = 0) -> bytes:
    """Frames of MPEG 1 layer III at 44.1 kHz, one rate; `tag`: bytes of an ID3v2 tag before them."""
    rates = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    frame = 144_000 * kbps // 44_100
    head = bytes((0xFF, 0xFB, rates.index(kbps) << 4, 0xC0))
    count = round(seconds * 44_100 / 1152)
    size = bytes((tag >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return (b"ID3\x04\x00\x00" + size + bytes(tag) if tag else b"") + (head + bytes(frame - 4)) * count


def mixed_mp3(seconds: float) -> bytes:
    """Frames of 64 and 128 kbit/s by turns, and nothing that says how many."""
    slow, fast = mp3(0.026, 64), mp3(0.026, 128)
    return (slow + fast) * round(seconds * 44_100 / 1152 / 2)


def flac(seconds: float, size: int) -> bytes:
    """STREAMINFO and `size` bytes of frames that are none."""
    samples = round(seconds * 16_000)
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", 16_000 << 44 | 15 << 36 | samples) + bytes(16)
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + bytes(size)


def ogg_opus(seconds: float, size: int) -> bytes:
    """Pages of up to 4 kB, the last of which counts the samples."""

    def page(kind: int, granule: int, number: int, data: bytes) -> bytes:
        lacing = bytes([255] * (len(data) // 255) + [len(data) % 255])
        head = struct.pack("<4sBBQIIIB", b"OggS", 0, kind, granule, 7, number, 0, len(lacing))
        return head + lacing + data

    pages = [page(2, 0, 0, struct.pack("<8sBBHIHB", b"OpusHead", 1, 1, 0, 48_000, 0, 0))]
    pages.append(page(0, 0, 1, b"OpusTags" + struct.pack("<I", 4) + b"test" + bytes(4)))
    count = max(1, size // 4000)
    pages += [
        page(4 if n == count else 0, round(48_000 * seconds * n / count), n + 1, bytes(4000)) for n in range(1, count + 1)
    ]
    return b"".join(pages)


def box(name: bytes, data: bytes, *, wide: bool = False) -> bytes:
    """One box of an MP4."""
    if wide:
        return struct.pack(">I4sQ", 1, name, len(data) + 16) + data
    return struct.pack(">I4s", len(data) + 8, name) + data


def m4a(seconds: float, size: int, *, index_first: bool = False, index: int = 0, wide: bool = False) -> bytes:
    """`size` bytes of samples that are none, and their index, which is `index` bytes longer than it must be."""
    head = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, round(seconds * 1000), 0x10000, 0x100) + bytes(60)
    moov = box(b"moov", box(b"mvhd", head) + box(b"free", bytes(index)))
    mdat = box(b"mdat", bytes(size), wide=wide)
    start = box(b"ftyp", b"M4A \x00\x00\x02\x00M4A isom")
    return start + (moov + mdat if index_first else mdat + moov)


def wave(samples: int, bits: int, size: int, *, coding: int = 1, rate: int | None = None, fact: int | None = None) -> bytes:
    """One channel of so many samples a second, `size` bytes of them; `rate`: the bytes a second that the header says, `fact`:
    the samples in all."""
    plain = samples * bits // 8
    head = struct.pack("<HHIIHH", coding, 1, samples, plain if rate is None else rate, max(1, bits // 8), bits)
    told = struct.pack("<4sII", b"fact", 4, fact) if fact is not None else b""
    chunks = struct.pack("<4sI", b"fmt ", len(head)) + head + told + struct.pack("<4sI", b"data", size) + bytes(size)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


__all__ = ["box", "flac", "m4a", "mixed_mp3", "mp3", "ogg_opus", "wave"]
