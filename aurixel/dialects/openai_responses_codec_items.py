"""Reads the items of `openai_responses` into turns of the canonical form; every fault is a `ClientError` on `input`.

It quotes nothing of them, and fetches nothing that they name.
"""

from __future__ import annotations

from typing import Final, cast

import msgspec

from aurixel.dialects.carriers import unpacked
from aurixel.dialects.json_fields import Fields, decode_field, given, missing, unsupported, wrong
from aurixel.dialects.openai_responses_codec_tools import Tools, Wire, WireTool
from aurixel.plugin.canonical import (
    CacheTtl,
    Citation,
    Document,
    Image,
    Losses,
    Message,
    Part,
    Refusal,
    Role,
    Sound,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

NAME: Final = "openai_responses"
# Items of tools that ran at an upstream: a model that never saw them misses a step of the story, no more.
_HOSTED: Final = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_output",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
_TOLD_BY_TYPE: Final = _HOSTED | {"configuration_update"}


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
    tools: list[WireTool] | None = None


class _Restored(Wire, frozen=True):
    """What a carrier holds of another dialect's thinking."""

    thinking: str = ""
    signature: str | None = None
    data: str | None = None


_ITEMS: Final = msgspec.json.Decoder(list[WireItem] | str)
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_RESTORED: Final = msgspec.json.Decoder(_Restored)


def read_messages(fields: Fields, tools: Tools, losses: Losses) -> tuple[Message, ...]:
    """The turns of a request, its instructions first."""
    raw = given(fields, "input")
    if raw is None:
        raise missing("input")
    turns = _Turns(tools, losses)
    if (told := given(fields, "instructions")) is not None:
        text = decode_field(_TEXT, told, "instructions", "a string")
        turns.add("system", [Text(text=text)])
    items = decode_field(_ITEMS, raw, "input", "a string or a list of items")
    if isinstance(items, str):
        turns.add("user", [Text(text=items)])
    else:
        turns.read(items, raw)
    return turns.messages()


_TEXT: Final = msgspec.json.Decoder(str)


class _Turns:
    """Collects items into turns: neighbours of a role become one, results go before what else the user says, and words
    between a call and its output before the call. Instructions there wait until the output has come."""

    def __init__(self, tools: Tools, losses: Losses) -> None:
        self._tools, self._losses = tools, losses
        self._turns: list[tuple[Role, list[Part]]] = []
        self._results = 0  # how many results the last turn begins with
        self._first_call: int | None = None  # where the calls of the last turn begin
        self._open: set[str] = set()  # calls without their outputs
        self._waiting: list[list[Part]] = []
        self._raws: list[msgspec.Raw] | None = None

    def messages(self) -> tuple[Message, ...]:
        self._tell()
        return tuple([Message(role=role, parts=tuple(parts)) for role, parts in self._turns])

    def read(self, items: list[WireItem], raw: msgspec.Raw) -> None:
        for place, item in enumerate(items):
            kind = item.type or "message"
            if kind == "message":
                self._message(item)
            elif kind in ("function_call", "custom_tool_call"):
                self._call(item, custom=kind == "custom_tool_call")
            elif kind in ("function_call_output", "custom_tool_call_output"):
                self._result(item, custom=kind == "custom_tool_call_output")
            elif kind == "reasoning":
                if self._raws is None:
                    self._raws = _RAWS.decode(raw)
                self._say([thinking_of(item, self._raws[place])])
            elif kind in ("compaction", "compaction_trigger"):
                raise unsupported("input", "A conversation that an upstream has compacted, with this model,")
            elif kind != "additional_tools":
                self._losses.drop(f"input.{kind}" if kind in _TOLD_BY_TYPE else "input")

    def add(self, role: Role, parts: list[Part]) -> None:
        """Parts of a role, wherever they belong."""
        if not parts:
            return
        if role == "system":
            if self._open:
                self._waiting.append(parts)
            else:
                self._turns.append(("system", parts))
        elif role == "assistant":
            self._say(parts)
        else:
            self._turn("user").extend(parts)

    def _turn(self, role: Role) -> list[Part]:
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
            self._results, self._first_call = 0, None
        return self._turns[-1][1]

    def _tell(self) -> None:
        """What waited for the outputs of calls."""
        self._turns += [("system", parts) for parts in self._waiting]
        self._waiting.clear()

    def _say(self, parts: list[Part]) -> None:
        if self._waiting and self._turns[-1][0] != "assistant":
            self._open.clear()  # they will not be answered any more
            self._tell()
        turn = self._turn("assistant")
        for part in parts:
            if self._first_call is not None and isinstance(part, Text | Refusal):
                turn.insert(self._first_call, part)
                self._first_call += 1
            else:
                turn.append(part)

    def _message(self, item: WireItem) -> None:
        if item.role in ("system", "developer"):
            self.add("system", self._parts(item.content, "system"))
        elif item.role == "user":
            self.add("user", self._parts(item.content, "user"))
        elif item.role == "assistant":
            self.add("assistant", self._parts(item.content, "assistant"))
        else:
            raise wrong("input", "a list of items whose messages have known roles")

    def _call(self, item: WireItem, *, custom: bool) -> None:
        arguments = item.input if custom else item.arguments
        if not item.call_id or not item.name or isinstance(arguments, dict):
            raise wrong("input", "a list in which each tool call has its id, its name and its arguments as a string")
        name = self._tools.name(item.name, item.namespace)
        self._say([])
        turn = self._turn("assistant")
        if self._first_call is None:
            self._first_call = len(turn)
        turn.append(ToolCall(id=item.call_id, name=name, arguments=arguments or "", custom=custom))
        self._open.add(item.call_id)

    def _result(self, item: WireItem, *, custom: bool) -> None:
        if not item.call_id:
            raise wrong("input", "a list in which each output names its call")
        output = [item.output] if isinstance(item.output, WirePart) else item.output
        parts = self._parts(output or [], "tool")
        if not all(isinstance(part, Text | Image | Document) for part in parts):
            raise unsupported("input", "Such a part in the output of a tool")
        found = cast(tuple[Text | Image | Document, ...], tuple(parts))
        turn = self._turn("user")
        turn.insert(self._results, ToolResult(id=item.call_id, parts=found, custom=custom))
        self._results += 1
        self._open.discard(item.call_id)
        if not self._open:
            self._tell()

    def _parts(self, content: list[WirePart] | str | None, role: str) -> list[Part]:
        if content is None:
            raise wrong("input", "a list in which each message has content")
        if isinstance(content, str):
            return [Text(text=content)] if content or role == "user" else []
        return [part_of(part, role) for part in content if part.text != "" or role != "assistant"]


# --- parts ------------------------------------------------------------------------------------------------------------


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
    media_type, data = _data_url(url)
    return Image(data=data, media_type=media_type, detail=detail, cache=cache)


def _document(part: WirePart, cache: CacheTtl | None) -> Document:
    if part.file_url:
        return Document(url=part.file_url, name=part.filename, cache=cache)
    data, media_type = part.file_data or "", "application/pdf"
    if data[:5].lower() == "data:":
        media_type, data = _data_url(data)
    return Document(data=data, media_type=media_type, name=part.filename, cache=cache)


def _data_url(url: str) -> tuple[str, str]:
    """The media type and the base64 of a data URL."""
    comma = url.find(",", 0, 256)
    media_type, *options = url[5 : max(comma, 5)].lower().split(";")
    if comma < 0 or not media_type or options[-1:] != ["base64"]:
        raise wrong("input", "a list in which each data URL has a type and base64")
    return media_type, url[comma + 1 :]


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
