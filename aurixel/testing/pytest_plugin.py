"""The pytest plugin that installing `aurixel` brings: fixtures for plugin authors. It must cost nothing where it is unused.

Async fixtures need AnyIO's pytest plugin: mark the tests that use them with `@pytest.mark.anyio`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aurixel.testing.scripted import ScriptedUpstream


@pytest.fixture
async def scripted_upstream() -> AsyncIterator[ScriptedUpstream]:
    """An upstream on loopback that answers as the test scripts it: see `aurixel.testing.scripted`."""
    from aurixel.testing.scripted import ScriptedUpstream

    async with ScriptedUpstream() as server:
        yield server
