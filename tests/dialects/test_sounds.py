"""How long a sound lasts, from its two ends: right where its headers say so, never less nor more than its bytes allow."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.openai_beside_chat.magic import is_no_picture, is_no_sound, picture_kind, sound_kind
from aurixel.dialects.openai_beside_chat.multipart import ENDS
from aurixel.dialects.openai_beside_chat.sounds import MAX_SECONDS, SPARSEST, Sound, longest
from tests.dialects.sounds import flac, m4a, mixed_mp3, mp3, ogg_opus, wave
from tests.flow.uploads import sound as wav

MEGABYTE = 1_000_000


def passed(data: bytes, piece: int = 65_536) -> Sound:
    """The sound once it has passed in pieces, each a part of something longer."""
    sound = Sound("file", "x", "")
    for at in range(0, len(data), piece):
        part = b"<" + data[at : at + piece] + b">"
        sound.write(part, 1, len(part) - 1)
    sound.whole = True
    return sound


@pytest.mark.parametrize("piece", [1_000, 65_536, 1 << 20], ids=["small", "medium", "large"])
@pytest.mark.parametrize(
    ("data", "kind", "seconds"),
    [
        (wav(0.5), "wav", 1),
        (wav(1.0), "wav", 1),
        (wav(200.5), "wav", 201),
        (mp3(3, 64), "mp3", 4),
        (mp3(300, 64), "mp3", 301),
        (mp3(300, 64, tag=500), "mp3", 301),
        (mp3(300, 64, tag=200_000), "mp3", 301),
        (mixed_mp3(120), "mp3", 121),
        (flac(61.2, MEGABYTE), "flac", 62),
        (ogg_opus(5, 20_000), "ogg", 5),
        (ogg_opus(600.1, MEGABYTE), "ogg", 601),
        (m4a(30, 40_000), "mp4", 30),
        (m4a(100.5, MEGABYTE), "mp4", 101),
        (m4a(100.5, MEGABYTE, index_first=True), "mp4", 101),
        (m4a(100.5, MEGABYTE, index=300_000), "mp4", 101),
        (m4a(100.5, MEGABYTE, index=300_000, wide=True), "mp4", 101),
    ],
)
def test_seconds(data: bytes, kind: str, seconds: int, piece: int) -> None:
    sound = passed(data, piece)
    assert sound_kind(sound.head) == kind
    found, known = sound.seconds()
    assert known
    assert abs(found - seconds) <= (1 if kind == "mp3" else 0), found
    assert found <= sound.most_seconds


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x45\xdf\xa3" + bytes(50_000),
        b"RIFF" + bytes(4) + b"WAVE" + bytes(50_000),
        b"OggS" + bytes(50_000),
        b"fLaC" + bytes(50_000),
        b"\x00\x00\x00\x18ftypM4A " + bytes(50_000),
        b"ID3" + b"\xff" * 50_000,
        os.urandom(50_000),
    ],
)
def test_what_says_nothing_is_bounded(data: bytes) -> None:
    assert passed(data).seconds() == (max(1, -(-len(data) // SPARSEST)), False)


@pytest.mark.parametrize("data", [flac(0.01, MEGABYTE), ogg_opus(0.01, MEGABYTE), m4a(0.01, MEGABYTE)])
def test_a_header_that_says_too_little_is_not_believed(data: bytes) -> None:
    seconds, _ = passed(data).seconds()
    assert seconds >= 1
    if not data.startswith(b"fLaC"):
        assert seconds >= 4


SILENCE = [flac(3600, 5_000), ogg_opus(3600, 5_000), m4a(3600, 5_000), m4a(3600, 5_000, index_first=True)]


@pytest.mark.parametrize("data", SILENCE, ids=["flac", "ogg", "m4a", "m4a_index_first"])
def test_silence_lasts_as_long_as_its_header_says_however_few_its_bytes(data: bytes) -> None:
    assert passed(data).seconds() == (3600, True)


@pytest.mark.parametrize(
    "data", [flac(3600, 5_000), m4a(3600, 5_000, index_first=True), wave(1, 8, 3_600), wave(1_000, 16, 3_600, coding=2, rate=1)]
)
def test_what_its_first_bytes_say_of_its_length_is_known_before_the_rest(data: bytes) -> None:
    assert longest(data[:200], len(data)) >= 3600
    assert passed(data).most_seconds >= 3600


@pytest.mark.parametrize("data", [flac(1e6, 5_000), ogg_opus(1e6, 5_000), m4a(1e6, 5_000), m4a(1e6, 5_000, index_first=True)])
def test_one_that_says_too_much_is_believed_up_to_a_day(data: bytes) -> None:
    sound = passed(data)
    assert sound.seconds() == (MAX_SECONDS, True)
    assert sound.most_seconds <= MAX_SECONDS
    assert longest(data[:200], len(data)) <= MAX_SECONDS
    assert longest(data[:200], 200_000_000) == 200_000  # by its bytes it may last longer


def test_samples_that_are_few_a_second_last_long() -> None:
    """Of plain ones the header says how many; of others how many bytes, and how many samples in all."""
    assert passed(wave(100, 8, 20_000)).seconds() == (200, True)
    assert passed(wave(8_000, 4, 20_000, coding=2, rate=500, fact=8_000 * 40)).seconds() == (40, True)
    assert longest(wave(8_000, 4, 20_000, coding=2, rate=500)[:64], 20_000) == 40
    assert longest(wave(8_000, 4, 20_000, coding=2, rate=64_000, fact=8_000 * 60)[:64], 20_000) == 60
    assert longest(wave(8_000, 4, 20_000, coding=2, rate=64_000)[:64], 20_000) == 20
    assert longest(wave(8_000, 4, 20_000, coding=2, rate=0)[:64], 20_000) == 20
    assert longest(wave(1, 8, 1_000_000)[:64], 1_000_000) == MAX_SECONDS


def test_a_chunk_that_only_looks_like_the_format_is_passed_over() -> None:
    real = wave(8_000, 16, 16_000)
    fake = b"JUNK" + (24).to_bytes(4, "little") + wave(1_000_000, 16, 0)[12:36]
    assert longest(real[:12] + fake + real[12:], 16_000) == longest(real, 16_000) == 1


def test_a_sound_that_comes_byte_by_byte_takes_no_more_room() -> None:
    data = os.urandom(100_000)
    tracemalloc.start()
    try:
        sound = Sound("file", "x", "")
        for at in range(len(data)):
            sound.write(data[at : at + 1], 0, 1)
        assert tracemalloc.get_traced_memory()[1] < 16 * ENDS
    finally:
        tracemalloc.stop()
    assert sound.tail[-ENDS:] == data[-ENDS:]
    assert sound.head[:ENDS] == data[:ENDS]


def test_a_wave_of_unknown_length_is_measured_by_its_bytes() -> None:
    data = bytearray(wav(100))
    data[4:8] = data[40:44] = b"\xff" * 4
    assert passed(bytes(data)).seconds()[0] in (100, 101)
    assert longest(bytes(data[:64]), len(data)) in (100, 101)
    assert longest(b"", 2_500) == 3


@given(st.binary(min_size=0, max_size=2000), st.sampled_from([wav(0.1), mp3(1), flac(1, 500), ogg_opus(1, 5000), m4a(1, 500)]))
def test_garbage_never_fails(noise: bytes, start: bytes) -> None:
    for cut in (12, 40, 100, len(start)):
        sound = passed(start[:cut] + noise, 97)
        seconds, _ = sound.seconds()
        assert 1 <= seconds <= max(sound.most_seconds, MAX_SECONDS)


@pytest.mark.parametrize(
    ("head", "filename", "kind"),
    [
        (b"%PDF-1.7", "talk.mp3", "audio/mpeg"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a.wav", ""),
        (b"\xff\xd8\xff\xe0", "a.mp3", "audio/mpeg"),
        (b"PK\x03\x04" + bytes(9), "talk.m4a", ""),
        (b"Hello, this is a text", "a.mp3", ""),
        (b'{"json": true}', "", ""),
        (b"<html>", "x", "application/octet-stream"),
        (bytes(64), "a.wav", ""),
        (bytes(64), "x", "audio/flac"),
        (bytes(64), "x", "audio/webm"),
    ],
)
def test_no_sound(head: bytes, filename: str, kind: str) -> None:
    assert is_no_sound(head, filename, kind)


@pytest.mark.parametrize(
    ("head", "filename", "kind"),
    [
        (wav(0.01)[:64], "a.mp3", "audio/mpeg"),
        (mp3(1)[:64], "a.wav", ""),
        (b"ID3\x04" + bytes(60), "a.mp3", ""),
        (bytes(64), "a.mp3", "audio/mpeg"),
        (b"#!AMR\n" + bytes(20), "a.amr", ""),
        (b"FORM\x00\x00\x10\x00AIFF", "a.aiff", ""),
        (bytes(64), "upload", "application/octet-stream"),
    ],
)
def test_perhaps_a_sound(head: bytes, filename: str, kind: str) -> None:
    assert not is_no_sound(head, filename, kind)


def test_pictures_by_their_first_bytes() -> None:
    png, jpeg, webp = b"\x89PNG\r\n\x1a\n" + bytes(9), b"\xff\xd8\xff\xe0" + bytes(9), b"RIFF\x01\x01\x01\x01WEBPVP8 "
    assert [picture_kind(head) for head in (png, jpeg, webp, b"GIF89a", b"GIF8")] == ["png", "jpeg", "webp", "gif", None]
    assert not is_no_picture(png, "a.jpg", "image/jpeg")
    assert not is_no_picture(b"\x00\x00\x00\x18ftypavif", "a.avif", "")
    assert not is_no_picture(bytes(64), "upload", "application/octet-stream")
    for head in (b"%PDF-1", wav(0.1)[:64], mp3(1)[:64], b"<svg></svg>", b"some text"):
        assert is_no_picture(head, "a", "")
    assert is_no_picture(bytes(64), "a.png", "")
