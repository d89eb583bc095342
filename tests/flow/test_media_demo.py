"""The endpoints beside chat as `make run` shows them: the official SDK, the demo's models at the demo's prices."""

from __future__ import annotations

import base64
import io
import json
import operator
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

import aurixel.cli
from tests.flow.gateway import Running, configure, running
from tests.node.fixture import NodeEnv

DEMO = Path(aurixel.cli.__file__).parent / "demo"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def gw(tmp_path: Path) -> AsyncIterator[Running]:
    files = {name: (DEMO / f"{name}.toml").read_text() for name in ("models", "prices")}
    async with running(configure(tmp_path, **files)) as gateway:
        yield gateway


@pytest.fixture
async def client(gw: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key(), max_retries=0) as client:
        yield client


async def charged(gw: Running, *costs: int) -> None:
    records = await gw.settled(count=len(costs))
    assert [record.cost for record in records] == list(costs)
    assert all(record.cell == "ok" and record.measured for record in records)


async def test_embeddings_as_floats_and_packed(gw: Running, client: openai.AsyncOpenAI) -> None:
    texts = ["the cat sat", "the cat sat down", "markets fell"]
    packed = await client.embeddings.create(model="demo-embedding", input=texts)  # the SDK asks for base64 by itself
    plain = await client.embeddings.create(model="demo-embedding", input=texts, encoding_format="float", dimensions=64)
    vectors = [each.embedding for each in plain.data]
    for one, other in zip(packed.data, vectors, strict=True):
        assert one.embedding == pytest.approx(other)
    alike, apart = (sum(map(operator.mul, vectors[0], other)) for other in vectors[1:])
    assert alike > apart
    assert plain.usage.prompt_tokens == 9
    await client.embeddings.create(model="demo-embedding", input=[[5, 6, 7], [8]])
    await charged(gw, 9 * 100, 9 * 100, 4 * 100)


async def test_a_picture_whole_by_address_and_streamed(gw: Running, client: openai.AsyncOpenAI) -> None:
    whole = await client.images.generate(model="demo-image", prompt="a red fox", n=2)
    assert whole.data is not None
    assert [base64.b64decode(each.b64_json or "")[:8] for each in whole.data] == [PNG, PNG]
    by_address = await client.images.generate(model="demo-image", prompt="a red fox", response_format="url")
    assert by_address.data is not None
    assert (by_address.data[0].url or "").startswith("data:image/png;base64,iVBORw0KGgo")
    stream = await client.images.generate(model="demo-image", prompt="a red fox", stream=True, partial_images=2)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert base64.b64decode(events[-1].b64_json)[:8] == PNG
    await charged(gw, 20_000_000, 10_000_000, 10_000_000)


async def test_a_spoken_sentence(gw: Running, client: openai.AsyncOpenAI) -> None:
    async with client.audio.speech.with_streaming_response.create(
        model="demo-voice", voice="alloy", input="Hello", response_format="wav"
    ) as reply:
        assert reply.headers["content-type"] == "audio/wav"
        pieces = [piece async for piece in reply.iter_bytes()]
    with wave.open(io.BytesIO(b"".join(pieces))) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (1, 8_000, 4_000)
    whole = await client.audio.speech.create(model="demo-voice", voice="alloy", input="Grüße", stream_format="sse")
    assert whole.response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b"speech.audio.done" in whole.content
    await charged(gw, 5 * 15_000, 5 * 15_000)


async def test_a_spoken_sentence_and_what_is_heard_of_it(gw: Running, client: openai.AsyncOpenAI) -> None:
    spoken = await client.audio.speech.create(model="demo-voice", voice="alloy", input="Hello", response_format="wav")
    create, file = client.audio.transcriptions.create, ("hello.wav", spoken.content)
    text = "This is the demo. It heard 0.5 seconds of sound."
    assert (await create(model="demo-ear", file=file)).text == text
    verbose = await create(model="demo-ear", file=file, response_format="verbose_json")
    assert (verbose.text, verbose.duration) == (text, 0.5)
    assert await create(model="demo-ear", file=file, response_format="text") == f"{text}\n"
    assert "00:00:00,000 --> 00:00:00,500" in await create(model="demo-ear", file=file, response_format="srt")
    assert "00:00:00.000 --> 00:00:00.500" in await create(model="demo-ear", file=file, response_format="vtt")
    stream = await create(model="demo-ear", file=file, stream=True)
    assert "".join([event.delta async for event in stream if event.type == "transcript.text.delta"]) == text
    large = spoken.content + bytes(600_000)  # streams past
    assert (await create(model="demo-ear", file=("hello.wav", large))).text == text
    await charged(gw, 5 * 15_000, *[100_000] * 7)


async def test_a_picture_edited_and_varied(gw: Running, client: openai.AsyncOpenAI) -> None:
    drawn = await client.images.generate(model="demo-image", prompt="a red fox")
    assert drawn.data is not None
    fox = ("fox.png", base64.b64decode(drawn.data[0].b64_json or ""))
    edited = await client.images.edit(model="demo-image", image=[fox, fox], mask=fox, prompt="with a hat", n=2)
    assert edited.data is not None
    assert [base64.b64decode(each.b64_json or "")[:8] for each in edited.data] == [PNG, PNG]
    stream = await client.images.edit(model="demo-image", image=fox, prompt="with a hat", stream=True, partial_images=1)
    assert [event.type async for event in stream] == ["image_edit.partial_image", "image_edit.completed"]
    with pytest.warns(DeprecationWarning, match="deprecated"):
        varied = await client.images.create_variation(model="demo-image", image=fox)
    assert varied.data is not None
    await charged(gw, 10_000_000, 20_000_000, 10_000_000, 10_000_000)


async def test_what_may_be_said(gw: Running, client: openai.AsyncOpenAI) -> None:
    reply = await client.moderations.create(model="demo-judge", input=["good morning", "an act of violence"])
    assert [result.flagged for result in reply.results] == [False, True]
    assert reply.results[1].categories.violence
    await charged(gw, 100_000)


async def test_a_text_is_continued(gw: Running, client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="demo", prompt="two words", n=2)
    assert [choice.text for choice in whole.choices] == ["This is the demo. You wrote: two words"] * 2
    text = ""
    async for chunk in await client.completions.create(model="demo", prompt="two words", stream=True):
        assert chunk.choices, "a chunk the client did not ask for"
        text += chunk.choices[0].text
    assert text == "This is the demo. You wrote: two words"
    await charged(gw, 2 * 1000 + 16 * 4000, 2 * 1000 + 8 * 4000)


@pytest.mark.parametrize("word", ["429", "fail", "die", "refuse"])
async def test_trouble_on_demand(gw: Running, client: openai.AsyncOpenAI, word: str) -> None:
    with pytest.raises(openai.APIStatusError):
        await client.embeddings.create(model="demo-embedding", input=f"!{word} please")
    with pytest.raises(openai.APIStatusError):
        await client.images.generate(model="demo-image", prompt=f"!{word} please")
    assert [record.cost for record in await gw.settled(count=2)] == [0, 0]


async def test_the_javascript_sdk(gw: Running, node_env: NodeEnv) -> None:
    seen = json.loads(await node_env.run("media.mjs", gw.url, await gw.key()))
    text = "This is the demo. It heard 0.5 seconds of sound."
    assert seen == {
        "vectors": [[64, 64], 5],
        "flagged": True,
        "picture": "PNG",
        "events": ["image_generation.partial_image", "image_generation.completed"],
        "sound": ["RIFF", "audio/wav"],
        "heard": [text, f"{text}\n", text] * 2,
        "edited": "PNG",
        "text": "This is the demo. You wrote: two words",
        "refused": ["BadRequestError", "unsupported_parameter"],
    }
    heard = [5 * 15_000, *[100_000] * 6, 10_000_000]
    await charged(gw, 5 * 100, 100_000, 10_000_000, 10_000_000, 7 * 15_000, *heard, 2 * 1000 + 8 * 4000)
