"""`aurixel check`: what would be served at which price, and everything that is wrong. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from aurixel.cli.plugins import build_checks
from aurixel.cli.quiet import QuietHost
from aurixel.cli.shell import Shell, absent_places, instant, many, shared, store_exists, table
from aurixel.clock import SystemClock
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.values import format_usd

if TYPE_CHECKING:
    from aurixel.catalog import PriceBook, Snapshot, StoredCatalogue
    from aurixel.config import Settings
    from aurixel.plugin import PolicyCheck
    from aurixel.registry import Registry

_PER_ONE = ("images", "audio_seconds", "requests", "tool_calls")


@click.command()
@click.option("--live", is_flag=True, help="Also ask each upstream whether it answers and knows our key.")
@shared
def check(shell: Shell, live: bool) -> None:
    """Check configuration, plugins, models and prices; change nothing.

    Lists each model with its state: served at the price shown, unpriced (refused until it has one), or without an
    upstream; and where the settlement matrix in force is not the one shipped. What the store says counts; the files,
    where the store has no catalogue yet. Exit code 1 with any fault.
    """
    settings, faults = shell.judged()
    if settings is None:
        raise ConfigFaults(faults)
    registry = _plugins(settings, faults)
    checks = _checks(settings, registry, faults) if registry is not None else None
    if registry is not None:
        _upstreams(settings, registry, faults)
        _payments(settings, registry, faults)
    files = _files(settings, faults)
    found = shell.run(_store(shell, settings, files, checks, registry, faults))
    snapshot = found.snapshot
    models = _models(settings, snapshot)
    answers = _live(shell, settings, registry) if live and registry is not None else []
    value = {
        "ok": not faults and all(answer["ok"] for answer in answers),
        "faults": [
            {"code": fault.code, "message": fault.message, "place": fault.place, "mend": fault.mend} for fault in faults
        ],
        "plugins": [plugin.name for plugin in registry.plugins] if registry is not None else [],
        "client_gone": settings.ledger.client_gone,
        "settlement": _settlement(settings),
        "upstreams": {name: block.provider for name, block in settings.upstreams.items()},
        **({"live": answers} if live else {}),
        "payments": list(settings.payments),
        "catalogue": {
            "source": found.source,
            "version": snapshot.version if snapshot else 0,
            "files_differ": found.differ,
        },
        "models": models,
    }
    shell.show(value, _text(value, faults))
    if not value["ok"]:
        raise click.exceptions.Exit(1)


def _found(settings: Settings, faults: list[ConfigError], error: ConfigError) -> None:
    """What was found, but for what follows from a variable that the environment lacks."""
    told, placed = absent_places(faults), settings.located(error)
    found = placed.faults if isinstance(placed, ConfigFaults) else (placed,)
    faults.extend(fault for fault in found if fault.place not in told)


def _plugins(settings: Settings, faults: list[ConfigError]) -> Registry | None:
    from aurixel.registry import Registry

    try:
        return Registry.load(settings.plugins.enabled)
    except ConfigError as error:
        _found(settings, faults, error)
        return None


def _checks(settings: Settings, registry: Registry, faults: list[ConfigError]) -> list[PolicyCheck] | None:
    """None where it cannot be known what they enforce."""
    try:
        return build_checks(settings, registry)
    except ConfigError as error:
        _found(settings, faults, error)
        return None


def _upstreams(settings: Settings, registry: Registry, faults: list[ConfigError]) -> None:
    for name, block in settings.upstreams.items():
        try:
            registry.build_provider(name, block.provider, block.settings, QuietHost(name))
        except ConfigError as error:
            _found(settings, faults, error)


def _live(shell: Shell, settings: Settings, registry: Registry) -> list[dict[str, Any]]:
    """What each upstream that can be made answers; those that cannot are among the faults."""
    from aurixel.cli.live import ask_all

    providers = {}
    for name, block in settings.upstreams.items():
        try:
            providers[name] = registry.build_provider(name, block.provider, block.settings, QuietHost(name))
        except ConfigError:
            continue
    return [
        {"upstream": name, "ok": answer.ok, "answer": answer.text, "status": answer.status}
        for name, answer in shell.run(ask_all(providers)).items()
    ]


def _payments(settings: Settings, registry: Registry, faults: list[ConfigError]) -> None:
    """Backends as `serve` would make them; the store is not opened for it."""
    from aurixel.cli.payments import bind_backend
    from aurixel.storage import open_store

    for name in settings.payments:
        try:
            if bind_backend(settings, registry, open_store(settings.store.url.reveal()), name).takes_payment:
                settings.order_rules.pages("")
        except ConfigError as error:
            _found(settings, faults, error)


def _files(settings: Settings, faults: list[ConfigError]) -> StoredCatalogue | None:
    from aurixel.catalog import read_files, route_faults

    try:
        files = read_files(*settings.catalogue_files)
    except ConfigError as error:
        _found(settings, faults, error)
        return None
    faults += route_faults(settings.catalogue_files[0], files, settings.upstreams)
    return files


def _settlement(settings: Settings) -> list[dict[str, str]]:
    """Where the settlement matrix in force is not the one we ship; empty where it cannot be known."""
    from aurixel.ledger import MATRIX, matrix_in_force, overridden

    try:
        matrix = matrix_in_force(settings.ledger.settlement)
    except ConfigError:
        return []  # it is among the faults
    return [
        {"ending": cell, "modality": modality, "rule": rule, "default": MATRIX[cell].rules[modality]}
        for cell, modality, rule in overridden(matrix)
    ]


class _Found(NamedTuple):
    """The catalogue that counts; `differ`: the files say something else."""

    source: str
    snapshot: Snapshot | None
    differ: bool = False


async def _store(
    shell: Shell,
    settings: Settings,
    files: StoredCatalogue | None,
    checks: list[PolicyCheck] | None,
    registry: Registry | None,
    faults: list[ConfigError],
) -> _Found:
    """The catalogue in force and where it is from; limits that nobody enforces are faults."""
    from aurixel.accounts import unenforced_limits
    from aurixel.catalog import Catalogue, preview

    from_files = _Found("none", None)
    if files is not None:
        from_files = _Found("files", preview(files, SystemClock().wall_ms()))
    if not store_exists(settings):
        return from_files  # opening the store would make it
    try:
        async with shell.store(settings) as store:
            catalogue = Catalogue(store, SystemClock())
            await catalogue.refresh()
            if checks is not None and registry is not None:
                loose = unenforced_limits(await store.key_limits(), checks, registry.enforcers())
                faults += [settings.located(fault) for fault in loose]
            if not catalogue.current.version:
                return from_files
            differ = files is not None and await catalogue.differs(files)
            return _Found("store", catalogue.current, differ)
    except ConfigError as error:
        _found(settings, faults, error)
        return from_files


def _models(settings: Settings, snapshot: Snapshot | None) -> list[dict[str, Any]]:
    if snapshot is None:
        return []
    now = SystemClock().wall_ms()
    rows = []
    for name in sorted(snapshot.models):
        model, book = snapshot.models[name], snapshot.price(name, now)
        upstreams = [route.upstream for route in model.routes if route.upstream in settings.upstreams]
        state = "unpriced" if book is None else "served" if upstreams else "no upstream"
        rows.append(
            {
                "model": name,
                "state": state,
                "operations": sorted(model.operations),
                "upstreams": upstreams,
                "prices": _prices(book) if book is not None else {},
                "effective": instant(book.effective_ms) if book is not None else None,
            }
        )
    return rows


def _prices(book: PriceBook) -> dict[str, str]:
    """USD per million units, or per one where that is how the class is priced."""
    return {
        name: format_usd(rate // 1_000_000 if name.partition(".")[0] in _PER_ONE else rate)
        for name, rate in sorted(book.rates.items())
    }


def _text(value: Mapping[str, Any], faults: list[ConfigError]) -> str:
    source = value["catalogue"]["source"]
    lines = [
        f"plugins    {', '.join(value['plugins']) or 'none'}",
        f"upstreams  {', '.join(f'{name} ({kind})' for name, kind in value['upstreams'].items()) or 'none'}",
        "catalogue  none" if source == "none" else f"catalogue  from the {source}, version {value['catalogue']['version']}",
    ]
    lines += [f"live       {answer['upstream']}: {answer['answer']}" for answer in value.get("live", ())]
    if value["payments"]:
        lines.insert(2, f"payments   {', '.join(value['payments'])}")
    if value["catalogue"]["files_differ"]:
        lines.append("           the files say something else: `aurixel reload` makes it count")
    if value["client_gone"] != "close":
        lines.append(f"ledger     client_gone = {value['client_gone']}")
    changed: dict[tuple[str, str, str], list[str]] = {}
    for each in value["settlement"]:
        changed.setdefault((each["ending"], each["rule"], each["default"]), []).append(each["modality"])
    for (ending, rule, default), modalities in changed.items():
        lines.append(f"settlement {ending}: {rule} for {', '.join(modalities)} (as shipped: {default})")
    rows = [
        [
            model["model"],
            model["state"],
            ", ".join(model["upstreams"]) or "-",
            "  ".join(f"{name} {price}" for name, price in model["prices"].items()) or "-",
        ]
        for model in value["models"]
    ]
    if rows:
        lines += ["", table(("model", "state", "upstreams", "USD per million (images, seconds, requests, tools: each)"), rows)]
    lines += ["", f"{many(len(faults), 'fault')}:" if faults else "no faults", *(str(fault) for fault in faults)]
    return "\n".join(lines)
