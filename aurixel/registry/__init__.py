"""Knows every loaded plugin and what each brought: dialects, kinds of upstream, checks, billing backends, commands, observers.

It loads only what `plugins.enabled` names (the built-in dialects come through the same door) and refuses at start
whatever is wrong, saying which plugin, which hook and the mend. It runs no request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pluggy
from pydantic import BaseModel

from aurixel.errors import ConfigError
from aurixel.plugin.billing import BillingBackend, BillingHost
from aurixel.plugin.contracts import CountsTokens, Dialect, Host, PolicyCheck, Provider
from aurixel.registry.calls import CallSite, NoMeter, PluginFailed, PluginMeter, bounded, raised_at
from aurixel.registry.loading import PluginInfo, implementations, load_plugins, nearest, registered_classes
from aurixel.registry.observers import Observers
from aurixel.registry.settings import read_settings
from aurixel.registry.shapes import backend_faults, check_faults, dialect_faults, provider_faults
from aurixel.values import Event

if TYPE_CHECKING:
    import click

__all__ = ["CallSite", "NoMeter", "Observers", "PluginFailed", "PluginInfo", "PluginMeter", "Registry", "bounded"]

BUILTIN: Final = ("aurixel.dialects",)
# Not an operation of models: the endpoint of a chat dialect that counts a request's input.
COUNT: Final = "count"
T = TypeVar("T")


class Registry:
    """What the loaded plugins brought. Mappings are by name: dialects are instances, the rest classes."""

    def __init__(self, manager: pluggy.PluginManager, plugins: tuple[PluginInfo, ...]) -> None:
        self._manager = manager
        self.plugins: Final = plugins
        self._owners: dict[tuple[str, str], str] = {}
        dialects = self._collect("register_dialects", "name", "dialect", dialect_faults)
        self.dialects: Final[Mapping[str, Dialect]] = MappingProxyType(
            {name: self._make_dialect(name, cls) for name, cls in dialects.items()}
        )
        self.providers: Final[Mapping[str, type[Provider]]] = MappingProxyType(
            self._collect("register_providers", "kind", "provider", provider_faults)
        )
        self.checks: Final[Mapping[str, type[PolicyCheck]]] = MappingProxyType(
            self._collect("register_policy_checks", "name", "policy check", check_faults)
        )
        self.backends: Final[Mapping[str, type[BillingBackend]]] = MappingProxyType(
            self._collect("register_billing_backends", "name", "billing backend", backend_faults)
        )
        self._check_spoken()
        self._enforcers = self._collect_enforcers()

    @classmethod
    def load(cls, enabled: Sequence[str], builtin: Sequence[str] = BUILTIN) -> Registry:
        """Load the built-in modules and the plugins named; `ConfigError` for the first thing that is wrong."""
        return cls(*load_plugins(enabled, builtin))

    def build_provider(self, upstream_name: str, kind: str, settings: Mapping[str, Any], host: Host) -> Provider:
        """The provider of `[upstreams.NAME]`. `settings` is the block without the host's own keys."""
        place = f"[upstreams.{upstream_name}]"
        cls = self._named(self.providers, kind, "provider", f"{place} provider")
        provider: Provider = self._build(cls, settings, host, place, self.owner("provider", kind))
        field = getattr(provider, "output_limit_field", 0)
        if field is not None and not isinstance(field, str):
            owner = self.owner("provider", kind)
            fault = f"plugin '{owner}': an instance of '{kind}' has no `output_limit_field`, or not a string"
            raise ConfigError(fault, place=place, mend="set it, or set it to None", code="plugin_refused")
        return provider

    def build_check(self, name: str, settings: Mapping[str, Any], host: Host) -> PolicyCheck:
        """The policy check of `[policy.NAME]`. `settings` is the block without `on_error` and `deadline`."""
        place = f"[policy.{name}]"
        cls = self._named(self.checks, name, "policy check", place)
        check: PolicyCheck = self._build(cls, settings, host, place, self.owner("policy check", name))
        return check

    def build_backend(self, name: str, settings: Mapping[str, Any], host: BillingHost) -> BillingBackend:
        """The billing backend of `[payments.NAME]`. `settings` is the block without `deadline`."""
        place = f"[payments.{name}]"
        cls = self._named(self.backends, name, "billing backend", place)
        backend: BillingBackend = self._build(cls, settings, host, place, self.owner("billing backend", name))
        return backend

    def enforcers(self) -> Mapping[str, type[PolicyCheck]]:
        """Which check stands behind each key limit, of those that plugins offer: limit -> class."""
        return self._enforcers

    def observers(self) -> tuple[tuple[str, Callable[[Event], None]], ...]:
        """The implementations of `observe`: (plugin, function of an event)."""
        return tuple((impl.plugin_name, _taking(impl, impl.function)) for impl in implementations(self._manager, "observe"))

    def owner(self, what: str, name: str) -> str:
        """Which plugin brought a "dialect", "provider", "policy check" or "billing backend" of this name."""
        return self._owners[what, name]

    def add_commands(self, group: click.Group, equip: Callable[[click.Command], click.Command] = lambda own: own) -> None:
        """Add the plugins' commands to `group`: all of a plugin's or, when it fails, none, and a line on stderr.

        `equip` gives a command what the host gives them all, or raises `ValueError` with the fault.
        """
        import click

        for impl in implementations(self._manager, "register_commands"):
            own = click.Group()
            equipped: dict[str, click.Command] = {}
            fault = ""
            try:
                _taking(impl, impl.function)(own)
            except Exception as error:  # noqa: BLE001 - one plugin's fault must not take the command line down
                fault = f"raised {raised_at(error)}"
            else:
                try:
                    equipped = {name: equip(command) for name, command in own.commands.items()}
                except ValueError as error:
                    fault = str(error)
                if taken := sorted(set(own.commands) & set(group.commands)):
                    fault = f"adds '{taken[0]}', which exists already"
            if fault:
                click.echo(f"plugin '{impl.plugin_name}': register_commands {fault}; its commands are left out", err=True)
                continue
            group.commands.update(equipped)

    def _collect(
        self, hook: str, attribute: str, what: str, faults_of: Callable[[type[Any]], list[str]]
    ) -> dict[str, type[Any]]:
        found: dict[str, type[Any]] = {}
        for plugin, cls in registered_classes(self._manager, hook):
            faults = faults_of(cls)
            if faults:
                fault = f"plugin '{plugin}': {hook}: {cls.__name__} is no {what}: {'; '.join(faults)}"
                raise _refused(fault, "docs/plugins.md has the contract")
            name = getattr(cls, attribute)
            if name in found:
                first = self.owner(what, name)
                fault = f"plugins '{first}' and '{plugin}' both bring a {what} named '{name}' ({hook})"
                raise _refused(fault, "enable one of them")
            found[name] = cls
            self._owners[what, name] = plugin
        return found

    def _make_dialect(self, name: str, cls: type[Any]) -> Dialect:
        try:
            dialect: Dialect = cls()
        except Exception as error:
            fault = f"plugin '{self.owner('dialect', name)}': making the dialect '{name}' raised {raised_at(error)}"
            raise _refused(fault, "a dialect is made without arguments") from error
        return dialect

    def _check_spoken(self) -> None:
        for kind, cls in self.providers.items():
            for operation, names in cls.dialects.items():
                for name in names:
                    dialect = self.dialects.get(name)
                    if dialect is not None and operation in (dialect.operation, COUNT):
                        if operation == COUNT and not isinstance(dialect, CountsTokens):
                            raise _refused(
                                f"plugin '{self.owner('provider', kind)}': '{name}' is no dialect that counts tokens",
                                f"leave it out of the provider's dialects for '{COUNT}'",
                            )
                        continue
                    fault = (
                        f"it is no dialect of '{operation}'" if dialect else "no enabled plugin brings a dialect of that name"
                    )
                    known = [each.name for each in self.dialects.values() if each.operation == operation]
                    raise _refused(
                        f"plugin '{self.owner('provider', kind)}': the provider '{kind}' speaks '{name}', but {fault}",
                        nearest(name, known, "for '{}' there are: {}".format(operation, ", ".join(known) or "none")),
                    )

    def _collect_enforcers(self) -> Mapping[str, type[PolicyCheck]]:
        enforcers: dict[str, type[PolicyCheck]] = {}
        for name, cls in self.checks.items():
            for limit in sorted(cls.enforces):
                other = enforcers.setdefault(limit, cls)
                if other is not cls:
                    first, second = self.owner("policy check", other.name), self.owner("policy check", name)
                    fault = f"plugins '{first}' and '{second}' both enforce the key limit '{limit}'"
                    raise _refused(fault, "enable one of them")
        return MappingProxyType(enforcers)

    def _named(self, known: Mapping[str, type[T]], name: str, what: str, place: str) -> type[T]:
        if name in known:
            return known[name]
        have = ", ".join(sorted(known)) or "none"
        mend = nearest(name, known, f"the enabled plugins bring: {have}; is its plugin in plugins.enabled?")
        raise ConfigError(f"no enabled plugin brings a {what} named '{name}'", place=place, mend=mend)

    def _build(self, cls: type[Any], settings: Mapping[str, Any], host: Host, place: str, plugin: str) -> Any:
        model: type[BaseModel] = cls.Settings
        values = read_settings(model, settings, place)
        try:
            return cls(values, host)
        except ConfigError as error:
            raise ConfigError(error.message, place=error.place or place, mend=error.mend, code=error.code) from error
        except Exception as error:
            fault = f"plugin '{plugin}': making {cls.__name__} raised {raised_at(error)}"
            raise ConfigError(fault, place=place, mend="the traceback names the line", code="plugin_refused") from error


def _taking(impl: pluggy.HookImpl, function: Callable[..., Any]) -> Callable[[Any], None]:
    """An implementation may take fewer arguments than its hook has."""
    return function if impl.argnames else lambda _argument: function()


def _refused(message: str, mend: str) -> ConfigError:
    return ConfigError(message, place="plugins.enabled", mend=mend, code="plugin_refused")
