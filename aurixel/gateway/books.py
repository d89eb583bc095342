"""Closes one request's hold, exactly once, by the settlement matrix; it moves no money itself, the ledger does.

`async with Books(...)`: whatever leaves the block unsettled is settled by the cell its exception stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from aurixel.catalog import OUTPUT_SIDE
from aurixel.clock import Clock
from aurixel.errors import ClientGone, ProviderError, RequestError
from aurixel.gateway.offers import Offer
from aurixel.ledger import Hold, Rule, Settlement
from aurixel.plugin.contracts import StreamReader
from aurixel.values import Nanos, Outcome, Usage

# What shows that an answer was generated.
_OUTPUT = (*OUTPUT_SIDE, "images", "characters", "audio_seconds")


class Books:
    """What is known of one request's consumption.

    `upstream` is who was tried last ("" for nobody yet), `reader` the stream being relayed, `committed` whether the
    client has had a byte, `answered` whether it has had its whole answer.
    """

    __slots__ = (
        "_asked",
        "_clock",
        "_hold",
        "_rule",
        "_surprised",
        "answered",
        "committed",
        "consumed",
        "offer",
        "reader",
        "settlement",
        "upstream",
    )

    def __init__(
        self, hold: Hold, offer: Offer, rule: Callable[[str], Rule], clock: Clock, surprised: Callable[[], None]
    ) -> None:
        """`rule` is the settlement matrix; `surprised` is called where the upstream reports usage that has no price."""
        self._hold, self._rule, self._clock, self._surprised = hold, rule, clock, surprised
        self.offer = offer
        self.upstream = ""
        self.reader: StreamReader | None = None
        self.committed = False
        self.answered = False
        self._asked = False
        self.consumed: Usage | None = None
        self.settlement: Settlement | None = None

    def asked(self) -> None:
        """From now on an upstream may have seen the request, and bill us for it."""
        self._asked = True

    async def __aenter__(self) -> Books:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settlement is None:
            status = 200 if self.committed else error.status if isinstance(error, RequestError) else 0
            await self.close(self._cell(error), status)

    async def close(self, cell: str, status: int, usage: Usage | None = None) -> Nanos:
        """Settle by `cell` and return the cost. `usage` is a whole reply's; a stream's is asked of its reader."""
        self.consumed = usage = usage or self._streamed()
        if cell == "ok" and self.offer.request.output_limit != 0 and not any(map(usage.counts.get, _OUTPUT)):
            cell = "empty"
        counts, cost = ({}, 0) if self._rule(cell) == "nothing" else self._priced(usage)
        self.settlement = Settlement(
            cell=cell,
            measured=usage.measured or not counts,
            upstream=self.upstream,
            status=status,
            done_ms=self._clock.wall_ms(),
            counts=counts,
            cost=cost,
        )
        await self._hold.settle(self.settlement)
        return self.settlement.cost

    def outcome(self) -> Outcome:
        """How it ended, for the policy checks."""
        settled, request_id = self.settlement, self.offer.head.request_id
        if settled is None:
            return Outcome(request_id=request_id, ending="refused")
        return Outcome(request_id=request_id, ending=settled.cell, usage=self.consumed, cost=settled.cost)

    def _priced(self, usage: Usage) -> tuple[dict[str, int], Nanos]:
        counts, cost, surprised = self.offer.price.settle(usage.counts)
        if surprised:
            self._surprised()
        return counts, cost

    def _streamed(self) -> Usage:
        if self.reader is None:
            return Usage({"input": self.offer.input_tokens}, measured=False)
        if self.reader.done and self.reader.usage is not None:
            return self.reader.usage
        return self.reader.estimate(self.offer.input_tokens)

    def _cell(self, error: BaseException | None) -> str:
        if isinstance(error, ClientGone):
            return "client_gone" if self._asked else "refused"
        if isinstance(error, ProviderError):
            return failed_cell(error, committed=self.committed)
        return "died" if self.committed else "refused"


def failed_cell(error: RequestError, *, committed: bool) -> str:
    """The matrix cell of a failure, before or after the first byte to the client."""
    if error.code == "upstream_timeout":
        return "timeout_mid_stream" if committed else "timeout_first_byte"
    if not committed:
        return "refused"
    return "error_event" if error.code == "upstream_error_event" else "died"
