"""Decides what the demo answers: a pure function of the request, so that its text and its usage can be foretold.

One word is one token, on both sides. It understands only as much of a request as a demonstration needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

Trouble: TypeAlias = Literal["slow", "hang", "refuse", "429", "fail", "error", "die"]
# What can be asked for, as the model `demo-NAME` or as `!NAME` at the start of the last message.
TROUBLES: Final[Mapping[str, Trouble]] = {
    "slow": "slow",  # a pause before each piece
    "hang": "hang",  # no answer at all
    "refuse": "refuse",  # 400, the client's fault
    "429": "429",  # 429 with retry-after
    "fail": "fail",  # 500
    "error": "error",  # the family's error event in the middle of the stream
    "die": "die",  # the connection is cut in the middle of the body
}


class ToolCall(msgspec.Struct, frozen=True):
    """A call the answer makes: `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    @property
    def tokens(self) -> int:
        """Never zero: even `{}` is a word."""
        return len(self.arguments.split())


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """An answer before it has a shape: its words (each with the space before it), or a tool call in their place. `request`
    is what was asked, for answers that are no words."""

    request: Mapping[str, Any]
    id: str
    model: str
    stream: bool
    include_usage: bool
    choices: int
    input_tokens: int
    words: tuple[str, ...]
    call: ToolCall | None
    cut: bool
    trouble: Trouble | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def output_tokens(self) -> int:
        """Tokens of one answer."""
        return self.call.tokens if self.call else len(self.words)

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.words)


def write(body: bytes) -> Script:
    """The answer to a request of either family: its last message, or its one prompt, is what is asked."""
    request: dict[str, Any] = msgspec.json.decode(body)
    single = next((request[name] for name in _SINGLE if request.get(name) is not None), None)
    messages = [message for message in request.get("messages", ()) if isinstance(message, dict)]
    if single is not None:
        messages = [{"content": " ".join(_strings(single))}]
    asked = " ".join(_texts(messages[-1].get("content"))) if messages else ""
    after_tool = bool(messages) and _is_tool_result(messages[-1])
    tools = dict(_tools(request.get("tools")))
    digest = hashlib.sha256(body).hexdigest()[:24]
    call = None if after_tool else _call(digest, tools, request.get("tool_choice"), asked)
    words = tuple(_words(asked, after_tool))
    limit = next((request[name] for name in ("max_completion_tokens", "max_tokens") if request.get(name) is not None), None)
    if call and limit is not None and call.tokens > limit:
        call, limit = None, 0
    kept = words if limit is None else words[:limit]
    return Script(
        request=request,
        id=digest,
        model=str(request.get("model")),
        stream=request.get("stream") is True,
        include_usage=bool((request.get("stream_options") or {}).get("include_usage")),
        choices=request.get("n") or 1,
        input_tokens=sum(len(text.split()) for text in _all_texts(request)) + _tokens(single),
        words=() if call else kept,
        call=call,
        cut=call is None and len(kept) < len(words),
        trouble=_trouble(str(request.get("model")), asked),
    )


def _trouble(model: str, asked: str) -> Trouble | None:
    first = asked.split(maxsplit=1)[0] if asked.strip() else ""
    if first.startswith("!") and first[1:] in TROUBLES:
        return TROUBLES[first[1:]]
    return TROUBLES.get(model.removeprefix("demo-"))


def _words(asked: str, after_tool: bool) -> Iterator[str]:
    said = asked.split()
    lead = "The tool said:" if after_tool else "This is the demo. You wrote:"
    for number, word in enumerate([*lead.split(), *(said or ["nothing."])]):
        yield word if number == 0 else f" {word}"


def _texts(content: Any) -> Iterator[str]:
    """The texts of a content: a string, or parts of which some hold text or content of their own."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        for part in content:
            if isinstance(part, Mapping):
                yield from _texts(part["text"] if "text" in part else part.get("content"))


# Where a request that is no conversation has its words.
_SINGLE: Final = ("prompt", "input")


def _strings(value: Any) -> Iterator[str]:
    """The words in a prompt: a string, a list of them, or parts with texts; no token numbers."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(value.get("text"))
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _tokens(value: Any) -> int:
    """Of a prompt: its words, and its token numbers."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, Mapping):
        return _tokens(value.get("text"))
    return sum(map(_tokens, value)) if isinstance(value, list) else int(value is not None)


def _all_texts(request: Mapping[str, Any]) -> Iterator[str]:
    yield from _texts(request.get("system"))
    for message in request.get("messages", ()):
        if isinstance(message, Mapping):
            yield from _texts(message.get("content"))


def _is_tool_result(message: Mapping[str, Any]) -> bool:
    if message.get("role") == "tool":
        return True
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )


def _tools(tools: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and parameter schema of each tool, in either family's shape."""
    for tool in tools or ():
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        if isinstance(inner.get("name"), str):
            yield inner["name"], inner.get("parameters") or inner.get("input_schema") or {}


def _call(digest: str, tools: Mapping[str, Mapping[str, Any]], choice: Any, asked: str) -> ToolCall | None:
    """A call is made where the request demands one, or where the last message names a tool."""
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    if not tools or kind == "none":
        return None
    named = choice.get("function", choice).get("name") if isinstance(choice, Mapping) else None
    name = named or next((tool for tool in tools if tool in asked), None)
    if name is None and kind in ("required", "any"):
        name = next(iter(tools))
    if not isinstance(name, str) or name not in tools:
        return None
    return ToolCall(digest, name, msgspec.json.encode(_example(tools[name])).decode())


_EXAMPLES: Final[Mapping[str, Any]] = {"number": 1.5, "integer": 1, "boolean": True, "null": None, "array": []}


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that fits a plain schema."""
    if "enum" in schema:
        return schema["enum"][0]
    properties = schema.get("properties")
    if isinstance(properties, Mapping) or schema.get("type") == "object":
        return {name: _example(inner) for name, inner in (properties or {}).items()}
    return _EXAMPLES.get(str(schema.get("type")), "demo text")
