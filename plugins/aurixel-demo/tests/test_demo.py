"""The demo provider: the contract suite, answers that can be foretold, and each way it fails when told to."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from aurixel.plugin import Attempt, OpensItself, Provider, ProviderError, UpstreamReply, Usage
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.testing.provider_suite import OpeningProviderSuite

FAMILIES = ("openai_chat", "anthropic_messages")


class TestContract(OpeningProviderSuite):
    plugin = "demo"
    kind = "demo"
    settings = {"delay": 0}  # noqa: RUF012 - read only
    client_faults = ((400, b'{"error": {"message": "no"}}'),)


REGISTRY = Registry.load(["demo"])


def make(**settings: Any) -> Provider:
    return REGISTRY.build_provider("one", "demo", settings, PluginHost())


def request(text: str, *, model: str = "demo-echo", stream: bool = False, **fields: Any) -> dict[str, Any]:
    asked = {"model": model, "stream": stream, "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return {**asked, **fields}


async def answered(family: str, body: dict[str, Any], provider: Provider | None = None) -> tuple[int, bytes, str]:
    """Status, whole body, content type."""
    provider = provider or make()
    async with opened(provider, family, body) as reply:
        return reply.status, await reply.read(1 << 20), reply.headers["content-type"]


def opened(provider: Provider, family: str, body: dict[str, Any]) -> Any:
    assert isinstance(provider, OpensItself)
    attempt = Attempt(operation="chat", dialect=family, model=body["model"], stream=body["stream"], query="", headers=())
    text = json.dumps(body).encode()
    return provider.open(provider.prepare(attempt, (text[:9], text[9:])))


def text_of(family: str, reply: Any) -> str:
    if family == "openai_chat":
        return reply["choices"][0]["message"]["content"] or ""
    return "".join(block["text"] for block in reply["content"] if block["type"] == "text")


def usage_of(family: str, reply: Any) -> tuple[int, int]:
    names = ("prompt_tokens", "completion_tokens") if family == "openai_chat" else ("input_tokens", "output_tokens")
    return reply["usage"][names[0]], reply["usage"][names[1]]


def stream_data(body: bytes) -> list[Any]:
    lines = [line for line in body.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("family", FAMILIES)
async def test_text_and_usage_can_be_foretold(family: str) -> None:
    body = request("count these five words please", system="be brief")
    status, text, kind = await answered(family, body)
    reply = json.loads(text)
    assert (status, kind) == (200, "application/json")
    assert text_of(family, reply) == "This is the demo. You wrote: count these five words please"
    assert usage_of(family, reply) == (7, 11)
    assert (await answered(family, body))[1] == text


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_stream_says_the_same_word_by_word(family: str) -> None:
    body = request("two words", stream=True, stream_options={"include_usage": True})
    provider = make()
    async with opened(provider, family, body) as reply:
        pieces = [piece async for piece in reply.chunks()]
    dialect = REGISTRY.dialects[family]
    reader = dialect.stream_reader(dialect.parse_request(json.dumps(body).encode(), {}))
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    assert reader.done
    assert reader.usage == Usage({"input": 2, "output": 8})
    assert len(pieces) >= 10
    deltas = [each for each in stream_data(b"".join(pieces)) if "delta" in each or each.get("choices")]
    if family == "openai_chat":
        said = [each["choices"][0]["delta"].get("content") or "" for each in deltas]
    else:
        said = [each["delta"].get("text", "") for each in deltas]
    assert "".join(said) == "This is the demo. You wrote: two words"


async def test_a_chat_stream_has_usage_only_if_asked() -> None:
    _, body, _ = await answered("openai_chat", request("x", stream=True))
    assert all("usage" not in chunk for chunk in stream_data(body))
    _, body, _ = await answered("openai_chat", request("x", stream=True, stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in stream_data(body)][-1]["total_tokens"] == 8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [0, 1, 3, 7, 8])
async def test_the_output_limit_is_obeyed(family: str, limit: int) -> None:
    _, text, _ = await answered(family, request("x", max_tokens=limit))
    reply = json.loads(text)
    assert usage_of(family, reply)[1] == min(limit, 7)
    reason = reply["choices"][0]["finish_reason"] if family == "openai_chat" else reply["stop_reason"]
    assert reason == (("stop", "end_turn") if limit >= 7 else ("length", "max_tokens"))[family == "anthropic_messages"]


async def test_several_choices_are_each_charged() -> None:
    _, text, _ = await answered("openai_chat", request("x", n=3))
    reply = json.loads(text)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert reply["usage"]["completion_tokens"] == 21


PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["C", "F"]},
        "where": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
        "tags": {"type": "array"},
    },
}
ARGUMENTS = {"city": "demo text", "days": 1, "unit": "C", "where": {"exact": True}, "tags": []}
TOOLS = {
    "openai_chat": [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}],
    "anthropic_messages": [{"name": "get_weather", "input_schema": PARAMETERS}],
}
FORCED = {
    "openai_chat": ["required", {"type": "function", "function": {"name": "get_weather"}}],
    "anthropic_messages": [{"type": "any"}, {"type": "tool", "name": "get_weather"}],
}


def calls_of(family: str, reply: Any) -> list[tuple[str, Any]]:
    if family == "openai_chat":
        calls = reply["choices"][0]["message"].get("tool_calls", [])
        return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
    return [(block["name"], block["input"]) for block in reply["content"] if block["type"] == "tool_use"]


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_tool_is_called_when_named_or_demanded(family: str) -> None:
    tools = TOOLS[family]
    named = request("please use get_weather", tools=tools)
    for body in (named, *(request("anything", tools=tools, tool_choice=choice) for choice in FORCED[family])):
        reply = json.loads((await answered(family, body))[1])
        assert calls_of(family, reply) == [("get_weather", ARGUMENTS)]
        assert usage_of(family, reply)[1] >= 1
        streamed = stream_data((await answered(family, {**body, "stream": True}))[1])
        assert any("get_weather" in json.dumps(each) for each in streamed)
    none: Any = "none" if family == "openai_chat" else {"type": "none"}
    for body in (request("hello", tools=tools), {**named, "tool_choice": none}, {**named, "max_tokens": 0}):
        assert calls_of(family, json.loads((await answered(family, body))[1])) == []


async def test_after_a_tools_result_comes_an_answer() -> None:
    chat = request("", tools=TOOLS["openai_chat"], tool_choice="required")
    chat["messages"].append({"role": "tool", "tool_call_id": "call_1", "content": "rain today"})
    assert text_of("openai_chat", json.loads((await answered("openai_chat", chat))[1])) == "The tool said: rain today"
    messages = request("", tools=TOOLS["anthropic_messages"], tool_choice={"type": "any"})
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "rain today"}]}
    messages["messages"].append({"role": "user", "content": [result]})
    reply = json.loads((await answered("anthropic_messages", messages))[1])
    assert text_of("anthropic_messages", reply) == "The tool said: rain today"


async def drain(reply: UpstreamReply, take: Callable[[bytes], object]) -> None:
    async for chunk in reply.chunks():
        take(chunk)


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "status", "action", "code"),
    [
        ("refuse", 400, "relay", "upstream_refused"),
        ("429", 429, "failover", "upstream_rate_limited"),
        ("fail", 500, "failover", "upstream_refused"),
    ],
)
async def test_told_to_refuse(family: str, name: str, status: int, action: str, code: str) -> None:
    provider = make()
    for body in (request("x", model=f"demo-{name}"), request(f"!{name} please", stream=True)):
        async with opened(provider, family, body) as reply:
            assert reply.status == status
            text = await reply.read(1 << 20)
            classified = provider.classify(reply.status, reply.headers, text)
        assert (classified.action, classified.error.code) == (action, code)
        assert json.loads(text)["error"]["message"] == "The demo was told to fail."
        assert classified.error.retry_after == (1 if status == 429 else None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_told_to_die(family: str, stream: bool) -> None:
    got: list[bytes] = []
    async with opened(make(), family, request("x", model="demo-die", stream=stream)) as reply:
        assert reply.status == 200
        with pytest.raises(ProviderError) as caught:
            await drain(reply, got.append)
    assert caught.value.code == "upstream_died"
    assert got
    assert b"[DONE]" not in b"".join(got)
    assert b"message_stop" not in b"".join(got)


@pytest.mark.parametrize("family", FAMILIES)
async def test_told_to_send_an_error_event(family: str) -> None:
    body = request("!error now", stream=True)
    dialect = REGISTRY.dialects[family]
    reader = dialect.stream_reader(dialect.parse_request(json.dumps(body).encode(), {}))
    async with opened(make(), family, body) as reply:
        with pytest.raises(ProviderError) as caught:
            await drain(reply, reader.feed)
    assert caught.value.code == "upstream_error_event"


async def test_told_to_hang_it_waits_until_it_is_left() -> None:
    entered = asyncio.Event()

    async def ask() -> UpstreamReply:
        entered.set()
        async with opened(make(), "openai_chat", request("x", model="demo-hang")) as reply:
            return reply

    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
        await entered.wait()
        task.cancel()
    assert task.cancelled()


async def test_told_to_be_slow_it_pauses_before_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("aurixel_demo.provider.asyncio.sleep", pause)
    provider = make(delay=0.25, slow_delay=2.5)
    for model, seconds in (("demo-echo", 0.25), ("demo-slow", 2.5)):
        pauses.clear()
        await answered("openai_chat", request("x", model=model, stream=True), provider)
        assert len(pauses) > 5
        assert set(pauses) == {seconds}


async def test_a_reply_larger_than_allowed() -> None:
    async with opened(make(), "openai_chat", request("x")) as reply:
        with pytest.raises(ProviderError) as caught:
            await reply.read(10)
    assert caught.value.code == "upstream_invalid"


# --- beside chat ------------------------------------------------------------------------------------------------------


async def asked_of(dialect: str, **fields: Any) -> tuple[int, bytes, str]:
    return await answered(dialect, {"model": "demo", "stream": False, **fields})


async def test_vectors_can_be_foretold_and_packed() -> None:
    texts = ["the cat sat", "the cat sat down", "markets fell"]
    plain = json.loads((await asked_of("openai_embeddings", input=texts))[1])
    packed = json.loads((await asked_of("openai_embeddings", input=texts, encoding_format="base64"))[1])
    vectors = [each["embedding"] for each in plain["data"]]
    for one, other in zip(vectors, packed["data"], strict=True):
        assert struct.unpack("<64f", base64.b64decode(other["embedding"])) == pytest.approx(one)
    assert plain["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    few = json.loads((await asked_of("openai_embeddings", input=[[5, 6], [7]], dimensions=3))[1])
    assert [len(each["embedding"]) for each in few["data"]] == [3, 3]
    assert few["usage"]["prompt_tokens"] == 3


async def test_a_verdict_is_in_the_words() -> None:
    parts = [{"type": "text", "text": "pure violence"}, {"type": "image_url", "image_url": {"url": "https://x.example/"}}]
    reply = json.loads((await asked_of("openai_moderations", input=parts))[1])
    assert [result["flagged"] for result in reply["results"]] == [True, False]


async def test_a_picture_is_a_picture() -> None:
    _, body, kind = await asked_of("openai_images", prompt="a red fox", n=2)
    reply = json.loads(body)
    png = base64.b64decode(reply["data"][0]["b64_json"])
    assert (kind, png[:8], len(reply["data"])) == ("application/json", b"\x89PNG\r\n\x1a\n", 2)
    size = struct.unpack(">I", png[33:37])[0]
    assert png[37:41] == b"IDAT"
    assert len(zlib.decompress(png[41 : 41 + size])) == 64 * (1 + 3 * 64)
    assert zlib.crc32(png[37 : 41 + size]) == struct.unpack(">I", png[41 + size : 45 + size])[0]
    assert reply["usage"]["output_tokens"] == 128
    assert (await asked_of("openai_images", prompt="another"))[1] != body


async def test_a_tone_is_a_wav_file_or_its_samples() -> None:
    _, body, kind = await asked_of("openai_speech", input="whatever")
    assert kind == "audio/wav"
    with wave.open(io.BytesIO(body)) as sound:
        samples = sound.readframes(10_000)
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 8_000)
    assert len(samples) == 8_000
    assert await asked_of("openai_speech", input="x", response_format="pcm") == (200, samples, "audio/pcm")
    _, stream, kind = await asked_of("openai_speech", input="two words", response_format="pcm", stream_format="sse")
    *deltas, done = stream_data(stream)
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == samples
    assert (kind, done["usage"]["input_tokens"]) == ("text/event-stream", 2)


async def test_a_picture_told_to_fail_in_the_middle() -> None:
    _, body, _ = await asked_of("openai_images", prompt="!error please", stream=True, partial_images=2)
    first, last = stream_data(body)
    assert (first["type"], last["error"]["type"]) == ("image_generation.partial_image", "overloaded_error")
