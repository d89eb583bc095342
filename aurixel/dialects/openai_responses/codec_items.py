"""Reads the items of `openai_responses` into turns of the canonical form; every fault is a `ClientError` on `input`.

It quotes nothing of them, and fetches nothing that they name.
"""

from __future__ import annotations

from typing import Final, cast

import msgspec

from aurixel.dialects.json_fields import Fields, decode_field, given, missing, unsupported, wrong
from aurixel.dialects.openai_responses.codec_parts import WireItem, WirePart, part_of, thinking_of
from aurixel.dialects.openai_responses.codec_tools import Tools
from aurixel.plugin.canonical import Document, Image, Losses, Message, Part, Refusal, Role, Text, ToolCall, ToolResult

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


_TEXT: Final = msgspec.json.Decoder(str)
_ITEMS: Final = msgspec.json.Decoder(list[WireItem] | str)
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])


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


def _ordered(role: Role, parts: list[Part]) -> tuple[Part, ...]:
    """Of a user's turn the results of tools first; of the assistant's its words before its calls."""
    if role == "user":
        return tuple(sorted(parts, key=lambda part: not isinstance(part, ToolResult)))
    first = next((place for place, part in enumerate(parts) if isinstance(part, ToolCall)), len(parts))
    return (*parts[:first], *sorted(parts[first:], key=lambda part: not isinstance(part, Text | Refusal)))


class _Turns:
    """Collects items into turns: neighbours of a role become one, results go before what else the user says, and words
    between a call and its output before the call. Instructions there wait until the output has come."""

    def __init__(self, tools: Tools, losses: Losses) -> None:
        self._tools, self._losses = tools, losses
        self._turns: list[tuple[Role, list[Part]]] = []
        self._open: set[str] = set()  # calls without their outputs
        self._waiting: list[list[Part]] = []
        self._raws: list[msgspec.Raw] | None = None

    def messages(self) -> tuple[Message, ...]:
        self._tell()
        return tuple([Message(role=role, parts=_ordered(role, parts)) for role, parts in self._turns])

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
        return self._turns[-1][1]

    def _tell(self) -> None:
        """What waited for the outputs of calls."""
        self._turns += [("system", parts) for parts in self._waiting]
        self._waiting.clear()

    def _say(self, parts: list[Part]) -> None:
        if self._waiting and self._turns[-1][0] != "assistant":
            self._open.clear()  # they will not be answered any more
            self._tell()
        self._turn("assistant").extend(parts)

    def _message(self, item: WireItem) -> None:
        if item.phase is not None:
            self._losses.drop("input.phase")
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
        self._turn("assistant").append(ToolCall(id=item.call_id, name=name, arguments=arguments or "", custom=custom))
        self._open.add(item.call_id)

    def _result(self, item: WireItem, *, custom: bool) -> None:
        if not item.call_id:
            raise wrong("input", "a list in which each output names its call")
        output = [item.output] if isinstance(item.output, WirePart) else item.output
        parts = self._parts(output or [], "tool")
        if not all(isinstance(part, Text | Image | Document) for part in parts):
            raise unsupported("input", "Such a part in the output of a tool")
        found = cast(tuple[Text | Image | Document, ...], tuple(parts))
        self._turn("user").append(ToolResult(id=item.call_id, parts=found, custom=custom))
        self._open.discard(item.call_id)
        if not self._open:
            self._tell()

    def _parts(self, content: list[WirePart] | str | None, role: str) -> list[Part]:
        if content is None:
            raise wrong("input", "a list in which each message has content")
        if isinstance(content, str):
            return [Text(text=content)] if content or role == "user" else []
        return [part_of(part, role) for part in content if part.text != "" or role != "assistant"]
