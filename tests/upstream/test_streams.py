"""A body that is a stream: sent as it comes, once, on a connection of its own; and what ends it too early ends the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from aurixel.errors import ClientError, ClientGone, ProviderError
from aurixel.plugin.contracts import BodyStream, Outgoing
from aurixel.testing.scripted import Call, ScriptedUpstream, answer, close, event_stream, reset, send, stall, unread, wait
from aurixel.upstream import Timeouts, Upstream
from tests.upstream.client import Counted, fails, fetch, post

HASTY = Timeouts(connect=1, first_byte=0.3, idle=0.3, total=5)


class Pieces:
    """A stream of these pieces; `then` is done after the last. `asked` counts how often it was begun."""

    def __init__(self, *pieces: bytes, length: int | None = -1, then: Callable[[], object] | None = None) -> None:
        self._pieces, self._then = pieces, then
        self.length = sum(map(len, pieces)) if length == -1 else length
        self.asked = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.asked += 1
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            result = self._then()
            if asyncio.iscoroutine(result):
                await result


def stream(server: ScriptedUpstream, body: BodyStream) -> Outgoing:
    return Outgoing(method="POST", url=f"{server.url}/v1/x", headers=(("content-type", "a/b"),), body=body)


def fail(error: Exception) -> Callable[[], object]:
    def raises() -> object:
        raise error

    return raises


async def test_with_its_length(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"answer")
    assert await fetch(upstream, stream(scripted_upstream, Pieces(b"one", b"two" * 100_000))) == (200, [b"answer"])
    (request,) = scripted_upstream.requests
    assert request.body == b"one" + b"two" * 100_000
    assert request.headers["content-length"] == "300003"
    assert "transfer-encoding" not in request.headers


async def test_without_one_in_chunks(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"answer")
    assert await fetch(upstream, stream(scripted_upstream, Pieces(b"one", b"two", length=None))) == (200, [b"answer"])
    (request,) = scripted_upstream.requests
    assert (request.body, request.headers["transfer-encoding"]) == (b"onetwo", "chunked")


async def test_on_a_connection_of_its_own_and_never_again(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted
) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.once(close)
    body = Pieces(b"one")
    assert await fails(upstream, stream(scripted_upstream, body)) == ("upstream_unreachable", b"")
    assert body.asked == 1
    assert [request.connection for request in scripted_upstream.requests] == [1, 2]
    assert "retried" not in counted.told


@pytest.mark.parametrize("error", [ClientGone(), ClientError("request_timeout", "Too slow."), RuntimeError("a bug")])
@pytest.mark.parametrize("length", [None, 10], ids=["chunked", "length"])
async def test_what_ends_it_is_what_the_call_raises(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, error: Exception, length: int | None
) -> None:
    scripted_upstream.on("*", unread, stall)
    with pytest.raises(type(error)) as caught:
        await fetch(upstream, stream(scripted_upstream, Pieces(b"one", length=length, then=fail(error))))
    assert caught.value is error
    await scripted_upstream.closed()


async def test_it_is_also_what_a_reply_that_has_begun_ends_with(
    scripted_upstream: ScriptedUpstream, upstream: Upstream
) -> None:
    scripted_upstream.on("*", unread, send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"), stall)
    went = asyncio.Event()

    async def later() -> None:
        await went.wait()
        raise ClientGone

    async def call() -> None:
        async with upstream.open(stream(scripted_upstream, Pieces(b"one", length=10, then=later)), Timeouts()) as reply:
            went.set()
            async for _ in reply.chunks():
                pass

    with pytest.raises(ClientGone):
        await call()
    await scripted_upstream.closed()


async def test_an_answer_before_the_end(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """It is the answer, and the rest is not sent."""
    scripted_upstream.on("*", unread, answer(status=413, body=b"too large"), stall)
    never = asyncio.Event()
    body = Pieces(b"one" * 10, length=1000, then=never.wait)
    assert await fetch(upstream, stream(scripted_upstream, body)) == (413, [b"too large"])
    await scripted_upstream.closed()


async def test_a_stream_of_answers_while_it_is_sent(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", unread, event_stream([b"data: 1\n\n", b"data: 2\n\n"]))
    go_on = asyncio.Event()
    body = Pieces(b"one", length=None, then=go_on.wait)
    async with upstream.open(stream(scripted_upstream, body), Timeouts()) as reply:
        pieces = [piece async for piece in reply.chunks()]
    assert b"".join(pieces) == b"data: 1\n\ndata: 2\n\n"


async def test_a_connection_that_breaks_meanwhile(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    async def later(call: Call) -> None:
        await reset(call)

    scripted_upstream.on("*", unread, later)
    never = asyncio.Event()
    body = Pieces(b"one", length=10, then=never.wait)
    assert await fails(upstream, stream(scripted_upstream, body)) == ("upstream_unreachable", b"")


async def test_an_upstream_that_takes_no_more(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    async def take_no_more(call: Call) -> None:
        call.stop_reading()
        await call.gone()

    scripted_upstream.on("*", unread, take_no_more)
    body = Pieces(*[bytes(100_000)] * 300)
    assert await fails(upstream, stream(scripted_upstream, body), HASTY) == ("upstream_timeout", b"")


async def test_a_slow_stream_is_not_the_upstreams_delay(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """The first byte is awaited from the end of the body on."""
    scripted_upstream.on("*", unread, stall)
    ticks = Pieces(b"one", length=10, then=lambda: asyncio.wait_for(asyncio.Event().wait(), 0.7))
    with pytest.raises(TimeoutError):  # what the stream raised, not the upstream's deadline of 0.3
        await fetch(upstream, stream(scripted_upstream, ticks), HASTY)

    scripted_upstream.on("*", stall)
    assert await fails(upstream, stream(scripted_upstream, Pieces(b"one")), HASTY) == ("upstream_timeout", b"")


async def test_the_whole_call_has_its_deadline_all_the_same(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", unread, stall)
    never = asyncio.Event()
    body = Pieces(b"one", length=10, then=never.wait)
    short = Timeouts(connect=1, first_byte=1, idle=1, total=0.4)
    assert await fails(upstream, stream(scripted_upstream, body), short) == ("upstream_timeout", b"")


async def test_leaving_stops_it(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    begun, never = asyncio.Event(), asyncio.Event()
    scripted_upstream.on("*", unread, wait(begun), stall)

    async def call() -> None:
        async with upstream.open(stream(scripted_upstream, Pieces(b"one", length=10, then=never.wait)), Timeouts()):
            raise AssertionError

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
        await scripted_upstream.received()
        begun.set()
        task.cancel()
    await scripted_upstream.closed()


async def test_nobody_there(upstream: Upstream) -> None:
    body = Pieces(b"one")
    outgoing = Outgoing(method="POST", url="http://127.0.0.1:1/x", headers=(), body=body)
    with pytest.raises(ProviderError) as caught:
        await fetch(upstream, outgoing)
    assert caught.value.code == "upstream_unreachable"
    assert body.asked == 0
