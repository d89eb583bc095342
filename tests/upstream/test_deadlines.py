"""Each deadline ends the call with `upstream_timeout` and its connection; the reader's own time counts in `total` only."""

from __future__ import annotations

import asyncio

import pytest

from aurixel.testing.scripted import Call, ScriptedUpstream, answer, chunked, head, interim, send, stall, unread, wait
from aurixel.upstream import Timeouts, Upstream
from tests.upstream.client import Counted, fails, fetch, post

SHORT = 0.05  # for what never comes
ROOM = 0.5  # for what has to come first, on a busy machine too
LENGTH = head(200, [("Content-Length", "100")])
CHUNKED = head(200, [("Transfer-Encoding", "chunked")])


async def drip(call: Call) -> None:
    """One byte after the other, for ever."""
    while True:
        await call.send(b"1\r\nx\r\n")


async def hints(call: Call) -> None:
    """One interim answer after the other, for ever."""
    while True:
        await interim(103)(call)


async def test_connect(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    # A server without TLS never answers the handshake, which is part of connecting.
    url = scripted_upstream.url.replace("http:", "https:")
    assert await fails(upstream, post(url), Timeouts(connect=SHORT)) == ("upstream_timeout", b"")
    await scripted_upstream.closed()
    assert await fails(upstream, post(url), Timeouts(total=SHORT)) == ("upstream_timeout", b"")
    await scripted_upstream.closed()
    assert counted.told == []


async def test_connect_includes_the_wait_for_a_free_connection(scripted_upstream: ScriptedUpstream) -> None:
    upstream = Upstream(max_connections=1)
    scripted_upstream.on("*", LENGTH, stall)
    async with upstream.open(post(scripted_upstream.url), Timeouts()):
        assert await fails(upstream, post(scripted_upstream.url), Timeouts(connect=SHORT)) == ("upstream_timeout", b"")
    scripted_upstream.reply(body=b"free again")
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"free again"])
    await upstream.close()


@pytest.mark.parametrize("timeouts", [Timeouts(first_byte=SHORT), Timeouts(total=SHORT)], ids=["first byte", "total"])
@pytest.mark.parametrize(
    "steps",
    [(stall,), (unread, stall), (send(b"HTTP/1.1 200 OK\r\n"), stall), (interim(100), stall), (hints,)],
    ids=["silent", "unread", "half a head", "interim", "endless interim"],
)
async def test_first_byte(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, timeouts: Timeouts, steps: tuple[object, ...]
) -> None:
    scripted_upstream.on("*", *steps)  # type: ignore[arg-type]
    assert await fails(upstream, post(scripted_upstream.url, b"x" * 100), timeouts) == ("upstream_timeout", b"")
    await scripted_upstream.closed()


async def test_first_byte_while_sending(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    over = asyncio.Event()

    async def deaf(call: Call) -> None:
        call.stop_reading()
        await over.wait()

    scripted_upstream.on("*", unread, deaf)
    outgoing = post(scripted_upstream.url, b"x" * 50_000_000)
    assert await fails(upstream, outgoing, Timeouts(first_byte=SHORT)) == ("upstream_timeout", b"")
    over.set()


@pytest.mark.parametrize("timeouts", [Timeouts(idle=ROOM), Timeouts(total=ROOM)], ids=["idle", "total"])
@pytest.mark.parametrize(
    ("steps", "came"),
    [
        ((LENGTH,), b""),
        ((LENGTH, send(b"abc")), b"abc"),
        ((CHUNKED, chunked([b"abc"], end=False)), b"abc"),
        ((head(200), send(b"abc")), b"abc"),
        ((head(200, [("Content-Encoding", "gzip")]), send(b"\x1f\x8b\x08")), b""),
    ],
    ids=["before the body", "length", "chunked", "open end", "gzip"],
)
async def test_idle(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, timeouts: Timeouts, steps: tuple[object, ...], came: bytes
) -> None:
    scripted_upstream.on("*", *steps, stall)  # type: ignore[arg-type]
    assert await fails(upstream, post(scripted_upstream.url), timeouts) == ("upstream_timeout", came)
    await scripted_upstream.closed()


async def test_idle_is_shorter_than_the_wait_for_the_head(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """The one timer looks again often enough, whatever it was set for."""
    scripted_upstream.on("*", LENGTH, send(b"abc"), stall)
    timeouts = Timeouts(first_byte=60, idle=ROOM, total=60)
    assert await fails(upstream, post(scripted_upstream.url), timeouts) == ("upstream_timeout", b"abc")


async def test_each_call_has_its_own_deadline_whichever_came_first(
    scripted_upstream: ScriptedUpstream, upstream: Upstream
) -> None:
    """The timer they share was set for a later one, and goes on for it after an earlier one."""
    scripted_upstream.on("*", LENGTH, stall)
    patient, late = Timeouts(), Timeouts(idle=ROOM, total=2 * ROOM)
    async with upstream.open(post(scripted_upstream.url), patient) as open_all_along:
        slow = asyncio.create_task(fails(upstream, post(scripted_upstream.url), late))
        assert await fails(upstream, post(scripted_upstream.url), Timeouts(idle=SHORT)) == ("upstream_timeout", b"")
        assert await slow == ("upstream_timeout", b"")
        assert open_all_along.status == 200


async def test_total_ends_a_stream_that_never_pauses(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", CHUNKED, drip)
    code, came = await fails(upstream, post(scripted_upstream.url), Timeouts(idle=ROOM, total=2 * ROOM))
    assert code == "upstream_timeout"
    assert set(came) == {ord("x")}
    await scripted_upstream.closed()


async def test_a_busy_reader_is_no_idle_upstream(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    scripted_upstream.once(CHUNKED, chunked([b"a"], end=False), wait(go_on), chunked([b"b"]))
    scripted_upstream.once(stall)
    async with upstream.open(post(scripted_upstream.url), Timeouts(idle=ROOM)) as reply:
        chunks = reply.chunks()
        assert await anext(chunks) == b"a"
        # The reader is busy for twice as long as the upstream may be silent: with another call that times out.
        assert await fails(upstream, post(scripted_upstream.url), Timeouts(first_byte=2 * ROOM)) == ("upstream_timeout", b"")
        go_on.set()
        assert [piece async for piece in chunks] == [b"b"]


async def test_a_whole_answer_outlives_total(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    """What has arrived whole belongs to the reader, and its connection to the pool: no deadline breaks it any more."""
    scripted_upstream.once(answer(body=b"all of it"))
    scripted_upstream.once(stall)
    scripted_upstream.reply(body=b"next")
    async with upstream.open(post(scripted_upstream.url), Timeouts(total=ROOM)) as reply:
        assert await fails(upstream, post(scripted_upstream.url), Timeouts(first_byte=2 * ROOM)) == ("upstream_timeout", b"")
        assert await reply.read(100) == b"all of it"
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"next"])


async def test_nothing_fires_after_the_end(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    """A connection that went back to the pool is not broken by the deadline of the call before."""
    scripted_upstream.once(answer(body=b"first"))
    assert await fetch(upstream, post(scripted_upstream.url), Timeouts(total=ROOM)) == (200, [b"first"])
    scripted_upstream.on("*", stall)
    assert await fails(upstream, post(scripted_upstream.url), Timeouts(first_byte=2 * ROOM)) == ("upstream_timeout", b"")
    assert counted.told == ["opened", "first_byte", "reused"]
