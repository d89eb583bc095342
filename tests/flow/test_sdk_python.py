"""The official Python SDKs, unmodified, through the gateway, against an upstream that we did not write (aimock): they
notice nothing, and every call is charged to the nano-dollar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.flow.gateway import Running, configure, running, upstream
from tests.node.fixture import Aimock

QUESTION: Any = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}
ASKED: Any = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}}]
MESSAGE_TOOLS: Any = [{"name": "weather", "description": "The weather", "input_schema": WEATHER}]

OPENAI_USAGE = {"prompt_tokens": 17, "completion_tokens": 5, "total_tokens": 22}
OPENAI_COST = 17 * 150 + 5 * 600
ANTHROPIC_USAGE = {"input_tokens": 17, "output_tokens": 5}
ANTHROPIC_COST = 17 * 3000 + 5 * 15000


@pytest.fixture
async def gw(tmp_path: Path, aimock: Aimock) -> AsyncIterator[Running]:
    """The gateway in front of aimock."""
    upstreams = upstream("up", "openai", f"{aimock.url}/v1") + upstream("upa", "anthropic", aimock.url)
    async with running(configure(tmp_path, upstreams=upstreams)) as gateway:
        yield gateway


async def charged(gw: Running, *costs: int) -> None:
    """The account paid exactly this, call by call."""
    records = await gw.settled(count=len(costs))
    assert [record.cost for record in records] == list(costs)
    assert all(record.measured and record.cell == "ok" for record in records)
    assert (await gw.account()).spent == sum(costs)


async def test_openai_async_whole_and_streamed(gw: Running, aimock: Aimock) -> None:
    aimock.answer({}, {"content": "Hello from afar", "usage": OPENAI_USAGE})
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key()) as client:
        raw = await client.chat.completions.with_raw_response.create(**QUESTION)
        whole = raw.parse()
        assert whole.choices[0].message.content == "Hello from afar"
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == 17
        assert raw.headers["x-aurixel-cost"] == "0.00000555"
        assert whole._request_id == raw.headers["x-request-id"]

        text = ""
        async for chunk in await client.chat.completions.create(**QUESTION, stream=True):
            assert chunk.usage is None
            assert chunk.choices, "a chunk the client did not ask for"
            text += chunk.choices[0].delta.content or ""
        assert text == "Hello from afar"

        usage = None
        stream = await client.chat.completions.create(**QUESTION, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            usage = chunk.usage or usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (17, 5)
    await charged(gw, OPENAI_COST, OPENAI_COST, OPENAI_COST)


async def test_openai_sync_and_the_stream_helper(gw: Running, aimock: Aimock) -> None:
    aimock.answer({}, {"content": "Hello from afar", "usage": OPENAI_USAGE})
    key = await gw.key()

    def work() -> None:
        with openai.OpenAI(base_url=f"{gw.url}/v1", api_key=key) as client:
            assert client.chat.completions.create(**QUESTION).choices[0].message.content == "Hello from afar"
            with client.chat.completions.stream(**QUESTION) as stream:
                deltas = [event.delta for event in stream if event.type == "content.delta"]
                final = stream.get_final_completion()
            assert "".join(deltas) == final.choices[0].message.content == "Hello from afar"

    await asyncio.to_thread(work)
    await charged(gw, OPENAI_COST, OPENAI_COST)


async def test_openai_tool_calls(gw: Running, aimock: Aimock) -> None:
    call = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    aimock.answer({}, {"toolCalls": [call, call | {"arguments": '{"city":"Rome"}'}], "usage": OPENAI_USAGE})
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=await gw.key()) as client:
        whole = await client.chat.completions.create(**QUESTION, tools=TOOLS)
        calls = whole.choices[0].message.tool_calls
        assert calls is not None
        assert [each.function.arguments for each in calls if each.type == "function"] == ['{"city":"Oslo"}', '{"city":"Rome"}']
        assert whole.choices[0].finish_reason == "tool_calls"
        async with client.chat.completions.stream(**QUESTION, tools=TOOLS) as stream:
            final = await stream.get_final_completion()
        streamed = final.choices[0].message.tool_calls
        assert streamed is not None
        assert [each.function.arguments for each in streamed] == ['{"city":"Oslo"}', '{"city":"Rome"}']
    await charged(gw, OPENAI_COST, OPENAI_COST)


@pytest.mark.parametrize("version", ["2023-06-01", None])
@pytest.mark.parametrize("header", ["x-api-key", "bearer"])
async def test_anthropic_async_whole_and_streamed(gw: Running, aimock: Aimock, version: str | None, header: str) -> None:
    aimock.answer({}, {"content": "Hello from afar", "usage": ANTHROPIC_USAGE})
    key = await gw.key()
    headers = {"anthropic-version": version} if version else {}
    # Old SDKs send x-api-key, new ones a bearer token: both header styles with either version.
    credentials: dict[str, Any] = {"auth_token": key}
    if header == "x-api-key":
        credentials, headers = {"auth_token": "not-a-key"}, headers | {"x-api-key": key}
    async with anthropic.AsyncAnthropic(base_url=gw.url, default_headers=headers, **credentials) as client:
        whole = await client.messages.create(**ASKED)
        assert whole.content[0].type == "text"
        assert whole.content[0].text == "Hello from afar"
        assert whole.usage.input_tokens == 17
        assert whole._request_id is not None
        async with client.messages.stream(**ASKED) as stream:
            text = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        assert "".join(text) == "Hello from afar"
        assert (final.usage.output_tokens, final.stop_reason) == (5, "end_turn")
    sent = aimock.requests()[0]["headers"]
    assert sent["anthropic-version"] == (version or "2026-10-21")
    await charged(gw, ANTHROPIC_COST, ANTHROPIC_COST)


async def test_anthropic_sync_and_tool_use(gw: Running, aimock: Aimock) -> None:
    aimock.answer({}, {"toolCalls": [{"name": "weather", "arguments": '{"city":"Oslo"}'}], "usage": ANTHROPIC_USAGE})
    key = await gw.key()

    def work() -> None:
        with anthropic.Anthropic(base_url=gw.url, api_key=key) as client:
            whole = client.messages.create(**ASKED, tools=MESSAGE_TOOLS)
            use = whole.content[-1]
            assert (use.type, use.input, whole.stop_reason) == ("tool_use", {"city": "Oslo"}, "tool_use")
            with client.messages.stream(**ASKED, tools=MESSAGE_TOOLS) as stream:
                final = stream.get_final_message()
            assert final.content[-1].input == {"city": "Oslo"}  # type: ignore[union-attr]

    await asyncio.to_thread(work)
    await charged(gw, ANTHROPIC_COST, ANTHROPIC_COST)


async def test_models_in_both_families(gw: Running) -> None:
    key = await gw.key()
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=key) as client:
        names = [model.id async for model in client.models.list()]
        assert names == ["claude-test", "demo-echo", "gpt-test"]
        assert (await client.models.retrieve("gpt-test")).id == "gpt-test"
        with pytest.raises(openai.NotFoundError) as absent:
            await client.models.retrieve("no/such:model")
        assert absent.value.code == "model_not_found"
    async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=key) as other:
        names = [model.id async for model in other.models.list(limit=2)]
        assert names == ["claude-test", "demo-echo", "gpt-test"]
        assert (await other.models.retrieve("claude-test")).id == "claude-test"
        with pytest.raises(anthropic.NotFoundError):
            await other.models.retrieve("nothing")


# What no chat completion can be told of.
FAR_DOCUMENT: Any = {
    "model": "gpt-test",
    "messages": [
        {"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}]}
    ],
}


async def test_errors_are_the_sdks_own(gw: Running, aimock: Aimock) -> None:
    aimock.answer({}, {"content": "Hello", "usage": OPENAI_USAGE})
    poor, rich = await gw.key("poor@example.com", ""), await gw.key("rich@example.com")
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=poor) as client:
        with pytest.raises(openai.RateLimitError) as broke:
            await client.chat.completions.create(**QUESTION)
        assert (broke.value.type, broke.value.code) == ("insufficient_quota", "credit_balance_exhausted")
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**(QUESTION | {"model": "nothing"}))
        with pytest.raises(openai.InternalServerError) as unpriced:
            await client.chat.completions.create(**(QUESTION | {"model": "unpriced-test"}))
        assert unpriced.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.BadRequestError):
            await client.with_options(api_key=rich).chat.completions.create(**(QUESTION | {"model": "claude-test", "n": 2}))
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="ax-wrong").chat.completions.create(**QUESTION)
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="gpt-test", input="x")
    async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=poor) as other:
        with pytest.raises(anthropic.APIStatusError) as owing:
            await other.messages.create(**ASKED)
        assert owing.value.status_code == 402
        assert owing.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
        with pytest.raises(anthropic.NotFoundError):
            await other.messages.create(**(ASKED | {"model": "nothing"}))
        with pytest.raises(anthropic.BadRequestError):
            await other.with_options(api_key=rich).messages.create(**(ASKED | FAR_DOCUMENT))
        with pytest.raises(anthropic.AuthenticationError):
            await other.with_options(api_key="ax-wrong").messages.create(**ASKED)
    assert aimock.requests() == [], "nothing of this may reach an upstream"
    for email in ("poor@example.com", "rich@example.com"):
        assert (await gw.account(email)).spent == 0


async def test_out_of_credit_is_not_retried(gw: Running) -> None:
    """Pitfall: an SDK retries 429 twice by default, which helps nobody who has no credit."""
    poor = await gw.key("poor@example.com", "")
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=poor, max_retries=5) as client:
        with pytest.raises(openai.RateLimitError) as broke:
            await client.chat.completions.create(**QUESTION)
        assert broke.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_the_demo_provider_serves_both_families(gw: Running) -> None:
    key = await gw.key()
    async with openai.AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=key) as client:
        whole = await client.chat.completions.create(**(QUESTION | {"model": "demo-echo"}))
        assert "hello" in (whole.choices[0].message.content or "")
    async with anthropic.AsyncAnthropic(base_url=gw.url, api_key=key) as other:
        message = await other.messages.create(**(ASKED | {"model": "demo-echo"}))
        assert "hello" in message.content[0].text  # type: ignore[union-attr]
    records = await gw.settled(count=2)
    assert all(record.cost for record in records)
