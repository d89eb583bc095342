"""Takes what another dialect's upstream left in a conversation out of a request that is passed on as it is.

A client that was answered by a translation gives back what the translation put there: carriers of sealed thinking, and
citations without a proof. Where its next request goes to an upstream of its own dialect, that upstream would refuse them.
What is not ours stays as the client wrote it, byte for byte; a request without our marks is not even looked into, and one
that cannot be read is left to the upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from aurixel.plugin.canonical import Losses
from aurixel.plugin.contracts import ParsedRequest

# How every carrier begins, as a string of JSON, and what else a translation may have left.
CARRIER: Final = b'"ax1.'
CHAT_BLOCKS: Final = b'"thinking_blocks"'
UNPROVEN: Final = b'"encrypted_index"'

Raw: TypeAlias = msgspec.Raw
Object: TypeAlias = dict[str, Raw]
_object: Final = msgspec.json.Decoder(Object)
_list: Final = msgspec.json.Decoder(list[Raw])
_OFF: Final = Raw(b'{"type":"disabled"}')


class _Seal(msgspec.Struct):
    """Enough of a block or an item to tell whose it is."""

    type: str = ""
    signature: Any = None
    data: Any = None
    encrypted_content: Any = None
    encrypted_index: Any = None
    index: Any = None


_seal: Final = msgspec.json.Decoder(_Seal)


def own_chat(request: ParsedRequest, losses: Losses) -> ParsedRequest:
    """An `openai_chat` request without our `thinking_blocks`, and the words that were shown of them."""

    def message(raw: Raw) -> Raw | None:
        fields = _object.decode(raw)
        if "thinking_blocks" not in fields or not any(map(_our_block, _list.decode(fields["thinking_blocks"]))):
            return raw
        losses.drop("messages.thinking")
        kept = {name: value for name, value in fields.items() if name not in ("thinking_blocks", "reasoning_content")}
        return Raw(msgspec.json.encode(kept))

    return _rewritten(request, "messages", (CHAT_BLOCKS,), message)


def own_responses(request: ParsedRequest, losses: Losses) -> ParsedRequest:
    """An `openai_responses` request without our reasoning items."""

    def item(raw: Raw) -> Raw | None:
        if not _carries(_seal.decode(raw).encrypted_content):
            return raw
        losses.drop("messages.thinking")
        return None

    return _rewritten(request, "input", (CARRIER,), item)


def own_messages(request: ParsedRequest, losses: Losses) -> ParsedRequest:
    """An `anthropic_messages` request without our thinking blocks and unproven citations. Thinking is off where a loop of
    calls lost its own: it would be refused there."""
    lost = False

    def block(raw: Raw) -> Raw | None:
        nonlocal lost
        seal = _seal.decode(raw)
        if _carries(seal.signature) or _carries(seal.data):
            lost = True
            losses.drop("messages.thinking")
            return None
        if seal.type != "text" or not _marked(raw, (UNPROVEN,)):
            return raw
        fields = _object.decode(raw)
        cited = _list.decode(fields.get("citations", b"[]"))
        proven = [each for each in cited if _seal.decode(each).encrypted_index != ""]
        if len(proven) == len(cited):
            return raw
        losses.drop("messages.citations")
        if proven:
            fields["citations"] = Raw(msgspec.json.encode(proven))
        else:
            del fields["citations"]
        return Raw(msgspec.json.encode(fields))

    def message(raw: Raw) -> Raw | None:
        fields = _object.decode(raw)
        if not bytes(fields.get("content", b"")).startswith(b"["):
            return raw
        blocks = _list.decode(fields["content"])
        kept = _kept(blocks, (CARRIER, UNPROVEN), block)
        if kept is None:
            return raw
        fields["content"] = Raw(msgspec.json.encode(kept))
        return Raw(msgspec.json.encode(fields)) if kept else None

    cleaned = _rewritten(request, "messages", (CARRIER, UNPROVEN), message)
    if lost and "thinking" in cleaned.fields and _thoughtless(cleaned.fields["messages"]):
        losses.change("reasoning")
        return msgspec.structs.replace(cleaned, fields={**cleaned.fields, "thinking": _OFF})
    return cleaned


def _carries(text: object) -> bool:
    return isinstance(text, str) and text.startswith("ax1.")


def _our_block(raw: Raw) -> bool:
    """Whether a translation wrote it: only ours say where they stood."""
    seal = _seal.decode(raw)
    return seal.index is not None or _carries(seal.signature) or _carries(seal.data)


def _rewritten(
    request: ParsedRequest, field: str, marks: Iterable[bytes], change: Callable[[Raw], Raw | None]
) -> ParsedRequest:
    """The request with each marked entry of the list in `field` as `change` has it; None of it: it is left out."""
    whole = request.fields.get(field)
    if whole is None or not _marked(whole, marks):
        return request
    try:
        kept = _kept(_list.decode(whole), marks, change)
    except (msgspec.DecodeError, RecursionError):
        return request
    if kept is None:
        return request
    return msgspec.structs.replace(request, fields={**request.fields, field: Raw(msgspec.json.encode(kept))})


def _kept(entries: list[Raw], marks: Iterable[bytes], change: Callable[[Raw], Raw | None]) -> list[Raw] | None:
    """The entries as `change` has them; None where it changed nothing."""
    changed = False
    kept = []
    for raw in entries:
        now = change(raw) if _marked(raw, marks) else raw
        changed = changed or now is not raw
        if now is not None:
            kept.append(now)
    return kept if changed else None


def _marked(raw: Raw, marks: Iterable[bytes]) -> bool:
    text = bytes(raw)
    for mark in marks:  # noqa: SIM110 - every request comes by here, and a generator costs more than what it does
        if text.rfind(mark) >= 0:  # backwards: in a picture of megabytes a short mark is not found three times as fast
            return True
    return False


class _Typed(msgspec.Struct):
    type: str = ""


class _Turn(msgspec.Struct):
    role: str = ""
    content: str | list[_Typed] = ""


_turns: Final = msgspec.json.Decoder(list[_Turn])


def _thoughtless(messages: Raw) -> bool:
    """Whether the conversation stands in a loop of calls none of whose turns begins with thinking."""
    in_loop = False
    for turn in reversed(_turns.decode(messages)):
        first = turn.content[0].type if isinstance(turn.content, list) and turn.content else "text"
        if turn.role == "user":
            if first != "tool_result":
                return in_loop
            in_loop = True
        elif not in_loop or first in ("thinking", "redacted_thinking"):
            return False
    return in_loop
