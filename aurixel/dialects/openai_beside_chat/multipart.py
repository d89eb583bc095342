"""Reads `multipart/form-data` as it streams past: the values of a few fields, and of files what their reader keeps.

It is strict where two readers could understand a body in two ways, since the upstream reads the same bytes again: a field
given twice, names in disguise, parts after the end, encodings of parts are refused. It never quotes what it read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from aurixel.errors import ClientError

# Of one field whose value is needed, in bytes; and how many parts a form has at most.
MAX_VALUE: Final = 256 * 1024
MAX_PARTS: Final = 256
# What a file's reader keeps of its beginning and of its end, in bytes.
ENDS: Final = 64 * 1024
# In how many pieces, at most: a client may send them byte by byte, and each costs more than a byte.
_PIECES: Final = 1024
_MAX_HEADER: Final = 8 * 1024
_MAX_HEADERS: Final = 16

_BOUNDARY: Final = re.compile(r'(?i:multipart/form-data)\s*;\s*(?i:boundary)=(?:"([^"\\]+)"|([^\s;",]+))\s*')
_LEGAL: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = re.compile(r';\s*([A-Za-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))\s*')
_NAME: Final = re.compile(r"[0-9A-Za-z_.\[\]-]{1,128}")
_CHARSET: Final = re.compile(r"(?i);\s*charset\s*=\s*\"?([^\s;\"]+)")


class _Silence:
    """A logger for the parser, which would log what it stumbles over: content."""

    def debug(self, *told: object) -> None: ...

    def warning(self, *told: object) -> None: ...


def boundary_of(headers: Mapping[str, str]) -> bytes | None:
    """The boundary of a form; None where the body says it is something else. `ClientError` for a form without a sound one."""
    value = headers.get("content-type", "")
    if value.partition(";")[0].strip().lower() != "multipart/form-data":
        return None
    found = _BOUNDARY.fullmatch(value.strip())
    boundary = (found[1] or found[2]) if found else ""
    if not _LEGAL.fullmatch(boundary):
        raise ClientError("unsupported_content_type", "A multipart/form-data body needs one 'boundary', as RFC 2046 has it.")
    return boundary.encode()


class File:
    """A file of a form, while it passes: `head` and `tail` are its first and last bytes (at least `ENDS` of each, or all)."""

    def __init__(self, name: str, filename: str, kind: str) -> None:
        """`kind`: its media type as its part says it, lower case, without parameters; empty where it says none."""
        self.name, self.filename, self.kind = name, filename, kind
        self.size = 0
        self.whole = False
        self._head: list[bytes] = []
        self._tail: deque[memoryview] = deque()
        self._kept = 0

    @property
    def head(self) -> bytes:
        """Its first bytes."""
        if len(self._head) > 1:
            self._head = [b"".join(self._head)]
        return self._head[0] if self._head else b""

    @property
    def tail(self) -> bytes:
        """Its last bytes."""
        return b"".join(self._tail)

    def write(self, data: bytes, start: int, end: int) -> None:
        """The next bytes: `data[start:end]`."""
        if self.size < ENDS:
            self._head.append(data[start : min(end, start + ENDS - self.size)])
            if len(self._head) > _PIECES:
                self._head = [self.head]
        self.size += end - start
        self._tail.append(memoryview(data)[start:end])
        self._kept += end - start
        while self._kept - len(self._tail[0]) >= ENDS:
            self._kept -= len(self._tail.popleft())
        if len(self._tail) > _PIECES:
            self._tail = deque([memoryview(self.tail)])

    def let_go(self) -> None:
        """Keep none of its bytes."""
        self._head.clear()
        self._tail.clear()


class Form:
    """A form as it comes. `values` are those of the fields in `keep`, `sizes` the bytes of every field's values, `files` all
    files so far, the last of them perhaps not whole; `ended`: the closing boundary has come.

    `single`: fields that may be given once. All that is fed is kept in `chunks` until `let_go`.
    """

    def __init__(
        self,
        boundary: bytes,
        *,
        keep: frozenset[str],
        single: frozenset[str],
        file: Callable[[str, str, str], File] = File,
    ) -> None:
        """`file` is asked with a file's field, name and media type, and may refuse it."""
        self.values: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}
        self.files: list[File] = []
        self.ended = False
        self.size = 0
        self.chunks: list[bytes] = []
        self._keep, self._single, self._make = keep, single, file
        self._closing = b"\r\n--" + boundary + b"--"
        self._before = b""
        self._chunk = b""
        self._let_go = False
        self._parts = 0
        self._headers: dict[str, str] = {}
        self._header: tuple[list[bytes], list[bytes]] = ([], [])
        self._name = ""
        self._file: File | None = None
        self._value: list[bytes] | None = None
        self._span: tuple[int, int] | None = None
        self.spans: dict[str, tuple[int, int]] = {}  # where in the body the value of a kept field stands, and its length
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER,
        )
        self._parser.logger = cast(Any, _Silence())

    def feed(self, chunk: bytes) -> None:
        """The next bytes. `ClientError` for what is no sound form."""
        if not self._let_go:
            self.chunks.append(chunk)
        rest = chunk if self.ended else self._parse(chunk)
        if rest.strip(b"\r\n"):
            raise _unsound("goes on after its end")
        self.size += len(chunk)

    def _parse(self, chunk: bytes) -> bytes:
        """What comes after the end, if that is in it."""
        self._chunk, closing, before = chunk, self._closing, self._before
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _unsound("is not well formed") from None
        self._chunk = b""
        self._before = (chunk if len(chunk) >= len(closing) else before + chunk)[-len(closing) :]
        if not self.ended:
            return b""
        return (before + chunk).partition(closing)[2]

    def finish(self) -> None:
        """No more will come."""
        if not self.size:
            raise ClientError("empty_body", "The request has no body.")
        if not self.ended:
            raise _unsound("ends without its closing boundary")
        if not self._parts:
            raise _unsound("has no parts")

    def let_go(self) -> None:
        """Keep nothing of what was fed, from now on."""
        self._let_go = True
        self.chunks = []

    def replaced(self, name: str, value: bytes) -> list[bytes]:
        """All that was fed, in slices, with another value of that field, which has been given once."""
        start, length = self.spans[name]
        out: list[bytes] = []
        at = 0
        for chunk in self.chunks:
            end = at + len(chunk)
            if end <= start or at >= start + length:
                out.append(chunk)
            else:
                if at <= start:
                    out += (chunk[: start - at], value)
                out.append(chunk[start + length - at :] if start + length < end else b"")
            at = end
        return [piece for piece in out if piece]

    # --- the parser's calls -----------------------------------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _unsound(f"has more than {MAX_PARTS} parts")
        self._headers = {}

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].append(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].append(data[start:end])

    def _on_header_end(self) -> None:
        (name, value), self._header = map(b"".join, self._header), ([], [])
        key = name.decode("ascii").lower()
        if key in self._headers:
            raise _unsound("has a part that says the same header twice")
        try:
            self._headers[key] = value.decode().strip()
        except UnicodeDecodeError:
            raise ClientError("invalid_utf8", "The headers of a part must be in UTF-8.") from None

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get("content-disposition", "")
        name, filename = _disposition(disposition)
        kind = self._headers.get("content-type", "")
        charset = _CHARSET.search(kind)
        if self._headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise _unsound("has a part in a transfer encoding, which forms have none of")
        self._name, self._file, self._value, self._span = name, None, None, None
        if filename is not None:
            if name in self._keep or name in self._single:
                raise ClientError("invalid_request", f"'{name}' must be a field, not a file.", param=name)
            self._file = self._make(name, filename, kind.partition(";")[0].strip().lower())
            self.files.append(self._file)
            return
        if charset is not None and charset[1].lower() not in ("utf-8", "us-ascii"):
            raise ClientError("invalid_utf8", f"'{name}' must be in UTF-8.", param=name)
        if name in self._single and name in self.sizes:
            raise ClientError("duplicate_key", f"'{name}' is given twice.", param=name)
        self.sizes.setdefault(name, 0)
        if name in self._keep:
            self._value = []

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data, start, end)
            return
        self.sizes[self._name] += end - start
        if self._value is not None:
            if self.sizes[self._name] > MAX_VALUE:
                text = f"'{self._name}' is longer than {MAX_VALUE} bytes."
                raise ClientError("invalid_request", text, param=self._name)
            if self._span is None and data is self._chunk:
                self._span = (self.size + start, 0)
            self._value.append(data[start:end])

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._file.whole = True
        elif self._value is not None:
            value = b"".join(self._value)
            if self._span is not None:
                self.spans[self._name] = (self._span[0], len(value))
            try:
                self.values.setdefault(self._name, []).append(value.decode())
            except UnicodeDecodeError:
                raise ClientError("invalid_utf8", f"'{self._name}' must be in UTF-8.", param=self._name) from None

    def _on_end(self) -> None:
        self.ended = True


def _disposition(header: str) -> tuple[str, str | None]:
    """The name of a part, and of its file, None for a field."""
    kind, semicolon, _ = header.partition(";")
    parameters: dict[str, str] = {}
    at = len(kind)
    while found := _PARAMETER.match(header, at):
        key, at = found[1].lower(), found.end()
        if key in parameters:
            raise _unsound("has a part with two names")
        parameters[key] = found[2] if found[2] is not None else found[3]
    if kind.strip().lower() != "form-data" or not semicolon or at != len(header) or "name*" in parameters:
        raise _unsound("has a part whose Content-Disposition cannot be read")
    name = parameters.get("name", "")
    if not _NAME.fullmatch(name):
        raise _unsound("has a part without a proper name")
    filename = parameters.get("filename")
    if (extended := parameters.get("filename*")) is not None:
        filename = unquote_to_bytes(extended.rpartition("'")[2]).decode("utf-8", "replace")
    return name, filename


def _unsound(what: str) -> ClientError:
    return ClientError("invalid_request", f"The multipart/form-data body {what}.")


__all__ = ["ENDS", "MAX_PARTS", "MAX_VALUE", "File", "Form", "boundary_of"]
