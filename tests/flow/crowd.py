"""A crowd of clients of one gateway, of every kind at once, that remembers what it was given; and the check that follows.

Both families, streamed and whole; rich accounts and poor ones, which run out of credit and are given a little more; clients
that leave in the middle; upstreams that refuse, die, send error events or stall. It is a load for whatever happens to the
gateway meanwhile: what a client saw complete must have exactly one charge, the right one.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
import msgspec

from aurixel.ledger.verify import verify
from aurixel.storage import UsageRecord
from aurixel.testing import scripted
from aurixel.testing.scripted import Call, ScriptedUpstream
from tests.flow.gateway import Running
from tests.flow.test_endings import Family

CLIENTS: Final = 10
RICH, POOR = ("rich1@example.com", "rich2@example.com"), ("poor1@example.com", "poor2@example.com")
# What a poor account is given at a time: some hundred requests.
ALMS: Final = "0.002"
EXPECTED: Final = {200, 402, 429, 500, 502, 503, 504, 529}
# How a request may end here.
CELLS: Final = {"ok", "crash", "died", "error_event", "client_gone", "refused"}
# How long an upstream may say nothing, in seconds.
STALL: Final = 0.3
_TOKENS: Final = (20, 7)


class Figures(msgspec.Struct, frozen=True):
    """What came of it. `lost`: replies that a client saw complete and that have no charge, or another; `doubled`: nano-dollars
    that accounts paid beyond their records."""

    requests: int
    statuses: dict[int, int]
    completed: int
    records: int
    cells: dict[str, int]
    lost: int
    unrecorded: int
    doubled: int
    written_off: int
    held: int
    verified: bool

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        cells = ", ".join(f"{cell}: {count}" for cell, count in sorted(self.cells.items()))
        return (
            f"{self.requests} requests ({statuses}), {self.completed} seen complete, {self.records} records ({cells}); "
            f"lost {self.lost}, unrecorded {self.unrecorded}, doubled {self.doubled}, written off {self.written_off}, "
            f"held {self.held}, ledger verify {'clean' if self.verified else 'NOT CLEAN'}"
        )


class Crowd:
    """The clients. They ask at `url` while `open` is set; `completed` is request id -> (e-mail, cost) of what they got whole,
    `seen` has every request of which an answer began, `arrived` is set by each piece of an answer."""

    def __init__(self, http: aiohttp.ClientSession, up: ScriptedUpstream, seed: int = 3) -> None:
        self._http, self._chance = http, random.Random(seed)
        self._keys: dict[str, str] = {}
        self.url = ""
        self.open = asyncio.Event()
        self.arrived = asyncio.Event()
        self.completed: dict[str, tuple[str, int]] = {}
        self.seen: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()  # (e-mail, code)
        self.requests = 0
        up.on("*", self._answer)

    async def settle_in(self, gw: Running) -> None:
        """Make the accounts and their keys."""
        for email in RICH:
            self._keys[email] = await gw.key(email, "100.00")
        for email in POOR:
            self._keys[email] = await gw.key(email, ALMS)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """They ask, again and again, until this is left; then those that wait for an answer leave."""
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(self._client(number)) for number in range(CLIENTS)]
            try:
                yield
            finally:
                for client in clients:
                    client.cancel()

    async def pieces(self, count: int) -> None:
        """Wait until so many pieces of answers have come."""
        for _ in range(count):
            self.arrived.clear()
            await self.arrived.wait()

    async def complete(self, more: int) -> None:
        """Wait until so many more answers were complete."""
        goal = len(self.completed) + more
        while len(self.completed) < goal:
            await self.pieces(1)

    async def check(self, gw: Running) -> Figures:
        """Compare what the clients got with what was charged; nothing may run any more."""
        records: dict[str, UsageRecord] = {}
        doubled = written_off = held = 0
        for email in self._keys:
            of_account = await gw.records(email)
            assert len({record.request_id for record in of_account}) == len(of_account)
            records |= {record.request_id: record for record in of_account}
            account = await gw.account(email)
            doubled += account.spent + account.written_off - sum(record.cost for record in of_account)
            written_off += account.written_off
            held += sum(lease.amount for lease in account.leases.values())
        lost = [
            request_id
            for request_id, (_, cost) in self.completed.items()
            if request_id not in records or (records[request_id].cell, records[request_id].cost) != ("ok", cost)
        ]
        return Figures(
            requests=self.requests,
            statuses=dict(self.statuses),
            completed=len(self.completed),
            records=len(records),
            cells=dict(Counter(record.cell for record in records.values())),
            lost=len(lost),
            unrecorded=len(self.seen.keys() - records.keys()),
            doubled=doubled,
            written_off=written_off,
            held=held + gw.app.ledger.totals().held,
            verified=(await verify(gw.store)).ok,
        )

    # --- a client ---------------------------------------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        chance = random.Random(self._chance.random())
        while True:
            await self.open.wait()
            email = chance.choice(RICH if number % 3 else POOR)
            family, stream = Family(chance.choice(("openai", "anthropic"))), chance.random() < 0.7
            leaves = chance.randrange(1, 6) if chance.random() < 0.08 else 0
            with suppress(aiohttp.ClientError, ConnectionError):
                await self._ask(email, family, stream, leaves)
            await asyncio.sleep(0)

    async def _ask(self, email: str, family: Family, stream: bool, leaves: int) -> None:
        """One request; `leaves`: the client goes after so many pieces."""
        body = {"max_tokens": 50} | family.body | ({"stream": True} if stream else {})
        if stream and family.openai:
            body["stream_options"] = {"include_usage": True}
        self.requests += 1
        headers = {"authorization": f"Bearer {self._keys[email]}"}
        async with self._http.post(self.url + family.path, json=body, headers=headers) as reply:
            self.statuses[reply.status] += 1
            assert reply.status in EXPECTED, await reply.read()
            if reply.status != 200:
                self._refused(email, reply, await reply.read(), family)
                return
            request_id = reply.headers["x-request-id"]
            text, pieces = b"", 0
            async for chunk in reply.content.iter_any():
                self.seen[request_id] = email
                text += chunk
                pieces += 1
                self.arrived.set()
                if pieces == leaves:
                    reply.close()
                    return
        end = b"data: [DONE]\n\n" if family.openai else b'data: {"type":"message_stop"}\n\n'
        if not stream or text.endswith(end):
            self.completed[request_id] = (email, family.cost(*_TOKENS))

    def _refused(self, email: str, reply: aiohttp.ClientResponse, text: bytes, family: Family) -> None:
        error: dict[str, Any] = msgspec.json.decode(text)["error"]
        code = error.get("code") if family.openai else error.get("details", {}).get("error_code")
        assert code != "internal_error"
        if code in ("store_unavailable", "shutting_down", "journal_unavailable"):
            assert reply.status == 503
            assert re.fullmatch(r"\d+", reply.headers["retry-after"])
        self.refused[email, code or ""] += 1
        self.arrived.set()

    # --- an upstream ------------------------------------------------------------------------------------------------

    async def _answer(self, call: Call) -> None:
        family = Family("anthropic" if call.request.path.endswith("/messages") else "openai")
        luck = self._chance.random()
        if luck < 0.02:
            await scripted.answer(json={"error": {"message": "no"}}, status=500)(call)
        elif luck < 0.03:
            await self._stall(call)
        elif not call.request.json().get("stream"):
            await scripted.answer(json=family.reply(family.usage(), "a whole answer"))(call)
        elif luck < 0.06:
            events = family.events(family.usage(), done=False)
            await scripted.event_stream(events[: self._chance.randrange(1, len(events))], end=False)(call)
            call.reset()
        elif luck < 0.08:
            events = family.events(family.usage(), done=False)
            await scripted.event_stream([*events[: self._chance.randrange(2, len(events))], family.error_event()])(call)
        else:
            await scripted.event_stream(family.events(family.usage(), text="some words that take their time to come"))(call)

    async def _stall(self, call: Call) -> None:
        """Say nothing for a while, unless the client leaves first; then close."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STALL):
                await call.gone()
        call.close()
