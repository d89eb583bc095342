"""`aurixel credit`: bring credit in, and put right what is wrong with it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Literal

import click

from aurixel.cli.shell import Shell, Usd, shared
from aurixel.clock import SystemClock
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.storage import Movement


@click.group()
def credit() -> None:
    """Credit: what accounts may spend, in USD."""


@credit.command()
@click.argument("email")
@click.argument("amount", type=Usd())
@click.option("--reason", required=True, help="Why, for the record.")
@click.option("--id", "id", help="Names this grant: granting the same id to an account again changes nothing.")
@click.option("--author", help="Who grants it, for the record. [default: the system's user]")
@shared
def grant(shell: Shell, email: str, amount: int, reason: str, id: str | None, author: str | None) -> None:
    """Give the account of EMAIL credit of AMOUNT USD.

    The amount is exact to nine decimals.

    \b
    aurixel credit grant ada@example.com 10.00 --reason "welcome"
    aurixel credit grant ada@example.com 25 --reason "invoice 17" --id invoice-17
    """
    _move(shell, email, "grant", amount, reason, id, author)


# A negative amount looks like an option.
@credit.command(context_settings={"ignore_unknown_options": True})
@click.argument("email")
@click.argument("amount", type=Usd(signed=True))
@click.option("--reason", required=True, help="Why, for the record.")
@click.option("--id", "id", help="Names this adjustment: the same id for an account again changes nothing.")
@click.option("--author", help="Who adjusts it, for the record. [default: the system's user]")
@shared
def adjust(shell: Shell, email: str, amount: int, reason: str, id: str | None, author: str | None) -> None:
    """Correct the credit of EMAIL by AMOUNT USD, up or down.

    A correction is a movement of its own: what it corrects stays in the books. One that would take more than what is
    available takes nothing, and is kept as refused; to try again, give it another --id.

    \b
    aurixel credit adjust ada@example.com 1.20 --reason "charged twice by outage of 3 May"
    aurixel credit adjust ada@example.com -5 --reason "grant of 2 May was meant for another" --id wrong-grant-17
    """
    _move(shell, email, "adjustment", amount, reason, id, author)


def _move(
    shell: Shell, email: str, kind: Literal["grant", "adjustment"], amount: int, reason: str, id: str | None, author: str | None
) -> None:
    """Make the movement and tell what it did."""
    from aurixel.accounts import AccountRefused, find_account, show_account
    from aurixel.ledger import Movements

    if not reason.strip():
        raise click.BadParameter("say why: it is all that anyone will know of it later", param_hint="--reason")
    if id is not None and not id.strip():
        raise click.BadParameter("an id that is empty would not make it once", param_hint="--id")
    movement_id = f"{kind}:{id or secrets.token_hex(8)}"

    async def work() -> tuple[Movement, int, bool]:
        async with shell.store(shell.settings("store")) as store:
            profile = await find_account(store, email)
            if profile.status == "closed" and kind == "grant":
                raise AccountRefused("account_closed", "the account is closed")
            before = id is not None and await store.movement_find(profile.account, movement_id) is not None
            movement = await Movements(store, SystemClock()).apply(
                profile.account, movement_id, kind, amount, reason, author or user()
            )
            return movement, (await show_account(store, email)).available, before

    movement, available, before = shell.run(work())
    took = format_usd(movement.took if movement.took is not None else movement.amount)
    value = {"id": movement.id, "n": movement.n, "amount": took, "available": format_usd(available)}
    if kind == "grant":
        done = f"{took} USD was granted before, and is not again" if before else f"granted {took} USD"
    else:
        done = f"adjusted by {took} USD before, and not again" if before else f"adjusted by {took} USD"
    shell.show(value, f"{done} ({movement.id}); available: {format_usd(available)} USD")


def user() -> str:
    """Who is at the keyboard, as the system knows them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "cli"
