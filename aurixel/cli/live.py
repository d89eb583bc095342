"""Asks upstreams, for nothing, whether they answer and know our key. It sends no prompt and keeps no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from aurixel.errors import ProviderError
from aurixel.plugin import OpensItself, Probed, Provider
from aurixel.upstream import Timeouts, Upstream

_PATIENCE: Final = Timeouts(connect=10, first_byte=20, idle=10, total=30)
_WORDS: Final[Mapping[str, str]] = {
    "upstream_timeout": "did not answer in time",
    "upstream_unreachable": "cannot be reached",
    "upstream_died": "broke off its answer",
    "upstream_invalid": "answered something that is no HTTP",
    "plugin_bug": "its plugin made a request that cannot be sent",
}


class Answer(NamedTuple):
    """What came: `status` is that of HTTP, 0 for none."""

    ok: bool
    text: str
    status: int = 0


async def ask_all(providers: Mapping[str, Provider]) -> dict[str, Answer]:
    """All at once, each within half a minute; in the given order."""
    upstream = Upstream()
    try:
        answers = await asyncio.gather(*(_ask(upstream, provider) for provider in providers.values()))
    finally:
        await upstream.close()
    return dict(zip(providers, answers, strict=True))


async def _ask(upstream: Upstream, provider: Provider) -> Answer:
    if isinstance(provider, OpensItself):
        return Answer(True, "answers by itself, there is nothing to reach")
    if not isinstance(provider, Probed):
        return Answer(True, "its plugin has no way to ask")
    try:
        async with upstream.open(provider.probe(), _PATIENCE) as reply:
            status = reply.status
    except ProviderError as error:
        return Answer(False, _WORDS.get(error.code, error.code))
    if status in (401, 403):
        return Answer(False, f"refuses our key ({status})", status)
    if status >= 500:
        return Answer(False, f"is in trouble ({status})", status)
    return Answer(True, f"answers ({status})", status)
