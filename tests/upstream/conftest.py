"""The client under test; the scripted upstream is the pytest plugin's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aurixel.upstream import Upstream
from tests.upstream.client import Counted


@pytest.fixture
def counted() -> Counted:
    """What the client under test told its metrics."""
    return Counted()


@pytest.fixture(params=["at once", "session"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a small request goes out. What the session does for a large one it must not do otherwise."""
    way: str = request.param
    if way == "session":
        monkeypatch.setattr("aurixel.upstream.client.fits", lambda method, body: False)
    return way


@pytest.fixture
async def upstream(counted: Counted, way: str) -> AsyncIterator[Upstream]:
    """One client, closed after the test."""
    client = Upstream(metrics=counted)
    yield client
    await client.close()
