"""Marks of cached prefixes, as `openai_chat` writes them for an upstream."""

from __future__ import annotations

from aurixel.plugin.canonical import Image, Losses, Text, ToolCall, ToolResult
from aurixel.plugin.contracts import ModelRules
from tests.dialects.test_openai_chat_codec_requests import said, write


def test_marks_of_cached_prefixes_go_to_models_that_know_them() -> None:
    """The last four; a tool's answer and a call bear none."""
    rules, losses = ModelRules(context=1, max_output=1, traits=frozenset({"cache_breakpoints"})), Losses()
    marked = Text(text="x", cache="5m")
    sent = write(
        rules,
        losses,
        messages=(
            said("system", marked, Text(text="y")),
            said("user", marked),
            said("assistant", ToolCall(id="c", name="f", arguments="{}", cache="5m")),
            said("user", ToolResult(id="c", parts=(marked,), cache="5m"), marked, marked),
            said("assistant", Text(text="z")),
            said("user", marked, Image(url="https://x.invalid/a.png", cache="5m")),
        ),
    )
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    text = {"type": "text", "text": "x"}
    system, user, _, tool, more, _, last = sent["messages"]
    assert system["content"] == "x\n\ny"
    assert (user["content"], tool["content"]) == ("x", "x")
    assert more["content"] == [text | mark, text | mark]
    assert last["content"] == [text | mark, {"type": "image_url", "image_url": {"url": "https://x.invalid/a.png"}} | mark]
    assert (list(losses.dropped), list(losses.changed)) == (["messages.cache_control"], [])
