"""`stream_options` of the OpenAI family: whether a client asked for usage in a stream, and the options that always ask."""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.dialects.json_fields import Fields, decode_field, given


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


_STREAM_OPTIONS: Final = msgspec.json.Decoder(_StreamOptions)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def asked_usage(fields: Fields) -> bool:
    """Whether the client wants to see the usage event."""
    raw = given(fields, "stream_options")
    if raw is None:
        return False
    return decode_field(_STREAM_OPTIONS, raw, "stream_options", "an object of booleans").include_usage is True


def asking_usage(fields: Fields) -> bytes:
    """The client's own options, with usage asked for."""
    raw = given(fields, "stream_options")
    options = dict(_OBJECT.decode(raw)) if raw is not None else {}
    options["include_usage"] = msgspec.Raw(b"true")
    return msgspec.json.encode(options)


__all__ = ["asked_usage", "asking_usage"]
