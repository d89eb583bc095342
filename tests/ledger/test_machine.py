"""Anything in any order: two nodes, two accounts, a store that loses answers and lands calls late, crashes, deaths,
movements. Whatever happened: never negative, always adding up, and at rest each request charged once, at its cost.

The machine knows nothing of how the ledger works; it remembers what it asked for and what it was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aurixel.errors import JournalError, RequestError, StoreUnavailable
from aurixel.ledger import Hold, Ledger, Movements, Refused, verify
from aurixel.ledger import node as node_module
from aurixel.ledger.leases import Books
from aurixel.ledger.liveness import Watch, beat
from aurixel.ledger.posting import post_round
from aurixel.ledger.returns import return_round, take_over
from aurixel.ledger.rotation import rotate
from aurixel.storage import MovementKind, Store
from tests.ledger.kit import TestClock, crash, ending, eventually, intent, ledger, records, until
from tests.storage.faults import FAULTS, Fault, flaky
from tests.storage.model import MemoryStore


async def rotate_round(books: Books) -> None:
    with contextlib.suppress(JournalError):  # it is dead, and being replayed
        rotate(books)


ACCOUNTS = ("a", "b")
NODES = (0, 1)
NODE = st.sampled_from(NODES)
ACCOUNT = st.sampled_from(("a", "a", "a", "b"))
WANT = st.sampled_from((0, 50, 100, 200))
COST = st.sampled_from((0, 10, 50, 100, 300))
INDEX = st.integers(0, 5)
ACTIONS = st.one_of(
    st.tuples(st.just("hold"), NODE, ACCOUNT, WANT, st.sampled_from((0, 0, 150))),
    st.tuples(st.just("serve"), NODE, ACCOUNT, st.sampled_from((100, 200)), st.sampled_from((0, 40, 100, 100))),
    st.tuples(st.just("settle"), INDEX, COST, st.sampled_from((True, True, True, False))),
    st.tuples(st.just("release"), INDEX),
    st.tuples(st.just("cancel"), NODE, ACCOUNT),
    st.tuples(st.just("round"), NODE, st.just(post_round)),
    st.tuples(st.just("round"), NODE, st.sampled_from((return_round, take_over, beat, rotate_round, rotate_round))),
    st.tuples(st.just("watch"), NODE),
    st.tuples(st.just("movement"), ACCOUNT, st.just("topup"), st.just(300)),
    st.tuples(st.just("movement"), ACCOUNT, st.sampled_from(("refund", "dispute", "adjustment")), st.just(-200)),
)
FALLIBLE = (
    *("lease_open", "lease_draw", "lease_return", "lease_close", "lease_fence", "account_want"),
    *("post", "post", "post", "movement_put", "movement_apply", "movement_close"),
    *("node_start", "node_beat", "node_claim", "node_done"),
)


class Running:
    """A request that has its hold."""

    def __init__(self, number: int, account: str, request_id: str, context: Any, hold: Hold) -> None:
        self.node, self.account, self.request_id, self.context, self.hold = number, account, request_id, context, hold


class Yielding:
    """A store that takes its time: others get their turn before and after each call."""

    def __init__(self, inner: Store, chance: random.Random) -> None:
        self._inner, self._chance = inner, chance

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._inner, name))

    async def _call(self, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)
        answer = await method(*args)
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)
        return answer


class LedgerMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.inner = MemoryStore()
        self.faults: dict[str, Fault] = {}
        self.chance = random.Random(0)
        slow: Any = Yielding(self.inner, self.chance)
        self.store, self.late = flaky(slow, lambda name: self.faults.pop(name, None))
        self.nodes: dict[int, Ledger] = {}
        self.clocks = {number: TestClock() for number in NODES}
        self.watches: dict[int, Watch] = {}
        self.running: list[Running] = []
        self.costs: dict[str, int] = {}  # what each request must have been charged when all is at rest
        self.asked: dict[tuple[str, str], tuple[MovementKind, int]] = {}  # movements
        self.told: dict[tuple[str, str], int] = {}  # what they took
        self.may_write_off: set[str] = set()  # accounts where something cost more than was held for it
        self.number = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(bounded())

    # --- setting up and winding up ------------------------------------------------------------------------------------

    @initialize(credit=st.sampled_from((0, 100, 300, 500, 1500)), chance=st.integers(0, 1000))
    def begin(self, credit: int, chance: int) -> None:
        self.chance.seed(chance)

        async def begin() -> None:
            for account in ACCOUNTS:
                await self.inner.account_new(account)
                if credit:
                    await self._move(account, "grant", credit)
            for number in NODES:
                await self._start(number)

        self.run(begin())

    async def _start(self, number: int) -> None:
        node = ledger(
            self.store,
            self.folder / str(number),
            clock=self.clocks[number],
            lease_target=300,
            recall_wait=0.001,
            recall_look=0.001,
            idle_return=0,
            rich=1,
        )
        node._on_dead = lambda: self._drop(number)
        await node.start()
        self.nodes[number] = node

    def _drop(self, number: int) -> None:
        """The node's requests are ended by someone else: they cost nothing."""
        for request in [request for request in self.running if request.node == number]:
            request.hold.release()
            self.running.remove(request)

    def teardown(self) -> None:
        async def rest() -> None:
            self.faults.clear()
            for request in self.running:
                await request.context.__aexit__(None, None, None)
            while self.late.late:
                await self.late.land()
            for number, node in self.nodes.items():
                await self._alive(number)
                await node.stop()
            for number in NODES:  # what a stop could not finish, a start does
                await self._start(number)
            for number in NODES:
                node = self.nodes[number]
                books = node._open_books()
                await Watch(books).bury()
                await take_over(books)
                await return_round(books)
                await node.stop()
            for (account, name), (kind, amount) in self.asked.items():
                await self._move(account, kind, amount, name)
            for account in ACCOUNTS:
                doc = self.inner.accounts[account]
                assert doc.leases == {}, doc
                assert doc.credited == sum(took for (of, _), took in self.told.items() if of == account)
                assert doc.written_off == 0 or account in self.may_write_off
                assert doc.available == doc.credited - doc.spent
            report = await verify(self.inner)
            assert report.ok, report.faults
            found = {name: r.cost for account in ACCOUNTS for name, r in (await records(self.inner, account)).items()}
            assert found == self.costs

        try:
            if self.nodes:
                self.run(rest())
        finally:
            for node in self.nodes.values():
                self.run(crash(node))
            self.runner.close()
            shutil.rmtree(self.folder)

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(actions=st.lists(ACTIONS, min_size=1, max_size=5))
    def together(self, actions: list[tuple[Any, ...]]) -> None:
        """All at once, on a store that lets them interleave."""

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for what, *how in actions:
                    group.create_task(getattr(self, f"_{what}")(*how))

        self.run(all_of_them())

    @rule(name=st.sampled_from(FALLIBLE), fault=st.sampled_from(FAULTS))
    def fail(self, name: str, fault: Fault) -> None:
        """The next call of this name, whoever makes it."""
        self.faults[name] = fault

    @rule(index=INDEX)
    def land(self, index: int) -> None:
        """A call that was given up lands after all."""
        if self.late.late:  # no precondition: what is there to land may depend on real timers, what is drawn must not
            self.run(self.late.land(index % len(self.late.late)))

    @rule(number=NODE, how=st.sampled_from(["crash", "crash", "crash", "crash", "stop", "stop", "die", "die and reclaim"]))
    def end(self, number: int, how: str) -> None:
        """A node goes, and comes back."""
        if how == "crash":
            self.run(self._crash(number))
        elif how == "stop":
            self.run(self._stop(number))
        else:
            self.run(self._die(number, how == "die and reclaim"))

    @rule(number=NODE, seconds=st.sampled_from((6, 60, 76, 121, 3600)), looks=st.integers(0, 3))
    def turn(self, number: int, seconds: float, looks: int) -> None:
        """A clock runs ahead, by steps between which its node looks around, or in one jump. The other's stands still."""

        async def turn() -> None:
            for _ in range(looks):
                await self._watch(number)
                self.clocks[number].seconds += seconds / looks
            self.clocks[number].seconds += seconds if not looks else 0
            await self._watch(number)
            await self._round(number, beat)

        self.run(turn())

    # --- the actions --------------------------------------------------------------------------------------------------

    async def _hold(self, number: int, account: str, want: int, spare: int) -> Running | None:
        self.number += 1
        request_id = f"r{self.number:04d}"
        least = max(0, want - spare)
        context = self.nodes[number].hold(intent(account, request_id), want, least)
        try:
            hold = await context.__aenter__()
        except RequestError:
            return None
        assert least <= hold.amount <= want
        running = Running(number, account, request_id, context, hold)
        self.running.append(running)
        self.costs[request_id] = 0
        return running

    async def _serve(self, number: int, account: str, want: int, cost: int) -> None:
        if running := await self._hold(number, account, want, 0):
            await self._end(running, cost)

    async def _settle(self, index: int, cost: int, within: bool) -> None:
        if self.running:
            running = self.running[index % len(self.running)]
            await self._end(running, min(cost, running.hold.amount) if within else cost)

    async def _end(self, running: Running, cost: int) -> None:
        if running in self.running:
            self.running.remove(running)
            self.costs[running.request_id] = cost
            if cost > running.hold.amount:
                self.may_write_off.add(running.account)
            await running.hold.settle(ending(cost))
            await running.context.__aexit__(None, None, None)

    async def _release(self, index: int) -> None:
        if self.running:
            running = self.running.pop(index % len(self.running))
            await running.context.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)

    async def _cancel(self, number: int, account: str) -> None:
        """A request is cancelled on its way in, or just after."""
        self.number += 1
        request_id = f"r{self.number:04d}"

        async def enter() -> None:
            async with self.nodes[number].hold(intent(account, request_id), 700, 700):
                self.costs[request_id] = 0
                await asyncio.Event().wait()

        task = asyncio.create_task(enter())
        for _ in range(self.chance.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _round(self, number: int, step: Any) -> None:
        with contextlib.suppress(StoreUnavailable):
            await step(self.nodes[number]._open_books())

    async def _watch(self, number: int) -> None:
        """Call dead who seems to be, and take back what the dead and the done have."""
        books = self.nodes[number]._open_books()
        watch = self.watches.get(number)
        if watch is None or watch._books is not books:
            watch = self.watches[number] = Watch(books)
        with contextlib.suppress(StoreUnavailable):
            await watch.look()
            await watch.bury()
        if any(node.state == "dead" for node in self.inner.node_docs.values()):
            self.may_write_off.update(ACCOUNTS)

    async def _movement(self, account: str, kind: MovementKind, amount: int) -> None:
        self.number += 1
        name = f"m{self.number}"
        await asyncio.gather(*(self._move(account, kind, amount, name) for _ in range(2)))

    async def _move(self, account: str, kind: MovementKind, amount: int, name: str = "first") -> None:
        movements = Movements(self.store, TestClock(), recall_wait=0.001, recall_look=0.001)
        self.asked[account, name] = (kind, amount)
        try:
            took = (await movements.apply(account, name, kind, amount, "a test", "test")).took
        except StoreUnavailable:
            return
        except Refused as refused:
            took = refused.movement.took
        assert took is not None
        assert self.told.setdefault((account, name), took) == took

    async def _crash(self, number: int) -> None:
        self.running = [running for running in self.running if running.node != number]
        await crash(self.nodes[number])
        await self._start(number)

    async def _stop(self, number: int) -> None:
        for running in [running for running in self.running if running.node == number]:
            self.running.remove(running)
            await running.context.__aexit__(None, None, None)
        await self._alive(number)
        await self.nodes[number].stop()
        await self._start(number)

    async def _die(self, number: int, reclaim: bool) -> None:
        """By a node whose clock is wrong: the other one lives, finds out at its next beat, and goes on under a new name."""
        await self._alive(number)
        self.may_write_off.update(ACCOUNTS)
        node = self.nodes[number]
        inc = node.inc
        assert await self.inner.node_dead(inc, self.inner.node_docs[inc].beat) or self.inner.node_docs[inc].state == "dead"
        if reclaim:
            watch = Watch(self.nodes[1 - number]._open_books())
            watch._dead_since[inc] = float("-inf")
            with contextlib.suppress(StoreUnavailable):
                await watch.bury()
            await self._round(number, post_round)  # it does not know yet
        await until(lambda: beat(node._open_books()))
        await self._alive(number)

    async def _alive(self, number: int) -> None:
        node = self.nodes[number]

        async def admitting() -> bool:
            if not node.admitting:  # its clock was turned while it began anew
                await self._round(number, beat)
            return node.admitting

        if node._open_books().dead.is_set():
            await eventually(admitting)

    # --- always -------------------------------------------------------------------------------------------------------

    @invariant()
    def adds_up(self) -> None:
        for doc in self.inner.accounts.values():
            assert doc.available + sum(lease.amount for lease in doc.leases.values()) == doc.credited - doc.spent
            assert min(doc.available, doc.spent, doc.written_off, *(lease.amount for lease in doc.leases.values())) >= 0

    @invariant()
    def held_is_what_runs(self) -> None:
        for number, node in self.nodes.items():
            for account in ACCOUNTS:
                held = sum(
                    request.hold.amount for request in self.running if request.node == number and request.account == account
                )
                assert node.held(account) == held

    @invariant()
    def what_runs_is_covered(self) -> None:
        for node in self.nodes.values():
            if node._books is None or not node.admitting:
                continue
            doc_state = self.inner.node_docs[node.inc].state
            for account in ACCOUNTS:
                lease = self.inner.accounts[account].leases.get(node.inc)
                if doc_state == "live" and node.held(account):
                    assert lease is not None
                    assert lease.amount >= node.held(account)


@pytest.fixture
def _quiet_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "RETRY_S", 0.001)
    monkeypatch.setattr(logging.getLogger("aurixel.ledger"), "disabled", True)  # deaths and outages are what it is about


@pytest.mark.deadline(300)
@pytest.mark.usefixtures("without_threads", "_quiet_and_quick")
def test_anything_in_any_order() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
    )
