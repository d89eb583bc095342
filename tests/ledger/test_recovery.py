"""Restart: a process that died at any step has charged each completed request once, and left no lease."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from aurixel.errors import JournalError
from aurixel.ledger import Ledger, verify
from aurixel.ledger.posting import post_round
from aurixel.ledger.returns import return_round
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.faults import Blown, Fuse
from tests.ledger.kit import BRISK, account, crash, ending, eventually, fund, intent, ledger, records, request
from tests.storage.model import MemoryStore

CREDIT = 10_000


class Day:
    """What a node does in its life, and what must be true of it whenever it is cut short."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}  # settled requests and their cost
        self.begun: set[str] = set()

    async def live(self, node: Ledger) -> None:
        await node.start()
        books = node._open_books()
        await self._request(node, "a", "r1", want=10, cost=7)
        await self._request(node, "b", "r2", want=100, cost=130)  # above its hold; b is poor
        await self._request(node, "a", "r3", want=10, cost=0)
        await post_round(books)
        await self._request(node, "a", "r4", want=10, cost=9)
        async with node.hold(intent("a", "r5"), 10, 10) as running:
            self.begun.add("r5")
            await self._request(node, "a", "r6", want=10, cost=1)
            await self._request(node, "b", "r7", want=60, cost=300)  # more than b has: written off
            await post_round(books)
            await return_round(books)
            await running.settle(ending(4))
            self.done["r5"] = 4
        await return_round(books)
        await self._request(node, "a", "r8", want=10, cost=2)
        await node.stop()

    async def _request(self, node: Ledger, name: str, request_id: str, want: int, cost: int) -> None:
        async with node.hold(intent(name, request_id), want, want) as hold:
            self.begun.add(request_id)
            await hold.settle(ending(cost))
            self.done[request_id] = cost

    async def check(self, store: Store) -> None:
        report = await verify(store)
        assert report.ok, report.faults
        found = {**await records(store, "a"), **await records(store, "b")}
        # A settlement may have reached the journal although the process died before it could say so.
        assert set(self.done) <= self.begun <= set(found)
        for request_id, record in found.items():
            if request_id in self.done:
                assert record.cost == self.done[request_id]
            else:
                assert record.cell in {"crash", "ok", "refused"}
                assert record.cell != "crash" or record.cost == 0
        for name in ("a", "b"):
            doc = await account(store, name)
            assert doc.leases == {}
            assert doc.spent + doc.written_off == sum(r.cost for r in found.values() if r.account == name)
        assert {node.state for node in await store.nodes()} <= {"done"}


async def the_accounts(store: Store) -> None:
    await fund(store, "a", CREDIT)
    await fund(store, "b", 200)


async def live_until_blown(day: Day, fuse: Fuse, store: Store, journal: Path) -> bool:
    node = ledger(fuse.store(store), journal, idle_return=0, lease_target=500)
    try:
        await day.live(node)
    except Blown:
        pass
    await crash(node)
    return fuse.blown


def left_in(journal: Path) -> list[str]:
    return [path.name for path in journal.iterdir() if path.name != "lock"]


async def come_back(store: Store, journal: Path) -> None:
    node = ledger(store, journal)
    await node.start()
    await node.stop()
    for name in left_in(journal):  # of a node that died before the store heard of it, and may yet hear
        assert await store.node_read(name) is None


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_every_step_of_a_life(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuse = Fuse()
    fuse.journals(monkeypatch)
    for step in range(1, 1000):
        store, day, journal = MemoryStore(), Day(), tmp_path / str(step)
        await the_accounts(store)
        fuse.arm(step, after)
        blown = await live_until_blown(day, fuse, store, journal)
        fuse.repair()
        await come_back(store, journal)
        await day.check(store)
        if not blown:
            assert set(day.done) == {f"r{n}" for n in range(1, 9)}
            assert step > 30, "the fuse does not see the steps"
            return
    raise AssertionError("it never came through")


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_every_step_of_a_recovery(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first life ends where most is open; the second at any step of its recovery; the third must mend both."""
    fuse = Fuse()
    fuse.journals(monkeypatch)
    steps = 0
    for first in range(3, 42, 3):
        for second in range(1, 1000):
            store, day, journal = MemoryStore(), Day(), tmp_path / f"{first}-{second}"
            await the_accounts(store)
            fuse.arm(first, after)
            assert await live_until_blown(day, fuse, store, journal)
            fuse.arm(second, after)
            node = ledger(fuse.store(store), journal)
            with contextlib.suppress(Blown):
                await node.start()
                await node.stop()
            await crash(node)
            blown = fuse.blown
            fuse.repair()
            await come_back(store, journal)
            await day.check(store)
            steps += 1
            if not blown:
                break
    assert steps > 30


async def test_a_crash_on_a_real_store(store: Store, tmp_path: Path) -> None:
    await the_accounts(store)
    node = ledger(store, tmp_path / "j")
    await node.start()
    await request(node, 5, 100, "a", "r1")
    await post_round(node._open_books())
    await request(node, 6, 100, "a", "r2")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(node.hold(intent("a", "r3"), 100, 100))
        assert (await account(store)).leases
        await crash(node)
        node._books.void = True  # its memory is gone
        await come_back(store, tmp_path / "j")
    found = await records(store)
    assert {name: (record.cell, record.cost) for name, record in found.items()} == {
        "r1": ("ok", 5),
        "r2": ("ok", 6),
        "r3": ("crash", 0),
    }
    doc = await account(store)
    assert (doc.available, doc.leases) == (CREDIT - 11, {})
    assert (await verify(store)).ok


async def test_damage_stops_the_start_and_is_named(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", CREDIT)
    node = ledger(memory, tmp_path)
    await node.start()
    await request(node, 5, 100)
    file = tmp_path / node.inc / "00000001.log"
    await crash(node)
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    second = ledger(memory, tmp_path)
    with pytest.raises(JournalError) as error:
        await second.start()
    assert error.value.place == f"{file}:0"
    data[20] ^= 1
    file.write_bytes(data)
    await come_back(memory, tmp_path)
    assert (await account(memory)).spent == 5


async def test_a_store_restored_from_an_old_copy_stops_the_start(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", CREDIT)
    node = ledger(memory, tmp_path)
    await node.start()
    await request(node, 5, 100)
    old = dict(memory.accounts)
    await post_round(node._open_books())
    await crash(node)
    memory.accounts = old
    with pytest.raises(JournalError, match="frame 1 was posted, but the store is at 0"):
        await ledger(memory, tmp_path).start()


async def test_a_cost_without_a_lease_stops_the_start(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", CREDIT)
    empty = dict(memory.accounts)
    node = ledger(memory, tmp_path)
    await node.start()
    await request(node, 5, 100)
    await crash(node)
    memory.accounts = empty
    with pytest.raises(JournalError, match="a cost without a lease entry"):
        await ledger(memory, tmp_path).start()


async def test_an_absent_node_waits_for_a_late_start(memory: MemoryStore, tmp_path: Path) -> None:
    """Its `node_start` got no answer and the process died: the directory stays until the store knows the name."""
    node = ledger(memory, tmp_path)
    await node.start()
    inc = node.inc
    await crash(node)
    late = memory.node_docs.pop(inc)
    again = ledger(memory, tmp_path)
    await again.start()
    await again.stop()
    assert (tmp_path / inc).is_dir()
    memory.node_docs[inc] = late
    await come_back(memory, tmp_path)
    assert memory.node_docs[inc].state == "done"


async def test_an_abandoned_journal_is_set_aside(memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.ledger", "abandoned node .* set aside", level=40, times=1)
    node = ledger(memory, tmp_path)
    await node.start()
    inc = node.inc
    await crash(node)
    memory.node_docs[inc] = memory.node_docs[inc].__class__(inc=inc, name="test", state="abandoned", by="", beat=0, since_ms=0)
    again = ledger(memory, tmp_path)
    await again.start()
    await again.stop()
    assert not (tmp_path / inc).exists()
    assert (tmp_path / f"{inc}.abandoned" / "00000001.log").exists()


async def test_a_lease_that_is_reclaimed_meanwhile_is_charged_to_the_account(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 100)
    node = ledger(memory, tmp_path / "1")
    await node.start()
    await request(node, 60, 60, request_id="r1")
    inc = node.inc
    await crash(node)
    doc = await account(memory)
    assert await memory.lease_reclaim("a", inc, doc.ver, doc.leases[inc].amount)
    other = ledger(memory, tmp_path / "2")
    await other.start()
    await request(other, 70, 70, request_id="r2")
    await other.stop()
    await come_back(memory, tmp_path / "1")
    doc = await account(memory)
    assert (doc.available, doc.spent, doc.written_off) == (0, 100, 30)
    assert (await verify(memory)).ok


async def test_a_dead_node_goes_on_under_a_new_name(memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    """Another node called it dead: its running request is ended and charged, and new ones are served."""
    expected_logs("aurixel.ledger", "is dead: its beat was refused", level=40, times=1)
    await fund(memory, "a", CREDIT)
    stack = contextlib.AsyncExitStack()
    node = ledger(memory, tmp_path, BRISK)
    ended: list[str] = []

    def end_requests() -> None:
        ended.append(inc)
        hold._settle(ending(8, cell="died"))

    node._on_dead = end_requests
    await node.start()
    inc = node.inc
    await request(node, 5, 100, request_id="r1")
    hold = await stack.enter_async_context(node.hold(intent("a", "r2"), 100, 100))
    assert await memory.node_dead(inc, memory.node_docs[inc].beat)

    async def reborn() -> bool:
        return node.admitting and node.inc != inc

    await eventually(reborn)
    await stack.aclose()
    assert ended == [inc]
    assert memory.node_docs[inc].state == "done"
    await request(node, 3, 100, request_id="r3")
    await node.stop()
    assert {name: record.cost for name, record in (await records(memory)).items()} == {"r1": 5, "r2": 8, "r3": 3}
    assert (await verify(memory)).ok
    shutil.rmtree(tmp_path)


async def test_a_request_that_outlives_its_incarnation_is_charged_nothing(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """It was told to end and did not: its node has replayed it as cut by a crash, and its end comes too late."""
    expected_logs("aurixel.ledger", "is dead: its beat was refused", level=40, times=1)
    await fund(memory, "a", CREDIT)
    node = ledger(memory, tmp_path, BRISK, stop_within=1.0)
    await node.start()
    inc = node.inc
    async with node.hold(intent("a", "r1"), 100, 100) as hold:
        assert await memory.node_dead(inc, memory.node_docs[inc].beat)

        async def reborn() -> bool:
            return node.admitting and node.inc != inc

        await eventually(reborn)
        await hold.settle(ending(50))
    await request(node, 3, 100, request_id="r2")
    await node.stop()
    found = {name: (record.cell, record.cost) for name, record in (await records(memory)).items()}
    assert found == {"r1": ("crash", 0), "r2": ("ok", 3)}
    assert (await verify(memory)).ok
