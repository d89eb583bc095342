"""The client leaves, at each stage of a request and in each way a client can."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest

from aurixel.errors import ClientGone
from aurixel.gateway.exchange import Exchange
from tests.edge.door import Wire, door, post
from tests.edge.waiting import settled, until

pytestmark = pytest.mark.deadline(15)


def leave_politely(wire: Wire) -> None:
    wire.writer.close()


def leave_by_reset(wire: Wire) -> None:
    wire.reset()


def leave_by_half(wire: Wire) -> None:
    wire.writer.write_eof()


LEAVING = pytest.mark.parametrize("leave", [leave_politely, leave_by_reset, leave_by_half])


@LEAVING
@pytest.mark.parametrize("sent", [0, 3])
async def test_gone_before_the_body_is_complete(leave: object, sent: int) -> None:
    gone, began = asyncio.Event(), asyncio.Event()

    async def read(exchange: Exchange) -> None:
        began.set()
        try:
            await exchange.body.all()
        except ClientGone:
            assert exchange.gone
            gone.set()

    async with door(read) as opened:
        wire = await opened.connect()
        wire.send(post(b"hello")[: -5 + sent])
        await began.wait()
        leave(wire)  # type: ignore[operator]
        await gone.wait()


@LEAVING
async def test_gone_before_the_answer(leave: object) -> None:
    gone, began = asyncio.Event(), asyncio.Event()

    async def think(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.on_gone(gone.set)
        assert not exchange.gone
        began.set()
        await gone.wait()
        assert exchange.gone
        with pytest.raises(ClientGone):
            exchange.start(200, ())
        late = asyncio.Event()
        exchange.on_gone(late.set)
        assert late.is_set()

    async with door(think) as opened:
        wire = await opened.connect()
        wire.send(post())
        await began.wait()
        leave(wire)  # type: ignore[operator]
        await gone.wait()


@LEAVING
async def test_gone_in_the_middle_of_the_answer(leave: object) -> None:
    gone = asyncio.Event()

    async def stream(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.on_gone(gone.set)
        exchange.start(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        await gone.wait()
        with pytest.raises(ClientGone):
            await exchange.write(b"data: 2\n\n")
        exchange.finish()

    async with door(stream) as opened:
        wire = await opened.connect()
        wire.send(post())
        await wire.reader.readuntil(b"data: 1\n\n")
        leave(wire)  # type: ignore[operator]
        await gone.wait()


@pytest.mark.parametrize("leave", [leave_politely, leave_by_reset])
async def test_gone_while_a_write_waits(leave: object) -> None:
    written, gone, told = [0], asyncio.Event(), []

    async def pour(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/plain"),))
        exchange.on_gone(lambda: told.append("also"))
        try:
            while True:
                await exchange.write(b"x" * 65_536)
                written[0] += 1
        except ClientGone:
            gone.set()

    async with door(pour) as opened:
        wire = await opened.connect(receive_buffer=4096)
        wire.send(post())
        await until(lambda: written[0] > 0)
        await settled(lambda: written[0])
        leave(wire)  # type: ignore[operator]
        await gone.wait()
    assert not told, "who writes learns it from the error, and is not interrupted as well"


async def test_gone_while_the_key_is_looked_up_serves_nobody() -> None:
    slow = asyncio.Event()
    async with door(slow=slow) as opened:
        wire = await opened.connect()
        wire.send(post()[: -len(b"hello")])
        await opened.service.admitting.wait()
        wire.reset()
        (stream,) = opened.edge._streams
        await until(stream.closed)
        slow.set()
        await until(lambda: opened.edge.connections == 0)
        assert opened.service.served == 0


async def test_a_slow_admission_is_like_a_quick_one() -> None:
    slow = asyncio.Event()
    async with door(slow=slow) as opened:
        wire, other = await opened.connect(), await opened.connect()
        wire.send(post(b"hello") + post(b"again"))
        other.send(post(headers=""))
        await opened.service.admitting.wait()
        slow.set()
        assert (await wire.reply()).body == b"hello"
        assert (await wire.reply()).body == b"again"
        refused = await other.reply()
        assert refused.status == 401
        other.send(post())
        assert (await other.reply()).status == 200


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("size", [10, 1000, 20_000, 60_000])
async def test_gone_before_what_it_sent_is_read(size: int, whole: bool) -> None:
    """The loop tells of a reset once, together with the bytes that came before it, and never again."""

    async def think(exchange: Exchange) -> None:
        gone = asyncio.Event()
        exchange.on_gone(gone.set)
        with contextlib.suppress(ClientGone):
            if await exchange.body.all():
                await gone.wait()
            exchange.start(200, (("content-length", "0"),))
            await exchange.write(b"")
            exchange.finish()

    async with door(think) as opened:
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", opened.edge.ports[0])) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, post(b""))
            assert (await loop.sock_recv(client, 4096)).startswith(b"HTTP/1.1 200 ")  # the next request is waited for
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.send(post(b"x" * size)[: None if whole else -1])
        await until(lambda: opened.edge.connections == 0)
        await until(lambda: opened.edge.in_flight == 0)
