"""Pictures in the OpenAI family, however they are made: what is asked for, how a reply and a stream of them are counted.

A reply is counted both in tokens and by the picture. Refused: replies with a bill of another model in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from aurixel.dialects.json_fields import wrong
from aurixel.dialects.openai_beside_chat.outline import TypedEvents, decode_reply, used
from aurixel.dialects.readers import Count, Counts, invalid, nonzero, output_of
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage

MAX_PICTURES: Final = 128
# A size or a quality: as a price may be written, and too short to hold anything else.
_WORD: Final = re.compile(r"[A-Za-z0-9_:/-]{1,24}")
_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
# What a picture without any report is taken for: tokens of a square of 1024 pixels, by quality; and a preview's.
_SQUARE: Final = 1024 * 1024
_TOKENS: Final[Mapping[str, int]] = {"low": 272, "medium": 1056, "standard": 1056}
_DEAREST: Final = 4160
_UNSIZED: Final = 1.5
# Squares of 256 and of 4096 pixels: whoever asks for less, or more, is sent none that is.
_SMALLEST, _LARGEST = 1 / 16, 16.0
_PREVIEW: Final = 100
_NEVER: Final = 1 << 62  # more bytes than there are


def asked_pictures(count: int, size: str | None, quality: str | None) -> dict[str, int]:
    """What `ParsedRequest.most` says of a request for `count` pictures: `images.SIZE.QUALITY`, `auto` where it says
    nothing. `ClientError` for a word that can be neither."""
    for name, word in (("size", size), ("quality", quality)):
        if word is not None and not _WORD.fullmatch(word):
            raise wrong(name, f"a {name} of pictures")
    return {_unit(size, quality): count}


def _unit(size: str | None, quality: str | None) -> str:
    return f"images.{size or 'auto'}.{quality or 'auto'}"


class _InputDetails(msgspec.Struct, gc=False):
    image_tokens: Count | None = None
    cached_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    text_tokens: Count | None = None


class PictureUsage(msgspec.Struct, gc=False):
    """`usage` as the upstream writes it; some vendors have an object of that name with other things in it."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


def disjoint(usage: PictureUsage | None) -> Counts | None:
    """The classes of a report; None where it reports no tokens, or none at all. Output is pictures, but for text."""
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return None
    prompt, drawn = usage.input_tokens or 0, usage.output_tokens or 0
    image = cached = said = 0
    if details := usage.input_tokens_details:
        image, cached = details.image_tokens or 0, details.cached_tokens or 0
    if more := usage.output_tokens_details:
        said = more.text_tokens or 0
    if image > prompt or cached > prompt or said > drawn:
        raise invalid("reports parts of its usage that exceed the whole")
    image = min(image, prompt - cached)  # a cached prefix is words before it is pictures
    return nonzero(
        {
            "input": prompt - cached - image,
            "cache_read": cached,
            "input_image": image,
            "output": said,
            "output_image": drawn - said,
        }
    )


class _Told(msgspec.Struct, gc=False):
    """What of a reply, or of an event, tells what was made."""

    size: str | None = None
    quality: str | None = None
    usage: PictureUsage | None = None
    svg_usage: msgspec.Raw = msgspec.Raw(b"null")

    def unit(self, request: ParsedRequest) -> str:
        """The class of its pictures: as it says itself, else as was asked."""
        _, size, quality = next(iter(request.most)).split(".")
        made = [word if word and _WORD.fullmatch(word) else "" for word in (self.size, self.quality)]
        return _unit(made[0] or size, made[1] or quality)

    def refuse_strangers(self) -> None:
        """What another model did beside has no price here, and was not asked for."""
        if self.svg_usage != _NULL:
            raise invalid("reports usage of another model")


class _Picture(msgspec.Struct, gc=False):
    """Its bytes or its address are not looked at."""


class _Reply(_Told, gc=False):
    data: list[_Picture] | None = None


class _Drawn(_Told, gc=False):
    b64_json: msgspec.Raw = msgspec.Raw()


_NULL: Final = msgspec.Raw(b"null")
_REPLY: Final = msgspec.json.Decoder(_Reply)
_DRAWN: Final = msgspec.json.Decoder(_Drawn)


class PictureReplyReader:
    """Reads one whole reply. More pictures than were asked for are not charged."""

    def __init__(self, request: ParsedRequest, input_tokens: int) -> None:
        self._request, self._input_tokens = request, input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        reply = decode_reply(_REPLY, body, "list of pictures")
        if reply.data is None:
            raise invalid("is no list of pictures")
        reply.refuse_strangers()
        unit = reply.unit(self._request)
        made = min(len(reply.data), sum(self._request.most.values()))
        guess = {"input": self._input_tokens, "output_image": made * _guessed(unit)}
        tokens = disjoint(reply.usage)
        if made and tokens is not None and not output_of(tokens):
            tokens = None  # a picture of no tokens is not believed, as text is not
        return used(tokens, guess, {unit: made})


class PictureStreamReader(TypedEvents):
    """Reads the stream of one picture: previews `<kind>.partial_image`, and at last `<kind>.completed`.

    It is one piece from the first preview on: the upstream charges for it whether or not anybody waits for the rest.
    """

    def __init__(self, request: ParsedRequest, kind: str) -> None:
        super().__init__()
        self._request, self._preview, self._completed = request, f"{kind}.partial_image", f"{kind}.completed"
        self._previews: list[int] = []  # the output's bytes at the end of each
        self._unit = ""
        self._begun_at = self._made_at = _NEVER

    def _typed(self, kind: str, data: bytes) -> None:
        if kind not in (self._preview, self._completed):
            return
        told = self._decoded(_DRAWN, data)
        self.started = True
        self.output_bytes += max(0, len(told.b64_json) - 2)
        if kind == self._preview:
            self._previews.append(self.output_bytes)
            if self.output_bytes and not self._unit:
                self._unit, self._begun_at = told.unit(self._request), self.output_bytes
            return
        told.refuse_strangers()
        self._unit, self._made_at = told.unit(self._request), self.output_bytes
        if (counts := disjoint(told.usage)) is not None:
            self._report(counts, final=True)
        self._finish()

    def _guess(self, output_bytes: int) -> Counts:
        tokens = _PREVIEW * sum(1 for end in self._previews if end <= output_bytes)
        return {"output_image": tokens + (_guessed(self._unit) if output_bytes >= self._made_at else 0)}

    def _pieces(self, output_bytes: int) -> Mapping[str, int]:
        return {self._unit: 1} if output_bytes >= min(self._begun_at, self._made_at) else {}


def _guessed(unit: str) -> int:
    """Tokens of one picture of that class."""
    _, size, quality = unit.split(".")
    found = _SIZE.fullmatch(size)
    squares = min(max(_SMALLEST, int(found[1]) * int(found[2]) / _SQUARE), _LARGEST) if found else _UNSIZED
    return round(squares * _TOKENS.get(quality, _DEAREST))


__all__ = ["MAX_PICTURES", "PictureReplyReader", "PictureStreamReader", "PictureUsage", "asked_pictures", "disjoint"]
