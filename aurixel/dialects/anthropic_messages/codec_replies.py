"""Whole replies of `anthropic_messages`, read into and written from the canonical form.

What the upstream's own tools did is left out, and so are citations without a URL. Thinking keeps its order and its proof
byte for byte; that of another dialect's upstream is carried in the proof's place.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_blocks import ORIGIN, json_object
from aurixel.dialects.anthropic_messages.codec_read_blocks import cited
from aurixel.dialects.carriers import carried
from aurixel.dialects.readers import invalid
from aurixel.plugin.canonical import Citation, Part, Refusal, Reply, Stop, Text, Thinking, ToolCall
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage

_STOPS: Final[dict[str, Stop]] = {
    "end_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "context",
    "pause_turn": "pause",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
}
_REASONS: Final[dict[Stop, str]] = {stop: reason for reason, stop in _STOPS.items()}
_OUTPUT: Final = ("output", "reasoning", "output_audio", "output_image")
_NO_RAW: Final = msgspec.Raw()


class StopDetails(msgspec.Struct, gc=False):
    """Why an answer was refused."""

    explanation: str | None = None


class ReplyBlock(msgspec.Struct, gc=False):
    """A block of an answer, of any type."""

    type: str = ""
    text: str | None = None
    citations: msgspec.Raw = _NO_RAW
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NO_RAW
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Reply(msgspec.Struct, gc=False):
    content: list[ReplyBlock]
    id: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


_REPLY: Final = msgspec.json.Decoder(_Reply)


def read_reply(body: bytes) -> Reply:
    """See `ChatCodec.read_reply`."""
    try:
        found = _REPLY.decode(body)
        parts: list[Part] = []
        lost: set[str] = set()
        calls = 0
        for block in found.content:
            part = _part(block, len(parts), lost)
            if part is not None:
                parts.append(part)
                calls += isinstance(part, ToolCall)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("is not a message") from None
    if found.stop_reason is None:
        raise invalid("does not say why it ended")
    if found.stop_details is not None and found.stop_details.explanation:
        parts.append(Refusal(text=found.stop_details.explanation))
    return Reply(
        id=found.id,
        parts=tuple(parts),
        stop=stop_of(found.stop_reason, calls),
        stop_sequence=found.stop_sequence,
        lost=tuple(sorted(lost)),
    )


def stop_of(reason: str, calls: int) -> Stop:
    """What the upstream's word means; a word that is not known is an end like any other."""
    return ended(_STOPS.get(reason, "end"), calls)


def ended(stop: Stop, calls: int) -> Stop:
    """Clients act on a call only where the answer ended with one."""
    return "tool_use" if calls and stop in ("end", "stop_sequence") else stop


def _part(block: ReplyBlock, at: int, lost: set[str]) -> Part | None:
    kind = block.type
    if kind == "text":
        citations, others = cited(block.citations)
        if others:
            lost.add("reply.citations")
        return Text(text=block.text, citations=citations) if block.text else None
    if kind == "tool_use":
        if not block.id or not block.name:
            raise invalid("contains a call without an id or a name")
        return ToolCall(id=block.id, name=block.name, arguments=arguments_of(block))
    if kind == "thinking":
        if not block.thinking and not block.signature:
            return None
        return Thinking(text=block.thinking or "", sealed=block.signature or None, origin=ORIGIN, at=at)
    if kind == "redacted_thinking":
        if block.data is None:
            raise invalid("contains hidden thinking of nothing")
        return Thinking(sealed=block.data, hidden=True, origin=ORIGIN, at=at)
    lost.add("reply.hosted_tools")
    return None


def arguments_of(block: ReplyBlock) -> str:
    """What a call's block says of its arguments; "" for nothing."""
    arguments = bytes(block.input).decode()
    if arguments and not arguments.startswith("{"):
        raise invalid("contains a call whose arguments are no object")
    return arguments


def write_reply(reply: Reply, request: ParsedRequest) -> bytes:
    """See `ChatCodec.write_reply`."""
    content: list[dict[str, Any]] = []
    refusals: list[str] = []
    calls = 0
    for part in reply.parts:
        if isinstance(part, Text):
            if part.text:
                content.append(_text(part))
        elif isinstance(part, ToolCall):
            calls += 1
            content.append({"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part)})
        elif isinstance(part, Thinking):
            if (block := _thinking(part)) is not None:
                content.append(block)
        elif isinstance(part, Refusal):
            refusals.append(part.text)
    return msgspec.json.encode(
        {
            "id": message_id(reply.id),
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": content,
            **ending(reply.stop, reply.stop_sequence, calls, "".join(refusals)),
            "usage": usage_shown(reply.usage),
        }
    )


def message_id(id: str) -> str:
    """The upstream's id, in this dialect's dress."""
    return id if id.startswith("msg_") else f"msg_{id}"


def ending(stop: Stop, stop_sequence: str | None, calls: int, refusal: str) -> dict[str, Any]:
    """How an answer ended, as its message and `message_delta` say it."""
    stop = ended("refusal" if refusal and stop == "end" else stop, calls)
    said: dict[str, Any] = {
        "stop_reason": _REASONS[stop],
        "stop_sequence": stop_sequence if stop == "stop_sequence" else None,
    }
    if refusal:
        said["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return said


def usage_shown(usage: Usage | None) -> dict[str, Any]:
    """The numbers as this dialect tells them: input excludes what the caches served, output includes thinking."""
    counts = usage.counts if usage is not None else {}
    five, hour = counts.get("cache_write_5m", 0), counts.get("cache_write_1h", 0)
    shown: dict[str, Any] = {
        "input_tokens": counts.get("input", 0) + counts.get("input_audio", 0) + counts.get("input_image", 0),
        "cache_creation_input_tokens": five + hour,
        "cache_read_input_tokens": counts.get("cache_read", 0),
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens": sum([counts.get(name, 0) for name in _OUTPUT]),
    }
    if thought := counts.get("reasoning", 0):
        shown["output_tokens_details"] = {"thinking_tokens": thought}
    return shown


def citation_shown(citation: Citation, text: str) -> dict[str, Any]:
    """A citation of `text`, which may be empty where it is not known."""
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "encrypted_index": "",
        "cited_text": text[citation.start : citation.end],
    }


def _text(part: Text) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": part.text}
    if part.citations:
        block["citations"] = [citation_shown(citation, part.text) for citation in part.citations]
    return block


def _input(part: ToolCall) -> Any:
    if part.custom:
        return {"input": part.arguments}
    if not part.arguments or part.arguments.isspace():
        return {}
    found = json_object(part.arguments)
    # an answer that was cut short may end within its arguments, and is the client's all the same
    return {"_raw": part.arguments} if found is None else found


def _thinking(part: Thinking) -> dict[str, Any] | None:
    sealed = part.sealed
    if part.origin != ORIGIN:
        sealed = carried(part.origin, part.sealed)
    if part.hidden:
        return {"type": "redacted_thinking", "data": sealed} if sealed else None
    if not part.text and not sealed:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": sealed or ""}
