"""The host side of `aurixel.plugin.CommandHost`: plugins' commands get our options, our way to print, and a billing desk.

It opens what a command asks for and lets go of it again; it decides nothing, and shows no plugin another's shelf.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aurixel.cli.credit import user
from aurixel.cli.plugins import QuietHost
from aurixel.cli.shell import SHARED, Shell, table
from aurixel.errors import ConfigError

if TYPE_CHECKING:
    from aurixel.config import Settings
    from aurixel.plugin import BillingBackend, Credited, Secret, Shelf
    from aurixel.storage import Store

T = TypeVar("T")


def equip(command: click.Command) -> click.Command:
    """A plugin's command or group with `--config`, `--json` and a `CommandHost`; `ValueError` where they are taken."""
    equipped = copy.copy(command)
    if isinstance(equipped, click.Group):
        equipped.commands = {name: equip(inner) for name, inner in equipped.commands.items()}
        return equipped
    run = command.callback
    if run is None:
        return equipped
    options = [click.Option(names, **how) for names, how in SHARED]
    ours = {name for option in options for name in (*option.opts, option.name)}
    for taken in (name for parameter in command.params for name in (*parameter.opts, parameter.name) if name in ours):
        raise ValueError(f"gives '{command.name}' {taken}, which every command has from the host")

    @functools.wraps(run)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        click.get_current_context().obj = PluginShell(Shell(kwargs.pop("config"), kwargs.pop("as_json")))
        return run(*args, **kwargs)

    equipped.callback = wrapped
    equipped.params = [*command.params, *options]
    return equipped


class PluginShell:
    """A `CommandHost`: one run of one command of a plugin."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.json = shell.json
        self.run, self.show, self.note = shell.run, shell.show, shell.note

    @property
    def user(self) -> str:
        """Who is at the keyboard."""
        return user()

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """Columns for people."""
        return table(head, rows)

    @asynccontextmanager
    async def desk(self, name: str) -> AsyncIterator[Desk]:
        """The billing backend of `[payments.NAME]` on the open store. `ConfigError`."""
        from aurixel.registry import Registry
        from aurixel.storage.shelf import StoreShelf

        settings = self._shell.settings("store", "plugins", "payments")
        block = settings.payments.get(name)
        if block is None:
            fault, mend = f"there is no [payments.{name}]", "add the block: that is what enables the backend"
            raise ConfigError(fault, place=settings.place("payments"), mend=mend)
        async with self._shell.store(settings) as store:
            registry = Registry.load(settings.plugins.enabled)
            host = BillingQuietHost(name, StoreShelf(store, name))
            yield Desk(settings, store, name, registry.build_backend(name, block.settings, host))


class BillingQuietHost(QuietHost):
    """The same with a shelf."""

    def __init__(self, name: str, shelf: Shelf) -> None:
        super().__init__(name)
        self.shelf = shelf


class Desk:
    """A `BillingDesk`."""

    def __init__(self, settings: Settings, store: Store, name: str, backend: BillingBackend) -> None:
        self.backend: Any = backend
        self._settings, self._store, self._name = settings, store, name

    async def redeem(self, email: str, code: Secret) -> Credited:
        """Give the account the credit of a code, once."""
        from aurixel.accounts import find_account, show_account
        from aurixel.clock import SystemClock
        from aurixel.ledger import Movements
        from aurixel.plugin import Credited

        account = (await find_account(self._store, email)).account
        done = await self.backend.redeem(account, code)
        name = f"{self._name}:{done.payment}"
        again = await self._store.movement_find(account, name) is not None
        await Movements(self._store, SystemClock()).apply(account, name, "topup", done.amount, "voucher", "")
        available = (await show_account(self._store, email)).available
        return Credited(order="", payment=done.payment, amount=done.amount, available=available, again=again)

    async def email_of(self, account: str) -> str | None:
        """Whose account it is."""
        profile = await self._store.profile_read(account)
        return None if profile is None else profile.email
