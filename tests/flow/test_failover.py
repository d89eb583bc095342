"""More than one route to a model, through the whole gateway: another one answers for one that failed before the first byte,
and never after it (pitfall 17); one record, charged once, and every attempt counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from aurixel.testing import answers, scripted
from aurixel.testing.scripted import Step
from tests.flow.shared import Family, House, Visit, good, refused, sharing, visiting
from tests.flow.test_bad_upstream import BAD_USAGE, GARBAGE, JSON, MIB, provider_errors, samples, stalls, whole
from tests.flow.test_endings import FAMILIES
from tests.harness.guard import ExpectedLogs

pytestmark = pytest.mark.deadline(30)


@pytest.fixture(scope="module")
async def two_routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with sharing(tmp_path_factory.mktemp("two"), server=f"max_body = {MIB}", second=True) as shared:
        yield shared


@pytest.fixture(scope="module")
async def hasty_two_routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    times = "first_byte_timeout = 1.0\nidle_timeout = 1.0\n"
    async with sharing(tmp_path_factory.mktemp("hastytwo"), block=times, second=True) as shared:
        yield shared


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


@pytest.fixture
async def routed(two_routes: House) -> AsyncIterator[Visit]:
    async with visiting(two_routes) as visit:
        yield visit


def failures(family: Family, *, stream: bool) -> dict[str, tuple[list[Step], str]]:
    """What another route mends, and how the attempt is counted."""
    found = {
        name: (script, code)
        for name, (script, code) in GARBAGE.items()
        if not stream
        and name in ("no json", "html", "302", "endless", "reset", "closed", "reset in the body", "no http", "header flood")
    }
    for status, code in [
        (401, "upstream_credentials"),
        (402, "upstream_credentials"),
        (403, "upstream_credentials"),
        (408, "upstream_timeout"),
        (418, "upstream_invalid"),
        (429, "upstream_rate_limited"),
        (500, "upstream_refused"),
        (502, "upstream_overloaded"),
        (503, "upstream_overloaded"),
        (504, "upstream_timeout"),
        (529, "upstream_overloaded"),
    ]:
        line = scripted.send(f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        found[str(status)] = ([line], code)
    if stream:
        found |= {
            "wrong type": (whole(b"{}", JSON), "upstream_invalid"),
            "error event first": ([scripted.event_stream([family.error_event()])], "upstream_error_event"),
            "nonsense first": ([scripted.event_stream([b"data: {\n\n"])], "upstream_invalid"),
            "empty stream": ([scripted.event_stream([])], "upstream_died"),
            "reset before the first event": ([scripted.event_stream([], end=False), scripted.reset], "upstream_died"),
            "reset in the first event": ([scripted.event_stream([b"data: {"], end=False), scripted.reset], "upstream_died"),
        }
    else:
        found["absurd usage"] = (
            [scripted.answer(json=family.reply({**family.usage(), **BAD_USAGE[FAMILIES[not family.openai]][0]}))],
            "upstream_invalid",
        )
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_another_route_answers_for_one_that_failed(
    routed: Visit, family: Family, stream: bool, http: aiohttp.ClientSession, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.gateway", "refuses our key", optional=True)
    visit = routed
    first, second = ("up", "up2") if family.openai else ("upa", "upa2")
    for name, (script, code) in failures(family, stream=stream).items():
        caller = await visit.caller()
        before = await samples(visit, http)
        asked = len(visit.up.requests), len(visit.second.requests)
        visit.up.on("*", *script)
        good(visit.second, family, stream=stream)
        reply = await caller.ask(family, stream=stream)
        assert reply.status == 200, name
        assert b"world" in reply.body
        assert (len(visit.up.requests), len(visit.second.requests)) == (asked[0] + 1, asked[1] + 1), name
        assert visit.second.requests[-1].json()["model"] == ("second-gpt" if family.openai else "second-claude")
        record = await caller.record()
        assert (record.cell, record.measured, record.upstream, record.cost) == ("ok", True, second, family.cost(20, 7)), name
        after = await samples(visit, http)
        for upstream, result in ((first, code), (second, "ok")):
            sample = f'aurixel_upstream_attempts_total{{result="{result}",upstream="{upstream}"}}'
            assert after[sample] == before[sample] + 1, name
        assert provider_errors(after) == provider_errors(before)


async def test_a_route_nobody_listens_at(routed: Visit, family: Family) -> None:
    caller = await routed.caller()
    routed.up.greet(scripted.reset)
    good(routed.second, family)
    assert (await caller.ask(family)).status == 200
    assert (await caller.record()).upstream == ("up2" if family.openai else "upa2")
    assert routed.up.requests == []


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
async def test_the_clients_own_fault_is_nobody_elses(routed: Visit, family: Family, status: int) -> None:
    caller = await routed.caller()
    error = answers.openai_error("your fault") if family.openai else answers.anthropic_error("your fault")
    routed.up.reply(status=status, json=error)
    reply = await caller.ask(family)
    assert (reply.status, reply.json) == (status, error)
    assert routed.second.requests == []
    assert (await caller.record()).cell == "refused"


async def test_where_all_routes_fail_the_last_one_is_told(routed: Visit, family: Family) -> None:
    caller = await routed.caller()
    routed.up.reply(status=500)
    routed.second.reply(status=429, headers=[("retry-after", "7")])
    reply = await caller.ask(family, stream=True)
    refused(reply, family, 429, "upstream_rate_limited")
    assert reply["retry-after"] == "7"
    record = await caller.record()
    assert (record.cell, record.cost, record.upstream) == ("refused", 0, "up2" if family.openai else "upa2")


@pytest.mark.parametrize("events", [1, 3, 5])
@pytest.mark.parametrize("end", ["reset", "clean", "error", "nonsense"])
async def test_after_the_first_byte_nobody_else_is_asked(routed: Visit, family: Family, events: int, end: str) -> None:
    """Pitfall 17."""
    caller = await routed.caller()
    good(routed.second, family, stream=True)
    sent = family.events(family.usage())[:events]
    more = {"error": [family.error_event()], "nonsense": [b"data: {\n\n"]}.get(end, [])
    steps = [scripted.reset] if end == "reset" else []
    routed.up.on("*", scripted.event_stream([*sent, *more], end=end != "reset"), *steps)
    reply = await caller.ask(family, stream=True)
    assert reply.status == 200
    assert reply.body.startswith(b"".join(sent))
    assert family.failed(reply.body)
    assert routed.second.requests == []
    assert (await caller.record()).cell == ("error_event" if end == "error" else "died")


async def test_what_a_failed_route_said_is_not_charged_for_the_next(routed: Visit) -> None:
    """The first route reports usage and dies before the first byte; the client leaves while the second one thinks."""
    family, caller = Family("openai"), await routed.caller()
    usage = family.events(answers.openai_chat_usage(9999, 999))[-2]
    routed.up.on("*", scripted.event_stream([usage], end=False), scripted.close)
    routed.second.on("*", scripted.stall)
    wire = await routed.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": True}))
    await routed.second.received()
    wire.reset()
    await routed.second.disconnected()
    record = await caller.record()
    assert (record.cell, record.measured, record.upstream) == ("client_gone", False, "up2")
    assert record.counts.keys() == {"input"}
    assert record.counts["input"] < 100


async def test_a_client_that_leaves_between_two_routes(routed: Visit, family: Family) -> None:
    caller = await routed.caller()
    routed.up.reply(status=500)
    routed.second.on("*", scripted.stall)
    wire = await routed.connect()
    wire.send(caller.post(family.path, family.body))
    await routed.second.received()
    wire.reset()
    await routed.second.disconnected()
    assert (await caller.record()).cell == "client_gone"


async def test_another_route_answers_for_one_that_stalls(hasty_two_routes: House) -> None:
    async with visiting(hasty_two_routes) as visit:
        for name in FAMILIES:
            good(visit.second, Family(name))

        async def one(family: Family, stream: bool, script: list[Step]) -> None:
            caller = await visit.caller()
            async with asked:
                wire = await visit.connect()
                visit.up.once(*script)
                count = len(visit.up.requests)
                wire.send(caller.post(family.path, {**family.body, "stream": stream}))
                await visit.up.received(count + 1)
            reply = await wire.reply()
            assert reply.status == 200
            record = await caller.record()
            assert (record.cell, record.cost) == ("ok", family.cost(20, 7))

        async def second(call: scripted.Call) -> None:
            family = Family("openai" if "chat" in call.request.path else "anthropic")
            if call.request.json().get("stream"):
                await scripted.event_stream(family.events(family.usage()))(call)
            else:
                await scripted.answer(json=family.reply(family.usage()))(call)

        visit.second.on("*", second)
        asked = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for name in FAMILIES:
                family = Family(name)
                for stream, script, cell in stalls(family).values():
                    if cell == "timeout_first_byte":
                        group.create_task(one(family, stream, script))
