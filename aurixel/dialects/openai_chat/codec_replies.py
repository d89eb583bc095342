"""The answers of `openai_chat` to and from the canonical form, whole; what no answer of this dialect can be is refused.

`finish_reason` is believed but for calls of tools: an answer that has one asks for its result, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias
from uuid import uuid4

import msgspec

from aurixel.dialects.carriers import carried
from aurixel.dialects.openai_chat.codec_messages import MESSAGES, NAME, Call, Function, Wire
from aurixel.dialects.readers import invalid
from aurixel.plugin.canonical import Citation, Part, Refusal, Reply, Stop, Text, Thinking, ToolCall
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage

Json: TypeAlias = dict[str, Any]

_STOPS: Final[Mapping[str, Stop]] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_FINISHES: Final[Mapping[Stop, str]] = {
    "end": "stop",
    "stop_sequence": "stop",
    "pause": "stop",
    "length": "length",
    "context": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_encode: Final = msgspec.json.Encoder().encode


class Piece(Wire, frozen=True, gc=False):
    """A part of content that comes as a list: text, or thinking as a list of texts."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    thinking: list[Piece] | str | None = None


class _UrlCitation(Wire, frozen=True, gc=False):
    url: str = ""
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class Annotation(Wire, frozen=True, gc=False):
    """Where a stretch of the answer comes from."""

    type: str = ""
    url_citation: _UrlCitation | None = None


class Logprobs(Wire, frozen=True, gc=False):
    """Of the answer's text; those of a refusal are left alone."""

    content: msgspec.Raw = msgspec.Raw()


class Said(Wire, frozen=True, gc=False):
    """A message or a delta. `reasoning` and `reasoning_content` are two vendors' words."""

    role: str | None = None
    content: str | list[Piece] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    annotations: list[Annotation] | None = None


class _Choice(Wire, frozen=True, gc=False):
    message: Said
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Reply(Wire, frozen=True, gc=False):
    choices: list[_Choice]
    id: str | None = None
    created: int | float | None = None


_REPLY: Final = msgspec.json.Decoder(_Reply)


def read_reply(body: bytes) -> Reply:
    """See `ChatCodec`."""
    try:
        reply = _REPLY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("is not a chat completion") from None
    if len(reply.choices) != 1:
        raise invalid("has not the one choice that was asked for")
    choice = reply.choices[0]
    message, name = choice.message, reply.id or ""
    parts: list[Part] = []
    lost: tuple[str, ...] = ()
    thinking, text, refusal = texts_of(message)
    if thinking:
        parts.append(Thinking(text=thinking, origin=NAME, at=0))
    if text:
        citations = citations_of(message)
        parts.append(Text(text=text, citations=tuple(citations), logprobs=logprobs_of(choice.logprobs)))
        if len(citations) < len(message.annotations or ()):
            lost = ("reply.citations",)
    if refusal:
        parts.append(Refusal(text=refusal))
    calls = message.tool_calls or ([Call(function=message.function_call)] if message.function_call is not None else [])
    parts += [_call(call, name, place) for place, call in enumerate(calls)]
    return Reply(
        id=name,
        parts=tuple(parts),
        stop=stop_of(choice.finish_reason, bool(calls)),
        created=int(reply.created or 0),
        lost=lost,
    )


def texts_of(said: Said) -> tuple[str, str, str]:
    """The thinking, the text and the refusal, "" for none."""
    thinking, refusal = said.reasoning_content or said.reasoning or "", said.refusal or ""
    content = said.content
    if content is None or isinstance(content, str):
        return thinking, content or "", refusal
    text = ""
    for piece in content:
        text += piece.text or ""
        refusal += piece.refusal or ""
        thinking += _flat(piece.thinking)
    return thinking, text, refusal


def _flat(thinking: list[Piece] | str | None) -> str:
    if isinstance(thinking, list):
        return "".join([piece.text or "" for piece in thinking])
    return thinking or ""


def citations_of(said: Said) -> list[Citation]:
    """The citations that have a URL."""
    return [
        Citation(url=url.url, title=url.title or "", start=url.start_index or 0, end=url.end_index or 0)
        for annotation in said.annotations or ()
        if (url := annotation.url_citation) is not None and url.url
    ]


def logprobs_of(found: Logprobs | None) -> msgspec.Raw | None:
    """The list for the text, as it came; None where there is none."""
    if found is None or bytes(memoryview(found.content)[:1]) != b"[":
        return None
    return found.content


def _call(call: Call, reply: str, place: int) -> ToolCall:
    function = call.custom or call.function
    if function is None or not function.name:
        raise invalid("has a tool call without a name")
    made = call.id or made_id(reply, place)
    if call.custom is not None:
        return ToolCall(id=made, name=function.name, arguments=function.input or "", custom=True)
    return ToolCall(id=made, name=function.name, arguments=function.arguments or "")


def made_id(reply: str, place: int) -> str:
    """An id for a call that came without one: the same for the same answer, another for the next."""
    known = "".join([letter for letter in reply if letter.isascii() and letter.isalnum()])[-24:]
    return f"call_{known or uuid4().hex[:24]}_{place}"


def stop_of(finish: str | None, calls: bool) -> Stop:
    """How an answer ended. A limit or a filter may have cut a call short: those stay what they are."""
    if finish == "error":
        raise invalid("ended with an error")
    stop = _STOPS.get(finish or "stop", "end")
    if calls:
        return "tool_use" if stop == "end" else stop
    return "end" if stop == "tool_use" else stop


def finish_of(stop: Stop, calls: bool, *, legacy: bool = False) -> str:
    """`finish_reason` for a client. `legacy`: one who knows functions, not tools."""
    if calls and stop in ("end", "tool_use", "stop_sequence", "pause"):
        return "function_call" if legacy else "tool_calls"
    return "stop" if stop == "tool_use" else _FINISHES[stop]


def usage_of(usage: Usage) -> Json:
    """`usage` as this dialect tells it, details included."""
    get = usage.counts.get
    read, written = get("cache_read", 0), get("cache_write_5m", 0) + get("cache_write_1h", 0)
    heard, seen = get("input_audio", 0), get("input_image", 0)
    thought, spoken, drawn = get("reasoning", 0), get("output_audio", 0), get("output_image", 0)
    prompt = get("input", 0) + read + written + heard + seen
    completion = get("output", 0) + thought + spoken + drawn
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": read,
            "cache_write_tokens": written,
            "audio_tokens": heard,
            "image_tokens": seen,
        },
        "completion_tokens_details": {
            "reasoning_tokens": thought,
            "audio_tokens": spoken,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


# --- written ----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply, request: ParsedRequest) -> bytes:
    """See `ChatCodec`."""
    legacy = is_legacy(request)
    text, refusal, shown = "", "", ""
    annotations: list[Json] = []
    logprobs: list[msgspec.Raw] = []
    calls: list[Json] = []
    blocks: list[Json] = []
    places = Places()
    for part in reply.parts:
        if isinstance(part, Text):
            places.text()
            annotations += [annotation(citation, len(text)) for citation in part.citations]
            if part.logprobs is not None:
                logprobs.append(part.logprobs)
            text += part.text
        elif isinstance(part, Thinking):
            shown += part.text
            if (block := block_of(part.text, part.sealed, part.origin, part.hidden)) is not None:
                blocks.append(placed(block, places.other(), len(text)))
        elif isinstance(part, ToolCall):
            places.other()
            calls.append(_written_call(part))
        elif isinstance(part, Refusal):
            places.other()
            refusal += part.text
    message: Json = {"role": "assistant", "content": text or (None if calls or refusal else ""), "refusal": refusal or None}
    if annotations:
        message["annotations"] = annotations
    if shown:
        message["reasoning_content"] = shown
    if blocks:
        message["thinking_blocks"] = blocks
    if calls and legacy:
        message["function_call"] = calls[0].get("function")
    elif calls:
        message["tool_calls"] = calls
    choice: Json = {
        "index": 0,
        "message": message,
        "logprobs": {"content": joined(logprobs), "refusal": None} if logprobs else None,
        "finish_reason": finish_of(reply.stop, bool(calls), legacy=legacy),
    }
    body: Json = {
        "id": id_of(reply.id),
        "object": "chat.completion",
        "created": reply.created,
        "model": request.model,
        "choices": [choice],
    }
    if reply.usage is not None:
        body["usage"] = usage_of(reply.usage)
    return _encode(body)


def is_legacy(request: ParsedRequest) -> bool:
    """Whether the client knows functions only, not tools."""
    return "functions" in request.fields and "tools" not in request.fields


def id_of(id: str) -> str:
    """The upstream's id, or one of ours where it has none."""
    return id or f"chatcmpl-{uuid4().hex}"


class Places:
    """Counts the parts of an answer as a client will give them back: texts that touch are one."""

    __slots__ = ("_count", "_in_text")

    def __init__(self) -> None:
        self._count = 0
        self._in_text = False

    def text(self) -> None:
        """Some text."""
        if not self._in_text:
            self._in_text = True
            self._count += 1

    def other(self) -> int:
        """Another part; its place."""
        self._in_text = False
        self._count += 1
        return self._count - 1


def block_of(text: str, sealed: str | None, origin: str, hidden: bool) -> Json | None:
    """The carrier of one piece of thinking; None for this dialect's own, which has nothing to prove."""
    if origin == NAME:
        return None
    proof = sealed if origin == MESSAGES else carried(origin, sealed)
    if hidden:
        return {"type": "redacted_thinking", "data": proof or ""}
    block: Json = {"type": "thinking", "thinking": text}
    if proof is not None:
        block["signature"] = proof
    return block


def placed(block: Json, index: int, offset: int) -> Json:
    """`index` is the block's place among the parts; `offset`, the characters of content before it, tells it where content
    goes on after it: the client has one string of all."""
    block["index"] = index
    if offset:
        block["offset"] = offset
    return block


def annotation(citation: Citation, offset: int) -> Json:
    """A citation; `offset` characters of content come before its text."""
    known = citation.end > 0
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": citation.start + offset if known else 0,
            "end_index": citation.end + offset if known else 0,
            "title": citation.title,
            "url": citation.url,
        },
    }


def joined(lists: Iterable[msgspec.Raw]) -> msgspec.Raw:
    """JSON lists made one."""
    insides = [bytes(raw).strip()[1:-1].strip() for raw in lists]
    return msgspec.Raw(b"[" + b",".join([inside for inside in insides if inside]) + b"]")


def _written_call(call: ToolCall) -> Json:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
