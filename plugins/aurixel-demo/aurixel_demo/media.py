"""Writes the demo's answers that are no conversation: vectors, verdicts, a picture, a sound and what is heard in one. Pure:
the same request, the same bytes. A word is a token here too.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import msgspec

from aurixel_demo.script import Script

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
DIMENSIONS: Final = 64
PIXELS: Final = 64
PICTURE_TOKENS: Final = 64
PREVIEW_TOKENS: Final = 16
RATE: Final = 8_000  # samples of the tone a second, of two bytes
SECONDS: Final = 0.5
SOUND_TOKENS: Final = 10
_PIECE: Final = 1_000
_CATEGORIES: Final = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


class Answer(msgspec.Struct, frozen=True):
    """A reply of status 200: its media type, and its body in the pieces it is sent in."""

    kind: str
    pieces: tuple[bytes, ...]


def answer(dialect: str, script: Script, created: int) -> Answer | None:
    """The answer, or None for a dialect that is a conversation."""
    write = _WRITERS.get(dialect)
    return write(script, created) if write is not None else None


# --- vectors and verdicts ---------------------------------------------------------------------------------------------


def _embeddings(script: Script, created: int) -> Answer:
    del created
    size = script.request.get("dimensions") or DIMENSIONS
    packed = script.request.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(_inputs(script.request)):
        vector: Any = _vector(text, size)
        if packed:
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": script.input_tokens, "total_tokens": script.input_tokens}
    return _json({"object": "list", "data": data, "model": script.model, "usage": usage})


def _inputs(request: Mapping[str, Any]) -> Sequence[Any]:
    """The texts of a request, or the tokens that stand for one."""
    asked = request.get("input")
    return asked if isinstance(asked, list) and not (asked and isinstance(asked[0], int)) else [asked]


def _vector(text: Any, size: int) -> list[float]:
    """Of length one; texts that share words point in similar directions."""
    vector = [0.0] * size
    for word in text.lower().split() if isinstance(text, str) else map(str, text or ()):
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % size] += 1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _moderations(script: Script, created: int) -> Answer:
    """A text is flagged for a category that it names."""
    del created
    results = []
    for part in _inputs(script.request):
        text = part.get("text") if isinstance(part, Mapping) else part
        words = str(text).lower().split()
        found = {name: name in words for name in _CATEGORIES}
        results.append(
            {
                "flagged": any(found.values()),
                "categories": found,
                "category_scores": {name: float(flagged) for name, flagged in found.items()},
                "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
            }
        )
    return _json({"id": f"modr-{script.id}", "model": script.model, "results": results})


# --- a picture --------------------------------------------------------------------------------------------------------


def _images(script: Script, created: int, kind: str = "image_generation") -> Answer:
    """One small picture, as often as asked for, in the colour of its prompt; an address is one that holds the picture."""
    drawn = base64.b64encode(picture(script.id)).decode()
    told = {"size": f"{PIXELS}x{PIXELS}", "quality": "low", "output_format": "png", "background": "opaque"}
    if script.stream:
        return Answer(EVENTS, tuple(_drawing(script, drawn, kind, {**told, "created_at": created})))
    as_url = script.request.get("response_format") == "url"
    picture_of = {"url": f"data:image/png;base64,{drawn}"} if as_url else {"b64_json": drawn}
    count = script.choices
    usage = _picture_usage(script, count * PICTURE_TOKENS)
    return _json({"created": created, **told, "data": [picture_of] * count, "usage": usage})


def _drawing(script: Script, drawn: str, kind: str, told: Mapping[str, Any]) -> Iterator[bytes]:
    previews = script.request.get("partial_images") or 0
    for index in range(previews):
        yield _event(f"{kind}.partial_image", b64_json=drawn, partial_image_index=index, **told)
    usage = _picture_usage(script, PICTURE_TOKENS + previews * PREVIEW_TOKENS)
    yield _event(f"{kind}.completed", b64_json=drawn, usage=usage, **told)


def _picture_usage(script: Script, output: int) -> dict[str, Any]:
    asked = script.input_tokens
    return {
        "input_tokens": asked,
        "output_tokens": output,
        "total_tokens": asked + output,
        "input_tokens_details": {"text_tokens": asked, "image_tokens": 0},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
    }


def picture(seed: str) -> bytes:
    """A PNG: a disc on a ground, both in colours of the seed."""
    colours = hashlib.sha256(seed.encode()).digest()
    ground, disc, middle = colours[:3], colours[3:6], PIXELS / 2
    rows = bytearray()
    for y in range(PIXELS):
        rows.append(0)
        for x in range(PIXELS):
            rows += disc if math.hypot(x - middle, y - middle) < PIXELS / 3 else ground
    head = struct.pack(">IIBBBBB", PIXELS, PIXELS, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


# --- a sound ----------------------------------------------------------------------------------------------------------


def _speech(script: Script, created: int) -> Answer:
    """A tone, whatever the words and the format: bare samples if `pcm` is asked for, else a WAV file."""
    del created
    bare = script.request.get("response_format") == "pcm"
    sound = tone() if bare else wav(tone())
    pieces = tuple(sound[at : at + _PIECE] for at in range(0, len(sound), _PIECE))
    if script.request.get("stream_format") != "sse":
        return Answer("audio/pcm" if bare else "audio/wav", pieces)
    events = [_event("speech.audio.delta", audio=base64.b64encode(piece).decode()) for piece in pieces]
    asked = script.input_tokens
    usage = {"input_tokens": asked, "output_tokens": SOUND_TOKENS, "total_tokens": asked + SOUND_TOKENS}
    return Answer(EVENTS, (*events, _event("speech.audio.done", usage=usage)))


def tone() -> bytes:
    """Half a second of an A, rising and falling."""
    count = round(RATE * SECONDS)
    loudness = (math.sin(math.pi * at / count) * 8_000 for at in range(count))
    return b"".join(
        struct.pack("<h", round(loud * math.sin(2 * math.pi * 440 * at / RATE))) for at, loud in enumerate(loudness)
    )


def wav(samples: bytes) -> bytes:
    """The samples as a WAV file of one channel."""
    form = struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- an ear -----------------------------------------------------------------------------------------------------------


def _transcript(script: Script, created: int) -> Answer:
    """How long the sound is, in words, in the format that was asked for."""
    del created
    seconds = round(float(script.request.get("seconds", 0)), 3)
    words = ["This ", "is ", "the ", "demo. ", "It ", "heard ", f"{seconds:g} ", "seconds ", "of ", "sound."]
    text, usage = "".join(words), {"type": "duration", "seconds": math.ceil(seconds)}
    if script.stream:
        deltas = [_event("transcript.text.delta", delta=word) for word in words]
        return Answer(EVENTS, (*deltas, _event("transcript.text.done", text=text, usage=usage)))
    asked = script.request.get("response_format", "json")
    end = f"00:{int(seconds) // 60:02}:{seconds % 60:06.3f}"
    if asked == "text":
        return Answer("text/plain", (f"{text}\n".encode(),))
    if asked == "srt":
        return Answer("application/x-subrip", (f"1\n00:00:00,000 --> {end.replace('.', ',')}\n{text}\n\n".encode(),))
    if asked == "vtt":
        return Answer("text/vtt", (f"WEBVTT\n\n00:00:00.000 --> {end}\n{text}\n\n".encode(),))
    if asked == "verbose_json":
        part = {"id": 0, "start": 0.0, "end": seconds, "text": text}
        return _json(
            {"task": "transcribe", "language": "english", "duration": seconds, "text": text, "segments": [part], "usage": usage}
        )
    return _json({"text": text, "usage": usage})


def _json(value: Any) -> Answer:
    return Answer(JSON, (msgspec.json.encode(value),))


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


_WRITERS: Final[Mapping[str, Callable[[Script, int], Answer]]] = MappingProxyType(
    {
        "openai_embeddings": _embeddings,
        "openai_moderations": _moderations,
        "openai_images": _images,
        "openai_image_edits": partial(_images, kind="image_edit"),
        "openai_image_variations": _images,
        "openai_speech": _speech,
        "openai_transcriptions": _transcript,
        "openai_translations": _transcript,
    }
)
