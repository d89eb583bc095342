"""Counting tokens through the whole gateway: the upstream's own count, an estimate marked as one, never a charge."""

from __future__ import annotations

from typing import Any

import aiohttp
import anthropic
import pytest

from aurixel.testing import answers, scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running

COUNT = "/v1/messages/count_tokens"
BODY = {"model": "claude-test", "messages": [{"role": "user", "content": "Count me, and nobody pays"}]}

pytestmark = pytest.mark.deadline(30)


async def ask(gw: Running, http: aiohttp.ClientSession, key: str, body: Any = BODY) -> tuple[int, str, Any]:
    async with http.post(gw.url + COUNT, json=body, headers={"x-api-key": key}) as reply:
        return reply.status, reply.headers.get("x-aurixel-counted", ""), await reply.json()


async def test_the_upstream_that_would_answer_counts(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    up.reply(json={"input_tokens": 4711}, path=COUNT)
    key = await gw.key(limits={"rpm": 10})
    status, counted, answer = await ask(gw, http, key)
    assert (status, counted, answer) == (200, "upstream", {"input_tokens": 4711})
    (sent,) = up.requests
    assert sent.json() == {**BODY, "model": "up-claude"}
    assert sent.headers["x-api-key"] == "sk-upstream-upa"
    doc = await gw.account()
    assert (doc.spent, await gw.records()) == (0, [])


async def test_the_official_sdk_counts(gw: Running, up: ScriptedUpstream) -> None:
    up.reply(json={"input_tokens": 12}, path=COUNT)
    async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=await gw.key()) as client:
        counted = await client.messages.count_tokens(model="claude-test", messages=[{"role": "user", "content": "x"}])
    assert counted.input_tokens == 12


@pytest.mark.parametrize("trouble", ["500", "404 without words", "reset", "nonsense", "429"])
async def test_where_the_upstream_cannot_say_it_is_an_estimate(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, trouble: str
) -> None:
    match trouble:
        case "500":
            up.reply(status=500, json=answers.anthropic_error("no"), path=COUNT)
        case "404 without words":
            up.reply(status=404, body=b"<html>", path=COUNT)
        case "429":
            up.reply(status=429, json=answers.anthropic_error("slow down"), path=COUNT)
        case "reset":
            up.on(COUNT, scripted.reset)
        case _:
            up.reply(json={"input_tokens": -1}, path=COUNT)
    status, counted, answer = await ask(gw, http, await gw.key())
    assert (status, counted) == (200, "estimate")
    assert 0 < answer["input_tokens"] < 200


async def test_the_clients_own_faults_are_told(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    fault = answers.anthropic_error("messages: too many")
    up.reply(status=400, json=fault, path=COUNT)
    key = await gw.key()
    assert (await ask(gw, http, key))[::2] == (400, fault)
    status, _, answer = await ask(gw, http, key, {"model": "claude-test"})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    status, _, answer = await ask(gw, http, key, {**BODY, "model": "nobody"})
    assert (status, answer["error"]["type"]) == (404, "not_found_error")
    status, _, answer = await ask(gw, http, "ax-wrong")
    assert (status, answer["error"]["type"]) == (401, "authentication_error")
    assert len(up.requests) == 1


async def test_policy_is_asked(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    up.reply(json={"input_tokens": 1}, path=COUNT)
    key = await gw.key(limits={"rpm": 1})
    assert (await ask(gw, http, key))[0] == 200
    status, _, answer = await ask(gw, http, key)
    assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
