"""Reads a request of `anthropic_messages` into the canonical form; what has no name there is reported or refused.

Refused are tools that the upstream would run, servers it would ask, and blocks whose loss would change what the model is
asked. Whatever `parse_request` let pass and is still malformed is a `ClientError` that names its field.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_keys import STRAYS
from aurixel.dialects.anthropic_messages.codec_read_blocks import Mark, MessagesReading, field_of, ttl_of
from aurixel.dialects.json_fields import Fields, decode_field, given, unsupported, wrong
from aurixel.plugin.canonical import (
    Conversation,
    Effort,
    Format,
    Losses,
    Reasoning,
    Tool,
    ToolChoice,
)
from aurixel.plugin.contracts import ParsedRequest

_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
# Read here, or without any meaning for another upstream; of every other field the client is told that it was dropped.
_KNOWN: Final = frozenset(
    {
        "billing_policy",
        "cache_control",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
        "workspace_id",
    }
)
_NO_RAW: Final = msgspec.Raw()


class _Tool(msgspec.Struct, gc=False):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NO_RAW
    strict: bool | None = None
    cache_control: Mark | None = None
    defer_loading: bool | None = None
    input_examples: msgspec.Raw = _NO_RAW
    allowed_callers: msgspec.Raw = _NO_RAW
    eager_input_streaming: bool | None = None


class _Choice(msgspec.Struct, gc=False):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _ThinkingConfig(msgspec.Struct, gc=False):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct, gc=False):
    type: str
    schema: msgspec.Raw = _NO_RAW


class _Output(msgspec.Struct, gc=False):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_CHOICE: Final = msgspec.json.Decoder(_Choice)
_THINKING: Final = msgspec.json.Decoder(_ThinkingConfig)
_OUTPUT: Final = msgspec.json.Decoder(_Output)
_METADATA: Final = msgspec.json.Decoder(_Metadata)
_MARK: Final = msgspec.json.Decoder(Mark)
_NUMBER: Final = msgspec.json.Decoder(float)
_INTEGER: Final = msgspec.json.Decoder(int)
_STRING: Final = msgspec.json.Decoder(str)
_STRINGS: Final = msgspec.json.Decoder(list[str])
_MODES: Final = ("auto", "any", "tool", "none")


def read(request: ParsedRequest, losses: Losses) -> Conversation:
    """See `ChatCodec.read`."""
    fields = request.fields
    for name in fields:
        if name not in _KNOWN:
            if name == "mcp_servers" and given(fields, name) is not None:
                raise unsupported(name, "Letting the upstream ask servers")
            losses.drop(name)
    choice, parallel = _choice(fields)
    if request.output_limit == 0:
        raise unsupported("max_tokens", "Filling a cache without an answer with this model")
    effort, form = _output(fields)
    messages = MessagesReading(losses).conversation(fields)
    tools = _tools(fields, losses) if "tools" in fields else ()
    STRAYS.tell(fields, losses)
    return Conversation(
        model=request.model,
        messages=messages,
        stream=request.stream,
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        max_output=request.output_limit,
        temperature=field_of(_NUMBER, fields, "temperature", "a number"),
        top_p=field_of(_NUMBER, fields, "top_p", "a number"),
        top_k=field_of(_INTEGER, fields, "top_k", "an integer"),
        stop=tuple(field_of(_STRINGS, fields, "stop_sequences", "a list of strings") or ()),
        format=form,
        reasoning=_reasoning(fields, effort, losses),
        user=_user(fields),
        cache=ttl_of(field_of(_MARK, fields, "cache_control", "an object")),
    )


def _user(fields: Fields) -> str | None:
    metadata = field_of(_METADATA, fields, "metadata", "an object")
    return metadata.user_id or None if metadata is not None else None


def _choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and False where calls may not be parallel."""
    choice = field_of(_CHOICE, fields, "tool_choice", "an object with a type")
    if choice is None:
        return None, None
    mode: Any = choice.type
    if mode not in _MODES or (mode == "tool" and not choice.name):
        raise wrong("tool_choice", "a choice of type auto, any, none, or tool with a name")
    return ToolChoice(mode=mode, name=choice.name if mode == "tool" else None), (
        False if choice.disable_parallel_tool_use else None
    )


def _output(fields: Fields) -> tuple[Effort | None, Format | None]:
    raw = given(fields, "output_config")
    if raw is None:
        return None, None
    config = decode_field(_OUTPUT, raw, "output_config", "an object")
    effort: Any = config.effort
    if effort is not None and effort not in _EFFORTS:
        raise wrong("output_config", "an object whose effort is low, medium, high, xhigh or max")
    form = config.format
    if form is None:
        return effort, None
    if form.type != "json_schema" or not _is_object(form.schema):
        raise wrong("output_config", "an object whose format is of type json_schema, with its schema")
    return effort, Format(kind="json_schema", schema=form.schema, strict=True)


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(raw).startswith(b"{")


def _reasoning(fields: Fields, effort: Effort | None, losses: Losses) -> Reasoning | None:
    config = field_of(_THINKING, fields, "thinking", "an object with a type")
    if config is None:
        return None if effort is None else Reasoning(effort=effort)
    if config.type == "disabled":
        if effort is not None:
            losses.drop("output_config.effort")
        return Reasoning(enabled=False)
    shown = config.display != "omitted"
    if config.type == "enabled":
        if config.budget_tokens is None or config.budget_tokens < 1:
            raise wrong("thinking", "an object with budget_tokens, at least 1")
        return Reasoning(enabled=True, effort=effort, budget=config.budget_tokens, shown=shown)
    if config.type == "between_tools":
        losses.change("reasoning")
    elif config.type != "adaptive":
        raise wrong("thinking", "an object of type adaptive, enabled or disabled")
    return Reasoning(enabled=True, effort=effort, shown=shown)


def _tools(fields: Fields, losses: Losses) -> tuple[Tool, ...]:
    tools = []
    for tool in field_of(_TOOLS, fields, "tools", "a list of tools") or ():
        if tool.type not in (None, "custom"):
            raise unsupported("tools", "A tool of this type")
        if not tool.name:
            raise wrong("tools", "a list of tools with names")
        if tool.input_schema and not _is_object(tool.input_schema):
            raise wrong("tools", "a list of tools whose input_schema is an object")
        if tool.defer_loading:
            losses.drop("tools.defer_loading")
        if tool.eager_input_streaming:
            losses.drop("tools.eager_input_streaming")
        if tool.input_examples:
            losses.drop("tools.input_examples")
        if tool.allowed_callers:
            losses.drop("tools.allowed_callers")
        tools.append(
            Tool(
                name=tool.name,
                description=tool.description,
                schema=tool.input_schema or None,
                strict=tool.strict,
                cache=ttl_of(tool.cache_control),
            )
        )
    return tuple(tools)
