"""What an upstream's answer says and no other dialect has words for is told by name, whole and streamed."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from aurixel.dialects.translation import Translation
from aurixel.plugin import ModelRules
from aurixel.plugin.canonical import ChatCodec
from tests.dialects.cases import DIALECTS, INPUT_TOKENS, cases, in_words_of

HOSTED: Final = "reply.hosted_tools"
CITED: Final = "reply.citations"
RULES: Final = ModelRules(context=100_000, max_output=4000)


def codec(name: str) -> ChatCodec:
    found = DIALECTS[name]
    assert isinstance(found, ChatCodec)
    return found


def translation(upstream: str, *, stream: bool) -> Translation:
    client = DIALECTS["anthropic_messages" if upstream == "openai_chat" else "openai_chat"]
    said = [{"role": "user", "content": "Hi"}]
    body: dict[str, Any] = {"model": "m", "stream": stream, "max_tokens": 100, "messages": said}
    request = client.parse_request(json.dumps(in_words_of(client, body)).encode(), {})
    return Translation(client, DIALECTS[upstream], request, RULES)


def golden(dialect: str, name: str, file: str) -> bytes:
    (case,) = [case for case in cases(file, dialect) if case.folder.name == name]
    return case.reply if file == "reply.json" else case.upstream


@pytest.mark.parametrize(
    ("dialect", "name", "lost"),
    [
        ("anthropic_messages", "reply_server_tools", (HOSTED,)),
        ("anthropic_messages", "reply_thinking_tools", ()),
        ("openai_responses", "reply_web_search", (HOSTED,)),
        ("openai_responses", "reply_reasoning_tools", ()),
        ("openai_chat", "reply_text", ()),
    ],
)
def test_a_whole_reply(dialect: str, name: str, lost: tuple[str, ...]) -> None:
    body = golden(dialect, name, "reply.json")
    assert codec(dialect).read_reply(body).lost == lost
    crossing = translation(dialect, stream=False)
    crossing.read(body, INPUT_TOKENS)
    assert crossing.losses is not None
    assert tuple(crossing.losses.dropped) == lost


@pytest.mark.parametrize(
    ("dialect", "name", "lost"),
    [
        ("anthropic_messages", "web_search", {HOSTED}),
        ("anthropic_messages", "thinking", set()),
        ("openai_responses", "web_search", {HOSTED}),
        ("openai_responses", "tools_parallel", set()),
        ("openai_chat", "text", set()),
    ],
)
def test_a_stream(dialect: str, name: str, lost: set[str]) -> None:
    crossing = translation(dialect, stream=True)
    reader = crossing.stream_reader(INPUT_TOKENS)
    reader.feed(golden(dialect, name, "upstream.sse"))
    if not reader.done:
        reader.close()
    assert crossing.losses is not None
    assert set(crossing.losses.dropped) == lost


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


ITEM: Final = {"type": "message", "role": "assistant", "content": []}
STREAMED: Final = {
    "openai_chat": sse({"id": "c", "choices": [{"index": 0, "delta": {"content": "a", "annotations": [{"type": "file"}]}}]}),
    "openai_responses": sse(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"},
        {
            "type": "response.output_text.annotation.added",
            "output_index": 0,
            "content_index": 0,
            "annotation": {"type": "file_citation", "file_id": "f"},
        },
    ),
    "anthropic_messages": sse(
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "a"}},
        },
    ),
}


@pytest.mark.parametrize("dialect", STREAMED)
def test_a_citation_without_a_url_in_a_stream(dialect: str) -> None:
    decoder = codec(dialect).stream_decoder()
    assert decoder.lost == set()
    decoder.feed(STREAMED[dialect])
    assert decoder.lost == {CITED}
