"""The tools of `openai_responses` to and from the canonical form: namespaces flattened, names kept apart; pure.

A tool `f` of the namespace `ns` is called `ns__f` in between, and `f` of `ns` again where the client sees it. Tools that
an upstream would have to run itself are a `ClientError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from aurixel.dialects.json_fields import Fields, decode_field, given, unsupported, wrong
from aurixel.dialects.openai_codec import FREE_TEXT
from aurixel.dialects.spelling import Names, fits, plain
from aurixel.plugin.canonical import Losses, Tool, ToolChoice
from aurixel.plugin.contracts import ParsedRequest

Json: TypeAlias = dict[str, Any]


class Wire(msgspec.Struct, frozen=True):
    """The base of what is decoded here: it prints its type only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class WireTool(Wire, frozen=True):
    """A tool as the client writes it."""

    type: str = ""
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    format: msgspec.Raw = msgspec.Raw()
    defer_loading: bool | None = None
    output_schema: msgspec.Raw = msgspec.Raw()
    allowed_callers: msgspec.Raw = msgspec.Raw()
    external_web_access: bool | None = None
    tools: list[WireTool] | None = None


class _Choice(Wire, frozen=True):
    type: str = ""
    name: str = ""
    namespace: str | None = None
    mode: str = "auto"
    tools: list[_Choice] | None = None


class _Later(Wire, frozen=True):
    """An item that brings tools with it."""

    type: str | None = None
    tools: list[WireTool] | None = None


class _Grammar(Wire, frozen=True):
    definition: str
    syntax: str


class _Format(Wire, frozen=True):
    """Of a custom tool, flat as here or nested as in chat, whose shape is the canonical one."""

    type: str = ""
    definition: str | None = None
    syntax: str | None = None
    grammar: _Grammar | None = None


_TOOLS: Final = msgspec.json.Decoder(list[WireTool])
_LATER: Final = msgspec.json.Decoder(list[_Later] | str)
_CHOICE: Final = msgspec.json.Decoder(_Choice | str)
_FORMAT: Final = msgspec.json.Decoder(_Format)
_NULL: Final = msgspec.Raw(b"null")
_ABSENT: Final = (msgspec.Raw(), _NULL)
_NO_SCHEMA: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_MODES: Final[Mapping[str, Any]] = {"auto": "auto", "none": "none", "required": "any"}
_WORDS: Final = {"auto": "auto", "none": "none", "any": "required"}
_BROUGHT: Final = ("additional_tools", "tool_search_output")
Name: TypeAlias = tuple[str, str | None]  # as the client calls it: the name, and its namespace


# --- read -------------------------------------------------------------------------------------------------------------


class Tools:
    """The tools of a request: `flat` is what each is called in between, `places` leads back."""

    def __init__(self, tools: Iterable[WireTool]) -> None:
        self.listed: list[tuple[str, WireTool]] = []
        self.flat: dict[Name, str] = {}
        self.places: dict[str, Name] = {}
        self.searches = False  # there was a search that reaches nothing outside; it is left out
        self.described = False  # a namespace had words of its own, which have no place in between
        for tool in tools:
            if tool.type.startswith("web_search") and tool.external_web_access is False:
                self.searches = True
            elif tool.type == "namespace":
                self.described = self.described or bool(tool.description)
                for inner in tool.tools or ():
                    self._add(inner, tool.name)
            else:
                self._add(tool, None)

    def _add(self, tool: WireTool, namespace: str | None) -> None:
        if tool.type not in ("function", "custom"):
            raise unsupported("tools", "A tool that the upstream runs itself, with this model,")
        if not tool.name or namespace == "":
            raise wrong("tools", "a list in which each tool has a name")
        place = (tool.name, namespace)
        if place in self.flat:  # told again in a later item
            return
        name = tool.name if namespace is None else f"{namespace}__{tool.name}"
        while name in self.places:
            name += "_"
        self.flat[place] = name
        self.places[name] = place
        self.listed.append((name, tool))

    def name(self, name: str, namespace: str | None) -> str:
        """What a tool is called in between; one that is listed nowhere by the same rule."""
        found = self.flat.get((name, namespace))
        if found is None:
            found = name if namespace is None else f"{namespace}__{name}"
        return found

    def chosen(self, name: str, namespace: str | None) -> str:
        """The same for a choice, which may leave out the namespace where there is but one."""
        if namespace is None and (name, None) not in self.flat:
            within = [flat for (inner, _), flat in self.flat.items() if inner == name]
            if len(within) == 1:
                return within[0]
        return self.name(name, namespace)


def tools_of(fields: Fields) -> Tools:
    """The tools of a request, those that its items bring included."""
    found: list[WireTool] = []
    if (raw := given(fields, "tools")) is not None:
        found = decode_field(_TOOLS, raw, "tools", "a list of tools")
    raw = given(fields, "input")
    if raw is not None and _brings(bytes(raw)):
        items = decode_field(_LATER, raw, "input", "a string or a list of items")
        for item in items if isinstance(items, list) else ():
            if item.type in _BROUGHT:
                found = [*found, *(item.tools or ())]
    return Tools(found)


def _brings(items: bytes) -> bool:
    return b"additional_tools" in items or b"tool_search_output" in items


def places_of(request: ParsedRequest) -> Mapping[str, Name]:
    """What is called differently by the client: the name in between -> the client's."""
    raw = request.fields.get("tools")
    items = request.fields.get("input")
    if (raw is None or b"namespace" not in bytes(raw)) and (items is None or b"namespace" not in bytes(items)):
        return {}
    return {flat: place for flat, place in tools_of(request.fields).places.items() if place[1] is not None}


def read_tools(tools: Tools, losses: Losses) -> tuple[Tool, ...]:
    """The tools in the canonical form. A search that may not reach the web is told as lost: one of the agents asks for it
    whatever its user wants. Any other has been refused."""
    if tools.searches:
        losses.drop("tools.web_search")
    if tools.described:
        losses.drop("tools.namespace.description")
    return tuple([_tool(name, tool, losses) for name, tool in tools.listed])


def _tool(name: str, tool: WireTool, losses: Losses) -> Tool:
    for field in ("defer_loading", "output_schema", "allowed_callers"):
        if getattr(tool, field) not in (None, False, *_ABSENT):
            losses.drop(f"tools.{field}")
    if tool.type == "custom":
        return Tool(name=name, description=tool.description, custom=True, grammar=_nested(tool.format))
    schema = None if tool.parameters in _ABSENT else tool.parameters
    if schema is not None and bytes(memoryview(schema)[:1]) != b"{":
        raise wrong("tools", "a list in which parameters are an object")
    return Tool(name=name, description=tool.description, schema=schema, strict=tool.strict)


def _nested(raw: msgspec.Raw) -> msgspec.Raw | None:
    """A grammar in the canonical shape; None for plain text."""
    if raw in _ABSENT:
        return None
    form = decode_field(_FORMAT, raw, "tools", "a list in which the format of a tool is an object")
    if form.type != "grammar":
        return None
    grammar = {"definition": form.definition or "", "syntax": form.syntax or ""}
    return msgspec.Raw(msgspec.json.encode({"type": "grammar", "grammar": grammar}))


def read_choice(fields: Fields, tools: Tools) -> ToolChoice | None:
    """`tool_choice`."""
    raw = given(fields, "tool_choice")
    if raw is None:
        return None
    choice = decode_field(_CHOICE, raw, "tool_choice", "a string or an object")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise wrong("tool_choice", "'none', 'auto', 'required' or an object")
        return ToolChoice(mode=_MODES[choice])
    if choice.type == "allowed_tools":
        if choice.mode not in ("auto", "required"):
            raise wrong("tool_choice", "of mode 'auto' or 'required'")
        allowed: list[str] = []
        for tool in choice.tools or ():
            allowed += _allowed(tool, tools)
        return ToolChoice(mode=_MODES[choice.mode], allowed=tuple(dict.fromkeys(allowed)))
    if choice.type not in ("function", "custom"):
        raise unsupported("tool_choice", "A tool that the upstream runs itself, with this model,")
    if not choice.name:
        raise wrong("tool_choice", "an object that names a tool")
    return ToolChoice(mode="tool", name=tools.chosen(choice.name, choice.namespace))


def _allowed(choice: _Choice, tools: Tools) -> list[str]:
    if choice.type == "namespace":
        return [flat for (_, namespace), flat in tools.flat.items() if namespace == choice.name]
    if choice.type not in ("function", "custom") or not choice.name:
        raise wrong("tool_choice", "an object that names the client's own tools")
    return [tools.chosen(choice.name, choice.namespace)]


# --- written ----------------------------------------------------------------------------------------------------------


def schema_name(name: str) -> str:
    """The name of a format, in letters that this dialect has."""
    return name if fits(name) else plain(name) or "answer"


def write_tool(tool: Tool, names: Names, losses: Losses, *, native: bool) -> Json:
    """A tool; `native`: the model takes free text. What does not say that it is strict is not: here it would be taken for
    one that is."""
    written: Json = {"type": "custom" if tool.custom and native else "function", "name": names(tool.name)}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.cache is not None:  # no place for it here: the first mark in a message covers the tools too
        losses.drop("messages.cache_control")
    if not tool.custom:
        written["parameters"] = _NO_SCHEMA if tool.schema is None else tool.schema
        written["strict"] = bool(tool.strict)
    elif not native:
        names.wrapped.add(written["name"])
        losses.emulate("tools.grammar" if tool.grammar is not None else "tools")
        written["parameters"], written["strict"] = FREE_TEXT, False
    elif tool.grammar is not None:
        form = decode_field(_FORMAT, tool.grammar, "tools", "a list in which the format of a tool is an object")
        if form.type == "grammar":
            inner = form.grammar
            definition, syntax = (inner.definition, inner.syntax) if inner else (form.definition, form.syntax)
            written["format"] = {"type": "grammar", "definition": definition, "syntax": syntax}
    return written


def write_choice(choice: ToolChoice, tools: Iterable[Tool], names: Names, *, native: bool) -> Json | str:
    """`tool_choice`."""
    custom = {tool.name for tool in tools if tool.custom and native}

    def named(name: str) -> Json:
        return {"type": "custom" if name in custom else "function", "name": names(name)}

    if choice.mode == "tool" and choice.name is not None:
        return named(choice.name)
    mode = _WORDS.get(choice.mode, "required")
    if choice.allowed is None or mode == "none":
        return mode
    return {"type": "allowed_tools", "mode": mode, "tools": [named(name) for name in choice.allowed]}
