"""What is no path here: a 404 in the caller's family, which names what the family has."""

from __future__ import annotations

import aiohttp
import pytest

from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running


@pytest.mark.parametrize(
    ("path", "headers", "has", "lacks"),
    [
        ("/v1/files", {}, "/v1/chat/completions", "/v1/messages"),
        ("/v1/nothing", {"anthropic-version": "2023-06-01"}, "/v1/messages/count_tokens", "/v1/chat/completions"),
        ("/v1/messages/batches", {}, "/v1/messages", "/v1/chat/completions"),
    ],
)
async def test_an_unknown_path_names_what_its_family_has(
    gw: Running, http: aiohttp.ClientSession, path: str, headers: dict[str, str], has: str, lacks: str
) -> None:
    async with http.get(gw.url + path, headers={"x-api-key": await gw.key(), **headers}) as reply:
        assert reply.status == 404
        message = (await reply.json())["error"]["message"]
    assert has in message
    assert lacks not in message


async def test_an_endpoint_that_nobody_of_a_model_speaks_is_refused(
    gw: Running, up: ScriptedUpstream, http: aiohttp.ClientSession
) -> None:
    headers = {"authorization": f"Bearer {await gw.key()}"}
    body = {"model": "claude-test", "prompt": "x"}
    async with http.post(gw.url + "/v1/completions", json=body, headers=headers) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["code"] == "unsupported_dialect"
    assert up.requests == []
