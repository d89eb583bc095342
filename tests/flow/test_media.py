"""The endpoints beside chat through a whole gateway, in front of a scripted upstream: every charge is the one computed by hand
in tests/golden/charges/media.json, with and without a report from the upstream, and what is wrong is sent nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from aurixel.catalog import PriceHistory
from aurixel.ledger import verify
from aurixel.testing import scripted
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running, configure, running, upstream
from tests.flow.media import MODELS, PRICES

CHARGES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "charges" / "media.json").read_text())
SOUND = bytes(range(240)) * 40
SPEECH = "/v1/audio/speech"


@pytest.fixture
async def gw(tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Running]:
    blocks = upstream("up", "openai", f"{up.url}/v1")
    blocks += upstream("uptext", "openai", f"{up.url}/v1") + 'speaks = ["completions"]\n'
    async with running(configure(tmp_path, upstreams=blocks, models=MODELS, prices=PRICES)) as gateway:
        yield gateway


def events(case: dict[str, Any]) -> list[bytes]:
    """As the upstream writes them."""
    return [
        b"data: [DONE]\n\n" if each == "[DONE]" else f"data: {json.dumps(each, ensure_ascii=False)}\n\n".encode()
        for each in case["events"]
    ]


def script(up: ScriptedUpstream, case: dict[str, Any]) -> None:
    if "reply" in case:
        up.reply(json=case["reply"])
    elif "events" in case:
        up.stream(events(case), chunks=7)
    else:
        up.reply(body=SOUND, headers=[("content-type", case["sound"])])


@pytest.mark.parametrize("name", CHARGES)
async def test_a_charge_is_the_one_computed_by_hand(
    name: str, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    case = CHARGES[name]
    script(up, case)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    async with http.post(gw.url + case["path"], json=case["request"], headers=headers) as reply:
        body = await reply.read()
        assert reply.status == 200, body
        assert reply.headers.get("x-aurixel-cost") in (None, f"{case['cost'] / 10**9:.9f}".rstrip("0").ljust(4, "0"))
    (record,) = await gw.settled()
    assert record.counts == case["counts"]
    assert (record.cost, record.measured, record.cell) == (case["cost"], case.get("measured", True), "ok")
    assert (await gw.account()).spent == case["cost"]
    if "reply" in case:
        assert json.loads(body) == case["reply"]
    await gw.app.ledger.flush()
    report = await verify(gw.store, charges=PriceHistory(gw.store))
    assert report.ok, report.faults


async def test_the_sound_in_events_is_what_a_client_that_asked_for_sound_gets(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    pieces = [SOUND[at : at + 1000] for at in range(0, len(SOUND), 1000)]
    deltas: list[Any] = [{"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces]
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    up.stream(events({"events": [*deltas, {"type": "speech.audio.done", "usage": usage}]}), chunks=313)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "voice-tokens", "input": "hello", "voice": "v", "response_format": "opus"}
    async with http.post(gw.url + SPEECH, json=body, headers=headers) as reply:
        assert reply.headers["content-type"] == "audio/opus"
        assert await reply.read() == SOUND
    assert up.requests[0].json() == {**body, "model": "up-voice", "stream_format": "sse"}


async def test_sound_goes_out_as_it_comes(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    """The first bytes are with the client while the upstream has not said the last."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
    up.on("*", scripted.send(head + b"3\r\nabc\r\n"), scripted.stall)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "voice-characters", "input": "hello", "voice": "v"}
    async with http.post(gw.url + SPEECH, json=body, headers=headers) as reply:
        assert await reply.content.readexactly(3) == b"abc"
        reply.close()
    await up.disconnected()
    (record,) = await gw.settled()
    assert (record.cell, record.cost, record.counts) == ("client_gone", 75_000, {"characters": 5})


async def test_sound_that_breaks_off_is_cut_off(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    """Nothing else tells a client that has had a part of it; nobody may take it for the whole."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
    up.on("*", scripted.send(head + b"3\r\nabc\r\n"), scripted.reset)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "voice-characters", "input": "hello", "voice": "v"}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(gw.url + SPEECH, json=body, headers=headers) as reply:
            await reply.read()
    (record,) = await gw.settled()
    assert (record.cell, record.cost) == ("died", 75_000)


async def test_a_silent_answer_and_an_empty_one_cost_nothing(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    headers = {"authorization": f"Bearer {await gw.key()}"}
    up.reply(body=b"", headers=[("content-type", "audio/mpeg")])
    async with http.post(
        gw.url + SPEECH, json={"model": "voice-characters", "input": "hello", "voice": "v"}, headers=headers
    ) as reply:
        assert (reply.status, (await reply.json())["error"]["message"]) == (502, "The upstream's answer has no sound.")
    up.reply(json={"created": 1, "data": []})
    async with http.post(
        gw.url + "/v1/images/generations", json={"model": "image-pieces", "prompt": "a"}, headers=headers
    ) as reply:
        assert reply.status == 200
    records = await gw.settled(count=2)
    assert [(record.cell, record.cost) for record in records] == [("refused", 0), ("empty", 0)]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/embeddings", {"model": "embed-test"}, 400, "invalid_request"),
        ("/v1/embeddings", {"model": "embed-test", "input": [[]]}, 400, "invalid_request"),
        ("/v1/embeddings", {"model": "image-tokens", "input": "x"}, 404, "model_not_found"),
        ("/v1/moderations", {"input": "x"}, 404, "model_not_found"),
        ("/v1/moderations", {"model": "judge-test", "input": [7]}, 400, "invalid_request"),
        ("/v1/images/generations", {"model": "image-pieces", "prompt": ""}, 400, "invalid_request"),
        ("/v1/images/generations", {"model": "image-pieces", "prompt": "a", "n": 0}, 400, "invalid_request"),
        ("/v1/images/generations", {"model": "image-pieces", "prompt": "a", "size": "256x256"}, 400, "unpriced_feature"),
        (
            "/v1/images/generations",
            {"model": "image-pieces", "prompt": "a", "size": "1024x1024", "quality": "max"},
            400,
            "unpriced_feature",
        ),
        ("/v1/images/generations", {"model": "image-tokens", "prompt": "a", "output_format": "svg"}, 400, "unpriced_feature"),
        (
            "/v1/images/generations",
            {"model": "image-tokens", "prompt": "a", "stream": True, "n": 2},
            400,
            "unsupported_parameter",
        ),
        ("/v1/audio/speech", {"model": "voice-tokens", "voice": "v"}, 400, "invalid_request"),
        (
            "/v1/audio/speech",
            {"model": "voice-tokens", "input": "x", "voice": {"id": "voice_1"}},
            400,
            "unsupported_parameter",
        ),
        ("/v1/completions", {"model": "text-test", "prompt": [["a"]]}, 400, "invalid_request"),
        ("/v1/completions", {"model": "text-test", "prompt": "a", "service_tier": "flex"}, 400, "unpriced_feature"),
        ("/v1/completions", {"model": "embed-test", "prompt": "a"}, 404, "model_not_found"),
    ],
)
async def test_what_is_wrong_is_sent_nowhere_and_costs_nothing(
    path: str, body: Any, status: int, code: str, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    headers = {"authorization": f"Bearer {await gw.key()}"}
    async with http.post(gw.url + path, json=body, headers=headers) as reply:
        told = await reply.json()
    assert (reply.status, told["error"]["code"]) == (status, code)
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert up.requests == []
    assert (await gw.account()).spent == 0
    assert await gw.records() == []


@pytest.mark.parametrize("path", sorted({case["path"] for case in CHARGES.values()}))
async def test_a_body_that_is_none_or_too_large(
    path: str, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    headers = {"authorization": f"Bearer {await gw.key()}", "content-type": "application/json"}
    for body in (b"", b"{", b"[]", b'{"model": 1}'):
        async with http.post(gw.url + path, data=body, headers=headers) as reply:
            assert reply.status == 400
    async with http.post(gw.url + path, data=b"x", headers=headers | {"content-type": "text/plain"}) as reply:
        assert (await reply.json())["error"]["code"] == "unsupported_content_type"
    large = {**headers, "content-length": str(10**10), "expect": "100-continue"}
    async with http.post(gw.url + path, data=b"", headers=large) as reply:
        assert reply.status == 413
    async with http.post(gw.url + path, json={}) as reply:
        assert reply.status == 401
    assert up.requests == []


@pytest.mark.parametrize(
    ("path", "body", "least"),
    [
        # 512 and 16 of the request beside its 3 bytes; the longest answer that nobody can limit.
        ("/v1/images/generations", {"model": "image-tokens", "prompt": "a", "n": 2}, 531 * 10_000 + 2 * 8192 * 40_000),
        # The dearest that `auto` may turn out to be.
        ("/v1/images/generations", {"model": "image-pieces", "prompt": "a", "n": 2}, 2 * 120_000_000),
        ("/v1/audio/speech", {"model": "voice-tokens", "input": "a", "voice": "v"}, 531 * 600 + 4096 * 12_000),
        ("/v1/audio/speech", {"model": "voice-characters", "input": "a" * 100, "voice": "v"}, 100 * 15_000),
        ("/v1/embeddings", {"model": "embed-test", "input": "a"}, 531 * 20),
        ("/v1/completions", {"model": "text-test", "prompt": ["a", "b"], "best_of": 3, "max_tokens": 5}, 0),
    ],
)
async def test_credit_must_cover_what_an_answer_may_cost(
    path: str, body: Any, least: int, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    least = least or (10 + 2 * 16 + 512) * 1500 + 6 * 16 * 2000  # of no answer fewer than 16 tokens are held for
    up.reply(status=400, json={"error": {"message": "no", "type": "x", "code": None}})
    for short, status in ((1, 429), (0, 400)):
        email = f"has-{short}@example.com"
        credit = f"{(least - short) / 10**9:.9f}"
        headers = {"authorization": f"Bearer {await gw.key(email, credit)}"}
        async with http.post(gw.url + path, json=body, headers=headers) as reply:
            assert reply.status == status, await reply.text()
    assert len(up.requests) == 1


async def test_the_sdk_reads_what_a_scripted_upstream_streams(gw: Running, up: ScriptedUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key(), max_retries=0) as client:
        script(up, CHARGES["a streamed picture by tokens"])
        stream = await client.images.generate(model="image-tokens", prompt="a", stream=True, partial_images=1)
        kinds = [event.type async for event in stream]
        assert kinds == ["image_generation.partial_image", "image_generation.completed"]
        up.stream([*events({"events": [{"type": "image_generation.partial_image", "b64_json": "aGk="}]})])
        with pytest.raises(openai.APIError) as died:
            async for _ in await client.images.generate(model="image-tokens", prompt="a", stream=True):
                pass
        assert died.value.code == "upstream_died"
    records = await gw.settled(count=2)
    assert [record.cell for record in records] == ["ok", "died"]
    assert records[1].counts == {"input": 1, "output_image": 100}
    assert records[1].cost == 5_000 + 4_000_000


async def test_pitfall_16_a_picture_of_eight_megabytes_is_one_event(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    """No line is too long, and nothing of it is rewritten."""
    picture = base64.b64encode(SOUND * 625).decode()
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    completed = {"type": "image_generation.completed", "b64_json": picture, "usage": usage}
    event = b"event: image_generation.completed\ndata: " + json.dumps(completed).encode() + b"\n\n"
    up.stream([event], chunks=65_537)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "image-tokens", "prompt": "a", "stream": True}
    async with http.post(gw.url + "/v1/images/generations", json=body, headers=headers) as reply:
        assert await reply.read() == event
    (record,) = await gw.settled()
    assert (record.counts, record.measured) == ({"input": 1, "output_image": 2}, True)


async def test_pitfall_23_the_gateway_fetches_no_picture_that_a_client_names(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    up.reply(json={"id": "modr-1", "results": [{"flagged": False}]})
    headers = {"authorization": f"Bearer {await gw.key()}"}
    picture = {"type": "image_url", "image_url": {"url": f"{up.url}/private.png"}}
    body = {"model": "judge-test", "input": [picture, {"type": "text", "text": "what is it"}]}
    async with http.post(gw.url + "/v1/moderations", json=body, headers=headers) as reply:
        assert reply.status == 200
    (asked,) = up.requests
    assert (asked.path, asked.json()) == ("/v1/moderations", {**body, "model": "up-judge"})


LEFT = {
    "image-tokens": ({"input": 1, "output_image": 100}, 5_000 + 4_000_000, False),
    "image-pieces": ({"images.auto.auto": 1}, 40_000_000, True),
}


@pytest.mark.parametrize("model", LEFT)
async def test_a_picture_costs_what_it_cost_though_the_client_left(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession, model: str
) -> None:
    """After a preview. By tokens: the preview, guessed, for the rest was never made. By the piece: a picture."""
    preview = {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0}
    up.on("*", scripted.event_stream(events({"events": [preview]}), end=False), scripted.stall)
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": model, "prompt": "a", "stream": True}
    async with http.post(gw.url + "/v1/images/generations", json=body, headers=headers) as reply:
        await reply.content.readany()
        reply.close()
    await up.disconnected()
    (record,) = await gw.settled()
    assert record.cell == "client_gone"
    assert (record.counts, record.cost, record.measured) == LEFT[model]
