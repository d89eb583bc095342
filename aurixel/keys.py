"""API keys: their format, their hash at rest, and the small cache that turns one into a `Principal`.

A key is `ax-<id>-<secret><checksum>`: 12 of [a-z0-9] that are public, 32 of base62 that are not, and 6 that spot a typing
error without a look-up. The store sees ids and keyed hashes only. What the store says of a key is believed for at most
`KeyCache.ttl` seconds (never above 2), counted from before it was asked: that is how long a revocation can take while the
store answers. Where it does not, or not soon, a key that it has vouched for is believed for `believe_for` seconds more,
never beyond its expiry: requests neither fail nor wait for a store that is away.

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
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from aurixel.clock import Clock
from aurixel.errors import ClientError, PolicyError, StoreUnavailable
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
# How long a caller waits for news of a key that was good, in seconds, and how long any look-up may take.
SOON: Final = 0.25
LOOK_UP_WITHIN: Final = 5.0

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

    It holds until `until`, or until `doubtful` where the store does not say otherwise; by `Clock.boot()`. An id that is not
    there has `_NO_HASH`, which nothing hashes to.
    """

    hash: bytes
    until: float
    doubtful: float
    principal: Principal | None = None
    code: str = "invalid_key"


_REFUSALS: Final[Mapping[str, str]] = {
    "invalid_key": "This API key is not valid.",
    "key_revoked": "This API key has been revoked.",
    "key_expired": "This API key has expired.",
    "account_suspended": "The account of this API key is suspended or closed.",
}


class _Flight:
    """One question to the store. `wanted`: how many still want the answer; nobody leaves one that is asked to renew a key."""

    __slots__ = ("began", "task", "wanted")

    def __init__(self, task: asyncio.Task[_Entry], began: float) -> None:
        self.task, self.began = task, began
        self.wanted = 0


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
        believe_for: float = 0.0,
        max_entries: int = 10_000,
    ) -> None:
        if not 0 < ttl <= MAX_TTL:
            raise ValueError(f"a key is believed for at most {MAX_TTL} s")
        self.ttl = ttl
        self._believe_for = max(ttl, believe_for)
        self._store, self._clock, self._parse_limits = store, clock, parse_limits
        self._boot = clock.boot
        self._secret = secret
        self._good: dict[str, _Entry] = {}
        self._bad: dict[str, _Entry] = {}
        self._max = max_entries
        self._flights: dict[str, _Flight] = {}
        self._late: dict[str, float] = {}  # good keys of which the store had no news in time, and when that was found
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
        if entry is None:
            return None
        digest = hash_secret(self._secret, public, secret)
        now = self._boot()
        if entry.until >= now:
            principal = _judge(entry, digest)
            if len(self._proved) >= self._max:
                self._proved.clear()
            self._proved[mark] = public
            return principal
        if not (self._overdue(public, now) and _vouched(entry, digest, now)):
            return None
        self._fly(public).wanted += 1
        return entry.principal

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
        now = self._boot()
        if entry is not None and entry.until >= now:
            return _judge(entry, digest)
        if entry is not None and _vouched(entry, digest, now):
            answer = await self._news(public)
            return _judge(entry if answer is None else answer, digest)
        return _judge(await self._answer(public), digest)

    def forget(self, id: str) -> None:
        """Believe nothing about this key any more."""
        self._good.pop(id, None)
        self._bad.pop(id, None)
        self._late.pop(id, None)

    async def close(self) -> None:
        """Ask nothing more."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fly(self, id: str) -> _Flight:
        """The question to the store about this id: one at a time."""
        flight = self._flights.get(id)
        if flight is None:
            task = asyncio.create_task(self._read(id), name="key")  # noqa: TID251 - `close` ends it
            flight = self._flights[id] = _Flight(task, self._boot())
            task.add_done_callback(partial(self._landed, id, flight))
        return flight

    def _landed(self, id: str, flight: _Flight, task: asyncio.Task[_Entry]) -> None:
        if self._flights.get(id) is flight:
            del self._flights[id]
        if task.cancelled():
            return
        error = task.exception()  # seen: there may be nobody waiting
        now = self._boot()
        late = now - flight.began > SOON
        if error is None:
            self._keep(id, task.result())
        elif isinstance(error, StoreUnavailable):
            late = True
        else:
            self._late.pop(id, None)  # a bug: the next caller asks for itself, and meets it
            return
        if late and id in self._good:
            self._late[id] = now

    def _overdue(self, id: str, now: float) -> bool:
        """Whether the store is being asked without an answer, or was just now asked in vain: no caller need wait again."""
        flight = self._flights.get(id)
        return (flight is not None and now - flight.began > SOON) or now - self._late.get(id, float("-inf")) < self.ttl

    async def _answer(self, id: str) -> _Entry:
        """What the store says; nobody asks any more once every caller has left."""
        flight = self._fly(id)
        flight.wanted += 1
        try:
            await asyncio.wait((flight.task,))
        finally:
            flight.wanted -= 1
            if not flight.wanted and not flight.task.done():
                del self._flights[id]
                flight.task.cancel()
        if flight.task.cancelled():
            raise StoreUnavailable("the gateway asks nothing more")
        return flight.task.result()

    async def _news(self, id: str) -> _Entry | None:
        """What the store says of a key that was good, None if it does not say so soon; what comes later is kept."""
        flight = self._fly(id)
        flight.wanted += 1
        await asyncio.wait((flight.task,), timeout=SOON)
        if flight.task.done() and not flight.task.cancelled() and not isinstance(flight.task.exception(), StoreUnavailable):
            return flight.task.result()
        if id in self._good:
            self._late[id] = self._boot()
        return None

    async def _read(self, id: str) -> _Entry:
        asked = self._boot()
        until, doubtful = asked + self.ttl, asked + self._believe_for
        try:
            async with asyncio.timeout(LOOK_UP_WITHIN):
                key = await self._store.key_read(id)
                # The same steps for an unknown id.
                profile = await self._store.profile_read(key.account if key is not None else "")
        except TimeoutError as error:
            raise StoreUnavailable("no answer about a key in time") from error
        if key is None:
            return _Entry(_NO_HASH, until, until)
        code = _refusal(key, profile, self._clock.wall_ms())
        if code is not None:
            return _Entry(key.hash, until, until, None, code)
        try:
            limits = self._parse_limits(key.limits) if key.limits else {}
        except (LookupError, ValueError):
            return _Entry(key.hash, until, until, None, "policy_unavailable")
        if key.expires_ms is not None:
            expiry = asked + (key.expires_ms - self._clock.wall_ms()) / 1000
            until, doubtful = min(until, expiry), min(doubtful, expiry)
        return _Entry(key.hash, until, doubtful, Principal(key.account, key.id, limits))

    def _keep(self, id: str, entry: _Entry) -> None:
        self.forget(id)
        room = self._good if entry.principal is not None else self._bad
        if len(room) >= self._max:
            self.forget(next(iter(room)))  # the oldest answer
        room[id] = entry


def _refusal(key: KeyDoc, profile: Profile | None, now_ms: int) -> str | None:
    if key.revoked_ms is not None:
        return "key_revoked"
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return "key_expired"
    if profile is None or profile.status != "active":
        return "account_suspended"
    return None


def _vouched(entry: _Entry, digest: bytes, now: float) -> bool:
    """Whether this was a good key with this secret, lately enough to be believed while the store is away."""
    return entry.principal is not None and now < entry.doubtful and hmac.compare_digest(entry.hash, digest)


def _judge(entry: _Entry, digest: bytes) -> Principal:
    if not hmac.compare_digest(entry.hash, digest):
        raise ClientError("invalid_key", _REFUSALS["invalid_key"])
    if entry.principal is not None:
        return entry.principal
    if entry.code == "policy_unavailable":
        raise PolicyError("policy_unavailable", "A limit of this API key is enforced by nobody here: the key is not served.")
    raise ClientError(entry.code, _REFUSALS[entry.code])
