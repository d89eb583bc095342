"""`aurixel prices` and `aurixel reload`: put a new version of the catalogue into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aurixel.cli.credit import user
from aurixel.cli.shell import Shell, many, shared
from aurixel.clock import SystemClock
from aurixel.errors import ConfigFaults

if TYPE_CHECKING:
    from aurixel.catalog import Snapshot


@click.group()
def prices() -> None:
    """Prices: what usage costs, in versions that are kept."""


@prices.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@shared
def import_(shell: Shell, file: Path) -> None:
    """Add the prices in FILE (as in prices.toml) to the catalogue.

    A price for the same model and the same instant is replaced; all others stay. Running gateways follow within seconds,
    whole or not at all. To make the catalogue say exactly what the files say, use `aurixel reload`.
    """
    from aurixel.catalog import Catalogue
    from aurixel.tomlfile import read_toml

    parsed = read_toml(file)

    async def work() -> Snapshot:
        async with shell.store(shell.settings("store"), make=True) as store:
            catalogue = Catalogue(store, SystemClock())
            await catalogue.import_prices(parsed, user())
            return catalogue.current

    _show(shell, shell.run(work()))


@click.command()
@shared
def reload(shell: Shell) -> None:
    """Make the catalogue say what models.toml and prices.toml say.

    The files are those of [catalogue] in the configuration. Running gateways follow within seconds; other settings need
    a restart. If the catalogue says the same already, nothing happens.
    """
    from aurixel.catalog import Catalogue, read_files, route_faults

    settings = shell.settings("store")
    files = read_files(*settings.catalogue_files)
    if faults := route_faults(settings.catalogue_files[0], files, settings.upstreams):
        raise ConfigFaults(faults)

    async def work() -> Snapshot:
        async with shell.store(settings, make=True) as store:
            catalogue = Catalogue(store, SystemClock())
            await catalogue.publish(files, user())
            return catalogue.current

    _show(shell, shell.run(work()))


def _show(shell: Shell, snapshot: Snapshot) -> None:
    unpriced = list(snapshot.unpriced(SystemClock().wall_ms()))
    text = f"the catalogue is at version {snapshot.version}: {many(len(snapshot.models), 'model')}"
    if unpriced:
        text += f"; without a price, and so refused: {', '.join(unpriced)}"
    shell.show({"version": snapshot.version, "models": sorted(snapshot.models), "unpriced": unpriced}, text)
