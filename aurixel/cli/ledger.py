"""`aurixel ledger`: prove that the books add up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from aurixel.cli.shell import Shell, many, shared

if TYPE_CHECKING:
    from aurixel.ledger import Report
    from aurixel.storage import Store

_PAGE = 1000


@click.group()
def ledger() -> None:
    """The ledger: the proof that every account's credit adds up."""


@ledger.command()
@shared
def verify(shell: Shell) -> None:
    """Recompute every account, while gateways run. Mends nothing.

    The credit of each is added up from its movements and usage records.
    Exit code 0 if everything adds up, 1 if not, or if an account changed too fast to be read.
    """
    from aurixel.ledger import verify as prove

    async def work() -> Report:
        async with shell.store(shell.settings("store")) as store:
            if shell.json or not sys.stderr.isatty():
                return await prove(store)
            with click.progressbar(length=await _count(store), label="accounts", file=sys.stderr) as bar:
                return await prove(store, lambda done: bar.update(done - bar.pos))

    report = shell.run(work())
    faults = [{"account": fault.account, "code": fault.code, "text": fault.text} for fault in report.faults]
    lines = [f"{fault.account}: {fault.code}: {fault.text}" for fault in report.faults]
    lines += [f"{account}: changed too fast to be read; verify again" for account in report.busy]
    lines.append(f"{many(report.accounts, 'account')}: {'everything adds up' if report.ok else many(len(lines), 'fault')}")
    value = {"ok": report.ok, "accounts": report.accounts, "faults": faults, "busy": report.busy}
    shell.show(value, "\n".join(lines))
    if not report.ok:
        raise click.exceptions.Exit(1)


async def _count(store: Store) -> int:
    """How many accounts there are, for the bar."""
    count, after = 0, ""
    while page := await store.accounts_page(after, _PAGE):
        count, after = count + len(page), page[-1].id
    return count
