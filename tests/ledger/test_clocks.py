"""docs/ledger.md section 5 under bad clocks: fast, slow, standing still, jumping, and a machine that slept. What they cost
is at most a write-off; a node that cannot know that it is alive gives no holds; and the books always add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aurixel.errors import GatewayError
from aurixel.ledger import Ledger, verify
from aurixel.ledger.liveness import Watch, beat
from aurixel.storage import NodeDoc, NodeState, Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import TestClock, account, crash, ending, eventually, fund, intent, ledger, request, watch_of
from tests.ledger.test_liveness import state
from tests.storage.model import MemoryStore

DEAD = "is dead: its beat was refused"
STILL = "is dead: its beat stood still"


class Slow(MemoryStore):
    """A store that takes its time: what it does before it answers `node_beat` or `nodes` is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: dict[str, tuple[TestClock, float]] = {}

    def _wait(self, name: str) -> None:
        if name in self.takes:
            clock, seconds = self.takes[name]
            clock.seconds += seconds

    async def node_beat(self, inc: str, by: str) -> bool:
        answer = await super().node_beat(inc, by)
        self._wait("node_beat")
        return answer

    async def nodes(self, *states: NodeState) -> list[NodeDoc]:
        answer = await super().nodes(*states)
        self._wait("nodes")
        return answer


async def started(store: Store, folder: Path, **changes: Any) -> tuple[Ledger, TestClock]:
    """A node with a clock of its own."""
    clock = TestClock()
    node = ledger(store, folder, clock=clock, **changes)
    await node.start()
    return node, clock


async def refused(node: Ledger) -> str:
    """Why a request gets no hold."""
    with pytest.raises(GatewayError) as error:
        await request(node, 1, 1)
    return error.value.code


# --- a node and its own clock ----------------------------------------------------------------------------------------


async def test_after_a_sleep_nothing_is_admitted_until_the_store_has_confirmed_a_beat(
    memory: MemoryStore, tmp_path: Path
) -> None:
    await fund(memory, "a", 1000)
    node, clock = await started(memory, tmp_path)
    await request(node, 1, 500)
    clock.seconds += 74.9
    await request(node, 1, 1)
    clock.seconds += 0.2
    assert not node.admitting
    assert await refused(node) == "store_unavailable"
    await beat(node._open_books())
    await request(node, 1, 1)
    await node.stop()
    assert (await account(memory)).spent == 3


async def test_a_running_request_is_charged_after_a_sleep(memory: MemoryStore, tmp_path: Path) -> None:
    """Nobody called it dead meanwhile: it just goes on, however long it slept."""
    await fund(memory, "a", 1000)
    node, clock = await started(memory, tmp_path)
    async with node.hold(intent(), 100, 100) as hold:
        clock.seconds += 100_000
        await hold.settle(ending(60))
    await node.stop()
    doc = await account(memory)
    assert (doc.spent, doc.written_off, doc.leases) == (60, 0, {})


async def test_admission_is_counted_from_the_sending_of_the_beat(tmp_path: Path) -> None:
    """An answer that took 70 s is worth 5: another node has seen that beat for as long."""
    store = Slow()
    await fund(store, "a", 1000)
    node, clock = await started(store, tmp_path)
    store.takes["node_beat"] = (clock, 70)
    await beat(node._open_books())
    clock.seconds += 4.9
    assert node.admitting
    clock.seconds += 0.2
    assert not node.admitting
    store.takes["node_beat"] = (clock, 80)
    await beat(node._open_books())
    assert not node.admitting, "an answer later than that is worth nothing"
    del store.takes["node_beat"]
    await node.stop()


async def test_the_wall_clock_decides_nothing(memory: MemoryStore, tmp_path: Path) -> None:
    await fund(memory, "a", 1000)
    node, clock = await started(memory, tmp_path / "1")
    other, elsewhen = await started(memory, tmp_path / "2")
    watch = watch_of(other)
    year = 365 * 86_400_000
    for ms in (clock.ms + year, clock.ms - 30 * year, 0):
        clock.ms = elsewhen.ms = ms
        assert node.admitting
        await request(node, 1, 1)
        await watch.look()
        await watch.bury()
    assert node.totals().oldest_unposted_ms >= 0
    assert await state(memory, node.inc) == "live"
    await node.stop()
    await other.stop()
    assert (await account(memory)).spent == 3


# --- a watcher and its clock -----------------------------------------------------------------------------------------


async def look_and_turn(watch: Watch, clock: TestClock, seconds: float, every: float) -> None:
    """Looks, `every` so many seconds of the watcher's clock."""
    end = clock.seconds + seconds
    await watch.look()
    while clock.seconds < end:
        clock.seconds += every
        await watch.look()


@pytest.mark.parametrize(("every", "dead"), [(5, True), (10, True), (10.5, False), (60, False)])
async def test_looks_count_while_they_are_at_most_10_s_apart(
    memory: MemoryStore, tmp_path: Path, every: float, dead: bool, expected_logs: ExpectedLogs
) -> None:
    if dead:
        expected_logs("aurixel.ledger", STILL, times=1)
    watching, clock = await started(memory, tmp_path / "1")
    other, _ = await started(memory, tmp_path / "2")
    await look_and_turn(watch_of(watching), clock, 600 if not dead else 120, every)
    assert await state(memory, other.inc) == ("dead" if dead else "live")
    await watching.stop()
    await other.stop()


async def test_a_watcher_that_sleeps_in_the_middle_of_a_look_starts_again(tmp_path: Path) -> None:
    """Between asking and the answer anything may have happened: the answer is as old as the asking."""
    store = Slow()
    watching, clock = await started(store, tmp_path / "1")
    other, _ = await started(store, tmp_path / "2")
    watch = watch_of(watching)
    await look_and_turn(watch, clock, 115, 5)
    store.takes["nodes"] = (clock, 1000)
    await watch.look()
    assert await state(store, other.inc) == "live"
    del store.takes["nodes"]
    await look_and_turn(watch, clock, 115, 5)
    assert await state(store, other.inc) == "live"
    await watching.stop()
    await other.stop()


async def test_a_fast_clock_sees_beats_all_the_same(memory: MemoryStore, tmp_path: Path) -> None:
    """Ten times too fast: 50 s of its own pass between two beats of the other."""
    watching, fast = await started(memory, tmp_path / "1")
    other, _ = await started(memory, tmp_path / "2")
    watch = watch_of(watching)
    for _ in range(20):
        await look_and_turn(watch, fast, 50, 5)
        await beat(other._open_books())
    assert await state(memory, other.inc) == "live"
    await watching.stop()
    await other.stop()


async def test_a_clock_that_jumps_ahead_between_looks_calls_nobody_dead(memory: MemoryStore, tmp_path: Path) -> None:
    watching, clock = await started(memory, tmp_path / "1")
    other, _ = await started(memory, tmp_path / "2")
    watch = watch_of(watching)
    for jump in (11, 119, 121, 10_000):
        await look_and_turn(watch, clock, 100, 5)
        clock.seconds += jump
    await watch.look()
    assert await state(memory, other.inc) == "live"
    await watching.stop()
    await other.stop()


@pytest.mark.parametrize("cost", [60, 300])
@pytest.mark.parametrize("spent_elsewhere", [False, True])
async def test_a_node_called_dead_by_a_fast_clock_costs_a_write_off_at_most(
    store: Store, tmp_path: Path, cost: int, spent_elsewhere: bool, expected_logs: ExpectedLogs
) -> None:
    """It lives, gives holds and runs requests by its own clock, which stands still; its lease is taken back under it, and
    somebody else may spend all of it. What its requests cost is charged from what is left, and the rest written off."""
    expected_logs("aurixel.ledger", STILL, times=1)
    expected_logs("aurixel.ledger", DEAD, level=40, times=1)
    await fund(store, "a", 1000)
    watching, fast = await started(store, tmp_path / "1", reclaim_after=1)
    node, _ = await started(store, tmp_path / "2")
    wronged, watch = node.inc, watch_of(watching)
    async with node.hold(intent(), 600, 600) as hold:
        await look_and_turn(watch, fast, 120, 5)
        await watch.bury()
        fast.seconds += 1
        await watch.bury()
        assert (await account(store)).leases[wronged].amount == 0
        assert node.admitting, "by its own clock"
        if spent_elsewhere:
            await beat(watching._open_books())
            async with watching.hold(intent(), 1000, 1000) as other:
                await other.settle(ending(900))
            await watching.flush()
        else:
            await request(node, 1, 1)  # it draws anew, dead as it is
        await hold.settle(ending(cost))
        await beat(node._open_books())
        assert not node.admitting

    async def anew() -> bool:
        return node.inc != wronged and node.admitting

    await eventually(anew)
    assert await state(store, wronged) == "done"
    await watching.stop()
    await node.stop()
    doc = await account(store)
    lost = max(0, 900 + cost - 1000) if spent_elsewhere else 0
    assert doc.written_off == lost
    assert doc.spent == (900 if spent_elsewhere else 1) + cost - lost
    assert doc.available == 1000 - doc.spent
    assert doc.leases == {}
    report = await verify(store)
    assert report.ok, report.faults


async def test_a_reclaim_waits_for_its_time_by_the_clock_of_who_saw_the_death(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """A node that is started after the death counts from its own first look at it."""
    expected_logs("aurixel.ledger", STILL, times=1)
    await fund(memory, "a", 1000)
    first, clock = await started(memory, tmp_path / "1")
    other, _ = await started(memory, tmp_path / "2")
    await request(other, 10, 500)
    silent = other.inc
    await crash(other)
    await look_and_turn(watch_of(first), clock, 120, 5)
    await first.stop()
    late, clock = await started(memory, tmp_path / "3")
    watch = watch_of(late)
    clock.seconds += 10_000  # of which it has seen nothing
    await watch.bury()
    clock.seconds += 59
    await watch.bury()
    assert (await account(memory)).leases[silent].amount == 500
    clock.seconds += 1
    await watch.bury()
    assert (await account(memory)).leases[silent].amount == 0
    await late.stop()


async def test_two_nodes_that_call_each_other_dead_both_begin_anew(
    store: Store, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """Both clocks run wild at once: neither believes the other, each finds out at its next beat."""
    expected_logs("aurixel.ledger", STILL, times=2)
    expected_logs("aurixel.ledger", DEAD, level=40, times=2)
    await fund(store, "a", 1000)
    one, fast = await started(store, tmp_path / "1")
    two, faster = await started(store, tmp_path / "2")
    before = {one.inc, two.inc}
    await request(one, 10, 100)
    await request(two, 20, 100)
    watches = watch_of(one), watch_of(two)
    for watch, clock in zip(watches, (fast, faster), strict=True):
        await look_and_turn(watch, clock, 120, 5)
    await beat(one._open_books())
    await beat(two._open_books())

    async def anew() -> bool:
        return not before & {one.inc, two.inc} and one.admitting and two.admitting

    await eventually(anew)
    await request(one, 1, 1)
    await request(two, 1, 1)
    await one.stop()
    await two.stop()
    doc = await account(store)
    assert (doc.spent, doc.written_off, doc.leases) == (32, 0, {})
    assert {await state(store, inc) for inc in before} == {"done"}
