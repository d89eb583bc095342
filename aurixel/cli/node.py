"""`aurixel node`: the gateways that share the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aurixel.cli.shell import Shell, instant, shared, table

if TYPE_CHECKING:
    from aurixel.storage import NodeDoc


@click.group()
def node() -> None:
    """Nodes: the gateways that share the store. Each start is a new incarnation."""


@node.command("list")
@click.option("--all", "every", is_flag=True, help="Those that are done, too.")
@shared
def list_(shell: Shell, every: bool) -> None:
    """List the nodes that run, recover, or died with usage not yet posted."""

    async def work() -> list[NodeDoc]:
        async with shell.store(shell.settings("store")) as store:
            return await store.nodes(*(() if every else ("live", "recovering", "dead")))

    nodes = [
        {"inc": doc.inc, "name": doc.name, "state": doc.state, "since": instant(doc.since_ms), "beat": doc.beat}
        for doc in sorted(shell.run(work()), key=lambda doc: doc.since_ms)
    ]
    head = ("inc", "name", "state", "since", "beat")
    shell.show(nodes, table(head, [[str(each[column]) for column in head] for each in nodes]) if nodes else "no nodes")
