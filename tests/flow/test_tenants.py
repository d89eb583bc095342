"""Pitfalls 10, 16 and 23, and credit that is nearly gone: tenants get their own bytes and nobody else's, no address that a
client names is fetched, cached tokens are charged once, and an answer is never longer than its account can pay for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from aurixel.testing import answers, scripted
from aurixel.testing.scripted import Call
from tests.flow.gateway import MODELS, PRICES, upstream
from tests.flow.pieces import Pieces
from tests.flow.shared import Family, House, Visit, good, refused, sharing, visiting
from tests.flow.test_endings import CHAT, FAMILIES

pytestmark = pytest.mark.deadline(30)

MIB = 1024 * 1024
OLD = """
[models."gpt-old"]
operations = ["chat"]
context = 128000
max_output = 4096
routes = [{ upstream = "old", model = "up-old" }]
"""
OLD_PRICE = """
[[price]]
model = "gpt-old"
effective = 2025-01-01
input = "0.15"
output = "0.60"
"""


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """With an upstream more, which knows the output limit by its older name."""

    def old(url: str) -> str:
        return upstream("old", "openai", f"{url}/v1") + 'output_limit_field = "max_tokens"\n'

    folder = tmp_path_factory.mktemp("tenants")
    async with sharing(folder, more=old, models=MODELS + OLD, prices=PRICES + OLD_PRICE) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


# --- whose bytes ------------------------------------------------------------------------------------------

TENANTS, STREAMS = 5, 200


class Echo:
    """Answers each request with its own marker and with usage of its own, cut at random bytes, once all have begun."""

    def __init__(self, seed: int) -> None:
        self.pieces = Pieces(seed, STREAMS, 40)
        self.sent: dict[str, bytes] = {}

    async def __call__(self, call: Call) -> None:
        family = Family("openai" if call.request.path == CHAT else "anthropic")
        asked = call.request.json()
        marker = asked["messages"][0]["content"]
        number = int(marker.split("-")[1])
        text = " ".join([marker] * self.pieces.chance.randrange(5, 60))
        if number % 40 == 0:
            text += " " + marker.ljust(MIB, "x")  # a line of a mebibyte
        usage = answers.openai_chat_usage(100, number) if family.openai else answers.anthropic_messages_usage(100, number)
        if asked.get("stream"):
            body, kind = b"".join(family.events(usage, text=text)), "text/event-stream"
        else:
            body, kind = json.dumps(family.reply(usage, text)).encode(), "application/json"
        self.sent[marker] = body
        await self.pieces.send(call, body, kind)


async def test_a_storm_of_tenants_gives_each_its_own_bytes(visit: Visit, http: aiohttp.ClientSession) -> None:
    """Pitfall 16."""
    echo = Echo(16)
    visit.up.on("*", echo)
    callers = [await visit.caller("1000.00") for _ in range(TENANTS)]
    got: dict[str, bytes] = {}

    async def one(number: int) -> None:
        caller, family = callers[number % TENANTS], Family(FAMILIES[number // TENANTS % 2])
        marker = f"tenant{number % TENANTS}-{number}-{random.Random(number).randbytes(8).hex()}"
        body = {**family.body, "stream": number % 7 > 0, "messages": [{"role": "user", "content": marker}]}
        if family.openai and body["stream"]:
            body["stream_options"] = {"include_usage": True}
        headers = {"authorization": f"Bearer {caller.key}"}
        async with http.post(visit.gw.url + family.path, json=body, headers=headers) as reply:
            assert reply.status == 200
            got[marker] = await reply.read()

    async with asyncio.TaskGroup() as group:
        for number in range(1, STREAMS + 1):
            group.create_task(one(number))
    assert got == echo.sent
    assert len(got) == STREAMS
    for number, caller in enumerate(callers):
        records = await caller.records(STREAMS // TENANTS)
        mine = {int(marker.split("-")[1]) for marker in got if marker.startswith(f"tenant{number}-")}
        assert {record.counts["output"] for record in records} == mine
        assert {(record.cell, record.measured, record.counts["input"]) for record in records} == {("ok", True, 100)}


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, MIB])
async def test_a_line_of_any_length_passes(visit: Visit, family: Family, size: int) -> None:
    caller = await visit.caller("100.00")
    events = family.events(family.usage(), text="x" * size)
    for chunks in (None, 8191):
        visit.up.stream(events, chunks=chunks)
        reply = await caller.ask(family, stream=True, **({"stream_options": {"include_usage": True}} if family.openai else {}))
        assert (reply.status, reply.body) == (200, b"".join(events))
    assert {record.cell for record in await caller.records(2)} == {"ok"}


# --- addresses ------------------------------------------------------------------------------------------------


def naming(family: Family, url: str) -> list[dict[str, Any]]:
    """Requests that name an address wherever one can be named."""
    plain = {"role": "user", "content": "look"}
    if family.openai:
        contents: list[Any] = [
            [{"type": "image_url", "image_url": {"url": f"{url}/image.png"}}],
            [{"type": "image_url", "image_url": {"url": f"{url}/low.png", "detail": "low"}}],
            [{"type": "image_url", "image_url": f"{url}/bare.png"}],
            [{"type": "file", "file": {"file_data": f"{url}/file.pdf", "filename": "x"}}],
            [{"type": "text", "text": f"see {url}/text"}],
            [{"type": "video_url", "video_url": {"url": f"{url}/video"}}],
        ]
        others: list[dict[str, Any]] = [
            {"metadata": {"callback": f"{url}/metadata"}, "webhook_url": f"{url}/hook", "base_url": url, "api_base": url},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": f"{url}/schema"}}}]},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$schema": f"{url}/s"}}}},
        ]
    else:
        contents = [
            [{"type": "image", "source": {"type": "url", "url": f"{url}/image.png"}}],
            [{"type": "document", "source": {"type": "url", "url": f"{url}/file.pdf"}}],
            [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {"type": "url", "url": url}}],
                }
            ],
            [{"type": "search_result", "source": f"{url}/search", "title": "x", "content": [{"type": "text", "text": "x"}]}],
        ]
        others = [
            {"mcp_servers": [{"type": "url", "url": f"{url}/mcp", "name": "x"}]},
            {"metadata": {"user_id": f"{url}/user"}, "webhook_url": f"{url}/hook", "base_url": url, "api_base": url},
            {"tools": [{"name": "f", "input_schema": {"$ref": f"{url}/schema"}}]},
        ]
    return [{"messages": [{"role": "user", "content": content}]} for content in contents] + [
        {"messages": [plain], **other} for other in others
    ]


async def test_no_address_that_a_client_names_is_fetched(visit: Visit, family: Family) -> None:
    """Pitfall 23: it goes upstream as it was written, and nowhere from here."""
    caller, canary = await visit.caller("100.00"), visit.second
    good(visit.up, family)
    named = naming(family, canary.url)
    for body in named:
        reply = await caller.ask(family, **body)
        assert reply.status == 200, body
        sent = visit.up.requests[-1].json()
        assert {name: sent[name] for name in body} == body
    host = canary.url.removeprefix("http://")
    data = json.dumps(family.body).encode()
    for line, headers in [
        (f"POST {canary.url}{family.path}", "host: gateway"),
        (f"POST {family.path}", f"host: {host}"),
        (f"POST {family.path}?url={canary.url}&base_url={canary.url}", f"host: gateway\r\nx-forwarded-host: {host}"),
        (f"POST {family.path}", f"host: gateway\r\nreferer: {canary.url}\r\norigin: {canary.url}\r\nforwarded: host={host}"),
        (
            f"POST {family.path}",
            f"host: gateway\r\nx-base-url: {canary.url}\r\nx-upstream: {canary.url}\r\nlocation: {canary.url}",
        ),
        (f"CONNECT {host}", "host: gateway"),
    ]:
        head = f"{line} HTTP/1.1\r\n{headers}\r\nauthorization: Bearer {caller.key}\r\ncontent-length: {len(data)}\r\n\r\n"
        reply = await visit.ask(head.encode() + data)
        assert reply.status in (200, 404, 405)
    visit.up.reply(status=307, headers=[("location", f"{canary.url}/redirected")])
    refused(await caller.ask(family), family, 502, "upstream_invalid")
    for request in visit.up.requests:
        assert request.headers["host"] == visit.up.url.removeprefix("http://")
        assert canary.url not in str(request.pairs) + request.target
    assert canary.connections == 0


# --- what is charged ------------------------------------------------------------------------------------------------

# (usage as the upstream reports it, the classes, nano-dollars): prices are those of tests/flow/gateway.py.
GOLDEN: dict[str, list[tuple[dict[str, Any], dict[str, int], int]]] = {
    "openai": [
        (answers.openai_chat_usage(1000, 10), {"input": 1000, "output": 10}, 156_000),
        (answers.openai_chat_usage(1000, 10, cached=600), {"input": 400, "cache_read": 600, "output": 10}, 111_000),
        (answers.openai_chat_usage(1000, 10, cached=1000), {"cache_read": 1000, "output": 10}, 81_000),
        (
            answers.openai_chat_usage(1000, 10, cached=600, cache_write=300),
            {"input": 100, "cache_read": 600, "cache_write_5m": 300, "output": 10},
            111_000,
        ),
        (answers.openai_chat_usage(1000, 10, reasoning=4), {"input": 1000, "output": 6, "reasoning": 4}, 156_000),
    ],
    "anthropic": [
        (answers.anthropic_messages_usage(1000, 10), {"input": 1000, "output": 10}, 3_150_000),
        (
            answers.anthropic_messages_usage(100, 10, cache_read=900),
            {"input": 100, "cache_read": 900, "output": 10},
            720_000,
        ),
        (
            answers.anthropic_messages_usage(100, 10, cache_read=900, write_5m=50, write_1h=20),
            {"input": 100, "cache_read": 900, "cache_write_5m": 50, "cache_write_1h": 20, "output": 10},
            1_027_500,
        ),
        (answers.anthropic_messages_usage(0, 10, write_1h=1000), {"cache_write_1h": 1000, "output": 10}, 6_150_000),
    ],
}


@pytest.mark.parametrize("stream", [False, True])
async def test_cached_tokens_are_charged_once(visit: Visit, family: Family, stream: bool) -> None:
    """Pitfall 10: beside each other, never inside each other."""
    for usage, counts, cost in GOLDEN["openai" if family.openai else "anthropic"]:
        caller = await visit.caller()
        if stream:
            visit.up.stream(family.events(usage))
        else:
            visit.up.reply(json=family.reply(usage))
        reply = await caller.ask(family, stream=stream)
        assert reply.status == 200
        record = await caller.record()
        assert (record.measured, record.counts, record.cost) == (True, counts, cost)
        whole = usage.get("prompt_tokens") or (
            usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        )
        assert sum(counts.values()) == whole + 10
        assert (await visit.gw.account(caller.email)).spent == cost


# --- credit that is nearly gone ------------------------------------------------------------------------------------


def unlimited(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Say hello"}], **more}


@pytest.mark.parametrize(("model", "field"), [("gpt-test", "max_completion_tokens"), ("gpt-old", "max_tokens")])
@pytest.mark.parametrize("choices", [1, 3])
async def test_an_output_limit_is_lowered_to_what_is_affordable(visit: Visit, model: str, field: str, choices: int) -> None:
    family, credit = Family("openai"), 200_000
    caller = await visit.caller("0.0002")
    body = unlimited(model, n=choices)
    worst: dict[str, int] = {}

    async def use_it_up(call: Call) -> None:
        """An upstream that uses all it may: every byte of input a token, every choice at its limit."""
        worst["limit"] = call.request.json()[field]
        usage = answers.openai_chat_usage(len(json.dumps(body["messages"])), worst["limit"] * choices)
        await scripted.answer(json=family.reply(usage))(call)

    visit.up.on("*", use_it_up)
    reply = await visit.ask(caller.post(CHAT, body))
    assert reply.status == 200
    assert 16 <= worst["limit"] < 4096
    (sent,) = visit.up.requests
    assert {"max_tokens", "max_completion_tokens"} & sent.json().keys() == {field}
    record = await caller.record()
    assert 0 < record.cost <= credit
    account = await visit.gw.account(caller.email)
    assert (account.spent, account.written_off) == (record.cost, 0)
    # No lower than it must be: with a token more for each choice, the most it could have cost is above the credit.
    fixed = (len(json.dumps(body["messages"], separators=(",", ":"))) + 16 + 512) * 150
    assert fixed + (worst["limit"] + 1) * choices * 600 > credit - 30 * 150


async def test_a_rich_account_has_no_limit_put_in(visit: Visit) -> None:
    family, caller = Family("openai"), await visit.caller()
    good(visit.up, family)
    assert (await visit.ask(caller.post(CHAT, unlimited("gpt-test")))).status == 200
    assert {"max_tokens", "max_completion_tokens"}.isdisjoint(visit.up.requests[0].json())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_limit_the_client_set_is_its_own(visit: Visit, family: Family, stream: bool) -> None:
    """It is never lowered: what does not cover it is refused, and what covers a lower one is served."""
    good(visit.up, family, stream=stream)
    caller = await visit.caller("0.0002" if family.openai else "0.006")
    few, many = (100, 4000) if family.openai else (100, 8000)
    name = "max_completion_tokens" if family.openai else "max_tokens"
    reply = await caller.ask(family, stream=stream, **{name: many})
    refused(reply, family, 429 if family.openai else 402, "credit_exhausted")
    assert reply["x-should-retry"] == "false"
    assert visit.up.requests == []
    assert (await caller.ask(family, stream=stream, **{name: few})).status == 200
    assert visit.up.requests[0].json()[name] == few


@pytest.mark.parametrize("usd", ["", "0.000000001", "0.00009"])
async def test_less_than_the_least_is_refused(visit: Visit, family: Family, usd: str) -> None:
    good(visit.up, family)
    caller = await visit.caller(usd)
    body = unlimited("gpt-test") if family.openai else family.body
    for stream in (False, True):
        reply = await visit.ask(caller.post(family.path, {**body, "stream": stream}))
        refused(reply, family, 429 if family.openai else 402, "credit_exhausted")
        assert reply["x-should-retry"] == "false"
    assert visit.up.requests == []
    assert (await visit.gw.account(caller.email)).spent == 0
