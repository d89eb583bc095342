"""Small sound requests of the built-in dialects, for suites that need something to ask."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

_MESSAGES: Final = [{"role": "user", "content": "How many words are these six?"}]

_REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "openai_chat": {"messages": _MESSAGES, "max_completion_tokens": 40},
        "openai_responses": {"input": _MESSAGES, "max_output_tokens": 40},
        "anthropic_messages": {"messages": _MESSAGES, "max_tokens": 40},
        "openai_completions": {"prompt": "How many words are these six?", "max_tokens": 40},
        "openai_embeddings": {"input": "How many words are these six?"},
        "openai_moderations": {"input": "How many words are these six?"},
        "openai_images": {"prompt": "Six words, drawn as a picture"},
        "openai_speech": {"input": "How many words are these six?", "voice": "any"},
    }
)


def sample_request(dialect: str, model: str, *, stream: bool) -> bytes:
    """A request body of a built-in dialect; `LookupError` for another dialect."""
    return msgspec.json.encode({"model": model, "stream": stream, **_REQUESTS[dialect]})
