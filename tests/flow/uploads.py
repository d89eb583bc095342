"""Sounds, pictures and forms as clients upload them, and a gateway that takes them. It holds no test."""

from __future__ import annotations

import io
import wave
from typing import Any

from aurixel.testing.samples import sample_form

MODELS = """
[models."ear-seconds"]
operations = ["transcription"]
context = 16000
max_output = 2000
routes = [{ upstream = "up", model = "up-whisper" }]

[models."ear-twice"]
operations = ["transcription"]
context = 16000
max_output = 2000
routes = [{ upstream = "up", model = "up-whisper" }, { upstream = "up2", model = "second-whisper" }]

[models."painter"]
operations = ["images"]
context = 16000
max_output = 8192
routes = [{ upstream = "up", model = "up-painter" }]

[models."painter-tokens"]
operations = ["images"]
context = 16000
max_output = 8192
routes = [{ upstream = "up", model = "up-painter" }]

[models."ear-tokens"]
operations = ["transcription"]
context = 16000
max_output = 2000
routes = [{ upstream = "up", model = "up-listener" }]
"""
PRICES = """
[[price]]
model = "ear-seconds"
effective = 2025-01-01
audio_seconds = "0.0001"

[[price]]
model = "ear-twice"
effective = 2025-01-01
audio_seconds = "0.0001"

[[price]]
model = "painter"
effective = 2025-01-01
images = [
    { size = "1024x1024", usd = "0.02" },
    { size = "1024x1024", quality = "hd", usd = "0.08" },
]

[[price]]
model = "painter-tokens"
effective = 2025-01-01
input = "5.00"
input_image = "10.00"
output_image = "40.00"

[[price]]
model = "ear-tokens"
effective = 2025-01-01
input = "2.50"
input_audio = "6.00"
output = "10.00"
"""
BOUNDARY = "----a-boundary-of-the-tests"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def sound(seconds: float, rate: int = 8_000) -> bytes:
    """A WAV file of silence: 16 bits, one channel."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * round(rate * seconds)))
    return out.getvalue()


def form(fields: dict[str, str], *files: tuple[str, str, bytes]) -> bytes:
    """The form with the boundary of `KIND`."""
    return sample_form(fields, *files, boundary=BOUNDARY)


def tokens(heard: int, text: int, written: int) -> dict[str, Any]:
    """Usage in tokens as a transcription reports it; `text` is part of `heard`."""
    return {
        "type": "tokens",
        "input_tokens": heard,
        "output_tokens": written,
        "total_tokens": heard + written,
        "input_token_details": {"audio_tokens": heard - text, "text_tokens": text},
    }


__all__ = ["BOUNDARY", "KIND", "MODELS", "PRICES", "form", "sound", "tokens"]
