"""Leaving a call, cancelled or not, closes its connection at once, unless the answer was read to its end."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter

import pytest

from aurixel.errors import ProviderError
from aurixel.testing.scripted import (
    Call,
    ScriptedUpstream,
    Step,
    answer,
    chunked,
    head,
    send,
    slices,
    stall,
    tell,
    unread,
    wait,
)
from aurixel.upstream import Timeouts, Upstream
from aurixel.upstream.connections import READING
from tests.upstream.client import PATIENT, Counted, fetch, post

CHUNKED = head(200, [("Transfer-Encoding", "chunked")])
MEGABYTE = bytes(1_000_000)


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (send(b"HTTP/1.1 200 OK\r\n"),),
        (head(200, [("Content-Length", "100")]),),
        (head(200, [("Content-Length", "100")]), send(b"abc")),
        (CHUNKED, chunked([b"abc"], end=False)),
        (head(200), send(b"abc")),
    ],
    ids=["silent", "half a head", "head", "length", "chunked", "open end"],
)
async def test_cancelled(scripted_upstream: ScriptedUpstream, upstream: Upstream, steps: tuple[Step, ...]) -> None:
    so_far = asyncio.Event()
    scripted_upstream.on("*", *steps, tell(so_far), stall)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(upstream, post(scripted_upstream.url)))
        await so_far.wait()
        await cancel(task)
        await scripted_upstream.disconnected()
    await scripted_upstream.closed()


async def test_cancelled_while_connecting(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    connected = asyncio.Event()
    scripted_upstream.greet(tell(connected))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(upstream, post(scripted_upstream.url.replace("http:", "https:"))))
        await connected.wait()
        await cancel(task)
        await scripted_upstream.closed()


async def test_cancelled_while_sending(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """Not what is still in our buffers: an upstream must not be handed, and bill, what nobody waits for."""
    arrived = asyncio.Event()
    left = asyncio.Event()
    took = 0

    async def deaf(call: Call) -> None:
        nonlocal took
        call.stop_reading()
        arrived.set()
        await left.wait()
        call.read_on()
        await call.gone()
        took = call.backlog

    scripted_upstream.on("*", unread, deaf)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(upstream, post(scripted_upstream.url, MEGABYTE * 64)))
        await arrived.wait()
        await cancel(task)
        left.set()
    await scripted_upstream.closed()
    assert took < 24 * len(MEGABYTE)  # what the kernel's buffers hold


async def test_left_early(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    scripted_upstream.on("*", CHUNKED, chunked([b"a", b"b"], end=False), stall)
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert await anext(reply.chunks()) == b"a"
    await scripted_upstream.closed()
    with pytest.raises(KeyError):
        async with upstream.open(post(scripted_upstream.url), PATIENT):
            raise KeyError
    await scripted_upstream.closed()
    assert counted.told == ["opened", "first_byte"] * 2


async def test_left_with_the_whole_answer_here(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted
) -> None:
    """The pool has the connection back already: leaving without having read must not close it under its next user."""
    scripted_upstream.once(answer(body=b"unread"))
    started = asyncio.Event()
    scripted_upstream.once(CHUNKED, chunked([b"a"], end=False), tell(started), chunked([b"b"]))
    async with upstream.open(post(scripted_upstream.url), PATIENT):
        task = asyncio.create_task(fetch(upstream, post(scripted_upstream.url)))
        await started.wait()
    status, pieces = await task
    assert (status, b"".join(pieces)) == (200, b"ab")
    assert counted.told == ["opened", "first_byte", "reused", "first_byte"]


async def test_after_leaving_the_rest_is_gone(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", CHUNKED, chunked([b"a"], end=False), stall)
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert await anext(reply.chunks()) == b"a"
    with pytest.raises(ProviderError, match="upstream_died"):
        await anext(reply.chunks())


async def test_closing_ends_what_is_open(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", CHUNKED, chunked([b"a"], end=False), stall)
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        chunks = reply.chunks()
        assert await anext(chunks) == b"a"
        await upstream.close()
        with pytest.raises(ProviderError, match="upstream_died"):
            await anext(chunks)
    await scripted_upstream.closed()


async def test_a_stalled_reader_stalls_the_upstream(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    sent = 0

    async def flood(call: Call) -> None:
        nonlocal sent
        for n in range(64):
            await call.send(bytes([n]) * len(MEGABYTE))
            sent += len(MEGABYTE)

    scripted_upstream.on("/flood", head(200, [("Content-Length", str(64 * len(MEGABYTE)))]), flood)
    scripted_upstream.reply(body=b"x")
    async with upstream.open(post(scripted_upstream.url, path="/flood"), PATIENT) as reply:
        chunks = reply.chunks()
        total = len(await anext(chunks))
        for _ in range(300):  # many turns of the loop, in each of which the flood could go on
            await fetch(upstream, post(scripted_upstream.url))
        assert sent < 24 * len(MEGABYTE)  # what the kernel's buffers hold
        async for piece in chunks:
            first = total // len(MEGABYTE)
            last = (total + len(piece) - 1) // len(MEGABYTE)
            assert set(piece) == set(range(first, last + 1))
            total += len(piece)
    assert total == 64 * len(MEGABYTE)


async def test_a_stream_stalled_by_its_many_chunks_goes_on(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """aiohttp's reader is paused by the number of chunks, between two of them: its parser minds that only in the next one."""
    most = READING["read_bufsize"] // 16
    read = asyncio.Event()
    many = b"1\r\na\r\n" * (most + 1)
    scripted_upstream.on("*", CHUNKED, send(many), wait(read), send(b"1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"))
    async with upstream.open(post(scripted_upstream.url), Timeouts(idle=2)) as reply:
        came = await anext(reply.chunks())
        while len(came) <= most:
            came += await anext(reply.chunks())
        read.set()
        assert await reply.read(2) == b"bc"
    assert came == b"a" * (most + 1)


async def test_answers_never_mix(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    """A storm over shared connections: whole answers, streams cut anywhere, broken ones, callers that leave."""
    dice = random.Random(7)

    async def echo(call: Call) -> None:
        marker = call.request.body
        kind = call.request.path
        if kind == "/whole":
            await answer(body=marker * 50)(call)
            return
        await CHUNKED(call)
        pieces = slices(marker * 50, int(call.request.query))
        if kind == "/broken":
            await chunked(pieces[: len(pieces) // 2], end=False)(call)
            call.reset()
        else:
            await chunked(pieces)(call)

    async def one(n: int) -> str:
        marker = b"<tenant %d>" % n
        kind = dice.choice(["whole", "stream", "stream", "broken", "leave"])
        came = b""
        outgoing = post(scripted_upstream.url, marker, path=f"/{kind}?{dice.randint(1, 200)}")
        code = ""
        try:
            async with upstream.open(outgoing, PATIENT) as reply:
                async for piece in reply.chunks():
                    came += piece
                    if kind == "leave" and len(came) > 100:
                        break
        except ProviderError as error:
            code = error.code
        assert code == ("upstream_died" if kind == "broken" else "")
        assert (marker * 50).startswith(came)
        assert kind in ("leave", "broken") or came == marker * 50
        return kind

    scripted_upstream.on("*", echo)
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n)) for n in range(60)]
        assert {task.result() for task in tasks} == {"whole", "stream", "broken", "leave"}
    assert counted.told.count("reused") > 100
    await upstream.close()
    await scripted_upstream.closed()


@pytest.mark.parametrize("path", ["/whole", "/early"])
async def test_a_call_is_gone_when_it_is_left(scripted_upstream: ScriptedUpstream, upstream: Upstream, path: str) -> None:
    """Nothing of it waits for a garbage collection, or lives on with the pooled connection."""
    scripted_upstream.on("/whole", answer(body=b"abc"))
    scripted_upstream.on("/early", CHUNKED, chunked([b"a"], end=False), stall)

    async def call() -> None:
        async with upstream.open(post(scripted_upstream.url, path=path), PATIENT) as reply:
            async for _ in reply.chunks():
                if path == "/early":
                    break

    def alive() -> Counter[str]:
        return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing).__module__.startswith("aurixel."))

    await call()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(10):
            await call()
        after = alive()
    finally:
        gc.enable()
    assert (after["Reply"], after["Outgoing"]) == (0, 0)
    assert after["_Call"] - before["_Call"] < 3  # the empty shell of one lives in the context of each connection
