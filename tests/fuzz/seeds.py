"""What a target starts from: the golden files and the smallest requests, each behind the head that a target reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aurixel.testing.samples import sample_request
from tests.dialects.cases import GOLDEN
from tests.fuzz.targets import FORMS, NAMES, PAIRS, SMALLEST, STREAMING, WHOLE

# Found by fuzzing, mended, and kept: `<target>-<what it was>`, whole inputs.
FOUND: Final = Path(__file__).parent / "found"
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}}
_CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "u"}, {"type": "image_url", "image_url": {"url": "https://a/b"}}],
        },
        {
            "role": "assistant",
            "content": "a",
            "reasoning_content": "r",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "t"},
    ],
    "tools": [_TOOL, {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
    "max_completion_tokens": 9,
    "reasoning_effort": "low",
    "stop": ["x"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "service_tier": "auto",
    "metadata": {"a": "b"},
}
_RESPONSES = {
    "model": "m",
    "instructions": "s",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "u"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ],
        },
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "e"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "o"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": "auto",
    "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 99,
    "parallel_tool_calls": True,
    "include": ["reasoning.encrypted_content"],
    "store": False,
}
_MESSAGES = {
    "model": "m",
    "max_tokens": 4096,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "o"}], "is_error": True}
            ],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
}
_RICH = {"openai_chat": _CHAT, "openai_responses": _RESPONSES, "anthropic_messages": _MESSAGES}
_PRICES = """[[price]]
model = "chat"
effective = 2025-01-01
input = "0.15"
cache_read = "0.075"
output = "0.60"
tool_calls.web_search = "0.01"
[[price]]
model = "images"
effective = 2025-06-01T12:00:00+02:00
images = [{ size = "1024x1024", quality = "hd", usd = "0.08" }]
[[cost]]
model = "speech"
upstream = "up"
effective = 2025-01-01
characters = "15.00"
"""


def _requests() -> Iterator[tuple[str, bytes]]:
    for name, fields in SMALLEST.items():
        yield name, json.dumps({"model": "m", **fields}).encode()
    for name, body in _RICH.items():
        yield name, json.dumps(body).encode()


def _golden(pattern: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(GOLDEN.glob(f"*/*/{pattern}")):
        yield path.parent.parent.name, path.read_bytes()


def seeds(target: str) -> Iterator[bytes]:
    """Inputs of that target, what was found before among them."""
    for path in sorted(FOUND.glob(f"{target}-*")):
        yield path.read_bytes()
    if target == "requests":
        yield from (bytes((NAMES.index(name), 0)) + body for name, body in _requests())
    elif target == "replies":
        yield from (bytes((WHOLE.index(name), 0)) + body for name, body in _golden("reply.json") if name in WHOLE)
    elif target == "streams":
        yield from (bytes((STREAMING.index(name), 0)) + body for name, body in _golden("upstream.sse") if name in STREAMING)
    elif target == "events":
        yield from (b"\0\0" + body for _, body in _golden("upstream.sse"))
    elif target == "uploads":
        for number, dialect in enumerate(FORMS):
            for stream in (False, True):
                yield bytes((number, 0)) + sample_request(dialect.name, "m", stream=stream)
    elif target == "price_files":
        yield b"\0\0" + _PRICES.encode()
    for number, (client, upstream) in enumerate(PAIRS):
        if target == "crossings":
            yield from (bytes((number, 1)) + body for name, body in _requests() if name == client)
        elif target == "decoders":
            yield from (bytes((number, 0)) + body for name, body in _golden("upstream.sse") if name == upstream)
