"""`openai_speech`: POST /v1/audio/speech. Sound goes out as it comes, as bytes or as events, whichever the client asked for.

Where the model is priced by tokens the upstream is asked for events, the only form that reports them, and a client that
asked for bytes gets the bytes in them. Refused: voices of the shared upstream account, and a silent answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

import msgspec

from aurixel.dialects.bounds import Media, input_bytes, measure
from aurixel.dialects.json_fields import (
    check_content_type,
    decode_field,
    decode_object,
    given,
    missing,
    read_model,
    read_str,
    unsupported,
    wrong,
)
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia, refuse_tiers
from aurixel.dialects.openai_beside_chat.speech_replies import ANY_SOUND, EVENTS, SpeechReader
from aurixel.dialects.patch import patched
from aurixel.plugin.contracts import Body, Changes, ParsedRequest, ReplyReader, StreamReader

# `response_format` -> what the sound is sent as.
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
)
_NOT_INPUT: Final = frozenset({"model", "response_format", "service_tier", "speed", "store", "stream_format", "voice"})


class _Voice(msgspec.Struct, gc=False):
    """One of the account's own, by its id."""


_VOICE: Final = msgspec.json.Decoder(str | _Voice)


class OpenAISpeech(OpenAIMedia):
    """The dialect."""

    name: ClassVar[str] = "openai_speech"
    operation: ClassVar[str] = "speech"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`. Characters are counted as Unicode has them."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        text = read_str(fields, "input")
        if not text:
            raise missing("input") if text is None else wrong("input", "a text")
        if (raw := given(fields, "voice")) is not None and not isinstance(
            decode_field(_VOICE, raw, "voice", "the name of a voice"), str
        ):
            raise unsupported("voice", "A voice by its id")
        refuse_tiers(fields)
        stream_format = read_str(fields, "stream_format")
        if stream_format not in (None, "audio", "sse"):
            raise wrong("stream_format", "audio or sse")
        events = stream_format == "sse"
        kind = KINDS.get(read_str(fields, "response_format") or "mp3", ANY_SOUND)
        text_bytes = input_bytes(fields, _NOT_INPUT)
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=True,
            fields=fields,
            bound=measure(Media(), text_bytes=text_bytes, messages=1, tools=0),
            most={"characters": len(text)},
            replies=(EVENTS,) if events else ("audio/*", ANY_SOUND, EVENTS),
            sent_as="" if events else kind,
            limitable=False,
        )

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. Only events report tokens."""
        new = {"stream_format": b'"sse"'} if changes.by_tokens else {}
        return patched(request.fields, changes, new, limit_field="max_tokens")

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`. Nobody asks: sound is never read as a whole."""
        raise NotImplementedError

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return SpeechReader(request)


__all__ = ["KINDS", "OpenAISpeech"]
