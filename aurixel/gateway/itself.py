"""Holds a provider that opens its own upstream to what `upstream` promises: deadlines, and errors with a code.

Whatever it raises beside `ProviderError` is counted as its plugin's failure and fails the attempt. It costs timers, so it
is not for HTTP, which has its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar

from aurixel.errors import ClientGone, ProviderError, RequestError
from aurixel.plugin.contracts import OpensItself, Outgoing, UpstreamReply
from aurixel.registry import CallSite
from aurixel.upstream import Timeouts

T = TypeVar("T")


class Guarded(AbstractAsyncContextManager[UpstreamReply]):
    """One request to such a provider. `sent` is called as it is handed over."""

    def __init__(
        self, provider: OpensItself, outgoing: Outgoing, timeouts: Timeouts, site: CallSite, sent: Callable[[], object]
    ) -> None:
        self._provider, self._outgoing, self._timeouts, self._site, self._sent = provider, outgoing, timeouts, site, sent
        self._end = asyncio.get_running_loop().time() + timeouts.total
        self._opened: AbstractAsyncContextManager[UpstreamReply] | None = None

    async def __aenter__(self) -> UpstreamReply:
        async def enter() -> UpstreamReply:
            self._opened = self._provider.open(self._outgoing)
            return await self._opened.__aenter__()

        self._sent()
        reply = await self.within(self._timeouts.connect + self._timeouts.first_byte, enter)
        return _GuardedReply(reply, self, self._timeouts.idle)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._opened
        if opened is not None:
            await self.within(self._timeouts.idle, lambda: opened.__aexit__(kind, error, trace))

    async def within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        """Await plugin code, for so long and no longer than the whole call may take."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + seconds, self._end)):
                return await work()
        except (RequestError, ClientGone, StopAsyncIteration):  # a body that is a stream ends as its client does
            raise
        except TimeoutError:
            raise ProviderError("upstream_timeout", "The upstream did not answer in time.") from None
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises ends here, counted
            self._site.failed(error)
            raise ProviderError("plugin_bug", "The upstream's plugin failed.") from None


class _GuardedReply:
    """The provider's reply, each wait of it under a deadline."""

    def __init__(self, reply: UpstreamReply, call: Guarded, idle: float) -> None:
        self._reply, self._call, self._idle = reply, call, idle
        self.status: int = reply.status
        self.headers: Mapping[str, str] = reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        pieces = self._reply.chunks()
        while True:
            try:
                piece = await self._call.within(self._idle, pieces.__anext__)
            except StopAsyncIteration:
                return
            yield piece

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        return await self._call.within(self._idle, lambda: self._reply.read(limit))
