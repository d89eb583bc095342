"""Reads an `openai_chat` request into the canonical form; it drops nothing in silence and quotes nothing it read.

What has no canonical name goes to `Losses` under the client's own word; what must not be lost is a `ClientError`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec

from aurixel.dialects.json_fields import decode_field, given, read_bool, read_int, unsupported, wrong
from aurixel.dialects.openai_chat.codec_keys import STRAYS
from aurixel.dialects.openai_chat.codec_messages import Mark, Wire, read_messages, ttl
from aurixel.plugin.canonical import (
    CacheTtl,
    Conversation,
    Effort,
    Format,
    Losses,
    Reasoning,
    Tool,
    ToolChoice,
)
from aurixel.plugin.contracts import ParsedRequest


class _ToolSpec(Wire, frozen=True, gc=False):
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    format: msgspec.Raw = msgspec.Raw()


class _Tool(Wire, frozen=True, gc=False):
    type: str = "function"
    function: _ToolSpec | None = None
    custom: _ToolSpec | None = None
    cache_control: Mark | None = None


class _Named(Wire, frozen=True, gc=False):
    name: str = ""


class _Choice(Wire, frozen=True, gc=False):
    type: str = ""
    function: _Named | None = None
    custom: _Named | None = None
    name: str | None = None
    allowed_tools: _Allowed | None = None


class _Allowed(Wire, frozen=True, gc=False):
    mode: str = "auto"
    tools: tuple[_Choice, ...] = ()


class _Schema(Wire, frozen=True, gc=False):
    name: str = "answer"
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    description: str | None = None


class _CacheOptions(Wire, frozen=True, gc=False):
    mode: str | None = None


class _Format(Wire, frozen=True, gc=False):
    type: str = ""
    json_schema: _Schema | None = None


_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_FUNCTIONS: Final = msgspec.json.Decoder(list[_ToolSpec])
_CHOICE: Final = msgspec.json.Decoder(_Choice | str)
_FORMAT: Final = msgspec.json.Decoder(_Format)
_CACHE: Final = msgspec.json.Decoder(_CacheOptions)
_MODALITIES: Final = msgspec.json.Decoder(list[str])

_Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Plain values: field of the request -> field of the conversation, decoder, and what it must be.
_NUMBER: Final = (msgspec.json.Decoder(float), "a number")
_INTEGER: Final = (msgspec.json.Decoder(int), "an integer")
_STRING: Final = (msgspec.json.Decoder(str), "a string")
_PLAIN: Final[dict[str, tuple[str, msgspec.json.Decoder[Any], str]]] = {
    "temperature": ("temperature", *_NUMBER),
    "top_p": ("top_p", *_NUMBER),
    "frequency_penalty": ("frequency_penalty", *_NUMBER),
    "presence_penalty": ("presence_penalty", *_NUMBER),
    "seed": ("seed", msgspec.json.Decoder(_Seed), "an integer of 64 bits"),
    "verbosity": ("verbosity", *_STRING),
    "prompt_cache_key": ("cache_key", *_STRING),
    "parallel_tool_calls": ("parallel_tools", msgspec.json.Decoder(bool), "true or false"),
    "stop": ("stop", msgspec.json.Decoder(tuple[str, ...] | str), "a string or a list of strings"),
    "reasoning_effort": (
        "reasoning",
        msgspec.json.Decoder(Effort),
        "one of 'none', 'minimal', 'low', 'medium', 'high', 'xhigh' and 'max'",
    ),
}
# Read elsewhere, or a matter of transport that no translation needs to report.
_ELSEWHERE: Final = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "prompt_cache_options",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "tool_choice",
        "tools",
        "top_logprobs",
        "user",
    }
)
_NULL: Final = msgspec.Raw(b"null")


def read(request: ParsedRequest, losses: Losses) -> Conversation:
    """See `ChatCodec`."""
    fields = request.fields
    if request.choices > 1:
        raise unsupported("n", "More than one choice with this model")
    values: dict[str, Any] = {}
    for name, raw in fields.items():
        if (plain := _PLAIN.get(name)) is not None:
            if raw != _NULL:
                field, decoder, expected = plain
                values[field] = decode_field(decoder, raw, name, expected)
        elif name not in _ELSEWHERE and raw != _NULL:
            if name == "web_search_options":
                raise unsupported(name, "A search by the upstream with this model")
            losses.drop(name)
    if "modalities" in fields:
        _check_modalities(request)
    if isinstance(stop := values.get("stop"), str):
        values["stop"] = (stop,)
    if effort := values.get("reasoning"):
        values["reasoning"] = Reasoning(enabled=effort != "none", effort=effort)
    for name in ("max_tokens", "max_completion_tokens"):
        if (raw_limit := given(fields, name)) is not None:
            values["max_output"] = decode_field(_INTEGER[0], raw_limit, name, "an integer")
    if (raw_bias := given(fields, "logit_bias")) is not None:
        values["logit_bias"] = _object(raw_bias, "logit_bias")
    for name in ("user", "safety_identifier"):
        if (raw_user := given(fields, name)) is not None:
            values["user"] = decode_field(_STRING[0], raw_user, name, "a string")
    if (raw_cache := given(fields, "prompt_cache_options")) is not None:
        # Explicit: marks only, and no cache where there is none.
        options = decode_field(_CACHE, raw_cache, "prompt_cache_options", "an object")
        values["cache"] = None if options.mode == "explicit" else "5m"
    if read_bool(fields, "logprobs"):
        values["logprobs"] = read_int(fields, "top_logprobs", 0) or 0
    if (raw_format := given(fields, "response_format")) is not None:
        values["format"] = _format(decode_field(_FORMAT, raw_format, "response_format", "an object"))
    legacy = given(fields, "functions")
    if legacy is not None:
        values["parallel_tools"] = False
    values["tools"] = _tools(given(fields, "tools"), legacy)
    for name in ("function_call", "tool_choice"):
        if (raw_choice := given(fields, name)) is not None:
            values["tool_choice"] = _tool_choice(decode_field(_CHOICE, raw_choice, name, "a string or an object"), name)
    messages = read_messages(fields, losses)
    STRAYS.tell(fields, losses)
    return Conversation(
        model=request.model,
        stream=request.stream,
        messages=messages,
        **values,
    )


def _check_modalities(request: ParsedRequest) -> None:
    raw = given(request.fields, "modalities")
    if raw is not None and any(
        modality != "text" for modality in decode_field(_MODALITIES, raw, "modalities", "a list of strings")
    ):
        raise unsupported("modalities", "An answer that is not text, with this model,")


# --- tools and formats ------------------------------------------------------------------------------------------------


def _tools(raw: msgspec.Raw | None, legacy: msgspec.Raw | None) -> tuple[Tool, ...]:
    found: list[Tool] = []
    if raw is not None:
        for tool in decode_field(_TOOLS, raw, "tools", "a list of tools"):
            spec = tool.custom if tool.type == "custom" else tool.function
            if tool.type not in ("function", "custom"):
                raise unsupported("tools", "A tool that the upstream runs itself")
            if spec is None:
                raise wrong("tools", "a list of tools, each with the object that its type names")
            found.append(_tool(spec, "tools", custom=tool.type == "custom", cache=ttl(tool.cache_control)))
    if legacy is not None:
        found += [_tool(spec, "functions") for spec in decode_field(_FUNCTIONS, legacy, "functions", "a list of functions")]
    return tuple(found)


def _tool(spec: _ToolSpec, name: str, *, custom: bool = False, cache: CacheTtl | None = None) -> Tool:
    if not spec.name:
        raise wrong(name, "a list in which each tool has a name")
    return Tool(
        name=spec.name,
        description=spec.description,
        schema=None if custom else _object(spec.parameters, name),
        strict=spec.strict,
        custom=custom,
        grammar=_object(spec.format, name) if custom else None,
        cache=cache,
    )


def _object(raw: msgspec.Raw, name: str) -> msgspec.Raw | None:
    """An object as written; None where it is absent or null."""
    if not raw or raw == _NULL:
        return None
    if bytes(memoryview(raw)[:1]) != b"{":
        raise wrong(name, "an object, and so must each schema in it")
    return raw


def _tool_choice(choice: _Choice | str, name: str) -> ToolChoice:
    if isinstance(choice, str):
        if choice == "required":
            return ToolChoice(mode="any")
        if choice in ("auto", "none"):
            return ToolChoice(mode=cast(Any, choice))
        raise wrong(name, "'none', 'auto', 'required' or an object")
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        allowed = choice.allowed_tools
        if allowed.mode not in ("auto", "required"):
            raise wrong(name, "of mode 'auto' or 'required'")
        return ToolChoice(
            mode="any" if allowed.mode == "required" else "auto",
            allowed=tuple(_chosen(tool, name) for tool in allowed.tools),
        )
    return ToolChoice(mode="tool", name=_chosen(choice, name))


def _chosen(choice: _Choice, name: str) -> str:
    named = choice.function or choice.custom
    found = named.name if named is not None else choice.name
    if not found:
        raise wrong(name, "an object that names a tool")
    return found


def _format(asked: _Format) -> Format | None:
    if asked.type in ("", "text"):
        return None
    if asked.type == "json_object":
        return Format(kind="json_object")
    spec = asked.json_schema
    if asked.type != "json_schema" or spec is None:
        raise unsupported("response_format", "This format of an answer")
    return Format(
        kind="json_schema",
        name=spec.name,
        schema=_object(spec.schema, "response_format"),
        strict=spec.strict,
        description=spec.description,
    )


__all__ = ["read"]
