"""`aurixel plugins`, and what other commands need of plugins: their commands, and the checks that judge a key's limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aurixel.cli.quiet import QuietHost
from aurixel.cli.shell import Shell, placing, shared, table

if TYPE_CHECKING:
    from aurixel.config import Settings
    from aurixel.plugin import PolicyCheck
    from aurixel.registry import Registry


@click.group()
def plugins() -> None:
    """Plugins: providers, checks, dialects and commands of others."""


@plugins.command("list")
@shared
def list_(shell: Shell) -> None:
    """List the enabled plugins with what they bring, and the others."""
    from importlib.metadata import entry_points

    from aurixel.registry import Registry
    from aurixel.registry.loading import GROUP

    settings = shell.settings("plugins")
    with placing(settings):
        registry = Registry.load(settings.plugins.enabled)
    rows = [
        {
            "name": plugin.name,
            "version": plugin.version,
            "distribution": plugin.distribution,
            "enabled": True,
            "brings": _brought(registry, plugin.name),
            "hooks": list(plugin.hooks),
        }
        for plugin in registry.plugins
    ]
    loaded = {plugin.name for plugin in registry.plugins}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name not in loaded and point.dist is not None:
            of = {"name": point.name, "version": point.dist.version, "distribution": point.dist.name}
            rows.append({**of, "enabled": False, "brings": [], "hooks": []})
    lines = [
        [str(row["name"]), str(row["version"]), "enabled" if row["enabled"] else "installed", ", ".join(row["brings"])]  # type: ignore[arg-type]
        for row in rows
    ]
    shell.show(rows, table(("plugin", "version", "state", "brings"), lines))


def _brought(registry: Registry, plugin: str) -> list[str]:
    kinds = {
        "dialect": registry.dialects,
        "provider": registry.providers,
        "policy check": registry.checks,
        "billing backend": registry.backends,
    }
    brought = [f"{what} {name}" for what, names in kinds.items() for name in names if registry.owner(what, name) == plugin]
    with_commands = any(loaded.name == plugin and "register_commands" in loaded.hooks for loaded in registry.plugins)
    return [*brought, "commands"] if with_commands else brought


def with_plugin_commands(group: click.Group, config: str | None) -> click.Group:
    """The commands of the enabled plugins; `ConfigError` where nothing is configured or a plugin cannot be loaded.

    `config` is what the command line says of --config, if it does.
    """
    from aurixel.cli.desk import equip
    from aurixel.config import load
    from aurixel.registry import Registry

    named = config or os.environ.get("AURIXEL_CONFIG")
    settings = load(Shell(Path(named) if named else None, as_json=False).file(), needs=("plugins",))
    with placing(settings):
        registry = Registry.load(settings.plugins.enabled)
    extended = click.Group(commands=dict(group.commands))
    registry.add_commands(extended, equip)
    return extended


def checks_of(settings: Settings) -> list[PolicyCheck]:
    """The enabled policy checks, as `serve` would make them; `ConfigError`."""
    from aurixel.registry import Registry

    with placing(settings):
        return build_checks(settings, Registry.load(settings.plugins.enabled))


def build_checks(settings: Settings, registry: Registry) -> list[PolicyCheck]:
    """One check for each `[policy.NAME]`, which is what enables it; `ConfigError` for a bad block."""
    return [registry.build_check(name, block.settings, QuietHost(name)) for name, block in settings.policy.items()]
