"""One gateway for a whole module of tests, each test with accounts of its own: what it asks of them is checked when it ends.

`sharing(...)` gives the module's `House`; `visiting(house)` one test's `Visit`. When the visit ends nothing may be held or
open, every account must add up to its records, and no connection to an upstream may be left.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aurixel.app import App
from aurixel.clock import SystemClock
from aurixel.config import load
from aurixel.storage import UsageRecord
from aurixel.testing.scripted import ScriptedUpstream
from tests.edge.door import Reply, Wire
from tests.flow.gateway import MODELS, PRICES, Running, configure, upstream
from tests.flow.test_endings import CHAT, MESSAGES, Family

_numbers = itertools.count(1)


class MovedClock(SystemClock):
    """The machine's clocks, `ahead` by so many seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall_ms(self) -> int:
        return super().wall_ms() + round(self.ahead * 1000)

    def boot(self) -> float:
        return super().boot() + self.ahead


class House:
    """A gateway and its upstreams, which live as long as a module's tests. `up` answers for `gpt-test` and `claude-test`;
    `second` is there for who configures it."""

    def __init__(self, gw: Running, up: ScriptedUpstream, second: ScriptedUpstream, clock: MovedClock) -> None:
        self.gw, self.up, self.second, self.clock = gw, up, second, clock


class Caller:
    """An account and one key of it, both of one test."""

    def __init__(self, visit: Visit, email: str, key: str) -> None:
        self.visit, self.email, self.key = visit, email, key

    def head(self, path: str, *headers: str) -> bytes:
        """A request's head up to its framing."""
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {self.key}", *headers]
        return ("\r\n".join(lines) + "\r\n").encode("latin-1")

    def post(self, path: str, body: bytes | Mapping[str, Any], *headers: str) -> bytes:
        """A request as it goes over the wire, with its length."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.head(path, *headers, f"Content-Length: {len(data)}") + b"\r\n" + data

    async def ask(self, family: Family, *headers: str, **more: Any) -> Reply:
        """One good request of the family, changed by `more`, on a connection of its own; its whole answer."""
        return await self.visit.ask(self.post(family.path, {**family.body, **more}, *headers))

    async def records(self, count: int = 1) -> list[UsageRecord]:
        """The account's records, once there are `count` and nothing is open."""
        return await self.visit.gw.settled(self.email, count)

    async def record(self) -> UsageRecord:
        """The only one."""
        (record,) = await self.records()
        return record


class Visit:
    """What one test has of the house."""

    def __init__(self, house: House) -> None:
        self.house, self.gw, self.up, self.second, self.clock = house, house.gw, house.up, house.second, house.clock
        self.emails: list[str] = []
        self.wires: list[Wire] = []
        self.losses = False  # whether the operator may lose money

    async def caller(self, usd: str = "10.00", limits: Mapping[str, Any] | None = None, **more: Any) -> Caller:
        """A new account with a key and credit."""
        email = f"user{next(_numbers)}@example.com"
        key = await self.gw.key(email, usd, limits, **more)
        self.emails.append(email)
        return Caller(self, email, key)

    async def connect(self, *, receive_buffer: int | None = None) -> Wire:
        """A connection that shows every byte; closed when the test ends."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.gw.app.ports[0]))
        except OSError:
            sock.close()
            raise
        wire = Wire(*await asyncio.open_connection(sock=sock, limit=2**20))
        self.wires.append(wire)
        return wire

    async def ask(self, data: bytes) -> Reply:
        """These bytes on a connection of their own, and the answer."""
        wire = await self.connect()
        wire.send(data)
        reply = await wire.reply()
        wire.writer.close()
        return reply

    async def until(self, true: Callable[[], object]) -> None:
        """Turns of the loop until `true()`; the test's deadline ends what never comes."""
        while not true():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)

    async def quiet(self) -> None:
        """Until no request is being served."""
        edge = self.gw.app._edge
        await self.until(lambda: not edge.in_flight)

    async def leave(self) -> None:
        """Close what is open, and check that nothing is held and every account adds up."""
        for wire in self.wires:
            wire.writer.close()
        await self.quiet()
        totals = self.gw.app.ledger.totals()
        assert (totals.held, totals.open) == (0, 0)
        await self.gw.app.ledger.flush()
        for email in self.emails:
            account, records = await self.gw.account(email), await self.gw.records(email)
            assert account.spent + account.written_off == sum(record.cost for record in records)
            assert self.losses or account.written_off == 0
            leased = sum(lease.amount for lease in account.leases.values())
            assert account.available + leased == account.credited - account.spent
        for server in (self.up, self.second):
            for link in list(server._links):
                link.transport.abort()
            await server.closed()
            assert not server._faults, server._faults
        edge = self.gw.app._edge
        await self.until(lambda: not edge.connections)


@asynccontextmanager
async def sharing(
    folder: Path,
    *,
    server: str = "",
    ledger: str = "",
    block: str = "",
    second: bool = False,
    more: Callable[[str], str] = lambda _: "",
    models: str = MODELS,
    prices: str = PRICES,
) -> AsyncIterator[House]:
    """A house. `server` is more of the section `[server]`, `ledger` of `[ledger]`, `block` of each upstream's block (TOML);
    `second`: both models have a second route; `more` gives more TOML for the address of `up`."""
    clock = MovedClock()
    async with ScriptedUpstream() as up, ScriptedUpstream() as other:
        blocks = [upstream("up", "openai", f"{up.url}/v1"), upstream("upa", "anthropic", up.url)]
        if second:
            blocks += [upstream("up2", "openai", f"{other.url}/v1"), upstream("upa2", "anthropic", other.url)]
            models = models.replace(
                '{ upstream = "up", model = "up-gpt" }',
                '{ upstream = "up", model = "up-gpt" }, { upstream = "up2", model = "second-gpt" }',
            ).replace(
                '{ upstream = "upa", model = "up-claude" }',
                '{ upstream = "upa", model = "up-claude" }, { upstream = "upa2", model = "second-claude" }',
            )
        upstreams = "\n".join(part + block + "\n" for part in blocks)
        file = configure(folder, upstreams=upstreams, more=more(up.url), models=models, prices=prices)
        text = file.read_text().replace("[server]\n", f"[server]\n{server}\n").replace("[ledger]\n", f"[ledger]\n{ledger}\n")
        file.write_text(text)
        app = App(load(file), clock)
        await app.start()
        try:
            yield House(Running(app), up, other, clock)
        finally:
            await app.stop()


@asynccontextmanager
async def visiting(house: House) -> AsyncIterator[Visit]:
    """One test's visit."""
    for server in (house.up, house.second):
        server.requests.clear()
        server._paths.clear()
        server._queue.clear()
        server._faults.clear()
    visit = Visit(house)
    yield visit
    await visit.leave()


def good(up: ScriptedUpstream, family: Family, *, stream: bool = False) -> None:
    """Let the upstream answer well: 20 tokens in, 7 out."""
    if stream:
        up.stream(family.events(family.usage()))
    else:
        up.reply(json=family.reply(family.usage()))


# Our codes in the words of the OpenAI family, where they differ (docs/dialects.md).
OPENAI_WORDS = {
    "missing_key": "invalid_api_key",
    "invalid_key": "invalid_api_key",
    "key_expired": "invalid_api_key",
    "key_revoked": "invalid_api_key",
    "body_too_large": "request_too_large",
    "rate_limit_requests": "rate_limit_exceeded",
    "rate_limit_tokens": "rate_limit_exceeded",
    "rate_limit_concurrency": "rate_limit_exceeded",
    "credit_exhausted": "credit_balance_exhausted",
    "upstream_rate_limited": "rate_limit_exceeded",
    "upstream_overloaded": "server_is_overloaded",
}


def refused(reply: Reply, family: Family, status: int, code: str) -> None:
    """The reply is an error of the family, with this status and (our) code."""
    assert reply["content-type"] == "application/json"
    assert reply["x-request-id"] == reply["request-id"]
    error = reply.json["error"]
    assert error["message"]
    if family.openai:
        assert set(reply.json) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        assert (reply.status, error["code"]) == (status, OPENAI_WORDS.get(code, code))
        types = {429: ("rate_limit_error", "requests", "tokens", "insufficient_quota"), 503: ("service_unavailable_error",)}
        assert error["type"] in types.get(status, ("server_error" if status >= 500 else "invalid_request_error",))
    else:
        assert set(reply.json) == {"type", "error", "request_id"}
        assert reply.json["type"] == "error"
        assert reply.json["request_id"] == reply["request-id"]
        assert (reply.status, error["details"]["error_code"]) == (status, code)
        types = {
            401: "authentication_error",
            402: "billing_error",
            403: "permission_error",
            404: "not_found_error",
            408: "timeout_error",
            413: "request_too_large",
            429: "rate_limit_error",
            504: "timeout_error",
            529: "overloaded_error",
        }
        assert error["type"] == types.get(status, "api_error" if status >= 500 else "invalid_request_error")


__all__ = [
    "CHAT",
    "MESSAGES",
    "Caller",
    "Family",
    "House",
    "MovedClock",
    "Visit",
    "good",
    "refused",
    "sharing",
    "visiting",
]
