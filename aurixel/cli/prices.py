"""`aurixel prices` and `aurixel reload`: put a new version of the catalogue into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aurixel.cli.credit import user
from aurixel.cli.shell import Instant, Shell, count_accounts, instant, many, shared, table
from aurixel.clock import SystemClock
from aurixel.errors import ConfigFaults
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.catalog import RepricedLine, Snapshot
    from aurixel.tomlfile import TomlFile

_WEEK_MS: Final = 7 * 86_400_000


@click.group()
def prices() -> None:
    """Prices: what usage costs, in versions that are kept."""


@prices.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--preview", is_flag=True, help="Publish nothing: say what usage since --since would have cost.")
@click.option("--since", type=Instant(ahead=False), help="For --preview: a date (UTC), or a span back. [default: 7d]")
@shared
def import_(shell: Shell, file: Path, preview: bool, since: int | None) -> None:
    """Add the prices and costs in FILE to the catalogue.

    FILE is written as prices.toml is.

    A price for the same model and the same instant is replaced; all others stay. Running gateways follow within seconds,
    whole or not at all. To make the catalogue say exactly what the files say, use `aurixel reload`.

    --preview charges what was used since --since anew, each model in FILE by the price that will hold once every date has
    passed, and shows it beside what was charged.

    \b
    aurixel prices import new.toml --preview
    aurixel prices import new.toml --preview --since 2026-01-01 --json
    """
    from aurixel.catalog import Catalogue
    from aurixel.tomlfile import read_toml

    if since is not None and not preview:
        raise click.UsageError("--since belongs to --preview")
    parsed = read_toml(file)
    if preview:
        _preview(shell, parsed, since if since is not None else SystemClock().wall_ms() - _WEEK_MS)
        return

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


def _preview(shell: Shell, file: TomlFile, since: int) -> None:
    from aurixel.catalog import Catalogue, Repricing, parse_prices
    from aurixel.catalog import preview as snapshot_of
    from aurixel.storage import usage_of_all

    async def work() -> Repricing:
        async with shell.store(shell.settings("store")) as store:
            clock = SystemClock()
            combined = await Catalogue(store, clock).with_prices(file)
            snapshot = snapshot_of(combined, clock.wall_ms())
            named = {price.model for price in parse_prices(file, combined.models)[0]}
            repricing = Repricing({name: snapshot.timelines[name].books[-1] for name in sorted(named)})
            with shell.bar("accounts", await count_accounts(store)) as bar:
                async for done, page in usage_of_all(store, since):
                    repricing.add(page)
                    bar(done, f"{repricing.total.requests:,} records")
            return repricing

    repricing = shell.run(work())
    lines = sorted(repricing.lines.items())
    head = ("model", "requests", "charged", "would be", "difference")
    rows = [
        [name, str(line.requests), format_usd(line.old), format_usd(line.new), format_usd(line.new - line.old)]
        for name, line in (*lines, ("total", repricing.total))
    ]
    text = table(head, rows)
    if repricing.total.surprises:
        text += f"\n{many(repricing.total.surprises, 'request')} used something that has no price in {file.name}"
    value = {
        "since": instant(since),
        "rows": [{"model": name, **_repriced(line)} for name, line in lines],
        "total": _repriced(repricing.total),
    }
    shell.show(value, f"{text}\nin USD, since {instant(since)}; nothing was changed")


def _repriced(line: RepricedLine) -> dict[str, Any]:
    return {
        "requests": line.requests,
        "old": format_usd(line.old),
        "new": format_usd(line.new),
        "difference": format_usd(line.new - line.old),
        "without_price": line.surprises,
    }


def _show(shell: Shell, snapshot: Snapshot) -> None:
    unpriced = list(snapshot.unpriced(SystemClock().wall_ms()))
    text = f"the catalogue is at version {snapshot.version}: {many(len(snapshot.models), 'model')}"
    if unpriced:
        text += f"; without a price, and so refused: {', '.join(unpriced)}"
    shell.show({"version": snapshot.version, "models": sorted(snapshot.models), "unpriced": unpriced}, text)
