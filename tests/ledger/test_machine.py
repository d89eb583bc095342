"""Anything in any order: two nodes, two accounts, a store that loses answers and lands calls late, crashes, deaths,
movements. Whatever happened: never negative, always adding up, and at rest each request charged once, at its cost.

The machine knows nothing of how the ledger works; it remembers what it asked for and what it was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurixel.errors import RequestError, StoreUnavailable
from aurixel.ledger import Hold, Ledger, Movements, Refused, verify
from aurixel.ledger import node as node_module
from aurixel.ledger.liveness import Watch, beat
from aurixel.ledger.posting import post_round
from aurixel.ledger.returns import return_round, take_over
from aurixel.storage import MovementKind
from tests.ledger.kit import TestClock, crash, ending, eventually, intent, ledger, records, until
from tests.storage.faults import FAULTS, Fault, flaky
from tests.storage.model import MemoryStore

ACCOUNTS = ("a", "b")
NODES = (0, 1)


class Running:
    """A request that has its hold."""

    def __init__(self, number: int, request_id: str, context: Any, hold: Hold) -> None:
        self.node, self.request_id, self.context, self.hold = number, request_id, context, hold


class LedgerMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.inner = MemoryStore()
        self.faults: deque[Fault | None] = deque()
        self.store, self.late = flaky(self.inner, lambda _: self.faults.popleft() if self.faults else None)
        self.nodes: dict[int, Ledger] = {}
        self.running: list[Running] = []
        self.costs: dict[str, int] = {}  # what each request must have been charged when all is at rest
        self.asked: dict[tuple[str, str], tuple[MovementKind, int]] = {}  # movements
        self.told: dict[tuple[str, str], int] = {}  # what they took
        self.number = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(bounded())

    # --- setting up and winding up ------------------------------------------------------------------------------------

    @initialize(credit=st.integers(0, 2000))
    def begin(self, credit: int) -> None:
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
            self.store, self.folder / str(number), lease_target=300, recall_wait=0.001, recall_look=0.001, idle_return=0
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

    # --- requests ---------------------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(NODES), account=st.sampled_from(ACCOUNTS), want=st.integers(0, 400), spare=st.integers(0, 400))
    def hold(self, number: int, account: str, want: int, spare: int) -> None:
        self.number += 1
        request_id = f"r{self.number:04d}"

        async def enter() -> None:
            context = self.nodes[number].hold(intent(account, request_id), want, max(0, want - spare))
            with contextlib.suppress(RequestError):
                hold = await context.__aenter__()
                assert max(0, want - spare) <= hold.amount <= want
                self.running.append(Running(number, request_id, context, hold))
                self.costs[request_id] = 0

        self.run(enter())

    @precondition(lambda self: self.running)
    @rule(data=st.data(), cost=st.integers(0, 600), within=st.booleans())
    def settle(self, data: st.DataObject, cost: int, within: bool) -> None:
        request = data.draw(st.sampled_from(self.running))
        cost = min(cost, request.hold.amount) if within else cost
        self.running.remove(request)

        async def settle() -> None:
            await request.hold.settle(ending(cost))
            await request.context.__aexit__(None, None, None)

        self.run(settle())
        self.costs[request.request_id] = cost

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        self.run(request.context.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None))

    @precondition(lambda self: any(node.admitting for node in self.nodes.values()))
    @rule(number=st.sampled_from(NODES), account=st.sampled_from(ACCOUNTS))
    def cancel_on_the_way_in(self, number: int, account: str) -> None:
        self.number += 1
        request_id = f"r{self.number:04d}"

        async def cancelled() -> None:
            async def enter() -> None:
                async with self.nodes[number].hold(intent(account, request_id), 700, 700):
                    self.costs[request_id] = 0
                    await asyncio.Event().wait()

            task = asyncio.create_task(enter())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.run(cancelled())

    # --- what nodes do ------------------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(NODES), step=st.sampled_from([post_round, return_round, take_over]))
    def round(self, number: int, step: Any) -> None:
        async def once() -> None:
            with contextlib.suppress(StoreUnavailable):
                await step(self.nodes[number]._open_books())

        self.run(once())

    @rule(number=st.sampled_from(NODES))
    def crash(self, number: int) -> None:
        """Kill it and start it again."""

        async def again() -> None:
            self.running = [request for request in self.running if request.node != number]
            await crash(self.nodes[number])
            self.faults.clear()
            await self._start(number)

        self.run(again())

    @rule(number=st.sampled_from(NODES))
    def stop(self, number: int) -> None:
        async def again() -> None:
            for request in [request for request in self.running if request.node == number]:
                self.running.remove(request)
                await request.context.__aexit__(None, None, None)
            await self._alive(number)
            await self.nodes[number].stop()
            await self._start(number)

        self.run(again())

    @rule(number=st.sampled_from(NODES), reclaim=st.booleans())
    def call_dead(self, number: int, reclaim: bool) -> None:
        """By a node whose clock is wrong: the other one lives, finds out at its next beat, and goes on under a new name."""

        async def die() -> None:
            node = self.nodes[number]
            await self._alive(number)
            inc = node.inc
            assert await self.inner.node_dead(inc, self.inner.node_docs[inc].beat)
            if reclaim:
                other = self.nodes[1 - number]._open_books()
                watch = Watch(other)
                watch._dead_since[inc] = float("-inf")
                with contextlib.suppress(StoreUnavailable):
                    await watch.bury()
            await until(lambda: beat(node._open_books()))
            await self._alive(number)

        self.run(die())

    async def _alive(self, number: int) -> None:
        node = self.nodes[number]

        async def admitting() -> bool:
            return node.admitting

        if node._open_books().dead.is_set():
            await eventually(admitting)

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(faults=st.lists(st.one_of(st.none(), st.sampled_from(FAULTS)), min_size=1, max_size=4))
    def fail(self, faults: list[Fault | None]) -> None:
        """The next calls of whoever calls."""
        self.faults.extend(faults)

    @precondition(lambda self: self.late.late)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.late.late) - 1))
        self.run(self.late.land(index))

    @rule(
        account=st.sampled_from(ACCOUNTS),
        kind=st.sampled_from(["topup", "refund", "dispute", "adjustment"]),
        amount=st.integers(1, 800),
        twice=st.booleans(),
    )
    def movement(self, account: str, kind: MovementKind, amount: int, twice: bool) -> None:
        self.number += 1
        signed = amount if kind == "topup" else -amount
        for _ in range(1 + twice):
            self.run(self._move(account, kind, signed, f"m{self.number}"))

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
                    request.hold.amount
                    for request in self.running
                    if request.node == number and request.hold._tab.account == account
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
