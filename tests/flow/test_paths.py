"""What is no path here: a 404 in the caller's family, which names what the family has."""

from __future__ import annotations

import aiohttp
import pytest

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
