"""What commands need of billing backends: one that is bound, over the store and the shelf that gateways use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aurixel.cli.quiet import QuietHost
from aurixel.cli.shell import placing
from aurixel.clock import SystemClock

if TYPE_CHECKING:
    from aurixel.config import Settings
    from aurixel.payments import BoundBackend, Fulfilment
    from aurixel.plugin.billing import BillingBackend, Shelf
    from aurixel.registry import Registry
    from aurixel.storage import Store


class BillingQuietHost(QuietHost):
    """What a billing backend gets in a command: the same, and its shelf."""

    def __init__(self, name: str, shelf: Shelf) -> None:
        super().__init__(name)
        self.shelf = shelf


def fulfilment_of(settings: Settings, store: Store) -> Fulfilment:
    """Orders as a gateway would carry them through; nothing is counted."""
    from aurixel.payments import Fulfilment, NoMetrics

    return Fulfilment(store, SystemClock(), settings.receipt_rules, NoMetrics())


def backend_of(settings: Settings, store: Store, name: str) -> BoundBackend:
    """The backend of `[payments.NAME]`. `ConfigError`; `click.UsageError` where there is no such block."""
    from aurixel.registry import Registry

    if name not in settings.payments:
        have = ", ".join(sorted(settings.payments)) or "none"
        raise click.UsageError(f"there is no block [payments.{name}] in the configuration; there are: {have}")
    with placing(settings):
        return bind_backend(settings, Registry.load(settings.plugins.enabled), store, name)


def bind_backend(settings: Settings, registry: Registry, store: Store, name: str) -> BoundBackend:
    """The backend of a block that is there, as `serve` would make it; `ConfigError`."""
    return bound(settings, registry, name, make_backend(settings, registry, store, name))


def make_backend(settings: Settings, registry: Registry, store: Store, name: str) -> BillingBackend:
    """The plugin's instance, for its own commands."""
    from aurixel.storage.shelf import StoreShelf

    host = BillingQuietHost(name, StoreShelf(store, name))
    return registry.build_backend(name, settings.payments[name].settings, host)


def bound(settings: Settings, registry: Registry, name: str, backend: BillingBackend) -> BoundBackend:
    """An instance as the payments room calls it."""
    from aurixel.payments import BoundBackend
    from aurixel.registry import NoMeter

    owner, deadline = registry.owner("billing backend", name), settings.payments[name].deadline
    return BoundBackend(name, backend, owner, deadline, NoMeter())


def only_backend(settings: Settings, named: str | None) -> str:
    """The name that was given, or that of the only block; `click.UsageError` where it has to be given."""
    if named is not None:
        return named
    if len(settings.payments) == 1:
        return next(iter(settings.payments))
    have = ", ".join(sorted(settings.payments)) or "none"
    raise click.UsageError(f"say which backend with --backend; the configuration has: {have}")
