"""Upstreams that break off, reset, half-close or talk nonsense: a code for each, and what came before is handed on."""

from __future__ import annotations

import gzip
import socket

import pytest

from aurixel.errors import ProviderError
from aurixel.testing.scripted import (
    ScriptedUpstream,
    Step,
    chunked,
    close,
    half_close,
    head,
    interim,
    reset,
    send,
    stall,
    unread,
)
from aurixel.upstream import Upstream
from aurixel.upstream.connections import Link
from tests.upstream.client import PATIENT, Counted, fails, fetch, post

SENT = b"data: 1\n\n"
LENGTH = head(200, [("Content-Length", "100")])
CHUNKED = head(200, [("Transfer-Encoding", "chunked")])
ENDLESS = head(200)
PACKED = head(200, [("Content-Encoding", "gzip"), ("Content-Length", "1000")])
part = chunked([SENT], end=False)

ends = pytest.mark.parametrize("end", [close, reset, half_close])


@ends
async def test_before_anything_is_read(scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step) -> None:
    scripted_upstream.greet(end)
    scripted_upstream.reply(body=b"never")
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_unreachable", b"")


@ends
async def test_before_the_body_is_read(scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step) -> None:
    scripted_upstream.on("*", unread, end)
    assert await fails(upstream, post(scripted_upstream.url, b"x" * 3_000_000)) == ("upstream_unreachable", b"")


@ends
async def test_instead_of_an_answer(scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step) -> None:
    scripted_upstream.on("*", end)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_unreachable", b"")
    assert len(scripted_upstream.requests) == 1


@ends
@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
async def test_within_the_head(scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step, begun: bytes) -> None:
    scripted_upstream.on("*", send(begun), end)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_died", b"")
    assert len(scripted_upstream.requests) == 1


@ends
async def test_after_an_interim_answer(scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step) -> None:
    scripted_upstream.on("*", interim(100), end)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_died", b"")


@ends
@pytest.mark.parametrize(
    ("begin", "came"),
    [
        ([LENGTH], b""),
        ([LENGTH, send(SENT)], SENT),
        ([CHUNKED], b""),
        ([CHUNKED, part], SENT),
        ([CHUNKED, part, send(b"5\r\nab")], SENT + b"ab"),
        ([CHUNKED, part, send(b"0\r\n")], SENT),
        ([PACKED, send(gzip.compress(SENT)[:-3])], SENT),
    ],
    ids=["length", "length+", "chunked", "chunked+", "in a chunk", "in the last chunk", "gzip"],
)
async def test_within_the_body(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step, begin: list[Step], came: bytes
) -> None:
    scripted_upstream.on("*", *begin, end)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_died", came)


@pytest.mark.parametrize("end", [close, reset])
async def test_what_came_before_the_cut_is_handed_on(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, end: Step
) -> None:
    """The reader is slow, and finds bytes and the end of the connection together: the bytes are not lost."""
    scripted_upstream.once(LENGTH, send(SENT), end)
    scripted_upstream.reply(body=b"x")
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        await scripted_upstream.closed()
        for _ in range(20):  # turns of the loop, for the end to arrive
            await fetch(upstream, post(scripted_upstream.url))
        chunks = reply.chunks()
        assert await anext(chunks) == SENT
        for _ in range(2):
            with pytest.raises(ProviderError, match="upstream_died"):
                await anext(chunks)


async def test_a_reset_is_no_end_of_a_body_without_length(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", ENDLESS, send(SENT), reset)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_died", SENT)
    scripted_upstream.on("*", ENDLESS, send(SENT), half_close)
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [SENT])


async def test_nor_is_it_for_a_reader_of_the_whole(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.once(ENDLESS, send(SENT), reset)
    scripted_upstream.reply(body=b"x")
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        await scripted_upstream.closed()
        for _ in range(20):  # turns of the loop, for the end to arrive
            await fetch(upstream, post(scripted_upstream.url))
        with pytest.raises(ProviderError, match="upstream_died"):
            await reply.read(len(SENT))


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"<html></html>\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"\r\n",
        b"HTTP/1.1 200 " + b"O" * 9_000 + b"K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
    ],
    ids=[
        "ssh",
        "tls",
        "html",
        "status",
        "101",
        "999",
        "negative length",
        "two lengths",
        "length and chunked",
        "a packed transfer",
        "no colon",
        "huge header",
        "200 headers",
        "huge reason",
        "endless header",
    ],
)
async def test_garbage_for_a_head(scripted_upstream: ScriptedUpstream, upstream: Upstream, garbage: bytes) -> None:
    scripted_upstream.on("*", send(garbage), stall)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_invalid", b"")
    await scripted_upstream.closed()


@pytest.mark.parametrize("garbage", [b"xyz\r\n", b"-5\r\n", b"1\r\nab\r\n", b"f" * 40 + b"\r\n"])
async def test_garbage_within_the_body(scripted_upstream: ScriptedUpstream, upstream: Upstream, garbage: bytes) -> None:
    scripted_upstream.on("*", CHUNKED, part, send(garbage), stall)
    code, came = await fails(upstream, post(scripted_upstream.url))
    assert code in {"upstream_invalid", "upstream_died"}
    assert came.startswith(SENT)
    await scripted_upstream.closed()


async def test_nobody_listens(upstream: Upstream, counted: Counted) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert await fails(upstream, post(url)) == ("upstream_unreachable", b"")
    assert counted.told == []


async def test_no_such_host(upstream: Upstream) -> None:
    assert await fails(upstream, post("http://upstream.invalid")) == ("upstream_unreachable", b"")


@pytest.mark.parametrize(
    "outgoing",
    [
        post("http://127.0.0.1:1", path="/a b"),
        post("http://127.0.0.1:1", path="/a\r\nX: y"),
        post("http://127.0.0.1:1", path="/\u00e9"),
        post("http://"),
        post("/relative", path=""),
        post("ftp://127.0.0.1:1"),
        post("http://127.0.0.1:port"),
        post("http://127.0.0.1:1", method="GET /x\r\n"),
        post("http://user:secret@127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_sent_is_a_plugins_bug(upstream: Upstream, outgoing: object) -> None:
    assert await fails(upstream, outgoing) == ("plugin_bug", b"")  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\r\nY", "b"), ("X", "a\0")])
async def test_a_header_cannot_smuggle(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, header: tuple[str, str]
) -> None:
    assert await fails(upstream, post(scripted_upstream.url, headers=[header])) == ("plugin_bug", b"")
    await scripted_upstream.closed()
    assert scripted_upstream.requests == []


async def test_a_peer_that_always_speaks_first_is_given_up(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its first words are here when there is a connection is up to the loop: here they always are."""
    monkeypatch.setattr(Link, "unasked", property(lambda link: True, lambda link, value: None), raising=False)
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_unreachable", b"")
    assert scripted_upstream.connections == 3
    assert scripted_upstream.requests == []


async def test_a_packed_transfer_in_chunks(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", head(200, [("Transfer-Encoding", "gzip, chunked")]), chunked([b"a"]))
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_invalid", b"")
