"""Every hook on one page. Hooks are plain synchronous functions called at load; they return classes, never run requests.

No hook is `firstresult`; precedence is written in configuration, by name. An implementation may take fewer arguments,
but no defaults, no keyword-only ones, and is neither async nor a generator nor a wrapper: the registry refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    import click

    from aurixel.plugin.billing import BillingBackend
    from aurixel.plugin.contracts import Dialect, PolicyCheck, Provider
    from aurixel.values import Event

PROJECT: Final = "aurixel"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_providers() -> Iterable[type[Provider]]:
    """Kinds of upstream. Called once, before listening; a failure or a duplicate `kind` stops start-up."""
    raise NotImplementedError


@hookspec
def register_policy_checks() -> Iterable[type[PolicyCheck]]:
    """Checks that may refuse a request. Called once; a failure or a duplicate `name` stops start-up."""
    raise NotImplementedError


@hookspec
def register_billing_backends() -> Iterable[type[BillingBackend]]:
    """Ways for credit to come in. Called once; a failure or a duplicate `name` stops start-up."""
    raise NotImplementedError


@hookspec
def register_dialects() -> Iterable[type[Dialect]]:
    """Wire formats; the built-in ones come through the same door. Called once; a duplicate `name` stops start-up."""
    raise NotImplementedError


@hookspec
def register_commands(commands: click.Group) -> None:
    """Add commands to the `aurixel` command line. A failure leaves that plugin's commands out, and is printed."""


@hookspec
def observe(event: Event) -> None:
    """Telemetry, off the request path, from a bounded queue: one call per finished request or upstream attempt.

    Each implementation is called alone; what it raises is counted and logged once a kind, and reaches nobody.
    """
