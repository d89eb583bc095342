"""Parts of `openai_responses` in the canonical form, whoever wrote them: content, citations, thinking. It fetches nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import unsupported, wrong
from aurixel.dialects.openai_codec import data_url_parts
from aurixel.dialects.openai_responses.codec_tools import Wire, WireTool
from aurixel.plugin.canonical import CacheTtl, Citation, Document, Image, Part, Refusal, Sound, Text, Thinking

NAME: Final = "openai_responses"


class _Mark(Wire, frozen=True):
    ttl: str | None = None


class _Sound(Wire, frozen=True):
    data: str = ""
    format: str = ""


class Annotation(Wire, frozen=True):
    """A citation, of whatever type."""

    type: str = ""
    url: str = ""
    title: str | None = None
    start_index: int = 0
    end_index: int = 0


class WirePart(Wire, frozen=True):
    """A part of a message, of an output, or of a reasoning."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: _Sound | None = None
    annotations: list[Annotation] | None = None
    logprobs: msgspec.Raw = msgspec.Raw()
    prompt_cache_breakpoint: _Mark | None = None


class WireItem(Wire, frozen=True):
    """An item of a request or of an answer."""

    type: str | None = None
    role: str = ""
    content: list[WirePart] | str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | dict[str, msgspec.Raw] | None = None
    input: str | None = None
    output: list[WirePart] | WirePart | str | None = None
    encrypted_content: str | None = None
    summary: list[WirePart] | None = None
    status: str | None = None
    phase: str | None = None
    tools: list[WireTool] | None = None


class _Restored(Wire, frozen=True):
    """What a carrier holds of another dialect's thinking."""

    thinking: str = ""
    signature: str | None = None
    data: str | None = None


_RESTORED: Final = msgspec.json.Decoder(_Restored)


def part_of(part: WirePart, role: str) -> Part:
    """A part of the input."""
    kind = part.type
    cache: CacheTtl | None = None if part.prompt_cache_breakpoint is None else "5m"  # half an hour is priced as that
    if kind in ("input_text", "output_text", "text") and part.text is not None:
        return Text(text=part.text, cache=cache, citations=citations_of(part.annotations))
    if kind == "refusal" and part.refusal is not None and role == "assistant":
        return Refusal(text=part.refusal)
    if kind == "input_image" and part.image_url and role in ("user", "tool"):
        return _image(part.image_url, part.detail, cache)
    if kind == "input_file" and (part.file_data or part.file_url) and role in ("user", "tool"):
        return _document(part, cache)
    if kind == "input_audio" and part.input_audio is not None and role == "user":
        return Sound(data=part.input_audio.data, format=part.input_audio.format)
    if kind in ("input_text", "output_text", "text", "refusal", "input_image", "input_file", "input_audio"):
        raise wrong("input", "a list in which each part has what its type names, and stands where it may")
    raise unsupported("input", "A part of this type with this model")


def _image(url: str, detail: str | None, cache: CacheTtl | None) -> Image:
    detail = None if detail == "auto" else detail  # as good as nothing said
    if url[:5].lower() != "data:":
        return Image(url=url, detail=detail, cache=cache)
    media_type, data = data_url_parts(url, "input")
    return Image(data=data, media_type=media_type, detail=detail, cache=cache)


def _document(part: WirePart, cache: CacheTtl | None) -> Document:
    if part.file_url:
        return Document(url=part.file_url, name=part.filename, cache=cache)
    data, media_type = part.file_data or "", "application/pdf"
    if data[:5].lower() == "data:":
        media_type, data = data_url_parts(data, "input")
    return Document(data=data, media_type=media_type, name=part.filename, cache=cache)


def citations_of(annotations: list[Annotation] | None) -> tuple[Citation, ...]:
    """Those that name a URL."""
    if not annotations:
        return ()
    return tuple([citation_of(found) for found in annotations if found.type == "url_citation"])


def citation_of(found: Annotation) -> Citation:
    """A citation of a URL."""
    return Citation(url=found.url, title=found.title or "", start=found.start_index, end=found.end_index)


def reasoning_text(item: WireItem) -> str:
    """What may be shown of a reasoning: its summary, else the thoughts themselves."""
    texts = [part.text or "" for part in item.summary or ()]
    if not texts and isinstance(item.content, list):
        texts = [part.text or "" for part in item.content]
    return "\n\n".join(texts)


def thinking_of(item: WireItem, raw: msgspec.Raw) -> Thinking:
    """A reasoning item of a client: another dialect's thinking if it carries one, else this dialect's, as it came."""
    found = unpacked(item.encrypted_content) if item.encrypted_content else None
    if found is not None and found[0] == NAME:
        return Thinking(text=reasoning_text(item), sealed=found[1], origin=NAME)
    if found is not None:
        origin, text = found
        try:
            held = _RESTORED.decode(text)
        except msgspec.DecodeError:
            return Thinking(text=reasoning_text(item), origin=NAME)  # somebody's invention: nobody asks for it back
        if held.data is not None:
            return Thinking(sealed=held.data, hidden=True, origin=origin)
        return Thinking(text=held.thinking, sealed=held.signature, origin=origin)
    text = reasoning_text(item)
    return Thinking(text=text, sealed=bytes(raw).decode(), hidden=not text, origin=NAME)
