"""`aurixel key`: issue, list and revoke API keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from aurixel.cli.shell import Instant, Shell, instant, shared, table
from aurixel.clock import SystemClock

if TYPE_CHECKING:
    from aurixel.accounts import IssuedKey, KeyView
    from aurixel.accounts.credentials import LimitsParser
    from aurixel.config import Settings
    from aurixel.storage import Store


@click.group()
def key() -> None:
    """API keys: what a client sends to spend an account's credit."""


@key.command()
@click.argument("email")
@click.option("--name", default="", help="What to call the key in lists.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only this model; may be repeated.")
@click.option("--ip", "ips", multiple=True, metavar="CIDR", help="Only from this address or network; may be repeated.")
@click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute.")
@click.option("--tpm", type=click.IntRange(min=1), help="Tokens a minute, input and output together.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests at the same time.")
@click.option("--strict", is_flag=True, help="Refuse what another API family's upstream cannot be told as it is.")
@click.option("--limit", "others", multiple=True, metavar="NAME=VALUE", help="A limit of another check; JSON, or a word.")
@click.option("--expires", type=Instant(ahead=True), help="When it ends: a date (UTC), or a span such as 90d.")
@shared
def create(
    shell: Shell,
    email: str,
    name: str,
    models: tuple[str, ...],
    ips: tuple[str, ...],
    rpm: int | None,
    tpm: int | None,
    concurrency: int | None,
    strict: bool,
    others: tuple[str, ...],
    expires: int | None,
) -> None:
    """Make a key for the account of EMAIL and print it, this once.

    The key is alone on its line of stdout, so this works: KEY=$(aurixel key create ada@example.com)

    \b
    aurixel key create ada@example.com --name ci --model small --rpm 60 --expires 90d
    aurixel key create ada@example.com --ip 192.0.2.0/24 --concurrency 4
    """
    from aurixel.accounts import create_key
    from aurixel.config.safety import secret_faults
    from aurixel.errors import ConfigFaults

    limits: dict[str, Any] = {"models": list(models), "ips": list(ips), "rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    limits["strict"] = strict
    limits = {limit: value for limit, value in limits.items() if value} | dict(_other(text) for text in others)
    settings = shell.settings("store", "security", "plugins", "policy")
    if faults := secret_faults(settings):
        raise ConfigFaults(faults)
    parser = _parser(settings)

    async def work() -> tuple[IssuedKey, list[str]]:
        async with shell.store(settings) as store:
            issued = await create_key(
                store,
                SystemClock(),
                settings.security.secret,
                email,
                parse_limits=parser,
                name=name,
                limits=limits,
                expires_ms=expires,
            )
            return issued, await _unknown(store, models)

    issued, unknown = shell.run(work())
    for model in unknown:
        shell.note(f"warning: the catalogue has no model {model!r} now; the key may use it once there is one")
    shell.note(f"key {issued.id}, shown this once:")
    shell.show({"id": issued.id, "key": issued.token.reveal()}, issued.token.reveal())


@key.command("list")
@click.argument("email")
@shared
def list_(shell: Shell, email: str) -> None:
    """List the keys of the account of EMAIL, without their secrets."""
    from aurixel.accounts import list_keys

    async def work() -> list[KeyView]:
        async with shell.store(shell.settings("store")) as store:
            return await list_keys(store, SystemClock(), email)

    keys = [
        {
            "id": view.id,
            "name": view.name,
            "status": view.status,
            "created": instant(view.created_ms),
            "expires": instant(view.expires_ms),
            "revoked": instant(view.revoked_ms),
            "limits": view.limits,
        }
        for view in shell.run(work())
    ]
    head = ("id", "name", "status", "created", "expires", "limits")
    rows = [[_cell(view[column]) for column in head] for view in keys]
    shell.show(keys, table(head, rows) if rows else "no keys yet")


@key.command()
@click.argument("email")
@click.argument("id")
@shared
def revoke(shell: Shell, email: str, id: str) -> None:
    """Revoke the key ID of the account of EMAIL, for good. Running gateways refuse it within two seconds."""
    from aurixel.accounts import revoke_key

    async def work() -> bool:
        async with shell.store(shell.settings("store")) as store:
            return await revoke_key(store, SystemClock(), email, id)

    done = shell.run(work())
    shell.show({"id": id, "revoked": True}, f"revoked {id}" if done else f"{id} was revoked before")


async def _unknown(store: Store, models: tuple[str, ...]) -> list[str]:
    """Those that the catalogue does not name; none where there is no catalogue yet."""
    from aurixel.catalog import Catalogue

    catalogue = Catalogue(store, SystemClock())
    await catalogue.refresh()
    return [model for model in models if model not in catalogue.current.models] if catalogue.current.version else []


def _parser(settings: Settings) -> LimitsParser:
    from aurixel.accounts import limits_parser
    from aurixel.cli.plugins import checks_of

    return limits_parser(checks_of(settings))


def _other(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--limit")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={','.join(part) if isinstance(part, list) else part}" for name, part in value.items()) or "-"
    return str(value) if value else "-"
