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


@pytest.fixture
async def upstream(counted: Counted) -> AsyncIterator[Upstream]:
    """One client, closed after the test."""
    client = Upstream(metrics=counted)
    yield client
    await client.close()
