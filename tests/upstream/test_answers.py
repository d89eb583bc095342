"""What a working upstream answers comes back as it was sent, however it was cut, framed or compressed on the way."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from aurixel.errors import ProviderError
from aurixel.testing.scripted import (
    ScriptedUpstream,
    answer,
    chunked,
    close,
    event_stream,
    half_close,
    head,
    interim,
    send,
    slices,
    unread,
)
from aurixel.upstream import OUTBOUND_HEADERS, Upstream, outbound_headers
from tests.upstream.client import PATIENT, Counted, fails, fetch, post

EVENTS = [b'data: {"n":%d}\n\n' % n for n in range(5)]
STREAM = b"".join(EVENTS)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMES = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"
# Deflate without zlib's header, as some servers send it.
_bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
GZIP = gzip.compress(STREAM, mtime=0)  # with no instant in it: it names tests
BARE = _bare.compress(STREAM) + _bare.flush()


async def test_one_whole_answer(scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted) -> None:
    scripted_upstream.reply(json={"a": 1}, status=429, headers=[("Retry-After", "2"), ("X-Many", "1"), ("x-many", "2")])
    async with upstream.open(post(scripted_upstream.url, b"{", b"}", path="/v1/x?y=1%2F2"), PATIENT) as reply:
        assert reply.status == 429
        assert reply.headers["retry-after"] == "2"
        assert reply.headers["x-many"] == "1, 2"
        assert await reply.read(100) == b'{"a": 1}'
    request = scripted_upstream.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/v1/x?y=1%2F2", b"{}")
    assert counted.told == ["opened", "first_byte"]


async def test_what_is_sent_is_ours_and_the_providers(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(headers=[("Set-Cookie", "track=1; Path=/")])
    framing = [("Content-Length", "77"), ("Transfer-Encoding", "chunked"), ("Expect", "100-continue"), ("Connection", "close")]
    await fetch(upstream, post(scripted_upstream.url, b"abc", headers=[("Content-Type", "text/x"), *framing]))
    await fetch(upstream, post(scripted_upstream.url))
    first, second = scripted_upstream.requests
    assert first.body == b"abc"
    assert {name.lower(): value for name, value in first.pairs} == {
        "host": scripted_upstream.url.removeprefix("http://"),
        "user-agent": "aurixel",
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-upstream-canary",
        "content-type": "text/x",
        "content-length": "3",
    }
    assert "cookie" not in second.headers
    assert first.connection == second.connection == 1


def test_of_a_clients_headers_few_go_out() -> None:
    client = {
        "authorization": "Bearer ax-client",
        "x-api-key": "ax-client",
        "cookie": "a=b",
        "x-forwarded-for": "203.0.113.9",
        "forwarded": "for=203.0.113.9",
        "user-agent": "sdk/1",
        "accept-encoding": "gzip, br",
        "x-stainless-retry-count": "1",
        "openai-organization": "org-1",
        "anthropic-workspace-id": "w",
        "traceparent": "00-1-2-3",
        "x-request-id": "r",
        "content-length": "9",
        "host": "gateway",
    }
    allowed = {name: f"value of {name}" for name in OUTBOUND_HEADERS}
    assert outbound_headers(client) == ()
    assert dict(outbound_headers(client | allowed)) == allowed
    assert set(OUTBOUND_HEADERS) == {"content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta"}


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_bodies_of_any_size_go_both_ways(scripted_upstream: ScriptedUpstream, upstream: Upstream, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    scripted_upstream.reply(body=body)
    pieces = tuple(slices(body, max(1, size // 3))) or (b"",)
    status, came = await fetch(upstream, post(scripted_upstream.url, *pieces))
    assert status == 200
    assert b"".join(came) == body
    assert scripted_upstream.requests[0].body == body


async def test_a_request_without_a_body(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"x")
    outgoing = post(scripted_upstream.url, method="GET")
    assert await fetch(upstream, type(outgoing)(method="GET", url=outgoing.url, headers=(), body=())) == (200, [b"x"])
    assert "content-length" not in scripted_upstream.requests[0].headers


async def test_an_answer_without_a_body(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", head(204))
    assert await fetch(upstream, post(scripted_upstream.url)) == (204, [])
    assert await fetch(upstream, post(scripted_upstream.url)) == (204, [])
    assert scripted_upstream.connections == 1


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"Content-Length: %d\r\n" % len(STREAM), STREAM),
        (b"Transfer-Encoding: chunked\r\n", FRAMES),
        (
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(GZIP),
            GZIP,
        ),
        (b"Content-Encoding: deflate\r\nContent-Length: %d\r\n" % len(BARE), BARE),
    ],
    ids=["length", "chunked", "gzip", "deflate"],
)
async def test_cut_at_every_byte(scripted_upstream: ScriptedUpstream, upstream: Upstream, fields: bytes, body: bytes) -> None:
    whole = OK + fields + b"\r\n" + body
    for at in range(1, len(whole)):
        scripted_upstream.once(send(whole[:at], whole[at:]))
        status, pieces = await fetch(upstream, post(scripted_upstream.url))
        assert (status, b"".join(pieces)) == (200, STREAM)
    scripted_upstream.once(send(*slices(whole, 1)))
    status, pieces = await fetch(upstream, post(scripted_upstream.url))
    assert (status, b"".join(pieces)) == (200, STREAM)
    assert scripted_upstream.connections == 1


async def test_pieces_come_as_they_are_sent(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.stream(EVENTS)
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, EVENTS)
    scripted_upstream.stream(EVENTS, chunks=1)
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, slices(STREAM, 1))


async def test_a_body_that_ends_with_the_connection(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", head(200), send(STREAM), close)
    for _ in range(2):
        status, pieces = await fetch(upstream, post(scripted_upstream.url))
        assert (status, b"".join(pieces)) == (200, STREAM)
    assert scripted_upstream.connections == 2


async def test_a_half_closed_upstream_has_still_answered(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", answer(body=STREAM), half_close)
    for _ in range(2):
        status, pieces = await fetch(upstream, post(scripted_upstream.url))
        assert (status, b"".join(pieces)) == (200, STREAM)
    await scripted_upstream.closed()


async def test_interim_answers_are_skipped(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", interim(100), interim(103, [("Link", "</x>")]), interim(102), answer(body=b"done"))
    for _ in range(2):
        assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"done"])
    assert scripted_upstream.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers(scripted_upstream: ScriptedUpstream, upstream: Upstream, status: int) -> None:
    scripted_upstream.reply(status=status, headers=[("Location", "/elsewhere")], body=b"moved")
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert (reply.status, reply.headers["location"]) == (status, "/elsewhere")
        assert await reply.read(10) == b"moved"
    assert [request.path for request in scripted_upstream.requests] == ["/v1/x"]


async def test_header_values_can_be_written_again(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", send(b"HTTP/1.1 200 OK\r\nX-Utf8: \xc3\xa9\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n"))
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert reply.headers["x-utf8"].encode("latin-1") == b"\xc3\xa9"
        assert reply.headers["x-latin"].encode("latin-1") == b"\xe9"


async def test_compression_is_undone_and_no_longer_said(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    flushed = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    pieces = [flushed.compress(event) + flushed.flush(zlib.Z_SYNC_FLUSH) for event in EVENTS] + [flushed.flush()]
    scripted_upstream.on("*", event_stream(pieces, headers=[("Content-Encoding", "GZIP")]))
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert "content-encoding" not in reply.headers
        assert [piece async for piece in reply.chunks()] == EVENTS


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("x-gzip", GZIP),
        ("gzip", gzip.compress(STREAM[:20], mtime=0) + gzip.compress(STREAM[20:], mtime=0)),
        ("deflate", zlib.compress(STREAM)),
        ("identity", STREAM),
        ("", STREAM),
    ],
    ids=["x-gzip", "two members", "zlib", "identity", "empty"],
)
async def test_the_other_encodings(scripted_upstream: ScriptedUpstream, upstream: Upstream, encoding: str, body: bytes) -> None:
    scripted_upstream.reply(body=body, headers=[("Content-Encoding", encoding)])
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert await reply.read(len(STREAM)) == STREAM


async def test_inflated_sizes_about_the_limit_of_a_piece(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    """The last input may be digested while output is still to come."""
    for size in range(64 * 1024 - 2, 64 * 1024 + 300):
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflate.compress(bytes(size)) + deflate.flush()
        scripted_upstream.reply(body=body, headers=[("Content-Encoding", "deflate")])
        _, pieces = await fetch(upstream, post(scripted_upstream.url))
        assert sum(map(len, pieces)) == size


async def test_an_empty_body_is_no_broken_gzip(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"", headers=[("Content-Encoding", "gzip")])
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [])


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("br", b"xx", "upstream_invalid"),
        ("gzip, gzip", b"xx", "upstream_invalid"),
        ("gzip", b"this is not gzip", "upstream_invalid"),
        ("gzip", GZIP + b"trailing garbage", "upstream_invalid"),
        ("gzip", GZIP[:-1], "upstream_died"),
        ("deflate", zlib.compress(STREAM)[:-1], "upstream_died"),
    ],
)
async def test_broken_encodings(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, encoding: str, body: bytes, code: str
) -> None:
    scripted_upstream.reply(body=body, headers=[("Content-Encoding", encoding)])
    assert (await fails(upstream, post(scripted_upstream.url)))[0] == code


async def test_a_bomb_goes_off_in_small_pieces(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    scripted_upstream.reply(body=bomb, headers=[("Content-Encoding", "gzip")])
    tracemalloc.start()
    try:
        async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
            assert max([len(piece) async for piece in reply.chunks()]) <= 64 * 1024
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        with pytest.raises(ProviderError, match="upstream_invalid"):
            await reply.read(1_000_000)


async def test_read_has_a_limit(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", event_stream([STREAM, STREAM]))
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert await reply.read(2 * len(STREAM)) == STREAM + STREAM
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        with pytest.raises(ProviderError, match="upstream_invalid"):
            await reply.read(2 * len(STREAM) - 1)


async def test_an_answer_before_the_request_is_read(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", unread, answer(status=413, body=b"too large"))
    assert await fetch(upstream, post(scripted_upstream.url, b"x" * 100)) == (413, [b"too large"])


async def test_chunks_stops_where_the_body_does(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.on("*", head(200, [("Transfer-Encoding", "chunked")]), chunked([b"a", b"b"]))
    async with upstream.open(post(scripted_upstream.url), PATIENT) as reply:
        assert [piece async for piece in reply.chunks()] == [b"a", b"b"]
        assert [piece async for piece in reply.chunks()] == []
