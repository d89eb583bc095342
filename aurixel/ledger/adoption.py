"""The journal of a node that is gone, replayed by someone else: another machine, or the same one without a gateway.

It promises to touch nothing of a node that lives: the folder must be free (`folder.own`), and the store must show each
incarnation dead, or its beat must stand still while this looks on. Two who post the same journal would each frame it in
their own way, and one frame would be lost: whoever copies a folder says that the process is gone, and is not just believed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from aurixel.clock import Clock
from aurixel.errors import NodeAlive, StoreUnavailable
from aurixel.ledger.contracts import LedgerMetrics, LedgerSettings, patience
from aurixel.ledger.folder import new_inc
from aurixel.ledger.recovery import Recovery, Replayed
from aurixel.storage import NodeDoc, Store

# How many beats the word of the operator saves from being waited out, and how many it does not.
_BEATS: Final = 2


class Adoption:
    """Replays journals in `settings.journal`, which the caller owns.

    `watching` hears for how many seconds the beats have been watched, and of how many; `progress` is `Recovery`'s.
    """

    def __init__(
        self,
        store: Store,
        settings: LedgerSettings,
        clock: Clock,
        metrics: LedgerMetrics,
        watching: Callable[[float, float], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self._store, self._settings, self._clock, self._watching = store, settings, clock, watching
        self._by = new_inc()
        self._recovery = Recovery(self._by, store, settings, clock, metrics, progress)

    async def bury(self, incs: Sequence[str], *, gone: bool) -> None:
        """Have each of these called dead that the store does not know to be; `NodeAlive` names one that still beats.

        With `gone` the operator has said that the processes are: then two beats are waited for, else `dead_after`.
        """
        settings = self._settings
        beats = {node.inc: node.beat for node in await self._alive(incs)}
        if not beats:
            return
        span = _BEATS * settings.beat_every if gone else settings.dead_after
        began = now = self._clock.boot()
        while now - began < span:
            await asyncio.sleep(min(settings.beat_every, span - (now - began)))
            looked, now = now, self._clock.boot()
            nodes = await self._alive(list(beats))
            for node in nodes:
                if node.beat != beats[node.inc]:
                    raise NodeAlive(node.inc, node.name)
            if now - looked > 2 * settings.beat_every:
                began = now  # it was not looked at for too long: someone may have stopped us
            beats = {node.inc: node.beat for node in nodes}
            self._watching(min(now - began, span), span)
        for inc, beat in beats.items():
            async with patience(settings.store_patience):
                await self._store.node_dead(inc, beat)
        for node in await self._alive(list(beats)):
            raise NodeAlive(node.inc, node.name)

    async def replay(self, inc: str) -> Replayed:
        """Replay one. `StoreUnavailable`, `JournalError`: what is posted stays posted, and it can be done again, at once."""
        try:
            (replayed,) = await self._recovery.all([inc])
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await self._let_go(inc)
            raise
        return replayed

    async def _let_go(self, inc: str) -> None:
        """Nobody recovers it any more: whoever is next need not wait until our beat has stood still."""
        async with patience(self._settings.store_patience):
            node = await self._store.node_read(inc)
            if node is not None and (node.state, node.by) == ("recovering", self._by):
                await self._store.node_dead(inc, node.beat)

    async def _alive(self, incs: Sequence[str]) -> list[NodeDoc]:
        async with patience(self._settings.store_patience):
            nodes = [await self._store.node_read(inc) for inc in incs]
        return [node for node in nodes if node is not None and node.state in ("live", "recovering")]
