"""A store that loses answers, lands calls late or tears a batch, around any other store: what the ledger must bear.

`FlakyStore(inner, choose)` asks `choose(name of the write)` for a fault before each write. Reads pass. Nothing here is
random: the choice is the test's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from aurixel.errors import StoreUnavailable
from aurixel.storage import Store

# lost: done, but no answer. dropped: not done, no answer. late: not done now, no answer; `land` does it, maybe never.
# torn (`post` only): the records are stored, the rest is late.
Fault: TypeAlias = Literal["lost", "dropped", "late", "torn"]
FAULTS: tuple[Fault, ...] = ("lost", "dropped", "late", "torn")

WRITES = frozenset(
    {
        "account_new",
        "account_want",
        "lease_open",
        "lease_draw",
        "lease_return",
        "lease_close",
        "lease_fence",
        "lease_reclaim",
        "account_closing",
        "account_remove",
        "post",
        "movement_put",
        "movement_apply",
        "movement_close",
        "node_start",
        "node_beat",
        "node_dead",
        "node_claim",
        "node_done",
        "node_abandon",
        "profile_new",
        "profile_status",
        "key_new",
        "key_revoke",
        "catalogue_put",
        "order_new",
        "order_swap",
        "receipt_put",
        "shelf_put",
        "shelf_swap",
    }
)


class LateCall:
    """A write that was given up by its caller and may still land."""

    def __init__(self, name: str, args: tuple[Any, ...], call: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self.args = args
        self._call = call

    async def land(self) -> Any:
        """What the call would have answered."""
        return await self._call()


class FlakyStore:
    """Has every method of `Store`: use `flaky(...)` where the type matters. `late` holds what may still land, in order."""

    def __init__(self, inner: Store, choose: Callable[[str], Fault | None]) -> None:
        self.inner = inner
        self.choose = choose
        self.late: list[LateCall] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        return partial(self._write, name, method) if name in WRITES else method

    async def _write(self, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        fault = self.choose(name)
        if fault is None:
            return await method(*args, **kwargs)
        if fault == "lost":
            await method(*args, **kwargs)
        elif fault == "torn" and name == "post":
            records, rollups, posts = args
            await method(records, (), ())
            self.late.append(LateCall(name, ((), rollups, posts), partial(method, (), rollups, posts)))
        elif fault != "dropped":
            self.late.append(LateCall(name, args, partial(method, *args, **kwargs)))
        raise StoreUnavailable(f"{name}: no answer ({fault})")

    async def land(self, index: int = 0) -> Any:
        """Let one late call land now."""
        return await self.late.pop(index).land()


def flaky(inner: Store, choose: Callable[[str], Fault | None]) -> tuple[Store, FlakyStore]:
    """The same object twice: as the store it stands for, and as what a test holds on to."""
    store = FlakyStore(inner, choose)
    return store, store  # type: ignore[return-value]
