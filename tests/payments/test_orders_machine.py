"""Orders under everything at once: events doubled, late and in any order, handlers that interleave at every call to the store,
processes that die at any of them, refunds and disputes, beside a plain model of what the processor did.

At rest the ledger holds exactly the moves that the model says, each once; nothing was ever negative; it verifies.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from pydantic import BaseModel

from aurixel.ledger import Movements, verify
from aurixel.payments import CENT, BoundBackend, NotYet, Order, OrderRefused, Sweep, refund
from aurixel.plugin.billing import BillingError, CreditEvent, Refund, Unpaid, Waiting
from aurixel.registry import NoMeter
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import TestClock
from tests.payments.kit import begun, closed, disputed, ended, fulfilment, paid, person, refunded
from tests.storage.model import MemoryStore

ORDERS = {"o1": "a", "o2": "a", "o3": "b"}
AMOUNT = 1000
NUMBERS = itertools.count()
ORDER = st.sampled_from(sorted(ORDERS))
SOME = st.sampled_from([100, 250, 400, 1000])


class Turn:
    """One wait for the driver's word."""

    def __await__(self) -> Generator[None]:
        yield


class Turning:
    """A store whose every call waits for a turn before it is made, and again before its answer is seen."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await Turn()
            answer = await method(*args, **kwargs)
            await Turn()
            return answer

        return call


class World:
    """The processor as it is in truth, for one order: what came in, what went back, what banks want."""

    def __init__(self, order: str) -> None:
        self.order, self.payment = order, f"pay-{order}"
        self.paid = False
        self.elsewhere = 0
        self.ours: dict[str, tuple[int, str]] = {}  # key -> amount, done / waiting / failed
        self.disputes: dict[str, tuple[int, str]] = {}
        self.history: list[CreditEvent] = []

    @property
    def total(self) -> int:
        """What has been given back, as it only rises."""
        return self.elsewhere + sum(amount for amount, _ in self.ours.values())

    @property
    def told(self) -> list[CreditEvent]:
        """Everything that there is to be told by now."""
        if not self.paid:
            return []
        events: list[CreditEvent] = [paid(self.order, self.payment, AMOUNT)]
        if self.total:
            events.append(refunded(self.total, self.payment))
        for key, (_, state) in self.ours.items():
            if state != "waiting":
                events.append(ended(key, state == "done", self.payment))
        for name, (amount, state) in self.disputes.items():
            events.append(disputed(amount, name, self.payment))
            if state != "open":
                events.append(closed(state == "won", name, self.payment))
        return events


class Bank:
    """The backend, over the worlds: it refunds what is left, once a key, and may lose its answer."""

    name = "acme"
    Settings = BaseModel
    currencies = frozenset({"usd"})

    def __init__(self, worlds: dict[str, World]) -> None:
        self._worlds = {world.payment: world for world in worlds.values()}
        self.mood = "done"

    async def begin_topup(self, topup: Any) -> Any: ...
    def parse_webhook(self, body: bytes, headers: Any) -> Any: ...

    async def refund(self, payment: str, amount: int, currency: str, key: str) -> Refund:
        world = self._worlds[payment]
        await Turn()
        if key not in world.ours:
            if world.total + amount > AMOUNT or self.mood == "refused":
                raise BillingError("no", again=False)
            world.ours[key] = (amount, "waiting" if self.mood == "waiting" else "done")
        await Turn()
        if self.mood == "lost":
            raise BillingError("no answer", again=True)
        state = world.ours[key][1]
        return Refund("r", state)  # type: ignore[arg-type]


class OrdersMachine(RuleBasedStateMachine):
    """One example. `running` are the handlers that have begun and not ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.store = MemoryStore()
        self.worlds = {name: World(name) for name in ORDERS}
        self.bank = Bank(self.worlds)
        self.running: list[Coroutine[Any, Any, Any]] = []
        self.spent: Counter[str] = Counter()

    @property
    def backend(self) -> BoundBackend:
        return BoundBackend("acme", self.bank, "acme", 1e9, NoMeter())  # type: ignore[arg-type]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """All of it now, undisturbed."""

        async def whole() -> Any:
            return self._step(work, 100_000)

        return self.loop.run_until_complete(whole())

    def _step(self, work: Coroutine[Any, Any, Any], turns: int) -> tuple[bool, Any]:
        """Let a handler go on for some turns: whether it has ended, and with what."""
        for _ in range(turns):
            try:
                work.send(None)
            except StopIteration as done:
                return True, done.value
            except (OrderRefused, NotYet, BillingError) as error:
                return True, error
        return False, None

    @initialize(paid_already=st.booleans())
    def begin(self, paid_already: bool) -> None:
        async def make() -> None:
            for account in "ab":
                await person(self.store, account)
            for order, account in ORDERS.items():
                await begun(self.store, order, account, AMOUNT)

        self.run(make())
        if paid_already:
            for order in ("o1", "o3"):
                self.pay(order, True)
                self.finish_one(0)

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        if len(self.running) >= 4:
            self.finish_one(0)
        self.running.append(work)

    def take(self, event: CreditEvent) -> None:
        self.start(fulfilment(Turning(self.store)).take("acme", event))  # type: ignore[arg-type]

    # --- the world goes on: what happens is told at once, or some time, or only at the end ------------------------------

    def happened(self, order: str, now: bool) -> None:
        """Remember what there is to be told now, as it may be told much later; tell the newest of it."""
        world = self.worlds[order]
        new = [event for event in world.told if event not in world.history]
        world.history += new
        if now and new:
            self.take(new[-1])

    @rule(order=ORDER, now=st.booleans())
    def pay(self, order: str, now: bool) -> None:
        self.worlds[order].paid = True
        self.happened(order, now)

    @rule(order=ORDER, amount=SOME, now=st.booleans())
    def refund_elsewhere(self, order: str, amount: int, now: bool) -> None:
        world = self.worlds[order]
        if world.paid and world.total + amount <= AMOUNT:
            world.elsewhere += amount
            self.happened(order, now)

    @rule(order=ORDER, amount=SOME, name=st.sampled_from(["d1", "d2"]), now=st.booleans())
    def dispute(self, order: str, amount: int, name: str, now: bool) -> None:
        if self.worlds[order].paid:
            self.worlds[order].disputes.setdefault(name, (amount, "open"))
            self.happened(order, now)

    @rule(order=ORDER, name=st.sampled_from(["d1", "d2"]), won=st.booleans(), now=st.booleans())
    def close(self, order: str, name: str, won: bool, now: bool) -> None:
        amount, state = self.worlds[order].disputes.get(name, (0, ""))
        if state == "open":
            self.worlds[order].disputes[name] = (amount, "won" if won else "lost")
            self.happened(order, now)

    @rule(order=ORDER, which=st.integers(0, 5), failed=st.booleans(), now=st.booleans())
    def refund_ends(self, order: str, which: int, failed: bool, now: bool) -> None:
        ours = self.worlds[order].ours
        if ours:
            key = sorted(ours)[which % len(ours)]
            amount, state = ours[key]
            if state == "waiting" or (state == "done" and failed):
                ours[key] = (amount, "failed" if failed else "done")
        self.happened(order, now)

    @rule(mood=st.sampled_from(["done", "waiting", "waiting", "refused", "lost"]))
    def change_mood(self, mood: str) -> None:
        self.bank.mood = mood

    # --- what is told, asked and done ----------------------------------------------------------------------------------

    @rule(order=ORDER, which=st.integers(0, 30))
    def tell(self, order: str, which: int) -> None:
        """Anything that is true by now, again or for the first time, in any order."""
        self.happened(order, False)
        history = self.worlds[order].history
        if history:
            self.take(history[-1 - which % len(history)])

    @rule(order=ORDER, kind=st.integers(0, 5))
    def tell_otherwise(self, order: str, kind: int) -> None:
        """What is old, early or wrong: it moves nothing."""
        payment = self.worlds[order].payment
        events: list[CreditEvent] = [
            Waiting(order=order),
            Unpaid(order=order, why="expired"),
            Unpaid(order=order, why="failed"),
            paid(order, payment, AMOUNT + 1),
            paid(order, "pay-" + ("o1" if order != "o1" else "o2"), AMOUNT - 1),
            paid(order, payment, AMOUNT, "eur"),
        ]
        self.take(events[kind])

    @rule(order=ORDER, amount=st.sampled_from([100, 400, None]), name=st.sampled_from(["x", "y"]))
    def refund_here(self, order: str, amount: int | None, name: str) -> None:
        made = fulfilment(Turning(self.store))  # type: ignore[arg-type]
        wanted = None if amount is None else amount * CENT
        self.start(refund(made, self.backend, order, amount=wanted, name=name, author="op"))

    @rule()
    def sweep(self) -> None:
        made = fulfilment(Turning(self.store))  # type: ignore[arg-type]
        self.start(Sweep(made, {"acme": self.backend}).round())

    @rule(account=st.sampled_from("ab"), amount=st.sampled_from([50, 300]))
    def spend(self, account: str, amount: int) -> None:
        doc = self.store.accounts[account]
        if doc.available >= amount * CENT and not any(m.took is None for m in self.store.movements.values()):
            made = Movements(self.store, TestClock(), recall_wait=0.01)
            self.run(made.apply(account, f"spent{next(NUMBERS)}", "adjustment", -amount * CENT, "", "test"))
            self.spent[account] += amount * CENT

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), turns=st.integers(1, 12))
    def go_on(self, which: int, turns: int) -> None:
        work = self.running[which % len(self.running)]

        async def some() -> bool:
            return self._step(work, turns)[0]

        if self.loop.run_until_complete(some()):
            self.running.remove(work)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def finish_one(self, which: int) -> None:
        work = self.running.pop(which % len(self.running))
        self.run(work)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def crash_one(self, which: int) -> None:
        self.running.pop(which % len(self.running)).close()

    @precondition(lambda self: len(self.running) > 1)
    @rule()
    def crash_all(self) -> None:
        for work in self.running:
            work.close()
        self.running.clear()

    # --- what always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_negative_and_no_credit_without_money(self) -> None:
        for account, doc in self.store.accounts.items():
            assert doc.available >= 0
            assert doc.available == doc.credited - doc.spent
            came = sum(AMOUNT * CENT for name, world in self.worlds.items() if ORDERS[name] == account and world.paid)
            assert doc.credited + self.spent[account] <= came
        ids = [(m.account, m.id) for m in self.store.movements.values()]
        assert len(ids) == len(set(ids))
        numbers = sorted(self.store.receipts)
        assert numbers == list(range(1, len(numbers) + 1))

    def teardown(self) -> None:
        """Everything comes to rest: what runs ends or dies, the rest is swept, and all that is true is told."""
        if not self.store.accounts:
            return
        for number, work in enumerate(self.running):
            if number % 2:
                work.close()
            else:
                self.run(work)
        self.bank.mood = "done"
        made = fulfilment(self.store)
        for _ in range(2):
            self.run(Sweep(made, {"acme": self.backend}).round())
            for world in self.worlds.values():
                for event in (*world.told, *world.history):
                    ended_well, answer = self.run(made.take("acme", event))
                    assert ended_well
                    assert isinstance(answer, bool), (event, answer)
        self.check(made.read)

    def check(self, read: Callable[[str], Coroutine[Any, Any, Order]]) -> None:
        assert self.store.receipts.keys() == set(range(1, 1 + sum(world.paid for world in self.worlds.values())))
        for name, world in self.worlds.items():
            order: Order = self.run(read(name))[1]
            assert not order.open
            self.check_order(order, world)
        report = self.run(verify(self.store))[1]
        assert report.ok, report.faults

    def check_order(self, order: Order, world: World) -> None:
        """The ledger has exactly what the world says, each once, and the order says the same."""
        account = ORDERS[order.id]
        done = {m.id: m for m in self.store.movements.values() if m.account == account and m.ref == order.id}
        assert {m.id: m.took for m in done.values()} == {move.id: move.took for move in order.moves}
        if not world.paid:
            assert done == {}
            assert order.credit == 0
            return
        stem = f"payment:acme:{world.payment}"
        assert done[stem].took == AMOUNT * CENT
        wanted = {stem}
        for ours in order.refunds:  # each of ours was taken once, and came back once if it came to nothing
            taken = done[f"{stem}:refund:{ours.key}"]
            assert taken.amount == -ours.amount
            wanted.add(taken.id)
            amount, state = world.ours.get(ours.key, (0, "never"))
            if ours.state == "refused":
                assert (taken.took, state) == (0, "never")
            else:
                assert taken.took == -ours.amount
                assert ours.state == ("failed" if state == "never" else state)
                assert state == "never" or amount * CENT == ours.amount
            if ours.state == "failed":
                back = done[f"{stem}:returned:{ours.key}"]
                assert back.took == ours.amount
                wanted.add(back.id)
        assert set(world.ours) <= {refund.key for refund in order.refunds}
        elsewhere = [m for m in done.values() if m.id.startswith(f"{stem}:elsewhere:")]
        assert -sum(m.amount for m in elsewhere) == world.elsewhere * CENT
        wanted |= {m.id for m in elsewhere}
        assert {dispute.id for dispute in order.disputes} == set(world.disputes)
        for name, (amount, state) in world.disputes.items():
            taken = done[f"{stem}:dispute:{name}"]
            assert taken.amount == -amount * CENT
            wanted.add(taken.id)
            if state == "won" and taken.took:
                back = done[f"{stem}:won:{name}"]
                assert back.took == -taken.took
                wanted.add(back.id)
        assert set(done) == wanted
        disputes = [state for _, state in world.disputes.values()]
        live = sum(amount for amount, state in world.ours.values() if state != "failed") + world.elsewhere
        plain = "paid" if not live else "refunded" if live >= AMOUNT else "partly_refunded"
        assert order.state == ("disputed" if {"open", "lost"} & set(disputes) else plain)
        assert order.loss == sum(
            m.took - m.amount
            for m in done.values()
            if m.took is not None
            and (m in elsewhere or any(m.id == f"{stem}:dispute:{n}" and s != "won" for n, (_, s) in world.disputes.items()))
        )


@pytest.mark.deadline(300)
def test_orders_under_everything_at_once(expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.payments", r"is disputed|refuses the refund|a refund waits")
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            lambda: OrdersMachine(runner.get_loop()),
            settings=settings(
                max_examples=200,
                stateful_step_count=60,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
