"""Reads an `openai_responses` request into the canonical form; it drops nothing in silence and quotes nothing it read.

What has no canonical name goes to `Losses` under the client's own word; what must not be lost is a `ClientError`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from aurixel.dialects.json_fields import decode_field, given, read_int, unsupported, wrong
from aurixel.dialects.openai_responses.codec_items import read_messages
from aurixel.dialects.openai_responses.codec_keys import STRAYS
from aurixel.dialects.openai_responses.codec_tools import Wire, read_choice, read_tools, tools_of
from aurixel.plugin.canonical import Conversation, Effort, Format, Losses, Reasoning
from aurixel.plugin.contracts import ParsedRequest


class _Reasoning(Wire, frozen=True):
    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Format(Wire, frozen=True):
    type: str = "text"
    name: str = "answer"
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    description: str | None = None


class _Text(Wire, frozen=True):
    format: _Format | None = None
    verbosity: str | None = None


class _Cache(Wire, frozen=True):
    mode: str | None = None


_TEXT: Final = msgspec.json.Decoder(_Text)
_REASONING: Final = msgspec.json.Decoder(_Reasoning)
_CACHE: Final = msgspec.json.Decoder(_Cache)
_INCLUDE: Final = msgspec.json.Decoder(list[str])
_TRUNCATION: Final = msgspec.json.Decoder(Literal["auto", "disabled"])

# Plain values: field of the request -> field of the conversation, decoder, and what it must be. The later one counts.
_PLAIN: Final[dict[str, tuple[str, msgspec.json.Decoder[Any], str]]] = {
    "temperature": ("temperature", msgspec.json.Decoder(float), "a number"),
    "top_p": ("top_p", msgspec.json.Decoder(float), "a number"),
    "prompt_cache_key": ("cache_key", msgspec.json.Decoder(str), "a string"),
    "user": ("user", msgspec.json.Decoder(str), "a string"),
    "safety_identifier": ("user", msgspec.json.Decoder(str), "a string"),
    "max_output_tokens": ("max_output", msgspec.json.Decoder(int), "an integer"),
    "parallel_tool_calls": ("parallel_tools", msgspec.json.Decoder(bool), "true or false"),
}
# Read elsewhere, refused before, or a matter of transport that no translation needs to report.
_ELSEWHERE: Final = frozenset(
    {
        "background",
        "client_metadata",
        "include",
        "input",
        "instructions",
        "modalities",
        "model",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)
_LOGPROBS: Final = "message.output_text.logprobs"
_NULL: Final = msgspec.Raw(b"null")


def read(request: ParsedRequest, losses: Losses) -> Conversation:
    """See `ChatCodec`."""
    fields = request.fields
    values: dict[str, Any] = {}
    for name, raw in fields.items():
        if raw == _NULL or name in _ELSEWHERE:
            continue
        if (plain := _PLAIN.get(name)) is not None:
            field, decoder, expected = plain
            values[field] = decode_field(decoder, raw, name, expected)
        else:
            losses.drop(name)
    if (raw_cut := given(fields, "truncation")) is not None and _cuts(raw_cut):
        losses.drop("truncation")
    if (raw_text := given(fields, "text")) is not None:
        text = decode_field(_TEXT, raw_text, "text", "an object")
        values["verbosity"] = text.verbosity
        values["format"] = _format(text.format) if text.format is not None else None
    if (raw_reasoning := given(fields, "reasoning")) is not None:
        asked = decode_field(_REASONING, raw_reasoning, "reasoning", "an object with a known effort")
        values["reasoning"] = _reasoning(asked)
    if (raw_cache := given(fields, "prompt_cache_options")) is not None:
        # Explicit: marks only, and no cache where there is none.
        options = decode_field(_CACHE, raw_cache, "prompt_cache_options", "an object")
        values["cache"] = None if options.mode == "explicit" else "5m"
    values["logprobs"] = _logprobs(request)
    tools = tools_of(fields)
    messages = read_messages(fields, tools, losses)
    STRAYS.tell(fields, losses)
    return Conversation(
        model=request.model,
        stream=request.stream,
        messages=messages,
        tools=read_tools(tools, losses),
        tool_choice=read_choice(fields, tools),
        **values,
    )


def _cuts(raw: msgspec.Raw) -> bool:
    return bool(decode_field(_TRUNCATION, raw, "truncation", "'auto' or 'disabled'") == "auto")


def _logprobs(request: ParsedRequest) -> int | None:
    most = read_int(request.fields, "top_logprobs", 0)
    if most:
        return most
    raw = given(request.fields, "include")
    if raw is None or _LOGPROBS not in decode_field(_INCLUDE, raw, "include", "a list of strings"):
        return None
    return 0


def _reasoning(asked: _Reasoning) -> Reasoning | None:
    summary = asked.summary or asked.generate_summary
    if asked.effort is None and summary is None:
        return None
    enabled = None if asked.effort is None else asked.effort != "none"
    return Reasoning(enabled=enabled, effort=asked.effort, shown=summary is not None)


def _format(asked: _Format) -> Format | None:
    if asked.type == "text":
        return None
    if asked.type == "json_object":
        return Format(kind="json_object")
    if asked.type != "json_schema":
        raise unsupported("text", "This format of an answer")
    schema = asked.schema if asked.schema and asked.schema != _NULL else None
    if schema is not None and bytes(memoryview(schema)[:1]) != b"{":
        raise wrong("text", "an object whose schema is an object")
    return Format(kind="json_schema", name=asked.name, schema=schema, strict=asked.strict, description=asked.description)


__all__ = ["read"]
