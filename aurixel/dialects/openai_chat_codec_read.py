"""Reads an `openai_chat` request into the canonical form; it drops nothing in silence and quotes nothing it read.

What has no canonical name goes to `Losses` under the client's own word; what must not be lost is a `ClientError`.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import decode_field, given, missing, read_bool, unsupported, wrong
from aurixel.errors import ClientError
from aurixel.plugin.canonical import (
    CacheTtl,
    Conversation,
    Document,
    Effort,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Sound,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from aurixel.plugin.contracts import ParsedRequest

NAME: Final = "openai_chat"
MESSAGES: Final = "anthropic_messages"


class Wire(msgspec.Struct, frozen=True, gc=False):
    """The base of what is decoded here: it prints its type only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Mark(Wire, frozen=True, gc=False):
    ttl: str | None = None


class _ImageUrl(Wire, frozen=True, gc=False):
    url: str = ""
    detail: str | None = None


class _Sound(Wire, frozen=True, gc=False):
    data: str = ""
    format: str = ""


class _File(Wire, frozen=True, gc=False):
    file_data: str | None = None
    filename: str | None = None


class _Part(Wire, frozen=True, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | str | None = None
    input_audio: _Sound | None = None
    file: _File | None = None
    prompt_cache_breakpoint: _Mark | None = None
    cache_control: _Mark | None = None


class Function(Wire, frozen=True, gc=False):
    """A call's function, or custom tool; in a stream, a piece of it."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class Call(Wire, frozen=True, gc=False):
    """A tool call; in a stream, a piece of one."""

    id: str | None = None
    function: Function | None = None
    custom: Function | None = None
    index: int | None = None


class _Block(Wire, frozen=True, gc=False):
    """An entry of the carrier of thinking."""

    type: str = ""
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    index: int | None = None
    offset: int = 0


class _Message(Wire, frozen=True, gc=False):
    role: str = ""
    content: list[_Part] | str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[_Block] | None = None


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
    cache_control: _Mark | None = None


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
    tools: list[_Choice] = []


class _Schema(Wire, frozen=True, gc=False):
    name: str = "answer"
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    description: str | None = None


class _Format(Wire, frozen=True, gc=False):
    type: str = ""
    json_schema: _Schema | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
_FUNCTIONS: Final = msgspec.json.Decoder(list[_ToolSpec])
_CHOICE: Final = msgspec.json.Decoder(_Choice | str)
_FORMAT: Final = msgspec.json.Decoder(_Format)
_MODALITIES: Final = msgspec.json.Decoder(list[str])

# Plain values: field of the request -> field of the conversation, decoder, and what it must be.
_NUMBER: Final = (msgspec.json.Decoder(float), "a number")
_INTEGER: Final = (msgspec.json.Decoder(int), "an integer")
_STRING: Final = (msgspec.json.Decoder(str), "a string")
_PLAIN: Final[dict[str, tuple[str, msgspec.json.Decoder[Any], str]]] = {
    "temperature": ("temperature", *_NUMBER),
    "top_p": ("top_p", *_NUMBER),
    "frequency_penalty": ("frequency_penalty", *_NUMBER),
    "presence_penalty": ("presence_penalty", *_NUMBER),
    "seed": ("seed", *_INTEGER),
    "verbosity": ("verbosity", *_STRING),
    "prompt_cache_key": ("cache_key", *_STRING),
    "logit_bias": ("logit_bias", msgspec.json.Decoder(msgspec.Raw), "an object"),
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
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
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
_SPECIAL: Final = frozenset({"modalities", "web_search_options", "audio"})
_NULL: Final = b"null"


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
    for name in ("user", "safety_identifier"):
        if (raw_user := given(fields, name)) is not None:
            values["user"] = decode_field(_STRING[0], raw_user, name, "a string")
    if given(fields, "prompt_cache_options") is not None:
        values["cache"] = "5m"
    if read_bool(fields, "logprobs"):
        raw_top = given(fields, "top_logprobs")
        values["logprobs"] = decode_field(_INTEGER[0], raw_top, "top_logprobs", "an integer") if raw_top is not None else 0
    if (raw_format := given(fields, "response_format")) is not None:
        values["format"] = _format(decode_field(_FORMAT, raw_format, "response_format", "an object"))
    legacy = given(fields, "functions")
    if legacy is not None:
        values["parallel_tools"] = False
    values["tools"] = _tools(given(fields, "tools"), legacy)
    for name in ("function_call", "tool_choice"):
        if (raw_choice := given(fields, name)) is not None:
            values["tool_choice"] = _tool_choice(decode_field(_CHOICE, raw_choice, name, "a string or an object"), name)
    raw_messages = given(fields, "messages")
    if raw_messages is None:
        raise missing("messages")
    messages = decode_field(_MESSAGES, raw_messages, "messages", "a list of messages")
    return Conversation(
        model=request.model,
        stream=request.stream,
        messages=_Turns(losses).read(messages),
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
            found.append(_tool(spec, "tools", custom=tool.type == "custom", cache=_ttl(tool.cache_control)))
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
        raise wrong(name, "made of schemas that are objects")
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


def _ttl(mark: _Mark | None) -> CacheTtl | None:
    """Half an hour counts as the short one, as it does in the price list."""
    if mark is None:
        return None
    return "1h" if mark.ttl == "1h" else "5m"


# --- messages ---------------------------------------------------------------------------------------------------------


class _Turns:
    """Collects messages into turns: neighbours of a role become one, tool results go before what else the user says."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._turns: list[tuple[Role, list[Part]]] = []
        self._results = 0  # how many tool results the last turn begins with
        self._legacy: dict[str, str] = {}  # function -> id of its last call, of those that came without ids
        self._calls = 0

    def read(self, messages: list[_Message]) -> tuple[Message, ...]:
        for message in messages:
            role = message.role
            if message.name is not None and role != "function":
                self._losses.drop("messages.names")
            if role == "user":
                self._turn("user").extend(self._parts(message, "user"))
            elif role == "assistant":
                self._assistant(message)
            elif role in ("tool", "function"):
                self._tool(message)
            elif role in ("system", "developer"):
                self._turns.append(("system", self._parts(message, "system")))
            else:
                raise wrong("messages", "a list of messages of known roles")
        return tuple([Message(role=role, parts=tuple(parts)) for role, parts in self._turns])

    def _turn(self, role: Role) -> list[Part]:
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
            self._results = 0
        return self._turns[-1][1]

    def _tool(self, message: _Message) -> None:
        if message.role == "function":
            call = self._legacy.get(message.name or "")
        else:
            call = message.tool_call_id
        if not call:
            raise wrong("messages", "a list in which each tool's answer names its call")
        parts = self._parts(message, "tool")
        if not all(isinstance(part, Text | Image | Document) for part in parts):
            raise unsupported("messages", "Such a part in a tool's answer")
        turn = self._turn("user")
        turn.insert(self._results, ToolResult(id=call, parts=cast(Any, tuple(parts))))
        self._results += 1

    def _assistant(self, message: _Message) -> None:
        turn = self._turn("assistant")
        blocks = message.thinking_blocks or ()
        parts: list[Part] = []
        if isinstance(message.content, str) and message.content:
            parts = [Text(text=piece) for piece in _split(message.content, blocks)]
        elif message.content:
            parts = self._parts(message, "assistant")
        if message.refusal:
            parts.append(Refusal(text=message.refusal))
        for call in message.tool_calls or ():
            parts.append(_call(call, call.id))
        if (legacy := message.function_call) is not None:
            self._calls += 1
            made = self._legacy[legacy.name or ""] = f"call_{self._calls}"
            parts.append(_call(Call(function=legacy), made))
        if not blocks and (text := message.reasoning_content or message.reasoning):
            parts.insert(0, Thinking(text=text, origin=NAME, at=len(turn)))
        for place, block in enumerate(blocks):
            at = min(place if block.index is None else max(block.index, 0), len(parts))
            parts.insert(at, _thinking(block, len(turn) + at))
        turn.extend(parts)

    def _parts(self, message: _Message, role: str) -> list[Part]:
        content = message.content
        if content is None:
            if role == "tool":
                return []
            raise wrong("messages", "a list in which each message has content")
        if isinstance(content, str):
            return [Text(text=content)] if content or role in ("user", "system") else []
        return [_part(part, role) for part in content if part.text != "" or part.type != "text"]


def _split(content: str, blocks: list[_Block] | tuple[()]) -> list[str]:
    """The content, cut where thinking stood in the middle of it."""
    cuts = sorted({block.offset for block in blocks if 0 < block.offset < len(content)})
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)] if cuts else [content]


def _thinking(block: _Block, at: int) -> Thinking:
    hidden = block.type == "redacted_thinking"
    if not hidden and block.type != "thinking":
        raise wrong("messages", "a list in which thinking is given back as it came")
    proof = block.data if hidden else block.signature
    found = unpacked(proof) if proof else None
    if found is None:
        return Thinking(text=block.thinking, sealed=proof, hidden=hidden, origin=MESSAGES, at=at)
    return Thinking(text=block.thinking, sealed=found[1] or None, hidden=hidden, origin=found[0], at=at)


def _call(call: Call, id: str | None) -> ToolCall:
    function = call.custom or call.function
    if function is None or not function.name or not id:
        raise wrong("messages", "a list in which each tool call has an id and a name")
    if call.custom is not None:
        return ToolCall(id=id, name=function.name, arguments=function.input or "", custom=True)
    return ToolCall(id=id, name=function.name, arguments=function.arguments or "")


def _part(part: _Part, role: str) -> Part:
    cache = _ttl(part.prompt_cache_breakpoint or part.cache_control)
    kind = part.type
    if kind == "text" and part.text is not None:
        return Text(text=part.text, cache=cache)
    if kind == "refusal" and part.refusal is not None and role == "assistant":
        return Refusal(text=part.refusal)
    if kind == "image_url" and part.image_url is not None and role in ("user", "tool"):
        return _image(part.image_url, cache)
    if kind == "file" and part.file is not None and role in ("user", "tool"):
        return _document(part.file, cache)
    if kind == "input_audio" and part.input_audio is not None and role == "user":
        return Sound(data=part.input_audio.data, format=part.input_audio.format)
    if kind in ("text", "refusal", "image_url", "file", "input_audio"):
        raise wrong("messages", "a list in which each part has what its type names, and stands where it may")
    raise unsupported("messages", "A part of this type with this model")


def _image(image: _ImageUrl | str, cache: CacheTtl | None) -> Image:
    url, detail = (image, None) if isinstance(image, str) else (image.url, image.detail)
    if not url:
        raise wrong("messages", "a list in which each image has a URL")
    if url[:5].lower() != "data:":
        return Image(url=url, detail=detail, cache=cache)
    media_type, data = _data_url(url)
    return Image(data=data, media_type=media_type, detail=detail, cache=cache)


def _document(file: _File, cache: CacheTtl | None) -> Document:
    data = file.file_data
    if not data:
        raise wrong("messages", "a list in which each file has its data")
    media_type = "application/pdf"
    if data[:5].lower() == "data:":
        media_type, data = _data_url(data)
    return Document(data=data, media_type=media_type, name=file.filename, cache=cache)


def _data_url(url: str) -> tuple[str, str]:
    """The media type and the base64 of a data URL."""
    comma = url.find(",", 0, 256)
    media_type, *options = url[5 : max(comma, 5)].lower().split(";")
    if comma < 0 or not media_type or options[-1:] != ["base64"]:
        raise wrong("messages", "a list in which each data URL has a type and base64")
    return media_type, url[comma + 1 :]


__all__ = ["MESSAGES", "NAME", "Call", "ClientError", "Function", "Wire", "read"]
