"""Reads the sound of `openai_speech`, as bytes or as events, and turns events into bytes for a client that asked for those.

Of sound without a report the tokens are guessed by its length, which is guessed by its bytes.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aurixel.dialects.openai_beside_chat.outline import TypedEvents
from aurixel.dialects.readers import Count, Counts, invalid
from aurixel.plugin.contracts import ParsedRequest

EVENTS: Final = "text/event-stream"
ANY_SOUND: Final = "application/octet-stream"
TOKENS_A_SECOND: Final = 20
_MP3: Final = 16_000
# What a second of speech usually comes to, by the media type it is sent as.
_BYTES_A_SECOND: Final[Mapping[str, int]] = MappingProxyType(
    {"audio/mpeg": _MP3, "audio/aac": _MP3, "audio/wav": 48_000, "audio/pcm": 48_000, "audio/flac": 24_000, "audio/opus": 8_000}
)


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count
    output_tokens: Count


class _Speech(msgspec.Struct, gc=False):
    audio: str = ""
    usage: _Usage | None = None


_SPEECH: Final = msgspec.json.Decoder(_Speech)


class SpeechReader(TypedEvents):
    """Reads events unless it is told that bytes come (`ReadsKinds`). `output_bytes` are those of the sound itself."""

    def __init__(self, request: ParsedRequest) -> None:
        super().__init__()
        self._characters = request.most
        self._bytes_a_second = _BYTES_A_SECOND.get(request.sent_as, _MP3)
        self._sent_as = request.sent_as
        self._is_sound = False
        self._sound = b""

    def comes_as(self, kind: str) -> str:
        """See `ReadsKinds`. Where the upstream says what sound it sends it is believed."""
        self._is_sound = not kind.startswith(EVENTS)
        self._bytes_a_second = _BYTES_A_SECOND.get(kind, self._bytes_a_second)
        return kind if kind.startswith("audio/") else self._sent_as

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`."""
        if not self._is_sound:
            return super().feed(chunk)
        self.started = True
        self.output_bytes += len(chunk)
        return chunk

    def close(self) -> bytes:
        """See `StreamReader`. Bytes end with their connection; an answer without any is none."""
        if not self._is_sound:
            return super().close()
        if not self.output_bytes:
            raise invalid("has no sound")
        self._finish()
        return b""

    def _event(self, event: bytes) -> bytes:
        self._sound = b""
        out = super()._event(event)
        return self._sound if self._sent_as else out

    def _typed(self, kind: str, data: bytes) -> None:
        if kind == "speech.audio.delta":
            self._sound = _decoded(self._decoded(_SPEECH, data).audio)
            self.output_bytes += len(self._sound)
            self.started = self.started or bool(self._sound)
        elif kind == "speech.audio.done":
            if not self.output_bytes:
                raise invalid("has no sound")
            if (told := self._decoded(_SPEECH, data).usage) is not None:
                self._report({"input": told.input_tokens, "output_audio": told.output_tokens}, final=True)
            self._finish()

    def _guess(self, output_bytes: int) -> Counts:
        return {"output_audio": -(-output_bytes * TOKENS_A_SECOND // self._bytes_a_second)}

    def _pieces(self, output_bytes: int) -> Mapping[str, int]:
        del output_bytes  # what is spoken is input
        return self._characters


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise invalid("contains sound that is not base64") from None


__all__ = ["ANY_SOUND", "EVENTS", "SpeechReader"]
