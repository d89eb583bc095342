"""`aurixel ledger`: prove that the books add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aurixel.cli.shell import Shell, count_accounts, instant, many, shared, usd

if TYPE_CHECKING:
    from aurixel.ledger import Fault, Report
    from aurixel.storage import Movement


@click.group()
def ledger() -> None:
    """The ledger: the proof that every account's credit adds up, and what follows from it."""


@ledger.command()
@click.option("--quick", is_flag=True, help="Only sums: do not read each usage record.")
@shared
def verify(shell: Shell, quick: bool) -> None:
    """Recompute every account, while gateways run. Mends nothing.

    The credit of each is added up from its movements and usage records, each charge is made anew from its counts and the
    prices it names, and each line of the usage report from the records it counts. Movements that are half done are named;
    every gateway finishes them once a minute.

    Exit code 0 if everything adds up, 1 if not.
    """
    from aurixel.catalog import PriceHistory
    from aurixel.ledger import verify as prove

    def tell(fault: Fault) -> None:
        if not shell.json:
            click.echo(f"{fault.account}: {fault.code}: {fault.text}")

    async def work() -> Report:
        async with shell.store(shell.settings("store")) as store:
            with shell.bar("accounts", await count_accounts(store)) as bar:
                return await prove(
                    store,
                    charges=PriceHistory(store),
                    quick=quick,
                    progress=lambda accounts, records: bar(accounts, f"{records:,} records"),
                    found=tell,
                )

    report = shell.run(work())
    unfinished = [_open(movement) for movement in report.open]
    value = {
        "ok": report.ok,
        "accounts": report.accounts,
        "records": report.records,
        "faults": [{"account": fault.account, "code": fault.code, "text": fault.text} for fault in report.faults],
        "open": unfinished,
    }
    lines = [f"{each['account']}: movement {each['n']} is not finished: {each['kind']} {each['id']}" for each in unfinished]
    adds_up = "everything adds up" if report.ok else many(len(report.faults), "fault")
    read = "" if quick else f", {many(report.records, 'record')}"
    lines.append(f"{many(report.accounts, 'account')}{read}: {adds_up}")
    shell.show(value, "\n".join(lines))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _open(movement: Movement) -> dict[str, Any]:
    fields = {name: getattr(movement, name) for name in ("account", "n", "id", "kind", "amount")}
    return {**usd(fields, "amount"), "at": instant(movement.at_ms)}
