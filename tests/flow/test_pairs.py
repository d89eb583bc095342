"""Every pair of a client's and an upstream's chat dialect, through the whole gateway and the official SDKs, whole and
streamed: what the upstream was sent, what the SDK saw, what was told and what was charged, by `tests/golden/pairs`.

A case there has, by client, the `request`; the `answer` (see `tests.flow.pairs.whole`; `answer_of` another one for a pair);
by upstream the `record`, its counts and its cost worked out by hand; and by pair `client>upstream` what was `sent`, what
was `seen` (by client for the pairs that have no entry; `seen_streamed` is what differs in a stream), and what was `told`
after the dialects' names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aurixel.values import format_usd
from tests.flow.pairs import NAMES, PAIRS, PATHS, Json, answering, events, pairing, speaking, whole
from tests.flow.shared import House, Visit, visiting

GOLDEN = Path(__file__).parents[1] / "golden" / "pairs"
CASES = {file.stem: json.loads(file.read_text()) for file in sorted(GOLDEN.glob("*.json"))}


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with pairing(tmp_path_factory.mktemp("pairs")) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


@pytest.fixture(params=PAIRS, ids=">".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    pair: tuple[str, str] = request.param
    return pair


def flat(request: Json) -> Json:
    """The body that the SDK sends for these arguments."""
    return {**{name: value for name, value in request.items() if name != "extra_body"}, **request.get("extra_body", {})}


def wanted(case: Json, what: str, client: str, upstream: str) -> Any:
    """What the case says of the pair, or of its client's own dialect."""
    found = case.get(what, {})
    return found.get(f"{client}>{upstream}", found.get(client))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
async def test_a_pair_does_what_its_case_says(visit: Visit, pair: tuple[str, str], name: str, streamed: bool) -> None:
    case, (client, upstream) = CASES[name], pair
    model = f"on-{upstream}{case.get('model', '')}"
    request = {"model": model, **case["request"][client]}
    answer = case.get("answer_of", {}).get(f"{client}>{upstream}", case["answer"])
    answering(visit.up, upstream, answer, streamed=streamed)
    caller = await visit.caller()
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        heard = await (sdk.stream(request) if streamed else sdk.ask(request))

    (got,) = visit.up.requests
    sent = got.json()
    assert got.path == PATHS[upstream]
    assert sent.pop("model") == f"up-{upstream}"
    assert sent.pop("stream", False) is streamed
    if streamed and upstream == "chat":
        assert sent.pop("stream_options") == {"include_usage": True}
    straight = client == upstream
    if upstream == "responses":
        assert sent.pop("store") is False
    assert sent == (flat(case["request"][client]) if straight else wanted(case, "sent", client, upstream))
    late = case.get("seen_streamed", {}).get(f"{client}>{upstream}", {}) if streamed else {}
    assert heard.fields == {**wanted(case, "seen", client, upstream), **late}

    told = wanted(case, "told", client, upstream) or ""
    report = None if straight else f"{NAMES[client]} to {NAMES[upstream]}{told and '; '}{told}"
    assert heard.headers.get("x-aurixel-translation") == report
    record, done = case["record"][upstream], await caller.record()
    assert (done.counts, done.cost) == (record["counts"], record["cost"])
    assert heard.headers.get("x-aurixel-cost") == (None if streamed else format_usd(record["cost"]))
    losses = {kind: len(names.split(",")) for kind, _, names in (part.partition("=") for part in told.split("; ") if part)}
    assert (done.via, done.losses) == ("" if straight else NAMES[upstream], {} if straight else losses)
    assert (done.cell, done.measured, done.dialect, done.stream) == ("ok", True, NAMES[client], streamed)
    assert (done.model, done.upstream, done.operation) == (model, upstream, "chat")


def sse(body: bytes) -> list[Json]:
    """The data of each event that has any."""
    lines = [line for line in body.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def calls_of(client: str, told: list[Json]) -> list[list[str]]:
    """Id, name and arguments of each call, from the stream's own numbers; they must count up without a gap, and each call
    must begin before it goes on."""
    calls: list[list[str]] = []
    opened: list[int] = []
    for event in told:
        if client == "chat":
            for delta in (delta for choice in event["choices"] for delta in choice["delta"].get("tool_calls") or ()):
                if delta["index"] == len(calls):
                    calls.append([delta["id"], delta["function"]["name"], ""])
                calls[delta["index"]][2] += delta["function"].get("arguments") or ""
        elif client == "responses":
            kind = event["type"].removeprefix("response.")
            if kind == "output_item.added":
                assert event["output_index"] == len(opened)
                opened.append(len(calls))
                if event["item"]["type"] == "function_call":
                    calls.append([event["item"]["call_id"], event["item"]["name"], ""])
            elif kind == "function_call_arguments.delta":
                calls[opened[event["output_index"]]][2] += event["delta"]
        elif event["type"] == "content_block_start":
            assert event["index"] == len(opened)
            opened.append(len(calls))
            if event["content_block"]["type"] == "tool_use":
                calls.append([event["content_block"]["id"], event["content_block"]["name"], ""])
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            assert event["index"] == len(opened) - 1, "blocks come one after the other"
            calls[opened[event["index"]]][2] += event["delta"]["partial_json"]
    return calls


@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_pitfall_19_streamed_calls_keep_their_ids_and_order(visit: Visit, pair: tuple[str, str], cut: int) -> None:
    """However the upstream interleaves them, and wherever its bytes are cut."""
    client, upstream = pair
    case = CASES["tools"]
    visit.up.stream(events(upstream, case["answer"]), chunks=cut, path=PATHS[upstream])
    caller = await visit.caller()
    body = {"model": f"on-{upstream}", "stream": True, **case["request"][client]}
    reply = await visit.ask(caller.post(PATHS[client], body))
    wanted = [part["call"] for part in case["answer"]["parts"] if "call" in part]
    assert [[name, key, json.loads(text or "{}")] for name, key, text in calls_of(client, sse(reply.body))] == [
        [name, key, json.loads(text)] for name, key, text in wanted
    ]
    assert (await caller.record()).cell == "ok"


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] != "chat"], ids=">".join)
async def test_pitfall_19_marks_of_cached_prefixes_survive(visit: Visit, pair: tuple[str, str]) -> None:
    """Where the upstream knows such a mark it is sent, and where it is not, the client is told."""
    client, upstream = pair
    case = CASES["cached"]
    answering(visit.up, upstream, case["answer"], streamed=False)
    caller = await visit.caller()
    for model in ("", "-plain"):
        request = {"model": f"on-{upstream}{model}", **case["request"][client]}
        reply = await visit.ask(caller.post(PATHS[client], request))
        told = dict(reply.headers).get("x-aurixel-translation", "")
        sent = visit.up.requests[-1].body
        marked = b'"cache_control"' in sent or b'"prompt_cache_breakpoint"' in sent
        assert marked != ("dropped" in told and "cache_" in told.partition("dropped=")[2].replace("prompt_cache_key", ""))


# A citation of the first word of "Oslo is cold.", as each dialect writes it.
CITED: dict[str, Json] = {
    "chat": {
        "type": "url_citation",
        "url_citation": {"url": "https://w.invalid/", "title": "W", "start_index": 0, "end_index": 4},
    },
    "responses": {"type": "url_citation", "url": "https://w.invalid/", "title": "W", "start_index": 0, "end_index": 4},
    "messages": {
        "type": "web_search_result_location",
        "url": "https://w.invalid/",
        "title": "W",
        "encrypted_index": "Eo8B",
        "cited_text": "Oslo",
    },
}


def cited(dialect: str, reply: Json) -> list[Json]:
    """The list of citations in a whole reply of the dialect, to be read or filled."""
    if dialect == "chat":
        found: list[Json] = reply["choices"][0]["message"].setdefault("annotations", [])
    elif dialect == "responses":
        found = reply["output"][0]["content"][0].setdefault("annotations", [])
    else:
        found = reply["content"][0].setdefault("citations", [])
    return found


async def test_citations_reach_the_client_and_go_to_nobody_without_their_proof(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answer = {**CASES["text"]["answer"], "parts": [{"text": "Oslo is cold."}]}
    reply = whole(upstream, answer)
    cited(upstream, reply).append(CITED[upstream])
    visit.up.reply(json=reply, path=PATHS[upstream])
    caller = await visit.caller()
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        request = {"model": f"on-{upstream}", **CASES["text"]["request"][client]}
        heard = await sdk.ask(request)
        (found,) = cited(client, heard.reply.to_dict())
        inner = found.get("url_citation", found)
        assert (inner["url"], inner["title"]) == ("https://w.invalid/", "W")
        # Given back to an upstream of the client's own dialect it has its proof, or is gone.
        answering(visit.up, client, answer, streamed=False)
        field = "input" if client == "responses" else "messages"
        turns = [{"role": "user", "content": "Oslo?"}, *sdk.again(heard.reply), {"role": "user", "content": "Sure?"}]
        await sdk.ask({**request, "model": f"on-{client}", field: turns})
    sent = visit.up.requests[-1].body
    assert b"Oslo is cold." in sent
    if client == "messages":
        assert (b"encrypted_index" in sent, b"Eo8B" in sent) == (upstream == client, upstream == client)
