"""Who is alive: a node that falls silent is called dead, its lease goes back, and it is never believed again."""

from __future__ import annotations

from pathlib import Path

from aurixel.ledger import Ledger
from aurixel.ledger.liveness import Watch, beat
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import BRISK, TestClock, account, crash, eventually, fund, intent, ledger, request, watch_of
from tests.storage.faults import Fault, flaky
from tests.storage.model import MemoryStore


async def two(store: Store, tmp_path: Path) -> tuple[Ledger, TestClock, Watch, Ledger]:
    """A node that watches, by its own clock, and another one."""
    clock = TestClock()
    watching = ledger(store, tmp_path / "1", clock=clock)
    other = ledger(store, tmp_path / "2")
    await watching.start()
    await other.start()
    return watching, clock, watch_of(watching), other


async def state(store: Store, inc: str) -> str:
    node = await store.node_read(inc)
    assert node is not None
    return node.state


async def look_for(watch: Watch, clock: TestClock, seconds: float, every: float = 5) -> None:
    end = clock.seconds + seconds
    await watch.look()
    while clock.seconds < end:
        clock.seconds += every
        await watch.look()


async def test_a_silent_node_is_called_dead_and_its_lease_reclaimed(
    store: Store, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.ledger", "node .* is dead: its beat stood still", times=1)
    await fund(store, "a", 1000)
    watching, clock, watch, other = await two(store, tmp_path)
    await request(other, 10, 500)
    silent = other.inc
    await crash(other)
    await look_for(watch, clock, 115)
    assert await state(store, silent) == "live"
    await look_for(watch, clock, 5)
    assert await state(store, silent) == "dead"
    await watch.bury()
    clock.seconds += 59
    await watch.bury()
    assert (await account(store)).leases[silent].amount == 500
    clock.seconds += 1
    await watch.bury()
    doc = await account(store)
    assert (doc.leases[silent].amount, doc.available) == (0, 1000), "the entry stays until the journal is replayed"
    await watching.stop()
    again = ledger(store, tmp_path / "2")
    await again.start()
    await again.stop()
    doc = await account(store)
    assert (doc.leases, doc.spent, await state(store, silent)) == ({}, 10, "done")


async def test_a_beat_in_time_keeps_a_node_alive(memory: MemoryStore, tmp_path: Path) -> None:
    watching, clock, watch, other = await two(memory, tmp_path)
    for _ in range(5):
        await look_for(watch, clock, 115)
        await beat(other._open_books())
    assert await state(memory, other.inc) == "live"
    await watching.stop()
    await other.stop()


async def test_a_gap_in_the_looks_starts_again(memory: MemoryStore, tmp_path: Path) -> None:
    """The watcher was suspended: it has not seen the other stand still, it has not looked."""
    watching, clock, watch, other = await two(memory, tmp_path)
    await look_for(watch, clock, 100)
    clock.seconds += 1000
    await look_for(watch, clock, 100)
    assert await state(memory, other.inc) == "live"
    await watching.stop()
    await other.stop()


async def test_a_node_that_is_recovered_elsewhere_is_watched_too(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.ledger", "node .* is dead: its beat stood still", times=2)
    watching, clock, watch, other = await two(memory, tmp_path)
    recovered, by = other.inc, "r" * 26
    await crash(other)
    await memory.node_start(by, "gone")
    await memory.node_claim(recovered, by)
    await look_for(watch, clock, 120)
    assert await state(memory, recovered) == "dead"
    assert await state(memory, by) == "dead"
    await watching.stop()


async def test_a_lease_that_a_node_opened_after_it_was_done_is_closed(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    watching, _, watch, other = await two(memory, tmp_path)
    done = other.inc
    await other.stop()
    assert await memory.lease_open("a", done, (await account(memory)).ver, 100, 0)
    await watch.bury()
    doc = await account(memory)
    assert (doc.leases, doc.available) == ({}, 1000)
    await watching.stop()


async def test_a_refused_beat_ends_the_incarnation(memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.ledger", "is dead: its beat was refused", level=40, times=1)
    expected_logs("aurixel.ledger", "could not be ended", times=1)
    await fund(memory, "a", 1000)
    node = ledger(memory, tmp_path)
    await node.start()
    assert node._supervisor
    node._supervisor.cancel()  # so that it stays dead
    async with node.hold(intent(), 100, 100):
        assert await memory.node_dead(node.inc, 1)
        await beat(node._open_books())
        assert not node.admitting
    await node.stop()
    again = ledger(memory, tmp_path)
    await again.start()
    await again.stop()
    assert (await account(memory)).leases == {}


async def test_a_node_called_dead_while_the_store_is_away_leaves_one_journal_however_long_that_takes(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """What never began cannot be told from what may still begin, and is kept: there must not be one more with every try."""
    expected_logs("aurixel.ledger", "is dead: its beat was refused", level=40, times=1)
    expected_logs("aurixel.ledger", "the store does not answer", times=1)
    expected_logs("aurixel.ledger", "the store answers again", optional=True)
    tries = 0

    def away(name: str) -> Fault | None:
        nonlocal tries
        tries += name == "node_start" and dead
        return "dropped" if dead else None

    dead = False
    store, _ = flaky(memory, away)
    await fund(memory, "a", 1000)
    node = ledger(store, tmp_path / "j", BRISK, start_within=0)
    await node.start()
    await request(node, 42, 100)
    inc = node.inc
    seen = await memory.node_read(inc)
    assert seen is not None
    assert await memory.node_dead(inc, seen.beat)
    await node._open_books().dead.wait()
    dead = True

    async def tried() -> bool:
        return tries > 3

    async def back() -> bool:
        return node.admitting and node.inc != inc

    await eventually(tried)
    assert len([path for path in (tmp_path / "j").iterdir() if path.is_dir()]) == 2
    dead = False
    await eventually(back)
    await node.stop()
    assert (await account(memory)).spent == 42
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["lock"]
