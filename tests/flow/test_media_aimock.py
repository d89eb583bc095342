"""The endpoints beside chat by the official SDK, in front of an upstream that we did not write (aimock)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.flow import uploads
from tests.flow.gateway import Running, configure, running, upstream
from tests.flow.media import MODELS, PRICES
from tests.node.fixture import Aimock

PICTURE = base64.b64encode(b"\x89PNG picture").decode()
SOUND = bytes(range(256)) * 300


@pytest.fixture
async def gw(tmp_path: Path, aimock: Aimock) -> AsyncIterator[Running]:
    blocks = upstream("up", "openai", f"{aimock.url}/v1") + upstream("uptext", "openai", f"{aimock.url}/v1")
    async with running(configure(tmp_path, upstreams=blocks, models=MODELS, prices=PRICES)) as gateway:
        yield gateway


@pytest.fixture
async def client(gw: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key(), max_retries=0) as client:
        yield client


async def test_embeddings(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    """It reports no input at all, which is not believed: 17 bytes, as they are written."""
    aimock.answer({"endpoint": "embedding"}, {"embedding": [0.25, -0.5]})
    reply = await client.embeddings.create(model="embed-test", input=["hello", "world"], dimensions=2)
    assert [each.embedding for each in reply.data] == [[0.25, -0.5], [0.25, -0.5]]
    (sent,) = aimock.requests()
    assert sent["path"] == "/v1/embeddings"
    (record,) = await gw.settled()
    assert (record.counts, record.cost, record.measured) == ({"input": 5}, 100, False)


async def test_pictures(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    aimock.answer({"endpoint": "image"}, {"images": [{"b64Json": PICTURE}, {"url": "https://x.example/2.png"}]})
    reply = await client.images.generate(model="image-pieces", prompt="a fox", n=2, size="1024x1024", quality="hd")
    assert reply.data is not None
    assert (reply.data[0].b64_json, reply.data[1].url) == (PICTURE, "https://x.example/2.png")
    (record,) = await gw.settled()
    assert (record.counts, record.cost, record.measured) == ({"images.1024x1024.hd": 2}, 160_000_000, True)


async def test_speech(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    aimock.answer({"endpoint": "speech"}, {"audio": base64.b64encode(SOUND).decode(), "format": "wav"})
    whole = await client.audio.speech.create(model="voice-characters", voice="alloy", input="Grüße", response_format="wav")
    assert (whole.content, whole.response.headers["content-type"]) == (SOUND, "audio/wav")
    async with client.audio.speech.with_streaming_response.create(
        model="voice-tokens", voice="alloy", input="hello", response_format="wav"
    ) as reply:  # it knows nothing of events and sends sound
        assert b"".join([piece async for piece in reply.iter_bytes()]) == SOUND
    by_character, by_token = await gw.settled(count=2)
    assert (by_character.counts, by_character.cost, by_character.measured) == ({"characters": 5}, 75_000, True)
    # 76,800 bytes of WAV are 1.6 s, 32 tokens.
    assert (by_token.counts, by_token.measured) == ({"input": 2, "output_audio": 32}, False)
    assert by_token.cost == 2 * 600 + 32 * 12_000


async def test_moderation(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    reply = await client.moderations.create(model="judge-test", input="a kind word")
    assert [result.flagged for result in reply.results] == [False]
    (record,) = await gw.settled()
    assert (record.counts, record.cost, record.measured) == ({"requests": 1}, 100_000, True)


async def test_an_upstreams_refusal_is_the_clients(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    aimock.error(400, "Your prompt was rejected.", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="Your prompt was rejected"):
        await client.embeddings.create(model="embed-test", input="a fox")
    (record,) = await gw.settled()
    assert (record.cell, record.cost) == ("refused", 0)


async def test_another_formats_upstream_is_not_asked(gw: Running, aimock: Aimock, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="text-test", prompt="Once")
    assert refused.value.code == "unsupported_dialect"
    assert aimock.requests() == []


@pytest.mark.parametrize("seconds", [3.0, 60.0], ids=["small", "streamed"])
async def test_transcriptions(tmp_path: Path, aimock: Aimock, seconds: float) -> None:
    """It reports nothing, so that the sound itself is what is charged."""
    aimock.answer({"endpoint": "transcription"}, {"transcription": {"text": "Hello from afar."}})
    blocks = upstream("up", "openai", f"{aimock.url}/v1")
    async with (
        running(configure(tmp_path, upstreams=blocks, models=uploads.MODELS, prices=uploads.PRICES)) as gw,
        openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key(), max_retries=0) as client,
    ):
        file = ("hello.wav", uploads.sound(seconds))
        reply = await client.audio.transcriptions.create(model="ear-seconds", file=file)
        assert reply.text == "Hello from afar."
        (record,) = await gw.settled()
        assert (record.counts, record.cost) == ({"audio_seconds": seconds}, round(seconds) * 100_000)
