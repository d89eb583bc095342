"""What no honest client sends, and what a broken one does, through the whole gateway: an error in the caller's family or a
closed connection, nothing sent upstream, nothing held, nothing charged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurixel.accounts import close_account, create_key, find_account, limits_parser
from aurixel.accounts.credentials import revoke_key
from aurixel.testing import scripted
from tests.edge.door import Wire
from tests.flow.shared import Caller, Family, House, Visit, good, refused, sharing, visiting
from tests.flow.test_endings import FAMILIES

pytestmark = pytest.mark.deadline(20)

MAX_BODY = 256 * 1024
DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with sharing(tmp_path_factory.mktemp("gateway"), server=f"max_body = {MAX_BODY}") as shared:
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


async def refuses(caller: Caller, family: Family, body: bytes, status: int, code: str, *headers: str) -> None:
    """The body is refused so, nothing of it reaches the upstream, and the connection serves the next request."""
    visit = caller.visit
    good(visit.up, family)
    wire = await visit.connect()
    wire.send(caller.post(family.path, body, *headers))
    refused(await wire.reply(), family, status, code)
    assert visit.up.requests == []
    assert await visit.gw.records(caller.email) == []
    wire.send(caller.post(family.path, family.body))
    assert (await wire.reply()).status == 200


def changed(family: Family, **more: Any) -> bytes:
    return json.dumps({**family.body, **more}).encode()


# --- bodies -----------------------------------------------------------------------------------------------------------

NO_REQUEST = {
    "empty": (b"", "empty_body"),
    "blank": (b" \r\n\t", "empty_body"),
    "cut": (b'{"model": "gpt-test", "messages": [', "invalid_json"),
    "two values": (b"{}{}", "invalid_json"),
    "byte order mark": (b"\xef\xbb\xbf{}", "invalid_json"),
    "a comma too many": (b'{"model": "gpt-test",}', "invalid_json"),
    "single quotes": (b"{'model': 'gpt-test'}", "invalid_json"),
    "nan": (b'{"model": "gpt-test", "temperature": NaN}', "invalid_json"),
    "infinity": (b'{"model": "gpt-test", "temperature": Infinity}', "invalid_json"),
    "minus infinity": (b'{"model": "gpt-test", "x": [{"y": -Infinity}]}', "invalid_json"),
    "control character": (b'{"model": "gpt\ntest"}', "invalid_json"),
    "html": (b"<html></html>", "invalid_json"),
    "null": (b"null", "invalid_request"),
    "list": (b"[]", "invalid_request"),
    "text": (b'"gpt-test"', "invalid_request"),
    "number": (b"1e400", "invalid_request"),
    "object without fields": (b"{}", "invalid_request"),
    "latin-1": ('{"model": "gpt-test", "messages": "é"}'.encode("latin-1"), "invalid_utf8"),
    "half a character": (b'{"model": "gpt-test"}\xe6\x97', "invalid_utf8"),
    "surrogate in utf-8": (b'{"model": "\xed\xa0\x80"}', "invalid_utf8"),
    "overlong nul": (b'{"model": "\xc0\x80"}', "invalid_utf8"),
    "duplicate": (b'{"model": "gpt-test", "stream": true, "stream": false}', "duplicate_key"),
    "duplicate in disguise": (b'{"model": "gpt-test", "str\\u0065am": true, "stream": false}', "duplicate_key"),
    "deep lists": (b'{"model": "gpt-test", "messages": ' + DEEP + b"}", "too_deep"),
    "deep objects": (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, "too_deep"),
    "deep in an unknown field": (b'{"model": "gpt-test", "x": ' + DEEP + b"}", "too_deep"),
}


@pytest.mark.parametrize(("body", "code"), NO_REQUEST.values(), ids=NO_REQUEST.keys())
async def test_what_is_no_request(caller: Caller, family: Family, body: bytes, code: str) -> None:
    await refuses(caller, family, body, 400, code)


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity"])
async def test_a_compressed_body_is_named_as_such(caller: Caller, family: Family, encoding: str) -> None:
    reply = await caller.visit.ask(caller.post(family.path, b"\x1f\x8b\x08", f"Content-Encoding: {encoding}"))
    refused(reply, family, 400, "unsupported_content_type")
    assert "content-encoding" in reply.json["error"]["message"]
    good(caller.visit.up, family)
    assert (await caller.ask(family, "Content-Encoding: identity")).status == 200


HUGE = 10**400
WRONG: dict[str, tuple[str, list[Any]]] = {
    "model": ("both", [None, 7, True, "", [], {}, "x" * 300, "a\nb"]),
    "messages": ("both", [None, "hi", {}, [], 7, ["hi"], [None], [{"role": "user", "content": 7}], [[]]]),
    "stream": ("both", ["true", 1, 0, [], {}]),
    "max_tokens": ("both", ["7", 1.5, True, -1, 2**31, HUGE, [], {}]),
    "tools": ("both", [{}, "x", 7, [7], ["x"], [[]]]),
    "service_tier": ("both", [7, [], {}, True]),
    "max_completion_tokens": ("openai", ["7", 1.5, True, 0, -1, 2**63, HUGE]),
    "n": ("openai", ["1", 1.5, 0, -1, 129, HUGE]),
    "stream_options": ("openai", [True, [], "x", {"include_usage": "yes"}]),
    "modalities": ("openai", ["audio", {}, [7]]),
    "functions": ("openai", [{}, 7]),
    "store": ("openai", ["yes", 1]),
    "prompt_cache_options": ("openai", [7, []]),
    "system": ("anthropic", [7, {}, ["x"], [7]]),
    "cache_control": ("anthropic", ["x", [], 7]),
    "speed": ("anthropic", [7, []]),
    "inference_geo": ("anthropic", [7, []]),
}


@pytest.mark.parametrize("field", WRONG.keys())
async def test_every_known_field_of_a_wrong_type(caller: Caller, family: Family, field: str) -> None:
    whose, values = WRONG[field]
    if whose not in ("both", "openai" if family.openai else "anthropic"):
        values = []  # unknown to this family: it passes as it is
    visit = caller.visit
    wire = await visit.connect()
    for stream in (False, True):
        for value in values:
            if field != "stream":
                wire.send(caller.post(family.path, changed(family, stream=stream, **{field: value})))
            else:
                wire.send(caller.post(family.path, changed(family, stream=value)))
            reply = await wire.reply()
            refused(reply, family, 400, "invalid_request")
            told = reply.json["error"]
            assert (told["param"] if family.openai else told["message"].partition(":")[0]) == field
    assert visit.up.requests == []
    good(visit.up, family)
    assert (await caller.ask(family)).status == 200


async def test_numbers_no_field_of_ours_pass_as_they_were_written(caller: Caller, family: Family) -> None:
    """What the gateway need not understand is the upstream's to judge, digit by digit."""
    good(caller.visit.up, family)
    digits = b"9" * 5000
    body = changed(family)[:-1] + b', "seed": ' + digits + b', "x": {"y": 1e999, "y": -0.0}}'
    assert (await caller.visit.ask(caller.post(family.path, body))).status == 200
    (sent,) = caller.visit.up.requests
    assert b'"seed":' + digits in sent.body
    assert b'{"y": 1e999, "y": -0.0}' in sent.body


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "json"],
)
async def test_a_wrong_content_type(caller: Caller, family: Family, kind: str) -> None:
    await refuses(caller, family, changed(family), 400, "unsupported_content_type", f"Content-Type: {kind}")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", ""])
async def test_a_right_content_type(caller: Caller, family: Family, kind: str) -> None:
    good(caller.visit.up, family)
    assert (await caller.ask(family, f"Content-Type: {kind}")).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_models_that_are_not_served(caller: Caller, family: Family, stream: bool) -> None:
    visit = caller.visit
    refused(await caller.ask(family, model="no-such-model", stream=stream), family, 404, "model_not_found")
    reply = await caller.ask(family, model="unpriced-test", stream=stream)
    refused(reply, family, 503, "model_unpriced")
    assert reply["x-should-retry"] == "false"
    other, field = ("claude-test", "seed") if family.openai else ("gpt-test", "top_k")
    reply = await caller.ask(family, "x-aurixel-strict: true", model=other, stream=stream, **{field: 1})
    refused(reply, family, 400, "translation_lossy")
    assert visit.up.requests == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("service_tier", "flex", "unpriced_feature"),
        ("store", True, "unpriced_feature"),
        ("background", True, "unpriced_feature"),
    ],
)
async def test_what_no_price_describes_in_chat(caller: Caller, field: str, value: Any, code: str) -> None:
    family = Family("openai")
    refused(await caller.ask(family, **{field: value}), family, 400, code)
    assert caller.visit.up.requests == []


@pytest.mark.parametrize("field", ["service_tier", "speed", "inference_geo"])
async def test_what_no_price_describes_in_messages(caller: Caller, field: str) -> None:
    family = Family("anthropic")
    refused(await caller.ask(family, **{field: "fast"}), family, 400, "unpriced_feature")
    assert caller.visit.up.requests == []


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large(caller: Caller, family: Family) -> None:
    wire = await caller.visit.connect()
    wire.send(caller.post(family.path, b" " * (MAX_BODY + 1)))
    reply = await wire.reply()
    refused(reply, family, 413, "body_too_large")
    assert reply["connection"] == "close"
    assert await wire.closed() == b""


async def test_a_body_that_turns_out_too_large(caller: Caller, family: Family) -> None:
    wire = await caller.visit.connect()
    piece = b" " * 65_536
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for _ in range(MAX_BODY // len(piece) + 1))
    wire.send(caller.head(family.path, "Transfer-Encoding: chunked") + b"\r\n" + pieces)
    reply = await wire.reply()
    refused(reply, family, 413, "body_too_large")
    assert reply["connection"] == "close"
    wire.send(b"0\r\n\r\n")
    assert await wire.closed() == b""


async def test_a_body_of_exactly_the_limit(caller: Caller, family: Family) -> None:
    good(caller.visit.up, family)
    body = changed(family)
    body += b" " * (MAX_BODY - len(body))
    assert (await caller.visit.ask(caller.post(family.path, body))).status == 200
    head = caller.head(family.path, "Transfer-Encoding: chunked") + b"\r\n"
    assert (await caller.visit.ask(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))).status == 200


async def test_headers_that_are_too_large(caller: Caller, family: Family) -> None:
    wire = await caller.visit.connect()
    wire.send(caller.head(family.path, "X-Long: " + "x" * 40_000))
    assert (await wire.reply()).status == 431
    assert await wire.closed() == b""


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["Authorization: Bearer ", "x-api-key: "])
async def test_keys_that_open_nothing(visit: Visit, family: Family, door: str) -> None:
    alive = await visit.caller()
    revoked, expired, closed, suspended = [await visit.caller() for _ in range(4)]
    good(visit.up, family)
    for caller in (revoked, expired, closed, suspended):
        assert (await caller.ask(family)).status == 200
    visit.up.requests.clear()
    gw, store, clock = visit.gw, visit.gw.store, visit.gw.clock
    await revoke_key(store, clock, revoked.email, revoked.key.split("-")[1])
    await close_account(store, clock, closed.email)
    profile = await find_account(store, suspended.email)
    await store.profile_status(profile.account, "suspended")
    soon = await create_key(
        store,
        clock,
        gw.settings.security.secret,
        expired.email,
        parse_limits=limits_parser([bound.check for bound in gw.app.checks]),
        expires_ms=visit.clock.wall_ms() + 1000,
    )
    visit.clock.ahead += 2  # the cache believes nothing of before any more, and that key's time has passed
    typo = alive.key[:-1] + ("a" if alive.key[-1] != "a" else "b")
    body = json.dumps(family.body).encode()
    for key, status, code in [
        ("", 401, "missing_key"),
        ("nonsense", 401, "invalid_key"),
        (typo, 401, "invalid_key"),
        (alive.key.swapcase(), 401, "invalid_key"),
        (alive.key + "x", 401, "invalid_key"),
        (revoked.key, 401, "key_revoked"),
        (soon.token.reveal(), 401, "key_expired"),
        (closed.key, 401, "key_revoked"),
        (suspended.key, 403, "account_suspended"),
    ]:
        wire = await visit.connect()
        head = f"POST {family.path} HTTP/1.1\r\nHost: gateway\r\n{door}{key}\r\nContent-Length: {len(body)}\r\n\r\n"
        for _ in range(2):  # asked of the store, and of the cache; the connection goes on
            wire.send(head.encode() + body)
            refused(await wire.reply(), family, status, code)
        wire.send(head.encode())  # before any of the body has come
        refused(await wire.reply(), family, status, code)
    assert visit.up.requests == []
    assert (await alive.ask(family)).status == 200


# --- framing ----------------------------------------------------------------------------------------------------------


def tricks(caller: Caller, family: Family) -> dict[str, bytes]:
    body = json.dumps(family.body).encode()
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    coded = caller.head(family.path, "Transfer-Encoding: chunked") + b"\r\n"
    return {
        "both lengths": caller.head(family.path, "Transfer-Encoding: chunked", f"Content-Length: {len(chunk)}")
        + b"\r\n"
        + chunk,
        "two lengths": caller.head(family.path, "Content-Length: 5", f"Content-Length: {len(body)}") + b"\r\n" + body,
        "signed length": caller.head(family.path, f"Content-Length: +{len(body)}") + b"\r\n" + body,
        "gzip coding": caller.head(family.path, "Transfer-Encoding: gzip, chunked") + b"\r\n" + chunk,
        "identity coding": caller.head(family.path, "Transfer-Encoding: identity") + b"\r\n" + body,
        "chunk extension": coded + b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "chunk size of letters": coded + b"zz\r\n" + body + b"\r\n0\r\n\r\n",
        "signed chunk size": coded + b"+%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "negative chunk size": coded + b"-1\r\n" + body,
        "chunk size too small": coded + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 1, body),
        "no chunk size": coded + b"\r\n" + body,
        "trailer": coded + b"%x\r\n%b\r\n0\r\nX-Evil: 1\r\n\r\n" % (len(body), body),
    }


@pytest.mark.parametrize("trick", tricks(Caller(None, "", ""), Family("openai")))  # type: ignore[arg-type]
async def test_framing_tricks_are_refused_and_close(caller: Caller, family: Family, trick: str) -> None:
    visit = caller.visit
    wire = await visit.connect()
    smuggled = caller.post(family.path, family.body)
    wire.send(tricks(caller, family)[trick] + smuggled)
    reply = await wire.reply()
    refused(reply, family, 400, "bad_framing")
    assert reply["connection"] == "close"
    assert await wire.closed() == b""
    assert visit.up.requests == []
    assert visit.gw.app.ledger.totals().open == 0


# --- one after another --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_pipelined_requests_are_answered_in_order(caller: Caller, family: Family, stream: bool) -> None:
    good(caller.visit.up, family, stream=stream)
    wire = await caller.visit.connect()
    one = caller.post(family.path, {**family.body, "stream": stream})
    bad = caller.post(family.path, b"{")
    wire.send(one + bad + one + one)
    statuses = [(await wire.reply()).status for _ in range(4)]
    assert statuses == [200, 400, 200, 200]
    assert len(await caller.records(3)) == 3
    assert len(caller.visit.up.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_good_request_before_garbage_is_answered_whole(caller: Caller, family: Family, stream: bool) -> None:
    good(caller.visit.up, family, stream=stream)
    wire = await caller.visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": stream}) + b"GARBAGE\r\n\r\n" + caller.post(family.path, {}))
    first = await wire.reply()
    assert first.status == 200
    assert first.body.rstrip().endswith(b"[DONE]" if family.openai and stream else b"}")
    assert (await wire.reply()).status == 400
    assert await wire.closed() == b""
    assert (await caller.record()).cell == "ok"


# --- clients that are slow, or leave --------------------------------------------------------------------------------------


def close(wire: Wire) -> None:
    wire.writer.close()


def reset(wire: Wire) -> None:
    wire.reset()


def half_close(wire: Wire) -> None:
    wire.writer.write_eof()


LEAVING = pytest.mark.parametrize("leave", [close, reset, half_close])


@LEAVING
@pytest.mark.parametrize("stage", ["in the line", "in the headers", "after the headers", "in the body"])
async def test_a_client_that_leaves_before_it_has_asked(caller: Caller, family: Family, leave: Any, stage: str) -> None:
    visit = caller.visit
    whole = caller.post(family.path, family.body)
    body = whole.index(b"\r\n\r\n") + 4
    cut = {"in the line": 7, "in the headers": 60, "after the headers": body, "in the body": body + 9}[stage]
    edge = visit.gw.app._edge
    before = edge.connections
    wire = await visit.connect()
    wire.send(whole[:cut])
    if cut >= body:
        await visit.until(lambda: edge.in_flight)
    else:
        await visit.until(lambda: edge.connections > before)
    leave(wire)
    await visit.until(lambda: edge.connections == before)
    assert visit.up.requests == []
    assert await visit.gw.records(caller.email) == []


@LEAVING
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte(caller: Caller, family: Family, leave: Any, stream: bool) -> None:
    visit = caller.visit
    visit.up.on("*", scripted.stall)
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": stream}))
    await visit.up.received()
    leave(wire)
    await visit.up.disconnected()
    record = await caller.record()
    assert (record.cell, record.measured) == ("client_gone", False)
    assert record.counts.keys() == {"input"}


@LEAVING
async def test_a_client_that_leaves_in_the_stream(caller: Caller, family: Family, leave: Any) -> None:
    visit = caller.visit
    events = family.events(family.usage(), done=False)[:5]
    visit.up.on("*", scripted.event_stream(events, end=False), scripted.stall)
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": True}))
    await wire.reader.readuntil(b"to ")
    leave(wire)
    await visit.up.disconnected()
    record = await caller.record()
    assert (record.cell, record.measured) == ("client_gone", False)
    assert record.counts["output"] > 0


@pytest.mark.parametrize("leave", [close, reset])
async def test_a_client_that_leaves_while_a_write_waits_for_it(visit: Visit, family: Family, leave: Any) -> None:
    caller = await visit.caller("1000.00")
    text = "word" * 8000
    events = family.events(family.usage(), done=False, text=text)
    word = next(event for event in events if b"word" in event)
    start = events[: events.index(word)]
    sent = [0]

    async def pour(call: scripted.Call) -> None:
        while True:
            await scripted.chunked([word], end=False)(call)
            sent[0] += 1

    visit.up.on("*", scripted.event_stream(start, end=False), pour)
    wire = await visit.connect(receive_buffer=4096)
    wire.writer.transport.pause_reading()
    wire.send(caller.post(family.path, {**family.body, "stream": True}))
    streams = visit.gw.app._edge._streams
    await visit.until(lambda: any(stream.writing() for stream in streams))
    last, same = -1, 0
    while same < 200:  # until everybody between here and the upstream waits
        await asyncio.sleep(0)
        last, same = sent[0], same + 1 if sent[0] == last else 0
    leave(wire)
    await visit.up.disconnected()
    record = await caller.record()
    assert (record.cell, record.measured) == ("client_gone", False)
    assert record.counts["output"] > 0


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_pipelines_and_leaves(caller: Caller, family: Family, leave: Any, stream: bool) -> None:
    """A byte that has come too early must not hide that its sender left."""
    visit = caller.visit
    visit.up.on("*", scripted.stall)
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": stream}) + b"P")
    await visit.up.received()
    leave(wire)
    await visit.up.disconnected()
    assert (await caller.record()).cell == "client_gone"


async def test_a_client_that_sends_far_ahead_waits_its_turn(caller: Caller, family: Family) -> None:
    visit = caller.visit
    go_on = asyncio.Event()
    visit.up.on("*", scripted.wait(go_on), scripted.answer(json=family.reply(family.usage())))
    body = changed(family)
    long = caller.post(family.path, body + b" " * (200_000 - len(body)))
    wire = await visit.connect()
    wire.send(long * 6)
    await visit.up.received()
    (stream,) = visit.gw.app._edge._streams
    last, same = -1, 0
    while same < 200:  # until nothing more is read of it
        await asyncio.sleep(0)
        now = stream._read_buffer_size
        last, same = now, same + 1 if now == last else 0
    assert 0 < last < len(long) * 4
    go_on.set()
    assert [(await wire.reply()).status for _ in range(6)] == [200] * 6


# --- slow clients -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def short_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    times = "header_timeout = 0.2\nbody_timeout = 0.2\nidle_timeout = 0.2\nstall_timeout = 0.2"
    async with sharing(tmp_path_factory.mktemp("impatient"), server=times) as shared:
        yield shared


@pytest.fixture
async def impatient(short_house: House) -> AsyncIterator[Caller]:
    async with visiting(short_house) as visit:
        yield await visit.caller("1000.00")


async def test_headers_that_never_end(impatient: Caller, family: Family) -> None:
    for sent in (b"P", impatient.head(family.path), impatient.head(family.path, "Content-Length: 2")):
        wire = await impatient.visit.connect()
        wire.send(sent)
        assert (await wire.reply()).status == 408
        assert await wire.closed() == b""


@pytest.mark.parametrize("sent", [0, 5])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_never_comes(impatient: Caller, family: Family, sent: int, chunked: bool) -> None:
    wire = await impatient.visit.connect()
    if chunked:
        wire.send(impatient.head(family.path, "Transfer-Encoding: chunked") + b"\r\n" + b"%x\r\n" % 100 + b"{" * sent)
    else:
        wire.send(impatient.head(family.path, "Content-Length: 100") + b"\r\n" + b"{" * sent)
    reply = await wire.reply()
    refused(reply, family, 408, "request_timeout")
    assert reply["connection"] == "close"
    assert impatient.visit.up.requests == []
    assert await impatient.visit.gw.records(impatient.email) == []


async def test_a_client_that_takes_nothing_has_left(impatient: Caller, family: Family) -> None:
    visit = impatient.visit
    word = next(event for event in family.events(family.usage(), text="word" * 8000) if b"word" in event)
    events = family.events(family.usage(), text="word" * 8000)

    async def pour(call: scripted.Call) -> None:
        while True:
            await scripted.chunked([word], end=False)(call)

    visit.up.on("*", scripted.event_stream(events[: events.index(word)], end=False), pour)
    wire = await visit.connect(receive_buffer=4096)
    wire.writer.transport.pause_reading()
    wire.send(impatient.post(family.path, {**family.body, "stream": True}))
    await visit.up.received()
    await visit.up.disconnected()
    assert (await impatient.record()).cell == "client_gone"


# --- anything -------------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(
    ["model", "messages", "max_tokens", "stream", "n", "tools", "content", "role", "type", "image_url", "url", "source", "text"]
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["gpt-test", "claude-test", "user", "image_url", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.builds(
    lambda more, name: (more, name), st.dictionaries(NAMES, VALUES, max_size=4), st.sampled_from(FAMILIES)
) | st.tuples(VALUES, st.sampled_from(FAMILIES))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=BODIES, cut=st.none() | st.integers(0, 40))
async def test_anything_is_answered_in_the_family(caller: Caller, drawn: tuple[Any, str], cut: int | None) -> None:
    more, name = drawn
    family, visit = Family(name), caller.visit
    stream = isinstance(more, dict) and more.get("stream") is True
    good(visit.up, family, stream=stream)
    body = json.dumps({**family.body, **more} if isinstance(more, dict) else more).encode()
    if cut is not None:
        body = body[:-cut] if cut else body + b"}"
    wire = visit.wires[0] if visit.wires else await visit.connect()
    before = len(visit.up.requests)
    wire.send(caller.post(family.path, body))
    reply = await wire.reply()
    if reply.status == 200:
        assert len(visit.up.requests) == before + 1
        return
    assert 400 <= reply.status < 500
    assert len(visit.up.requests) == before
    code = reply.json["error"]["code"] if family.openai else reply.json["error"]["details"]["error_code"]
    refused(reply, family, reply.status, code)
