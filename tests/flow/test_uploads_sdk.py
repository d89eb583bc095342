"""Uploads through the official SDK: small ones and ones that stream past, in every format of reply; and every charge is the
one computed by hand in tests/golden/charges/uploads.json."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from aurixel.catalog import PriceHistory
from aurixel.ledger import verify
from aurixel.testing.samples import sample_files
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running, configure, running, upstream
from tests.flow.uploads import KIND, MODELS, PRICES, form, sound, tokens

CHARGES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "charges" / "uploads.json").read_text())
SECOND = 100_000  # nano-dollars
((_, _, PICTURE),) = sample_files("openai_image_edits")


@pytest.fixture
async def gw(tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Running]:
    blocks = upstream("up", "openai", f"{up.url}/v1")
    async with running(configure(tmp_path, upstreams=blocks, models=MODELS, prices=PRICES)) as gateway:
        yield gateway


@pytest.fixture
async def client(gw: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key(), max_retries=0) as client:
        yield client


async def charged(gw: Running, cost: int, counts: dict[str, int], *, measured: bool = True) -> None:
    (record,) = await gw.settled()
    assert (record.cell, record.cost, dict(record.counts), record.measured) == ("ok", cost, counts, measured)


@pytest.mark.parametrize("seconds", [2.5, 200.0], ids=["small", "streamed"])
async def test_a_sound_is_transcribed(gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI, seconds: float) -> None:
    data = sound(seconds)
    up.reply(json={"text": "Hello.", "usage": {"type": "duration", "seconds": seconds}})
    reply = await client.audio.transcriptions.create(model="ear-seconds", file=("hello.wav", data), language="en")
    assert reply.text == "Hello."
    request = await up.received()
    assert request.target == "/v1/audio/transcriptions"
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert int(request.headers["content-length"]) == len(request.body)
    assert data in request.body
    assert b"up-whisper" in request.body
    assert b"ear-seconds" not in request.body
    assert request.headers["authorization"] == "Bearer sk-upstream-up"
    whole = -int(-seconds // 1)
    await charged(gw, whole * SECOND, {"audio_seconds": whole})


async def test_in_every_format(gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI) -> None:
    create, file = client.audio.transcriptions.create, ("three.wav", sound(3))
    told = {"text": "Hello.", "duration": 3.0, "language": "english", "task": "transcribe"}
    part = {"type": "transcript.text.segment", "id": "seg_1", "speaker": "A", "start": 0.0, "end": 3.0, "text": "Hello."}
    up.reply(json={**told, "words": [{"word": "Hello", "start": 0.0, "end": 3.0}]})
    verbose = await create(model="ear-seconds", file=file, response_format="verbose_json", timestamp_granularities=["word"])
    assert (verbose.text, verbose.duration, verbose.words and verbose.words[0].word) == ("Hello.", 3.0, "Hello")
    assert b'name="timestamp_granularities[]"' in up.requests[-1].body
    up.reply(json={**told, "segments": [part]})
    diarized = await create(model="ear-seconds", file=file, response_format="diarized_json", chunking_strategy="auto")
    assert diarized.segments[0].speaker == "A"
    for written, kind, text in (
        ("text", "text/plain; charset=utf-8", "Hello.\n"),
        ("srt", "text/plain", "1\n00:00:00,000 --> 00:00:03,000\nHello.\n\n"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:03,000\nHello.\n\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00.000 --> 00:03.000\nGrüße.\n"),
    ):
        up.reply(body=text.encode(), headers=[("content-type", kind)])
        assert await create(model="ear-seconds", file=file, response_format=written) == text
    records = await gw.settled(count=6)
    assert {(record.cell, record.cost, record.measured) for record in records} == {("ok", 3 * SECOND, True)}


async def test_as_a_stream(gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI) -> None:
    done = {"type": "transcript.text.done", "text": "Hello you.", "usage": tokens(30, 4, 5)}
    deltas = [{"type": "transcript.text.delta", "delta": word} for word in ("Hello", " you.")]
    up.stream([f"data: {json.dumps(event)}\n\n".encode() for event in (*deltas, done)], chunks=11)
    stream = await client.audio.transcriptions.create(model="ear-tokens", file=("three.wav", sound(3)), stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    await charged(gw, 4 * 2500 + 26 * 6000 + 5 * 10_000, {"input": 4, "input_audio": 26, "output": 5})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own, of an old endpoint
async def test_translated(gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI) -> None:
    up.reply(json={"text": "Hello."})
    reply = await client.audio.translations.create(model="ear-seconds", file=("three.wav", sound(3)), prompt="German")
    assert reply.text == "Hello."
    assert up.requests[0].target == "/v1/audio/translations"
    await charged(gw, 3 * SECOND, {"audio_seconds": 3})


async def test_a_file_of_any_kind_the_sdk_takes(
    gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    """A path and bare bytes, which have no name."""
    path = tmp_path / "three.wav"
    path.write_bytes(sound(3))
    up.reply(json={"text": "Hello."})
    for file in (path, sound(3)):
        assert (await client.audio.transcriptions.create(model="ear-seconds", file=file)).text == "Hello."
    await gw.settled(count=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own, of an old endpoint
async def test_pictures_are_edited(gw: Running, up: ScriptedUpstream, client: openai.AsyncOpenAI) -> None:
    up.reply(json={"created": 1, "data": [{"b64_json": "AAAA"}]})
    edit, variation = client.images.edit, client.images.create_variation
    files = [("a.png", PICTURE), ("b.png", PICTURE)]
    reply = await edit(model="painter", image=files, mask=("m.png", PICTURE), prompt="a hat", size="1024x1024")
    assert reply.data is not None
    assert reply.data[0].b64_json == "AAAA"
    body = up.requests[0].body
    assert (body.count(b'name="image[]"'), body.count(b'name="mask"'), body.count(PICTURE)) == (2, 1, 3)
    await edit(model="painter", image=files[0], prompt="a hat", size="1024x1024")
    await variation(model="painter", image=files[0], size="1024x1024")
    assert [request.target for request in up.requests[1:]] == ["/v1/images/edits", "/v1/images/variations"]
    assert all(b"up-painter" in request.body for request in up.requests)
    assert [record.cost for record in await gw.settled(count=3)] == [20_000_000] * 3


async def test_pictures_are_edited_by_json(gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession) -> None:
    up.reply(json={"created": 1, "data": [{"b64_json": "AAAA"}]})
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body: dict[str, Any] = {"model": "painter", "prompt": "a hat", "size": "1024x1024"}
    picture = {"image_url": "data:image/png;base64,iVBORw0KGgo="}
    for more, status in (
        ({"images": [picture], "mask": picture}, 200),
        ({"images": []}, 400),
        ({}, 400),
        ({"images": [{"file_id": "file-1"}]}, 400),
        ({"images": [{}]}, 400),
        ({"images": [picture], "n": 2, "stream": True}, 400),
    ):
        async with http.post(f"{gw.url}/v1/images/edits", json={**body, **more}, headers=headers) as reply:
            assert reply.status == status, await reply.text()
    (request,) = up.requests
    assert request.json() == {**body, "images": [picture], "mask": picture, "model": "up-painter"}
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", CHARGES)
async def test_a_charge_is_the_one_computed_by_hand(
    name: str, gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    case = CHARGES[name]
    if "reply" in case:
        up.reply(json=case["reply"])
    elif "events" in case:
        up.stream([f"data: {json.dumps(event)}\n\n".encode() for event in case["events"]], chunks=7)
    else:
        up.reply(body=case["text"].encode(), headers=[("content-type", case["kind"])])
    files = [("image" if case["path"].endswith("variations") else "image[]", "a.png", PICTURE)] * case.get("pictures", 0)
    if "seconds" in case:
        files.append(("file", "talk.wav", sound(case["seconds"])))
    elif "noise" in case:
        files.append(("file", "talk.webm", b"\x1a\x45\xdf\xa3" + bytes(case["noise"])))
    headers = {"authorization": f"Bearer {await gw.key()}", "content-type": KIND}
    async with http.post(gw.url + case["path"], data=io.BytesIO(form(case["fields"], *files)), headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        await reply.read()
        assert reply.headers.get("x-aurixel-cost") in (None, f"{case['cost'] / 10**9:.9f}".rstrip("0").ljust(4, "0"))
    await charged(gw, case["cost"], case["counts"], measured=case.get("measured", True))
    report = await verify(gw.store, charges=PriceHistory(gw.store))
    assert report.ok, report.faults
