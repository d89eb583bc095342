"""Rounds beside everything else that waits for an account: one that is busy keeps no other from being posted or returned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aurixel.errors import StoreUnavailable
from aurixel.ledger.returns import return_round
from aurixel.storage import Store
from tests.ledger.kit import account, eventually, fund, ledger, request


async def test_an_account_that_others_queue_for_keeps_no_other_from_being_posted(store: Store, tmp_path: Path) -> None:
    """The queue is as long as the store is slow, and whoever fills it pays nothing: it must not be everybody's."""
    node = ledger(store, tmp_path / "j", store_patience=0.2)
    await node.start()
    for name in ("a", "b", "c"):
        await fund(store, name, 1000)
        await request(node, 42, 100, name)
    books = node._open_books()
    async with books.tab("b").lock:
        with pytest.raises(StoreUnavailable):
            await node.flush()
        spent = [(await account(store, name)).spent for name in ("a", "b", "c")]
        assert spent == [42, 0, 42]
    await node.flush()
    assert (await account(store, "b")).spent == 42
    await node.stop()


async def test_an_account_that_others_queue_for_is_posted_when_its_turn_comes(store: Store, tmp_path: Path) -> None:
    """Nobody holds any other account meanwhile: whoever asks for that one need not wait."""
    await fund(store, "a", 1000)
    await fund(store, "b", 1000)
    node = ledger(store, tmp_path / "j", store_patience=5)
    await node.start()
    await request(node, 42, 100, "a")
    await request(node, 42, 100, "b")
    books = node._open_books()
    async with books.tab("b").lock:
        posting = asyncio.create_task(node.flush())

        async def posted() -> bool:
            return not books.tab("a").unposted

        await eventually(posted)
        await request(node, 1, 950, "a")  # not without the store
        assert not posting.done()
    await posting
    assert (await account(store, "b")).spent == 42
    await node.stop()


async def test_an_account_that_others_queue_for_keeps_no_other_from_going_home(store: Store, tmp_path: Path) -> None:
    node = ledger(store, tmp_path / "j", store_patience=0.2, idle_return=0)
    await node.start()
    for name in ("a", "b"):
        await fund(store, name, 1000)
        await request(node, 42, 100, name)
    await node.flush()
    books = node._open_books()
    for name in ("a", "b"):
        await request(node, 0, 100, name)
    async with books.tab("a").lock:
        with pytest.raises(StoreUnavailable):
            await return_round(books)
        assert (await account(store, "b")).available == 958
    await return_round(books)
    assert (await account(store, "a")).available == 958
    await node.stop()
