"""What no honest client sends, and what a broken one does: an error in the caller's family, or a closed connection."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aurixel.edge import Limits
from aurixel.errors import ClientError, ClientGone
from aurixel.gateway.exchange import Exchange
from tests.edge.door import CHAT, KEY, MESSAGES, Reply, Wire, chunked, door, post
from tests.edge.waiting import until

pytestmark = pytest.mark.deadline(15)

HEAD = f"POST {CHAT} HTTP/1.1\r\n"
HOST = "Host: gateway\r\n"
MIB = 1024 * 1024


def family_error(reply: Reply, family: str) -> str:
    """The type of the error, once the reply is proved to be one of `family`."""
    assert reply["content-type"] == "application/json"
    assert reply["x-request-id"] == reply["request-id"]
    if family == "openai":
        assert set(reply.json) == {"error"}
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    else:
        assert reply.json["type"] == "error"
        assert reply.json["request_id"] == reply["request-id"]
    kind = reply.json["error"]["type"]
    assert isinstance(kind, str)
    return kind


# Requests that are no HTTP before their headers can be read: nobody can know the family.
NO_HTTP = {
    "garbage": "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "no version": f"POST {CHAT}\r\n{HOST}\r\n",
    "http 2": f"POST {CHAT} HTTP/2.0\r\n{HOST}\r\n",
    "preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces": f"POST  {CHAT} HTTP/1.1\r\n{HOST}\r\n",
    "space in path": f"POST /v1 /chat HTTP/1.1\r\n{HOST}\r\n",
    "space before colon": HEAD + "Host : gateway\r\n\r\n",
    "no colon": HEAD + HOST + "nonsense\r\n\r\n",
    "folded": HEAD + HOST + "X-A: 1\r\n 2\r\n\r\n",
    "nul in value": HEAD + HOST + "X-A: 1\x002\r\n\r\n",
    "cr in value": HEAD + HOST + "X-A: 1\r2\r\n\r\n",
    "no name": HEAD + HOST + ": 1\r\n\r\n",
}


@pytest.mark.parametrize("request_", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_gets_a_bare_400(request_: str) -> None:
    async with door() as opened:
        wire = await opened.connect()
        wire.send(request_)
        reply = await wire.reply()
        assert reply.status == 400
        assert reply.body == b""
        assert reply["x-request-id"].startswith("req_")
        assert await wire.closed() == b""
        assert opened.service.heads == []


# Requests whose end two readers could see in different places.
FRAMING = {
    "no host": (HEAD, KEY + "Content-Length: 0\r\n\r\n"),
    "two hosts": (HEAD, HOST + HOST + KEY + "Content-Length: 0\r\n\r\n"),
    "both lengths": (HEAD, HOST + KEY + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "equal lengths": (HEAD, HOST + KEY + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "unequal lengths": (HEAD, HOST + KEY + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "length with sign": (HEAD, HOST + KEY + "Content-Length: +5\r\n\r\nhello"),
    "length with underscore": (HEAD, HOST + KEY + "Content-Length: 1_0\r\n\r\nhello"),
    "negative length": (HEAD, HOST + KEY + "Content-Length: -5\r\n\r\nhello"),
    "hex length": (HEAD, HOST + KEY + "Content-Length: 0x5\r\n\r\nhello"),
    "empty length": (HEAD, HOST + KEY + "Content-Length: \r\n\r\nhello"),
    "endless length": (HEAD, HOST + KEY + "Content-Length: " + "9" * 5000 + "\r\n\r\n"),
    "gzip coding": (HEAD, HOST + KEY + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (HEAD, HOST + KEY + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "padded chunked": (HEAD, HOST + KEY + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "identity": (HEAD, HOST + KEY + "Transfer-Encoding: identity\r\n\r\nhello"),
    "chunked in 1.0": (f"POST {CHAT} HTTP/1.0\r\n", HOST + KEY + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize(("line", "rest"), FRAMING.values(), ids=FRAMING.keys())
@pytest.mark.parametrize("family", ["openai", "anthropic"])
async def test_framing_tricks_are_refused_before_anything_is_served(line: str, rest: str, family: str) -> None:
    smuggled = post(b"smuggled").decode()
    async with door() as opened:
        wire = await opened.connect()
        wire.send(line.replace(CHAT, CHAT if family == "openai" else MESSAGES) + rest + smuggled)
        reply = await wire.reply()
        assert reply.status == 400
        if "\x0b" not in rest:  # not even a header value
            assert family_error(reply, family) == "invalid_request_error"
            assert reply["connection"] == "close"
        assert await wire.closed() == b""
        assert opened.service.heads == []
        assert opened.service.served == 0


BAD_CHUNKS = {
    "extension": b"5;name=value\r\nhello\r\n0\r\n\r\n",
    "bad size": b"xyz\r\nhello\r\n0\r\n\r\n",
    "size with sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "size too small": b"4\r\nhello\r\n0\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\nX-Evil: 1\r\n\r\n",
    "huge size": b"f" * 60 + b"\r\nhello",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
async def test_bad_chunks_end_the_request(chunks: bytes) -> None:
    ends: list[type[BaseException]] = []

    async def read(exchange: Exchange) -> None:
        try:
            await exchange.body.all()
        except (ClientGone, ClientError) as error:
            ends.append(type(error))
            raise

    async with door(quiet(read)) as opened:
        wire = await opened.connect()
        wire.send(chunked(end=chunks + post(b"smuggled")))
        answer = await wire.closed()
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))
        assert answer.count(b"HTTP/1.1") == 1
        await until(lambda: ends)
        assert opened.service.served == 1


async def test_a_line_of_chunk_size_without_end_closes() -> None:
    async def read(exchange: Exchange) -> None:
        await exchange.body.all()

    async with door(quiet(read)) as opened:
        wire = await opened.connect()
        wire.send(chunked(end=b"0" * 1000))
        await wire.closed()


async def test_bad_framing_never_lands_inside_an_answer() -> None:
    async def early(exchange: Exchange) -> None:
        exchange.start(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        go_on.set()
        with pytest.raises(ClientGone):
            await exchange.body.all()

    go_on = asyncio.Event()
    async with door(early) as opened:
        wire = await opened.connect()
        wire.send(chunked(b"x", end=b""))
        await go_on.wait()
        wire.send(b"nonsense\r\n")
        assert (await wire.closed()).endswith(b"data: 1\n\n\r\n")


def quiet(behaviour: object) -> object:
    """A service that keeps its own counsel when the client has left."""

    async def run(exchange: Exchange) -> None:
        try:
            await behaviour(exchange)  # type: ignore[operator]
        except ClientGone:
            return

    return run


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_headers_without_end_are_cut() -> None:
    async with door(limits=Limits(header_bytes=1024)) as opened:
        wire = await opened.connect()
        wire.send(HEAD + HOST + "X-A: " + "a" * 2000)
        assert (await wire.reply()).status == 431
        assert await wire.closed() == b""
        assert (await opened.ask(post())).status == 200


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "invalid_request_error"), (MESSAGES, "request_too_large")])
async def test_a_length_over_the_limit_is_refused_unread_and_the_client_reads_why(path: str, kind: str) -> None:
    async with door(limits=Limits(body_bytes=MIB)) as opened:
        wire = await opened.connect()
        wire.send(post(b"x" * (MIB + 1), path=path))
        reply = await wire.reply()
        assert reply.status == 413
        assert family_error(reply, "openai" if path == CHAT else "anthropic") == kind
        assert reply["connection"] == "close"
        assert await wire.closed() == b""
        assert opened.service.heads == []


async def test_a_body_of_exactly_the_limit_passes() -> None:
    async with door(limits=Limits(body_bytes=1000)) as opened:
        assert (await opened.ask(post(b"x" * 1000))).status == 200
        assert (await opened.ask(chunked(b"x" * 400, b"x" * 600))).status == 200
        assert (await opened.ask(chunked(b"x" * 400, b"x" * 601))).status == 413


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "invalid_request_error"), (MESSAGES, "request_too_large")])
async def test_a_chunked_body_is_counted(path: str, kind: str) -> None:
    async with door(limits=Limits(body_bytes=MIB)) as opened:
        wire = await opened.connect()
        wire.send(chunked(*[b"x" * 65_536] * 17, path=path, end=b""))
        reply = await wire.reply()
        assert reply.status == 413
        assert family_error(reply, "openai" if path == CHAT else "anthropic") == kind
        assert reply["connection"] == "close"
        wire.send(b"0\r\n\r\n")
        assert await wire.closed() == b""


async def test_a_chunked_body_without_end_is_not_drained_for_ever() -> None:
    async with door(limits=Limits(body_bytes=1000, linger_seconds=0.3)) as opened:
        wire = await opened.connect()
        wire.send(chunked(b"x" * 2000, end=b""))
        assert (await wire.reply()).status == 413
        assert await wire.closed() == b""


async def test_a_body_for_a_page_is_refused() -> None:
    async with door(limits=Limits(page_body_bytes=10, linger_seconds=0.3)) as opened:
        wire = await opened.connect()
        wire.send(post(b"x" * 11, path="/v1/models"))
        assert (await wire.reply()).status == 413
        assert (await opened.ask(post(b"x", path="/v1/models"))).status == 405
        wire = await opened.connect()
        wire.send(chunked(b"x" * 11, path="/v1/models"))
        assert (await wire.closed()).startswith(b"HTTP/1.1 400 ")


async def test_connections_over_the_limit_are_turned_away() -> None:
    async with door(limits=Limits(connections=1)) as opened:
        first = await opened.connect()
        first.send(post())
        assert (await first.reply()).status == 200
        second = await opened.connect()
        assert (await second.reply()).status == 503
        assert await second.closed() == b""
        first.send(post())
        assert (await first.reply()).status == 200


# --- slowness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["P", HEAD, HEAD + HOST + "X-Slow: 1\r\n"])
async def test_slow_headers(sent: str) -> None:
    async with door(limits=Limits(header_seconds=0.2)) as opened:
        wire = await opened.connect()
        wire.send(sent)
        assert (await wire.reply()).status == 408
        assert await wire.closed() == b""


@pytest.mark.parametrize("pipelined", [False, True])
async def test_slow_headers_of_a_second_request(pipelined: bool) -> None:
    async with door(limits=Limits(header_seconds=0.2)) as opened:
        wire = await opened.connect()
        wire.send(post() + b"P" if pipelined else post())
        assert (await wire.reply()).status == 200
        wire.send("O")
        assert (await wire.reply()).status == 408


@pytest.mark.parametrize(("path", "family"), [(CHAT, "openai"), (MESSAGES, "anthropic")])
async def test_a_slow_body_is_answered_in_the_family(path: str, family: str) -> None:
    async with door(limits=Limits(body_seconds=0.2, linger_seconds=0.2)) as opened:
        wire = await opened.connect()
        wire.send(post(path=path)[:-1])
        reply = await wire.reply()
        assert reply.status == 408
        family_error(reply, family)
        assert reply["connection"] == "close"
        assert await wire.closed() == b""


async def test_a_body_that_waits_for_us_is_not_slow() -> None:
    """Three times as long as a body may take, nobody takes any of it."""
    sent, taken = asyncio.Event(), asyncio.Event()

    async def later(exchange: Exchange) -> None:
        await sent.wait()
        await taken.wait()
        size = sum([len(piece) async for piece in exchange.body])
        exchange.start(200, (("content-length", str(len(str(size)))),))
        await exchange.write(str(size).encode())
        exchange.finish()

    async with door(later, limits=Limits(body_seconds=0.3)) as opened:
        wire = await opened.connect()
        wire.send(post(bytes(3_000_000)))
        sent.set()
        asyncio.get_running_loop().call_later(1.0, taken.set)
        reply = await wire.reply()
        assert (reply.status, reply.body) == (200, b"3000000")


async def test_a_slow_body_for_a_page_closes() -> None:
    async with door(limits=Limits(body_seconds=0.2)) as opened:
        wire = await opened.connect()
        wire.send(post(path="/v1/models")[:-1])
        assert await wire.closed() == b""


async def test_an_idle_connection_closes_without_a_word() -> None:
    async with door(limits=Limits(idle_seconds=0.2)) as opened:
        fresh, used = await opened.connect(), await opened.connect()
        used.send(post())
        assert (await used.reply()).status == 200
        assert await fresh.closed() == b""
        assert await used.closed() == b""


async def test_a_long_answer_is_no_idleness() -> None:
    go_on = asyncio.Event()

    async def think(exchange: Exchange) -> None:
        await exchange.body.all()
        await go_on.wait()
        exchange.start(200, (("content-length", "0"),))
        exchange.finish()

    short = Limits(idle_seconds=0.1, header_seconds=0.1, body_seconds=0.1, linger_seconds=0.1, stall_seconds=0.1)
    async with door(think, limits=short) as opened:
        wire, idle = await opened.connect(), await opened.connect()
        wire.send(post())
        await idle.closed()  # one whole deadline has passed
        idle = await opened.connect()
        await idle.closed()  # and another
        go_on.set()
        assert (await wire.reply()).status == 200


# --- refusals ---------------------------------------------------------------------------------------------------------

NO_KEY = {
    "chat": (post(headers=""), "openai"),
    "messages": (post(path=MESSAGES, headers=""), "anthropic"),
    "messages below": (post(path=MESSAGES + "/count_tokens", headers=""), "anthropic"),
    "models": (post(path="/v1/models", headers="").replace(b"POST", b"GET"), "openai"),
    "models of the other": (
        post(path="/v1/models", headers="anthropic-version: 2023-06-01\r\n").replace(b"POST", b"GET"),
        "anthropic",
    ),
}


@pytest.mark.parametrize(("request_", "family"), NO_KEY.values(), ids=NO_KEY.keys())
async def test_a_refused_request_leaves_the_connection_usable(request_: bytes, family: str) -> None:
    async with door() as opened:
        wire = await opened.connect()
        for _ in range(3):
            wire.send(request_)
            reply = await wire.reply()
            assert reply.status in (401, 404)
            family_error(reply, family)
            assert "connection" not in reply
        wire.send(post())
        assert (await wire.reply()).status == 200
        assert opened.service.served == 1


async def test_a_refusal_does_not_wait_for_the_body() -> None:
    async with door() as opened:
        wire = await opened.connect()
        whole = post(b"x" * 1000, headers="")
        wire.send(whole[:-1])
        assert (await wire.reply()).status == 401
        wire.send(whole[-1:] + post())
        assert (await wire.reply()).status == 200


async def test_a_refused_body_that_is_large_costs_the_connection() -> None:
    async with door() as opened:
        wire = await opened.connect()
        wire.send(post(b"x" * MIB, headers=""))
        reply = await wire.reply()
        assert reply.status == 401
        assert reply["connection"] == "close"
        assert await wire.closed() == b""


@pytest.mark.parametrize(("path", "family"), [(CHAT, "openai"), (MESSAGES, "anthropic")])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_a_wrong_method_is_told_the_right_one(path: str, family: str, method: str) -> None:
    async with door() as opened:
        reply = await opened.ask(f"{method} {path} HTTP/1.1\r\n{HOST}{KEY}\r\n")
        assert reply.status == 405
        assert reply["allow"] == "POST"
        family_error(reply, family)
        assert opened.service.heads == []


async def test_head_of_a_relay_route_is_a_405_without_a_body() -> None:
    async with door() as opened:
        wire = await opened.connect()
        wire.send(f"HEAD {CHAT} HTTP/1.1\r\n{HOST}{KEY}\r\n")
        reply = await wire.reply(head_only=True)
        assert reply.status == 405
        assert int(reply["content-length"]) > 0
        wire.send(post())
        assert (await wire.reply()).status == 200


@pytest.mark.parametrize(
    "target", ["*", "gateway:443", "/" + CHAT, CHAT + "/", "/v1/chat%2Fcompletions", "/v1//chat/completions"]
)
async def test_another_spelling_is_another_path(target: str) -> None:
    async with door() as opened:
        reply = await opened.ask(post(path=target))
        assert reply.status == 404
        family_error(reply, "openai")
        assert opened.service.served == 0


async def test_connect_is_no_proxy() -> None:
    async with door() as opened:
        reply = await opened.ask(f"CONNECT upstream.example:443 HTTP/1.1\r\n{HOST}{KEY}\r\n")
        assert reply.status in (404, 405)
        family_error(reply, "openai")


async def test_nothing_a_client_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-4711"
    async with door(limits=Limits(header_bytes=2048)) as opened:
        for text in (
            f"{canary} / HTTP/1.1\r\n\r\n",
            f"{HEAD}{HOST}{canary}\r\n\r\n",
            f"{HEAD}{HOST}X-A: {canary}\x00\r\n\r\n",
            f"{HEAD}{HOST}Content-Length: {canary}\r\n\r\n",
            f"{HEAD}{HOST}Transfer-Encoding: {canary}\r\n\r\n",
            f"{HEAD}{HOST}X-A: {canary}{'a' * 3000}",
            f"GET /{canary} HTTP/1.1\r\n{HOST}\r\n",
            f"{canary} /v1/models HTTP/1.1\r\n{HOST}\r\n",
            f"GET /v1/models/{canary} HTTP/1.1\r\n{HOST}Authorization: Bearer {canary}\r\n\r\n",
        ):
            wire: Wire = await opened.connect()
            wire.send(text)
            assert (await wire.reply()).status >= 400
    assert canary not in caplog.text
