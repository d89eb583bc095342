"""Pitfalls 16 and 24 for every pair: each tenant gets its own words back, translated, and nobody else's; and nothing of what
passes through a translation stays anywhere."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aurixel.testing import scripted
from aurixel.testing.scripted import Call, ScriptedUpstream
from tests.flow.gateway import configure, running
from tests.flow.pairs import (
    CROSSED,
    DIALECTS,
    MODELS,
    PAIRS,
    PATHS,
    PRICES,
    Json,
    answering,
    blocks,
    events,
    pairing,
    whole,
)
from tests.flow.pieces import Pieces
from tests.flow.shared import House, Visit, visiting
from tests.flow.test_canary import files, listening
from tests.flow.test_pairs import CASES
from tests.flow.test_pairs_endings import error_body, error_event

pytestmark = pytest.mark.deadline(60)

TENANTS, STREAMS = 5, 180
MARKER = re.compile(r"tenant\d-\d+-[0-9a-f]{16}")
STOP, CALLS = CASES["text"]["answer"]["stop"], CASES["tools"]["answer"]["stop"]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with pairing(tmp_path_factory.mktemp("pairs")) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


# --- whose words ---------------------------------------------------------------------------------------------------


def usage(output: int) -> Json:
    """100 tokens in, and so many out, as each dialect reports it."""
    details = {"cached_tokens": 0}
    return {
        "chat": {"prompt_tokens": 100, "completion_tokens": output, "total_tokens": 100 + output},
        "responses": {
            "input_tokens": 100,
            "input_tokens_details": details,
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 100 + output,
        },
        "messages": {"input_tokens": 100, "output_tokens": output},
    }


def said(client: str, body: str, *, streamed: bool) -> str:
    """The text of an answer in the client's dialect."""
    if not streamed:
        reply = json.loads(body)
        if client == "chat":
            return str(reply["choices"][0]["message"]["content"])
        if client == "responses":
            return "".join(part["text"] for item in reply["output"] for part in item["content"])
        return "".join(block["text"] for block in reply["content"])
    text = ""
    for line in body.splitlines():
        if not line.startswith("data: {"):
            continue
        data = json.loads(line[6:])
        if client == "chat":
            text += "".join(choice["delta"].get("content") or "" for choice in data["choices"])
        elif client == "responses":
            text += data["delta"] if data["type"] == "response.output_text.delta" else ""
        else:
            text += data["delta"]["text"] if data["type"] == "content_block_delta" else ""
    return text


class Echo:
    """Answers each request with its own marker and usage of its own, cut at random bytes, once all have begun."""

    def __init__(self, seed: int) -> None:
        self.pieces = Pieces(seed, STREAMS, 30)
        self.sent: dict[str, str] = {}

    async def __call__(self, call: Call) -> None:
        (upstream,) = (dialect for dialect in DIALECTS if PATHS[dialect] == call.request.path)
        (marker,) = set(MARKER.findall(call.request.body.decode()))
        text = self.sent[marker] = " ".join([marker] * self.pieces.chance.randrange(5, 40))
        answer = {"parts": [{"text": text}], "stop": STOP, "usage": usage(int(marker.split("-")[1]))}
        streamed = call.request.json().get("stream", False)
        body = b"".join(events(upstream, answer)) if streamed else json.dumps(whole(upstream, answer)).encode()
        kind = "text/event-stream" if streamed else "application/json"
        await self.pieces.send(call, body, kind)


async def test_pitfall_16_each_tenant_gets_its_own_words_translated(visit: Visit, http: aiohttp.ClientSession) -> None:
    echo = Echo(16)
    visit.up.on("*", echo)
    callers = [await visit.caller("1000.00") for _ in range(TENANTS)]
    got: dict[str, str] = {}

    async def one(number: int) -> None:
        caller, (client, upstream) = callers[number % TENANTS], PAIRS[number // TENANTS % len(PAIRS)]
        marker = f"tenant{number % TENANTS}-{number}-{random.Random(number).randbytes(8).hex()}"
        field = "input" if client == "responses" else "messages"
        streamed = number % 7 > 0
        body: Json = {"model": f"on-{upstream}", "stream": streamed, field: [{"role": "user", "content": marker}]}
        if client == "messages":
            body["max_tokens"] = 500
        headers = {"authorization": f"Bearer {caller.key}"}
        async with http.post(visit.gw.url + PATHS[client], json=body, headers=headers) as reply:
            assert reply.status == 200
            text = await reply.text()
            got[marker] = said(client, text, streamed=streamed)
            others = {found for found in MARKER.findall(text + str(reply.headers)) if found != marker}
            assert not others

    async with asyncio.TaskGroup() as group:
        for number in range(1, STREAMS + 1):  # none of them is nought, which would be estimated
            group.create_task(one(number))
    assert got == echo.sent
    assert len(got) == STREAMS
    for number, caller in enumerate(callers):
        records = await caller.records(STREAMS // TENANTS)
        mine = {int(marker.split("-")[1]) for marker in got if marker.startswith(f"tenant{number}-")}
        assert {record.counts.get("output", 0) for record in records} == mine
        assert {record.counts["input"] for record in records} == {100}


# --- what stays ------------------------------------------------------------------------------------------------------

DOORS = (
    "prompt",
    "system",
    "tool",
    "argument",
    "result",
    "url",
    "user",
    "value",
    "name",
    "thought",
    "seal",
    "output",
    "call",
    "upstream",
    "header",
    "query",
)
C = {door: f"canary-{door}-5b1e77d0a4" for door in DOORS}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string", "description": C["tool"]}}}
ARGUMENTS = json.dumps({"x": C["argument"]})
# The name of a field that the client made up is told to that client, and to nobody else.
TOLD = "x-aurixel-translation"


def asked(client: str, **more: Any) -> Json:
    """A request with a marker behind every door."""
    url = f"https://pictures.invalid/{C['url']}.png"
    text, picture = {"type": "input_text", "text": C["prompt"]}, {"type": "input_image", "image_url": url}
    more |= {C["name"]: C["value"]}
    if client == "chat":
        function = {"name": "look_up", "arguments": ARGUMENTS}
        return more | {
            "messages": [
                {"role": "system", "content": C["system"]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": C["prompt"]},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
                    "thinking_blocks": [{"type": "thinking", "thinking": C["thought"], "signature": C["seal"], "index": 0}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": C["result"]},
            ],
            "tools": [{"type": "function", "function": {"name": "look_up", "description": C["tool"], "parameters": SCHEMA}}],
            "user": C["user"],
        }
    if client == "responses":
        return more | {
            "instructions": C["system"],
            "input": [
                {
                    "role": "user",
                    "content": [text, picture],
                },
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": C["thought"]}],
                    "encrypted_content": C["seal"],
                },
                {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": ARGUMENTS},
                {"type": "function_call_output", "call_id": "call_1", "output": C["result"]},
            ],
            "tools": [{"type": "function", "name": "look_up", "description": C["tool"], "parameters": SCHEMA, "strict": False}],
            "user": C["user"],
        }
    return more | {
        "max_tokens": 500,
        "system": C["system"],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": C["prompt"]}, {"type": "image", "source": {"type": "url", "url": url}}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": C["thought"], "signature": C["seal"]},
                    {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"x": C["argument"]}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": C["result"]}]},
        ],
        "tools": [{"name": "look_up", "description": C["tool"], "input_schema": SCHEMA}],
        "metadata": {"user_id": C["user"]},
    }


ANSWER: Json = {
    "parts": [
        {"thinking": C["thought"], "sealed": C["seal"]},
        {"text": C["output"]},
        {"call": ["call_2", "look_up", json.dumps({"x": C["call"]})]},
    ],
    "stop": CALLS,
    "usage": usage(7),
}


async def test_pitfall_24_nothing_of_a_translation_stays(
    up: ScriptedUpstream, http: aiohttp.ClientSession, tmp_path: Path, expected_logs: Any
) -> None:
    expected_logs("aurixel.gateway", "refuses our key", optional=True)
    heads: list[str] = []
    with listening() as log:
        file = configure(tmp_path, upstreams=blocks(up.url), models=MODELS, prices=PRICES)
        async with running(file) as gw:
            key = await gw.key(usd="1000.00")
            headers = {
                "authorization": f"Bearer {key}",
                "x-canary": C["header"],
                "user-agent": C["header"],
                "cookie": C["header"],
            }
            count = 0

            async def ask(client: str, upstream: str, **more: Any) -> int:
                nonlocal count
                count += 1
                url, body = f"{gw.url}{PATHS[client]}?canary={C['query']}", asked(client, model=f"on-{upstream}")
                strict = {"x-aurixel-strict": "true"} if more.pop("strict", False) else {}
                try:
                    async with http.post(url, json=body | more, headers=headers | strict) as reply:
                        await reply.read()
                        told = {name.lower(): value for name, value in reply.headers.items()}
                        heads.append(str({name: value for name, value in told.items() if name != TOLD}))
                        assert C["name"] in told.get(TOLD, C["name"])
                        assert set(re.findall(r"canary-\w+-5b1e77d0a4", told.get(TOLD, ""))) <= {C["name"]}
                        return reply.status
                except aiohttp.ClientError:
                    return 0

            for client, upstream in CROSSED:
                for streamed in (False, True):
                    answering(up, upstream, ANSWER, streamed=streamed)
                    assert await ask(client, upstream, stream=streamed) == 200, (client, upstream)
                assert await ask(client, upstream, strict=True) == 400
                for status in (400, 401, 404, 429, 500, 503):
                    up.reply(json=error_body(upstream, C["upstream"]), status=status, path=PATHS[upstream])
                    assert await ask(client, upstream) >= 400
                told = events(upstream, ANSWER)
                some = told[: len(told) * 2 // 3]
                bad = error_event(upstream).replace(b"SECRET-TEXT", C["upstream"].encode())
                for script in (
                    [scripted.event_stream(some, end=False), scripted.reset],
                    [scripted.event_stream([*some, bad])],
                    [scripted.event_stream([*some, f'data: {{"{C["upstream"]}": 1}}\n\n'.encode()])],
                    [scripted.event_stream([*some, f"data: {C['upstream']}\n\n".encode()])],
                ):
                    up.on(PATHS[upstream], *script)
                    await ask(client, upstream, stream=True)
                up.reply(body=f'{{"{C["upstream"]}": "{C["upstream"]}"}}'.encode(), path=PATHS[upstream])
                assert await ask(client, upstream) == 502
            for call in up.requests:
                sent = str(call.pairs) + call.target
                assert C["header"] not in sent
                assert C["query"] not in sent
                assert C["user"] not in call.body.decode()
            async with http.get(f"{gw.ops_url}/metrics") as metrics:
                scraped = await metrics.text()
            await gw.settled(count=count)
            journal = files(tmp_path / "journal")
    sinks = {"metrics": scraped, "logs": "\n".join(log.lines), "reply headers": "\n".join(heads)}
    sinks |= journal | files(tmp_path)
    assert any("aurixel.db" in name for name in sinks)
    for name, text in sinks.items():
        for marker in C.values():
            assert marker not in text, f"{marker} is in {name}"
