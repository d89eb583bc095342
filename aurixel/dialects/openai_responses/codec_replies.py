"""Whole replies of `openai_responses` to and from the canonical form, and the shapes that streams of it share.

A response tells the request back to whoever sent it, as that API does. Thinking of another dialect travels in
`encrypted_content` (`carriers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from aurixel.dialects.carriers import carried
from aurixel.dialects.openai_responses.codec_parts import (
    NAME,
    WireItem,
    citations_of,
    reasoning_text,
)
from aurixel.dialects.openai_responses.codec_tools import Json, Name, Wire, places_of
from aurixel.dialects.openai_responses.codec_transcript import annotation
from aurixel.dialects.readers import invalid
from aurixel.plugin.canonical import Citation, Part, Refusal, Reply, Stop, Text, Thinking, ToolCall
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage


class Why(Wire, frozen=True):
    """Why a response is not complete."""

    reason: str | None = None


class WireReply(Wire, frozen=True):
    """A response of an upstream."""

    id: str = ""
    created_at: float | None = None
    status: str | None = None
    incomplete_details: Why | None = None
    output: list[msgspec.Raw] | None = None


_REPLY: Final = msgspec.json.Decoder(WireReply)
ITEM: Final = msgspec.json.Decoder(WireItem)
_encode: Final = msgspec.json.Encoder().encode
_NULL: Final = msgspec.Raw(b"null")
_EMPTY_LIST: Final = msgspec.Raw(b"[]")
_CUT: Final = frozenset({"length", "context"})
# What a response tells back of its request: the field, and what is told where the request has none.
_ECHOED: Final[Mapping[str, msgspec.Raw]] = {
    "instructions": _NULL,
    "max_output_tokens": _NULL,
    "max_tool_calls": _NULL,
    "metadata": msgspec.Raw(b"{}"),
    "parallel_tool_calls": msgspec.Raw(b"true"),
    "prompt_cache_key": _NULL,
    "reasoning": msgspec.Raw(b'{"effort":null,"summary":null}'),
    "safety_identifier": _NULL,
    "temperature": _NULL,
    "text": msgspec.Raw(b'{"format":{"type":"text"}}'),
    "tool_choice": msgspec.Raw(b'"auto"'),
    "tools": msgspec.Raw(b"[]"),
    "top_logprobs": msgspec.Raw(b"0"),
    "top_p": _NULL,
    "truncation": msgspec.Raw(b'"disabled"'),
    "user": _NULL,
}
_PREFIX: Final = re.compile(r"(?:chatcmpl|gen|msg|resp)[-_]")
_NOT_ID: Final = re.compile(r"[^A-Za-z0-9]")


# --- read -------------------------------------------------------------------------------------------------------------


def read_reply(body: bytes) -> Reply:
    """See `ChatCodec`."""
    try:
        reply = _REPLY.decode(body)
        items = [(ITEM.decode(raw), raw) for raw in reply.output or ()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("is not a response") from None
    parts: list[Part] = []
    lost: set[str] = set()
    for item, raw in items:
        parts += parts_of(item, raw, lost)
    called, refused = any(type(part) is ToolCall for part in parts), any(type(part) is Refusal for part in parts)
    cut = any(item.status == "incomplete" for item, _ in items if item.call_id)
    return Reply(
        id=reply.id,
        parts=tuple(parts),
        stop=stop_of(reply, called=called and not cut, refused=refused),
        created=int(reply.created_at or 0),
        lost=tuple(sorted(lost)),
    )


def stop_of(reply: WireReply, *, called: bool, refused: bool) -> Stop:
    """How a response ended. `called`: with whole tool calls."""
    if called:
        return "tool_use"
    if reply.status == "incomplete":
        reason = reply.incomplete_details.reason if reply.incomplete_details is not None else None
        return "refusal" if reason == "content_filter" else "length"
    return "refusal" if refused else "end"


def parts_of(item: WireItem, raw: msgspec.Raw, lost: set[str]) -> list[Part]:
    """The parts that an output item comes to; what is left out of it is added to `lost`."""
    kind = item.type
    if kind == "message":
        return message_parts(item, lost)
    if kind == "reasoning":
        text = reasoning_text(item)
        return [Thinking(text=text, sealed=bytes(raw).decode(), hidden=not text, origin=NAME)]
    if kind in ("function_call", "custom_tool_call"):
        return [call_of(item)]
    lost.add("reply.hosted_tools")
    return []


def message_parts(item: WireItem, lost: set[str]) -> list[Part]:
    """The texts and refusals of a message; citations without a URL are added to `lost`."""
    if isinstance(item.content, str):
        return [Text(text=item.content)] if item.content else []
    parts: list[Part] = []
    for part in item.content or ():
        if part.type == "refusal":
            if part.refusal:
                parts.append(Refusal(text=part.refusal))
        elif part.text:
            if part.annotations and any(found.type != "url_citation" for found in part.annotations):
                lost.add("reply.citations")
            parts.append(Text(text=part.text, citations=citations_of(part.annotations), logprobs=logprobs_of(part.logprobs)))
    return parts


def logprobs_of(raw: msgspec.Raw) -> msgspec.Raw | None:
    """The list as it came; None for an empty one, and for what is no list: it would be put inside one."""
    return raw if raw != _EMPTY_LIST and bytes(memoryview(raw)[:1]) == b"[" else None


def call_of(item: WireItem) -> ToolCall:
    """The call of a tool of the client."""
    custom = item.type == "custom_tool_call"
    arguments = item.input if custom else item.arguments
    if not item.call_id or not item.name or isinstance(arguments, dict):
        raise invalid("contains a tool call without an id or a name")
    return ToolCall(id=item.call_id, name=called(item), arguments=arguments or "", custom=custom)


def called(item: WireItem) -> str:
    """The name of the tool that an item calls."""
    return item.name or "" if item.namespace is None else f"{item.namespace}__{item.name}"


# --- written ----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply, request: ParsedRequest) -> bytes:
    """See `ChatCodec`."""
    ids, places = Ids(reply.id), places_of(request)
    status, why = status_of(reply.stop, refused=any(type(part) is Refusal for part in reply.parts))
    output: list[Json | msgspec.Raw] = []
    content: list[Json] = []

    def close() -> None:
        if content:
            output.append(message_item(ids("msg", len(output)), "completed", list(content)))
            content.clear()

    for part in reply.parts:
        if isinstance(part, Text):
            content.append(text_part(part.text, part.citations, part.logprobs))
        elif isinstance(part, Refusal):
            content.append(refusal_part(part.text))
        elif isinstance(part, ToolCall):
            close()
            arguments = part.arguments if part.custom else part.arguments or "{}"
            kind = "ctc" if part.custom else "fc"
            output.append(
                call_item(
                    ids(kind, len(output)), part.id, places.get(part.name, (part.name, None)), arguments, custom=part.custom
                )
            )
        elif isinstance(part, Thinking):
            close()
            output.append(_thinking_item(part, ids("rs", len(output))))
    close()
    if status == "incomplete" and output and isinstance(last := output[-1], dict) and "status" in last:
        last["status"] = "incomplete"
    response = Echo(request, ids.response, reply.created)
    return _encode(response(status, output, reply.usage, why))


def _thinking_item(part: Thinking, id: str) -> Json | msgspec.Raw:
    if part.origin == NAME and part.sealed is not None:
        return msgspec.Raw(part.sealed.encode())
    return reasoning_item(id, "" if part.hidden else part.text, sealed_of(part.text, part.sealed, part.origin, part.hidden))


class Ids:
    """Makes the ids of a response and its items from the upstream's id."""

    def __init__(self, id: str) -> None:
        self._core = _NOT_ID.sub("", _PREFIX.sub("", id, count=1))[:48] or "0"
        self.response = f"resp_{self._core}"

    def __call__(self, kind: str, index: int) -> str:
        return f"{kind}_{self._core}{index:04d}"


class Echo:
    """Writes the response object for a client: the request told back, and what is known of the answer by then."""

    def __init__(self, request: ParsedRequest, id: str, created: int) -> None:
        fields = request.fields
        self._told = {name: fields.get(name) or default for name, default in _ECHOED.items()}
        for name, default in _ECHOED.items():
            if self._told[name] == _NULL:
                self._told[name] = default
        self._head = {"id": id, "object": "response", "created_at": created}
        self._model = request.model

    def __call__(self, status: str, output: Sequence[Json | msgspec.Raw], usage: Usage | None, why: str | None) -> Json:
        return {
            **self._head,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None if why is None else {"reason": why},
            "model": self._model,
            "output": output,
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "usage": None if usage is None else usage_of(usage),
            **self._told,
        }


def status_of(stop: Stop, *, refused: bool) -> tuple[str, str | None]:
    """The status of a response, and why it is not complete. A refusal in words is complete."""
    if stop in _CUT:
        return "incomplete", "max_output_tokens"
    if stop == "refusal" and not refused:
        return "incomplete", "content_filter"
    return "completed", None


def usage_of(usage: Usage) -> Json:
    """The classes as this dialect sums them."""
    count = usage.counts.get
    read, written = count("cache_read", 0), count("cache_write_5m", 0) + count("cache_write_1h", 0)
    fresh = count("input", 0) + count("input_audio", 0) + count("input_image", 0)
    thought = count("reasoning", 0)
    said = thought + count("output", 0) + count("output_audio", 0) + count("output_image", 0)
    whole = fresh + read + written
    return {
        "input_tokens": whole,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": whole + said,
    }


def text_part(text: str, citations: Iterable[Citation] = (), logprobs: msgspec.Raw | None = None) -> Json:
    """A text in a message."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": [annotation(citation) for citation in citations],
        "logprobs": [] if logprobs is None else logprobs,
    }


def refusal_part(text: str) -> Json:
    """A refusal in a message."""
    return {"type": "refusal", "refusal": text}


def message_item(id: str, status: str, content: list[Json]) -> Json:
    """A message of the answer."""
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def call_item(id: str, call: str, place: Name, arguments: str, *, custom: bool, status: str = "completed") -> Json:
    """A call of a tool, whose name and namespace are the client's."""
    name, namespace = place
    kind, word = ("custom_tool_call", "input") if custom else ("function_call", "arguments")
    item = {"id": id, "type": kind, "status": status, "call_id": call, "name": name, word: arguments}
    if namespace is not None:
        item["namespace"] = namespace
    return item


def reasoning_item(id: str, text: str, sealed: str | None) -> Json:
    """A reasoning, with what makes it good for the next turn."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": id, "type": "reasoning", "summary": summary, "encrypted_content": sealed}


def sealed_of(text: str, sealed: str | None, origin: str, hidden: bool) -> str:
    """The `encrypted_content` that carries a thinking of `origin`."""
    if origin == NAME:
        return carried(origin, sealed)
    held = {"data": sealed or ""} if hidden else {"thinking": text}
    if not hidden and sealed is not None:
        held["signature"] = sealed
    return carried(origin, _encode(held).decode())


__all__ = [
    "ITEM",
    "Echo",
    "Ids",
    "WireReply",
    "call_item",
    "call_of",
    "called",
    "message_item",
    "message_parts",
    "parts_of",
    "read_reply",
    "reasoning_item",
    "refusal_part",
    "sealed_of",
    "status_of",
    "stop_of",
    "text_part",
    "write_reply",
]
