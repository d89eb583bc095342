"""What is sent at once says what aiohttp's session would have said: it sends the same again where a connection was dead."""

from __future__ import annotations

import asyncio
import string

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from aurixel.plugin.contracts import Outgoing
from aurixel.testing.scripted import Received, ScriptedUpstream, close, head, interim, send
from aurixel.upstream import Upstream
from aurixel.upstream.at_once import MOST, fits
from tests.upstream.client import Counted, fails, fetch, post

_PATH = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%", max_size=20)
_NAME = st.sampled_from(
    ["accept", "Accept", "Accept-Encoding", "Content-Type", "Host", "User-Agent", "x-a", "X-A", "Expect", "TE"]
)
_VALUE = st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "S")), min_size=1, max_size=20)
_BODY = st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4)


def said(request: Received) -> tuple[object, ...]:
    """All of it but the order of the headers' names, their case, and that the session's connections are used once."""
    pairs = [(name.lower(), value) for name, value in request.pairs if name.lower() != "connection"]
    headers = sorted(pairs, key=lambda pair: pair[0])  # those of one name stay in their order, which says something
    return request.method, request.target, headers, request.body


async def sent_twice(outgoing: Outgoing, path: str) -> list[Received]:
    """The request as it was sent at once, and as the session sent it after that."""
    async with ScriptedUpstream() as server:
        upstream = Upstream()
        server.reply(body=b"{}")
        await fetch(upstream, post(server.url))
        server.once(close)
        url = f"{server.url}/{path}"
        await fetch(upstream, Outgoing(method="POST", url=url, headers=outgoing.headers, body=outgoing.body))
        await upstream.close()
        return server.requests[1:]


def one_host(headers: list[tuple[str, str]]) -> bool:
    """Two are for the upstream to refuse; the session would choose the last."""
    return [name for name, _ in headers].count("Host") < 2


@given(
    path=_PATH,
    query=st.none() | _PATH,
    headers=st.lists(st.tuples(_NAME, _VALUE), max_size=6).filter(one_host),
    body=_BODY,
)
def test_it_says_what_the_session_would(
    path: str, query: str | None, headers: list[tuple[str, str]], body: list[bytes]
) -> None:
    outgoing = post("", *body, headers=headers)
    assert fits("POST", body)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        at_once, again = runner.run(sent_twice(outgoing, path if query is None else f"{path}?{query}"))
    assert said(at_once) == said(again)
    assert at_once.connection != again.connection


def test_what_does_not_fit() -> None:
    assert fits("POST", (b"a" * MOST,))
    assert not fits("POST", (b"a" * MOST, b"b"))
    assert not fits("POST", ())
    assert not fits("GET", (b"a",))


async def test_it_comes_in_one_piece(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(body=b"ok")
    body = [bytes([65 + n]) * (MOST // 4) for n in range(4)]
    assert await fetch(upstream, post(scripted_upstream.url, *body)) == (200, [b"ok"])
    assert scripted_upstream.requests[0].body == b"".join(body)


async def test_interim_answers_are_not_the_answer(
    scripted_upstream: ScriptedUpstream, upstream: Upstream, counted: Counted
) -> None:
    scripted_upstream.once(interim(100), interim(103, [("link", "</a>")]), head(200, [("content-length", "2")]), send(b"ok"))
    scripted_upstream.once(interim(103), head(204))
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"ok"])
    assert await fetch(upstream, post(scripted_upstream.url)) == (204, [])
    assert counted.told == ["opened", "first_byte", "reused", "first_byte"]


async def test_an_upgrade_that_nobody_asked_for(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.once(head(101, [("connection", "upgrade"), ("upgrade", "h2c")]), send(b"more"))
    assert await fails(upstream, post(scripted_upstream.url)) == ("upstream_invalid", b"")
    scripted_upstream.reply(body=b"ok")
    assert await fetch(upstream, post(scripted_upstream.url)) == (200, [b"ok"])
    assert [request.connection for request in scripted_upstream.requests] == [1, 2]


@pytest.mark.parametrize("size", [1, MOST + 1])  # the larger goes through the session
@pytest.mark.parametrize(
    "url", ["http://user@127.0.0.1:1", "http://:x@127.0.0.1:1", "httpx://127.0.0.1:1", "ws://127.0.0.1:1", "/v1/x"]
)
async def test_where_nothing_goes(upstream: Upstream, url: str, size: int) -> None:
    assert await fails(upstream, Outgoing(method="POST", url=url, headers=(), body=(bytes(size),))) == ("plugin_bug", b"")
