"""A provider that opens its own upstream: deadlines on every wait, and what it raises fails the attempt, counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aurixel.errors import ProviderError
from aurixel.gateway.itself import Guarded
from aurixel.plugin import Outgoing
from aurixel.registry import CallSite
from aurixel.upstream import Timeouts

OUTGOING = Outgoing(method="POST", url="demo:", headers=(), body=(b"",))
SHORT = Timeouts(connect=0.02, first_byte=0.02, idle=0.02, total=5)


class Counted:
    """A meter that counts failures."""

    def __init__(self) -> None:
        self.errors = 0

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        return (lambda seconds: None), self._failed

    def _failed(self) -> None:
        self.errors += 1


class Provider:
    """Opens, reads and closes as it is told: each is "ok", "hang" or an exception."""

    def __init__(self, opening: Any = "ok", reading: Any = "ok", closing: Any = "ok") -> None:
        self.opening, self.reading, self.closing = opening, reading, closing
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.closed = False

    def open(self, outgoing: Outgoing) -> Any:
        return self

    async def __aenter__(self) -> Any:
        await self._do(self.opening)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True
        await self._do(self.closing)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"one"
        await self._do(self.reading)
        yield b"two"

    async def read(self, limit: int) -> bytes:
        await self._do(self.reading)
        return b"whole"

    async def _do(self, what: Any) -> None:
        if what == "hang":
            await asyncio.Event().wait()
        elif isinstance(what, Exception):
            raise what


async def use(provider: Provider, meter: Counted, timeouts: Timeouts = SHORT) -> list[bytes]:
    site, sent = CallSite("plugin", "open", meter), []
    async with Guarded(provider, OUTGOING, timeouts, site, lambda: sent.append(1)) as reply:
        assert sent == [1]
        return [chunk async for chunk in reply.chunks()]


async def test_what_works_passes_through() -> None:
    provider, meter = Provider(), Counted()
    assert await use(provider, meter) == [b"one", b"two"]
    assert (provider.closed, meter.errors) == (True, 0)
    async with Guarded(provider, OUTGOING, SHORT, CallSite("plugin", "open", meter), lambda: None) as reply:
        assert await reply.read(100) == b"whole"


@pytest.mark.parametrize("where", ["opening", "reading", "closing"])
async def test_what_hangs_meets_its_deadline(where: str) -> None:
    provider, meter = Provider(**{where: "hang"}), Counted()
    with pytest.raises(ProviderError) as caught:
        await use(provider, meter)
    assert caught.value.code == "upstream_timeout"
    assert meter.errors == 0


async def test_the_whole_call_has_a_deadline() -> None:
    provider, meter = Provider(reading="hang"), Counted()
    with pytest.raises(ProviderError) as caught:
        await use(provider, meter, Timeouts(connect=5, first_byte=5, idle=60, total=0.05))
    assert caught.value.code == "upstream_timeout"


@pytest.mark.parametrize("where", ["opening", "reading", "closing"])
async def test_what_it_raises_is_a_counted_plugin_bug(where: str, expected_logs: Any) -> None:
    expected_logs("aurixel.plugins", "plugin plugin failed in open: KeyError", level=logging.ERROR, times=1)
    provider, meter = Provider(**{where: KeyError("quotes a prompt")}), Counted()
    with pytest.raises(ProviderError) as caught:
        await use(provider, meter)
    assert caught.value.code == "plugin_bug"
    assert meter.errors == 1


async def test_its_own_provider_error_is_kept() -> None:
    provider, meter = Provider(reading=ProviderError("upstream_died", "gone")), Counted()
    with pytest.raises(ProviderError) as caught:
        await use(provider, meter)
    assert (caught.value.code, meter.errors) == ("upstream_died", 0)
