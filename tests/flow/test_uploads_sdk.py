"""Sounds through the official SDK: small ones and ones that stream past, in every format of reply, charged to the
nano-dollar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running, configure, running, upstream
from tests.flow.uploads import MODELS, PRICES, sound

SECOND = 100_000  # nano-dollars


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


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
