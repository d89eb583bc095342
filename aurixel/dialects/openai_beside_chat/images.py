"""`openai_images`: POST /v1/images/generations, whole or streamed with previews; pictures come as base64 or as addresses.

Refused: drawings by a second model (`svg`) and moving pictures, which no price describes, and a stream of several pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from aurixel.dialects.bounds import Media, input_bytes, measure
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
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia, refuse_tiers
from aurixel.dialects.openai_beside_chat.pictures import MAX_PICTURES, PictureReplyReader, PictureStreamReader, asked_pictures
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
        return parse_pictures(self.name, decode_object(body), lambda _: Media())

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return PictureReplyReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return PictureStreamReader(request, "image_generation")


def parse_pictures(dialect: str, fields: Fields, media_in: Callable[[Fields], Media]) -> ParsedRequest:
    """A request for pictures that came as JSON; `media_in` reads those that stand in its fields."""
    model = read_model(fields)
    if not read_str(fields, "prompt"):
        raise missing("prompt") if given(fields, "prompt") is None else wrong("prompt", "a text")
    count = read_int(fields, "n", 1, MAX_PICTURES) or 1
    stream = read_bool(fields, "stream")
    read_int(fields, "partial_images", 0, MAX_PREVIEWS)
    if stream and count > 1:
        raise unsupported("n", "A stream of more than one picture")
    _refuse_unpriced(fields)
    text_bytes = input_bytes(fields, NOT_INPUT)
    return ParsedRequest(
        dialect=dialect,
        model=model,
        stream=stream,
        fields=fields,
        bound=measure(media_in(fields), text_bytes=text_bytes, messages=1, tools=0),
        choices=count,
        most=asked_pictures(count, read_str(fields, "size"), read_str(fields, "quality")),
        limitable=False,
    )


def _refuse_unpriced(fields: Fields) -> None:
    """Refuses what changes the price of a picture in a way that neither tokens nor size and quality describe."""
    refuse_tiers(fields)
    if read_str(fields, "output_format") in ("svg", "gif"):
        raise unpriced("output_format", "This format")
    for name in ("svg", "frame_count", "frame_duration_ms"):
        if given(fields, name) is not None:
            raise unpriced(name, "This")


__all__ = ["MAX_PREVIEWS", "NOT_INPUT", "OpenAIImages", "parse_pictures"]
