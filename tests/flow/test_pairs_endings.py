"""Every pair of a client's and an upstream's chat dialect when it goes wrong, and when another route answers (pitfall 17):
an error in the client's own shape, which its SDK raises, never a clean end; and charged for what was delivered only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurixel.testing import answers, scripted
from aurixel.testing.scripted import Step
from tests.flow.pairs import DIALECTS, NAMES, PAIRS, PATHS, Json, answering, events, pairing, speaking
from tests.flow.shared import Caller, House, Visit, visiting
from tests.flow.test_pairs import CASES
from tests.harness.guard import ExpectedLogs

ASKED = CASES["text"]["request"]
ANSWER = CASES["text"]["answer"]
TEXT = ANSWER["parts"][0]["text"]
# Nano-dollars a token, in and out, by upstream.
COSTS = {"chat": (1000, 7000), "responses": (2000, 11000), "messages": (3000, 15000)}


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


def error_body(dialect: str, words: str, kind: str = "invalid_request_error") -> Json:
    return answers.anthropic_error(words, type=kind) if dialect == "messages" else answers.openai_error(words, type=kind)


def error_event(dialect: str) -> bytes:
    """What an upstream of the dialect says in the middle of a stream, with words that are not the client's to read."""
    if dialect == "messages":
        return answers.anthropic_error_event("Overloaded SECRET-TEXT")
    failed = {"code": "server_error", "message": "SECRET-TEXT"}
    if dialect == "chat":
        return f"data: {json.dumps({'error': failed})}\n\n".encode()
    response = {"id": "resp_1", "object": "response", "status": "failed", "error": failed, "output": [], "usage": None}
    data = {"type": "response.failed", "sequence_number": 99, "response": response}
    return f"event: response.failed\ndata: {json.dumps(data)}\n\n".encode()


async def raised(caller: Caller, client: str, model: str, *, stream: bool) -> Any:
    """The SDK's exception."""
    async with speaking(client, caller.visit.gw.url, caller.key) as sdk:
        request = {"model": model, **ASKED[client]}
        with pytest.raises(sdk.errors.APIError) as found:
            await (sdk.stream(request) if stream else sdk.ask(request))
    return found.value


def shape(client: str, error: Any) -> tuple[str | None, str]:
    """Our code in the words of the client's family, and what it is told."""
    if client != "messages":
        return error.code, error.body["message"]
    inner = error.body["error"]
    return inner["details"]["error_code"], inner["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_the_upstream_refuses_is_told_in_the_clients_shape(
    visit: Visit, pair: tuple[str, str], stream: bool
) -> None:
    client, upstream = pair
    caller = await visit.caller()
    visit.up.reply(json=error_body(upstream, "max_tokens is too fishy"), status=400, path=PATHS[upstream])
    error = await raised(caller, client, f"on-{upstream}", stream=stream)
    assert type(error).__name__ == "BadRequestError"
    if client == "messages":
        assert error.body["error"]["type"] == "invalid_request_error"
        assert error.body["error"]["message"] == "max_tokens is too fishy"
    else:
        assert (error.type, error.body["message"]) == ("invalid_request_error", "max_tokens is too fishy")
    record = await caller.record()
    assert (record.cell, record.cost, record.counts, record.status) == ("refused", 0, {}, 400)
    assert record.via == ("" if client == upstream else NAMES[upstream])


# What the upstream answers with -> what a client of the OpenAI family gets (status, code), and one of the other.
REFUSALS: dict[tuple[int, str], tuple[tuple[int, str], tuple[int, str]]] = {
    (429, "rate_limit_error"): ((429, "rate_limit_exceeded"), (429, "upstream_rate_limited")),
    (503, "api_error"): ((503, "server_is_overloaded"), (529, "upstream_overloaded")),
    (529, "overloaded_error"): ((503, "server_is_overloaded"), (529, "upstream_overloaded")),
    (500, "api_error"): ((502, "upstream_refused"), (502, "upstream_refused")),
    (401, "authentication_error"): ((503, "upstream_credentials"), (503, "upstream_credentials")),
}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal[0]))
async def test_an_upstreams_trouble_is_told_in_the_clients_words(
    visit: Visit, pair: tuple[str, str], refusal: tuple[int, str], expected_logs: ExpectedLogs
) -> None:
    client, upstream = pair
    status, kind = refusal
    if status == 401:  # complained of once a minute
        expected_logs("aurixel.gateway", f"upstream {upstream} refuses our key", optional=True)
    body = json.dumps(error_body(upstream, "SECRET-TEXT", kind)).encode()
    head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n"
    visit.up.on(PATHS[upstream], scripted.send(head.encode() + body))
    caller = await visit.caller()
    error = await raised(caller, client, f"on-{upstream}", stream=False)
    code, words = shape(client, error)
    assert (error.status_code, code) == REFUSALS[refusal][client == "messages"]
    assert "SECRET" not in words
    assert error.response.headers.get("retry-after") == (None if status == 401 else "7")
    assert error.response.headers.get("x-should-retry") == ("false" if status == 401 else None)
    record = await caller.record()
    assert (record.cell, record.cost) == ("refused", 0)


def broken(upstream: str) -> dict[str, tuple[list[Step], str, str]]:
    """Streams that break after some text: the script, the cell, and our code."""
    told = events(upstream, ANSWER)
    some = told[: len(told) // 2]
    begins = scripted.event_stream(some, end=False)
    return {
        "error event": ([scripted.event_stream([*some, error_event(upstream)])], "error_event", "upstream_error_event"),
        "reset": ([begins, scripted.reset], "died", "upstream_died"),
        "closed": ([begins, scripted.close], "died", "upstream_died"),
        "clean end too early": ([scripted.event_stream(some)], "died", "upstream_died"),
        "nonsense": ([scripted.event_stream([*some, b"data: {\n\n"])], "died", "upstream_invalid"),
    }


def ended_badly(client: str, body: bytes, code: str) -> None:
    """The stream's last event is the family's error, with our code, and nothing in it says that all went well."""
    last = [event for event in body.decode().split("\n\n") if event][-1]
    data = json.loads(last.partition("data: ")[2])
    if client == "chat":
        assert data["error"]["code"] == code
        assert "[DONE]" not in body.decode()
        assert '"finish_reason":"' not in body.decode().replace(" ", "")
    elif client == "responses":
        assert (data["type"], data["response"]["status"]) == ("response.failed", "failed")
        assert "response.completed" not in body.decode()
        before = json.loads(body.decode().split("\n\n")[-3].partition("data: ")[2])
        assert (before["type"], before["code"]) == ("error", code)
    else:
        assert (data["type"], data["error"]["details"]["error_code"]) == ("error", code)
        assert "message_stop" not in body.decode()
        assert "message_delta" not in body.decode()


@pytest.mark.parametrize("name", broken("chat"))
async def test_a_stream_that_breaks_is_an_error_and_no_end(visit: Visit, pair: tuple[str, str], name: str) -> None:
    client, upstream = pair
    script, cell, code = broken(upstream)[name]
    visit.up.on(PATHS[upstream], *script)
    caller = await visit.caller()
    error = await raised(caller, client, f"on-{upstream}", stream=True)
    assert "SECRET" not in str(error)
    reply = await visit.ask(caller.post(PATHS[client], {"model": f"on-{upstream}", "stream": True, **ASKED[client]}))
    assert reply.status == 200
    ended_badly(client, reply.body, code)
    assert "SECRET" not in reply.body.decode()
    assert TEXT[:5] in reply.body.decode()
    for record in await caller.records(2):
        assert (record.cell, record.upstream) == (cell, upstream)
        assert not record.measured
        assert set(record.counts) == {"input", "output"}
        assert record.counts["output"] < len(TEXT.encode())
        if upstream == "messages":
            assert record.counts["input"] == 20  # said at the beginning
        price = COSTS[upstream]
        assert record.cost == record.counts["input"] * price[0] + record.counts["output"] * price[1]


# Whole replies, and beginnings of streams, that are nonsense in any dialect or of another one.
GARBAGE = {
    "no json": b"{not json",
    "nothing": b"",
    "a list": b"[]",
    "of nobody": b'{"object": "list", "data": []}',
    "wrong types": b'{"type": "message", "object": "response", "choices": 7, "content": 7, "output": 7, "usage": 7}',
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", GARBAGE)
async def test_nonsense_is_the_upstreams_fault(visit: Visit, pair: tuple[str, str], name: str, stream: bool) -> None:
    client, upstream = pair
    caller = await visit.caller()
    if stream:
        visit.up.stream([b"data: " + GARBAGE[name] + b"\n\n"], path=PATHS[upstream])
    else:
        visit.up.reply(body=GARBAGE[name], path=PATHS[upstream])
    error = await raised(caller, client, f"on-{upstream}", stream=stream)
    assert shape(client, error)[0] in ("upstream_invalid", "upstream_died")
    record = await caller.record()
    if record.cell == "refused":
        assert (error.status_code, record.cost) == (502, 0)
    else:  # what says nothing may pass as a comment, and the stream has begun
        assert (stream, client, record.cell, record.counts.get("output", 0)) == (True, upstream, "died", 0)


# --- another route ------------------------------------------------------------------------------------------------

TWO = [(client, first, second) for client in DIALECTS for first, second in PAIRS if first != second]


@pytest.fixture(params=TWO, ids=lambda three: f"{three[0]}>{three[1]},{three[2]}")
def routes(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    routes: tuple[str, str, str] = request.param
    return routes


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_route_of_another_dialect_answers_for_one_that_failed(
    visit: Visit, routes: tuple[str, str, str], stream: bool
) -> None:
    client, first, second = routes
    visit.up.reply(json=error_body(first, "SECRET-TEXT"), status=503, path=PATHS[first])
    answering(visit.up, second, ANSWER, streamed=stream)
    caller = await visit.caller()
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        request = {"model": f"on-{first}-{second}", **ASKED[client]}
        heard = await (sdk.stream(request) if stream else sdk.ask(request))
    assert TEXT in str(heard.fields)
    told = None if client == second else f"{NAMES[client]} to {NAMES[second]}"
    assert heard.headers.get("x-aurixel-translation") == told
    assert [call.path for call in visit.up.requests] == [PATHS[first], PATHS[second]]
    record = await caller.record()
    assert (record.cell, record.upstream, record.counts) == ("ok", second, {"input": 20, "output": 7})
    assert record.via == ("" if client == second else NAMES[second])
    price = COSTS[first]  # the model has one price, whoever answers
    assert record.cost == 20 * price[0] + 7 * price[1]


async def test_pitfall_17_no_other_route_after_the_first_byte(visit: Visit, routes: tuple[str, str, str]) -> None:
    """What had begun is not begun again by another dialect's upstream: no text twice, no prompt of ours."""
    client, first, second = routes
    told = events(first, ANSWER)
    visit.up.on(PATHS[first], scripted.event_stream(told[: len(told) // 2], end=False), scripted.reset)
    answering(visit.up, second, ANSWER, streamed=True)
    caller = await visit.caller()
    reply = await visit.ask(caller.post(PATHS[client], {"model": f"on-{first}-{second}", "stream": True, **ASKED[client]}))
    ended_badly(client, reply.body, "upstream_died")
    assert [call.path for call in visit.up.requests] == [PATHS[first]]
    record = await caller.record()
    assert (record.cell, record.upstream) == ("died", first)
