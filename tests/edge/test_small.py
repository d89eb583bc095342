"""The edge's pure parts: addresses, proxies, heads of replies, bodies."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.edge import Limits, Proxies
from aurixel.edge.body import Body
from aurixel.edge.listen import parse_listen
from aurixel.edge.proxies import plain
from aurixel.edge.wire import bare_reply, new_request_id, reply_head
from aurixel.errors import ClientError, ClientGone, ConfigError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:8700", ("127.0.0.1", 8700)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert parse_listen(text) == found


@pytest.mark.parametrize(
    "text", ["", "8700", ":8700", "host:", "host:x", "host:65536", "::1:8700", "[::1]", "[host]:1", "h:-1"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.listen"):
        parse_listen(text)


TRUSTED = Proxies(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # no proxy of ours: what it says is its own story
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the left one is what the client wrote
        ("10.0.0.1", "1.1.1.1,203.0.113.9 , 10.2.2.2", "203.0.113.9"),
        ("10.0.0.1", "10.3.3.3,10.2.2.2", "10.3.3.3"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.2.2.2", "10.2.2.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("fd00::1", "[2001:db8::1]:443", "2001:db8::1"),
        ("fd00::1", "2001:DB8::1", "2001:db8::1"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9%evil\n", "10.0.0.1"),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: str | None, client: str) -> None:
    assert TRUSTED.client_ip(peer, forwarded) == client
    assert Proxies().client_ip(peer, forwarded) == peer


@given(st.text(max_size=60))
def test_whatever_is_forwarded_an_address_comes_out(forwarded: str) -> None:
    ip_address(TRUSTED.client_ip("10.0.0.1", forwarded))


def test_proxies_are_networks() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        Proxies(["10.0.0.0/33"])
    assert plain("::ffff:127.0.0.1") == "127.0.0.1"
    assert plain("fe80::1%eth0") == "fe80::1%eth0"


@given(st.text(max_size=8), st.text(max_size=20))
def test_a_head_is_one_head_or_an_error(name: str, value: str) -> None:
    try:
        head = reply_head(200, [(name, value)], "x-extra: 1\r\n")
    except ValueError:
        return
    lines = head.decode("latin-1").split("\r\n")
    assert head.count(b"\n") == head.count(b"\r") == len(lines) - 1
    assert lines[0] == "HTTP/1.1 200 OK"
    assert lines[-3:] == ["x-extra: 1", "", ""]
    assert head.count(b"\r\n\r\n") == 1


def test_heads_of_every_status() -> None:
    assert reply_head(529, (), "").startswith(b"HTTP/1.1 529 Overloaded\r\n")
    assert reply_head(599, (), "").startswith(b"HTTP/1.1 599 \r\n")
    assert b"content-length: 0\r\n" in bare_reply(408)
    assert len({new_request_id() for _ in range(1000)}) == 1000


def test_the_tick_follows_the_shortest_deadline() -> None:
    assert Limits().tick == 1.0
    assert Limits(linger_seconds=0.4).tick == pytest.approx(0.1)


async def test_a_body_keeps_its_bounds_and_its_first_error() -> None:
    body = Body(limit=10, unread=4)
    assert body.feed(b"1234") is None
    wait = body.feed(b"5")
    assert wait is not None
    assert not wait.done()
    assert await anext(body) == b"1234"
    assert wait.done()
    assert body.feed(b"678901") is None
    body.fail(ClientGone())
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            await body.all()
        assert caught.value.code == "body_too_large"
    with pytest.raises(ClientError):
        await anext(body)


async def test_reading_all_lifts_the_brake() -> None:
    body = Body(limit=100, unread=4)
    wait = body.feed(b"12345")
    async with asyncio.TaskGroup() as group:
        whole = group.create_task(body.all())
        await asyncio.sleep(0)
        assert wait is not None
        assert wait.done()
        assert body.feed(b"67890") is None
        body.end()
    assert whole.result() == b"1234567890"


async def test_a_failure_lifts_the_brake_too() -> None:
    body = Body(limit=100, unread=4)
    wait = body.feed(b"12345")
    body.fail(ClientGone())
    assert wait is not None
    assert wait.done()
    assert body.feed(b"x" * 1000) is None
