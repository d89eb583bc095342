"""Uploads that go wrong, through the whole gateway: refused in the family's shape, mostly before anything is sent, never sent
whole to an upstream when they are not sound, and never charged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aurixel.testing import scripted
from tests.edge.door import Reply
from tests.flow.shared import Caller, House, Visit, sharing, visiting
from tests.flow.uploads import BOUNDARY, KIND, MODELS, PRICES, form, sound

pytestmark = pytest.mark.deadline(30)

MIB = 1024 * 1024
PATH = "/v1/audio/transcriptions"
LARGE = sound(60)  # 960 kB: more than is taken in before it is passed on
SMALL = sound(1)
END = f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("uploads")
    async with sharing(folder, server=f"max_body = {4 * MIB}", second=True, models=MODELS, prices=PRICES) as shared:
        yield shared


@pytest.fixture(scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    times = "first_byte_timeout = 1\nidle_timeout = 0.5\ntotal_timeout = 5\n"
    folder = tmp_path_factory.mktemp("hasty")
    server = "body_timeout = 1"
    async with sharing(folder, server=server, block=times, second=True, models=MODELS, prices=PRICES) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


@pytest.fixture
async def caller(visit: Visit) -> Caller:
    return await visit.caller()


def heard(**more: Any) -> dict[str, Any]:
    return {"text": "Hello.", "usage": {"type": "duration", "seconds": 60}, **more}


def post(caller: Caller, body: bytes, path: str = PATH, *headers: str, kind: str = KIND) -> bytes:
    return caller.post(path, body, f"Content-Type: {kind}", *headers)


def told(reply: Reply, status: int, code: str, param: str | None = None) -> str:
    """The reply is an error of the family; its message."""
    assert reply["content-type"] == "application/json"
    error = reply.json["error"]
    assert (reply.status, error["code"], error["param"]) == (status, code, param), error
    return str(error["message"])


def upload(data: bytes, model: str = "ear-seconds", **fields: str) -> bytes:
    return form({"model": model, **fields}, ("file", "talk.wav", data))


# --- sound ones ---------------------------------------------------------------------------------------------------------


async def test_every_byte_but_the_models_name_arrives_as_it_was_sent(visit: Visit, caller: Caller) -> None:
    visit.up.reply(json=heard())
    for data in (SMALL, LARGE):
        visit.up.requests.clear()
        body = upload(data, prompt="héllo")
        reply = await visit.ask(post(caller, body))
        assert reply.status == 200, reply.body
        request = await visit.up.received()
        assert request.body == body.replace(b"ear-seconds", b"up-whisper")
        assert request.headers["content-type"] == KIND
        assert int(request.headers["content-length"]) == len(request.body)


async def test_an_upload_goes_on_as_it_comes(visit: Visit, caller: Caller) -> None:
    """The upstream has the beginning before the client has sent the end."""
    links: list[scripted.Call] = []

    async def arrived(call: scripted.Call) -> None:
        links.append(call)
        await visit.until(lambda: len(call._link.buffer) > 200_000)
        begun.set()
        await visit.until(lambda: call._link.buffer.endswith(END))
        await scripted.answer(json=heard())(call)

    begun = asyncio.Event()
    visit.up.once(scripted.unread, arrived)
    data = post(caller, upload(LARGE))
    wire = await visit.connect()
    wire.send(data[:600_000])
    await begun.wait()
    wire.send(data[600_000:])
    reply = await wire.reply()
    assert reply.json["text"] == "Hello."
    record = await caller.record()
    assert (record.cell, record.cost) == ("ok", 60 * 100_000)


async def test_a_body_in_chunks_is_taken_in_whole(visit: Visit, caller: Caller) -> None:
    visit.up.reply(json=heard())
    body = upload(LARGE)
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in scripted.slices(body, 100_000)) + b"0\r\n\r\n"
    head = caller.head(PATH, f"Content-Type: {KIND}", "Transfer-Encoding: chunked") + b"\r\n"
    assert (await visit.ask(head + pieces)).status == 200
    request = await visit.up.received()
    assert request.body == body.replace(b"ear-seconds", b"up-whisper")


@pytest.mark.parametrize("late", ["model", "stream", "response_format"])
async def test_fields_after_the_file(visit: Visit, caller: Caller, late: str) -> None:
    """As curl and the Node SDK send them."""
    fields = {"model": "ear-seconds", "stream": "true", "response_format": "json"}
    if late == "stream":
        visit.up.stream([b'data: {"type":"transcript.text.done","text":"Hello.","usage":{"type":"duration","seconds":60}}\n\n'])
    else:
        fields["stream"] = "false"
        visit.up.reply(json=heard())
    value = fields.pop(late)
    body = form(fields, ("file", "talk.wav", LARGE)).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form({late: value})
    reply = await visit.ask(post(caller, body))
    assert reply.status == 200, reply.body
    assert reply["content-type"].startswith("text/event-stream" if late == "stream" else "application/json")
    request = await visit.up.received()
    assert request.body == body.replace(b"ear-seconds", b"up-whisper")
    record = await caller.record()
    assert (record.cell, record.cost) == ("ok", 60 * 100_000)


async def test_names_in_brackets(visit: Visit, caller: Caller) -> None:
    visit.up.reply(json=heard())
    more = {"timestamp_granularities[]": "word", "include[]": "logprobs", "chunking_strategy[type]": "server_vad"}
    assert (await visit.ask(post(caller, upload(SMALL, **more)))).status == 200


# --- unsound ones -------------------------------------------------------------------------------------------------------


def _without_end(data: bytes) -> bytes:
    return upload(data).removesuffix(END) + b"\r\n"


BAD: dict[str, tuple[bytes, str, str | None]] = {
    "no body": (b"", "empty_body", None),
    "another boundary": (upload(SMALL).replace(BOUNDARY.encode(), b"another"), "invalid_request", None),
    "json": (b'{"model": "ear-seconds"}', "invalid_request", None),
    "no end": (_without_end(SMALL), "invalid_request", None),
    "no file": (form({"model": "ear-seconds"}), "invalid_request", "file"),
    "no model": (form({}, ("file", "a.wav", SMALL)), "invalid_request", "model"),
    "no model, large": (form({}, ("file", "a.wav", LARGE)), "invalid_request", "model"),
    "an empty model": (upload(SMALL, ""), "invalid_request", "model"),
    "an empty file": (upload(b""), "invalid_request", "file"),
    "two models": (form({"model": "ear-seconds"}) + upload(SMALL), "invalid_request", None),
    "two files": (
        form({"model": "ear-seconds"}, ("file", "a.wav", SMALL), ("file", "b.wav", SMALL)),
        "duplicate_key",
        "file",
    ),
    "another file": (form({"model": "ear-seconds"}, ("sound", "a.wav", SMALL)), "invalid_request", "sound"),
    "a model in a file": (
        form({}, ("model", "a.txt", b"ear-seconds"), ("file", "a.wav", SMALL)),
        "invalid_request",
        "model",
    ),
    "a picture": (upload(b"\x89PNG\r\n\x1a\n" + bytes(500)), "invalid_request", "file"),
    "a text": (upload(b"This is what I would say, if I spoke." * 9), "invalid_request", "file"),
    "a large text": (upload(b"This is what I would say, if I spoke." * 20_000), "invalid_request", "file"),
    "no such wave": (upload(bytes(5_000)), "invalid_request", "file"),
    "stream": (upload(SMALL, stream="perhaps"), "invalid_request", "stream"),
    "a tier": (upload(SMALL, service_tier="priority"), "unpriced_feature", "service_tier"),
    "another payer": (upload(SMALL, billing_policy="theirs"), "unsupported_parameter", "billing_policy"),
    "no such model": (upload(LARGE, "nothing"), "model_not_found", "model"),
    "a chat model": (upload(SMALL, "painter"), "model_not_found", "model"),
    "part headers": (
        upload(SMALL).replace(b'name="file"', b'name="file"; x="' + b"y" * 9_000 + b'"'),
        "invalid_request",
        None,
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_refused_before_anything_is_sent(visit: Visit, caller: Caller, name: str) -> None:
    body, code, param = BAD[name]
    message = told(await visit.ask(post(caller, body)), 404 if code == "model_not_found" else 400, code, param)
    assert "talk" not in message
    assert not visit.up.connections or not visit.up.requests
    assert await visit.gw.records(caller.email) == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/json", "text/plain", "multipart/mixed; boundary=x"])
async def test_a_body_of_another_type(visit: Visit, caller: Caller, kind: str) -> None:
    told(await visit.ask(post(caller, upload(SMALL), kind=kind)), 400, "unsupported_content_type")
    assert not visit.up.requests


async def test_larger_than_a_body_may_be(visit: Visit, caller: Caller) -> None:
    told(await visit.ask(post(caller, upload(bytes(5 * MIB)))), 413, "request_too_large")
    pieces = (
        b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in scripted.slices(upload(sound(300)), MIB)) + b"0\r\n\r\n"
    )
    head = caller.head(PATH, f"Content-Type: {KIND}", "Transfer-Encoding: chunked") + b"\r\n"
    told(await visit.ask(head + pieces), 413, "request_too_large")
    assert not visit.up.requests


async def test_more_than_the_credit_covers(visit: Visit) -> None:
    poor = await visit.caller("0.005")
    told(await visit.ask(post(poor, upload(LARGE))), 429, "credit_balance_exhausted")
    assert not visit.up.requests
    visit.up.reply(json=heard(usage={"type": "duration", "seconds": 1}))
    assert (await visit.ask(post(poor, upload(SMALL)))).status == 200


LATE: dict[str, tuple[bytes, str, str | None]] = {
    "no end": (_without_end(LARGE), "invalid_request", None),
    "a second model": (
        upload(LARGE).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form({"model": "dearer"}),
        "duplicate_key",
        "model",
    ),
    "a second file": (
        upload(LARGE).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form({}, ("file", "b.wav", SMALL)),
        "duplicate_key",
        "file",
    ),
    "a tier": (
        upload(LARGE).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + form({"service_tier": "priority"}),
        "unpriced_feature",
        "service_tier",
    ),
    "more after the end": (upload(LARGE) + form({"model": "dearer"}), "invalid_request", None),
}


@pytest.mark.parametrize("name", LATE)
async def test_what_shows_at_the_end_never_arrives_whole(visit: Visit, caller: Caller, name: str) -> None:
    body, code, param = LATE[name]
    visit.up.reply(json=heard())
    told(await visit.ask(post(caller, body)), 400, code, param)
    await visit.up.closed()
    assert not visit.up.requests  # none was read whole
    (record,) = await caller.records()
    assert (record.cell, record.cost) == ("refused", 0)


# --- on the way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [413, 401, 500])
async def test_an_upstream_that_answers_before_it_has_all(
    visit: Visit, caller: Caller, status: int, expected_logs: Any
) -> None:
    if status == 401:
        expected_logs("aurixel.gateway", r"upstream up refuses our key")
    error = {"error": {"message": "Too long a talk.", "type": "invalid_request_error", "param": "file", "code": "too_long"}}
    visit.up.once(scripted.unread, scripted.answer(json=error, status=status), scripted.stall)
    data = post(caller, upload(LARGE, "ear-twice"))
    wire = await visit.connect()
    wire.send(data[:500_000])
    reply = await wire.reply()
    if status == 413:
        assert (reply.status, reply.json) == (413, error)
    else:
        told(reply, *{401: (503, "upstream_credentials"), 500: (502, "upstream_refused")}[status])
    await visit.up.closed()
    assert not visit.second.requests  # the upload had begun, and cannot be sent again
    (record,) = await caller.records()
    assert (record.cell, record.cost) == ("refused", 0)


async def test_an_upstream_that_takes_nothing_is_passed_over_while_all_is_still_here(visit: Visit, caller: Caller) -> None:
    """A small upload is whole, and can be sent again."""
    visit.up.reply(status=500, json={"error": {"message": "No.", "type": "server_error", "param": None, "code": None}})
    visit.second.reply(json=heard())
    reply = await visit.ask(post(caller, upload(SMALL, "ear-twice")))
    assert reply.status == 200
    assert b"second-whisper" in (await visit.second.received()).body


async def test_an_upstream_that_dies_meanwhile(visit: Visit, caller: Caller) -> None:
    async def die(call: scripted.Call) -> None:
        await visit.until(lambda: len(call._link.buffer) > 100_000)
        call.reset()

    visit.up.once(scripted.unread, die)
    told(await visit.ask(post(caller, upload(LARGE, "ear-twice"))), 502, "upstream_unreachable")
    (record,) = await caller.records()
    assert (record.cell, record.cost) == ("refused", 0)
    assert not visit.second.requests


async def test_a_client_that_leaves_meanwhile(visit: Visit, caller: Caller) -> None:
    visit.up.once(scripted.unread, scripted.stall)
    wire = await visit.connect()
    wire.send(post(caller, upload(LARGE))[:500_000])
    await visit.up.received()
    wire.writer.transport.abort()
    await visit.up.closed()
    (record,) = await caller.records()
    assert (record.cell, record.cost) == ("refused", 0)


async def test_a_client_that_leaves_once_all_is_sent(visit: Visit, caller: Caller) -> None:
    """The upstream has heard it all, and bills us."""

    async def wait(call: scripted.Call) -> None:
        wire.writer.transport.abort()
        await call.gone()

    visit.up.once(wait)
    wire = await visit.connect()
    wire.send(post(caller, upload(LARGE)))
    (record,) = await caller.records()
    assert (record.cell, record.cost, record.measured) == ("client_gone", 60 * 100_000, False)


async def test_a_client_that_does_not_go_on(hasty: House) -> None:
    async with visiting(hasty) as visit:
        caller = await visit.caller()
        visit.up.once(scripted.unread, scripted.stall)
        wire = await visit.connect()
        wire.send(post(caller, upload(LARGE))[:500_000])
        told(await wire.reply(), 408, "request_timeout")
        (record,) = await caller.records()
        assert (record.cell, record.cost) == ("refused", 0)


async def test_an_upstream_that_takes_no_more(hasty: House) -> None:
    """It is not the client that is late."""

    async def take_no_more(call: scripted.Call) -> None:
        call.stop_reading()
        await call.gone()

    async with visiting(hasty) as visit:
        caller = await visit.caller()
        visit.up.once(scripted.unread, take_no_more)
        told(await visit.ask(post(caller, upload(sound(1500)))), 504, "upstream_timeout")
        (record,) = await caller.records()
        assert (record.cell, record.cost) == ("timeout_first_byte", 0)


async def test_an_upload_does_not_hold_up_others(visit: Visit, caller: Caller) -> None:
    """While one stands still in the middle, others pass."""
    visit.up.once(scripted.unread, scripted.stall)
    wire = await visit.connect()
    wire.send(post(caller, upload(LARGE))[:700_000])
    await visit.up.received()
    visit.up.reply(json=heard())
    for _ in range(3):
        assert (await visit.ask(post(caller, upload(LARGE)))).status == 200
    wire.writer.transport.abort()
    await caller.records(4)


async def test_a_gateway_that_stops_meanwhile(tmp_path: Path) -> None:
    """The client is told so in its family, nothing is charged, and nothing of it arrives whole."""
    async with sharing(tmp_path, second=True, models=MODELS, prices=PRICES) as house:
        caller = await Visit(house).caller()
        house.up.once(scripted.unread, scripted.stall)
        wire = await caller.visit.connect()
        wire.send(post(caller, upload(LARGE))[:500_000])
        await house.up.received()
        async with asyncio.TaskGroup() as group:
            group.create_task(house.gw.app.stop())
            told(await wire.reply(), 503, "shutting_down")
        await house.up.closed()
        wire.writer.close()


async def test_a_client_that_leaves_an_upstream_that_is_read_to_its_end(tmp_path: Path) -> None:
    """With `client_gone = "drain"`: an upload that is not whole is not waited for."""
    drain = 'client_gone = "drain"'
    async with sharing(tmp_path, ledger=drain, second=True, models=MODELS, prices=PRICES) as house, visiting(house) as visit:
        caller = await visit.caller()
        visit.up.once(scripted.unread, scripted.stall)
        wire = await visit.connect()
        wire.send(post(caller, upload(LARGE))[:500_000])
        await visit.up.received()
        wire.writer.transport.abort()
        await visit.up.closed()
        (record,) = await caller.records()
        assert (record.cell, record.cost) == ("refused", 0)

        async def leave(call: scripted.Call) -> None:
            wire.writer.transport.abort()
            await visit.until(lambda: not visit.gw.app._edge.connections)
            await scripted.answer(json=heard())(call)

        visit.up.once(leave)
        wire = await visit.connect()
        wire.send(post(caller, upload(LARGE)))
        _, record = await caller.records(2)
        assert (record.cell, record.cost) == ("client_gone", 60 * 100_000)


# --- replies ------------------------------------------------------------------------------------------------------------


TOO_MUCH = {"input_tokens": 3, "output_tokens": 1, "input_token_details": {"text_tokens": 4}}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<p>Hello.</p>"),
        ("application/json", b"Hello."),
        ("application/json", b'{"no": "text"}'),
        ("application/json", b'{"text": "x", "usage": {"type": "duration", "seconds": -1}}'),
        ("application/json", b'{"text": "x", "usage": {"type": "duration", "seconds": NaN}}'),
        ("application/json", b'{"text": "x", "duration": "long"}'),
        ("application/json", json.dumps({"text": "x", "usage": TOO_MUCH}).encode()),
        ("application/json", b'{"text": "x", "usage": {"input_tokens": 1.5}}'),
        ("application/json", b"[" * 5_000),
    ],
)  # fmt: skip
async def test_what_is_no_transcript(visit: Visit, caller: Caller, kind: str, body: bytes) -> None:
    visit.up.on("*", scripted.head(200, [("Content-Type", kind), ("Content-Length", str(len(body)))]), scripted.send(body))
    told(await visit.ask(post(caller, upload(SMALL))), 502, "upstream_invalid")
    (record,) = await caller.records()
    assert (record.cell, record.cost) == ("refused", 0)
