"""The store: named atomic operations and the documents they touch; not a generic CRUD, and no rule of money lives here.

Every operation touches one document (or, for the batches, each of its documents by itself), is guarded, and may be
sent again at any time. The guards are those of docs/ledger.md; **no match proves nothing**: it is answered with `None`
or `False`, and the caller reads and decides again. Any operation may raise `StoreUnavailable`: then it may have
happened, may not have, or may still land. Two implementations, `sqlite` and `mongo`, pass one contract suite.

Amounts are nano-dollars, 0 <= amount < 2**62, checked before anything is sent (`ValueError`: a bug of the caller).
`open_store` picks the implementation by URL; a store is opened in the loop it is used in.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from aurixel.errors import ConfigError
from aurixel.values import Nanos

# --- credit (ledger) --------------------------------------------------------------------------------------------


class Lease(msgspec.Struct, frozen=True):
    """One incarnation's lease on an account: `amount` it may spend, `seq` the last frame posted under it."""

    amount: Nanos
    seq: int


class LogMark(msgspec.Struct, frozen=True):
    """The last applied movement: its number and what it really moved."""

    n: int
    took: Nanos


AccountState = Literal["open", "closing", "removed"]


class AccountDoc(msgspec.Struct, frozen=True, kw_only=True):
    """The whole truth of one account's credit. `leases` and `holders` are keyed by incarnation."""

    id: str
    state: AccountState
    available: Nanos
    credited: Nanos
    spent: Nanos
    written_off: Nanos
    ver: int
    log: LogMark
    leases: dict[str, Lease]
    holders: tuple[str, ...]
    want: int


MovementKind = Literal["topup", "grant", "refund", "dispute", "adjustment", "expiry"]


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered, append-only change of credit. `id` is its idempotency key; `took` what it really moved, once known."""

    account: str
    n: int
    id: str
    kind: MovementKind
    amount: Nanos  # may be negative
    at_ms: int
    reason: str
    ref: str = ""
    author: str = ""
    took: Nanos | None = None


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request's usage metadata: never content. `cell` names the ending in the settlement matrix, `measured` is False
    where the usage was estimated; `cost` in nano-dollars follows from `counts` and the prices of `price_version`. `via` is
    the upstream's dialect where the request was translated, `losses` how many fields were dropped, emulated and changed."""

    request_id: str
    account: str
    inc: str
    s: int
    key_id: str
    model: str
    upstream: str
    operation: str
    dialect: str
    stream: bool
    client_ip: str
    at_ms: int
    done_ms: int
    cell: str
    measured: bool
    status: int
    counts: dict[str, int]
    cost: Nanos
    price_version: int
    via: str = ""
    losses: dict[str, int] = {}


class RollupAdd(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of one frame for one hour, model and key: added once per (`id`, `s`). `id` is
    `<account>:<hour>:<model>:<key>:<inc>` with `hour` = at_ms // 3_600_000. `sums` has `requests`, `cost` and usage classes."""

    account: str
    hour: int
    model: str
    key_id: str
    inc: str
    s: int
    sums: dict[str, int]

    @property
    def id(self) -> str:
        """The rollup document's id."""
        return f"{self.account}:{self.hour}:{self.model}:{self.key_id}:{self.inc}"


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """`usage_post(a, inc, prev, s, L, A, W)`: `lease` + `available` become spent, `written_off` is lost to the operator."""

    account: str
    inc: str
    prev: int
    s: int
    lease: Nanos
    available: Nanos
    written_off: Nanos


NodeState = Literal["live", "recovering", "dead", "done", "abandoned"]


class NodeDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of a node. `since_ms` is by the store's clock, when the state last changed."""

    inc: str
    name: str
    state: NodeState
    by: str
    beat: int
    since_ms: int


# --- people, keys, catalogue --------------------------------------------------------------------------------------

ProfileStatus = Literal["active", "suspended", "closed"]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Who an account belongs to. `account` is the id of its `AccountDoc`; e-mails are unique, compared in lower case."""

    account: str
    email: str
    status: ProfileStatus
    created_ms: int


class KeyDoc(msgspec.Struct, frozen=True, kw_only=True):
    """An API key at rest: the public id, the keyed hash of its secret, and its limits (name -> JSON value)."""

    id: str
    account: str
    hash: bytes
    name: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    limits: dict[str, Any] = {}


class CatalogueDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One version of models and prices, whole; `body` is JSON whose shape `aurixel.catalog` owns."""

    version: int
    at_ms: int
    author: str
    body: bytes


class ShelfDoc(msgspec.Struct, frozen=True, kw_only=True):
    """A document on a plugin's shelf. `rev` rises with each change; `body` is JSON whose shape the plugin owns."""

    shelf: str
    id: str
    rev: int
    body: bytes


class OrderDoc(msgspec.Struct, frozen=True, kw_only=True):
    """A top-up. `rev` rises by one with each change; `open`: there is work left that anyone may finish. `payment` is the
    backend's id of the money that came, once it has. `body` is JSON whose shape `aurixel.payments` owns."""

    id: str
    account: str
    backend: str
    state: str
    payment: str | None
    open: bool
    created_ms: int
    rev: int
    body: bytes


class ReceiptDoc(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of an order, never changed and never deleted. Numbers go from 1 up without a gap. `body` is JSON whose
    shape `aurixel.payments` owns."""

    number: int
    order: str
    account: str
    at_ms: int
    body: bytes


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a usage report: `group` is a model, a day (`YYYY-MM-DD`, UTC) or a key id; `sums` as in `RollupAdd`."""

    group: str
    sums: dict[str, int]


class Store(Protocol):
    """The store. All methods are coroutines; any may raise `StoreUnavailable`."""

    async def open(self) -> None:
        """Connect, bring the schema and indexes up to date. `ConfigError` when the store cannot be used as configured."""

    async def close(self) -> None:
        """Finish what is queued and let go."""

    async def ping(self) -> None:
        """Answer, or raise `StoreUnavailable` (`/readyz`)."""

    # --- credit: docs/ledger.md section 2; each returns the document after the update, or None for no match -------

    async def account_new(self, account: str) -> bool:
        """Insert an empty account; False where it exists."""

    async def account_read(self, account: str) -> AccountDoc | None: ...
    async def accounts_read(self, accounts: Sequence[str]) -> dict[str, AccountDoc]: ...
    async def accounts_page(self, after: str, limit: int) -> list[AccountDoc]:
        """Accounts in the order of their ids, those after `after`."""

    async def accounts_held(self, inc: str) -> list[str]:
        """Ids of the accounts with `holders = inc`."""

    async def accounts_wanted(self, inc: str) -> list[tuple[str, int]]:
        """(id, want) of the accounts with `holders = inc` and `want > 0`."""

    async def account_want(self, account: str, ver: int) -> None: ...
    async def lease_open(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None: ...
    async def lease_draw(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None: ...
    async def lease_return(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None: ...
    async def lease_close(self, account: str, inc: str, ver: int, amount: Nanos, seq: int) -> AccountDoc | None: ...
    async def lease_fence(self, account: str, inc: str) -> AccountDoc | None: ...
    async def lease_reclaim(self, account: str, inc: str, ver: int, amount: Nanos) -> AccountDoc | None: ...
    async def account_closing(self, account: str) -> AccountDoc | None: ...
    async def account_remove(self, account: str) -> AccountDoc | None: ...

    async def post(
        self,
        records: Sequence[UsageRecord],
        rollups: Sequence[RollupAdd],
        posts: Sequence[Post],
    ) -> None:
        """`usage_put` each, then `rollup_add` each, then `usage_post` each: in this order, each document by itself.

        A record or rollup already there is success. Whether a post matched is not answered: read the accounts'
        `seq`. Raises before any rollup is sent if a record was not stored, and before any post if a rollup was not.
        """

    # --- movements (docs/ledger.md section 7) ---------------------------------------------------------------------

    async def movement_find(self, account: str, id: str) -> Movement | None: ...
    async def movement_at(self, account: str, n: int) -> Movement | None: ...
    async def movement_put(self, movement: Movement) -> bool:
        """Insert with `took` unset and `open` set; False where (account, n) or (account, id) is taken."""

    async def movement_apply(self, account: str, n: int, amount: Nanos, took: Nanos, available: Nanos) -> AccountDoc | None:
        """Apply movement n: `took` may differ from `amount` only where `available` is still what the caller read."""

    async def movement_close(self, account: str, n: int, took: Nanos) -> bool: ...
    async def movements_open(self, limit: int) -> list[Movement]: ...
    async def movements_page(self, account: str, after_n: int, limit: int) -> list[Movement]: ...

    # --- nodes (docs/ledger.md section 5, 6) -----------------------------------------------------------------------

    async def node_start(self, inc: str, name: str) -> bool: ...
    async def node_beat(self, inc: str, by: str) -> bool:
        """beat+1 where the node is live (`by` = "") or recovering by `by`."""

    async def node_dead(self, inc: str, beat: int) -> bool: ...
    async def node_claim(self, inc: str, by: str) -> bool: ...
    async def node_done(self, inc: str, by: str) -> bool: ...
    async def node_abandon(self, inc: str) -> bool: ...
    async def node_read(self, inc: str) -> NodeDoc | None: ...
    async def nodes(self, *states: NodeState) -> list[NodeDoc]:
        """The nodes in any of these states (all, if none is named)."""

    # --- usage, read back -------------------------------------------------------------------------------------------

    async def usage_read(self, account: str, request_id: str) -> UsageRecord | None: ...
    async def usage_page(self, account: str, since_ms: int, after: str, limit: int) -> list[UsageRecord]:
        """Records of an account ordered by (at_ms, request id): those after (`since_ms`, `after`).

        The next page starts at the last record's `at_ms` and `request_id`; the first at (since_ms, "").
        """

    async def usage_lowest(self, account: str, inc: str, after_s: int) -> list[UsageRecord]:
        """The records of the lowest `s` above `after_s` under `inc` (for an abandoned node)."""

    async def usage_cost(self, account: str, inc: str | None = None, after_s: int = -1) -> Nanos:
        """The sum of `cost` over an account's records; with `inc`, only those under it with s > `after_s`."""

    async def usage_sums(self, account: str, since_ms: int, by: Literal["model", "day", "key"]) -> list[UsageSums]:
        """Rollup sums since the hour of `since_ms`, grouped and ordered by group."""

    async def rollups_page(self, account: str, since_hour: int, limit: int) -> list[RollupAdd]:
        """An account's rollups from `since_hour` on, ordered by hour: all their sums, and the `s` of the last add."""

    async def rollup_mend(self, rollup: RollupAdd, was: int | None) -> bool:
        """Put `rollup` in place of the one by its id whose `s` still is `was`, or where there is none yet (None).

        False: no match. `rollup.s` is above `was`, so that whoever else read the same is refused.
        """

    # --- people and keys -----------------------------------------------------------------------------------------------

    async def profile_new(self, profile: Profile) -> bool:
        """Insert; False where the account or the e-mail is taken."""

    async def profile_read(self, account: str) -> Profile | None: ...
    async def profile_find(self, email: str) -> Profile | None: ...
    async def profiles_page(self, after: str, limit: int) -> list[Profile]:
        """Profiles ordered by account id."""

    async def profile_status(self, account: str, status: ProfileStatus, was: ProfileStatus | None = None) -> bool:
        """Set the status, where it `was` this (None: whatever it was)."""

    async def key_new(self, key: KeyDoc) -> bool: ...
    async def key_read(self, id: str) -> KeyDoc | None: ...
    async def keys_of(self, account: str) -> list[KeyDoc]: ...
    async def key_limits(self) -> Mapping[str, int]:
        """limit name -> how many live (not revoked) keys carry it: `serve` refuses limits nobody enforces."""

    async def key_revoke(self, id: str, at_ms: int) -> bool:
        """Set `revoked_ms` where it is unset; False where the key is absent or revoked already."""

    # --- catalogue -------------------------------------------------------------------------------------------------------

    async def catalogue_version(self) -> int:
        """The newest version, 0 for none."""

    async def catalogue_read(self, version: int) -> CatalogueDoc | None: ...
    async def catalogue_put(self, doc: CatalogueDoc) -> bool:
        """Insert; False where that version exists (someone else was faster)."""

    # --- orders and receipts (docs/payments.md) ------------------------------------------------------------------------

    async def order_new(self, doc: OrderDoc) -> bool:
        """Insert, with `rev` 1; False where the id is taken, or the backend's payment belongs to another order."""

    async def order_read(self, id: str) -> OrderDoc | None: ...
    async def order_paid_by(self, backend: str, payment: str) -> OrderDoc | None:
        """The order that a backend's payment belongs to."""

    async def order_swap(self, doc: OrderDoc) -> bool:
        """Set `state`, `payment`, `open`, `body` and `rev` where the backend is that and `rev` still one less.

        False for no match, and where the backend's payment belongs to another order.
        """

    async def orders_page(self, account: str | None, since_ms: int, after: str, limit: int) -> list[OrderDoc]:
        """Orders of an account (None: of all) by (created_ms, id): those after (`since_ms`, `after`), as `usage_page`."""

    async def orders_open(self, limit: int) -> list[OrderDoc]:
        """Orders with work left, in the order of their ids."""

    async def receipt_last(self) -> int:
        """The highest number, 0 for none."""

    async def receipt_put(self, doc: ReceiptDoc) -> bool:
        """Insert; False where the number is taken, or the order has a receipt."""

    async def receipt_of(self, order: str) -> ReceiptDoc | None: ...

    # --- shelves (docs/plugins.md): a plugin's own documents, each changed by itself -----------------------------------

    async def shelf_put(self, shelf: str, id: str, body: bytes) -> bool:
        """Insert with `rev` 1; False where the shelf has that id."""

    async def shelf_get(self, shelf: str, id: str) -> ShelfDoc | None: ...
    async def shelf_swap(self, shelf: str, id: str, rev: int, body: bytes) -> bool:
        """Replace the body, `rev` + 1, where `rev` is still that."""

    async def shelf_page(self, shelf: str, prefix: str, after: str, limit: int) -> list[ShelfDoc]:
        """Documents whose id starts with `prefix` and comes after `after`, in the order of their ids."""


async def usage_pages(
    store: Store, account: str, since_ms: int = 0, until_ms: int | None = None, size: int = 1000
) -> AsyncIterator[list[UsageRecord]]:
    """An account's records from `since_ms` on and before `until_ms`, in the order of their instants, a page at a time."""
    at_ms, after = since_ms, ""
    while page := await store.usage_page(account, at_ms, after, size):
        at_ms, after = page[-1].at_ms, page[-1].request_id
        if until_ms is not None and at_ms >= until_ms:
            page = [record for record in page if record.at_ms < until_ms]
            if page:
                yield page
            return
        yield page
        if len(page) < size:
            return


async def usage_stream(store: Store, account: str, since_ms: int = 0, page: int = 1000) -> AsyncIterator[UsageRecord]:
    """Every record of an account, a page at a time."""
    async for records in usage_pages(store, account, since_ms, size=page):
        for record in records:
            yield record


async def orders_of(store: Store, account: str | None, since_ms: int, size: int = 500) -> AsyncIterator[OrderDoc]:
    """Orders of an account (None: of all) from `since_ms` on, in the order they began."""
    at_ms, after = since_ms, ""
    while page := await store.orders_page(account, at_ms, after, size):
        for doc in page:
            yield doc
        at_ms, after = page[-1].created_ms, page[-1].id


async def accounts_of(store: Store, only: str | None = None, size: int = 1000) -> AsyncIterator[AccountDoc]:
    """Every account in the order of their ids, or only this one; nothing if it is not there."""
    if only is not None:
        doc = await store.account_read(only)
        if doc is not None:
            yield doc
        return
    after = ""
    while page := await store.accounts_page(after, size):
        for doc in page:
            yield doc
        after = page[-1].id


async def usage_of_all(
    store: Store, since_ms: int = 0, until_ms: int | None = None, size: int = 1000
) -> AsyncIterator[tuple[int, list[UsageRecord]]]:
    """The records of every account as `usage_pages`, one account after another; each page with how many came before."""
    done = 0
    async for account in accounts_of(store):
        async for page in usage_pages(store, account.id, since_ms, until_ms, size):
            yield done, page
        done += 1


def open_store(url: str) -> Store:
    """The store a URL names, not yet opened: `sqlite:///relative.db`, `sqlite:////absolute.db` or `mongodb://...`.

    A relative path starts at the working directory. `ConfigError` for anything else, and where the MongoDB driver is
    not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from aurixel.storage.sqlite import SqliteStore

        path = url.removeprefix("sqlite:///")
        if path == url or not path or path.startswith(":") or "?" in path:
            raise ConfigError(
                "a SQLite store is named by its file",
                place="store.url",
                mend="write sqlite:///var/aurixel.db, or sqlite:////srv/aurixel.db for an absolute path",
            )
        return SqliteStore(Path(path))
    if scheme in ("mongodb", "mongodb+srv"):
        # The driver waits in threads, ten of them on a small machine: with a slow store they would all be taken, and a beat
        # would wait for its turn. As many as its pool has connections; the driver reads it when it is imported.
        os.environ.setdefault("MOTOR_MAX_WORKERS", "100")
        try:
            from aurixel.storage.mongo import MongoStore
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("motor", "pymongo", "bson"):
                raise
            raise ConfigError(
                "the MongoDB driver is not installed",
                place="store.url",
                mend="pip install 'aurixel[mongo]'",
            ) from None
        return MongoStore(url)
    raise ConfigError(
        "no store of that kind",
        place="store.url",
        mend="write sqlite:///FILE or mongodb://HOST/DATABASE",
    )
