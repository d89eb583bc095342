"""The official JavaScript SDKs over every pair: on an upstream that we did not write (aimock, in all three dialects), and on
one that thinks, whose thinking must come back byte for byte (pitfall 18)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aurixel.testing.scripted import Call, ScriptedUpstream
from tests.flow.gateway import configure, running
from tests.flow.pairs import DIALECTS, MODELS, PAIRS, PATHS, PRICES, Json, answering, blocks
from tests.flow.test_pairs_thinking import OSLO, PARIS, ROME, SEALS, answer, expected, thought
from tests.node.fixture import Aimock, NodeEnv

pytestmark = pytest.mark.deadline(120)

USAGE = {"prompt_tokens": 17, "completion_tokens": 5, "input_tokens": 17, "output_tokens": 5}
STOPS = {"chat": ["stop", "tool_calls"], "responses": ["completed", "completed"], "messages": ["end_turn", "tool_use"]}
# 17 tokens in and 5 out, in nano-dollars, by upstream.
COST = {"chat": 52_000, "responses": 89_000, "messages": 126_000}


async def test_javascript_talks_over_every_pair(node_env: NodeEnv, aimock: Aimock, tmp_path: Path) -> None:
    aimock.answer({"userMessage": "thanks"}, {"content": "You are welcome", "usage": USAGE})
    aimock.answer({"userMessage": "weather"}, {"toolCalls": [{"name": "weather", "arguments": OSLO}], "usage": USAGE})
    broken = {"content": "a long answer that breaks off"}
    aimock.answer({"userMessage": "die"}, broken, truncateAfterChunks=6, chunkSize=4, latency=30)
    aimock.answer({"userMessage": "hello"}, {"content": "Hello from afar", "usage": USAGE})
    file = configure(tmp_path, upstreams=blocks(aimock.url), models=MODELS, prices=PRICES)
    async with running(file) as gw:
        seen = json.loads(await node_env.run("pairs.mjs", gw.url, await gw.key(), "talk"))
        for client, upstream in PAIRS:
            end, called = STOPS[client]
            talked = [
                ["Hello from afar", [], end, [17, 5]],
                ["", [["weather", OSLO]], called, [17, 5]],
                ["You are welcome", [], end, [17, 5]],
            ]
            assert seen[f"{client}>{upstream}"] == talked
            *whole, died = seen[f"{client}>{upstream} streamed"]
            assert whole == talked
            assert died[0] in ("APIError", "InternalServerError", "APIConnectionError"), died
        records = await gw.settled(count=9 * 7)
    assert Counter((record.upstream, record.cost) for record in records if record.cell == "ok") == dict.fromkeys(
        COST.items(), 18
    )
    assert Counter(record.cell for record in records) == {"ok": 54, "died": 9}
    assert Counter(record.via for record in records)[""] == 21


# One piece of thinking a turn: the JavaScript SDK keeps the last delta of a field it does not know.
TURNS: list[list[Json]] = [
    [{"thinking": "First “Oslo”.", "sealed": SEALS[0]}, {"text": "I look."}, {"call": ["call_1", "weather", OSLO]}],
    [
        {"thinking": "Then", "sealed": SEALS[1]},
        {"text": "There."},
        {"call": ["call_2", "weather", ROME]},
        {"call": ["call_3", "weather", PARIS]},
    ],
    [{"redacted": SEALS[2]}, {"text": "Cold everywhere."}],
    [{"text": "Because."}],
]


async def test_pitfall_18_javascript_gives_thinking_back(node_env: NodeEnv, tmp_path: Path) -> None:
    async with ScriptedUpstream() as up:

        async def in_turn(call: Call) -> None:
            """The next turn of the conversation."""
            (upstream,) = (dialect for dialect in DIALECTS if PATHS[dialect] == call.request.path)
            parts = TURNS[(len(up.requests) - 1) % len(TURNS)]
            answering(up, upstream, answer(parts), streamed=call.request.json().get("stream", False))
            for step in up._paths.pop(call.request.path):
                await step(call)

        up.on("*", in_turn)
        file = configure(tmp_path, upstreams=blocks(up.url), models=MODELS, prices=PRICES)
        async with running(file) as gw:
            seen = json.loads(await node_env.run("pairs.mjs", gw.url, await gw.key(), "think"))
            await gw.settled(count=9 * 2 * len(TURNS))
        texts = ["".join(part.get("text", "") for part in parts) for parts in TURNS]
        assert list(seen.values()) == [texts] * 18
        asked = iter(up.requests)
        for _, upstream in PAIRS:
            for _streamed in (False, True):
                for number in range(len(TURNS)):
                    got = next(asked)
                    assert got.path == PATHS[upstream]
                    assert b"ax1." not in got.body
                    given = thought(upstream, got)
                    if upstream == "chat":  # shown words are not what these clients put together
                        continue
                    assert given == expected(upstream, TURNS[:number])
