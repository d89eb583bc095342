"""`openai_transcriptions` and `openai_translations`: POST /v1/audio/transcriptions and /v1/audio/translations.

A sound goes up as it comes, and what it costs is counted in tokens and in seconds: the upstream's where it reports them,
else those of the upload. Refused: what is no sound, and what has no price.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec

from aurixel.dialects.json_fields import missing, wrong
from aurixel.dialects.openai_beside_chat.magic import TELLING, is_no_sound
from aurixel.dialects.openai_beside_chat.multipart import File
from aurixel.dialects.openai_beside_chat.outline import TypedEvents, decode_reply
from aurixel.dialects.openai_beside_chat.sounds import SPARSEST, Sound, longest
from aurixel.dialects.openai_beside_chat.uploads import COMMON, FormReader, OpenAIUploads
from aurixel.dialects.readers import BYTES_PER_TOKEN, MAX_COUNT, Count, Counts, invalid, nonzero, part_of, text_size
from aurixel.errors import ClientError, ProviderError
from aurixel.plugin.contracts import InputBound, ParsedRequest, ReplyReader, StreamReader, UploadReader
from aurixel.values import Usage

# What a second of sound is taken for where nobody reports its tokens.
TOKENS_PER_SECOND: Final = 17
# A reply may be any of these whatever was asked for: some models know one format only.
REPLIES: Final = ("application/json", "text/plain", "text/vtt", "text/srt", "application/x-subrip", "application/srt")
STREAMED: Final = ("text/event-stream", *REPLIES)
# Of a reply that does not stream although it was asked to, in bytes.
_MAX_WHOLE: Final = 32 * 1024 * 1024
_JSON: Final = frozenset({"json", "verbose_json", "diarized_json"})
# Fields that never become part of the prompt; every other one, unknown ones included, is counted as input.
_NOT_INPUT: Final = COMMON | {
    "chunking_strategy",
    "include[]",
    "language",
    "response_format",
    "temperature",
    "timestamp_granularities[]",
}


class SoundReader(FormReader):
    """Reads a form with a sound in it. The model before the file is all that must be known of it to pass it on."""

    keep: ClassVar[frozenset[str]] = COMMON | {"response_format"}
    single: ClassVar[frozenset[str]] = keep | {"language", "prompt", "temperature", "chunking_strategy"}
    files: ClassVar[frozenset[str]] = frozenset({"file"})

    def __init__(self, dialect: str, boundary: bytes, length: int | None, *, streams: bool) -> None:
        super().__init__(dialect, boundary, length, self._file)
        self._streams = streams
        self.sound: Sound | None = None
        self._sound_at = 0  # how much of the form is something else, at least

    def _file(self, name: str, filename: str, kind: str) -> File:
        if name != "file":
            raise ClientError("invalid_request", "The only file of this request is 'file'.", param=name[:64])
        if self.sound is not None:
            raise ClientError("duplicate_key", "'file' is given twice.", param="file")
        self.sound = Sound(name, filename, kind)
        return self.sound

    def feed(self, chunk: bytes) -> None:
        """See `UploadReader`."""
        told = self.sound is not None and (self.sound.size >= TELLING or self.sound.whole)
        super().feed(chunk)
        sound = self.sound
        if not told and sound is not None and (sound.size >= TELLING or sound.whole):
            if not sound.size:
                raise ClientError("invalid_request", "'file' is empty.", param="file")
            if is_no_sound(sound.head[:TELLING], sound.filename, sound.kind):
                raise ClientError("invalid_request", "'file' is not the sound that it says it is.", param="file")

    def _decided(self) -> bool:
        sound = self.sound
        return sound is not None and (sound.size >= TELLING or sound.whole) and "model" in self.form.values

    @property
    def units(self) -> Mapping[str, int]:
        """See `UploadReader`."""
        return {"audio_seconds": self.seconds()[0]}

    def seconds(self) -> tuple[int, bool]:
        """Whole seconds of the sound, and whether that is what it says itself; until it is whole they are the most it can
        be."""
        if self.whole and self.sound is not None:
            return self.sound.seconds()
        return self._most_seconds(), False

    def text_bytes(self) -> int:
        """The words that come with the sound."""
        return sum(size for name, size in self.form.sizes.items() if name not in _NOT_INPUT)

    def _most_bytes(self) -> int:
        if self.sound is not None and self.sound.whole:
            return self.sound.size
        return max(self.size, self._length or 0)

    def _most_seconds(self) -> int:
        sound = self.sound
        most = longest(sound.head if sound is not None else b"", self._most_bytes())
        return max(most, sound.seconds()[0]) if sound is not None and sound.whole else most

    def _read(self) -> ParsedRequest:
        model = self.model()
        stream = self.flag("stream")
        if stream and not self._streams:
            raise wrong("stream", "false here")
        self.refuse_others()
        if self.sound is None:
            raise missing("file")
        size, seconds = self._most_bytes(), self._most_seconds()
        if seconds > -(-size // SPARSEST):  # it says so itself
            size = seconds * SPARSEST
        return ParsedRequest(
            dialect=self._dialect,
            model=model,
            stream=stream,
            fields={},
            bound=InputBound(text_bytes=self.text_bytes(), audio_bytes=size),
            needs=frozenset({"input", "input_audio", "output"}),  # where it is priced by tokens
            most={"audio_seconds": seconds},
            replies=STREAMED if stream else REPLIES,
            limitable=False,
            upload=self,
        )


class OpenAITranscriptions(OpenAIUploads):
    """The dialect."""

    name: ClassVar[str] = "openai_transcriptions"
    operation: ClassVar[str] = "transcription"
    streams: ClassVar[bool] = True

    def reader(self, boundary: bytes, length: int | None) -> UploadReader:
        """See `OpenAIUploads`."""
        return SoundReader(self.name, boundary, length, streams=self.streams)

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return TranscriptReader(_sound_reader(request))

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return TranscriptStreamReader(_sound_reader(request))


class OpenAITranslations(OpenAITranscriptions):
    """The dialect: the same, into English, and never streamed."""

    name: ClassVar[str] = "openai_translations"
    streams: ClassVar[bool] = False


def _sound_reader(request: ParsedRequest) -> SoundReader:
    assert isinstance(request.upload, SoundReader)
    return request.upload


# --- replies ----------------------------------------------------------------------------------------------------------

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _Details(msgspec.Struct, gc=False):
    audio_tokens: Count | None = None
    text_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    """Either in tokens or in seconds; some vendors use a chat's words, or say both."""

    seconds: _Seconds | None = None
    prompt_audio_seconds: _Seconds | None = None
    input_tokens: Count | None = None
    prompt_tokens: Count | None = None
    output_tokens: Count | None = None
    completion_tokens: Count | None = None
    input_token_details: _Details | None = None
    input_tokens_details: _Details | None = None

    def tokens(self) -> Counts | None:
        """The classes, None where none are reported. What is not said to be text is sound."""
        heard = self.input_tokens if self.input_tokens is not None else self.prompt_tokens
        written = self.output_tokens if self.output_tokens is not None else self.completion_tokens
        if heard is None and written is None:
            return None
        details = self.input_token_details or self.input_tokens_details or _Details()
        text = details.text_tokens or 0
        if text + (details.audio_tokens or 0) > (heard or 0):
            raise invalid("reports parts of its usage that exceed the whole")
        return {"input": text, "input_audio": (heard or 0) - text, "output": written or 0}


class _Transcript(msgspec.Struct, gc=False):
    text: str | None = None
    duration: _Seconds | str | None = None
    usage: _Usage | None = None


class _Event(msgspec.Struct, gc=False):
    delta: str | None = None
    text: str | None = None
    usage: _Usage | None = None


_TRANSCRIPT: Final = msgspec.json.Decoder(_Transcript)
_EVENT: Final = msgspec.json.Decoder(_Event)


class _Meter:
    """What an answer comes to, with what the upstream said of it and what is known of the upload."""

    def __init__(self, reader: SoundReader) -> None:
        self._reader = reader

    def usage(self, told: _Usage | None, duration: float | None, output_bytes: int) -> Usage:
        """Tokens and seconds, each as reported, else as the upload has them."""
        tokens = told.tokens() if told is not None else None
        return self.count(tokens, _seconds(told, duration), output_bytes)

    def count(self, tokens: Counts | None, reported: float | None, output_bytes: int) -> Usage:
        """As `usage`, taken apart. Words that came of no sound, or at no cost, are not believed."""
        guessed: set[str] = set()
        if output_bytes:
            reported, tokens = reported or None, tokens if tokens and any(tokens.values()) else None
        if reported is not None:
            seconds = -int(-reported // 1)
        else:
            seconds, known = self._reader.seconds()
            if not known:
                guessed.add("audio_seconds")
        if tokens is None:
            tokens = self.guess(seconds, output_bytes)
            guessed |= tokens.keys()
        counts = nonzero({**tokens, "audio_seconds": seconds})
        return Usage(counts, measured=not guessed, guessed=frozenset(guessed))

    def guess(self, seconds: int, output_bytes: int) -> Counts:
        """Tokens that nobody reported."""
        return {
            "input": -(-self._reader.text_bytes() // BYTES_PER_TOKEN),
            "input_audio": min(seconds * TOKENS_PER_SECOND, MAX_COUNT),
            "output": -(-output_bytes // BYTES_PER_TOKEN),
        }


def _seconds(told: _Usage | None, duration: float | None) -> float | None:
    """As reported, by whoever says more than nothing."""
    said = [told.seconds, told.prompt_audio_seconds, duration] if told is not None else [duration]
    return max((seconds for seconds in said if seconds is not None), default=None, key=bool)


def _duration(told: float | str | None) -> float | None:
    """Some vendors write the number as a text."""
    if isinstance(told, str):
        try:
            told = float(told)
        except ValueError:
            raise invalid("has a duration that is no number") from None
        if not 0 <= told <= MAX_COUNT:
            raise invalid("has an impossible duration")
    return told


class TranscriptReader:
    """Reads one whole reply, in whatever format it came."""

    def __init__(self, reader: SoundReader) -> None:
        self._reader, self._meter = reader, _Meter(reader)

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        asked = self._reader.text("response_format") or "json"
        if asked in _JSON or body.lstrip()[:1] == b"{":
            try:
                return self._read(body)
            except ProviderError:
                if asked in _JSON:
                    raise
        return self._meter.usage(None, None, len(body))

    def _read(self, body: bytes) -> Usage:
        reply = decode_reply(_TRANSCRIPT, body, "transcript")
        if reply.text is None:
            raise invalid("is no transcript")
        return self._meter.usage(reply.usage, _duration(reply.duration), text_size(reply.text))


class TranscriptStreamReader(TypedEvents):
    """Reads `transcript.text.delta`, `.segment` and at last `.done`; and a whole reply, where the model does not stream."""

    def __init__(self, reader: SoundReader) -> None:
        super().__init__()
        self._reader, self._meter = reader, _Meter(reader)
        self._body: list[bytes] | None = None
        self._size = 0
        self._heard: float | None = None
        self._whole: Usage | None = None

    def comes_as(self, kind: str) -> str:
        """See `ReadsKinds`."""
        if not kind.startswith("text/event-stream"):
            self._body = []
        return kind

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`."""
        if self._body is None:
            return super().feed(chunk)
        self._body.append(chunk)
        self._size += len(chunk)
        if self._size > _MAX_WHOLE:
            raise invalid("is too long")
        return b""

    def close(self) -> bytes:
        """See `StreamReader`."""
        if self._body is None:
            return super().close()
        body = b"".join(self._body)
        self.usage = self._whole = TranscriptReader(self._reader).read(body)
        self.output_bytes = len(body)
        self.done = self.started = True
        return body

    def _typed(self, kind: str, data: bytes) -> None:
        if kind not in ("transcript.text.delta", "transcript.text.segment", "transcript.text.done"):
            return
        event = self._decoded(_EVENT, data)
        self.started = True
        if kind == "transcript.text.delta":
            self.output_bytes += text_size(event.delta)
        elif kind == "transcript.text.segment":
            self.output_bytes += text_size(event.text)
        else:
            self.output_bytes = max(self.output_bytes, text_size(event.text))
            if event.usage is not None:
                self._heard = _seconds(event.usage, None)
                if (tokens := event.usage.tokens()) is not None:
                    self._report(tokens, final=True)
            self._finish()

    def delivered(self, input_tokens: int, output_bytes: int) -> Usage:
        """See `StreamReader`. A sound was heard to its end, however much of what it says came back."""
        if self._whole is not None:
            return self._whole
        counts = self._counts if self._counts_final else None
        if counts is not None and output_bytes < self._counted_at:
            part = self._meter.count(part_of(counts, output_bytes, self._counted_at), self._heard, output_bytes)
            return Usage(part.counts, measured=False, guessed=part.guessed | counts.keys())
        return self._meter.count(counts, self._heard, output_bytes)


__all__ = ["OpenAITranscriptions", "OpenAITranslations", "SoundReader", "TranscriptReader", "TranscriptStreamReader"]
