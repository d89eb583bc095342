"""Thinking of `anthropic_messages` goes out through the other family's fields and comes back byte for byte, in its place."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects import AnthropicMessages, OpenAIChat
from aurixel.dialects.sse import make_event
from aurixel.dialects.translation import Translation
from aurixel.plugin.contracts import Dialect, ParsedRequest
from tests.dialects.messages_talk import rules

MESSAGES, CHAT = AnthropicMessages(), OpenAIChat()
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
ASKED: dict[str, Any] = {"model": "m", "reasoning_effort": "high", "tools": [TOOL]}
WORDS = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() == text)
THINKING = st.builds(lambda text, seal: {"type": "thinking", "thinking": text, "signature": seal}, st.text(max_size=3), WORDS)
REDACTED = st.builds(lambda seal: {"type": "redacted_thinking", "data": seal}, WORDS)
THOUGHTS = st.lists(THINKING | REDACTED, max_size=2)


def request(dialect: Dialect, body: dict[str, Any]) -> ParsedRequest:
    return dialect.parse_request(json.dumps(body).encode(), {})


def crossing(body: dict[str, Any]) -> Translation:
    return Translation(CHAT, MESSAGES, request(CHAT, body), rules("adaptive_thinking"))


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Blocks as an upstream sends them: thinking, perhaps text, thinking, and calls with thinking between them."""
    blocks = draw(st.lists(THINKING | REDACTED, min_size=1, max_size=2))
    if draw(st.booleans()):
        blocks += [{"type": "text", "text": draw(WORDS)}, *draw(THOUGHTS)]
    for number in range(draw(st.integers(1, 3))):
        blocks += [{"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": {"n": number}}, *draw(THOUGHTS)]
    while blocks[-1]["type"] != "tool_use":
        blocks.pop()
    return blocks


def streamed(blocks: list[dict[str, Any]]) -> bytes:
    """The same blocks as an event stream, their text in two pieces."""
    start = {"id": "msg_1", "usage": {"input_tokens": 5, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        deltas: list[dict[str, Any]] = []
        shown = dict(block)
        if block["type"] == "text":
            shown["text"] = ""
            deltas = [{"type": "text_delta", "text": piece} for piece in (block["text"][:1], block["text"][1:])]
        elif block["type"] == "thinking":
            shown |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            shown["input"] = {}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        events.append({"type": "content_block_start", "index": index, "content_block": shown})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 500}})
    events.append({"type": "message_stop"})
    return b"".join(make_event(msgspec.json.encode(event), event["type"].encode()) for event in events)


def gathered(stream: bytes) -> dict[str, Any]:
    """The message that a chat client puts together from a stream."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "thinking_blocks": [], "tool_calls": []}
    for event in stream.split(b"\n\n"):
        data = event.removeprefix(b"data: ")
        if not data or data == b"[DONE]":
            continue
        for choice in json.loads(data)["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                message["content"] = (message["content"] or "") + delta["content"]
            message["thinking_blocks"] += delta.get("thinking_blocks", [])
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    message["tool_calls"].append({**call, "function": dict(call["function"])})
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def returned(history: list[dict[str, Any]], message: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation as the client sends it next: the answer as it got it, and a result for each call."""
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in message["tool_calls"]]
    return [*history, message, *results]


@given(answers(), answers(), st.booleans())
def test_three_turns_give_the_upstream_its_own_blocks(one: list[Any], two: list[Any], stream: bool) -> None:
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    for blocks in (one, two):
        crossed = crossing({**ASKED, "messages": history, "stream": stream})
        if stream:
            reader = crossed.stream_reader(0)
            message = gathered(reader.feed(streamed(blocks)))
            assert reader.done
        else:
            usage = {"input_tokens": 5, "output_tokens": 500}
            reply = {"id": "msg_1", "type": "message", "content": blocks, "stop_reason": "tool_use", "usage": usage}
            message = json.loads(crossed.read(json.dumps(reply).encode(), 0)[1])["choices"][0]["message"]
        history = returned(history, message)
    last = crossing({**ASKED, "messages": history})
    sent = json.loads(bytes(last.request.fields["messages"]))
    assert [turn["content"] for turn in sent if turn["role"] == "assistant"] == [one, two]
    assert json.loads(bytes(last.request.fields["thinking"]))["type"] == "adaptive"
    assert not last.losses


def test_a_client_that_loses_thinking_is_served_without() -> None:
    call = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    crossed = crossing({**ASKED, "messages": returned([{"role": "user", "content": "Go"}], message)})
    assert json.loads(bytes(crossed.request.fields["thinking"])) == {"type": "disabled"}
    assert crossed.losses is not None
    assert list(crossed.losses.changed) == ["reasoning_effort"]
