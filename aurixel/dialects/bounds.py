"""Sizes the input of a request: an upper bound that holds credit, and a fair guess for endings without usage.

The bound counts a token for every byte of text (no byte-level tokenizer makes more), so it never depends on a
tokenizer. What is not text is bounded by the rules written at `Media`. It is never above the model's context.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sized
from math import ceil
from typing import Final

import msgspec

from aurixel.dialects.images import base64_image_size
from aurixel.plugin.contracts import ImageBound, InputBound, ModelRules, ParsedRequest

PER_MESSAGE: Final = 16
PER_TOOL: Final = 64
PER_REQUEST: Final = 512
# A document's pages are read as text and as pictures: two tokens a byte, and a page more for each document.
PER_DOCUMENT_BYTE: Final = 2
PER_DOCUMENT: Final = 4096
# Speech at 1 kB a second is the sparsest encoding in use, and 20 tokens a second the densest count.
AUDIO_BYTES_PER_TOKEN: Final = 50
# For guesses: what text, JSON around a message, and the usual encodings come to.
BYTES_PER_TOKEN: Final = 4
_MESSAGE_JSON: Final = 24
_MESSAGE_TOKENS: Final = 4
_DOCUMENT_BYTES_GUESS: Final = 24
_AUDIO_BYTES_GUESS: Final = 800
_URL_HEAD: Final = 256
_LOW_DETAIL: Final = 512  # pixels; an image of low detail is scaled down into this square


class Media:
    """Collects what is not text. `written` is how many bytes of the body it takes up, which are then not text.

    Images count by width and height where their header can be read; documents and audio by their decoded bytes.
    What the upstream fetches itself (a document's URL) has no bound but the context: `open_ended`.
    """

    __slots__ = ("audio", "documents", "documents_bytes", "images", "open_ended", "written")

    def __init__(self) -> None:
        self.written = 0
        self.images: list[ImageBound] = []
        self.documents = 0
        self.documents_bytes = 0
        self.audio = 0
        self.open_ended = False

    def image(self, data: memoryview | None, *, low_detail: bool = False) -> None:
        """An image: its base64 as written in the body, or None for one behind a URL."""
        size = base64_image_size(data) if data is not None else None
        width, height = size or (0, 0)
        self.images.append(ImageBound(width, height, low_detail))
        self.written += len(data) if data is not None else 0

    def document(self, written: int) -> None:
        """A document that came as base64 of `written` bytes."""
        self.documents += 1
        self.documents_bytes += written * 3 // 4
        self.written += written

    def sound(self, written: int) -> None:
        """Audio that came as base64 of `written` bytes."""
        self.audio += written * 3 // 4
        self.written += written


def measure(media: Media, *, text_bytes: int, messages: int, tools: int) -> InputBound:
    """`text_bytes` is all that bears input as it stands in the body, media included."""
    return InputBound(
        text_bytes=text_bytes - media.written,
        messages=messages,
        tools=tools,
        images=tuple(media.images),
        audio_bytes=media.audio,
        document_bytes=media.documents_bytes,
        documents=media.documents,
        open_ended=media.open_ended,
    )


def input_bytes(fields: Mapping[str, Sized], but: Container[str]) -> int:
    """Bytes of the fields that become part of the prompt, as they stand in the body: all `but` those."""
    return sum([len(raw) for name, raw in fields.items() if name not in but])


def bound_tokens(bound: InputBound, rules: ModelRules) -> int:
    """An upper bound of the input tokens."""
    return rules.context if bound.open_ended else min(_bound(bound, rules), rules.context)


def _bound(bound: InputBound, rules: ModelRules) -> int:
    return (
        bound.text_bytes
        + bound.exact_tokens
        + PER_MESSAGE * bound.messages
        + PER_TOOL * bound.tools
        + PER_REQUEST
        + sum([_image(image.width, image.height, rules) for image in bound.images])
        + PER_DOCUMENT_BYTE * bound.document_bytes
        + PER_DOCUMENT * bound.documents
        + -(-bound.audio_bytes // AUDIO_BYTES_PER_TOKEN)
    )


def guess_tokens(bound: InputBound, rules: ModelRules) -> int:
    """A fair guess of the input tokens, never above the bound: no part of it is more than that part of the bound."""
    text = max(0, bound.text_bytes - _MESSAGE_JSON * bound.messages)
    guess = (
        -(-text // BYTES_PER_TOKEN)
        + bound.exact_tokens
        + _MESSAGE_TOKENS * bound.messages
        + sum([_image_guess(image, rules) for image in bound.images])
        + bound.document_bytes // _DOCUMENT_BYTES_GUESS
        + bound.audio_bytes // _AUDIO_BYTES_GUESS
    )
    return min(guess, rules.context)


def _image(width: int, height: int, rules: ModelRules) -> int:
    if not width or not height:
        return rules.image_cap
    patches = -(-width // rules.image_patch) * -(-height // rules.image_patch)
    return min(rules.image_cap, ceil(patches * rules.image_multiplier))


def _image_guess(image: ImageBound, rules: ModelRules) -> int:
    if not image.low_detail:
        return _image(image.width, image.height, rules)
    return _image(min(image.width or _LOW_DETAIL, _LOW_DETAIL), min(image.height or _LOW_DETAIL, _LOW_DETAIL), rules)


def raw_string(raw: msgspec.Raw) -> memoryview:
    """The inside of a JSON string as written, not copied; empty where it is not a string."""
    view = memoryview(raw)
    return view[1:-1] if bytes(view[:1]) == b'"' else view[:0]


def data_url(text: memoryview) -> memoryview | None:
    """The base64 of a data URL as written in JSON, not copied; None for any other URL."""
    head = bytes(text[:_URL_HEAD]).lower()
    comma = head.find(b",")
    return text[comma + 1 :] if head.startswith(b"data:") and head.endswith(b";base64", 0, max(comma, 0)) else None


class Bounded:
    """What a `Dialect` says of the input of a request that it has measured."""

    def bound_input(self, request: ParsedRequest, rules: ModelRules) -> int:
        """See `Dialect`."""
        return bound_tokens(request.bound, rules)

    def estimate_input(self, request: ParsedRequest, rules: ModelRules) -> int:
        """See `Dialect`."""
        return guess_tokens(request.bound, rules)
