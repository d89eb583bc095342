"""The scripted upstream does what plugin authors are told it does, and does not hide what nobody scripted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aurixel.testing import answers
from aurixel.testing.scripted import Call, ScriptedUpstream, answer, stall
from aurixel.upstream import Upstream
from tests.upstream.client import PATIENT, fetch, post


async def test_which_script_answers(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"any")
    scripted_upstream.reply(body=b"path", path="/v1/x")
    scripted_upstream.once(answer(body=b"first"))
    scripted_upstream.once(answer(body=b"second"))
    got = [await fetch(upstream, post(scripted_upstream.url, path=path)) for path in ["/y", "/v1/x", "/v1/x", "/y"]]
    assert got == [(200, [body]) for body in [b"first", b"second", b"path", b"any"]]
    assert scripted_upstream.connections == scripted_upstream.open == 1


async def test_what_was_received(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(json={})
    await fetch(upstream, post(scripted_upstream.url, b'{"a":', b"1}", path="/p?q=1", headers=[("X-A", "1"), ("x-a", "2")]))
    request = await scripted_upstream.received()
    assert (request.method, request.path, request.query, request.json()) == ("POST", "/p", "q=1", {"a": 1})
    assert request.headers["x-a"] == "2"
    assert [value for name, value in request.pairs if name.lower() == "x-a"] == ["1", "2"]


async def test_a_chunked_request_is_read_whole(scripted_upstream: ScriptedUpstream) -> None:
    scripted_upstream.reply(body=b"ok")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(scripted_upstream.url.rpartition(":")[2]))
    writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    await writer.wait_closed()
    assert scripted_upstream.requests[0].body == b"abcde"


async def test_a_request_nobody_scripted_fails_the_test(upstream: Upstream) -> None:
    async def run() -> None:
        async with ScriptedUpstream() as server:
            assert (await fetch(upstream, post(server.url)))[0] == 501

    with pytest.raises(AssertionError, match="nobody scripted: POST /v1/x"):
        await run()


async def test_a_step_that_fails_fails_the_test(upstream: Upstream) -> None:
    async def broken(call: Call) -> None:
        await answer(body=b"x")(call)
        raise KeyError("in the script")

    async def run() -> None:
        async with ScriptedUpstream() as server:
            server.on("*", broken)
            await fetch(upstream, post(server.url))
            await server.closed()

    with pytest.raises(KeyError, match="in the script"):
        await run()


async def test_it_can_be_left_with_connections_open(upstream: Upstream) -> None:
    async with ScriptedUpstream() as server:
        server.on("*", answer(body=b"x"), stall)
        await fetch(upstream, post(server.url))
        assert server.open == 1


async def test_a_stream_is_served_as_cut(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    events = answers.openai_chat_events("Hello there", answers.openai_chat_usage(3, 2))
    scripted_upstream.stream(events)
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert [piece async for piece in reply.chunks()] == events
    scripted_upstream.stream(events, chunks=7)
    _, pieces = await fetch(upstream, post(scripted_upstream.url))
    assert b"".join(pieces) == b"".join(events)


def parsed(events: list[bytes]) -> list[Any]:
    data = [event.rpartition(b"data: ")[2] for event in events]
    assert all(line.endswith(b"\n\n") for line in data)
    return [json.loads(line) for line in data if line != b"[DONE]\n\n"]


@pytest.mark.parametrize("text", ["", "one", "Hello  there, you ", "Grüße \U0001f600"])
def test_openai_chat_answers(text: str) -> None:
    usage = answers.openai_chat_usage(12, 3, cached=4, reasoning=1)
    assert usage["total_tokens"] == 15
    reply = answers.openai_chat_reply(text, usage)
    assert (reply["choices"][0]["message"]["content"], reply["usage"]) == (text, usage)
    assert "usage" not in answers.openai_chat_reply(text, None)
    events = answers.openai_chat_events(text, usage)
    assert events[-1] == b"data: [DONE]\n\n"
    *chunks, last = parsed(events)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], usage)
    bare = answers.openai_chat_events(text, None, done=False)
    assert all("usage" not in chunk for chunk in parsed(bare))
    assert b"[DONE]" not in b"".join(bare)


@pytest.mark.parametrize("text", ["", "one", "Hello  there, you ", "Grüße \U0001f600"])
def test_anthropic_messages_answers(text: str) -> None:
    usage = answers.anthropic_messages_usage(12, 3, cache_read=4, write_5m=2, write_1h=1)
    assert usage["cache_creation_input_tokens"] == 3
    reply = answers.anthropic_messages_reply(text, usage)
    assert (reply["content"][0]["text"], reply["usage"]) == (text, usage)
    assert "usage" not in answers.anthropic_messages_reply(text, None)
    events = parsed(answers.anthropic_messages_events(text, usage))
    assert "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta") == text
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == 4
    assert (events[-2]["usage"], events[-1]) == ({"output_tokens": 3}, {"type": "message_stop"})
    bare = parsed(answers.anthropic_messages_events(text, None, done=False))
    assert "usage" not in bare[0]["message"]
    assert bare[-1]["type"] == "message_delta"


def test_error_answers() -> None:
    assert answers.openai_error("no", code="x")["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": "x",
    }
    assert answers.anthropic_error("no")["error"] == {"type": "invalid_request_error", "message": "no"}
    assert answers.anthropic_error_event("no").startswith(b"event: error\ndata: ")
