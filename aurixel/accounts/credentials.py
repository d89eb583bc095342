"""The keys of an account: issued once, listed without their secrets, revoked for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from aurixel.accounts.people import AccountRefused, find_account
from aurixel.clock import Clock
from aurixel.errors import ConfigError
from aurixel.keys import hash_secret, new_key
from aurixel.plugin import PolicyCheck
from aurixel.storage import KeyDoc, Store
from aurixel.values import STRICT_LIMIT, Secret

NAME_LENGTH: Final = 100
KeyStatus = Literal["active", "expired", "revoked"]
# Limits as they are stored (name -> JSON value) to limits as the enabled checks enforce them.
LimitsParser: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class IssuedKey(msgspec.Struct, frozen=True):
    """A key that was just made. `token` is shown once: the store has its hash only."""

    id: str
    token: Secret


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is shown; instants in milliseconds since the epoch."""

    id: str
    name: str
    status: KeyStatus
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    limits: dict[str, Any]


class LimitRefused(LookupError, AccountRefused):
    """A limit that no enabled check stands behind: enforced by nobody, so it is not accepted."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        have = ", ".join(sorted(known)) or "none"
        AccountRefused.__init__(
            self,
            "limit_unenforced",
            f"no enabled check enforces the limit {name!r}; enforced here: {have}. A check is enabled by "
            "its plugin in plugins.enabled and a block [policy.NAME]",
            typed=True,
        )


def limits_parser(checks: Iterable[PolicyCheck]) -> LimitsParser:
    """Parses limits through whichever of the checks enforces each, and the gateway's own: for `create_key`, and for
    `KeyCache`.

    The parser raises `LimitRefused` (a `LookupError`) for a limit nobody enforces, `ValueError` for a wrong value.
    """
    enforcers = {name: check for check in checks for name in check.enforces}

    def parse(limits: Mapping[str, Any]) -> Mapping[str, Any]:
        parsed: dict[str, Any] = {}
        for name, value in limits.items():
            if name == STRICT_LIMIT:
                if not isinstance(value, bool):
                    raise ValueError(f"the limit {name!r} is true or false")
                parsed[name] = value
                continue
            check = enforcers.get(name)
            if check is None:
                raise LimitRefused(name, (*enforcers, STRICT_LIMIT))
            parsed[name] = check.parse_limit(name, value)
        return parsed

    return parse


def unenforced_limits(
    limits: Mapping[str, int], checks: Iterable[PolicyCheck], offered: Mapping[str, type[PolicyCheck]]
) -> list[ConfigError]:
    """A fault for each limit that keys carry (limit -> keys) and none of the checks enforces.

    `offered`: limit -> the check that an enabled plugin offers for it, and that lacks its block only.
    """
    enforced = frozenset({STRICT_LIMIT}).union(*(check.enforces for check in checks))
    faults = []
    for limit, keys in sorted(limits.items()):
        if limit in enforced:
            continue
        carry = "1 key carries" if keys == 1 else f"{keys} keys carry"
        fault = f"{carry} the limit '{limit}', which no enabled check enforces"
        if limit in offered:
            place, mend = "policy", f"add the block [policy.{offered[limit].name}], or revoke what carries it"
        else:
            place, mend = "plugins.enabled", "enable the plugin that enforces it, or revoke what carries it"
        faults.append(ConfigError(fault, place=place, mend=mend, code="limit_unenforced"))
    return faults


async def create_key(
    store: Store,
    clock: Clock,
    secret: Secret,
    email: str,
    *,
    parse_limits: LimitsParser,
    name: str = "",
    limits: Mapping[str, Any] | None = None,
    expires_ms: int | None = None,
) -> IssuedKey:
    """A new key for an account; `secret` is the server's own, which keys the hash.

    `AccountRefused`: as `find_account`, and `account_closed`, `name_invalid`, `expiry_past`, `limit_unenforced`,
    `limit_invalid`.
    """
    profile = await find_account(store, email)
    if profile.status != "active":
        raise AccountRefused("account_closed", f"the account is {profile.status}")
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise AccountRefused("name_invalid", f"a key's name is at most {NAME_LENGTH} printable characters", typed=True)
    now = clock.wall_ms()
    if expires_ms is not None and expires_ms <= now:
        raise AccountRefused("expiry_past", "the key would have expired already", typed=True)
    limits = dict(limits or {})
    try:
        parse_limits(limits)
    except ValueError as error:
        raise AccountRefused("limit_invalid", str(error), typed=True) from None
    while True:
        key = new_key()
        doc = KeyDoc(
            id=key.id,
            account=profile.account,
            hash=hash_secret(secret, key.id, key.secret.reveal()),
            name=name,
            created_ms=now,
            expires_ms=expires_ms,
            limits=limits,
        )
        if await store.key_new(doc):
            return IssuedKey(key.id, key.token)


async def list_keys(store: Store, clock: Clock, email: str) -> list[KeyView]:
    """The keys of an account, oldest first. `AccountRefused` as `find_account`."""
    profile = await find_account(store, email)
    now = clock.wall_ms()
    keys = await store.keys_of(profile.account)
    return [
        KeyView(
            id=key.id,
            name=key.name,
            status=key_status(key, now),
            created_ms=key.created_ms,
            expires_ms=key.expires_ms,
            revoked_ms=key.revoked_ms,
            limits=key.limits,
        )
        for key in sorted(keys, key=lambda key: (key.created_ms, key.id))
    ]


async def revoke_key(store: Store, clock: Clock, email: str, id: str) -> bool:
    """Revoke a key for good; nodes stop believing it within `aurixel.keys.MAX_TTL` seconds. False: it was revoked before.

    `AccountRefused`: as `find_account`, and `key_unknown` where the account has no such key.
    """
    profile = await find_account(store, email)
    key = await store.key_read(id)
    if key is None or key.account != profile.account:
        raise AccountRefused("key_unknown", f"the account has no key {id!r}")
    return await store.key_revoke(id, clock.wall_ms())


def key_status(key: KeyDoc, now_ms: int) -> KeyStatus:
    """Whether a key may be used at an instant."""
    if key.revoked_ms is not None:
        return "revoked"
    return "expired" if key.expires_ms is not None and key.expires_ms <= now_ms else "active"
