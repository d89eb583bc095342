"""A disk that fails while a node stops: what was settled stays in the journal, and the next start charges it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aurixel.errors import JournalError
from aurixel.storage import Store
from tests.ledger.kit import account, fund, ledger, records, request


def _broken(_: int) -> None:
    raise OSError(5, "EIO")


@pytest.mark.parametrize("when", ["before-stop", "in-stop"])
async def test_settlements_survive_a_sync_that_fails_at_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Any, when: str
) -> None:
    """A disk cannot be made to fail on demand: the one call that would is replaced."""
    expected_logs("aurixel.ledger", "could not be ended: the next start replays its journal", times=1)
    await fund(store, "a", 1000)
    node = ledger(store, tmp_path / "j")
    await node.start()
    await request(node, 42, 100, request_id="r1")
    inc = node.inc
    monkeypatch.setattr(os, "fdatasync", _broken)
    if when == "before-stop":
        with pytest.raises(JournalError):
            await node.flush()
    await node.stop()
    monkeypatch.undo()
    assert (tmp_path / "j" / inc).is_dir()
    assert await records(store) == {}

    node = ledger(store, tmp_path / "j")
    await node.start()
    await node.stop()
    assert (await account(store)).spent == 42
    assert [record.cost for record in (await records(store)).values()] == [42]
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["lock"]
