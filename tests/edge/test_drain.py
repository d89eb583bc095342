"""The end of a server: who is served to the end, who is told to come back, and that nothing is left."""

from __future__ import annotations

import asyncio

import pytest

from aurixel.edge import Limits
from aurixel.errors import ClientGone, GatewayError
from aurixel.gateway.exchange import Exchange
from tests.edge.door import CHAT, KEY, MESSAGES, door, post, unreachable
from tests.edge.test_bad_input import family_error
from tests.edge.waiting import until

pytestmark = pytest.mark.deadline(15)


class Stream:
    """A service that streams until it is told to end, and knows how to say so."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.told = asyncio.Event()
        self.endings: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        self.running.set()
        await self.told.wait()
        await exchange.write(b"data: error\n\n")
        exchange.finish()
        self.endings.append("told")


async def test_an_idle_server_ends_at_once() -> None:
    async with door() as opened:
        wires = [await opened.connect() for _ in range(3)]
        wires[0].send(post())
        assert (await wires[0].reply()).status == 200
        await opened.edge.drain(3600, lambda: unreachable("nothing ran"))
        for wire in wires:
            assert await wire.closed() == b""
        with pytest.raises(ConnectionRefusedError):
            await opened.connect()


async def test_a_running_request_is_waited_for_and_a_new_one_is_sent_away() -> None:
    stream = Stream()
    async with door(stream) as opened:
        busy, idle, asking = await opened.connect(), await opened.connect(), await opened.connect()
        idle.send(post(headers=""))
        assert (await idle.reply()).status == 401
        busy.send(post())
        await stream.running.wait()
        assert opened.edge.in_flight == 1
        async with asyncio.TaskGroup() as group:
            drained = group.create_task(opened.edge.drain(3600, lambda: unreachable("it had time")))
            await until(lambda: opened.edge.draining)
            for wire, path, family in ((idle, CHAT, "openai"), (asking, MESSAGES, "anthropic")):
                wire.send(post(path=path))
                reply = await wire.reply()
                assert reply.status == 503
                family_error(reply, family)
                assert reply["connection"] == "close"
                assert "retry-after" in reply
                assert await wire.closed() == b""
            assert not drained.done()
            stream.told.set()
        assert (await busy.reply()).body == b"data: 1\n\ndata: error\n\n"
        assert await busy.closed() == b""


async def test_an_answer_begun_while_draining_closes_its_connection() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.body.all()
        began.set()
        await go_on.wait()
        exchange.start(200, (("content-length", "0"),))
        exchange.finish()

    async with door(slowly) as opened:
        wire = await opened.connect()
        wire.send(post())
        await began.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(opened.edge.drain(3600))
            await until(lambda: opened.edge.draining)
            go_on.set()
        reply = await wire.reply()
        assert reply["connection"] == "close"


async def test_at_the_deadline_the_gateway_is_told_and_streams_end_in_their_own_words() -> None:
    stream = Stream()
    async with door(stream) as opened:
        wires = [await opened.connect() for _ in range(3)]
        for wire in wires:
            wire.send(post())
        await until(lambda: opened.service.served == 3)
        await stream.running.wait()
        await opened.edge.drain(0, stream.told.set, grace=3600)
        for wire in wires:
            assert (await wire.reply()).body == b"data: 1\n\ndata: error\n\n"
    assert stream.endings == ["told"] * 3


async def test_who_does_not_listen_loses_its_client_and_settles() -> None:
    gone = asyncio.Event()

    async def deaf(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.on_gone(gone.set)
        exchange.start(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        await gone.wait()
        settled.append(exchange.gone)

    settled: list[bool] = []
    async with door(deaf) as opened:
        wire = await opened.connect()
        wire.send(post())
        await wire.reader.readuntil(b"data: 1\n\n")
        await opened.edge.drain(0, grace=0.1)
        assert await wire.closed() == b"\r\n"
    assert settled == [True]


async def test_who_never_ends_is_cancelled() -> None:
    ends: list[str] = []

    async def stuck(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with door(stuck) as opened:
        wire = await opened.connect()
        wire.send(post())
        await until(lambda: opened.service.served)
        await opened.edge.drain(0, grace=0.05)
        assert await wire.closed() == b""
    assert ends == ["cancelled"]


async def test_a_body_that_is_still_coming_is_not_waited_for() -> None:
    codes: list[str] = []

    async def read(exchange: Exchange) -> None:
        try:
            await exchange.body.all()
        except GatewayError as error:
            codes.append(error.code)
            raise

    async with door(read, limits=Limits(linger_seconds=0.2)) as opened:
        wire = await opened.connect()
        wire.send(post()[:-1])
        await until(lambda: opened.service.served)
        await opened.edge.drain(0)
        reply = await wire.reply()
        assert reply.status == 503
        assert reply["connection"] == "close"
    assert codes == ["shutting_down"]


async def test_a_client_that_reads_nothing_does_not_hold_the_end_up() -> None:
    ends: list[str] = []

    async def pour(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/plain"),))
        try:
            while True:
                await exchange.write(b"x" * 65_536)
        except ClientGone:
            ends.append("gone")

    async with door(pour) as opened:
        wire = await opened.connect(receive_buffer=4096)
        wire.send(post())
        await until(lambda: opened.service.served)
        await opened.edge.drain(0, grace=0.1)
    assert ends == ["gone"]


async def test_a_slow_admission_is_part_of_what_is_waited_for() -> None:
    slow = asyncio.Event()
    async with door(slow=slow) as opened:
        wire = await opened.connect()
        wire.send(post())
        await opened.service.admitting.wait()
        assert opened.edge.in_flight == 1
        async with asyncio.TaskGroup() as group:
            group.create_task(opened.edge.drain(3600))
            await until(lambda: opened.edge.draining)
            slow.set()
        assert (await wire.reply()).body == b"hello"


async def test_a_port_that_is_taken_is_said_and_nothing_kept() -> None:
    async with door() as one, door() as two:
        port = f"127.0.0.1:{one.edge.ports[0]}"
        with pytest.raises(OSError, match="in use"):
            await two.edge.start(port)
        assert (await one.ask(post(headers=KEY))).status == 200
