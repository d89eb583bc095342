"""pytest-tornado's fixtures (`http_server`, `http_client`, `gen_test`) made to work on today's Tornado and on uvloop.

Its own `io_loop` calls `make_current`, which Tornado deprecates; this one does not. For plain Tornado `Application`s
only (the edge's account, admin and ops pages); the relay is tested by coroutine tests over real sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop
from tornado.platform.asyncio import AsyncIOLoop


@pytest.fixture
def io_loop() -> Iterator[AsyncIOLoop]:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)  # pytest-tornado makes its futures before the loop runs
    io_loop = AsyncIOLoop(asyncio_loop=loop, make_current=False)
    yield io_loop
    left = asyncio.all_tasks(loop)
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)
    assert not left, f"tasks left over at the end of the test: {left}"
