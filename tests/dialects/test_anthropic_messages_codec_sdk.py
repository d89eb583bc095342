"""The official SDK reads what the codec of `anthropic_messages` writes, and gives an answer back without loss."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from aurixel.dialects import AnthropicMessages
from aurixel.plugin.canonical import (
    Began,
    Citation,
    Cited,
    Event,
    Losses,
    PartEnded,
    Reply,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingSealed,
    ToolBegan,
    ToolCall,
    ToolDelta,
)
from aurixel.values import Usage
from tests.dialects.test_sdks import Canned, Handler

DIALECT = AnthropicMessages()
REQUEST = DIALECT.parse_request(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}', {})
USAGE = Usage({"input": 3, "cache_read": 4, "output": 5})
ASKED: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
EVENTS: list[Event] = [
    Began(id="chatcmpl-1"),
    ThinkingDelta(text="Hm", origin="openai_chat"),
    TextDelta(text="I "),
    TextDelta(text="look."),
    Cited(citation=Citation(url="https://example.org/", title="T")),
    PartEnded(),
    ThinkingSealed(sealed='{"id":"rs_1"}', origin="openai_responses", hidden=True),
    ToolBegan(index=0, id="c0", name="f"),
    ToolBegan(index=1, id="c1", name="g"),
    ToolDelta(index=1, arguments='{"b":'),
    ToolDelta(index=0, arguments='{"a":1}'),
    ToolDelta(index=1, arguments="2}"),
    Stopped(stop="end"),
]
CITATIONS = (Citation(url="https://example.org/", title="T"),)
PARTS = (
    Thinking(text="Hm", origin="openai_chat", at=0),
    Text(text="I look.", citations=CITATIONS),
    Thinking(sealed='{"id":"rs_1"}', hidden=True, origin="openai_responses", at=2),
    ToolCall(id="c0", name="f", arguments='{"a":1}'),
    ToolCall(id="c1", name="g", arguments='{"b":2}'),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Canned]:
    with Canned(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def client(server: Canned) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client:
        yield client


def seen(message: anthropic.types.Message) -> tuple[Any, ...]:
    """What the codec reads when the client gives this message back."""
    history = [ASKED["messages"][0], {"role": "assistant", "content": message.model_dump(mode="json")["content"]}]
    body = json.dumps({**ASKED, "messages": history}, separators=(",", ":")).encode()
    return DIALECT.read(DIALECT.parse_request(body, {}), Losses()).messages[1].parts


def check(message: anthropic.types.Message) -> None:
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (3, 4, 5)
    assert seen(message) == PARTS


def test_a_stream_through_the_sdk_and_back(server: Canned, client: anthropic.Anthropic) -> None:
    encoder = DIALECT.stream_encoder(REQUEST)
    server.stream(encoder.feed(EVENTS) + encoder.end(USAGE))
    with client.messages.stream(**ASKED) as stream:
        check(stream.get_final_message())


def test_a_reply_through_the_sdk_and_back(server: Canned, client: anthropic.Anthropic) -> None:
    server.json(DIALECT.write_reply(Reply(id="chatcmpl-1", parts=PARTS, stop="end", usage=USAGE), REQUEST))
    check(client.messages.create(**ASKED))
