"""Adoption: nothing is done to the journal of a node that lives, and it is known to be dead in no other way than this."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurixel.clock import SystemClock
from aurixel.errors import NodeAlive
from aurixel.ledger import NoMetrics, verify
from aurixel.ledger.adoption import Adoption
from aurixel.ledger.inspection import inspect
from aurixel.ledger.recovery import Replayed
from aurixel.storage import Store
from tests.ledger.kit import BRISK, account, crash, fund, intent, ledger, records, request, settings
from tests.storage.model import MemoryStore

BEAT_S = 0.05


class Watched:
    """An adoption of the journals in a folder, and what it said of its progress."""

    def __init__(self, store: Store, journal: Path, dead_after: float = 1.0) -> None:
        self.watched: list[float] = []
        self.posted: list[tuple[int, int]] = []
        chosen = settings(journal, beat_every=BEAT_S, dead_after=dead_after)
        self.adoption = Adoption(
            store,
            chosen,
            SystemClock(),
            NoMetrics(),
            lambda seconds, of: self.watched.append(seconds / of),
            lambda done, of: self.posted.append((done, of)),
        )


async def left_by_a_crash(store: Store, journal: Path) -> str:
    """The incarnation of a node that died with two requests unposted and one running."""
    await fund(store, "a", 1000)
    node = ledger(store, journal)
    await node.start()
    for name in ("r1", "r2"):
        await request(node, 7, 10, request_id=name)
    running = node.hold(intent("a", "r3"), 10, 10)
    await running.__aenter__()
    await crash(node)
    node._books.void = True  # its memory is gone
    await running.__aexit__(None, None, None)
    return node.inc


async def test_a_beat_that_stands_still_is_waited_out(store: Store, tmp_path: Path) -> None:
    inc = await left_by_a_crash(store, tmp_path / "j")
    watched = Watched(store, tmp_path / "j")
    await watched.adoption.bury([inc], gone=False)
    assert watched.watched == sorted(watched.watched)
    assert watched.watched[-1] == 1
    assert len(watched.watched) > 10
    assert await watched.adoption.replay(inc) == Replayed(inc, "replayed", 3, 1)
    assert watched.posted == [(0, 3), (3, 3)]
    assert {name: (record.cell, record.cost) for name, record in (await records(store)).items()} == {
        "r1": ("ok", 7),
        "r2": ("ok", 7),
        "r3": ("crash", 0),
    }
    assert ((await account(store)).leases, (await account(store)).spent) == ({}, 14)
    assert (await verify(store)).ok
    assert inspect(tmp_path / "j") == []


async def test_the_word_of_the_operator_shortens_it_to_two_beats(memory: MemoryStore, tmp_path: Path) -> None:
    inc = await left_by_a_crash(memory, tmp_path)
    watched = Watched(memory, tmp_path, dead_after=3600)
    await watched.adoption.bury([inc], gone=True)
    assert memory.node_docs[inc].state == "dead"


@pytest.mark.parametrize("gone", [False, True])
async def test_a_beat_that_moves_ends_it(store: Store, tmp_path: Path, gone: bool) -> None:
    """Whatever the operator says."""
    node = ledger(store, tmp_path / "j", BRISK, beat_every=BEAT_S / 5)
    await node.start()
    watched = Watched(store, tmp_path / "j")
    with pytest.raises(NodeAlive) as error:
        await watched.adoption.bury([node.inc], gone=gone)
    assert (error.value.inc, error.value.name) == (node.inc, "test")
    assert node.admitting
    await node.stop()


async def test_a_beat_at_the_last_moment_ends_it(memory: MemoryStore, tmp_path: Path) -> None:
    """Between the last look and the word to the store."""
    inc = await left_by_a_crash(memory, tmp_path)
    dead = memory.node_dead

    async def beaten(of: str, beat: int) -> bool:
        assert await memory.node_beat(inc, "")
        return await dead(of, beat)

    memory.node_dead = beaten  # type: ignore[method-assign]
    with pytest.raises(NodeAlive):
        await Watched(memory, tmp_path).adoption.bury([inc], gone=True)
    assert memory.node_docs[inc].state == "live"


async def test_a_gap_in_the_looking_begins_it_again(memory: MemoryStore, tmp_path: Path) -> None:
    """A machine that slept has not seen the beat stand still."""
    inc = await left_by_a_crash(memory, tmp_path)
    watched = Watched(memory, tmp_path, dead_after=0.5)
    slow = memory.node_read
    looks = 0

    async def sleepy(of: str) -> object:
        nonlocal looks
        looks += 1
        if looks == 4:
            watched.adoption._clock = Ahead()
        return await slow(of)

    memory.node_read = sleepy  # type: ignore[method-assign,assignment]
    await watched.adoption.bury([inc], gone=False)
    assert watched.watched != sorted(watched.watched)
    assert watched.watched[-1] == 1


class Ahead(SystemClock):
    """An hour later."""

    def boot(self) -> float:
        return super().boot() + 3600


async def test_nothing_is_waited_for_where_the_store_says_dead(memory: MemoryStore, tmp_path: Path) -> None:
    inc = await left_by_a_crash(memory, tmp_path)
    assert await memory.node_dead(inc, memory.node_docs[inc].beat)
    watched = Watched(memory, tmp_path, dead_after=3600)
    await watched.adoption.bury([inc], gone=False)
    assert watched.watched == []
    assert (await watched.adoption.replay(inc)).became == "replayed"
    assert memory.node_docs[inc].state == "done"


async def test_what_the_store_does_not_know_is_kept(memory: MemoryStore, tmp_path: Path) -> None:
    inc = await left_by_a_crash(memory, tmp_path)
    del memory.node_docs[inc]
    watched = Watched(memory, tmp_path, dead_after=3600)
    await watched.adoption.bury([inc], gone=False)
    assert await watched.adoption.replay(inc) == Replayed(inc, "absent")
    assert (tmp_path / inc).is_dir()
