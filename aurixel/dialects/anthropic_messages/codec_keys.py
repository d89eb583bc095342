"""The keys of `anthropic_messages` inside the fields of a request: all that the codec reads, tells or may well ignore.

A key that is not here is told as lost. What the codec ignores only for some kinds of blocks is not here for those.
"""

from __future__ import annotations

from typing import Final

from aurixel.dialects.strays import Keys, Kinds, Strays

_MARK: Final = Keys("type", "ttl")
_CITED: Final = Keys(open=True)  # told by its type; a URL has all that another dialect knows of it
_CITING: Final = Keys("enabled")
_BASE64: Final = Keys("media_type", "data")
_URL: Final = Keys("url")

_TEXT: Final = Keys("text", cache_control=_MARK, citations=_CITED)
_IMAGE: Final = Keys(source=Kinds({"base64": _BASE64, "url": _URL}), cache_control=_MARK)
_FOUND: Final = Keys("source", "title", content=Keys("type", "text"), citations=_CITING, cache_control=_MARK)  # a search result
_SHARED: Final = Kinds({"text": _TEXT, "image": _IMAGE, "search_result": _FOUND})
_SHARED.kinds["document"] = Keys(
    "title",
    "context",
    source=Kinds({"base64": _BASE64, "text": _BASE64, "url": _URL, "content": Keys(content=_SHARED)}),
    citations=_CITING,
    cache_control=_MARK,
)
_BLOCKS: Final = Kinds(
    {
        **_SHARED.kinds,
        "tool_use": Keys("id", "name", "input", caller=Keys("type"), cache_control=_MARK),
        "tool_result": Keys("tool_use_id", "is_error", content=_SHARED, cache_control=_MARK),
        "thinking": Keys("thinking", "signature"),
        "redacted_thinking": Keys("data"),
    }
)

STRAYS: Final = Strays(
    {
        "messages": Keys("role", content=_BLOCKS),
        "system": Keys("type", "text", cache_control=_MARK),
        "tools": Keys(
            "type",
            "name",
            "description",
            "input_schema",
            "strict",
            "defer_loading",
            "input_examples",
            "allowed_callers",
            "eager_input_streaming",
            cache_control=_MARK,
        ),
        "tool_choice": Keys("type", "name", "disable_parallel_tool_use"),
        "thinking": Keys("type", "budget_tokens", "display"),
        "output_config": Keys("effort", format=Keys("type", "schema")),
        "metadata": Keys("user_id"),
        "cache_control": _MARK,
    }
)

__all__ = ["STRAYS"]
