"""Large requests between dialects (pitfall 21): translated beside the loop, whole; and faults in the caller's own words."""

from __future__ import annotations

import threading
from typing import Any

import aiohttp
import pytest

from aurixel.dialects.anthropic_messages.codec import MessagesCodec
from aurixel.testing import answers
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running

pytestmark = pytest.mark.deadline(30)


@pytest.mark.parametrize(("size", "beside"), [(900_000, True), (2_000, False)])
async def test_a_large_picture_is_translated_beside_the_loop(
    gw: Running,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    beside: bool,
) -> None:
    threads: list[bool] = []
    write = MessagesCodec.write

    def watched(codec: MessagesCodec, *args: Any) -> Any:
        threads.append(threading.current_thread() is not threading.main_thread())
        return write(codec, *args)

    monkeypatch.setattr(MessagesCodec, "write", watched)
    up.reply(json=answers.anthropic_messages_reply("Seen", answers.anthropic_messages_usage(20, 7)))
    picture = "iVBORw0KGgoAAAANSUhEUgAA" + "A" * size
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    body = {"model": "claude-test", "messages": [{"role": "user", "content": [part]}]}
    headers = {"authorization": f"Bearer {await gw.key()}"}
    async with http.post(gw.url + "/v1/chat/completions", json=body, headers=headers) as reply:
        assert reply.status == 200
        assert (await reply.json())["choices"][0]["message"]["content"] == "Seen"
    assert threads == [beside]
    (sent,) = up.requests
    assert sent.json()["messages"][0]["content"][0]["source"]["data"] == picture


async def test_a_fault_names_the_field_as_its_caller_does(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "claude-test", "input": [{"role": "system", "content": "only this"}]}
    async with http.post(gw.url + "/v1/responses", json=body, headers=headers) as reply:
        assert reply.status == 400
        error = (await reply.json())["error"]
    assert (error["param"], "'input'" in error["message"], "messages" in error["message"]) == ("input", True, False)
    assert up.requests == []
