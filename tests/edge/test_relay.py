"""A relay route from the socket to the service and back: framing, order, back-pressure, and who left when."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aurixel.edge import Limits
from aurixel.errors import ClientError, ClientGone
from aurixel.gateway.exchange import Exchange
from tests.edge.door import CHAT, KEY, chunked, door, echo, post
from tests.edge.waiting import settled, stream_of, until

pytestmark = pytest.mark.deadline(15)

MIB = 1024 * 1024
SMALL = Limits(unread_bytes=256 * 1024, unsent_bytes=64 * 1024)


async def test_the_service_gets_the_request_as_it_came() -> None:
    async with door() as opened:
        headers = "Authorization: Bearer good\r\nX-Two: a\r\nx-two: b\r\nX-Request-ID: theirs\r\n"
        reply = await opened.ask(post(b"{}", path=CHAT + "?beta=true&x=%2F", headers=headers))
        (head,) = opened.service.heads
    assert (head.method, head.path, head.query) == ("POST", CHAT, "beta=true&x=%2F")
    assert head.headers["x-two"] == "a,b"
    assert head.headers["authorization"] == "Bearer good"
    assert head.client_ip == "127.0.0.1"
    assert head.request_id.startswith("req_")
    assert len(head.request_id) == 28
    assert reply.status == 200
    assert reply.body == b"{}"
    assert reply["x-request-id"] == reply["request-id"] == head.request_id
    assert reply["date"].endswith(" GMT")
    assert "connection" not in reply


async def test_request_ids_differ() -> None:
    async with door() as opened:
        for _ in range(20):
            await opened.ask(post())
        assert len({head.request_id for head in opened.service.heads}) == 20


async def test_an_answer_without_a_length_is_chunked() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(200, (("content-type", "text/event-stream; charset=utf-8"),))
        for event in (b"data: 1\n\n", b"", b"data: 2\n\n"):
            await exchange.write(event)
        exchange.finish()

    async with door(stream) as opened:
        wire = await opened.connect()
        for _ in range(2):
            wire.send(post())
            reply = await wire.reply()
            assert reply["transfer-encoding"] == "chunked"
            assert reply.body == b"data: 1\n\ndata: 2\n\n"


async def test_head_and_first_bytes_leave_together() -> None:
    sent = []

    async def answer(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/plain"),))
        assert exchange.started
        sent.append(stream_of(exchange).sent)
        await exchange.write(b"first")
        sent.append(stream_of(exchange).sent)
        exchange.finish()

    async with door(answer) as opened:
        assert (await opened.ask(post())).body == b"first"
    assert sent[0] == 0
    assert sent[1] > len(b"first")


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_none(status: int) -> None:
    async def empty(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(status, ())
        exchange.finish()

    async with door(empty) as opened:
        wire = await opened.connect()
        wire.send(post() + post())
        for _ in range(2):
            reply = await wire.reply()
            assert reply.status == status
            assert "transfer-encoding" not in reply


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with door() as opened:
        wire = await opened.connect()
        wire.send(post(b"one") + chunked(b"tw", b"o") + post(b"") + post(b"four"))
        assert [(await wire.reply()).body for _ in range(4)] == [b"one", b"two", b"", b"four"]


@pytest.mark.parametrize("request_", [post(b"hello"), chunked(b"hel", b"lo")], ids=["length", "chunked"])
async def test_a_request_may_come_cut_at_any_byte(request_: bytes) -> None:
    async with door() as opened:
        wire = await opened.connect()
        for cut in range(1, len(request_)):
            wire.send(request_[:cut])
            await asyncio.sleep(0)
            wire.send(request_[cut:])
            assert (await wire.reply()).body == b"hello"


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 5 * MIB])
async def test_large_bodies_go_both_ways(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with door() as opened:
        assert (await opened.ask(post(body))).body == body
        assert (await opened.ask(chunked(body[: size // 2], body[size // 2 :]))).body == body


async def test_a_body_is_read_in_pieces() -> None:
    pieces: list[bytes] = []

    async def gather(exchange: Exchange) -> None:
        async for piece in exchange.body:
            pieces.append(piece)  # noqa: PERF401 - the loop is what is tested
        exchange.start(200, (("content-length", "0"),))
        exchange.finish()

    body = b"0123456789" * 100_000
    async with door(gather) as opened:
        assert (await opened.ask(post(body))).status == 200
    assert len(pieces) > 1
    assert b"".join(pieces) == body


async def test_a_reader_that_waits_stalls_the_sender() -> None:
    held, go_on, first = [], asyncio.Event(), asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        size = len(await anext(aiter(exchange.body)))
        first.set()
        await go_on.wait()
        held.append(exchange.body._held)  # type: ignore[attr-defined]
        async for piece in exchange.body:
            size += len(piece)
        exchange.start(200, (("content-length", str(len(str(size)))),))
        await exchange.write(str(size).encode())
        exchange.finish()

    async with door(slowly, limits=SMALL) as opened:
        wire = await opened.connect()
        wire.send(post(b"x" * 32 * MIB))
        await first.wait()
        # The service reads nothing, so what the client cannot get rid of stays with it, however long it tries.
        await settled(wire.writer.transport.get_write_buffer_size)
        assert wire.writer.transport.get_write_buffer_size() > 8 * MIB
        go_on.set()
        assert (await wire.reply()).body == str(32 * MIB).encode()
    assert held[0] <= SMALL.unread_bytes + SMALL.chunk_bytes


async def test_a_client_that_takes_nothing_stalls_the_writer_and_then_counts_as_gone() -> None:
    ends: list[tuple[type[BaseException], int]] = []

    async def pour(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/plain"),))
        written = 0
        try:
            while True:
                await exchange.write(b"x" * 65_536)
                written += 65_536
        except ClientGone as gone:
            ends.append((type(gone), written))
            assert exchange.gone

    limits = Limits(stall_seconds=0.3)
    async with door(pour, limits=limits) as opened:
        wire = await opened.connect(receive_buffer=4096)
        wire.send(post())
        await until(lambda: bool(ends))
    assert ends[0][0] is ClientGone
    assert ends[0][1] < 16 * MIB


async def test_a_slow_client_that_goes_on_taking_is_served_to_the_end() -> None:
    async def pour(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/plain"),))
        for _ in range(100):
            await exchange.write(b"x" * 65_536)
        exchange.finish()

    async with door(pour) as opened:
        wire = await opened.connect(receive_buffer=4096)
        wire.send(post())
        assert len((await wire.reply()).body) == 100 * 65_536


async def test_an_unread_answer_of_a_finished_exchange_counts_too() -> None:
    async def one_block(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(200, (("content-length", str(16 * MIB)),))
        with pytest.raises(ClientGone):
            await exchange.write(b"x" * 16 * MIB)

    async with door(one_block, limits=Limits(stall_seconds=0.3)) as opened:
        wire = await opened.connect(receive_buffer=4096)
        wire.send(post())
        await until(lambda: opened.service.served == 1 and opened.edge.connections == 0)


# --- endings ----------------------------------------------------------------------------------------------------------


async def test_abort_is_no_clean_end() -> None:
    async def break_off(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        exchange.abort()

    async with door(break_off) as opened:
        wire = await opened.connect()
        wire.send(post())
        assert (await wire.closed()).endswith(b"9\r\ndata: 1\n\n\r\n")


async def test_a_length_that_is_not_kept_breaks_the_connection() -> None:
    faults: list[str] = []

    async def lie(exchange: Exchange) -> None:
        body = await exchange.body.all()
        exchange.start(200, (("content-length", "5"),))
        try:
            await exchange.write(body)
            exchange.finish()
        except ValueError as error:
            faults.append(str(error))

    async with door(lie) as opened:
        for body in (b"1234", b"123456"):
            wire = await opened.connect()
            wire.send(post(body))
            assert len((await wire.closed()).partition(b"\r\n\r\n")[2]) < 5
    assert [fault.split()[3] for fault in faults] == ["shorter", "longer"]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "\u20ac"])
async def test_a_header_that_would_break_the_framing_is_a_bug(value: str, expected_logs: object) -> None:
    async def inject(exchange: Exchange) -> None:
        exchange.start(200, (("x-plugin", value),))

    expected_logs("aurixel.edge.request", r"Error escaped the gateway at", level=logging.ERROR, times=1)  # type: ignore[operator]
    async with door(inject) as opened:
        reply = await opened.ask(post())
        assert reply.status == 500
        assert reply.json["error"]["code"] == "internal_error"
        assert "x-evil" not in reply


async def test_what_is_the_edges_own_cannot_be_set() -> None:
    async def meddle(exchange: Exchange) -> None:
        await exchange.body.all()
        ours = ("connection", "date", "request-id", "transfer-encoding", "x-request-id")
        exchange.start(200, (*((name, "theirs") for name in ours), ("content-length", "0")))
        exchange.finish()

    async with door(meddle) as opened:
        reply = await opened.ask(post())
    assert "theirs" not in dict(reply.headers).values()
    assert len(reply.headers) == 4


@pytest.mark.parametrize("started", [False, True])
async def test_a_service_that_fails_is_a_bug_told_by_its_place(
    started: bool, expected_logs: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.body.all()
        if started:
            exchange.start(200, (("content-type", "text/event-stream"),))
            await exchange.write(b"data: 1\n\n")
        raise KeyError("canary-4711")

    expected_logs("aurixel.edge.request", r"KeyError escaped the gateway at", level=logging.ERROR, times=1)  # type: ignore[operator]
    async with door(fail) as opened:
        wire = await opened.connect()
        wire.send(post())
        if started:
            assert (await wire.closed()).endswith(b"data: 1\n\n\r\n")
        else:
            reply = await wire.reply()
            assert reply.status == 500
            assert "canary-4711" not in str(reply.body)
    assert "canary-4711" not in caplog.text.replace('raise KeyError("canary-4711")', "")


async def test_an_error_that_cannot_be_rendered_is_still_an_answer(
    monkeypatch: pytest.MonkeyPatch, expected_logs: object
) -> None:
    def fail(*args: object) -> None:
        raise KeyError("canary-4711")

    expected_logs("aurixel.edge.request", r"KeyError escaped the gateway at", level=logging.ERROR, times=1)  # type: ignore[operator]
    async with door() as opened:
        monkeypatch.setattr(opened.service, "render_error", fail)
        wire = await opened.connect()
        wire.send(post(headers=""))
        reply = await wire.reply()
        assert (reply.status, reply.body) == (500, b"")
        wire.send(post())
        assert (await wire.reply()).status == 200


async def test_an_admission_that_fails_is_a_bug(expected_logs: object) -> None:
    expected_logs("aurixel.edge.request", r"RuntimeError escaped the gateway at", level=logging.ERROR, times=2)  # type: ignore[operator]
    slow = asyncio.Event()
    slow.set()
    for way in (None, slow):
        async with door(slow=way) as opened:

            def fail(route: str, head: object) -> str:
                raise RuntimeError

            opened.service._judge = fail  # type: ignore[method-assign]
            assert (await opened.ask(post())).status == 500
            assert opened.service.served == 0


async def test_a_service_that_gives_no_answer_is_a_bug(expected_logs: object) -> None:
    async def forget(exchange: Exchange) -> None:
        await exchange.body.all()

    expected_logs("aurixel.edge.request", r"RuntimeError escaped the gateway at", level=logging.ERROR, times=1)  # type: ignore[operator]
    async with door(forget) as opened:
        assert (await opened.ask(post())).status == 500


async def test_an_answer_before_the_body_is_complete_ends_the_connection_where_the_rest_is_not_small() -> None:
    async def early(exchange: Exchange) -> None:
        exchange.start(200, (("content-length", "2"),))
        await exchange.write(b"ok")
        exchange.finish()

    async with door(early, limits=Limits(linger_seconds=0.3)) as opened:
        wire = await opened.connect()
        wire.send(post(b"x" * 1000)[:-1])
        reply = await wire.reply()
        assert "connection" not in reply
        wire.send(b"x" + post(b"y" * 1_000_000)[:-1])
        reply = await wire.reply()
        assert reply["connection"] == "close"
        assert await wire.closed() == b""


async def test_connection_close_is_kept() -> None:
    async with door() as opened:
        wire = await opened.connect()
        wire.send(post(headers=KEY + "Connection: close\r\n"))
        reply = await wire.reply()
        assert reply["connection"] == "close"
        assert await wire.closed() == b""


async def test_http_1_0_gets_an_answer_it_can_read() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.body.all()
        exchange.start(200, (("content-type", "text/plain"),))
        await exchange.write(b"one")
        await exchange.write(b"two")
        exchange.finish()

    async with door(stream) as opened:
        reply = await opened.ask(post(headers=KEY + "Connection: keep-alive\r\n", version="1.0"))
        assert reply["connection"] == "close"
        assert "transfer-encoding" not in reply
        assert reply.body == b"onetwo"


async def test_continue_is_said_to_who_asks_and_may() -> None:
    async with door() as opened:
        wire = await opened.connect()
        for spelling in ("100-continue", "100-Continue"):
            wire.send(post(b"", headers=KEY + f"Expect: {spelling}\r\n").replace(b"Content-Length: 0", b"Content-Length: 5"))
            assert (await wire.reply()).status == 100
            wire.send(b"hello")
            assert (await wire.reply()).body == b"hello"


@pytest.mark.parametrize("slow", [False, True])
async def test_a_refusal_comes_before_continue(slow: bool) -> None:
    event = asyncio.Event()
    event.set()
    async with door(slow=event if slow else None, limits=Limits(linger_seconds=0.3)) as opened:
        wire = await opened.connect()
        wire.send(post(b"", headers="Expect: 100-continue\r\n").replace(b"Content-Length: 0", b"Content-Length: 5"))
        reply = await wire.reply()
        assert reply.status == 401
        assert reply["connection"] == "close"
        assert await wire.closed() == b""


@pytest.mark.parametrize("target", ["http://gateway" + CHAT, "HTTPS://gateway:443" + CHAT])
async def test_absolute_form_is_understood(target: str) -> None:
    async with door() as opened:
        assert (await opened.ask(post(path=target))).body == b"hello"
        assert opened.service.heads[0].path == CHAT


async def test_the_service_may_refuse_and_the_connection_lives_on() -> None:
    async def refuse(exchange: Exchange) -> None:
        if await exchange.body.all() == b"bad":
            raise ClientError("invalid_json", "The body is not JSON.")
        await echo_rest(exchange)

    async def echo_rest(exchange: Exchange) -> None:
        exchange.start(200, (("content-length", "2"),))
        await exchange.write(b"ok")
        exchange.finish()

    async with door(refuse) as opened:
        wire = await opened.connect()
        for body, status in ((b"bad", 400), (b"good", 200), (b"bad", 400)):
            wire.send(post(body))
            assert (await wire.reply()).status == status


async def test_many_at_once_get_their_own_answers() -> None:
    async with door(echo) as opened:

        async def client(number: int) -> None:
            wire = await opened.connect()
            for turn in range(5):
                body = b"%d/%d " % (number, turn) * 500
                wire.send(post(body))
                assert (await wire.reply()).body == body

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(client(number))
