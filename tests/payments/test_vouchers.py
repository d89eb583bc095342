"""A code from claim to credit, raced for and cut anywhere: it is credited exactly once, and to one account."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aurixel_vouchers import Vouchers, VouchersSettings

from aurixel.clock import SystemClock
from aurixel.errors import StoreUnavailable
from aurixel.ledger import verify
from aurixel.payments import CENT, BoundBackend, redeem
from aurixel.plugin import CodeRefused, Secret
from aurixel.registry import NoMeter
from aurixel.storage import Store, open_store
from aurixel.storage.shelf import StoreShelf
from aurixel.testing.host import PluginHost
from tests.payments.kit import USD, fulfilment, person
from tests.storage.faults import Fault, flaky

ROOT = Path(__file__).parents[2]
TEN = 10 * USD * CENT


def desk(store: Store) -> tuple[Vouchers, BoundBackend]:
    host = PluginHost(shelf=StoreShelf(store, "vouchers"))
    host.clock = SystemClock()  # type: ignore[assignment]
    backend = Vouchers(VouchersSettings(attempts=1000), host)
    return backend, BoundBackend("vouchers", backend, "vouchers", 60.0, NoMeter())


async def redeemed(store: Store, account: str, code: Secret) -> str:
    """The order's id."""
    return (await redeem(fulfilment(store), desk(store)[1], account, code)).id


async def credited_once(store: Store, account: str, payment: str) -> None:
    """One order, one movement, one receipt; the books add up."""
    doc = await store.account_read(account)
    assert doc is not None
    assert (doc.available, doc.credited) == (TEN, TEN)
    (order,) = await store.orders_page(account, 0, "", 10)
    assert (order.backend, order.state) == ("vouchers", "paid")
    (movement,) = await store.movements_page(account, 0, 10)
    assert (movement.id, movement.kind, movement.amount, movement.took) == (f"payment:vouchers:{payment}", "topup", TEN, TEN)
    receipt = await store.receipt_of(order.id)
    assert receipt is not None
    assert receipt.number == 1
    assert (await verify(store)).ok


@pytest.mark.deadline(120)
async def test_pitfall_15_a_voucher_claimed_twice_at_once_is_one_credit(store: Store) -> None:
    """Forty accounts at once; then its owner eight times at once."""
    backend, _ = desk(store)
    _, (code,) = await backend.make(TEN, 1, "ops")
    accounts = [f"x{number}" for number in range(40)]
    for account in accounts:
        await person(store, account)
    answers = await asyncio.gather(*(redeemed(store, each, code.text) for each in accounts), return_exceptions=True)
    ((owner, order),) = [(account, each) for account, each in zip(accounts, answers, strict=True) if isinstance(each, str)]
    assert {str(each) for each in answers} == {order, "invalid"}
    assert set(await asyncio.gather(*(redeemed(store, owner, code.text) for _ in range(8)))) == {order}
    await credited_once(store, owner, code.id)
    assert [doc.id for doc in await store.accounts_page("", 100) if doc.credited] == [owner]


async def test_a_double_click_on_a_new_code_is_one_credit(store: Store) -> None:
    backend, _ = desk(store)
    _, (code,) = await backend.make(TEN, 1, "ops")
    assert len(set(await asyncio.gather(*(redeemed(store, "a", code.text) for _ in range(8))))) == 1
    await credited_once(store, "a", code.id)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("fault", ["lost", "dropped", "late"])
async def test_each_write_of_a_redemption_loses_its_answer(store: Store, fault: Fault) -> None:
    """Write by write; a call that lands late lands after the retry. Then it is tried by another account."""
    backend, _ = desk(store)
    seen = 0

    def choose(name: str) -> Fault | None:
        nonlocal seen
        seen += 1
        return fault if seen == at else None

    accounts = []
    for at in range(1, 40):
        seen = 0
        account = f"x{at}"
        await person(store, account)
        _, (code,) = await backend.make(TEN, 1, "ops")
        broken, faults = flaky(store, choose)
        try:
            await redeemed(broken, account, code.text)
        except StoreUnavailable:
            pass
        if seen < at:
            break
        kept = await store.shelf_get("vouchers", f"v:{code.id}")
        claimed = kept is not None and kept.rev > 1
        first = await redeemed(store, account, code.text)
        while faults.late:
            await faults.land()
        assert await redeemed(store, account, code.text) == first
        with pytest.raises(CodeRefused, match="invalid"):
            await redeemed(store, "b", code.text)
        accounts.append((account, code.id, claimed))
    else:
        pytest.fail("it never came through")
    assert len(accounts) >= 7
    assert {claimed for _, _, claimed in accounts} == {True, False}
    for account, payment, _ in accounts:
        doc = await store.account_read(account)
        assert doc is not None
        assert doc.credited == TEN
        assert [one.id for one in await store.movements_page(account, 0, 10)] == [f"payment:vouchers:{payment}"]
    assert (await verify(store)).ok


PROCESS = """
import asyncio, os, signal, sys
from aurixel.plugin import Secret
from aurixel.storage import open_store
from tests.payments.test_vouchers import redeemed
from tests.storage.faults import flaky

async def main():
    path, account, at = sys.argv[1:]
    seen = 0
    def choose(name):
        nonlocal seen
        seen += 1
        if seen == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
    store = open_store(f"sqlite:///{path}")
    await store.open()
    await redeemed(flaky(store, choose)[0], account, Secret(sys.stdin.readline()))
    await store.close()

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = open_store(f"sqlite:///{path}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.deadline(240)
async def test_kill_9_before_each_write_of_a_redemption(tmp_path: Path) -> None:
    """A real process dies before its first, second, ... write to the store, until one comes through."""
    for at in range(1, 40):
        path = tmp_path / f"{at}.db"
        async with opened(path) as store:
            for account in "ab":
                await person(store, account)
            _, (code,) = await desk(store)[0].make(TEN, 1, "ops")
        pipe: Any = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, str(path), "a", str(at), stdin=pipe, cwd=ROOT
        )
        await process.communicate(code.text.reveal().encode())
        assert process.returncode in (0, -signal.SIGKILL)
        async with opened(path) as store:
            kept = await store.shelf_get("vouchers", f"v:{code.id}")
            if kept is not None and kept.rev > 1:
                with pytest.raises(CodeRefused, match="invalid"):
                    await redeemed(store, "b", code.text)
            await redeemed(store, "a", code.text)
            await credited_once(store, "a", code.id)
            with pytest.raises(CodeRefused, match="invalid"):
                await redeemed(store, "b", code.text)
        if process.returncode == 0:
            break
    else:
        pytest.fail("it never came through")
    assert at > 7
