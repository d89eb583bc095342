"""What `serve` refuses to start with: everything missing or unsafe, all of it at once, each with its mend.

It looks at the settings and at the folders they name; plugins, prices and the store are checked where they are opened.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aurixel.config.sections import Settings, is_loopback
from aurixel.errors import ConfigError, ConfigFaults
from aurixel.ledger import matrix_in_force

SECRET_LENGTH: Final = 32
_DISTINCT: Final = 10  # a secret of fewer different characters was typed, not drawn
_MAKE_ONE: Final = "openssl rand -hex 32 makes one; keep it: keys are void under another"
SQLITE: Final = "sqlite:///"


def serve_faults(settings: Settings) -> list[ConfigError]:
    """Everything that forbids a production start; an empty list means go."""
    rooms = (secret_faults, _listening, _upstreams, _folders, _matrix)
    return [fault for faults in rooms for fault in faults(settings)]


def _matrix(settings: Settings) -> list[ConfigError]:
    try:
        matrix_in_force(settings.ledger.settlement)
    except ConfigFaults as faults:
        return [settings.located(fault) for fault in faults.faults]
    return []


def _unsafe(message: str, place: str, mend: str, code: str = "unsafe") -> ConfigError:
    return ConfigError(message, place=place, mend=mend, code=code)


def secret_faults(settings: Settings) -> list[ConfigError]:
    """Whether keys can be hashed: the server's secret is there and was drawn, not typed."""
    secret = settings.security.secret.reveal()
    place = settings.place("security", "secret")
    if not secret:
        return [_unsafe("the server's secret is not set", place, _MAKE_ONE, "secret_missing")]
    if len(secret) < SECRET_LENGTH or len(set(secret)) < _DISTINCT:
        fault = f"the server's secret is too weak: fewer than {SECRET_LENGTH} characters, or too few different ones"
        return [_unsafe(fault, place, _MAKE_ONE, "secret_weak")]
    return []


def _listening(settings: Settings) -> list[ConfigError]:
    server, faults = settings.server, []
    if not server.ops_listen.loopback and not settings.security.allow_public_ops:
        fault = "the ops port (metrics, health) would be open to other machines"
        mend = "listen on 127.0.0.1, or say security.allow_public_ops = true if the network is yours"
        faults.append(_unsafe(fault, settings.place("server", "ops_listen"), mend))
    if server.listen == server.ops_listen and server.listen.port:
        fault = "listen and ops_listen are the same"
        faults.append(_unsafe(fault, settings.place("server", "ops_listen"), "give them two ports"))
    for network in server.trusted_proxies:
        if network.prefixlen == 0:
            fault = f"trusted_proxies has {network}: every client could name its own address"
            faults.append(_unsafe(fault, settings.place("server", "trusted_proxies"), "name your proxies only"))
    public = urlsplit(server.public_url)
    if server.public_url and public.scheme != "https" and not is_loopback(public.hostname or ""):
        fault = "public_url is not https: keys would travel in the clear"
        faults.append(_unsafe(fault, settings.place("server", "public_url"), "put TLS in front, and write https://"))
    return faults


def _upstreams(settings: Settings) -> list[ConfigError]:
    faults = []
    if not settings.upstreams:
        mend = "add [upstreams.NAME] with provider, base_url and api_key; conf/examples has some"
        faults.append(_unsafe("there are no upstreams", settings.place("upstreams"), mend, "no_upstreams"))
    for name, block in settings.upstreams.items():
        address = urlsplit(str(block.settings.get("base_url", "")))
        plain = address.scheme == "http" and not is_loopback(address.hostname or "")
        if plain and not settings.security.allow_plain_http:
            fault = f"the upstream {name!r} is plain http: its key and all content would travel in the clear"
            mend = "write https://, or say security.allow_plain_http = true if the network is yours"
            faults.append(_unsafe(fault, settings.place("upstreams", name, "base_url"), mend))
        if block.provider == "demo" and not settings.security.allow_demo:
            fault = f"the upstream {name!r} is the demo: its answers are canned, and would be charged"
            mend = "remove it, or say security.allow_demo = true"
            faults.append(_unsafe(fault, settings.place("upstreams", name), mend))
    return faults


def _folders(settings: Settings) -> list[ConfigError]:
    faults = []
    url = settings.store.url.reveal()
    if url.startswith(SQLITE):
        folder = Path(url.removeprefix(SQLITE)).parent
        faults += _writable(folder, settings.place("store", "url"), "the store's folder")
    faults += _writable(settings.ledger.journal, settings.place("ledger", "journal"), "the journal's folder")
    return faults


def _writable(folder: Path, place: str, what: str) -> list[ConfigError]:
    """A folder that is there and writable, or can be made."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    why = "cannot be written" if there.is_dir() else "is not a folder"
    return [_unsafe(f"{what} {folder}: {there} {why}", place, "mend its owner or mode, or name another", "not_writable")]
