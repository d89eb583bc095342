"""Pitfalls 5 and 6: every cell of the settlement matrix that a request can reach, caused for real, with its exact charge.

A client leaves at every event of a stream, under both settings of `client_gone` and every rule. The amounts are worked out
by hand: the text has 29 bytes, the upstream reports 20 tokens in and 70 out, a token is four bytes where nobody reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aurixel.ledger import MATRIX
from aurixel.storage import UsageRecord
from aurixel.testing import answers, scripted
from aurixel.testing.scripted import ScriptedUpstream, Step
from tests.edge.door import Wire
from tests.flow.gateway import MODELS, configure, running, upstream
from tests.flow.process import GatewayProcess
from tests.flow.shared import Caller, Family, House, MovedClock, Visit, refused, sharing, visiting
from tests.flow.test_endings import FAMILIES, TEXT

WORDS = TEXT.split(" ")
# Bytes of output that a client has had after so many words: "Hello ", "to ", "the ", "whole ", "wide ", "world".
BYTES = [0, 6, 9, 13, 19, 24, 29]
# A token for every four bytes begun.
GUESSED = [0, 2, 3, 4, 5, 6, 8]
# Of 70 reported for 29 bytes, in proportion, rounded up: 420/29, 630/29, 910/29, 1330/29, 1680/29.
SHARE = [0, 15, 22, 32, 46, 58, 70]
# The messages are 55 and 42 bytes of JSON, 24 of them around the text; a token for four of the rest, and 4 for the message.
GUESSED_INPUT = {"openai": 12, "anthropic": 9}
# Events before the first word, and before the usage that covers the whole.
BEFORE = {"openai": 1, "anthropic": 3}
LAST = {"openai": 9, "anthropic": 11}

# A client leaves before the first event, after each, and last with only the terminal one to come.
EVERY_EVENT = [(name, seen) for name in FAMILIES for seen in range(LAST[name] + 1)]

RULES = ["as shipped", "measured", "delivered", "nothing"]


class Asked:
    """One family's streams and what they come to."""

    def __init__(self, name: str) -> None:
        self.name, self.family = name, Family(name)
        self.openai = self.family.openai
        self.guess = GUESSED_INPUT[name]

    def usage(self, output: int = 70) -> Any:
        """The upstream's report."""
        return answers.openai_chat_usage(20, output) if self.openai else answers.anthropic_messages_usage(20, output)

    def events(self) -> list[bytes]:
        """The whole stream; its last event is the terminal one."""
        return self.family.events(self.usage())

    def post(self, caller: Caller, *, stream: bool) -> bytes:
        """The request; a stream of either family shows the client its usage."""
        more = {"stream_options": {"include_usage": True}} if stream and self.openai else {}
        return caller.post(self.family.path, {**self.family.body, "stream": stream, **more})

    def words(self, events: int) -> int:
        """How many words the first so many events have."""
        return min(max(0, events - BEFORE[self.name]), len(WORDS))

    def partial(self, events: int, words: int) -> dict[str, int]:
        """The counts of a stream of so many events, of whose text so many words count, without a report that covers it."""
        if self.openai or not events:
            return counts(self.guess, GUESSED[words])
        return counts(20, max(1, GUESSED[words]))  # the start of a message reports its input, and one token


def counts(input: int, output: int) -> dict[str, int]:
    """Without the classes that are zero."""
    return {"input": input, "output": output} if output else {"input": input}


@pytest.fixture(params=FAMILIES)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def rules(rule: str) -> str:
    return "" if rule == "as shipped" else f'[ledger.settlement]\nclient_gone = "{rule}"\n'


@pytest.fixture(scope="module", params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    """The rule of `client_gone`."""
    return str(request.param)


@pytest.fixture(scope="module")
async def close_house(rule: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("close")
    async with sharing(folder, second=True, more=lambda _: rules(rule)) as house:
        yield house


@pytest.fixture(scope="module")
async def drain_house(rule: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("drain")
    async with sharing(folder, ledger='client_gone = "drain"', second=True, more=lambda _: rules(rule)) as house:
        yield house


@pytest.fixture
async def closing(close_house: House) -> AsyncIterator[Visit]:
    async with visiting(close_house) as visit:
        yield visit


@pytest.fixture
async def draining(drain_house: House) -> AsyncIterator[Visit]:
    async with visiting(drain_house) as visit:
        yield visit


def charged(asked: Asked, record: UsageRecord, cell: str, wanted: dict[str, int], *, measured: bool) -> None:
    """The record is exactly this, to the nano-dollar."""
    assert (record.cell, record.counts, record.measured) == (cell, wanted, measured)
    assert record.cost == asked.family.cost(wanted.get("input", 0), wanted.get("output", 0))
    assert record.upstream == ("up" if asked.openai else "upa")


async def leaves(visit: Visit, wire: Wire) -> None:
    """The client leaves, and its connection is gone at once."""
    edge = visit.gw.app._edge
    wire.reset()
    await visit.until(lambda: not edge.connections)


async def sees(wire: Wire, events: list[bytes]) -> None:
    """The client has had so many events."""
    if events:
        await wire.reader.readuntil(events[-1])


# --- a client that leaves: close ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "seen"), EVERY_EVENT, indirect=["asked"])
async def test_pitfall_5_a_client_that_leaves_at_any_event_closes_the_upstream(
    closing: Visit, rule: str, asked: Asked, seen: int
) -> None:
    """Pitfall 5: charged what reached it, and where the upstream had said it all, what that said; never nothing."""
    caller, sent = await closing.caller(), asked.events()[:seen]
    closing.up.on("*", scripted.event_stream(sent, end=False), scripted.stall)
    wire = await closing.connect()
    wire.send(asked.post(caller, stream=True))
    await closing.up.received()
    await sees(wire, sent)
    await leaves(closing, wire)
    await closing.up.disconnected()
    whole = seen == LAST[asked.name]
    wanted = counts(20, 70) if whole else asked.partial(seen, asked.words(seen))
    if rule == "nothing":
        wanted, whole = {}, True
    # All that was seen has reached the client, so that every rule comes to the same.
    charged(asked, await caller.record(), "client_gone", wanted, measured=whole)
    assert closing.second.requests == []


async def test_pitfall_5_a_client_that_leaves_before_a_whole_reply(closing: Visit, rule: str, asked: Asked) -> None:
    """Pitfall 5: the input, which the upstream has read."""
    caller = await closing.caller()
    closing.up.on("*", scripted.stall)
    wire = await closing.connect()
    wire.send(asked.post(caller, stream=False))
    await closing.up.received()
    await leaves(closing, wire)
    await closing.up.disconnected()
    nothing = rule == "nothing"
    charged(asked, await caller.record(), "client_gone", {} if nothing else counts(asked.guess, 0), measured=nothing)


async def test_pitfall_6_what_a_client_could_not_take_has_not_reached_it(closing: Visit, rule: str, asked: Asked) -> None:
    """Pitfall 6: a write that was waiting for the client when it left is seen output, and not delivered output."""
    caller = await closing.caller("1000.00")
    events = asked.family.events(asked.usage(), text="Hello " + "w" * 8_000_000)
    first = BEFORE[asked.name] + 1
    closing.up.on("*", scripted.event_stream(events[: first + 1], end=False), scripted.stall)
    wire = await closing.connect(receive_buffer=4096)
    wire.send(asked.post(caller, stream=True))
    await sees(wire, events[:first])
    wire.writer.transport.pause_reading()
    streams = closing.gw.app._edge._streams
    await closing.until(lambda: any(stream.writing() for stream in streams))
    await leaves(closing, wire)
    await closing.up.disconnected()
    output = {"nothing": 0, "measured": 2_000_002}.get(rule, 2)  # 8,000,006 bytes, or 6
    wanted = counts(asked.guess if asked.openai else 20, output) if output else {}
    charged(asked, await caller.record(), "client_gone", wanted, measured=not output)


# --- a client that leaves: drain ----------------------------------------------------------------------------------------


async def leave_and_drain(
    visit: Visit, asked: Asked, caller: Caller, first: list[Step], rest: list[Step], sent: list[bytes], *, stream: bool
) -> None:
    """The client has what `first` sends and leaves; then the upstream goes on with `rest`."""
    go_on = asyncio.Event()
    visit.up.on("*", *first, scripted.wait(go_on), *rest)
    wire = await visit.connect()
    wire.send(asked.post(caller, stream=stream))
    request = await visit.up.received()
    await sees(wire, sent)
    await leaves(visit, wire)
    totals = visit.gw.app.ledger.totals()
    assert totals.open == 1
    assert totals.held > 0, "the hold stays until it is known what to charge"
    assert not request.gone.is_set(), "the upstream is read on"
    go_on.set()


@pytest.mark.parametrize(("asked", "seen"), EVERY_EVENT, indirect=["asked"])
async def test_pitfall_5_a_client_that_leaves_at_any_event_and_the_upstream_is_read_on(
    draining: Visit, rule: str, asked: Asked, seen: int
) -> None:
    """Pitfall 5: the report comes after the client has left. The rules differ in what they make of it."""
    caller, events = await draining.caller(), asked.events()
    first = [scripted.event_stream(events[:seen], end=False)]
    await leave_and_drain(draining, asked, caller, first, [scripted.chunked(events[seen:])], events[:seen], stream=True)
    words = asked.words(seen)
    output = {"delivered": SHARE[words], "nothing": 0}.get(rule, 70)
    wanted = {} if rule == "nothing" else counts(20, output)
    charged(asked, await caller.record(), "client_gone", wanted, measured=rule != "delivered" or words == len(WORDS))
    assert draining.second.requests == []


@pytest.mark.parametrize("end", ["reset", "clean", "error", "nonsense"])
@pytest.mark.parametrize("seen", [4, 6])
async def test_an_upstream_that_fails_without_a_report_while_it_is_read_on(
    draining: Visit, rule: str, asked: Asked, seen: int, end: str
) -> None:
    """One more word comes after the client has left, and then no report."""
    caller, events = await draining.caller(), asked.events()
    more = {"error": [asked.family.error_event()], "nonsense": [b"data: {\n\n"]}.get(end, [])
    rest = [scripted.chunked([events[seen], *more], end=end != "reset"), *([scripted.reset] if end == "reset" else [])]
    first = [scripted.event_stream(events[:seen], end=False)]
    await leave_and_drain(draining, asked, caller, first, rest, events[:seen], stream=True)
    words = asked.words(seen + 1) if rule == "measured" else asked.words(seen)
    wanted = {} if rule == "nothing" else asked.partial(seen, words)
    charged(asked, await caller.record(), "client_gone", wanted, measured=rule == "nothing")


async def test_a_whole_reply_is_read_on(draining: Visit, rule: str, asked: Asked) -> None:
    caller = await draining.caller()
    reply = scripted.answer(json=asked.family.reply(asked.usage()))
    await leave_and_drain(draining, asked, caller, [], [reply], [], stream=False)
    wanted = {"delivered": counts(20, 0), "nothing": {}}.get(rule, counts(20, 70))
    charged(asked, await caller.record(), "client_gone", wanted, measured=rule != "delivered")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["500", "429", "reset", "garbage"])
async def test_pitfall_6_an_upstream_that_says_no_after_its_client_left(
    draining: Visit, asked: Asked, how: str, stream: bool
) -> None:
    """Pitfall 6: nothing was generated, nothing is charged, and no second upstream is asked for a client that is gone."""
    caller = await draining.caller()
    error = (answers.openai_error if asked.openai else answers.anthropic_error)("a long text that is no completion" * 99)
    rest: Step = {
        "reset": scripted.reset,
        "garbage": scripted.answer(body=b"<html>", headers=[("content-type", "text/html")]),
    }.get(how) or scripted.answer(json=error, status=int(how))
    await leave_and_drain(draining, asked, caller, [], [rest], [], stream=stream)
    record = await caller.record()
    charged(asked, record, "refused", {}, measured=True)
    assert (record.cost, record.status) == (0, 0)
    assert len(draining.up.requests) == 1
    assert draining.second.requests == []


async def test_pitfall_6_no_second_request_is_sent_for_a_client_that_left(draining: Visit, asked: Asked) -> None:
    """Pitfall 6: the first upstream says no, the second one has the request when the client leaves: that one is charged."""
    caller = await draining.caller()
    draining.up.reply(status=503)
    go_on = asyncio.Event()
    draining.second.on("*", scripted.wait(go_on), scripted.answer(json=asked.family.reply(asked.usage())))
    wire = await draining.connect()
    wire.send(asked.post(caller, stream=False))
    await draining.second.received()
    await leaves(draining, wire)
    go_on.set()
    record = await caller.record()
    assert (record.cell, record.upstream) == ("client_gone", "up2" if asked.openai else "upa2")
    assert (len(draining.up.requests), len(draining.second.requests)) == (1, 1)


# --- what ends the draining -----------------------------------------------------------------------------------------------


async def stalls_after_two_words(visit: Visit, asked: Asked, caller: Caller) -> None:
    events = asked.events()[: BEFORE[asked.name] + 2]
    first = [scripted.event_stream(events, end=False)]
    await leave_and_drain(visit, asked, caller, first, [scripted.stall], events, stream=True)


@pytest.mark.parametrize("what", ["drain_cap", "total_timeout", "idle_timeout"])
async def test_a_deadline_ends_the_draining(tmp_path: Path, asked: Asked, what: str) -> None:
    ledger = 'client_gone = "drain"\n' + ("drain_cap = 0.3" if what == "drain_cap" else "")
    block = "" if what == "drain_cap" else f"{what} = 0.6"
    async with sharing(tmp_path, ledger=ledger, block=block) as house, visiting(house) as visit:
        caller = await visit.caller()
        await stalls_after_two_words(visit, asked, caller)
        await visit.up.disconnected()
        wanted = asked.partial(BEFORE[asked.name] + 2, 2)
        charged(asked, await caller.record(), "client_gone", wanted, measured=False)


async def test_a_shutdown_ends_the_draining(tmp_path: Path, asked: Asked) -> None:
    async with sharing(tmp_path, ledger='client_gone = "drain"') as house:
        visit = Visit(house)
        caller = await visit.caller()
        await stalls_after_two_words(visit, asked, caller)
        visit.gw.app.service.end()
        await visit.up.disconnected()
        record = await caller.record()
        charged(asked, record, "client_gone", asked.partial(BEFORE[asked.name] + 2, 2), measured=False)
        assert record.status == 200
        await visit.leave()


@pytest.mark.parametrize("setting", ["close", "drain"])
@pytest.mark.parametrize("routes", [1, 2])
async def test_pitfall_6_a_client_that_leaves_before_an_upstream_is_asked_pays_nothing(
    tmp_path: Path, setting: str, routes: int
) -> None:
    """Pitfall 6: the upstream takes the connection and never says a word of TLS, so that the request has gone nowhere; nor
    does it after a first upstream has said no."""
    waiting = asyncio.Event()
    async with ScriptedUpstream() as up, ScriptedUpstream() as silent:
        silent.greet(scripted.tell(waiting), scripted.stall)
        up.reply(status=503)
        blocks = upstream("no", "openai", f"{up.url}/v1")
        blocks += upstream("up", "openai", f"{silent.url.replace('http:', 'https:')}/v1")
        last = '{ upstream = "up", model = "up-gpt" }'
        models = MODELS.replace(last, f'{{ upstream = "no", model = "no-gpt" }}, {last}') if routes == 2 else MODELS
        file = configure(tmp_path, upstreams=blocks, models=models)
        file.write_text(file.read_text().replace("[ledger]\n", f'[ledger]\nclient_gone = "{setting}"\n'))
        async with running(file) as gw:
            visit, asked = Visit(House(gw, up, silent, MovedClock())), Asked("openai")
            caller = await visit.caller()
            wire = await visit.connect()
            wire.send(asked.post(caller, stream=True))
            await waiting.wait()
            wire.reset()
            await silent.closed()
            charged(asked, await caller.record(), "refused", {}, measured=True)
            assert len(up.requests) == routes - 1


async def test_a_provider_that_opens_its_own_upstream_is_read_on_too(tmp_path: Path) -> None:
    async with ScriptedUpstream() as up:
        file = configure(tmp_path)
        text = file.read_text().replace('provider = "demo"', 'provider = "demo"\ndelay = 0.01')
        file.write_text(text.replace("[ledger]\n", '[ledger]\nclient_gone = "drain"\n'))
        async with running(file) as gw:
            visit, family = Visit(House(gw, up, up, MovedClock())), Family("openai")
            stays, goes = await visit.caller(), await visit.caller()
            assert (await stays.ask(family, stream=True, model="demo-echo")).status == 200
            whole = await stays.record()
            wire = await visit.connect()
            wire.send(goes.post(family.path, {**family.body, "stream": True, "model": "demo-echo"}))
            await wire.reader.readuntil(b"\n\n")
            await leaves(visit, wire)
            record = await goes.record()
            assert (record.cell, record.measured, record.counts) == ("client_gone", True, whole.counts)
            assert record.cost == whole.cost > 0


async def test_the_checks_are_told_once_and_only_when_the_draining_is_over(draining: Visit, asked: Asked) -> None:
    """A key that may have one request at a time has one: its upstream is still at work."""
    caller = await draining.caller(limits={"concurrency": 1})
    check = draining.gw.app.checks[0].check
    told: list[Any] = []
    finished = check.finished  # type: ignore[attr-defined]
    go_on = asyncio.Event()
    draining.up.on("*", scripted.wait(go_on), scripted.answer(json=asked.family.reply(asked.usage())))
    wire = await draining.connect()
    wire.send(asked.post(caller, stream=False))
    await draining.up.received()
    await leaves(draining, wire)
    reply = await caller.ask(asked.family)
    refused(reply, asked.family, 429, "rate_limit_concurrency")
    bound = draining.gw.app.checks[0]
    bound._watcher = _Telling(finished, told)  # type: ignore[assignment]
    try:
        go_on.set()
        await caller.records()
        await draining.quiet()
    finally:
        bound._watcher = check  # type: ignore[assignment]
    assert [outcome.ending for outcome in told] == ["client_gone"]
    draining.up.reply(json=asked.family.reply(asked.usage()))
    assert (await caller.ask(asked.family)).status == 200


class _Telling:
    def __init__(self, finished: Callable[[Any], None], told: list[Any]) -> None:
        self._finished, self._told = finished, told

    def finished(self, outcome: Any) -> None:
        self._told.append(outcome)
        self._finished(outcome)


# --- every other cell -------------------------------------------------------------------------------------------------------


async def ok(caller: Caller, asked: Asked, stream: bool) -> None:
    if stream:
        caller.visit.up.stream(asked.events())
    else:
        caller.visit.up.reply(json=asked.family.reply(asked.usage()))
    assert (await caller.ask(asked.family, stream=stream)).status == 200


async def says_no(caller: Caller, asked: Asked, stream: bool) -> None:
    error = (answers.openai_error if asked.openai else answers.anthropic_error)("a long text that is no completion" * 99)
    caller.visit.up.reply(json=error, status=400)
    assert (await caller.ask(asked.family, stream=stream)).status == 400


async def generates_nothing(caller: Caller, asked: Asked, stream: bool) -> None:
    usage = asked.usage(0)
    if stream:
        caller.visit.up.stream(asked.family.events(usage, text=""))
    else:
        caller.visit.up.reply(json=asked.family.reply(usage, ""))
    assert (await caller.ask(asked.family, stream=stream)).status == 200


async def says_nothing(caller: Caller, asked: Asked, stream: bool) -> None:
    caller.visit.up.on("*", scripted.stall)
    assert (await caller.ask(asked.family, stream=stream)).status == 504


async def two_words(caller: Caller, asked: Asked, *steps: Step, more: tuple[bytes, ...] = ()) -> None:
    events = asked.events()[: BEFORE[asked.name] + 2]
    caller.visit.up.on("*", scripted.event_stream([*events, *more], end=False), *steps)
    reply = await caller.ask(asked.family, stream=True)
    assert asked.family.failed(reply.body)


async def dies(caller: Caller, asked: Asked, stream: bool) -> None:
    await two_words(caller, asked, scripted.reset)


async def sends_an_error_event(caller: Caller, asked: Asked, stream: bool) -> None:
    await two_words(caller, asked, scripted.stall, more=(asked.family.error_event(),))


async def falls_silent(caller: Caller, asked: Asked, stream: bool) -> None:
    await two_words(caller, asked, scripted.stall)


async def goes(caller: Caller, asked: Asked, stream: bool) -> None:
    visit = caller.visit
    sent = asked.events()[: BEFORE[asked.name] + 2] if stream else []
    visit.up.on("*", *([scripted.event_stream(sent, end=False)] if stream else []), scripted.stall)
    wire = await visit.connect()
    wire.send(asked.post(caller, stream=stream))
    await visit.up.received()
    await sees(wire, sent)
    await leaves(visit, wire)
    await visit.up.disconnected()


Cause = Callable[[Caller, Asked, bool], Awaitable[None]]
CAUSES: dict[str, Cause] = {
    "ok": ok,
    "refused": says_no,
    "empty": generates_nothing,
    "timeout_first_byte": says_nothing,
    "died": dies,
    "error_event": sends_an_error_event,
    "timeout_mid_stream": falls_silent,
    "client_gone": goes,
}
# They need a stream; the others come in a whole reply too.
STREAMED = ("died", "error_event", "timeout_mid_stream")
CASES = [(cell, stream) for cell in CAUSES for stream in (False, True) if stream or cell not in STREAMED]


def test_every_ending_that_can_be_reached_has_a_test_here() -> None:
    """`crash` is caused below, by a kill; docs/settlement.md says of the others why no request ends so."""
    reached = {cell for cell, ending in MATRIX.items() if not ending.unreached}
    assert CAUSES.keys() | {"crash"} == reached


def usual(asked: Asked, cell: str, stream: bool) -> tuple[dict[str, int], bool]:
    """What the matrix as shipped charges, and whether it is measured."""
    if cell == "ok":
        return counts(20, 70), True
    if MATRIX[cell].rules["chat"] == "nothing":
        return {}, True
    return (asked.partial(BEFORE[asked.name] + 2, 2) if stream else counts(asked.guess, 0)), False


def turned(asked: Asked, cell: str, stream: bool) -> tuple[dict[str, int], bool]:
    """What a matrix charges that has everything the other way round."""
    if cell == "empty":
        return counts(20, 0), True
    if cell in ("refused", "timeout_first_byte"):
        return counts(asked.guess, 0), False  # the input, and never the text of an error
    return {}, True


HASTY = "first_byte_timeout = 0.6\nidle_timeout = 0.6"
TURNED = "".join(
    f'{cell} = "{"delivered" if MATRIX[cell].rules["chat"] == "nothing" else "nothing"}"\n'
    for cell in CAUSES
    if cell != "timeout_first_byte"
)


@pytest.fixture(scope="module")
async def shipped_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with sharing(tmp_path_factory.mktemp("shipped"), block=HASTY) as house:
        yield house


@pytest.fixture(scope="module")
async def turned_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    more = f"[ledger.settlement]\n{TURNED}image.ok = 'measured'\nchat.timeout_first_byte = 'measured'\n"
    async with sharing(tmp_path_factory.mktemp("turned"), block=HASTY, more=lambda _: more) as house:
        yield house


@pytest.mark.parametrize(("cell", "stream"), CASES)
async def test_pitfall_6_every_ending_is_charged_as_the_matrix_says(
    shipped_house: House, asked: Asked, cell: str, stream: bool
) -> None:
    """Pitfall 6: by its own rule, and by no other."""
    async with visiting(shipped_house) as visit:
        caller = await visit.caller()
        await CAUSES[cell](caller, asked, stream)
        wanted, measured = usual(asked, cell, stream)
        charged(asked, await caller.record(), cell, wanted, measured=measured)


@pytest.mark.parametrize(("cell", "stream"), CASES)
async def test_every_ending_is_charged_as_the_operator_says(turned_house: House, asked: Asked, cell: str, stream: bool) -> None:
    async with visiting(turned_house) as visit:
        caller = await visit.caller()
        await CAUSES[cell](caller, asked, stream)
        wanted, measured = turned(asked, cell, stream)
        charged(asked, await caller.record(), cell, wanted, measured=measured)


async def test_no_rule_charges_for_an_upstream_that_was_not_asked(turned_house: House, tmp_path: Path) -> None:
    """`refused` is charged here; but there was nobody to refuse."""
    file = configure(tmp_path, upstreams=upstream("up", "openai", "http://127.0.0.1:1/v1"))
    file.write_text(file.read_text() + '[ledger.settlement]\nrefused = "measured"\n')
    async with running(file) as gw:
        house = House(gw, turned_house.up, turned_house.second, turned_house.clock)
        async with visiting(house) as visit:
            caller = await visit.caller()
            assert (await caller.ask(Family("openai"))).status == 502
            record = await caller.record()
            assert (record.cell, record.counts, record.cost) == ("refused", {}, 0)


@pytest.mark.parametrize("seen", [0, 4])
async def test_pitfall_9_a_request_cut_by_a_kill_is_recorded_and_costs_nothing(tmp_path: Path, asked: Asked, seen: int) -> None:
    """Pitfall 9, its cell `crash`: nobody knows what was delivered."""
    async with ScriptedUpstream() as up:
        upstreams = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
        file = configure(tmp_path, upstreams=upstreams)
        async with running(file) as gw:
            visit = Visit(House(gw, up, up, MovedClock()))
            caller = await visit.caller()
        events = asked.events()[:seen]
        up.on("*", scripted.event_stream(events, end=False), scripted.stall)
        process = GatewayProcess(file)
        await process.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(process.url.rpartition(":")[2]))
            wire = Wire(reader, writer)
            wire.send(asked.post(caller, stream=True))
            await up.received()
            await sees(wire, events)
        finally:
            await process.kill()
        writer.close()
        async with running(file) as gw:
            (record,) = await gw.records(caller.email)
            account = await gw.account(caller.email)
        assert (record.cell, record.cost, record.counts, record.measured) == ("crash", 0, {}, False)
        assert (account.spent, account.written_off, account.leases) == (0, 0, {})
