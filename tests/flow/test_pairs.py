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
from tests.flow.pairs import NAMES, PAIRS, PATHS, Json, answering, pairing, speaking
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
