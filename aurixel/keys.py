"""API keys: their format, their hash at rest, and the small cache that turns one into a `Principal`.

A key is `ax-<id>-<secret><checksum>`: 12 of [a-z0-9] that are public, 32 of base62 that are not, and 6 that spot a typing
error without a look-up. The store sees ids and keyed hashes only. What the store says of a key is believed for at most
`KeyCache.ttl` seconds (never above 2), counted from before it was asked: that is how long a revocation can take.

A wrong secret, an id that never was and a revoked key run the same steps, and until the secret has been proved they get
the same answer. Nothing here writes.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
import string
import zlib
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from aurixel.clock import Clock
from aurixel.errors import ClientError, PolicyError
from aurixel.storage import KeyDoc, Profile, Store
from aurixel.values import Principal, Secret

ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
_CHECK_LENGTH: Final = 6
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PAIRS: Final = tuple(high + low for high in _BASE62 for low in _BASE62)
_FORMAT: Final = re.compile(rf"ax-([a-z0-9]{{{ID_LENGTH}}})-([0-9A-Za-z]{{{SECRET_LENGTH}}})[0-9A-Za-z]{{{_CHECK_LENGTH}}}")
# The hash of no secret: what an unknown id is compared with.
_NO_HASH: Final = bytes(32)
# The longest a revocation may take (docs/configuration.md).
MAX_TTL: Final = 2.0

# The limits of a stored key (name -> JSON value) as the enabled checks parsed them; raises for one that nobody enforces.
ParseLimits: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NewKey(NamedTuple):
    """A key that has just been made: `token` is what its owner gets, once; `secret` goes into the hash and nowhere else."""

    token: Secret
    id: str
    secret: Secret


def new_key() -> NewKey:
    """A key of the system's randomness: 62 bits of id, 190 bits of secret."""
    public = "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(_BASE62) for _ in range(SECRET_LENGTH))
    stem = f"ax-{public}-{secret}"
    return NewKey(Secret(stem + _checksum(stem)), public, Secret(secret))


def parse(token: str) -> tuple[str, str] | None:
    """(id, secret) of a well-formed key; None for anything else, whatever it is made of. No look-up."""
    found = _FORMAT.fullmatch(token)
    if found is None or _checksum(token[:-_CHECK_LENGTH]) != token[-_CHECK_LENGTH:]:
        return None
    public, secret = found.groups()
    return public, secret


def hash_secret(server_secret: Secret, id: str, secret: str) -> bytes:
    """What is stored of a key: HMAC-SHA256 under the server's secret, over the id and the key's secret. 32 bytes."""
    return hmac.digest(server_secret.reveal().encode(), f"aurixel-key-1:{id}:{secret}".encode(), "sha256")


def _checksum(stem: str) -> str:
    """CRC-32 as six base62 digits."""
    rest, low = divmod(zlib.crc32(stem.encode()), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


class _Entry(msgspec.Struct, frozen=True):
    """What the store said of an id: the hash to compare with, then either a principal or the refusal that follows.

    `until` by `Clock.boot()`. An id that is not there has `_NO_HASH`, which nothing hashes to.
    """

    hash: bytes
    until: float
    principal: Principal | None = None
    code: str = "invalid_key"


_REFUSALS: Final[Mapping[str, str]] = {
    "invalid_key": "This API key is not valid.",
    "key_revoked": "This API key has been revoked.",
    "key_expired": "This API key has expired.",
    "account_suspended": "The account of this API key is suspended or closed.",
}


class KeyCache:
    """Keys to principals. Bounded, single-flight per id; refusals are cached too, apart, so that they evict no good key.

    `parse_limits` turns stored limits into what the checks enforce; where it raises `LookupError` or `ValueError` the key
    is refused with `PolicyError("policy_unavailable")`.
    """

    def __init__(
        self,
        store: Store,
        secret: Secret,
        clock: Clock,
        parse_limits: ParseLimits,
        *,
        ttl: float = 1.5,
        max_entries: int = 10_000,
    ) -> None:
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"a key is believed for at most {MAX_TTL} s")
        self.ttl = ttl
        self._store, self._clock, self._parse_limits = store, clock, parse_limits
        self._boot = clock.boot
        self._secret = secret
        self._good: dict[str, _Entry] = {}
        self._bad: dict[str, _Entry] = {}
        self._max = max_entries
        self._flights: dict[str, asyncio.Future[_Entry]] = {}
        # Tokens whose secret was proved, by a hash that only this process can make: a twentieth of the proof's cost.
        self._salt = os.urandom(32)
        self._proved: dict[bytes, str] = {}

    def cached(self, token: str) -> Principal | None:
        """The caller, if the store was asked lately; None: ask with `resolve`. `ClientError` if the answer is known: no."""
        mark = blake2b(token.encode(), digest_size=16, key=self._salt).digest()
        known = self._good.get(self._proved.get(mark, ""))
        if known is not None and known.until >= self._boot():
            return known.principal
        parsed = parse(token)
        if parsed is None:
            raise ClientError("invalid_key", _REFUSALS["invalid_key"])
        public, secret = parsed
        entry = self._good.get(public) or self._bad.get(public)
        if entry is None or entry.until < self._boot():
            return None
        principal = _judge(entry, hash_secret(self._secret, public, secret))
        if len(self._proved) >= self._max:
            self._proved.clear()
        self._proved[mark] = public
        return principal

    async def resolve(self, token: str) -> Principal:
        """The caller, asking the store where needed. `ClientError`, or `StoreUnavailable` if the store gives no answer.

        `ClientError` codes: `invalid_key`, `key_revoked`, `key_expired` (401), `account_suspended` (403).
        """
        parsed = parse(token)
        if parsed is None:
            raise ClientError("invalid_key", _REFUSALS["invalid_key"])
        public, secret = parsed
        digest = hash_secret(self._secret, public, secret)
        entry = self._good.get(public) or self._bad.get(public)
        if entry is None or entry.until < self._boot():
            entry = await self._ask(public)
        return _judge(entry, digest)

    def forget(self, id: str) -> None:
        """Believe nothing about this key any more."""
        self._good.pop(id, None)
        self._bad.pop(id, None)

    async def _ask(self, id: str) -> _Entry:
        """One question to the store per id at a time; a caller that leaves hands the asking to the next."""
        while (flight := self._flights.get(id)) is not None:
            await asyncio.wait((flight,))  # the store's own deadline ends it
            if not flight.cancelled():
                return flight.result()
        flight = self._flights[id] = asyncio.get_running_loop().create_future()
        try:
            entry = await self._read(id)
        except asyncio.CancelledError:
            flight.cancel()
            raise
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # seen: there may be nobody else waiting
            raise
        else:
            flight.set_result(entry)
            self._keep(id, entry)
            return entry
        finally:
            if not flight.done():
                flight.cancel()
            del self._flights[id]

    async def _read(self, id: str) -> _Entry:
        asked = self._clock.boot()
        until = asked + self.ttl
        key = await self._store.key_read(id)
        profile = await self._store.profile_read(key.account if key is not None else "")  # the same steps for an unknown id
        if key is None:
            return _Entry(_NO_HASH, until)
        code = _refusal(key, profile, self._clock.wall_ms())
        if code is not None:
            return _Entry(key.hash, until, None, code)
        try:
            limits = self._parse_limits(key.limits) if key.limits else {}
        except (LookupError, ValueError):
            return _Entry(key.hash, until, None, "policy_unavailable")
        if key.expires_ms is not None:
            until = min(until, asked + (key.expires_ms - self._clock.wall_ms()) / 1000)
        return _Entry(key.hash, until, Principal(key.account, key.id, limits))

    def _keep(self, id: str, entry: _Entry) -> None:
        self.forget(id)
        room = self._good if entry.principal is not None else self._bad
        if len(room) >= self._max:
            del room[next(iter(room))]  # the oldest answer
        room[id] = entry


def _refusal(key: KeyDoc, profile: Profile | None, now_ms: int) -> str | None:
    if key.revoked_ms is not None:
        return "key_revoked"
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return "key_expired"
    if profile is None or profile.status != "active":
        return "account_suspended"
    return None


def _judge(entry: _Entry, digest: bytes) -> Principal:
    if not hmac.compare_digest(entry.hash, digest):
        raise ClientError("invalid_key", _REFUSALS["invalid_key"])
    if entry.principal is not None:
        return entry.principal
    if entry.code == "policy_unavailable":
        raise PolicyError("policy_unavailable", "A limit of this API key is enforced by nobody here: the key is not served.")
    raise ClientError(entry.code, _REFUSALS[entry.code])
