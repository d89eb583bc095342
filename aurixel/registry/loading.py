"""Finds the enabled plugins and reads their hooks; refuses, with the plugin, the hook and the mend in the message,
whatever would fail later or depend on the order of loading. It runs no hook of a request, for there are none.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pluggy

from aurixel.errors import ConfigError
from aurixel.plugin import hookspecs
from aurixel.registry.calls import raised_at

GROUP: Final = hookspecs.PROJECT
PAGE: Final = "docs/plugins.md"


class PluginInfo(msgspec.Struct, frozen=True):
    """A loaded plugin: its name in `plugins.enabled`, the version and name of its distribution, and its hooks."""

    name: str
    version: str
    distribution: str
    hooks: tuple[str, ...]


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """The mend for a word that is not known: the nearest one that is, or `otherwise`."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else otherwise


def load_plugins(enabled: Sequence[str], builtin: Sequence[str]) -> tuple[pluggy.PluginManager, tuple[PluginInfo, ...]]:
    """The manager with the built-in modules and the enabled plugins registered and checked; `ConfigError` for any fault."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    infos = []
    for module in builtin:
        manager.register(importlib.import_module(module), name=module)
        infos.append(_checked(manager, manager.get_plugin(module), module, "aurixel"))
    offered = _offered()
    for name in enabled:
        if manager.has_plugin(name):
            raise _fault(f"the plugin '{name}' is named twice", "name it once in plugins.enabled")
        _load(manager, name, offered)
        infos.append(_checked(manager, manager.get_plugin(name), name, offered[name][0]))
    return manager, tuple(infos)


def implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    """The implementations of a hook, in the order of `plugins.enabled`, built-in ones first."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return caller.get_hookimpls()


def registered_classes(manager: pluggy.PluginManager, hook: str) -> Iterator[tuple[str, Any]]:
    """What the implementations of a registration hook return, each called alone: (plugin, class)."""
    for impl in implementations(manager, hook):
        name = impl.plugin_name
        try:
            answer: Any = impl.function()
            classes = None if isinstance(answer, str | bytes | type) or not isinstance(answer, Iterable) else list(answer)
        except Exception as error:
            raise _refused(name, hook, f"raised {raised_at(error)}", "the traceback names the line") from error
        if classes is None:
            got = f"the class {answer.__name__}" if isinstance(answer, type) else f"a {type(answer).__name__}"
            raise _refused(name, hook, f"returned {got}, not a list of classes", "return [TheClass]")
        for item in classes:
            if not isinstance(item, type):
                mend = "return the class itself: the host makes the instances"
                raise _refused(name, hook, f"returned a {type(item).__name__} where a class belongs", mend)
            yield name, item


def _offered() -> dict[str, list[str]]:
    """Every plugin name that is installed, with the distributions that offer it."""
    offered: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                names = offered.setdefault(entry.name, [])
                if distribution.name not in names:  # the same one, seen again further down the path, is shadowed
                    names.append(distribution.name)
    return offered


def _load(manager: pluggy.PluginManager, name: str, offered: dict[str, list[str]]) -> None:
    if name not in offered:
        have = ", ".join(sorted(offered)) or "none"
        mend = nearest(name, offered, f"install its distribution, or take it out of plugins.enabled; installed: {have}")
        raise _fault(f"the plugin '{name}' is enabled but not installed", mend)
    if len(offered[name]) > 1:
        both = " and ".join(f"'{distribution}'" for distribution in offered[name])
        raise _fault(f"two distributions offer a plugin named '{name}': {both}", "uninstall one of them")
    try:
        manager.load_setuptools_entrypoints(GROUP, name)
    except pluggy.PluginValidationError as error:
        raise _fault(f"plugin '{name}': {' '.join(str(error).split())}", f"{PAGE} has the arguments") from error
    except ValueError as error:
        same = (
            other for other, plugin in manager.list_name_plugin() if "already registered" in str(error) and _same(plugin, name)
        )
        if (other := next(same, None)) is None:
            raise _broken(name, error) from error
        raise _fault(f"the plugins '{other}' and '{name}' are the same object", "enable one of them") from error
    except Exception as error:
        raise _broken(name, error) from error


def _same(plugin: object, name: str) -> bool:
    entries = importlib.metadata.entry_points(group=GROUP, name=name)
    return any(entry.load() is plugin for entry in entries)


def _broken(name: str, error: Exception) -> ConfigError:
    mend = "reinstall it, or take it out of plugins.enabled"
    return _fault(f"the plugin '{name}' cannot be imported: {raised_at(error)}: {error}", mend)


def _checked(manager: pluggy.PluginManager, plugin: Any, name: str, distribution: str) -> PluginInfo:
    callers = manager.get_hookcallers(plugin) or []
    specs = [spec for spec in dir(manager.hook) if not spec.startswith("_")]
    known = [spec for spec in specs if getattr(manager.hook, spec).has_spec()]
    for attribute in dir(plugin):
        if manager.parse_hookspec_opts(plugin, attribute) is not None:
            raise _refused(name, attribute, "is declared as a hook, not implemented", "mark it with @hookimpl")
        if attribute in known and _unmarked(manager, plugin, attribute):
            raise _refused(name, attribute, "is not marked", "put @hookimpl on the line above it")
    for caller in callers:
        if not caller.has_spec():
            raise _refused(name, caller.name, "is no hook", nearest(caller.name, known, f"{PAGE} lists them"))
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin:
                _check_implementation(name, caller.name, impl)
    if not callers:
        raise _fault(f"the plugin '{name}' implements no hook", f"{PAGE} lists them; each needs @hookimpl")
    manager.check_pending()
    version = importlib.metadata.version(distribution)
    return PluginInfo(name, version, distribution, tuple(sorted(caller.name for caller in callers)))


def _unmarked(manager: pluggy.PluginManager, plugin: Any, name: str) -> bool:
    return inspect.isroutine(getattr(plugin, name)) and manager.parse_hookimpl_opts(plugin, name) is None


def _check_implementation(plugin: str, hook: str, impl: pluggy.HookImpl) -> None:
    function = inspect.unwrap(impl.function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _refused(plugin, hook, "is async", "hooks are plain functions; the classes they return may be async")
    if impl.wrapper or impl.hookwrapper:
        raise _refused(plugin, hook, "is a wrapper", "every implementation is called alone: take the option out")
    if inspect.isgeneratorfunction(function):
        raise _refused(plugin, hook, "is a generator", "return a list")
    if impl.tryfirst or impl.trylast or impl.optionalhook:
        mend = "take the option out: precedence is written in configuration, by name"
        raise _refused(plugin, hook, "asks for tryfirst, trylast or optionalhook", mend)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            raise _refused(plugin, hook, f"gives '{parameter.name}' a default", "take the default out")
        if parameter.kind is parameter.KEYWORD_ONLY:
            raise _refused(plugin, hook, f"takes '{parameter.name}' by keyword only", "take the * out")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _refused(plugin, hook, f"takes '{parameter}'", "name the arguments it uses")


def _refused(plugin: str, hook: str, fault: str, mend: str) -> ConfigError:
    return ConfigError(f"plugin '{plugin}': {hook} {fault}", place="plugins.enabled", mend=mend, code="plugin_refused")


def _fault(message: str, mend: str) -> ConfigError:
    return ConfigError(message, place="plugins.enabled", mend=mend, code="plugin_refused")
