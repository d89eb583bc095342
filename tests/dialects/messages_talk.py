"""Short words for conversations, written and read by the codec of `anthropic_messages`; it judges nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from aurixel.dialects import AnthropicMessages
from aurixel.plugin.canonical import (
    Conversation,
    Losses,
    Message,
    Part,
    Text,
    Tool,
    Written,
)
from aurixel.plugin.contracts import MODEL_TRAITS, ModelRules

DIALECT = AnthropicMessages()
OWN = DIALECT.name
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
PDF = base64.b64encode(b"%PDF-1.7 and more of it").decode()
SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}')
F = Tool(name="f", description="does f", schema=msgspec.Raw(b'{"type":"object","properties":{}}'))
G = Tool(name="g", schema=msgspec.Raw(b'{"type":"object","properties":{}}'))


def rules(*traits: str, max_output: int = 8000) -> ModelRules:
    assert set(traits) <= MODEL_TRAITS.keys()
    return ModelRules(context=200_000, max_output=max_output, traits=frozenset(traits))


def said(*parts: Part | str) -> Message:
    return Message(role="user", parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def answered(*parts: Part | str) -> Message:
    return Message(role="assistant", parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def told(*texts: str) -> Message:
    return Message(role="system", parts=tuple(Text(text=text) for text in texts))


def asking(*messages: Message, **fields: Any) -> Conversation:
    return Conversation(model="m", messages=messages or (said("Hi"),), **fields)


def write(conversation: Conversation, *traits: str, max_output: int = 8000) -> tuple[dict[str, Any], Losses, Written]:
    """The body as the upstream reads it (which the dialect itself must accept), what was lost, and all of it."""
    losses = Losses()
    written = DIALECT.write(conversation, rules(*traits, max_output=max_output), losses)
    DIALECT.parse_request(written.body, {})
    return json.loads(written.body), losses, written


def read(**body: Any) -> tuple[Conversation, Losses]:
    losses = Losses(DIALECT.words)
    whole = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **body}
    return DIALECT.read(DIALECT.parse_request(json.dumps(whole).encode(), {}), losses), losses


def lost(losses: Losses) -> dict[str, list[str]]:
    found = {"dropped": losses.dropped, "emulated": losses.emulated, "changed": losses.changed}
    return {kind: list(names) for kind, names in found.items() if names}
