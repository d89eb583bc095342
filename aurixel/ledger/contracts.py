"""What other rooms hand the ledger and get from it: settings, intents, settlements, totals; values only.

Amounts are integer nano-dollars, durations seconds, instants milliseconds of the wall clock (kept, never compared).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from aurixel.errors import StoreUnavailable
from aurixel.values import NANOS_PER_USD, Nanos


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a node keeps its books. `docs/ledger.md` says what each duration protects; nodes on one store share them.

    `journal`: a directory of this process alone; it begins a new segment after `segment` bytes. `adopted` are those of
    workers that are no longer configured, which this node replays at start as well, and locks meanwhile. `lease_target`:
    what a rich account draws at once; an account whose `available` is less than `rich` times what a request asks for gets
    leases sized to the request. While the store is silent, new requests are admitted for `outage_for` at most (never beyond
    `admit_within`), and only while less than `unposted_limit` of settled usage waits to be posted.
    """

    journal: Path
    adopted: tuple[Path, ...] = ()
    fsync: Literal["batch", "always", "off"] = "batch"
    fsync_interval: float = 0.05
    segment: int = 16 << 20  # some 50,000 requests: a start reads no more than that beside what was open, in a second
    post_every: float = 0.5
    lease_target: Nanos = NANOS_PER_USD
    rich: int = 8
    idle_return: float = 2.0
    want_look: float = 1.0
    recall_wait: float = 2.0
    recall_look: float = 0.1
    beat_every: float = 5.0
    admit_within: float = 75.0
    outage_for: float = 75.0
    unposted_limit: Nanos = 100 * NANOS_PER_USD
    dead_after: float = 120.0
    reclaim_after: float = 60.0
    sweep_every: float = 60.0
    store_patience: float = 5.0  # how long one step waits for the store before it counts as no answer
    start_within: float = 30.0
    stop_within: float = 10.0


class Intent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, tag="i", gc=False):
    """What is about to be asked of an upstream: enough to write a usage record if nothing more is ever known of it.

    `request_id` is never used twice. `at_ms` is when the request came, `price_version` what it will be charged by.
    The journal keeps it by position: a new field goes last, with a default.
    """

    request_id: str
    account: str
    key_id: str
    model: str
    operation: str
    dialect: str
    stream: bool
    client_ip: str
    at_ms: int
    price_version: int


class Settlement(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """How a request ended: a cell of the settlement matrix, what was counted, and what it costs.

    `upstream` is the configured name of the upstream ("" if none was called), `status` what the client was answered.
    `via` is the upstream's dialect where the request was translated ("" where it was not), `losses` how many of its fields
    were dropped, emulated and changed on the way. The journal keeps it by position: a new field goes last, with a default.
    """

    cell: str
    measured: bool
    upstream: str
    status: int
    done_ms: int
    counts: dict[str, int]
    cost: Nanos
    via: str = ""
    losses: dict[str, int] = {}


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """This node's money at one moment. `held` is covered by `leased`; `unposted` is settled and not yet in the store.

    Ages are in milliseconds by the wall clock, 0 where there is nothing: `oldest_open_ms` of a running request,
    `oldest_unposted_ms` of a settlement that the store has not confirmed.
    """

    held: Nanos
    leased: Nanos
    unposted: Nanos
    open: int
    oldest_open_ms: int
    oldest_unposted_ms: int


class LedgerMetrics(Protocol):
    """What the ledger counts as it happens; the gauges are `Ledger.totals()`. Calls must not block or raise."""

    def refused(self, why: Literal["credit", "store", "journal", "stopping"]) -> None:
        """A hold was refused."""

    def lease(self, operation: Literal["open", "draw", "return", "close"]) -> None:
        """A lease operation was confirmed by the store."""

    def posted(self, records: int, written_off: Nanos) -> None:
        """A frame was confirmed by the store."""

    def synced(self, seconds: float) -> None:
        """The journal was made durable."""

    def store_silent(self) -> None:
        """The store gave no answer to a step of the ledger."""

    def recovered(self, requests: int, crashed: int) -> None:
        """An older incarnation was replayed: requests charged now, and those among them that a crash had cut."""

    def reclaimed(self, amount: Nanos) -> None:
        """A dead node's lease went back to its account."""

    def set_aside(self) -> None:
        """The journal of an abandoned node was found and will not be replayed."""


class NoMetrics:
    """Counts nothing."""

    def refused(self, why: Literal["credit", "store", "journal", "stopping"]) -> None: ...
    def lease(self, operation: Literal["open", "draw", "return", "close"]) -> None: ...
    def posted(self, records: int, written_off: Nanos) -> None: ...
    def synced(self, seconds: float) -> None: ...
    def store_silent(self) -> None: ...
    def recovered(self, requests: int, crashed: int) -> None: ...
    def reclaimed(self, amount: Nanos) -> None: ...
    def set_aside(self) -> None: ...


@asynccontextmanager
async def patience(seconds: float) -> AsyncGenerator[None]:
    """No answer within `seconds` is `StoreUnavailable`. Not for the hot path: it costs a timer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("no answer in time") from error
