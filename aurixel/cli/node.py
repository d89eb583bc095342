"""`aurixel node`: the gateways that share the store, and how one that never comes back is given up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from aurixel.cli.shell import Shell, at_terminal, instant, many, shared, table, usd
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.ledger.abandonment import Given, Left
    from aurixel.storage import NodeDoc


@click.group()
def node() -> None:
    """Nodes: the gateways that share the store, one a worker. Each start is a new incarnation."""


@node.command("list")
@click.option("--all", "every", is_flag=True, help="Those that are done, too.")
@shared
def list_(shell: Shell, every: bool) -> None:
    """List nodes that run, recover, or died with usage to post."""

    async def work() -> list[NodeDoc]:
        async with shell.store(shell.settings("store")) as store:
            return await store.nodes(*(() if every else ("live", "recovering", "dead")))

    nodes = [
        {"inc": doc.inc, "name": doc.name, "state": doc.state, "since": instant(doc.since_ms), "beat": doc.beat}
        for doc in sorted(shell.run(work()), key=lambda doc: doc.since_ms)
    ]
    head = ("inc", "name", "state", "since", "beat")
    shell.show(nodes, table(head, [[str(each[column]) for column in head] for each in nodes]) if nodes else "no nodes")


@node.command()
@click.argument("inc")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def abandon(shell: Shell, inc: str, yes: bool) -> None:
    """Give up a dead node whose journal is lost for good.

    INC is as `aurixel node list` shows it. What of its usage is in the store is charged, and its leases go home. What was
    only in its journal is lost. If the journal turns up later, it is set aside and not charged. While there is hope for
    the journal, start a gateway with it instead: that loses nothing. A node can be given up once it has been dead for 24
    hours; where this was cut short, run it again.
    """
    if not yes and (shell.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is here to be asked: say --yes")
    from aurixel.ledger.abandonment import abandon as give_up
    from aurixel.ledger.abandonment import left_behind

    async def look() -> Left:
        async with shell.store(settings) as store:
            return await left_behind(store, inc)

    async def work(left: Left) -> Given:
        async with shell.store(settings) as store:
            if shell.json or not at_terminal(sys.stderr):
                return await give_up(store, inc)
            with click.progressbar(length=len(left.accounts), label="accounts", file=sys.stderr) as bar:
                return await give_up(store, inc, lambda done: bar.update(done - bar.pos))

    settings = shell.settings("store")
    left = shell.run(look())
    if not yes:
        shell.note(_told(left))
        if not shell.ask("Give it up?"):
            raise click.Abort
    given = shell.run(work(left))
    value = {
        "inc": inc,
        "state": "abandoned",
        "leases": given.closed,
        "posted": given.posted,
        "written_off": given.written_off,
        "returned": given.returned,
    }
    text = f"node {inc} is given up: {format_usd(given.posted)} USD charged"
    text += f", of it {format_usd(given.written_off)} written off" if given.written_off else ""
    text += f"; {many(given.closed, 'lease')} closed, {format_usd(given.returned)} USD back to the accounts"
    shell.show(usd(value, "posted", "written_off", "returned"), text)


def _told(left: Left) -> str:
    """What is about to happen, for who must say yes."""
    doc = left.node
    return "\n".join(
        (
            f"Node {doc.inc} on {doc.name} is {doc.state} since {instant(doc.since_ms)}.",
            f"It has leases on {many(len(left.accounts), 'account')}, together {format_usd(left.leased)} USD; its usage in the",
            f"store that is not charged yet is {format_usd(left.unposted)} USD. Both are settled now.",
            "Lost for good: requests whose end is only in its journal. If that turns up, nobody will charge it any more.",
        )
    )
