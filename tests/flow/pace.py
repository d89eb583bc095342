"""The ledger's durations, all multiplied: what takes minutes in production takes seconds in a test, in the same order."""

from __future__ import annotations

from typing import Any

import msgspec

from aurixel.ledger import LedgerSettings

DURATIONS = (
    "post_every",
    "idle_return",
    "want_look",
    "recall_wait",
    "recall_look",
    "beat_every",
    "admit_within",
    "outage_for",
    "dead_after",
    "reclaim_after",
    "sweep_every",
    "store_patience",
)


def paced(scale: float) -> Any:
    """What to have in the place of `LedgerSettings`: the same, with durations of `scale` times their length."""

    def make(**values: Any) -> LedgerSettings:
        plain = LedgerSettings(**values)
        return msgspec.structs.replace(plain, **{name: getattr(plain, name) * scale for name in DURATIONS})

    return make
