"""Our eye for headers against Tornado's: whatever it takes by itself means what Tornado would have read."""

from __future__ import annotations

import asyncio
import logging
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPInputError

from aurixel.edge import connection as module
from aurixel.edge import stream as stream_module
from aurixel.edge.connection import ClientConnection, FramingHeaders, lowered
from aurixel.edge.stream import head_end
from tests.edge.door import KEY, door, post

LINE = "POST /v1 HTTP/1.1\r\n"


def parse(kind: type[HTTP1Connection], data: bytes) -> tuple[str, HTTPHeaders] | None:
    bare = kind.__new__(kind)  # parsing needs nothing of the connection
    try:
        return bare._parse_headers(data)
    except HTTPInputError:
        return None


def agree(block: str) -> bool:
    """Whether ours took the block itself; it must then have read what Tornado reads."""
    data = block.encode("latin-1")
    theirs, ours = parse(HTTP1Connection, data), parse(ClientConnection, data)
    assert (theirs is None) == (ours is None)
    if theirs is None or ours is None:
        return False
    assert ours[0] == theirs[0]
    assert lowered(ours[1]) == lowered(theirs[1])
    if not isinstance(ours[1], FramingHeaders):
        return False
    assert list(ours[1].all().get_all()) == list(theirs[1].get_all())
    for name in ("Connection", "Content-Length", "Expect", "Transfer-Encoding"):
        assert ours[1].get(name) == theirs[1].get(name)
    return True


PIECES = st.sampled_from(
    [
        "Host",
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "X-A",
        ":",
        ": ",
        " ",
        "\t",
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        "5",
    ]
)
BLOCK = st.lists(st.one_of(PIECES, st.text(st.characters(max_codepoint=255), max_size=3)), max_size=14).map("".join)


@given(BLOCK)
@example("Host: a\r\nX-A: \xe9 \t\r\nx-a:b\r\n")
@example("Host: a\r\nX-A:\r\n")
@example("Host: a\n\r\n")
@example("\r\nHost: a\r\n")
@example("Host: a\x0b\r\n")
@example("Host: a\x7f\r\n")
@example("Host: a\x85b\r\n")
@example("Host: a\rb\n\r\n")
@example("Host: a\r\n b\r\n")
@example("Host\r\n")
@example(": a\r\n")
def test_both_read_the_same(block: str) -> None:
    agree(LINE + block + "\r\n")


@given(
    st.lists(
        st.tuples(st.from_regex(r"\A[A-Za-z-]{1,12}\Z"), st.text(st.characters(min_codepoint=32, max_codepoint=126))),
        min_size=1,
    )
)
def test_ordinary_headers_take_the_quick_way(headers: list[tuple[str, str]]) -> None:
    assert agree(LINE + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n")


@given(st.text("a\r\n", max_size=12).map(str.encode))
def test_the_end_of_a_head_is_where_tornado_sees_it(data: bytes) -> None:
    found = re.search(rb"\r?\n\r?\n", data)
    assert head_end(bytearray(data)) == (found.end() if found else None)


async def test_a_small_request_is_read_at_once_and_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of Tornado's private names moves: neither our buffers nor our search would be asked any more."""
    reads: list[int] = []
    searched: list[int] = []
    read, search = stream_module.ClientStream.read_from_fd, stream_module.head_end

    def counted(self: stream_module.ClientStream, buf: bytearray) -> int | None:
        reads.append(len(buf))
        return read(self, buf)

    def seen(data: bytearray) -> int | None:
        searched.append(len(data))
        return search(data)

    async with door() as opened:
        wire = await opened.connect()
        wire.send(post())
        assert (await wire.reply()).status == 200
        monkeypatch.setattr(stream_module.ClientStream, "read_from_fd", counted)
        monkeypatch.setattr(stream_module, "head_end", seen)
        wire.send(post())
        assert (await wire.reply()).status == 200
        assert reads == [16 * 1024]
        assert searched.count(len(post())) == 1


async def test_a_large_body_is_read_in_large_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = stream_module.ClientStream.read_from_fd

    def counted(self: stream_module.ClientStream, buf: bytearray) -> int | None:
        reads.append(len(buf))
        return read(self, buf)

    monkeypatch.setattr(stream_module.ClientStream, "read_from_fd", counted)
    async with door() as opened:
        wire = await opened.connect()
        for body in (b"x" * 1_000_000, b"y"):
            wire.send(post(body))
            assert (await wire.reply()).body == body
    assert max(reads) == 128 * 1024
    assert reads[-1] == 16 * 1024  # the small one after it


async def test_what_is_pushed_never_overtakes_what_waits() -> None:
    """Not even where the client makes room in between, and the loop has not yet seen it."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as client:
        sock, _ = listening.accept()
        sock.setblocking(False)
        stream = stream_module.ClientStream(sock, "", chunk_bytes=1024, buffer_bytes=1024)
        size = 16_000_000
        waits = stream.push(bytes(size))
        assert waits is not None
        came = b""
        while not select.select([], [sock], [], 0)[1]:
            came += client.recv(size)
        stream.push(b"last")
        client.setblocking(False)
        while len(came) < size + 4:
            came += await asyncio.get_running_loop().sock_recv(client, size)
        assert came == bytes(size) + b"last"
        stream.close()


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(self: object, delegate: object) -> None:
        raise KeyError("canary-4711")

    with monkeypatch.context() as patch:
        patch.setattr(module.ClientConnection, "read_response", fail)
        yield


async def test_a_bug_costs_one_connection_and_says_where(
    monkeypatch: pytest.MonkeyPatch, expected_logs: object, caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("aurixel.edge.connection", "a connection failed: KeyError at", level=logging.ERROR, times=1)  # type: ignore[operator]
    async with door() as opened:
        with broken(monkeypatch):
            wire = await opened.connect()
            assert await wire.closed() == b""
        assert (await opened.ask(post(headers=KEY))).status == 200
    assert "canary-4711" not in caplog.text.replace('raise KeyError("canary-4711")', "")


async def test_accepting_goes_on_after_the_system_ran_out(monkeypatch: pytest.MonkeyPatch, expected_logs: object) -> None:
    """The one fault that cannot be caused without starving the machine: no descriptor left."""
    from aurixel.edge import server

    expected_logs("aurixel.edge.server", "no connection can be accepted", times=1)  # type: ignore[operator]
    monkeypatch.setattr(server, "_ACCEPT_PAUSE", 0.05)
    async with door() as opened:
        (sock,) = opened.edge._sockets
        opened.edge._loop.remove_reader(sock.fileno())

        class Starved(socket.socket):
            def accept(self) -> object:  # type: ignore[override]
                raise OSError(24, "Too many open files")

        with Starved(fileno=socket.dup(sock.fileno())) as starved:  # type: ignore[attr-defined]
            opened.edge._accept(starved)
            timer = opened.edge._timers.pop(starved)
            timer.cancel()
        opened.edge._listen(sock)
        assert (await opened.ask(post())).status == 200
    assert asyncio.get_running_loop().is_running()
