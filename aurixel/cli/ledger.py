"""`aurixel ledger`: prove that the books add up, write them out, and finish what was left half done."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aurixel.cli.shell import Instant, Shell, count_accounts, instant, many, shared, usd
from aurixel.clock import SystemClock

if TYPE_CHECKING:
    from aurixel.ledger import Fault, Report
    from aurixel.ledger.export import Format
    from aurixel.storage import Movement


@click.group()
def ledger() -> None:
    """The ledger: prove that all credit adds up, and write it out."""


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


# --- export -------------------------------------------------------------------------------------------------------------


@ledger.command()
@click.argument("table", type=click.Choice(("movements", "usage", "balances")))
@click.option("--account", "email", metavar="EMAIL", help="Only this account. [default: all]")
@click.option("--since", type=Instant(ahead=False), help="A date (UTC), or a span back: from then on. [default: all]")
@click.option("--until", type=Instant(ahead=False), help="Before then: with the last month's end, no row comes twice.")
@click.option("--format", "form", type=click.Choice(("csv", "jsonl")), default="csv", show_default=True)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file, whole or not at all. [default: stdout]"
)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
@shared
def export(
    shell: Shell,
    table: str,
    email: str | None,
    since: int | None,
    until: int | None,
    form: Format,
    output: Path | None,
    force: bool,
) -> None:
    """Write a TABLE of the books as CSV or JSON lines.

    The order never changes.

    movements are all that changed credit but usage, by account and number; usage has a row for each request, by account
    and time; balances are the accounts as they are now. Amounts are exact, in USD. A cell that a spreadsheet would take
    for a formula begins with an apostrophe in CSV; JSON lines have it as it is.

    \b
    aurixel ledger export movements --since 2026-01-01 --until 2026-02-01 --output movements.csv
    aurixel ledger export usage --account ada@example.com --format jsonl | gzip > usage.jsonl.gz
    """
    from aurixel.accounts import find_account
    from aurixel.ledger.export import TABLES, Span, whole_file
    from aurixel.ledger.export import export as write_table

    if not TABLES[table].dated and (since is not None or until is not None):
        raise click.UsageError(f"{table} are as they are now: they have no --since or --until")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since: there is nothing between them")
    if shell.json and output is None:
        raise click.UsageError("--json tells what was written to --output; for JSON lines on stdout say --format jsonl")
    if output is None:
        shell.need_stdout()
    if output is not None and output.exists() and not force:
        raise click.UsageError(f"{output} is there already; --force replaces it")

    async def work() -> int:
        async with shell.store(shell.settings("store")) as store:
            account = (await find_account(store, email)).account if email is not None else None
            span = Span(account=account, since_ms=since or 0, until_ms=until)
            with (
                whole_file(output) if output is not None else nullcontext(sys.stdout.write) as write,
                shell.bar("accounts", 1 if account is not None else await count_accounts(store)) as bar,
            ):
                return await write_table(
                    store, TABLES[table], span, form, write, lambda accounts, rows: bar(accounts, f"{rows:,} rows")
                )

    rows = shell.run(work())
    if output is not None:
        value = {"table": table, "format": form, "rows": rows, "file": str(output)}
        shell.show(value, f"{many(rows, 'row')} of {table} in {output}")


# --- repair -------------------------------------------------------------------------------------------------------------


@ledger.command()
@click.argument("name", required=False)
@click.option("--account", "email", metavar="EMAIL", help="Only this account. [default: all]")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@shared
def repair(shell: Shell, name: str | None, email: str | None, yes: bool) -> None:
    """Show what the repair NAME would do, ask, and do it. Without a NAME: the repairs there are.

    A repair finishes what was left half done, or makes sums anew from what they are sums of. It never changes an amount or
    a record: that is a movement with a reason and an author, `aurixel credit adjust`, and for a human to decide. With
    --json nothing is done without --yes.

    Exit code 1 if something could not be repaired.
    """
    from aurixel.accounts import find_account
    from aurixel.ledger.repair import ADVICE, REPAIRS, Step

    if name is None:
        value: dict[str, Any] = {"repairs": {each: REPAIRS[each].text for each in REPAIRS}, "advice": dict(ADVICE)}
        lines = [f"{each}: {one.text}" for each, one in REPAIRS.items()]
        lines += ["", "what `aurixel ledger verify` finds, and what to do about it:"]
        lines += [f"{code}: {text}" for code, text in ADVICE.items()]
        shell.show(value, "\n".join(lines))
        return
    if name not in REPAIRS:
        raise click.UsageError(f"there is no repair {name!r}: one of {', '.join(REPAIRS)}")

    async def work() -> tuple[list[Step], list[bool]]:
        async with shell.store(shell.settings("store")) as store:
            account = (await find_account(store, email)).account if email is not None else None
            steps = [step async for step in REPAIRS[name].plan(store, SystemClock(), account)]
            if not shell.json:
                for step in steps:
                    click.echo(f"{step.account}: {step.what}" + (f": REFUSED: {step.refused}" if step.refused else ""))
            todo = [step.do for step in steps if step.do is not None]
            ask = f"do {'this' if len(todo) == 1 else f'these {len(todo)}'}?"
            if todo and not yes and (shell.json or not shell.ask(ask)):
                return steps, []
            return steps, [await do() for do in todo]

    steps, done = shell.run(work())
    refused, failed = sum(1 for step in steps if step.refused), done.count(False)
    value = {
        "repair": name,
        "steps": [{"account": step.account, "what": step.what, "refused": step.refused or None} for step in steps],
        "done": done.count(True),
        "failed": failed,
    }
    words = [f"{done.count(True)} done"] if steps else ["nothing to repair"]
    words += [f"{refused} refused"] if refused else []
    words += [f"{failed} not done: something else had changed; plan again"] if failed else []
    shell.show(value, ", ".join(words))
    if refused or failed:
        raise click.exceptions.Exit(1)
