"""`aurixel account`: open, show, list, suspend and close accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aurixel.cli.shell import Shell, shared, table, usd
from aurixel.clock import SystemClock

if TYPE_CHECKING:
    from aurixel.accounts import AccountView

AMOUNTS = ("available", "leased", "held", "credited", "spent", "written_off")


@click.group()
def account() -> None:
    """Accounts: who may spend, and what they have.

    \b
    aurixel account create ada@example.com
    aurixel credit grant ada@example.com 10.00 --reason "welcome"
    aurixel key create ada@example.com --name laptop
    """


@account.command()
@click.argument("email")
@shared
def create(shell: Shell, email: str) -> None:
    """Open an account for EMAIL, without credit."""
    from aurixel.accounts import create_account, show_account

    async def work() -> AccountView:
        async with shell.store(shell.settings("store"), make=True) as store:
            await create_account(store, SystemClock(), email)
            return await show_account(store, email)

    _show(shell, shell.run(work()))


@account.command()
@click.argument("email")
@shared
def show(shell: Shell, email: str) -> None:
    """Show what the account of EMAIL has.

    available is free; leased is lent to running gateways, which hold part of it for running requests and give back what
    is idle within seconds; credited is all that ever came in, less refunds; spent is posted usage; written_off is usage
    that no credit covered.
    """
    from aurixel.accounts import show_account

    async def work() -> AccountView:
        async with shell.store(shell.settings("store")) as store:
            return await show_account(store, email)

    _show(shell, shell.run(work()))


@account.command("list")
@shared
def list_(shell: Shell) -> None:
    """List all accounts."""
    from aurixel.accounts import list_accounts

    async def work() -> list[AccountView]:
        async with shell.store(shell.settings("store")) as store:
            return [view async for view in list_accounts(store)]

    views = [_plain(view) for view in sorted(shell.run(work()), key=lambda view: view.email)]
    head = ("email", "status", *AMOUNTS)
    shell.show(views, table(head, [[view[name] for name in head] for view in views]) if views else "no accounts yet")


@account.command()
@click.argument("email")
@shared
def close(shell: Shell, email: str) -> None:
    """Close the account of EMAIL for good: its keys are revoked. Its credit and its records stay."""
    from aurixel.accounts import close_account

    async def work() -> AccountView:
        async with shell.store(shell.settings("store")) as store:
            return await close_account(store, SystemClock(), email)

    _show(shell, shell.run(work()))


@account.command()
@click.argument("email")
@shared
def suspend(shell: Shell, email: str) -> None:
    """Refuse the keys of EMAIL until it is resumed.

    Within 2 seconds, on every gateway. Its credit stays.
    """
    from aurixel.accounts import suspend_account

    async def work() -> AccountView:
        async with shell.store(shell.settings("store")) as store:
            return await suspend_account(store, email)

    _show(shell, shell.run(work()))


@account.command()
@click.argument("email")
@shared
def resume(shell: Shell, email: str) -> None:
    """Serve the account of EMAIL again.

    It was suspended by hand or by a dispute.
    """
    from aurixel.accounts import resume_account

    async def work() -> AccountView:
        async with shell.store(shell.settings("store")) as store:
            return await resume_account(store, email)

    _show(shell, shell.run(work()))


def _plain(view: AccountView) -> dict[str, Any]:
    names = ("email", "status", *AMOUNTS)
    return usd({name: getattr(view, name) for name in names}, *AMOUNTS)


def _show(shell: Shell, view: AccountView) -> None:
    plain = _plain(view)
    shell.show(plain, "\n".join(f"{name:12} {value}" for name, value in plain.items()))
