"""The keys of `openai_responses` inside the fields of a request: all that the codec reads, tells or may well ignore.

A key that is not here is told as lost. What the codec ignores only for some kinds of items, parts or tools is not here for
those.
"""

from __future__ import annotations

from typing import Final

from aurixel.dialects.strays import Keys, Kinds, Strays

_BREAK: Final = Keys("mode", "ttl")
_CITED: Final = Kinds({"url_citation": Keys("url", "title", "start_index", "end_index")}, others="citations")
_TEXT: Final = Keys("text", "logprobs", annotations=_CITED, prompt_cache_breakpoint=_BREAK)
_PARTS: Final = Kinds(
    {
        "input_text": _TEXT,
        "output_text": _TEXT,
        "text": _TEXT,
        "refusal": Keys("refusal"),
        "input_image": Keys("image_url", "detail", prompt_cache_breakpoint=_BREAK),
        "input_file": Keys("file_data", "file_url", "filename", prompt_cache_breakpoint=_BREAK),
        "input_audio": Keys(input_audio=Keys("data", "format")),
    }
)
_GRAMMAR: Final = Keys("type", "definition", "syntax", grammar=Keys("definition", "syntax"))
_OWN: Final = {
    "function": Keys("name", "description", "parameters", "strict", "defer_loading", "output_schema", "allowed_callers"),
    "custom": Keys("name", "description", "defer_loading", "output_schema", "allowed_callers", format=_GRAMMAR),
}
_TOOLS: Final = Kinds({**_OWN, "namespace": Keys("name", "description", tools=Kinds(_OWN))})
_OUTPUT: Final = Keys("id", "status", "call_id", output=_PARTS)
_ITEMS: Final = Kinds(
    {
        "message": Keys("id", "status", "role", "phase", content=_PARTS),
        "function_call": Keys("id", "status", "call_id", "name", "namespace", "arguments"),
        "custom_tool_call": Keys("id", "status", "call_id", "name", "namespace", "input"),
        "function_call_output": _OUTPUT,
        "custom_tool_call_output": _OUTPUT,
        "reasoning": Keys(open=True),  # kept whole
        "additional_tools": Keys("id", "status", "role", tools=_TOOLS),
    },
    default="message",
)
_CHOSEN: Final = Keys("type", "name", "namespace")

STRAYS: Final = Strays(
    {
        "input": _ITEMS,
        "tools": _TOOLS,
        "tool_choice": Keys("type", "name", "namespace", "mode", tools=_CHOSEN),
        "text": Keys("verbosity", format=Keys("type", "name", "schema", "strict", "description")),
        "reasoning": Keys("effort", "summary", "generate_summary"),
        "prompt_cache_options": Keys("mode", "ttl"),
        "stream_options": Keys("include_obfuscation"),
    }
)

__all__ = ["STRAYS"]
