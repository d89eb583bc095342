"""Every ending a chat request can have, caused for real: what the client gets, and what the settlement matrix charges.

Pitfalls 2, 5, 6, 7 and 8: after any ending nothing is held, a client that leaves is charged what it was sent, an error
text is never charged, the stream decides and not the status, and usage that nobody reported is estimated and marked.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from aurixel.storage import UsageRecord
from aurixel.testing import answers, scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import ANTHROPIC_BODY, OPENAI_BODY, Running
from tests.harness.guard import ExpectedLogs

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
TEXT = "Hello to the whole wide world"
WORDS = 6

FAMILIES = ["openai", "anthropic"]


class Family:
    """One family's way to ask and to be answered."""

    def __init__(self, name: str) -> None:
        self.openai = name == "openai"
        self.path = CHAT if self.openai else MESSAGES
        self.body: dict[str, Any] = OPENAI_BODY if self.openai else ANTHROPIC_BODY

    def usage(self) -> Any:
        """20 tokens in, 7 out."""
        return answers.openai_chat_usage(20, 7) if self.openai else answers.anthropic_messages_usage(20, 7)

    def cost(self, input: int, output: int) -> int:
        """In nano-dollars, by the prices of `tests.flow.gateway`."""
        return input * 150 + output * 600 if self.openai else input * 3000 + output * 15000

    def reply(self, usage: Any, text: str = TEXT) -> Any:
        """A whole reply."""
        return (answers.openai_chat_reply if self.openai else answers.anthropic_messages_reply)(text, usage)

    def events(self, usage: Any, *, done: bool = True, text: str = TEXT) -> list[bytes]:
        """A stream."""
        return (answers.openai_chat_events if self.openai else answers.anthropic_messages_events)(text, usage, done=done)

    def error_event(self) -> bytes:
        """The upstream's own error event."""
        if self.openai:
            return b'data: {"error":{"message":"Overloaded SECRET-TEXT","type":"server_error","param":null,"code":null}}\n\n'
        return answers.anthropic_error_event("Overloaded SECRET-TEXT")

    def failed(self, stream: bytes) -> bool:
        """Whether a stream ended with the family's error event and no clean end."""
        last = stream.rstrip().rpartition(b"\n\n")[2]
        if self.openai:
            return b'"error"' in last and b"[DONE]" not in stream
        return last.startswith(b"event: error\n") and b"message_stop" not in stream


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


async def ask(http: aiohttp.ClientSession, gw: Running, key: str, family: Family, **more: Any) -> tuple[int, Any, bytes]:
    """One request, to the end of its answer: status, headers, body."""
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(gw.url + family.path, json=family.body | more, headers=headers) as reply:
        return reply.status, reply.headers, await reply.read()


async def only(gw: Running) -> UsageRecord:
    """The one record, with nothing held and the books in balance."""
    (record,) = await gw.settled()
    await in_balance(gw)
    return record


async def in_balance(gw: Running) -> None:
    """Nothing is held, and the account adds up to its records."""
    totals = gw.app.ledger.totals()
    assert (totals.held, totals.open) == (0, 0)
    account, records = await gw.account(), await gw.records()
    assert account.spent + account.written_off == sum(record.cost for record in records)
    assert account.available + sum(lease.amount for lease in account.leases.values()) == account.credited - account.spent


@pytest.mark.parametrize("stream", [False, True])
async def test_ok_is_charged_as_measured(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family, stream: bool
) -> None:
    key = await gw.key()
    if stream:
        up.stream(family.events(family.usage()))
    else:
        up.reply(json=family.reply(family.usage()))
    status, headers, body = await ask(http, gw, key, family, stream=stream)
    assert status == 200
    assert TEXT.rsplit(maxsplit=1)[-1].encode() in body
    record = await only(gw)
    assert (record.cell, record.measured, record.counts) == ("ok", True, {"input": 20, "output": 7})
    assert record.cost == family.cost(20, 7)
    if not stream:
        assert headers["x-aurixel-cost"] == f"{record.cost / 1e9:.9f}".rstrip("0")
    assert headers["x-request-id"] == headers["request-id"] == record.request_id


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_nobody_reported_is_estimated_and_marked(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, stream: bool
) -> None:
    family = Family("openai")
    key = await gw.key()
    if stream:
        up.stream(family.events(None))
    else:
        up.reply(json=family.reply(None))
    status, _, _ = await ask(http, gw, key, family, stream=stream)
    assert status == 200
    record = await only(gw)
    assert (record.cell, record.measured) == ("ok", False)
    assert record.counts["output"] > 0
    assert record.cost == family.cost(record.counts["input"], record.counts["output"])


async def test_usage_is_always_asked_for_and_kept_from_who_did_not_ask(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    family = Family("openai")
    key = await gw.key()
    up.stream(family.events(family.usage()))
    _, _, quiet = await ask(http, gw, key, family, stream=True)
    _, _, asked = await ask(http, gw, key, family, stream=True, stream_options={"include_usage": True})
    assert [request.json()["stream_options"] for request in up.requests] == [{"include_usage": True}] * 2
    assert b'"prompt_tokens":20' not in quiet
    assert b'"prompt_tokens":20' in asked
    assert quiet.endswith(b"data: [DONE]\n\n")
    records = await gw.settled(count=2)
    assert {record.cost for record in records} == {family.cost(20, 7)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_a_refusal_costs_nothing_and_shows_no_text_that_is_not_the_clients(
    gw: Running,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    family: Family,
    status: int,
    stream: bool,
    expected_logs: ExpectedLogs,
) -> None:
    key = await gw.key()
    if status in (401, 403):
        name = "up" if family.openai else "upa"
        expected_logs(
            "aurixel.gateway", rf"^upstream {name} refuses our key .*upstream_credentials, status {status}\)$", times=1
        )
    error = (answers.openai_error if family.openai else answers.anthropic_error)("organization org-SECRET sk-up...xyz")
    up.reply(json=error, status=status)
    answered, headers, body = await ask(http, gw, key, family, stream=stream)
    told = json.loads(body)
    assert told["error"]["message"]
    if status not in (400, 404):
        assert b"SECRET" not in body
    if status in (400, 404, 429):
        assert answered == status
    else:
        assert answered in (502, 503, 529), "our own credentials and quota are not the client's business"
    assert headers["x-aurixel-cost"] == "0.00"
    record = await only(gw)
    assert (record.cell, record.cost, record.counts) == ("refused", 0, {})
    await ask(http, gw, key, family, stream=stream)  # said once a minute at most


async def test_an_empty_answer_costs_nothing(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family
) -> None:
    key = await gw.key()
    usage = answers.openai_chat_usage(20, 0) if family.openai else answers.anthropic_messages_usage(20, 0)
    up.stream(family.events(usage, text=""))
    await ask(http, gw, key, family, stream=True)
    record = await only(gw)
    assert (record.cell, record.cost) == ("empty", 0)


@pytest.mark.parametrize("how", ["reset", "close", "clean"])
async def test_a_death_in_the_stream_is_an_error_event_and_what_was_delivered_is_charged(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family, how: str
) -> None:
    key = await gw.key()
    events = family.events(None if family.openai else family.usage(), done=False)
    events = events[:-2]
    end: list[Any] = {"reset": [scripted.reset], "close": [scripted.close], "clean": []}[how]
    up.on("*", scripted.event_stream(events, end=how == "clean"), *end)
    status, _, body = await ask(http, gw, key, family, stream=True)
    assert status == 200
    assert family.failed(body)
    record = await only(gw)
    assert (record.cell, record.measured) == ("died", False)
    assert record.counts["input"] > 0
    assert 0 < record.counts["output"] <= len(TEXT)
    assert record.cost == family.cost(record.counts["input"], record.counts["output"])


async def test_an_error_event_after_200_is_a_failure_and_its_text_is_not_charged(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family
) -> None:
    key = await gw.key()
    whole = family.events(family.usage())
    up.stream([*whole[:5], family.error_event()])
    status, _, body = await ask(http, gw, key, family, stream=True)
    assert status == 200
    assert family.failed(body)
    assert b"SECRET-TEXT" not in body
    record = await only(gw)
    assert (record.cell, record.measured) == ("error_event", False)


async def test_an_error_event_as_the_first_event_is_a_refusal_with_a_status(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family
) -> None:
    key = await gw.key()
    up.stream([family.error_event()])
    status, headers, _ = await ask(http, gw, key, family, stream=True)
    assert status >= 500
    assert headers["content-type"] == "application/json"
    record = await only(gw)
    assert (record.cell, record.cost) == ("refused", 0)


@pytest.mark.parametrize("sent", range(1, WORDS + 5))
async def test_a_client_that_leaves_at_any_chunk_is_charged_what_it_was_sent(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family, sent: int
) -> None:
    key = await gw.key()
    events = family.events(family.usage(), done=False)[:sent]
    up.on("*", scripted.event_stream(events, end=False), scripted.stall)
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(gw.url + family.path, json=family.body | {"stream": True}, headers=headers) as reply:
        got = b""
        # The usage event is not for a client that did not ask, so the last event may never come this far.
        wanted = sum(len(event) for event in events if b'"prompt_tokens"' not in event)
        while len(got) < wanted:
            got += await reply.content.readany()
        reply.close()
    await up.disconnected()
    record = await only(gw)
    assert record.cell == "client_gone"
    words = sum(1 for event in events if b"ello" in event or b'"content":"' in event or b"text_delta" in event)
    if b'"completion_tokens"' in b"".join(events):
        assert (record.measured, record.counts) == (True, {"input": 20, "output": 7})
    else:
        assert record.measured is False
        assert record.counts["input"] > 0
        assert record.counts.get("output", 0) <= 8 * (words + 1)
    assert record.cost == family.cost(record.counts["input"], record.counts.get("output", 0))


async def test_a_client_that_leaves_before_the_first_byte_closes_the_upstream(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family
) -> None:
    key = await gw.key()
    up.on("*", scripted.stall)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask(http, gw, key, family))
        await up.received()
        asking.cancel()
    await up.disconnected()
    record = await only(gw)
    assert record.cell == "client_gone"
    assert record.counts.get("output", 0) == 0
    assert record.counts["input"] > 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([scripted.answer(body=b"{not json", headers=[("content-type", "application/json")])], id="bad-json"),
        pytest.param([scripted.answer(body=b"<html>", headers=[("content-type", "text/html")])], id="html"),
        pytest.param([scripted.answer(body=b"[]", headers=[("content-type", "application/json")])], id="not-an-object"),
        pytest.param([scripted.reset], id="reset"),
        pytest.param([scripted.close], id="closed"),
        pytest.param(
            [scripted.head(200, [("content-length", "1000"), ("content-type", "application/json")]), scripted.close], id="cut"
        ),
        pytest.param([scripted.answer(status=302, headers=[("location", "http://127.0.0.1:1/")])], id="redirect"),
    ],
)
async def test_upstream_garbage_is_a_provider_error_and_costs_nothing(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family, script: list[Any]
) -> None:
    key = await gw.key()
    up.on("*", *script)
    status, _, body = await ask(http, gw, key, family)
    assert 500 < status < 600
    assert json.loads(body)["error"]["message"]
    record = await only(gw)
    assert (record.cell, record.cost) == ("refused", 0)


@pytest.mark.parametrize("usage", [-1, 1.5, "12", True, 2**80])
@pytest.mark.parametrize("stream", [False, True])
async def test_impossible_usage_is_refused_not_guessed(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, family: Family, usage: Any, stream: bool
) -> None:
    key = await gw.key()
    bad = family.usage() | ({"completion_tokens": usage} if family.openai else {"output_tokens": usage})
    if stream:
        events = family.events(family.usage())
        at = -2
        events[at] = events[at].replace(b'_tokens":7', f'_tokens":{json.dumps(usage)}'.encode())
        up.stream(events)
    else:
        up.reply(json=family.reply(bad))
    status, _, body = await ask(http, gw, key, family, stream=stream)
    record = await only(gw)
    if stream:
        assert status == 200
        assert family.failed(body)
        assert (record.cell, record.measured) == ("died", False)
    else:
        assert status == 502
        assert (record.cell, record.cost) == ("refused", 0)
