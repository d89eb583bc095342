"""aimock answers the official Python SDKs as scripted, whole and streamed; Node runs the official JavaScript ones."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.node.fixture import Aimock, NodeEnv, ScriptFailed


async def test_aimock_speaks_chat_completions(aimock: Aimock) -> None:
    aimock.answer({"userMessage": "hello"}, {"content": "Hi there", "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    question: Any = {"model": "some-model", "messages": [{"role": "user", "content": "hello"}]}
    async with openai.AsyncOpenAI(base_url=f"{aimock.url}/v1", api_key="k", max_retries=0) as client:
        whole = await client.chat.completions.create(**question)
        assert whole.choices[0].message.content == "Hi there"
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == 7

        text, usage = "", None
        stream = await client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
        assert (text, usage and usage.completion_tokens) == ("Hi there", 2)

        aimock.error(429, "slow down", "rate_limit_error")
        with pytest.raises(openai.RateLimitError, match="slow down"):
            await client.chat.completions.create(**question)
    assert [entry["path"] for entry in aimock.requests()] == ["/v1/chat/completions"] * 3


async def test_aimock_speaks_messages(aimock: Aimock) -> None:
    aimock.answer({}, {"content": "Hi there", "usage": {"input_tokens": 7, "output_tokens": 2}})
    question: Any = {"model": "some-model", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
    async with anthropic.AsyncAnthropic(base_url=aimock.url, api_key="k", max_retries=0) as client:
        whole = await client.messages.create(**question)
        assert (whole.content[0].text, whole.usage.input_tokens) == ("Hi there", 7)
        async with client.messages.stream(**question) as stream:
            final = await stream.get_final_message()
        assert (final.content[0].text, final.usage.output_tokens) == ("Hi there", 2)


async def test_aimock_forgets_between_tests(aimock: Aimock) -> None:
    assert aimock.requests() == []


async def test_node_runs_the_official_sdks(node_env: NodeEnv, aimock: Aimock) -> None:
    aimock.answer({}, {"content": "Hi there"})
    assert await node_env.run("smoke.mjs", aimock.url) == "Hi there|Hi there\n"
    with pytest.raises(ScriptFailed, match="url is missing"):
        await node_env.run("smoke.mjs")
