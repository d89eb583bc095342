"""What the OpenAI family's dialects of uploads share: the fields of a form, when they say enough, and the one that changes.

Of a form only the model's name is rewritten; every other byte goes to the upstream as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from aurixel.dialects.json_fields import missing, unpriced, unsupported, wrong
from aurixel.dialects.openai_beside_chat.multipart import File, Form, boundary_of
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia
from aurixel.dialects.patch import DROPPED
from aurixel.dialects.tiers import tier_of
from aurixel.errors import ClientError
from aurixel.plugin.contracts import Body, Changes, ParsedRequest, UploadReader
from aurixel.values import NO_COUNTS, Counts

_TRUE: Final = frozenset({"true", "1", "yes", "on", "y", "t"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "n", "f", ""})
# Of any upload, read whatever it is for.
COMMON: Final = frozenset({"model", "stream", "service_tier", "store"}) | DROPPED
MAX_INT: Final = 2**31 - 1


class FormReader:
    """An `UploadReader` of forms. A subclass has `_read`, which makes the request of what there is, and says by `_decided`
    whether that will do before the end."""

    keep: ClassVar[frozenset[str]] = COMMON
    single: ClassVar[frozenset[str]] = COMMON
    # What must be a file, with or without brackets: as a field it may be an id of the upstream's, or be heeded instead.
    files: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, dialect: str, boundary: bytes, length: int | None, file: Callable[[str, str, str], File]) -> None:
        self.form = Form(boundary, keep=self.keep, single=self.single, file=file)
        self.request: ParsedRequest | None = None
        self.whole = False
        self._dialect, self._length = dialect, length
        self._fields = 0

    @property
    def size(self) -> int:
        """See `UploadReader`."""
        return self.form.size

    @property
    def units(self) -> Counts:
        """See `UploadReader`."""
        return NO_COUNTS

    def feed(self, chunk: bytes) -> None:
        """See `UploadReader`."""
        self.form.feed(chunk)
        if self.request is None:
            if self._decided():
                self.request = self._read()
        elif len(self.form.values) != self._fields:  # what comes after the file may say something about the answer
            self.request = self._read()
        self._fields = len(self.form.values)

    def finish(self) -> ParsedRequest:
        """See `UploadReader`."""
        self.form.finish()
        self.whole = True
        self.request = self._read()
        return self.request

    def let_go(self) -> None:
        """See `UploadReader`."""
        self.form.let_go()

    def _decided(self) -> bool:
        return False

    def _read(self) -> ParsedRequest:
        raise NotImplementedError

    # --- fields -------------------------------------------------------------------------------------------------------

    def text(self, name: str) -> str | None:
        """The value of a field; None where it has not come."""
        values = self.form.values.get(name)
        return values[0] if values else None

    def model(self) -> str:
        """The model's name: present, not empty, short, printable."""
        model = self.text("model")
        if model is None:
            raise missing("model")
        if not 0 < len(model) <= 256 or not model.isprintable() or "model" not in self.form.spans:
            raise wrong("model", "the name of a model")
        return model

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it has not come."""
        value = (self.text(name) or "").strip().lower()
        if value not in _TRUE and value not in _FALSE:
            raise wrong(name, "true or false")
        return value in _TRUE

    def number(self, name: str, low: int, high: int = MAX_INT) -> int | None:
        """A field that is an integer between the two; None where it has not come, or is empty."""
        value = (self.text(name) or "").strip()
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 12 and low <= int(value) <= high):
            raise wrong(name, f"an integer between {low} and {high}")
        return int(value)

    def refuse_others(self) -> None:
        """What changes the price, or what the upstream keeps, in any operation; and fields where a file belongs."""
        for name in self.form.sizes:
            if name.partition("[")[0] in self.files:
                raise ClientError("invalid_request", f"'{name}' must be a file, not a field.", param=name)
        if tier_of(self.text("service_tier")):
            raise unpriced("service_tier", "This service tier")
        if self.flag("store"):
            raise unpriced("store", "Storing the answer at the upstream")
        for name in sorted(DROPPED.intersection(self.form.sizes)):  # a form is not written anew to leave them out
            raise unsupported(name, "Naming whom the upstream bills")


class OpenAIUploads(OpenAIMedia):
    """A dialect of the family that takes forms, but for its `name`, its `operation`, `reader` and what reads its replies."""

    def reader(self, boundary: bytes, length: int | None) -> UploadReader:
        """What reads a form of so many bytes."""
        raise NotImplementedError

    def upload_reader(self, headers: Mapping[str, str], length: int | None) -> UploadReader | None:
        """See `TakesUploads`."""
        boundary = boundary_of(headers)
        return None if boundary is None else self.reader(boundary, length)

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        reader = self.upload_reader(headers, len(body))
        if reader is None:
            raise ClientError("unsupported_content_type", "The body must be sent as multipart/form-data.")
        reader.feed(body)
        return reader.finish()

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. Of an upload that is still coming: what has come."""
        form = request.upload
        if not isinstance(form, FormReader):
            return super().patch_request(request, changes)
        if request.model == changes.model:
            return form.form.chunks
        return form.form.replaced("model", changes.model.encode())


__all__ = ["COMMON", "FormReader", "OpenAIUploads"]
