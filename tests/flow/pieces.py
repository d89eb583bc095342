"""Answers of an upstream cut at random bytes, none of which goes on before all of them have begun: pooled buffers and mixed-up
streams have every chance to show (pitfall 16)."""

from __future__ import annotations

import asyncio
import random

from aurixel.testing import scripted
from aurixel.testing.scripted import Call


class Pieces:
    """`streams` answers at once, each in fewer than `most` pieces and one more."""

    def __init__(self, seed: int, streams: int, most: int) -> None:
        self.chance = random.Random(seed)
        self._streams, self._most = streams, most
        self._begun = 0
        self._all = asyncio.Event()

    async def send(self, call: Call, body: bytes, kind: str) -> None:
        """One of them, of the content type `kind`."""
        cuts = sorted(self.chance.randrange(len(body)) for _ in range(self.chance.randrange(1, self._most)))
        first, *pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        await scripted.head(200, [("content-type", kind), ("transfer-encoding", "chunked")])(call)
        await scripted.chunked([first], end=False)(call)
        self._begun += 1
        if self._begun == self._streams:
            self._all.set()
        await self._all.wait()
        await scripted.chunked(pieces)(call)
