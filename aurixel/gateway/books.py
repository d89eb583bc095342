"""Closes one request's hold, exactly once, by the settlement matrix; it moves no money itself, the ledger does.

`async with Books(...)`: whatever leaves the block unsettled is settled by the cell its exception stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

from aurixel.catalog import OUTPUT_SIDE
from aurixel.clock import Clock
from aurixel.dialects.translation import Crossing, Straight
from aurixel.errors import ClientGone, ProviderError, RequestError
from aurixel.gateway.crossing import loss_counts
from aurixel.gateway.offers import Offer
from aurixel.ledger import MODALITY_OF, Hold, Matrix, Modality, Rules, Settlement
from aurixel.plugin.contracts import StreamReader
from aurixel.values import Counts, Nanos, Outcome, Usage

# What shows that an answer was generated; of an embedding it is the answer itself.
_SHOWS_OUTPUT: Final[Mapping[Modality, tuple[str, ...]]] = {
    "chat": OUTPUT_SIDE,
    "image": (*OUTPUT_SIDE, "images"),
    "audio": (*OUTPUT_SIDE, "characters", "audio_seconds"),
    "embedding": (),
}
# What is not charged of a whole reply that did not reach the client. Characters to speak and seconds to hear are input.
_OUTPUT: Final = frozenset((*OUTPUT_SIDE, "images"))
_PICTURE: Final = "images."


class Books:
    """What is known of one request's consumption.

    `upstream` is who was tried last ("" for nobody yet), `reader` the stream being relayed, `whole` what a whole reply
    reported; `committed` whether the client has had a byte, `answered` whether it has had its whole answer, `delivered` how
    many bytes of the stream's output it has had (handed to its connection, whatever that did with them), `left` whether it
    has left and its upstream is read on without it. `events`: the client is being sent an event stream. `underway`: the
    upstream tried last may have seen the request, and of an upload all of it. `begun`: a part of an upload has been sent,
    which cannot be sent again. `crossing`: how the request went there.
    """

    __slots__ = (
        "_clock",
        "_hold",
        "_modality",
        "_rules",
        "_surprised",
        "answered",
        "begun",
        "committed",
        "consumed",
        "crossing",
        "delivered",
        "events",
        "left",
        "offer",
        "reader",
        "settlement",
        "underway",
        "upstream",
        "whole",
    )

    def __init__(self, hold: Hold, offer: Offer, matrix: Matrix, clock: Clock, surprised: Callable[[], None]) -> None:
        """`matrix` is the settlement matrix in force; `surprised` is called where usage without a price is reported."""
        self._hold, self._clock, self._surprised = hold, clock, surprised
        self._modality = MODALITY_OF[offer.dialect.operation]
        self._rules: Rules = matrix[self._modality]
        self.offer = offer
        self.upstream = ""
        self.crossing: Crossing = Straight(offer.dialect, offer.request)
        self.reader: StreamReader | None = None
        self.whole: Usage | None = None
        self.committed = self.events = False
        self.answered = False
        self.delivered = 0
        self.left = False
        self.begun = False
        self.underway = False
        self.consumed: Usage | None = None
        self.settlement: Settlement | None = None

    def turns(self, crossing: Crossing) -> None:
        """Another upstream is tried, that way: what the last one said does not count, and this one has not seen the
        request."""
        self.crossing = crossing
        self.reader = self.whole = None
        self.underway = False

    def asked(self) -> None:
        """From now on the upstream may have seen the request, and bill us for it."""
        self.underway = True

    def answers(self) -> None:
        """The upstream answers: it works, whatever it has been sent, and what an upload asks for is what it has by now."""
        self.underway = True
        upload = self.crossing.request.upload
        if upload is not None and upload.request is not None:
            self.crossing = Straight(self.crossing.dialect, upload.request)

    def begins(self) -> None:
        """A part of the upload is on its way: nobody has it any more, so that no other upstream can be asked."""
        self.begun = True

    async def __aenter__(self) -> Books:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settlement is None:
            answered = error.status if isinstance(error, RequestError) and not self.left else 0
            await self.close(self._cell(error), 200 if self.committed else answered)

    async def close(self, cell: str, status: int) -> Nanos:
        """Settle by `cell` and return the cost."""
        seen = self.consumed = self._seen()
        if cell == "ok" and not self._answers(seen):
            cell = "empty"
        usage = self._charged(cell, seen)
        counts, cost = self._priced(usage) if usage is not None else ({}, 0)
        self.settlement = Settlement(
            cell=cell,
            measured=usage is None or usage.certain(counts),
            upstream=self.upstream,
            status=status,
            done_ms=self._clock.wall_ms(),
            counts=counts,
            cost=cost,
            via=self.crossing.dialect.name if self.crossing.translated else "",
            losses=dict(loss_counts(self.crossing)),
        )
        await self._hold.settle(self.settlement)
        return cost

    def outcome(self) -> Outcome:
        """How it ended, for the policy checks."""
        settled, request_id = self.settlement, self.offer.head.request_id
        if settled is None:
            return Outcome(request_id=request_id, ending="refused")
        return Outcome(request_id=request_id, ending=settled.cell, usage=self.consumed, cost=settled.cost)

    def _priced(self, used: Usage) -> tuple[dict[str, int], Nanos]:
        price = self.offer.price
        charged = self._as_asked(price.charged(self.offer.dialect.operation, used.counts))
        counts, cost, surprised = price.settle(charged, used.tier)
        if surprised:
            self._surprised()
        return counts, cost

    def _as_asked(self, counts: Counts) -> Counts:
        """A picture of a size or quality without a price is charged as the one that was asked for, which has one."""
        asked = next((name for name in self.offer.request.most if name.startswith(_PICTURE)), "")
        if not asked:
            return counts
        unpriced = [name for name in self.offer.price.missing(counts) if name.startswith(_PICTURE)]
        if not unpriced:
            return counts
        kept = {name: count for name, count in counts.items() if name not in unpriced}
        return {**kept, asked: kept.get(asked, 0) + sum(counts[name] for name in unpriced)}

    def _seen(self) -> Usage:
        """All that the upstream reported, or was seen to generate."""
        if self.reader is not None:
            return self.reader.estimate(self.offer.input_tokens)
        if self.whole is not None:
            return self.whole
        upload = self.offer.request.upload
        units = upload.units if upload is not None else {}
        return Usage({"input": self.offer.input_tokens, **units}, measured=False)

    def _answers(self, usage: Usage) -> bool:
        """Whether there is output in it, or should be none."""
        shows = _SHOWS_OUTPUT[self._modality]
        if not shows or self.offer.request.output_limit == 0:
            return True
        counts = usage.counts
        return any(map(counts.get, shows)) or any(name.partition(".")[0] in shows for name in counts)

    def _charged(self, cell: str, seen: Usage) -> Usage | None:
        """What of it is charged; None for nothing."""
        rule = self._rules[cell]
        if rule == "nothing" or not self.underway:
            return None
        # What settles as `ok` goes out with its last byte.
        if rule == "measured" or cell == "ok" or (seen.measured and rule == "measured_or_delivered"):
            return seen
        if self.reader is not None:
            return self.reader.delivered(self.offer.input_tokens, self.delivered)
        counts = {name: count for name, count in seen.counts.items() if name.partition(".")[0] not in _OUTPUT}
        whole = len(counts) == len(seen.counts)
        return Usage(counts, measured=seen.measured and whole, guessed=seen.guessed, tier=seen.tier)

    def _cell(self, error: BaseException | None) -> str:
        if isinstance(error, ClientGone):
            return "client_gone" if self.underway else "refused"
        if self.left and not (isinstance(error, ProviderError) and (self.reader is None or not self.reader.started)):
            return "client_gone"  # however the rest of it ended; but an upstream that said no has nothing to charge
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
