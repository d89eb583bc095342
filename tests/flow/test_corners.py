"""Corners a review found, each caused for real: who pays when nothing was sent, what a check may put on a reply, and what
becomes of connections and of requests that a shutdown meets half-way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.plugin import Allow
from aurixel.testing import answers, scripted
from aurixel.testing.scripted import Call, ScriptedUpstream
from tests.flow.gateway import OPENAI_BODY, Running, configure, running, upstream

CHAT = "/v1/chat/completions"


async def test_a_client_that_leaves_before_anything_was_sent_pays_nothing(
    tmp_path: Path, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    """The upstream takes the connection and never says a word of TLS: the request has gone nowhere."""
    waiting = asyncio.Event()
    up.greet(scripted.tell(waiting), scripted.stall)
    file = configure(tmp_path, upstreams=upstream("up", "openai", f"{up.url.replace('http:', 'https:')}/v1"))
    async with running(file) as gw:
        key = await gw.key()
        headers = {"authorization": f"Bearer {key}"}
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(http.post(gw.url + CHAT, json=OPENAI_BODY, headers=headers))
            await waiting.wait()
            asking.cancel()
        (record,) = await gw.settled()
        assert (record.cell, record.cost, record.counts) == ("refused", 0, {})


@pytest.mark.parametrize(
    "header", [("x-bad", "two\nlines"), ("x-bad", "Ω"), ("content-length", "5"), ("X-Upper", "1"), ("", "1")]
)
async def test_a_check_cannot_break_a_reply_that_was_paid_for(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, expected_logs: Any, header: tuple[str, str]
) -> None:
    """No plugin of ours answers so: the check in force is told to."""
    expected_logs("aurixel.plugins", "plugin limits failed in check: TypeError", level=logging.ERROR, times=1)
    up.reply(json=answers.openai_chat_reply("Hi", answers.openai_chat_usage(20, 7)))

    async def check(*_: object) -> Allow:
        return Allow((header,))

    gw.app.checks[0].check.check = check  # type: ignore[method-assign]
    key = await gw.key()
    async with http.post(gw.url + CHAT, json=OPENAI_BODY, headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 503
        assert (await reply.json())["error"]["code"] == "policy_unavailable"
    assert up.requests == []
    assert (await gw.account()).spent == 0


async def test_the_headers_of_the_checks_are_on_failures_too(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    up.reply(status=500, json=answers.openai_error("no"))
    key = await gw.key(limits={"rpm": 100})
    poor = await gw.key("poor@example.com", "", limits={"rpm": 100})
    for token, status in ((key, 502), (poor, 429)):
        async with http.post(gw.url + CHAT, json=OPENAI_BODY, headers={"authorization": f"Bearer {token}"}) as reply:
            assert reply.status in (status, 503)
            assert reply.headers["x-ratelimit-limit-requests"] == "100"


async def test_a_stream_gives_its_connection_back(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    """The end of the body comes a little after the last event, as it does on a real network."""
    events = answers.openai_chat_events("Hi", answers.openai_chat_usage(20, 7))

    async def late_end(call: Call) -> None:
        await scripted.event_stream(events, end=False)(call)
        await call.send(b"0\r\n\r\n")

    up.on("*", late_end)
    key = await gw.key()
    for _ in range(5):
        headers = {"authorization": f"Bearer {key}"}
        async with http.post(gw.url + CHAT, json=OPENAI_BODY | {"stream": True}, headers=headers) as reply:
            assert (await reply.read()).endswith(b"data: [DONE]\n\n")
        await gw.settled()
    assert up.connections <= 2


async def test_a_stream_whose_end_never_comes_is_let_go(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    up.on(
        "*",
        scripted.event_stream(answers.openai_chat_events("Hi", answers.openai_chat_usage(20, 7)), end=False),
        scripted.stall,
    )
    key = await gw.key()
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(gw.url + CHAT, json=OPENAI_BODY | {"stream": True}, headers=headers) as reply:
        assert (await reply.read()).endswith(b"data: [DONE]\n\n")
    await up.disconnected()
    (record,) = await gw.settled()
    assert (record.cell, record.measured) == ("ok", True)


async def test_nothing_is_sent_upstream_after_the_word_to_stop(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown meets a request between its hold and its upstream: it is refused in its own dialect, and pays nothing."""
    service: Any = gw.app.service
    real = gw.app.ledger.hold

    def slow_hold(*args: Any) -> Any:
        service.end()
        return real(*args)

    monkeypatch.setattr(gw.app.ledger, "hold", slow_hold)
    key = await gw.key()
    async with http.post(gw.url + CHAT, json=OPENAI_BODY, headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 503
        assert (await reply.json())["error"]["code"] == "shutting_down"
    assert up.requests == []
    (record,) = await gw.settled()
    assert (record.cell, record.cost) == ("refused", 0)
