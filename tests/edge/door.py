"""An edge on a real socket, a service scripted by the test, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tornado.web import Application

from aurixel.clock import SystemClock
from aurixel.dialects import encode_error, family_of
from aurixel.edge import Edge, Heads, Limits, Proxies, Routes, pages
from aurixel.errors import ClientError, RequestError
from aurixel.gateway.exchange import Exchange, RequestHead
from aurixel.plugin.contracts import ErrorReply, ModelCard

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
KEY = "authorization: Bearer good\r\n"
RELAY = {("POST", CHAT): "openai_chat", ("POST", MESSAGES): "anthropic_messages"}
FAMILIES = {"openai": "openai_chat", "anthropic": "anthropic_messages"}
CARDS = [
    ModelCard(id="tiny", created_ms=1_700_000_000_000, context=8192, max_output=1024),
    ModelCard(id="vendor/big:free", created_ms=1_700_000_000_000, context=8192, max_output=1024),
]

Behaviour = Callable[[Exchange], Awaitable[None]]


def routes() -> Routes:
    return Routes(RELAY, FAMILIES, family_of)


async def echo(exchange: Exchange) -> None:
    body = await exchange.body.all()
    exchange.start(200, (("content-type", "application/octet-stream"), ("content-length", str(len(body)))))
    await exchange.write(body)
    exchange.finish()


class Scripted:
    """A `Service` that lets the key `good` in and does what the test says. `slow` makes admission wait for it."""

    def __init__(self, behaviour: Behaviour = echo, slow: asyncio.Event | None = None) -> None:
        self.behaviour, self.slow = behaviour, slow
        self.heads: list[RequestHead] = []
        self.admitting = asyncio.Event()
        self.served = 0

    def admit(self, route: str, head: RequestHead) -> str | Awaitable[str]:
        self.heads.append(head)
        if self.slow is not None:
            return self._admit_slowly(route, head)
        return self._judge(route, head)

    async def _admit_slowly(self, route: str, head: RequestHead) -> str:
        assert self.slow is not None
        self.admitting.set()
        await self.slow.wait()
        return self._judge(route, head)

    def _judge(self, route: str, head: RequestHead) -> str:
        if head.headers.get("authorization") != "Bearer good" and head.headers.get("x-api-key") != "good":
            raise ClientError("missing_key", "No API key was given.")
        return route

    def render_error(self, route: str, error: RequestError, request_id: str) -> ErrorReply:
        return encode_error("openai" if route == "openai_chat" else "anthropic", error, request_id)

    async def serve(self, ticket: str, exchange: Exchange) -> None:
        self.served += 1
        try:
            await self.behaviour(exchange)
        except RequestError as error:
            reply = self.render_error(ticket, error, exchange.head.request_id)
            length = ("content-length", str(len(reply.body)))
            names = ("x-request-id", "request-id")
            exchange.start(reply.status, (*(h for h in reply.headers if h[0] not in names), length))
            await exchange.write(reply.body)
            exchange.finish()


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self.headers if key == name]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next reply, by its own framing; to the end of the connection where it has none."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        reply = Reply(int(status), [(n.lower(), v) for n, v in (text.split(": ", 1) for text in lines)], b"")
        if head_only or reply.status in (100, 204, 304):
            return reply
        if "content-length" in reply:
            reply.body = await self.reader.readexactly(int(reply["content-length"]))
        elif "transfer-encoding" in reply:
            chunks = []
            while size := int(await self.reader.readline(), 16):
                chunks.append(await self.reader.readexactly(size))
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
            reply.body = b"".join(chunks)
        else:
            reply.body = await self.reader.read()
        return reply

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    def reset(self) -> None:
        """Leave without a word."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Door:
    """A running edge."""

    def __init__(self, edge: Edge, service: Scripted) -> None:
        self.edge, self.service = edge, service
        self.wires: list[Wire] = []

    async def connect(self, *, receive_buffer: int | None = None) -> Wire:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.edge.ports[0]))
        except OSError:
            sock.close()
            raise
        wire = Wire(*await asyncio.open_connection(sock=sock, limit=2**16))
        self.wires.append(wire)
        return wire

    async def ask(self, data: bytes | str) -> Reply:
        """One request on a connection of its own."""
        wire = await self.connect()
        wire.send(data)
        return await wire.reply()


def post(body: bytes = b"hello", *, path: str = CHAT, headers: str = KEY, version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: gateway\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


def chunked(*chunks: bytes, path: str = CHAT, headers: str = KEY, end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    return head.encode("latin-1") + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


@asynccontextmanager
async def door(
    behaviour: Behaviour = echo,
    *,
    limits: Limits | None = None,
    trusted: Sequence[str] = (),
    slow: asyncio.Event | None = None,
    plain: Application | None = None,
) -> AsyncIterator[Door]:
    """An edge for the block; it must be quiet at the end: what still runs then fails the test."""
    service = Scripted(behaviour, slow)
    heads = Heads(Proxies(trusted), SystemClock())
    site = routes()
    edge = Edge(service, site, plain or pages(service, site, heads, lambda: CARDS), heads, limits=limits or Limits())
    await edge.start("127.0.0.1:0")
    opened = Door(edge, service)
    try:
        yield opened
        for wire in opened.wires:
            wire.writer.close()
        if not edge.draining:
            await edge.drain(10, lambda: unreachable("a request still ran at the end of the test"))
        assert edge.connections == 0
        assert edge.in_flight == 0
    finally:
        for wire in opened.wires:
            wire.writer.transport.abort()
        await edge.drain(0, grace=0.1)


def unreachable(why: str) -> None:
    raise AssertionError(why)
