"""`aurixel credit` and `aurixel usage`: bring credit in, and see where it went."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from aurixel.cli.shell import Instant, Shell, Usd, instant, shared, table
from aurixel.clock import SystemClock
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.storage import Movement, UsageSums

By = Literal["model", "day", "key"]


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
    from aurixel.accounts import AccountRefused, find_account, show_account
    from aurixel.ledger import Movements

    movement_id = f"grant:{id or secrets.token_hex(8)}"

    async def work() -> tuple[Movement, int, bool]:
        async with shell.store(shell.settings("store")) as store:
            profile = await find_account(store, email)
            if profile.status == "closed":
                raise AccountRefused("account_closed", "the account is closed")
            before = id is not None and await store.movement_find(profile.account, movement_id) is not None
            movement = await Movements(store, SystemClock()).apply(
                profile.account, movement_id, "grant", amount, reason, author or user()
            )
            return movement, (await show_account(store, email)).available, before

    movement, available, before = shell.run(work())
    took = format_usd(movement.took if movement.took is not None else movement.amount)
    value = {"id": movement.id, "n": movement.n, "amount": took, "available": format_usd(available)}
    done = f"{took} USD was granted before, and is not again" if before else f"granted {took} USD"
    shell.show(value, f"{done} ({movement.id}); available: {format_usd(available)} USD")


@click.command()
@click.argument("email")
@click.option("--since", type=Instant(ahead=False), default="30d", show_default=True, help="A date (UTC), or a span back.")
@click.option("--by", type=click.Choice(get_args(By)), default="model", show_default=True, help="One line for each.")
@shared
def usage(shell: Shell, email: str, since: int, by: By) -> None:
    """Show what the account of EMAIL used and what it cost.

    Counted from the hour of --since on.

    \b
    aurixel usage ada@example.com
    aurixel usage ada@example.com --since 2026-01-01 --by day --json
    """
    from aurixel.accounts import find_account

    async def work() -> list[UsageSums]:
        async with shell.store(shell.settings("store")) as store:
            profile = await find_account(store, email)
            return await store.usage_sums(profile.account, since, by)

    sums = shell.run(work())
    total: dict[str, int] = {}
    for each in sums:
        for name, value in each.sums.items():
            total[name] = total.get(name, 0) + value
    shown = {
        "email": email,
        "since": instant(since),
        "by": by,
        "rows": [{by: each.group, **_line(each.sums)} for each in sums],
        "total": _line(total),
    }
    shell.show(shown, _report(by, sums, total))


def _line(sums: Mapping[str, int]) -> dict[str, Any]:
    counts = {name: value for name, value in sorted(sums.items()) if name not in ("requests", "cost")}
    return {"requests": sums.get("requests", 0), "cost": format_usd(sums.get("cost", 0)), "counts": counts}


def _report(by: str, sums: list[UsageSums], total: Mapping[str, int]) -> str:
    if not sums:
        return "nothing was used"
    classes = [name for name in sorted(total) if name not in ("requests", "cost")]

    def row(group: str, values: Mapping[str, int]) -> list[str]:
        counts = [str(values.get(name, 0)) for name in classes]
        return [group, str(values.get("requests", 0)), *counts, format_usd(values.get("cost", 0))]

    rows = [*(row(each.group, each.sums) for each in sums), row("total", total)]
    return table((by, "requests", *classes, "USD"), rows)


def user() -> str:
    """Who is at the keyboard, as the system knows them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "cli"
