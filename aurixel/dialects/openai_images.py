"""`openai_images`: POST /v1/images/generations, whole or streamed with previews; pictures come as base64 or as addresses.

Refused: drawings by a second model (`svg`) and moving pictures, which no price describes, and a stream of several pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from aurixel.dialects.bounds import Media, measure
from aurixel.dialects.json_fields import (
    Fields,
    check_content_type,
    decode_object,
    given,
    missing,
    read_bool,
    read_int,
    read_model,
    read_str,
    unpriced,
    unsupported,
    wrong,
)
from aurixel.dialects.openai_media import OpenAIMedia
from aurixel.dialects.openai_pictures import MAX_PICTURES, PictureReplyReader, PictureStreamReader, asked_pictures
from aurixel.plugin.contracts import ParsedRequest, ReplyReader, StreamReader

MAX_PREVIEWS: Final = 3
NOT_INPUT: Final = frozenset(
    {
        "background",
        "complexity",
        "model",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "partial_images",
        "quality",
        "response_format",
        "safety_identifier",
        "service_tier",
        "size",
        "stream",
        "style",
        "user",
    }
)


class OpenAIImages(OpenAIMedia):
    """The dialect."""

    name: ClassVar[str] = "openai_images"
    operation: ClassVar[str] = "images"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        if not read_str(fields, "prompt"):
            raise missing("prompt") if given(fields, "prompt") is None else wrong("prompt", "a text")
        count = read_int(fields, "n", 1, MAX_PICTURES) or 1
        stream = read_bool(fields, "stream")
        read_int(fields, "partial_images", 0, MAX_PREVIEWS)
        if stream and count > 1:
            raise unsupported("n", "A stream of more than one picture")
        refuse_unpriced(fields)
        text_bytes = sum(len(raw) for name, raw in fields.items() if name not in NOT_INPUT)
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=stream,
            fields=fields,
            bound=measure(Media(), text_bytes=text_bytes, messages=1, tools=0),
            choices=count,
            most=asked_pictures(count, read_str(fields, "size"), read_str(fields, "quality")),
            limitable=False,
        )

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return PictureReplyReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return PictureStreamReader(request, "image_generation")


def refuse_unpriced(fields: Fields) -> None:
    """Refuses what changes the price of a picture in a way that neither tokens nor size and quality describe."""
    if read_str(fields, "service_tier") not in (None, "auto", "default", "standard"):
        raise unpriced("service_tier", "This service tier")
    if read_str(fields, "output_format") in ("svg", "gif"):
        raise unpriced("output_format", "This format")
    for name in ("svg", "frame_count", "frame_duration_ms"):
        if given(fields, name) is not None:
            raise unpriced(name, "This")


__all__ = ["MAX_PREVIEWS", "NOT_INPUT", "OpenAIImages", "refuse_unpriced"]
