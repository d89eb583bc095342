"""Small sound requests of the built-in dialects, for suites that need something to ask."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

_MESSAGES: Final = [{"role": "user", "content": "How many words are these six?"}]

_REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "openai_chat": {"messages": _MESSAGES, "max_completion_tokens": 40},
        "openai_responses": {"input": _MESSAGES, "max_output_tokens": 40},
        "anthropic_messages": {"messages": _MESSAGES, "max_tokens": 40},
        "openai_completions": {"prompt": "How many words are these six?", "max_tokens": 40},
        "openai_embeddings": {"input": "How many words are these six?"},
        "openai_moderations": {"input": "How many words are these six?"},
        "openai_images": {"prompt": "Six words, drawn as a picture"},
        "openai_speech": {"input": "How many words are these six?", "voice": "any"},
    }
)


# A twentieth of a second of silence, and the forms that carry files.
_SOUND: Final = (
    b"RIFF\x44\x03\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00"
    b"data\x20\x03\x00\x00" + bytes(800)
)
_PICTURE: Final = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00\x3a\x7e\x9b\x55"
    b"\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01\x48\xaf\xa4\x71\x00\x00\x00\x00IEND\xaeB`\x82"
)
_FORMS: Final[Mapping[str, tuple[str, str, bytes]]] = MappingProxyType(
    {
        "openai_image_edits": ("image", "one pixel.png", _PICTURE),
        "openai_image_variations": ("image", "one pixel.png", _PICTURE),
        "openai_transcriptions": ("file", "six words.wav", _SOUND),
        "openai_translations": ("file", "six words.wav", _SOUND),
    }
)
_BOUNDARY: Final = "sample"


def sample_files(dialect: str) -> tuple[tuple[str, str, bytes], ...]:
    """The files in the form of a dialect that takes uploads: field, name and bytes; none for another dialect."""
    return (_FORMS[dialect],) if dialect in _FORMS else ()


def sample_headers(dialect: str) -> dict[str, str]:
    """The headers that say what the body of `sample_request` is."""
    return {"content-type": f"multipart/form-data; boundary={_BOUNDARY}" if dialect in _FORMS else "application/json"}


def sample_form(fields: Mapping[str, str], *files: tuple[str, str, bytes], boundary: str = _BOUNDARY) -> bytes:
    """A form as clients write it: the fields, then the files, each of a field, a name and its bytes."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="{filename}"', data) for name, filename, data in files]
    written = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    ]
    return b"".join(written) + f"--{boundary}--\r\n".encode()


def sample_request(dialect: str, model: str, *, stream: bool) -> bytes:
    """A request body of a built-in dialect; `LookupError` for another dialect."""
    if dialect in _FORMS:
        more = {"stream": "true"} if stream and dialect in ("openai_transcriptions", "openai_image_edits") else {}
        if dialect == "openai_image_edits":
            more["prompt"] = "Six words, drawn as a picture"
        return sample_form({"model": model, **more}, _FORMS[dialect])
    return msgspec.json.encode({"model": model, "stream": stream, **_REQUESTS[dialect]})
