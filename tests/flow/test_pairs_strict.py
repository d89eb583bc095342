"""A caller that minds losses is refused them, by name, before anything is sent or charged; and no name goes into a header
that could be anything but a name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.flow.pairs import CROSSED, NAMES, PAIRS, PATHS, Json, answering, pairing, speaking, whole
from tests.flow.shared import House, Visit, visiting
from tests.flow.test_pairs import CASES

ANSWER = CASES["text"]["answer"]
HEADER = "x-aurixel-strict"


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with pairing(tmp_path_factory.mktemp("pairs")) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


def lossy(client: str, upstream: str) -> Json:
    return {"model": f"on-{upstream}-plain", **CASES["lossy"]["request"][client]}


def names(told: str) -> list[str]:
    """The fields in the report."""
    return [name for part in told.split("; ") if "=" in part for name in part.partition("=")[2].split(",")]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("by", ["header", "key"])
@pytest.mark.parametrize("pair", CROSSED, ids=">".join)
async def test_strict_refuses_with_the_fields_named(visit: Visit, pair: tuple[str, str], by: str, stream: bool) -> None:
    client, upstream = pair
    caller = await visit.caller(limits={"strict": True} if by == "key" else None)
    request = lossy(client, upstream) | ({"extra_headers": {HEADER: "TRUE"}} if by == "header" else {})
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        with pytest.raises(sdk.errors.BadRequestError) as refused:
            await (sdk.stream(request) if stream else sdk.ask(request))
    body: Any = refused.value.body
    error = body["error"] if client == "messages" else body
    code = error["details"]["error_code"] if client == "messages" else error["code"]
    assert code == "translation_lossy"
    assert error["message"].partition(": ")[2].rstrip(".").split(", ") == names(CASES["lossy"]["told"][f"{client}>{upstream}"])
    assert visit.up.requests == []
    record = await caller.record()
    assert (record.cell, record.cost, record.counts, record.status) == ("refused", 0, {}, 400)


@pytest.mark.parametrize("pair", PAIRS, ids=">".join)
async def test_strict_lets_pass_what_loses_nothing(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answering(visit.up, upstream, ANSWER, streamed=False)
    caller = await visit.caller(limits={"strict": True})
    async with speaking(client, visit.gw.url, caller.key) as sdk:
        request = {"model": f"on-{upstream}", "extra_headers": {HEADER: "true"}}
        await sdk.ask({**request, **CASES["text"]["request"][client]})
        if client == upstream:  # it passes as it is, whatever it says
            await sdk.ask({**request, **CASES["lossy"]["request"][client]})
    assert {record.cell for record in await caller.records(1 + (client == upstream))} == {"ok"}


@pytest.mark.parametrize("value", ["false", "", "no", "1"])
async def test_only_true_is_strict(visit: Visit, value: str) -> None:
    answering(visit.up, "messages", ANSWER, streamed=False)
    caller = await visit.caller()
    reply = await visit.ask(caller.post(PATHS["chat"], raw("chat", "messages", {}), f"{HEADER}: {value}"))
    assert reply.status == 200


async def test_another_route_may_serve_a_strict_caller(visit: Visit) -> None:
    """The first would lose something; the second is of the client's own dialect."""
    answering(visit.up, "chat", ANSWER, streamed=False)
    caller = await visit.caller(limits={"strict": True})
    async with speaking("chat", visit.gw.url, caller.key) as sdk:
        await sdk.ask({**lossy("chat", "messages"), "model": "on-messages-chat"})
    assert [call.path for call in visit.up.requests] == [PATHS["chat"]]
    assert (await caller.record()).upstream == "chat"


def raw(client: str, upstream: str, more: Json) -> bytes:
    request = {"model": f"on-{upstream}", **CASES["text"]["request"][client], **more}
    return json.dumps(request).encode()


ODD = ["x\r\nset-cookie: a=b", "Ω", "a b", "a,b", "a;b", "x=1", "", "n" * 65, "\x00"]


@pytest.mark.parametrize("pair", CROSSED, ids=">".join)
async def test_a_header_has_plain_names_only(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answering(visit.up, upstream, ANSWER, streamed=False)
    caller = await visit.caller()
    for odd in ODD:
        reply = await visit.ask(caller.post(PATHS[client], raw(client, upstream, {odd: 1, "plain[0].name-2": 2})))
        assert reply.status == 200
        told = reply["x-aurixel-translation"]
        assert told == f"{NAMES[client]} to {NAMES[upstream]}; dropped=(other),plain[0].name-2", odd
        assert "set-cookie" not in dict(reply.headers)
        assert reply.headers == [(name, value) for name, value in reply.headers if value.isascii() and value.isprintable()]


@pytest.mark.parametrize("pair", CROSSED, ids=">".join)
async def test_a_report_is_bounded(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answering(visit.up, upstream, ANSWER, streamed=False)
    caller = await visit.caller()
    many = {f"field_{number}": number for number in range(3000)}
    reply = await visit.ask(caller.post(PATHS[client], raw(client, upstream, many)))
    shown = names(reply["x-aurixel-translation"])
    assert shown == [*(f"field_{number}" for number in range(20)), "+2980"]
    assert (await caller.record()).losses == {"dropped": 3000}
    reply = await visit.ask(caller.post(PATHS[client], raw(client, upstream, many), f"{HEADER}: true"))
    assert (reply.status, len(reply.body) < 1000) == (400, True)


@pytest.mark.parametrize("pair", CROSSED, ids=">".join)
async def test_a_word_inside_a_field_is_told_and_strict_refuses_it(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answering(visit.up, upstream, ANSWER, streamed=False)
    caller = await visit.caller()
    field = "input" if client == "responses" else "messages"
    body = raw(client, upstream, {field: [{"role": "user", "content": "Hi", "made_up": 1, "void": None}]})
    reply = await visit.ask(caller.post(PATHS[client], body))
    assert reply["x-aurixel-translation"] == f"{NAMES[client]} to {NAMES[upstream]}; dropped={field}.made_up"
    assert (await caller.record()).losses == {"dropped": 1}
    refused = await visit.ask(caller.post(PATHS[client], body, f"{HEADER}: true"))
    assert refused.status == 400
    assert b"translation_lossy" in refused.body
    assert f"{field}.made_up".encode() in refused.body


CITED = {
    "chat": {"type": "file_citation"},
    "responses": {"type": "file_citation", "index": 0, "file_id": "f", "filename": "n"},
    "messages": {"type": "char_location", "cited_text": "a", "document_index": 0, "start_char_index": 0, "end_char_index": 1},
}


@pytest.mark.parametrize("pair", CROSSED, ids=">".join)
async def test_what_a_reply_loses_is_told_with_it(visit: Visit, pair: tuple[str, str]) -> None:
    client, upstream = pair
    answer = whole(upstream, ANSWER)
    if upstream == "chat":
        answer["choices"][0]["message"]["annotations"] = [CITED[upstream]]
    elif upstream == "responses":
        said = next(item for item in answer["output"] if item["type"] == "message")
        said["content"][0]["annotations"] = [CITED[upstream]]
    else:
        next(block for block in answer["content"] if block["type"] == "text")["citations"] = [CITED[upstream]]
    visit.up.reply(body=json.dumps(answer).encode(), path=PATHS[upstream])
    caller = await visit.caller()
    reply = await visit.ask(caller.post(PATHS[client], raw(client, upstream, {})))
    assert reply["x-aurixel-translation"] == f"{NAMES[client]} to {NAMES[upstream]}; dropped=reply.citations"
    assert (await caller.record()).losses == {"dropped": 1}
