"""Upstreams that speak nonsense, break off or stall, through the whole gateway: a `provider` error in the caller's family, the
hold settled by the right cell of the matrix, and counted. Where there is another route: `test_failover`."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from aurixel.testing import scripted
from aurixel.testing.scripted import Step
from tests.flow.shared import Caller, Family, House, Visit, good, refused, sharing, visiting
from tests.flow.test_endings import FAMILIES
from tests.harness.guard import ExpectedLogs

pytestmark = pytest.mark.deadline(30)

MIB = 1024 * 1024
JSON = ("Content-Type", "application/json")
SSE = ("Content-Type", "text/event-stream")
CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with sharing(tmp_path_factory.mktemp("one"), server=f"max_body = {MIB}") as shared:
        yield shared


@pytest.fixture(scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    times = "first_byte_timeout = 0.5\nidle_timeout = 0.5\ntotal_timeout = 1.5\n"
    async with sharing(tmp_path_factory.mktemp("hasty"), block=times) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


@pytest.fixture
async def caller(visit: Visit) -> Caller:
    return await visit.caller()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


async def samples(visit: Visit, http: aiohttp.ClientSession) -> dict[str, float]:
    """`/metrics` now."""
    async with http.get(f"{visit.gw.ops_url}/metrics") as scrape:
        text = await scrape.text()
    return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}


def provider_errors(found: dict[str, float]) -> float:
    return sum(
        value for name, value in found.items() if name.startswith("aurixel_refusals_total") and 'kind="provider"' in name
    )


def whole(body: bytes, *headers: tuple[str, str], status: int = 200) -> list[Step]:
    """An answer with exactly these headers and its length."""
    return [scripted.head(status, [*headers, ("Content-Length", str(len(body)))]), scripted.send(body)]


async def endless(call: scripted.Call) -> None:
    """Bytes without end."""
    while True:
        await scripted.chunked([b" " * 65_536], end=False)(call)


def deep(family: Family) -> bytes:
    """A reply with its text too deep to read."""
    reply = json.dumps(family.reply(family.usage(), text="TEXT")).encode()
    return reply.replace(b'"TEXT"', b"[" * 50_000 + b"]" * 50_000)


# --- whole replies ------------------------------------------------------------------------------------------------

GARBAGE: dict[str, tuple[list[Step], str]] = {
    "no json": (whole(b"{not json", JSON), "upstream_invalid"),
    "nothing": (whole(b"", JSON), "upstream_invalid"),
    "half of it": (whole(b'{"id": "x", "choices": [', JSON), "upstream_invalid"),
    "two values": (whole(b"{}{}", JSON), "upstream_invalid"),
    "nan": (whole(b'{"type": "message", "choices": NaN, "content": NaN}', JSON), "upstream_invalid"),
    "list": (whole(b"[]", JSON), "upstream_invalid"),
    "null": (whole(b"null", JSON), "upstream_invalid"),
    "empty object": (whole(b"{}", JSON), "upstream_invalid"),
    "wrong types": (whole(b'{"type": "message", "choices": 7, "content": 7}', JSON), "upstream_invalid"),
    "an error after 200": (whole(b'{"type": "error", "error": {"message": "no"}}', JSON), "upstream_invalid"),
    "deep": (whole(b"[" * 100_000, JSON), "upstream_invalid"),
    "invalid utf-8": (whole(b'{"\xff": 1}', JSON), "upstream_invalid"),
    "html": (whole(b"<html>", ("Content-Type", "text/html")), "upstream_invalid"),
    "no type": (whole(b"{}"), "upstream_invalid"),
    "a stream nobody asked for": (whole(b"data: {}\n\n", SSE), "upstream_invalid"),
    "204": ([scripted.head(204)], "upstream_invalid"),
    "endless": ([scripted.head(200, [JSON, CHUNKED]), endless], "upstream_invalid"),
    "endless gzip": (whole(gzip.compress(b" " * 8 * MIB), JSON, ("Content-Encoding", "gzip")), "upstream_invalid"),
    "no gzip": (whole(b"plain", JSON, ("Content-Encoding", "gzip")), "upstream_invalid"),
    "half a gzip": (whole(gzip.compress(b"{}" * 99)[:-9], JSON, ("Content-Encoding", "gzip")), "upstream_died"),
    "brotli": (whole(b"x", JSON, ("Content-Encoding", "br")), "upstream_invalid"),
    "no http": ([scripted.send(b"SSH-2.0-OpenSSH_9.2\r\n"), scripted.close], "upstream_invalid"),
    "no status": ([scripted.send(b"HTTP/1.1 OK\r\n\r\n"), scripted.close], "upstream_invalid"),
    "status of four digits": ([scripted.send(b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\n{}")], "upstream_invalid"),
    "header flood": (whole(b"{}", JSON, *((f"x-{n}", "1") for n in range(1000))), "upstream_invalid"),
    "long header": (whole(b"{}", JSON, ("x-long", "x" * 100_000)), "upstream_invalid"),
    "bad chunk": ([scripted.head(200, [JSON, CHUNKED]), scripted.send(b"zz\r\n{}"), scripted.close], "upstream_invalid"),
    "reset": ([scripted.reset], "upstream_unreachable"),
    "closed": ([scripted.close], "upstream_unreachable"),
    "half closed": ([scripted.half_close], "upstream_unreachable"),
    "reset in the head": ([scripted.send(b"HTTP/1.1 200 OK\r\ncontent-"), scripted.reset], "upstream_died"),
    "closed after the head": ([scripted.head(200, [JSON, ("Content-Length", "9")]), scripted.close], "upstream_died"),
    "reset in the body": (
        [scripted.head(200, [JSON, ("Content-Length", "9")]), scripted.send(b"{}"), scripted.reset],
        "upstream_died",
    ),
    "closed in a chunk": ([scripted.head(200, [JSON, CHUNKED]), scripted.send(b"5\r\n{"), scripted.close], "upstream_died"),
    "closed between chunks": (
        [scripted.head(200, [JSON, CHUNKED]), scripted.send(b"2\r\n{}\r\n"), scripted.close],
        "upstream_died",
    ),
    "closed after 1xx": ([scripted.interim(103), scripted.close], "upstream_died"),
    **{
        f"{status}": ([scripted.answer(status=status, headers=[("location", "/elsewhere")])], "upstream_invalid")
        for status in (300, 301, 302, 303, 304, 307, 308)
    },
    "418 that is nobody's": ([scripted.answer(status=418, body=b"teapot")], "upstream_invalid"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_a_provider_error(
    caller: Caller, family: Family, name: str, stream: bool, http: aiohttp.ClientSession
) -> None:
    visit = caller.visit
    script, code = GARBAGE[name]
    if stream and name == "a stream nobody asked for":
        script = whole(b"data: {}{}\n\n", SSE) if family.openai else whole(b"data: {}\n\n", SSE)
    if stream and code == "upstream_died" and name != "reset in the head" and name != "closed after 1xx":
        code = "upstream_invalid"  # its type is judged first
    before = await samples(visit, http)
    visit.up.on("*", *script)
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": stream}))
    reply = await wire.reply()
    refused(reply, family, 502, code)
    assert reply["x-aurixel-cost"] == "0.00"
    assert [request.path for request in visit.up.requests] == [family.path]
    record = await caller.record()
    assert (record.cell, record.cost, record.counts, record.status) == ("refused", 0, {}, 502)
    after = await samples(visit, http)
    assert provider_errors(after) == provider_errors(before) + 1
    name = f'aurixel_upstream_attempts_total{{result="{code}",upstream="{"up" if family.openai else "upa"}"}}'
    assert after[name] == before[name] + 1
    good(visit.up, family)
    wire.send(caller.post(family.path, family.body))
    assert (await wire.reply()).status == 200


async def test_a_reply_too_deep_to_read(caller: Caller, family: Family) -> None:
    """Read without recursion, or refused by name: never a bug."""
    caller.visit.up.reply(body=deep(family))
    reply = await caller.ask(family)
    if reply.status != 200:
        refused(reply, family, 502, "upstream_invalid")


BAD_USAGE: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"completion_tokens": -1},
        {"prompt_tokens": 2**70},
        {"prompt_tokens": 10**9 + 1},
        {"prompt_tokens": "20"},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": None},
        {"prompt_tokens_details": {"cached_tokens": 21}},
        {"prompt_tokens_details": {"cached_tokens": -1}},
        {"completion_tokens_details": {"reasoning_tokens": 8}},
        {"completion_tokens_details": 7},
    ],
    "anthropic": [
        {"output_tokens": -1},
        {"input_tokens": 2**70},
        {"input_tokens": 10**9 + 1},
        {"input_tokens": "20"},
        {"input_tokens": 1.5},
        {"input_tokens": None},
        {"cache_read_input_tokens": -1},
        {"cache_creation_input_tokens": 7, "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}},
        {"output_tokens_details": {"thinking_tokens": 8}},
        {"server_tool_use": {"web_search_requests": -1}},
        {"iterations": [{"type": "other", "input_tokens": 5, "output_tokens": 5}]},
    ],
}


async def test_usage_that_cannot_be_true(caller: Caller, family: Family) -> None:
    visit, bad = caller.visit, BAD_USAGE["openai" if family.openai else "anthropic"]
    for number, wrong in enumerate(bad, 1):
        visit.up.reply(json=family.reply({**family.usage(), **wrong}))
        refused(await caller.ask(family), family, 502, "upstream_invalid")
        assert {(record.cell, record.cost) for record in await caller.records(number)} == {("refused", 0)}, wrong
    assert (await visit.gw.account(caller.email)).spent == 0


async def test_usage_beyond_the_hold_takes_what_there_is_and_no_more(caller: Caller, family: Family) -> None:
    """A count that is possible and absurd: the account pays until it is empty, the operator the rest; nothing is negative."""
    visit = caller.visit
    visit.losses = True
    usage = family.usage() | ({"completion_tokens": 10**9} if family.openai else {"output_tokens": 10**9})
    visit.up.reply(json=family.reply(usage))
    assert (await caller.ask(family)).status == 200
    record = await caller.record()
    assert record.cost == family.cost(20, 10**9)
    account = await visit.gw.account(caller.email)
    assert (account.available, account.spent, account.written_off) == (0, 10 * 10**9, record.cost - 10 * 10**9)
    refused(await caller.ask(family), family, 429 if family.openai else 402, "credit_exhausted")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_odd_but_sound_is_served(caller: Caller, family: Family, stream: bool) -> None:
    """Gzip nobody asked for, interim answers, a body without length, headers of all kinds: none of them reach the client."""
    visit = caller.visit
    body = b"".join(family.events(family.usage())) if stream else json.dumps(family.reply(family.usage())).encode()
    kind = ("content-type", "text/event-stream; charset=utf-8" if stream else "Application/JSON ; charset=utf-8")
    leaks = [
        ("set-cookie", "a=b"),
        ("x-request-id", "theirs"),
        ("server", "x"),
        ("openai-organization", "org-1"),
        ("x-a", "\xe9"),
    ]
    for script in (
        [*whole(gzip.compress(body), kind, ("content-encoding", "gzip"), *leaks)],
        [scripted.interim(100), scripted.interim(103, [("link", "</x>")]), *whole(body, kind)],
        [scripted.head(200, [kind, ("connection", "close")]), scripted.send(body), scripted.close],
        [scripted.head(200, [kind, CHUNKED]), scripted.chunked(scripted.slices(body, 7))],
    ):
        visit.up.on("*", *script)
        reply = await caller.ask(family, stream=stream)
        assert reply.status == 200
        assert reply.body == (body if not (stream and family.openai) else without_usage(body))
        assert {name for name, _ in reply.headers}.isdisjoint({"set-cookie", "server", "openai-organization", "x-a"})
        assert reply["x-request-id"].startswith("req_")
    assert {(record.cell, record.cost) for record in await caller.records(4)} == {("ok", family.cost(20, 7))}


def without_usage(stream: bytes) -> bytes:
    """As a client gets it that did not ask for usage."""
    return b"".join(event + b"\n\n" for event in stream.split(b"\n\n")[:-1] if b'"choices":[]' not in event)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": 7}', b'{"error": {}}', b"\xff", b"[" * 60_000, b" " * 70_000]
)
async def test_errors_without_a_sound_body(caller: Caller, family: Family, body: bytes, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.gateway", "refuses our key", optional=True)
    visit = caller.visit
    for status, told, code in [
        (400, 400, "upstream_refused"),
        (404, 404, "upstream_refused"),
        (413, 413, "upstream_refused"),
        (401, 503, "upstream_credentials"),
        (429, 429, "upstream_rate_limited"),
        (500, 502, "upstream_refused"),
        (503, 503 if family.openai else 529, "upstream_overloaded"),
        (504, 504, "upstream_timeout"),
    ]:
        visit.up.reply(status=status, body=body, headers=[("retry-after", "soon")])
        reply = await caller.ask(family, stream=True)
        refused(reply, family, told, code)
        assert reply["x-aurixel-cost"] == "0.00"
    records = await caller.records(8)
    assert sorted(record.cell for record in records) == ["refused"] * 7 + ["timeout_first_byte"]


@pytest.mark.parametrize("said", ["-1", "nan", "1e99", "Thu, 01 Jan 1970 00:00:00 GMT", "\xb2", "", "9" * 400])
async def test_an_absurd_retry_after(caller: Caller, family: Family, said: str) -> None:
    caller.visit.up.reply(status=429, json={}, headers=[("retry-after", said)])
    reply = await caller.ask(family)
    refused(reply, family, 429, "upstream_rate_limited")
    if "retry-after" in reply:
        assert 0 <= int(reply["retry-after"]) < 10**6


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {not json\n\n",
        b"data: [1]\n\n",
        b"event: message_delta\ndata: \xff\xff\n\n",
        b"event: content_block_delta\ndata: " + b"[" * 50_000 + b"\n\n",
    ],
)
async def test_nonsense_in_a_stream(caller: Caller, family: Family, bad: bytes) -> None:
    """As the first event it is an error with a status, later it ends the stream with the family's error event."""
    visit = caller.visit
    visit.up.stream([bad])
    reply = await caller.ask(family, stream=True)
    refused(reply, family, 502, "upstream_invalid")
    events = family.events(family.usage())
    visit.up.stream([*events[:5], bad, *events[5:]])
    reply = await caller.ask(family, stream=True)
    assert reply.status == 200
    assert reply.body.startswith(b"".join(events[:5]))
    assert family.failed(reply.body)
    second, first = sorted(await caller.records(2), key=lambda record: record.cell)
    assert (first.cell, first.cost) == ("refused", 0)
    assert (second.cell, second.measured) == ("died", False)
    assert second.cost == family.cost(second.counts["input"], second.counts["output"])


async def test_what_comes_after_the_end_reaches_nobody(caller: Caller, family: Family) -> None:
    visit = caller.visit
    events = family.events(family.usage())
    seen = without_usage(b"".join(events)) if family.openai else b"".join(events)
    more = family.events(family.usage() | {"completion_tokens": 99, "output_tokens": 99}, text="AFTER THE END")
    after = {
        "garbage": [b"AFTER", b"\x00\xff" * 100],
        "the end again": events[-1:],
        "another answer": more,
        "an error": [family.error_event()],
        "usage again": more[-2:],
    }
    for together in (False, True):
        for extra in after.values():
            sent = [*events, *extra]
            visit.up.stream([b"".join(sent)] if together else sent)
            reply = await caller.ask(family, stream=True)
            assert (reply.status, reply.body) == (200, seen)
    records = await caller.records(10)
    assert {(record.cell, record.measured, record.cost) for record in records} == {("ok", True, family.cost(20, 7))}


async def test_a_stream_that_goes_on_after_its_end_is_closed(caller: Caller, family: Family) -> None:
    visit = caller.visit
    visit.up.on("*", scripted.event_stream(family.events(family.usage()), end=False), endless)
    reply = await caller.ask(family, stream=True)
    assert reply.status == 200
    await visit.up.disconnected()
    assert (await caller.record()).cell == "ok"


@pytest.mark.parametrize("begun", [False, True])
async def test_an_event_without_end(caller: Caller, family: Family, begun: bool) -> None:
    """64 MiB may be pending, no more."""
    visit = caller.visit
    events = family.events(family.usage())[:5] if begun else []
    piece = b"x" * (4 * MIB)

    async def pour(call: scripted.Call) -> None:
        while True:
            await scripted.chunked([piece], end=False)(call)

    visit.up.on("*", scripted.event_stream([*events, b"data: "], end=False), pour)
    reply = await caller.ask(family, stream=True)
    if begun:
        assert reply.status == 200
        assert reply.body.startswith(b"".join(events))
        assert family.failed(reply.body)
        assert len(reply.body) < 4096
    else:
        refused(reply, family, 502, "upstream_invalid")
    assert (await caller.record()).cell == ("died" if begun else "refused")


@pytest.mark.parametrize("how", [scripted.reset, scripted.close, scripted.half_close])
async def test_a_stream_that_breaks_off_within_an_event(caller: Caller, family: Family, how: Step) -> None:
    """The half event stays here: an error event never lands inside another."""
    visit = caller.visit
    events = family.events(family.usage())
    for cut in (1, 9, len(events[5]) - 1):
        visit.up.on("*", scripted.event_stream([*events[:5], events[5][:cut]], end=False), how)
        reply = await caller.ask(family, stream=True)
        assert reply.status == 200
        sent, _, last = reply.body.rstrip().rpartition(b"\n\n")
        assert sent + b"\n\n" == b"".join(events[:5])
        assert b"error" in last
        assert family.failed(reply.body)
    assert {record.cell for record in await caller.records(3)} == {"died"}


# --- stalls ---------------------------------------------------------------------------------------------------------


def stalls(family: Family) -> dict[str, tuple[bool, list[Step], str]]:
    """What comes before the upstream falls silent: streamed or not, the script, the cell."""
    events = family.events(family.usage())
    withheld = events[-2:-1] if family.openai else [b'event: ping\ndata: {"type']  # nothing that may reach the client
    begin = scripted.head(200, [SSE, CHUNKED])
    return {
        "before the head": (False, [scripted.stall], "timeout_first_byte"),
        "in the head": (True, [scripted.send(b"HTTP/1.1 200 OK\r\n"), scripted.stall], "timeout_first_byte"),
        "in a body": (False, [*whole(b"{", JSON)[:1], scripted.stall], "timeout_first_byte"),
        "in an error": (False, [scripted.head(500, [JSON, ("Content-Length", "9")]), scripted.stall], "timeout_first_byte"),
        "before the first event": (True, [begin, scripted.stall], "timeout_first_byte"),
        "before the first event to hand on": (
            True,
            [begin, scripted.chunked(withheld, end=False), scripted.stall],
            "timeout_first_byte",
        ),
        "in the stream": (True, [begin, scripted.chunked(events[:5], end=False), scripted.stall], "timeout_mid_stream"),
        "in an event": (
            True,
            [begin, scripted.chunked([*events[:5], events[5][:9]], end=False), scripted.stall],
            "timeout_mid_stream",
        ),
        "never quite": (True, [begin, scripted.chunked(events[:5], end=False), trickle], "timeout_mid_stream"),
    }


async def trickle(call: scripted.Call) -> None:
    """Keep-alives without end, each sent only when the one before has gone: the deadline of the whole call must end it."""
    loop = asyncio.get_running_loop()
    while True:
        due = asyncio.Event()
        loop.call_later(0.1, due.set)
        await due.wait()
        await scripted.chunked([b": still here\n\n"], end=False)(call)


async def test_an_upstream_that_stalls(hasty: House) -> None:
    """All at once: each waits for its own deadline."""
    async with visiting(hasty) as visit:

        async def one(family: Family, stream: bool, script: list[Step], cell: str) -> None:
            caller = await visit.caller()
            async with asked:
                wire = await visit.connect()
                visit.up.once(*script)
                count = len(visit.up.requests)
                wire.send(caller.post(family.path, {**family.body, "stream": stream}))
                await visit.up.received(count + 1)
            reply = await wire.reply()
            record = await caller.record()
            assert record.cell == cell
            if cell == "timeout_first_byte":
                refused(reply, family, 504, "upstream_timeout")
                assert (record.cost, record.counts) == (0, {})
            else:
                assert reply.status == 200
                assert family.failed(reply.body)
                assert b'"upstream_timeout"' in reply.body
                assert record.measured is False
                assert record.counts["output"] > 0
                assert record.cost == family.cost(record.counts["input"], record.counts["output"])

        asked = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for name in FAMILIES:
                family = Family(name)
                for stream, script, cell in stalls(family).values():
                    group.create_task(one(family, stream, script, cell))
