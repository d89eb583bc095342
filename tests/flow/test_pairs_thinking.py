"""Pitfall 18, for every pair: thinking comes back to the upstream that made it byte for byte and in its place, over several
turns with tools, given back as the SDK's own objects have it; and never to an upstream that did not make it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurixel.testing.scripted import Received
from tests.flow.pairs import (
    CROSSED,
    DIALECTS,
    PAIRS,
    Json,
    answering,
    pairing,
    speaking,
    whole,
)
from tests.flow.shared import House, Visit, visiting
from tests.flow.test_pairs import CASES

END = CASES["text"]["answer"]["stop"]
CALLS = CASES["tools"]["answer"]["stop"]
USAGE = CASES["text"]["answer"]["usage"]
SEALS = ["EqMBCkYIBxgC/first+==", "EroCCkYI/second+==", "EpQCCkYI/hidden+==", "EsACCkYI/third+=="]
OSLO, ROME, PARIS = (f'{{"city":"{city}"}}' for city in ("Oslo", "Rome", "Paris"))
# What the upstream answers, turn by turn. The second has thinking without words, and hidden thinking between words and calls.
TURNS: list[list[Json]] = [
    [
        {"thinking": "First “Oslo”.\n\tThen…", "sealed": SEALS[0]},
        {"text": "I look."},
        {"call": ["call_1", "weather", OSLO]},
    ],
    [
        {"thinking": "", "sealed": SEALS[1]},
        {"text": "And there."},
        {"redacted": SEALS[2]},
        {"call": ["call_2", "weather", ROME]},
        {"call": ["call_3", "weather", PARIS]},
    ],
    [{"thinking": "Enough.", "sealed": SEALS[3]}, {"text": "Cold everywhere."}],
]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with pairing(tmp_path_factory.mktemp("pairs")) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


def answer(parts: list[Json]) -> Json:
    return {"parts": parts, "stop": CALLS if any("call" in part for part in parts) else END, "usage": USAGE}


def request(client: str, model: str, history: list[Json]) -> Json:
    """A request in the dialect that asks for thinking and offers the tool."""
    asked = CASES["thinking_tools"]["request"][client]
    field = "input" if client == "responses" else "messages"
    return {**asked, "model": model, field: history}


def results(client: str, parts: list[Json]) -> list[Json]:
    """What the tools answered, and where none was called, the next question."""
    calls = [part["call"][0] for part in parts if "call" in part]
    if not calls:
        return [{"role": "user", "content": "Thanks. Why?"}]
    if client == "chat":
        return [{"role": "tool", "tool_call_id": call, "content": "-3 °C"} for call in calls]
    if client == "responses":
        return [{"type": "function_call_output", "call_id": call, "output": "-3 °C"} for call in calls]
    return [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": "-3 °C"} for call in calls]}]


def thought(upstream: str, got: Received) -> list[Json]:
    """What the upstream was given back of its own answers, turn by turn, as its dialect says it."""
    sent = got.json()
    if upstream == "responses":
        return [
            item if item.get("type") == "reasoning" else {"said": _said(item)}
            for item in sent["input"]
            if item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")
        ]
    fields = ("content", "reasoning_content", "tool_calls")
    return [
        {name: message[name] for name in fields if message.get(name)}
        for message in sent["messages"]
        if message["role"] == "assistant"
    ]


def _said(item: Json) -> Any:
    if item.get("type") == "function_call":
        return [item["call_id"], item["name"], item["arguments"]]
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def expected(upstream: str, turns: list[list[Json]]) -> list[Json]:
    """The same of what it had said."""
    found: list[Json] = []
    for parts in turns:
        reply = whole(upstream, answer(parts))
        if upstream == "responses":
            found += [item if item["type"] == "reasoning" else {"said": _said(item)} for item in reply["output"]]
        elif upstream == "messages":
            found.append({"content": reply["content"]})
        else:
            message = reply["choices"][0]["message"]
            fields = ("content", "reasoning_content", "tool_calls")
            found.append({name: message[name] for name in fields if message.get(name)})
    return found


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("pair", PAIRS, ids=">".join)
async def test_pitfall_18_thinking_survives_three_turns(visit: Visit, pair: tuple[str, str], streamed: bool) -> None:
    client, upstream = pair
    caller = await visit.caller()
    history: list[Json] = [{"role": "user", "content": "The weather?"}]
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        for number, parts in enumerate([*TURNS, [{"text": "Because."}]]):
            answering(visit.up, upstream, answer(parts), streamed=streamed)
            asked = request(client, f"on-{upstream}", history)
            heard = await (sdk.stream(asked) if streamed else sdk.ask(asked))
            history += [*sdk.again(heard.reply), *results(client, parts)]
            got = visit.up.requests[-1]
            assert thought(upstream, got) == expected(upstream, TURNS[:number])
            if upstream != "chat":  # which seals nothing
                for seal in _seals(TURNS[:number]):
                    assert got.body.count(seal.encode()) == 1
            assert b"ax1." not in got.body
    # A loop of calls whose thinking is there goes on thinking.
    if upstream == "messages":
        assert all(call.json()["thinking"]["type"] != "disabled" for call in visit.up.requests)
    assert len(await caller.records(4)) == 4


def _seals(turns: list[list[Json]]) -> list[str]:
    return [seal for parts in turns for part in parts if (seal := part.get("sealed", part.get("redacted")))]


MOVES = [(client, first, second) for client in DIALECTS for first, second in CROSSED]


@pytest.mark.parametrize("routes", MOVES, ids=lambda routes: f"{routes[0]}>{routes[1]},{routes[2]}")
async def test_pitfall_18_thinking_is_not_given_to_whom_it_is_not_of(visit: Visit, routes: tuple[str, str, str]) -> None:
    """A conversation that moves to another upstream leaves its sealed thinking behind, words and calls stay; and the first
    gets it when it moves back."""
    client, first, second = routes
    caller = await visit.caller()
    history: list[Json] = [{"role": "user", "content": "The weather?"}]
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        for upstream, parts in ((first, TURNS[0]), (first, TURNS[1]), (second, TURNS[2][1:]), (first, TURNS[2][1:])):
            answering(visit.up, upstream, answer(parts), streamed=False)
            heard = await sdk.ask(request(client, f"on-{upstream}", history))
            history += [*sdk.again(heard.reply), *results(client, parts)]
    _, _, moved, back = visit.up.requests
    assert b"ax1." not in moved.body
    assert not any(seal.encode() in moved.body for seal in SEALS)
    assert b"And there." in moved.body
    assert [call for call in ("call_1", "call_2", "call_3") if moved.body.count(f'"{call}"'.encode()) == 2] == [
        "call_1",
        "call_2",
        "call_3",
    ]
    assert thought(first, back) == expected(first, [*TURNS[:2], TURNS[2][1:]])


@pytest.mark.parametrize("client", ["chat", "responses"])
async def test_pitfall_18_a_client_that_forgets_thinking_goes_on_without(visit: Visit, client: str) -> None:
    """The upstream refuses calls that lost their thinking while it is to think: it is not asked to."""
    caller = await visit.caller()
    history: list[Json] = [{"role": "user", "content": "The weather?"}]
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        answering(visit.up, "messages", answer(TURNS[0]), streamed=False)
        heard = await sdk.ask(request(client, "on-messages", history))
        kept = [
            {name: value for name, value in item.items() if name not in ("thinking_blocks", "reasoning_content")}
            for item in sdk.again(heard.reply)
            if item.get("type") != "reasoning"
        ]
        answering(visit.up, "messages", answer(TURNS[2][1:]), streamed=False)
        heard = await sdk.ask(request(client, "on-messages", [*history, *kept, *results(client, TURNS[0])]))
    sent = visit.up.requests[-1].json()
    assert sent.get("thinking", {"type": "disabled"}) == {"type": "disabled"}
    assert json.dumps(sent).count("thinking") <= 1
    word = "reasoning_effort" if client == "chat" else "reasoning"
    assert heard.headers["x-aurixel-translation"] == f"openai_{client} to anthropic_messages; changed={word}"
