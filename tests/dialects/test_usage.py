"""Usage in disjoint classes: they add up to what the upstream reported, or the report is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.openai_chat.replies import ReportedUsage, disjoint
from aurixel.errors import ProviderError
from aurixel.values import USAGE_CLASSES
from tests.dialects.cases import DIALECTS, INPUT_TOKENS
from tests.dialects.test_requests import messages, responses

TOKENS = st.integers(0, 3000)
MAYBE = st.none() | TOKENS
PROMPT = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio", "input_image")
COMPLETION = ("output", "reasoning", "output_audio", "output_image")


def total(counts: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(counts.get(name, 0) for name in names)


@given(
    prompt=TOKENS,
    completion=TOKENS,
    parts=st.fixed_dictionaries({}, optional=dict.fromkeys(("cached", "cache_write", "audio", "image", "text"), MAYBE)),
    more=st.fixed_dictionaries({}, optional=dict.fromkeys(("reasoning", "audio", "accepted_prediction"), MAYBE)),
)
def test_classes_of_a_chat_add_up_or_are_refused(prompt: int, completion: int, parts: Any, more: Any) -> None:
    report = msgspec.convert(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": 7,
            "prompt_tokens_details": {f"{name}_tokens": count for name, count in parts.items()},
            "completion_tokens_details": {f"{name}_tokens": count for name, count in more.items()},
        },
        ReportedUsage,
    )
    known = {name: parts.get(name) or 0 for name in ("cached", "cache_write", "audio", "image")}
    spoken = {name: more.get(name) or 0 for name in ("reasoning", "audio")}
    exceeds = (
        known["cached"] + known["cache_write"] > prompt
        or known["audio"] + known["image"] > prompt
        or sum(spoken.values()) > completion
    )
    if exceeds:
        with pytest.raises(ProviderError) as caught:
            disjoint(report)
        assert caught.value.code == "upstream_invalid"
        return
    counts = disjoint(report)
    assert all(name in USAGE_CLASSES and count > 0 for name, count in counts.items())
    assert total(counts, PROMPT) == prompt
    assert total(counts, COMPLETION) == completion
    assert counts.get("cache_read", 0) == known["cached"]


@given(
    plain=TOKENS, read=MAYBE, five=TOKENS, hour=TOKENS, thought=TOKENS, said=TOKENS, grown=TOKENS, searches=st.integers(0, 9)
)
def test_classes_of_a_message_add_up(
    plain: int, read: int | None, five: int, hour: int, thought: int, said: int, grown: int, searches: int
) -> None:
    report = {
        "input_tokens": plain,
        "output_tokens": thought + said,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens_details": {"thinking_tokens": thought},
        "server_tool_use": {"web_search_requests": searches},
    }
    body = msgspec.json.encode({"type": "message", "content": [], "usage": report})
    reader = DIALECTS["anthropic_messages"].reply_reader(messages(), INPUT_TOKENS)
    counts = reader.read(body).counts
    assert counts.get("cache_write_5m", 0) == five
    assert counts.get("cache_write_1h", 0) == hour
    assert total(counts, PROMPT) == plain + (read or 0) + five + hour
    assert total(counts, COMPLETION) == thought + said
    assert counts.get("tool_calls.web_search", 0) == searches

    stream = DIALECTS["anthropic_messages"].stream_reader(messages(stream=True))
    start = {"type": "message_start", "message": {"usage": report}}
    later = {"type": "message_delta", "usage": {"output_tokens": thought + said, "cache_creation_input_tokens": grown}}
    for event in (start, later):
        stream.feed(b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event)))
    assert stream.usage is not None
    assert total(stream.usage.counts, PROMPT) == plain + (read or 0) + grown


@given(whole=TOKENS, said=TOKENS, read=MAYBE, written=MAYBE, thought=MAYBE, searches=st.none() | st.integers(0, 9))
def test_classes_of_a_response_add_up_or_are_refused(
    whole: int, said: int, read: int | None, written: int | None, thought: int | None, searches: int | None
) -> None:
    usage = {
        "input_tokens": whole,
        "output_tokens": said,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "output_tokens_details": {"reasoning_tokens": thought},
    }
    tools = {"web_search": {"num_requests": searches}}
    response = {"object": "response", "status": "completed", "output": [], "usage": usage, "tool_usage": tools}
    dialect = DIALECTS["openai_responses"]
    stream = dialect.stream_reader(responses(stream=True))
    stream.feed(b'data: {"type":"response.created"}\n\n')
    end = b"data: %b\n\n" % msgspec.json.encode({"type": "response.completed", "response": response})
    reader = dialect.reply_reader(responses(), INPUT_TOKENS)
    if (read or 0) + (written or 0) > whole or (thought or 0) > said:
        for call in (lambda: reader.read(msgspec.json.encode(response)), lambda: stream.feed(end)):
            with pytest.raises(ProviderError) as caught:
                call()
            assert caught.value.code == "upstream_invalid"
        return
    found = reader.read(msgspec.json.encode(response))
    assert all(name.split(".")[0] in USAGE_CLASSES and count > 0 for name, count in found.counts.items())
    assert total(found.counts, PROMPT) == whole
    assert total(found.counts, COMPLETION) == said
    assert found.counts.get("cache_read", 0) == (read or 0)
    assert found.counts.get("tool_calls.web_search", 0) == (searches or 0)
    stream.feed(end)
    assert stream.usage == found
