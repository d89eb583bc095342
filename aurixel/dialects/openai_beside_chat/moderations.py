"""`openai_moderations`: POST /v1/moderations. Texts and pictures in, verdicts out.

No report counts it: it is free, or priced by the request, or by an estimate of its input's tokens. Refused is an answer
without a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from aurixel.dialects.bounds import Media, data_url, input_bytes, measure, raw_string
from aurixel.dialects.json_fields import (
    Fields,
    check_content_type,
    decode_field,
    decode_object,
    given,
    missing,
    read_model,
    wrong,
)
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia, decode_reply, refuse_tiers, used
from aurixel.dialects.readers import invalid
from aurixel.plugin.contracts import InputBound, ParsedRequest, ReplyReader
from aurixel.values import Usage

# The format's own default: its SDKs let the model be left out.
_DEFAULT: Final = msgspec.Raw(b'"omni-moderation-latest"')
_NOT_INPUT: Final = frozenset({"model", "service_tier", "store", "user"})
_EXPECTED: Final = "a text, a list of texts or a list of parts"


class _ImageUrl(msgspec.Struct, gc=False):
    url: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    image_url: _ImageUrl | None = None


class _Reply(msgspec.Struct, gc=False):
    results: list[msgspec.Raw]


_INPUT: Final = msgspec.json.Decoder(str | list[str | _Part])
_REPLY: Final = msgspec.json.Decoder(_Reply)


class OpenAIModerations(OpenAIMedia):
    """The dialect."""

    name: ClassVar[str] = "openai_moderations"
    operation: ClassVar[str] = "moderation"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        check_content_type(headers)
        fields = decode_object(body)
        if given(fields, "model") is None:
            fields["model"] = _DEFAULT
        model = read_model(fields)
        refuse_tiers(fields)
        return ParsedRequest(dialect=self.name, model=model, stream=False, fields=fields, bound=_bound(fields), output_limit=0)

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        del request
        return _VerdictReader(input_tokens)


def _bound(fields: Fields) -> InputBound:
    raw = given(fields, "input")
    if raw is None:
        raise missing("input")
    value = decode_field(_INPUT, raw, "input", _EXPECTED)
    if not value:
        raise wrong("input", _EXPECTED)
    media = Media()
    for part in value if isinstance(value, list) else ():
        if isinstance(part, _Part) and part.type == "image_url":
            media.image(data_url(raw_string(part.image_url.url)) if part.image_url else None)
    return measure(
        media,
        text_bytes=input_bytes(fields, _NOT_INPUT),
        messages=len(value) if isinstance(value, list) else 1,
        tools=0,
    )


class _VerdictReader:
    def __init__(self, input_tokens: int) -> None:
        self._input_tokens = input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        if not decode_reply(_REPLY, body, "list of verdicts").results:
            raise invalid("has no verdict")
        return used(None, {"input": self._input_tokens}, {})


__all__ = ["OpenAIModerations"]
