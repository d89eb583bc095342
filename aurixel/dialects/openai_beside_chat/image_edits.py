"""`openai_image_edits` and `openai_image_variations`: POST /v1/images/edits, a form or JSON, and /v1/images/variations.

What a picture costs is decided by fields and by the pictures that come with them, in any order: such a form is taken in
whole, in memory, before it is passed on. Refused: what is no picture, files named by an id, and what has no price.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from aurixel.dialects.bounds import Media, data_url, raw_string
from aurixel.dialects.images import image_size
from aurixel.dialects.json_fields import (
    Fields,
    check_content_type,
    decode_field,
    decode_object,
    given,
    missing,
    unpriced,
    unsupported,
    wrong,
)
from aurixel.dialects.openai_beside_chat.images import MAX_PREVIEWS, NOT_INPUT, parse_pictures
from aurixel.dialects.openai_beside_chat.magic import TELLING, is_no_picture
from aurixel.dialects.openai_beside_chat.multipart import File
from aurixel.dialects.openai_beside_chat.pictures import MAX_PICTURES, PictureReplyReader, PictureStreamReader, asked_pictures
from aurixel.dialects.openai_beside_chat.uploads import COMMON, FormReader, OpenAIUploads
from aurixel.errors import ClientError
from aurixel.plugin.contracts import ImageBound, InputBound, ParsedRequest, ReplyReader, StreamReader, UploadReader

MAX_FILES: Final = 17  # sixteen pictures and a mask
_PICTURE: Final = re.compile(r"image(\[[0-9]{0,2}\])?")


class PictureFormReader(FormReader):
    """Reads a form with pictures in it, to its end."""

    keep: ClassVar[frozenset[str]] = COMMON | {"n", "size", "quality", "partial_images", "output_format"}
    single: ClassVar[frozenset[str]] = keep | {"prompt", "background", "input_fidelity", "response_format"}
    files: ClassVar[frozenset[str]] = frozenset({"image", "images", "mask"})

    def __init__(self, dialect: str, boundary: bytes, length: int | None, *, edits: bool) -> None:
        super().__init__(dialect, boundary, length, self._file)
        self._edits = edits

    def _file(self, name: str, filename: str, kind: str) -> File:
        files = self.form.files
        if not (_PICTURE.fullmatch(name) or (self._edits and name == "mask")):
            what = "'image', 'image[]' or 'mask'" if self._edits else "'image'"
            raise ClientError("invalid_request", f"The files of this request are {what}.", param=name[:64])
        if len(files) >= (MAX_FILES if self._edits else 1):
            raise ClientError("invalid_request", "These are more pictures than an upstream takes.", param=name)
        return File(name, filename, kind)

    def feed(self, chunk: bytes) -> None:
        """See `UploadReader`."""
        judged = sum(map(_telling, self.form.files))
        super().feed(chunk)
        for file in self.form.files[judged:]:
            if not _telling(file):
                break
            if not file.size:
                raise ClientError("invalid_request", f"'{file.name}' is empty.", param=file.name)
            if is_no_picture(file.head[:TELLING], file.filename, file.kind):
                raise ClientError("invalid_request", f"'{file.name}' is not the picture that it says it is.", param=file.name)

    def _read(self) -> ParsedRequest:
        model = self.model()
        stream = self._edits and self.flag("stream")
        count = self.number("n", 1, MAX_PICTURES) or 1
        self.number("partial_images", 0, MAX_PREVIEWS)
        self.refuse_others()
        sizes, files = self.form.sizes, self.form.files
        if self._edits and not sizes.get("prompt"):
            raise missing("prompt")
        if stream and count > 1:
            raise unsupported("n", "A stream of more than one picture")
        if self.text("output_format") in ("svg", "gif"):
            raise unpriced("output_format", "This format")
        for name in ("svg", "frame_count", "frame_duration_ms"):
            if name in sizes:
                raise unpriced(name, "This")
        if not any(file.name != "mask" for file in files):
            raise missing("image")
        text_bytes = sum(size for name, size in sizes.items() if name not in NOT_INPUT)
        images = tuple(ImageBound(*(image_size(file.head) or (0, 0))) for file in files)
        return ParsedRequest(
            dialect=self._dialect,
            model=model,
            stream=stream,
            fields={},
            bound=InputBound(text_bytes=text_bytes, messages=1, images=images),
            choices=count,
            most=asked_pictures(count, self.text("size") or None, self.text("quality") or None),
            limitable=False,
            upload=self,
        )


def _telling(file: File) -> bool:
    return file.size >= TELLING or file.whole


class _Reference(msgspec.Struct, gc=False):
    image_url: msgspec.Raw = msgspec.Raw()
    file_id: msgspec.Raw = msgspec.Raw(b"null")


_REFERENCES: Final = msgspec.json.Decoder(list[_Reference])
_REFERENCE: Final = msgspec.json.Decoder(_Reference)
_NULL: Final = msgspec.Raw(b"null")


class OpenAIImageEdits(OpenAIUploads):
    """The dialect."""

    name: ClassVar[str] = "openai_image_edits"
    operation: ClassVar[str] = "images"
    edits: ClassVar[bool] = True

    def reader(self, boundary: bytes, length: int | None) -> UploadReader:
        """See `OpenAIUploads`."""
        return PictureFormReader(self.name, boundary, length, edits=self.edits)

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`. What is no form is JSON."""
        if not self.edits or headers.get("content-type", "").lower().startswith("multipart/"):
            return super().parse_request(body, headers)
        check_content_type(headers)
        return parse_pictures(self.name, decode_object(body), _pictures)

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return PictureReplyReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return PictureStreamReader(request, "image_edit")


class OpenAIImageVariations(OpenAIImageEdits):
    """The dialect: other pictures like this one, without a word."""

    name: ClassVar[str] = "openai_image_variations"
    edits: ClassVar[bool] = False


def _pictures(fields: Fields) -> Media:
    media = Media()
    raw = given(fields, "images")
    references = decode_field(_REFERENCES, raw, "images", "a list of pictures") if raw is not None else []
    if not references:
        raise missing("images")
    if len(references) >= MAX_FILES:
        raise wrong("images", f"a list of at most {MAX_FILES - 1} pictures")
    for reference in references:
        _picture(reference, "images", media)
    if (mask := given(fields, "mask")) is not None:
        _picture(decode_field(_REFERENCE, mask, "mask", "a picture"), "mask", media)
    return media


def _picture(reference: _Reference, name: str, media: Media) -> None:
    if reference.file_id != _NULL:
        raise unsupported(name, "Referring to a file by its id")
    if not reference.image_url:
        raise wrong(name, "a picture with an image_url")
    media.image(data_url(raw_string(reference.image_url)))


__all__ = ["OpenAIImageEdits", "OpenAIImageVariations", "PictureFormReader"]
