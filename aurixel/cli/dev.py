"""`aurixel dev`: a gateway to try, from nothing: a store of its own, the demo, an account with credit, a new key.

What it makes lives in one folder, its configuration among it, so that every other command works on it with `--config`.
The newest key is kept there too, readable by its owner alone, so that the printed lines work without repeating it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aurixel.cli.shell import CONFIG_FILE, Shell, shared
from aurixel.errors import ConfigError
from aurixel.values import NANOS_PER_USD, Nanos, format_usd

if TYPE_CHECKING:
    from aurixel.accounts import IssuedKey
    from aurixel.app import App
    from aurixel.clock import Clock
    from aurixel.storage import Store

EMAIL: Final = "dev@localhost"
CREDIT: Final[Nanos] = 10 * NANOS_PER_USD
LITTLE: Final[Nanos] = NANOS_PER_USD  # with less than this, the account gets CREDIT again
_DEMO: Final = Path(__file__).parent / "demo"
# What a start may be refused for, and what helps here, where nobody edits the configuration.
_MENDS: Final = {
    "address_unusable": "stop what listens there, or name another port with --port; the ops port is 1000 above it",
    "journal_unusable": "stop the gateway that runs there, or name another folder with --dir and another port with --port",
}
# The demo as an upstream: one that speaks both families, and one of each alone, for translations to be seen.
_DEMOS: Final[Mapping[str, Mapping[str, Any]]] = {
    "demo": {},
    "demo-chat": {"speaks": ["openai_chat"]},
    "demo-messages": {"speaks": ["anthropic_messages"]},
}
_KEPT: Final = ("plugins", "policy", "upstreams")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8700, show_default=True, help="Where to listen; 0: any.")
@click.option("--upstream", "upstreams", multiple=True, metavar="NAME=URL", help="Send upstream NAME to URL; repeatable.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/dev"),
    show_default=True,
    help="Where its store, journal, configuration and key live.",
)
@shared
def dev(shell: Shell, port: int, upstreams: tuple[str, ...], folder: Path) -> None:
    """Run a gateway to try, on this machine only.

    Prints a new key, alone on its line, and lines for curl that work as they are. Plugins, models, prices and upstreams
    are those of the configuration, if there is one; an upstream whose key is not in the environment is left out, and the
    demo, which answers without any upstream, is always there.

    \b
    aurixel dev
    aurixel dev --port 9000 --upstream openai=http://127.0.0.1:4010/v1
    aurixel usage dev@localhost --config var/dev/aurixel.toml
    """
    import uvloop

    from aurixel import app, logs
    from aurixel.config import load
    from aurixel.tomlfile import TomlFile

    _writable(folder)
    base = shell.config or (CONFIG_FILE if CONFIG_FILE.exists() else None)
    secret = _secret(folder)
    file = folder / "aurixel.toml"
    text = _config(shell, base, port, [_named(text) for text in upstreams], folder, secret)
    settings = load(TomlFile(str(file), text))
    key_file = folder.absolute() / "key"

    async def ready(running: app.App) -> None:
        # Only now is it sure that nobody else runs here, whose files these would be.
        _write(folder / "secret", secret + "\n")
        _write(file, text)
        issued, available = await _prepare(running)
        _write(key_file, issued.token.reveal() + "\n")
        url = f"http://127.0.0.1:{running.ports[0]}"
        value = {
            "url": url,
            "account": EMAIL,
            "available": format_usd(available),
            "id": issued.id,
            "key": issued.token.reveal(),
            "config": str(file),
        }
        shell.show(value, _welcome(url, issued, available, key_file, file))

    logs.configure(settings.logging.level, settings.logging.format)
    try:
        uvloop.run(app.serve(settings, ready=ready))
    except ConfigError as error:
        if (mend := _MENDS.get(error.code)) is None:
            raise settings.located(error) from error
        raise ConfigError(error.message, mend=mend, code=error.code) from error


def _named(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} is not NAME=URL", param_hint="--upstream")
    return name, url


def _welcome(url: str, issued: IssuedKey, available: Nanos, key_file: Path, file: Path) -> str:
    key = f"$(cat {shlex.quote(str(key_file))})"
    body = '{"model": "demo", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'
    head = f"-H 'content-type: application/json' -d '{body}'"
    return "\n".join(
        (
            f"Aurixel listens on {url}; {EMAIL} has {format_usd(available)} USD. A new key, shown this once:",
            "",
            issued.token.reveal(),
            "",
            "Try it, in either family:",
            "",
            f'curl -N {url}/v1/chat/completions -H "authorization: Bearer {key}" {head}',
            "",
            f'curl -N {url}/v1/messages -H "x-api-key: {key}" -H "anthropic-version: 2023-06-01" {head}',
            "",
            f"What it cost: {_program()} usage {EMAIL} --config {shlex.quote(str(file))}",
        )
    )


def _program() -> str:
    """How this was started, so that the next command is found as well."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m aurixel"
    found = shutil.which("aurixel")
    if started.name != "aurixel" or (found is not None and started.exists() and started.samefile(found)):
        return "aurixel"
    return shlex.quote(str(started))


async def _prepare(running: App) -> tuple[IssuedKey, Nanos]:
    """The catalogue as the files say, the account with credit, a new key."""
    from aurixel.accounts import create_key, limits_parser
    from aurixel.catalog import StoredCatalogue, read_files

    settings, store, clock = running.settings, running.store, running.clock
    files, demo = read_files(*settings.catalogue_files), read_files(_DEMO / "models.toml", _DEMO / "prices.toml")
    more = [price for price in demo.prices if price.model not in files.models]
    both = StoredCatalogue(models={**demo.models, **files.models}, prices=[*files.prices, *more], costs=files.costs)
    await running.catalogue.publish(both, "dev")
    available = await _credited(store, clock)
    issued = await create_key(store, clock, settings.security.secret, EMAIL, parse_limits=limits_parser(()), name="dev")
    return issued, available


async def _credited(store: Store, clock: Clock) -> Nanos:
    from aurixel.accounts import AccountRefused, create_account, find_account, show_account
    from aurixel.ledger import Movements

    try:
        profile = await create_account(store, clock, EMAIL)
    except AccountRefused as refused:
        if refused.code != "account_exists":
            raise
        profile = await find_account(store, EMAIL)
    shown = await show_account(store, EMAIL)
    if shown.available + shown.leased < LITTLE:
        name = f"grant:dev-{secrets.token_hex(8)}"
        await Movements(store, clock).apply(profile.account, name, "grant", CREDIT, "aurixel dev", "dev")
        shown = await show_account(store, EMAIL)
    return shown.available + shown.leased


# --- the configuration it writes ----------------------------------------------------------------------------------------


def _config(shell: Shell, base: Path | None, port: int, sent: list[tuple[str, str]], folder: Path, secret: str) -> str:
    """The folder's aurixel.toml: the base's plugins, policies and upstreams, everything else its own."""
    from aurixel.tomlfile import read_toml

    data = read_toml(base).data if base is not None else {}
    kept: dict[str, Any] = {name: dict(data[name]) for name in _KEPT if isinstance(data.get(name), dict)}
    upstreams = kept.setdefault("upstreams", {})
    plugins = kept.setdefault("plugins", {})
    plugins["enabled"] = list(plugins.get("enabled", ["openai", "anthropic", "limits"]))
    for name, url in sent:
        block = dict(upstreams.get(name, {"provider": name}))
        if block.get("provider") not in plugins["enabled"] and name not in upstreams:
            plugins["enabled"].append(name)
        absent = dict.fromkeys(_absent(block), "none")
        upstreams[name] = {"api_key": "none", **block, **absent, "base_url": url}
    for name in [name for name, block in upstreams.items() if isinstance(block, dict) and _absent(block)]:
        variables = ", ".join(_absent(upstreams.pop(name)).values())
        shell.note(f"upstream {name} is left out: the environment has no {variables}")
    if "demo" not in plugins["enabled"]:
        plugins["enabled"].append("demo")
    for name, more in _DEMOS.items():
        upstreams.setdefault(name, {"provider": "demo", "delay": 0.03} | dict(more))
    if base is None:
        kept["policy"] = {"limits": {}}
    files = data.get("catalogue", {}) if base is not None else {}
    root = base.parent.absolute() if base is not None else _DEMO
    ops = port + 1000 if 0 < port <= 64535 else 0
    own = {
        "server": {"listen": f"127.0.0.1:{port}", "ops_listen": f"127.0.0.1:{ops}", "drain_deadline": 2.0},
        "security": {"secret": secret, "allow_demo": True},
        "store": {"url": f"sqlite:///{folder.absolute() / 'aurixel.db'}"},
        "catalogue": {name: str(root / files.get(name, f"{name}.toml")) for name in ("models", "prices")},
        "ledger": {"journal": str(folder.absolute() / "journal")},
        "logging": {"level": "warning", "format": "text"},
    }
    head = "# Written by `aurixel dev` at each start: change the configuration it is made from instead.\n"
    return head + "".join(f"{line}\n" for line in _toml({**own, **kept}))


def _absent(block: Mapping[str, Any]) -> dict[str, str]:
    """Key -> the variable that its `env:NAME` names in vain."""
    named = {
        key: value.removeprefix("env:") for key, value in block.items() if isinstance(value, str) and value.startswith("env:")
    }
    return {key: variable for key, variable in named.items() if not os.environ.get(variable)}


def _secret(folder: Path) -> str:
    """The one of the last start, so that keys stay good; else a new one."""
    try:
        return (folder / "secret").read_text().strip()
    except FileNotFoundError:
        return secrets.token_hex(32)


def _writable(folder: Path) -> None:
    """The folder is there; `ConfigError` if nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _not_writable(folder, error) from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise _not_writable(path, error) from None


def _not_writable(path: Path, error: OSError) -> ConfigError:
    mend = "name another folder with --dir"
    return ConfigError(f"cannot be written: {error.strerror}", place=str(path), mend=mend, code="not_writable")


def _toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """A table as TOML: its values first, then the tables in it."""
    if path:
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name, value in table.items():
        if not isinstance(value, dict):
            yield f"{_key(name)} = {_value(value)}"
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _toml(value, (*path, name))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: object) -> str:
    """JSON's strings, numbers and booleans are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    if isinstance(value, (str, bool, int, float)):
        return _text(value)
    return str(value)  # dates and times
