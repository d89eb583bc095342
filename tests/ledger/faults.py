"""A process that dies between two steps: whatever it does to a store or a journal may be the last thing it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from aurixel.ledger.journal import Journal
from aurixel.ledger.lines import Entry
from aurixel.storage import Store
from tests.storage.faults import WRITES


class Blown(BaseException):
    """The process is dead. Not an `Exception`: nothing may handle it."""


class Fuse:
    """Burns through at step `at`: before that step is done, or right after it. A burnt fuse lets nothing through.

    Steps are writes to the store and lines of the journal, counted from 1.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.at = 0
        self.after = False
        self.blown = False

    def arm(self, at: int, after: bool) -> None:
        self.steps, self.at, self.after, self.blown = 0, at, after, False

    def repair(self) -> None:
        self.arm(0, False)

    def before_step(self) -> None:
        self.steps += 1
        if self.blown or (self.steps == self.at and not self.after):
            self.blown = True
            raise Blown

    def after_step(self) -> None:
        if self.steps == self.at:
            self.blown = True
        if self.blown:
            raise Blown

    def store(self, inner: Store) -> Store:
        """The store, behind the fuse."""
        return _Fused(inner, self)  # type: ignore[return-value]

    def journals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All journals, behind the fuse."""
        append = Journal.append

        def fused(journal: Journal, entry: Entry) -> None:
            self.before_step()
            append(journal, entry)
            self.after_step()

        monkeypatch.setattr(Journal, "append", fused)


class _Fused:
    def __init__(self, inner: Store, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return partial(self._call, method, name in WRITES) if callable(method) else method

    async def _call(self, method: Callable[..., Awaitable[Any]], write: bool, *args: Any, **kwargs: Any) -> Any:
        if self._fuse.blown:
            raise Blown
        if not write:
            return await method(*args, **kwargs)
        self._fuse.before_step()
        answer = await method(*args, **kwargs)
        self._fuse.after_step()
        return answer
