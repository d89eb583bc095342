"""A gateway per test on the embedded store, in front of a scripted upstream of each family, and a plain HTTP client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import Running, configure, running, upstream


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    """The upstream behind `gpt-test` (OpenAI family, also at /v1/messages for `claude-test`)."""
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def gateway_file(tmp_path: Path, up: ScriptedUpstream) -> Path:
    """The configuration of the gateway under test."""
    upstreams = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
    return configure(tmp_path, upstreams=upstreams)


@pytest.fixture
async def gw(gateway_file: Path) -> AsyncIterator[Running]:
    """The gateway."""
    async with running(gateway_file) as gateway:
        yield gateway


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without opinions."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session
