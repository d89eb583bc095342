"""A request is sent again in one case only: a connection from the pool broke before the first byte of an answer."""

from __future__ import annotations

import asyncio

import pytest

from aurixel.testing.scripted import (
    Call,
    ScriptedUpstream,
    Step,
    answer,
    close,
    half_close,
    interim,
    reset,
    send,
    stall,
    tell,
    wait,
)
from aurixel.upstream import Timeouts, Upstream
from tests.upstream.client import Counted, fails, fetch, post

ends = pytest.mark.parametrize("end", [close, reset, half_close])
methods = pytest.mark.parametrize("method", ["POST", "GET"])  # a GET is what aiohttp would send again by itself
STALE = ["opened", "first_byte", "reused"]


@ends
@methods
async def test_once_and_on_a_fresh_connection(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted, end: Step, method: str
) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.once(end)
    outgoing = post(scripted_upstream.url, b"one", b"two", method=method)
    assert await fetch(upstream, outgoing) == (200, [b"answer"])
    _, lost, again = scripted_upstream.requests
    assert (lost.connection, again.connection) == (1, 2)
    assert lost.body == again.body == b"onetwo"
    assert counted.told == [*STALE, "retried", "opened", "first_byte"]


@ends
@methods
async def test_not_twice(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted, end: Step, method: str
) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.on("*", end)
    assert await fails(upstream, post(scripted_upstream.url, method=method)) == ("upstream_unreachable", b"")
    assert len(scripted_upstream.requests) == 3
    assert counted.told == [*STALE, "retried", "opened"]


async def test_never_on_a_second_pooled_connection(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted
) -> None:
    """The upstream restarts, and all its connections are dead: one retry has to be enough."""
    together = asyncio.Event()
    scripted_upstream.on("*", wait(together), answer(body=b"answer"))
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(fetch(upstream, post(scripted_upstream.url)))
        await scripted_upstream.received(3)
        together.set()

    async def restarted(call: Call) -> None:
        if call.request.connection <= 3:
            call.reset()
        else:
            await answer(body=b"again")(call)

    scripted_upstream.on("*", restarted)
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"again"])
    assert [request.connection > 3 for request in scripted_upstream.requests[3:]] == [False, True]
    assert counted.told.count("retried") == 1


@ends
@methods
async def test_not_on_a_fresh_connection(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted, end: Step, method: str
) -> None:
    scripted_upstream.on("*", end)
    assert await fails(upstream, post(scripted_upstream.url, method=method)) == ("upstream_unreachable", b"")
    assert len(scripted_upstream.requests) == 1
    assert counted.told == ["opened"]


@ends
@methods
@pytest.mark.parametrize("begin", [send(b"H"), send(b"HTTP/1.1 200 OK\r\n"), interim(100)], ids=["byte", "line", "100"])
async def test_not_when_a_byte_came(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted, end: Step, method: str, begin: Step
) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.once(begin, end)
    assert await fails(upstream, post(scripted_upstream.url, method=method)) == ("upstream_died", b"")
    assert len(scripted_upstream.requests) == 2
    assert counted.told == STALE


async def test_not_when_the_deadline_passed(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.on("*", stall)
    assert await fails(upstream, post(scripted_upstream.url), Timeouts(first_byte=0.5)) == ("upstream_timeout", b"")
    assert len(scripted_upstream.requests) == 2
    assert counted.told == STALE


async def test_a_retry_has_its_deadlines_too(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    scripted_upstream.reply(body=b"answer")
    await fetch(upstream, post(scripted_upstream.url))
    scripted_upstream.once(reset)
    scripted_upstream.once(stall)
    assert await fails(upstream, post(scripted_upstream.url), Timeouts(first_byte=0.5)) == ("upstream_timeout", b"")
    assert counted.told == [*STALE, "retried", "opened"]


async def test_a_connection_closed_in_the_pool_needs_no_retry(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted
) -> None:
    scripted_upstream.on("*", answer(body=b"answer"), close)
    for _ in range(2):
        assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"answer"])
        await scripted_upstream.closed()
    assert counted.told == ["opened", "first_byte"] * 2


@pytest.mark.parametrize("unasked", [b"x", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"])
async def test_an_answer_nobody_asked_for_reaches_nobody(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, unasked: bytes
) -> None:
    now, sent = asyncio.Event(), asyncio.Event()
    scripted_upstream.once(answer(body=b"first"), wait(now), send(unasked), tell(sent))
    scripted_upstream.reply(body=b"second")
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"first"])
    now.set()
    await sent.wait()
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"second"])
    assert scripted_upstream.connections == 2
