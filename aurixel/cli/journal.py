"""`aurixel journal`: look into the journals of nodes, and finish what a dead node left in one."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aurixel.cli.shell import Shell, at_terminal, instant, many, shared, table, usd
from aurixel.errors import ConfigError, JournalError, JournalUnusable

if TYPE_CHECKING:
    from aurixel.ledger.adoption import Adoption
    from aurixel.ledger.inspection import Seen

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def journal() -> None:
    """Journals of nodes: what is charged and not yet posted."""


@journal.command()
@click.argument("folder", metavar="[DIR]", required=False, type=_FOLDER)
@shared
def inspect(shell: Shell, folder: Path | None) -> None:
    """Show what journals hold, changing nothing, while their nodes run.

    DIR is a folder of journals, or one journal; without it, ledger.journal of the configuration. Nothing that anyone wrote to
    a model is in a journal. Exit code 1 if one is damaged: the fault is told with file and offset.
    """
    from aurixel.ledger.inspection import inspect as look

    if folder is None:
        folder = shell.settings("ledger").ledger.journal
        if not folder.is_dir():
            shell.show({"ok": True, "journals": []}, f"{folder}: no journal yet")
            return
    seen = look(folder)
    journals = [_shown(each) for each in seen]
    faults = [f"{each.place}: {each.fault}" for each in seen if each.fault]
    head = ("inc", "files", "bytes", "running", "unposted", "accounts", "cost", "oldest")
    rows = [
        [
            each["inc"] + (" (set aside)" if each["set_aside"] else ""),
            str(len(each["segments"])),
            str(sum(part["bytes"] for part in each["segments"])),
            *(str(each[column]) for column in head[3:7]),
            each["oldest"] or "",
        ]
        for each in journals
    ]
    lines = [table(head, rows)] if rows else [f"{folder}: no journals"]
    shell.show({"ok": not faults, "journals": journals}, "\n".join([*lines, *faults]))
    if faults:
        raise click.exceptions.Exit(1)


def _shown(seen: Seen) -> dict[str, Any]:
    return {
        "inc": seen.inc,
        "folder": seen.folder,
        "set_aside": seen.set_aside,
        "segments": [{"file": part.file, "bytes": part.bytes, "read": part.read} for part in seen.segments],
        "lines": seen.lines,
        "running": seen.running,
        "unposted": seen.unposted,
        "accounts": seen.accounts,
        **usd({"cost": seen.cost}, "cost"),
        "oldest": instant(seen.oldest_ms),
        "torn": seen.torn,
        "fault": {"place": seen.place, "message": seen.fault} if seen.fault else None,
    }


@journal.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--dead", "gone", is_flag=True, help="The processes that wrote it are gone for good: wait for two beats only.")
@shared
def replay(shell: Shell, folder: Path, gone: bool) -> None:
    """Post what dead nodes left in DIR to the store.

    DIR is a folder of journals, or one of them.

    For a node that will not start again where it was: move its folder to a machine that reaches the store, then replay it.
    `aurixel serve` does the same at its start for the journals in its own folder.

    Move it, or copy it once its process is gone. Unless the store has called a node dead, its beat is watched for two minutes,
    and nothing is done if it beats. What is posted is removed from DIR. After an error or an interruption, replay again.
    """
    from aurixel.clock import SystemClock
    from aurixel.ledger import LedgerSettings, NoMetrics
    from aurixel.ledger.adoption import Adoption
    from aurixel.ledger.folder import folders, incarnations, own
    from aurixel.ledger.journal import segments

    settings = shell.settings("store", "ledger")
    found = {folder.parent: [folder.name]} if segments(folder) else {each: incarnations(each) for each in folders(folder)}
    found = {place: incs for place, incs in found.items() if incs}

    async def work(bars: _Bars) -> list[dict[str, Any]]:
        async with shell.store(settings) as store:
            done = []
            adoptions = {
                place: Adoption(
                    store,
                    LedgerSettings(journal=place, fsync=settings.ledger.fsync, fsync_interval=settings.ledger.fsync_interval),
                    SystemClock(),
                    NoMetrics(),
                    bars.watching,
                    bars.posting,
                )
                for place in found
            }
            for place, adoption in adoptions.items():
                await adoption.bury(found[place], gone=gone)
            for place, adoption in adoptions.items():
                for inc in found[place]:
                    bars.begin(inc)
                    done.append({"inc": inc, "folder": str(place), **await _replayed(adoption, inc)})
            return done

    with ExitStack() as held:
        for place in found:
            try:
                held.callback(os.close, own(place))
            except JournalUnusable as error:
                mend = "a gateway that runs there posts what is in it, then or at its next start; else it must be writable"
                raise ConfigError(error.message, place=error.place, mend=mend, code=error.code) from error
        with _Bars(shown=not shell.json and at_terminal(sys.stderr)) as bars:
            journals = shell.run(work(bars))
    left = [each for each in journals if each["became"] not in ("replayed", "done")]
    shell.show({"ok": not left, "journals": journals}, "\n".join(map(_told, journals)) or f"{folder}: no journals")
    if left:
        raise click.exceptions.Exit(1)


async def _replayed(adoption: Adoption, inc: str) -> dict[str, Any]:
    try:
        replayed = await adoption.replay(inc)
    except JournalError as error:  # the others may be whole
        return {"became": "failed", "requests": 0, "crashed": 0, "fault": {"place": error.place, "message": error.message}}
    return {"became": replayed.became, "requests": replayed.requests, "crashed": replayed.crashed, "fault": None}


def _told(each: dict[str, Any]) -> str:
    match each["became"]:
        case "replayed":
            text = f"{many(each['requests'], 'request')} posted"
            text += f", {each['crashed']} of them cut by the crash" if each["crashed"] else ""
        case "done":
            text = "was posted before; removed"
        case "absent":
            text = "the store does not know this node, its journal is kept: is this the right store?"
        case "abandoned":
            text = "was abandoned, its journal is set aside: the unposted usage in it is lost"
        case _:
            text = f"{each['fault']['place']}: {each['fault']['message']}"
    return f"{each['inc']}: {text}"


class _Bars:
    """Progress bars on stderr, one after another."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._label = ""

    def begin(self, label: str) -> None:
        """The next bar's name."""
        self._end()
        self._label = label

    def watching(self, seconds: float, of: float) -> None:
        """How long beats have been watched."""
        self._show("waiting for a beat", round(seconds), round(of))

    def posting(self, done: int, of: int) -> None:
        """How much of a journal is posted."""
        self._show(self._label, done, of)

    def _show(self, label: str, done: int, of: int) -> None:
        if not self._shown or not of:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=of, label=label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._bar.pos)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
