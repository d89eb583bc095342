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
from aurixel.cli.shell import SHARED, Shell, table
from aurixel.errors import ConfigError

if TYPE_CHECKING:
    from aurixel.payments import BoundBackend, Fulfilment
    from aurixel.plugin import BillingBackend, Credited, Secret
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
        from aurixel.cli.payments import bound, fulfilment_of, make_backend
        from aurixel.registry import Registry

        settings = self._shell.settings("store", "plugins", "payments")
        if name not in settings.payments:
            fault, mend = f"there is no [payments.{name}]", "add the block: that is what enables the backend"
            raise ConfigError(fault, place=settings.place("payments"), mend=mend)
        async with self._shell.store(settings) as store:
            registry = Registry.load(settings.plugins.enabled)
            backend = make_backend(settings, registry, store, name)
            yield Desk(store, backend, bound(settings, registry, name, backend), fulfilment_of(settings, store))


class Desk:
    """A `BillingDesk`."""

    def __init__(self, store: Store, backend: BillingBackend, asked: BoundBackend, fulfilment: Fulfilment) -> None:
        self.backend: Any = backend
        self._store, self._asked, self._fulfilment = store, asked, fulfilment

    async def redeem(self, email: str, code: Secret) -> Credited:
        """Give the account the credit of a code, once."""
        from aurixel.accounts import AccountRefused, find_account, show_account
        from aurixel.payments import redeem
        from aurixel.plugin import Credited

        profile = await find_account(self._store, email)
        if profile.status == "closed":
            raise AccountRefused("account_closed", "the account is closed")
        began = self._fulfilment.clock.wall_ms()
        order = await redeem(self._fulfilment, self._asked, profile.account, code)
        return Credited(
            order=order.id,
            payment=order.payment or "",
            amount=order.credit,
            available=(await show_account(self._store, email)).available,
            again=order.created_ms < began,
        )

    async def email_of(self, account: str) -> str | None:
        """Whose account it is."""
        profile = await self._store.profile_read(account)
        return None if profile is None else profile.email
