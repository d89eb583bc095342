"""The client under test; the scripted upstream is the pytest plugin's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aurixel.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """One client, closed after the test."""
    client = Upstream()
    yield client
    await client.close()
