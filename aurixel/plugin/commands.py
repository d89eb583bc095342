"""What a plugin's commands are given, so that they behave as the host's own: one way to print, to fail, and to reach the
plugin's billing backend. Nothing here runs a command; click does.

The host puts a `CommandHost` into `ctx.obj` (take it with `@click.pass_obj`) and gives every command of a plugin `--config`
and `--json`. Raise `click.UsageError` for what was typed wrong (exit code 2) and `click.ClickException` for what was found
wrong (exit code 1); `ConfigError` and `StoreUnavailable` pass through, and are told.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import msgspec

from aurixel.values import Nanos, Secret

T = TypeVar("T")


class Credited(msgspec.Struct, frozen=True, kw_only=True):
    """What a redeemed code came to. `order` is the host's, `payment` the backend's; `again`: it was credited before."""

    order: str
    payment: str
    amount: Nanos
    available: Nanos
    again: bool


class BillingDesk(Protocol):
    """A billing backend at work in a command, on the open store."""

    @property
    def backend(self) -> Any:
        """The instance of `[payments.NAME]`, with its settings and its shelf."""

    async def redeem(self, email: str, code: Secret) -> Credited:
        """Give the account of `email` the credit of a code of this backend, once. `CodeRefused` and what the host raises."""

    async def email_of(self, account: str) -> str | None:
        """Whose account it is; None where it is nobody's any more."""


class CommandHost(Protocol):
    """What a plugin's command is given as `ctx.obj`."""

    @property
    def json(self) -> bool:
        """Whether `--json` was given."""

    @property
    def user(self) -> str:
        """Who is at the keyboard, as the system knows them: for an audit trail."""

    def desk(self, name: str) -> AbstractAsyncContextManager[BillingDesk]:
        """The billing backend of the block `[payments.NAME]`, while the `async with` lasts. `ConfigError`."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the asynchronous part of a command."""

    def show(self, value: object, text: str) -> None:
        """The result, on stdout: `value` as JSON with `--json`, else `text`."""

    def note(self, text: str) -> None:
        """A word to the person at the terminal, on stderr; none with `--json`."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """Columns for people."""
