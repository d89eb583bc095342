"""The keys of `openai_chat` inside the fields of a request: all that the codec reads, tells or may well ignore.

A key that is not here is told as lost. What the codec ignores only for some kinds of messages or parts is not here for
those.
"""

from __future__ import annotations

from typing import Final

from aurixel.dialects.strays import Keys, Kinds, Strays

_MARK: Final = Keys("type", "ttl")
_BREAK: Final = Keys("mode", "ttl")
_PARTS: Final = Kinds(
    {
        "text": Keys("text", prompt_cache_breakpoint=_BREAK, cache_control=_MARK),
        "refusal": Keys("refusal"),
        "image_url": Keys(image_url=Keys("url", "detail"), prompt_cache_breakpoint=_BREAK, cache_control=_MARK),
        "file": Keys(file=Keys("file_data", "filename"), prompt_cache_breakpoint=_BREAK, cache_control=_MARK),
        "input_audio": Keys(input_audio=Keys("data", "format")),
    }
)
_FUNCTION: Final = Keys("name", "arguments")
_CALL: Final = Keys("id", "type", "index", function=_FUNCTION, custom=Keys("name", "input"))
_CARRIER: Final = Keys("type", "thinking", "signature", "data", "index", "offset")
_SAID: Final = Keys("name", content=_PARTS, cache_control=_MARK)
_MESSAGES: Final = Kinds(
    {
        "system": _SAID,
        "developer": _SAID,
        "user": _SAID,
        "assistant": Keys(
            "name",
            "refusal",
            "reasoning_content",
            "reasoning",
            "annotations",
            content=_PARTS,
            tool_calls=_CALL,
            function_call=_FUNCTION,
            thinking_blocks=_CARRIER,
        ),
        "tool": Keys("name", "tool_call_id", content=_PARTS, cache_control=_MARK),
        "function": Keys("name", content=_PARTS, cache_control=_MARK),
    },
    tag="role",
)
_SPEC: Final = Keys("name", "description", "parameters", "strict")
_GRAMMAR: Final = Keys("type", grammar=Keys("definition", "syntax"))
_NAMED: Final = Keys("name")
_CHOSEN: Final = Keys("type", "name", function=_NAMED, custom=_NAMED)
_CHOICE: Final = Keys("type", "name", function=_NAMED, custom=_NAMED, allowed_tools=Keys("mode", tools=_CHOSEN))

STRAYS: Final = Strays(
    {
        "messages": _MESSAGES,
        "tools": Keys("type", function=_SPEC, custom=Keys("name", "description", format=_GRAMMAR), cache_control=_MARK),
        "functions": _SPEC,
        "tool_choice": _CHOICE,
        "function_call": _CHOICE,
        "response_format": Keys("type", json_schema=Keys("name", "schema", "strict", "description")),
        "prompt_cache_options": Keys("mode", "ttl"),
        "stream_options": Keys("include_usage", "include_obfuscation"),
    }
)

__all__ = ["STRAYS"]
