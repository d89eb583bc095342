"""What a webhook is answered: 2xx only once all that follows from it is durable, and never a no for what may yet be a yes.

The processor sends again whatever it is not answered 2xx for. Nothing of a body reaches a log or an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from aurixel.errors import StoreUnavailable
from aurixel.ledger.contracts import patience
from aurixel.payments.backends import BoundBackend
from aurixel.payments.fulfilment import Fulfilment, WebhookResult
from aurixel.payments.machine import NotYet, OrderRefused
from aurixel.plugin.billing import CreditEvent, WebhookInvalid
from aurixel.registry import PluginFailed

log: Final = logging.getLogger("aurixel.payments")

# How long all of it may take, in seconds: processors wait for ten at least. A dispute may recall credit from nodes for two.
PATIENCE: Final = 9.0
_AGAIN: Final = 5.0
# How long an event of a payment that is not known is asked for again, in milliseconds: what came before it may be late. After
# that it is another application's, which shares the processor with us; `reconcile` would find one of ours.
_FOREIGN_AFTER: Final = 86_400_000
_TELL_EVERY: Final = 60.0


class Answer(msgspec.Struct, frozen=True):
    """An HTTP status, a short stable word, and after how many seconds to send it again."""

    status: int
    code: str
    retry_after: float | None = None


_ANSWERS: Final[Mapping[WebhookResult, Answer]] = {
    "done": Answer(200, "done"),
    "nothing": Answer(200, "nothing"),
    "invalid": Answer(400, "webhook_invalid"),
    "unknown": Answer(200, "unknown"),
    "refused": Answer(422, "refused"),
    "not_yet": Answer(409, "not_yet", _AGAIN),
    "unavailable": Answer(503, "store_unavailable", _AGAIN),
    "failed": Answer(503, "backend_failed", _AGAIN),
}
_WORST: Final[tuple[WebhookResult, ...]] = ("nothing", "unknown", "done", "refused", "not_yet", "unavailable")


class Webhooks:
    """The webhooks of all backends that take payments."""

    def __init__(self, backends: Mapping[str, BoundBackend], fulfilment: Fulfilment) -> None:
        self._backends = {name: backend for name, backend in backends.items() if backend.takes_payment}
        self._fulfilment = fulfilment
        self._told: dict[str, float] = {}  # when a webhook of this backend was last told to be nobody's

    def knows(self, name: str) -> bool:
        """Whether there is a backend of this name that has webhooks."""
        return name in self._backends

    async def take(self, name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Take in what was posted to a backend that is known; `headers` by lower-case name."""
        clock, metrics = self._fulfilment.clock, self._fulfilment.metrics
        try:
            events = self._backends[name].parse_webhook(body, headers)
        except WebhookInvalid as error:
            # Anyone can post here, and the log is on a disk: each is counted, one a minute is told.
            if (now := clock.boot()) - self._told.get(name, float("-inf")) >= _TELL_EVERY:
                self._told[name] = now
                log.info("a webhook of %s is not its processor's word to us: %s", name, error.code)
            metrics.webhook(name, "invalid", None)
            return _ANSWERS["invalid"]
        except PluginFailed:
            metrics.webhook(name, "failed", None)
            return _ANSWERS["failed"]
        answers = [await self._one(name, event) for event in events]
        result, answer = max(answers, key=lambda each: _WORST.index(each[0]), default=("nothing", _ANSWERS["nothing"]))
        happened = [event.at_ms for event in events if event.at_ms is not None]
        lag = max(0, clock.wall_ms() - min(happened)) / 1000 if happened and result == "done" else None
        metrics.webhook(name, result, lag)
        return answer

    async def _one(self, name: str, event: CreditEvent) -> tuple[WebhookResult, Answer]:
        try:
            async with patience(PATIENCE):
                result: WebhookResult = "done" if await self._fulfilment.take(name, event) else "nothing"
        except OrderRefused as error:
            log.warning("%s of %s is refused: %s", type(event).__name__, name, error.code)
            return "refused", Answer(422, error.code)
        except NotYet:
            old = event.at_ms is not None and self._fulfilment.clock.wall_ms() - event.at_ms > _FOREIGN_AFTER
            result = "unknown" if old else "not_yet"
        except StoreUnavailable:
            result = "unavailable"
        return result, _ANSWERS[result]
