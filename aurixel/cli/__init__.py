"""The command line. It promises exit code 0 for done, 2 for what was typed wrong and 1 for what was found wrong; errors
on stderr, as JSON with `--json`; secrets once, on stdout, alone on their line.

The modules here parse, call the rooms and print; they decide nothing. Each imports what it needs inside its commands, so
that `aurixel --help` loads neither a server nor a driver.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from aurixel.cli.account import account
from aurixel.cli.check import check
from aurixel.cli.credit import credit
from aurixel.cli.dev import dev
from aurixel.cli.journal import journal
from aurixel.cli.key import key
from aurixel.cli.ledger import ledger
from aurixel.cli.node import node
from aurixel.cli.order import order
from aurixel.cli.plugins import plugins, with_plugin_commands
from aurixel.cli.prices import prices, reload
from aurixel.cli.serve import serve
from aurixel.cli.shell import report
from aurixel.cli.usage import usage
from aurixel.errors import ConfigError, ConfigFaults

__all__ = ["main"]


class Commands(click.Group):
    """Ours, in the order of a first use; a name we do not know may be a plugin's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were added."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Plugins are asked only for names that nobody here has: their import is slow, and may fail."""
        name, silent = args[0], ""
        if super().get_command(ctx, name) is None:
            try:
                found = with_plugin_commands(self, _config(args)).commands.get(name)
            except ConfigError as error:
                first = error.faults[0] if isinstance(error, ConfigFaults) else error
                found, silent = None, f" Plugins could not be asked: {first}"
            if found is not None:
                return name, found, args[1:]
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.format_message() + silent, ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="aurixel", prog_name="aurixel")
def cli() -> None:
    """An OpenAI- and Anthropic-compatible gateway to AI models, on prepaid credit.

    \b
    To try it:      aurixel dev
    In production:  aurixel check && aurixel serve --config conf/aurixel.toml

    Commands read conf/aurixel.toml unless --config or AURIXEL_CONFIG names another file. Plugins may bring commands of
    their own: `aurixel plugins list` names them.
    """


for command in (dev, serve, check, account, key, credit, order, usage, prices, reload, ledger, journal, plugins, node):
    cli.add_command(command)


def _config(args: Sequence[str]) -> str | None:
    """What --config says, before the command that has the option is known: which plugins there are depends on it."""
    for at, word in enumerate(args):
        if word == "--config" and at + 1 < len(args):
            return args[at + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    words = list(sys.argv[1:] if args is None else args)
    sys.stdin = sys.stdin or io.StringIO()  # closed: there is nothing to read
    try:
        code = cli.main(args=words, prog_name="aurixel", standalone_mode=False)
        if sys.stdout is not None:  # it is where the descriptor was closed
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place to tell; `report` raises bugs on
        sys.exit(report(error, as_json="--json" in words))
    sys.exit(code if isinstance(code, int) else 0)
