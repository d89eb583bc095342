"""The format of a key, its hash, and the cache that believes the store for a moment."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.errors import ClientError, PolicyError, StoreUnavailable
from aurixel.keys import ID_LENGTH, MAX_TTL, KeyCache, NewKey, hash_secret, new_key, parse
from aurixel.storage import KeyDoc, Profile, Store, open_store
from aurixel.values import Principal, Secret

SERVER = Secret("the server's own secret, of some length")
NOW = 1_769_817_600_000


class Clock:
    """Time stands still unless a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def wall_ms(self) -> int:
        return NOW + round((self.seconds - 1000.0) * 1000)

    def boot(self) -> float:
        return self.seconds


class Watched:
    """A store that remembers what it was asked, and answers when the test lets it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[str] = []
        self.called = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.silent = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any) -> Any:
            self.asked.append(name)
            self.called.set()
            await self.open.wait()
            if self.silent:
                raise StoreUnavailable("no answer")
            return await method(*args)

        return call


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Watched]:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    await store.open()
    await store.profile_new(Profile(account="acc", email="a@b", status="active", created_ms=0))
    yield Watched(store)
    await store.close()


def cache(store: Watched, clock: Clock | None = None, **options: Any) -> KeyCache:
    options.setdefault("parse_limits", dict)
    return KeyCache(store, SERVER, clock or Clock(), **options)  # type: ignore[arg-type]


async def issue(store: Watched, **fields: Any) -> NewKey:
    key = new_key()
    hashed = hash_secret(SERVER, key.id, key.secret.reveal())
    doc = {"id": key.id, "account": "acc", "hash": hashed, "name": "", "created_ms": 0} | fields
    await store.key_new(KeyDoc(**doc))
    store.asked.clear()
    store.called.clear()
    return key


async def refusal(cache: KeyCache, token: str) -> str:
    with pytest.raises((ClientError, PolicyError)) as refused:
        await cache.resolve(token)
    assert not token or token not in repr(refused.value) + refused.value.message
    return refused.value.code


# --- the format -------------------------------------------------------------------------------------------------------


def test_a_new_key_has_the_documented_form() -> None:
    key = new_key()
    token = key.token.reveal()
    assert token.startswith(f"ax-{key.id}-{key.secret.reveal()}")
    assert len(token) == 54
    assert parse(token) == (key.id, key.secret.reveal())


def test_keys_do_not_repeat() -> None:
    assert len({new_key().id for _ in range(1000)}) == 1000


def test_a_new_key_shows_itself_to_nobody() -> None:
    """Pitfall 24."""
    key = new_key()
    assert key.secret.reveal() not in repr(key) + str(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_any_one_wrong_character_is_noticed_without_a_look_up() -> None:
    token = new_key().token.reveal()
    for at in range(len(token)):
        for other in "aZ0-_ ":
            if other != token[at]:
                assert parse(token[:at] + other + token[at + 1 :]) is None


def test_two_characters_swapped_are_noticed() -> None:
    token = new_key().token.reveal()
    for at in range(len(token) - 1):
        swapped = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
        assert swapped == token or parse(swapped) is None


@given(st.text() | st.from_regex(r"ax-[a-z0-9]{12}-[0-9A-Za-z]{38}", fullmatch=True))
def test_what_is_not_a_key_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("extra", ["\n", " ", "\x00", "é"])
def test_nothing_may_follow_or_lead(extra: str) -> None:
    token = new_key().token.reveal()
    assert parse(token + extra) is None
    assert parse(extra + token) is None


def test_the_hash_depends_on_the_server_the_id_and_the_secret() -> None:
    hashes = {
        hash_secret(Secret(server), public, secret)
        for server in ("s1", "s2")
        for public, secret in (("a", "b"), ("a", "c"), ("d", "b"), ("a:b", ""), ("", "a:b"))
    }
    assert len(hashes) == 10
    assert {len(each) for each in hashes} == {32}


# --- the cache --------------------------------------------------------------------------------------------------------


async def test_a_good_key_is_its_accounts_principal_and_asked_once(store: Watched) -> None:
    key = await issue(store, limits={"rpm": 3})
    keys = cache(store)
    token = key.token.reveal()
    assert keys.cached(token) is None
    assert await keys.resolve(token) == Principal("acc", key.id, {"rpm": 3})
    assert keys.cached(token) == Principal("acc", key.id, {"rpm": 3})
    assert await keys.resolve(token) == Principal("acc", key.id, {"rpm": 3})
    assert store.asked == ["key_read", "profile_read"]


@pytest.mark.parametrize(
    "bearer",
    [
        "",
        "ax-",
        "ax-' OR 1=1 --",
        "'; DROP TABLE keys; --",
        "ax-" + "a" * 51,
        "sk-" + "x" * 48,
        "\x00" * 54,
        "🔑" * 54,
        "a" * 10_000,
    ],
)
async def test_what_is_no_key_never_reaches_the_store(store: Watched, bearer: str) -> None:
    """Pitfall 22: parsed and proved before any look-up."""
    keys = cache(store)
    with pytest.raises(ClientError) as refused:
        keys.cached(bearer)
    assert refused.value.code == "invalid_key"
    assert await refusal(keys, bearer) == "invalid_key"
    assert store.asked == []


async def test_an_unknown_id_and_a_wrong_secret_take_the_same_steps_and_get_the_same_answer(store: Watched) -> None:
    key = await issue(store)
    stranger = new_key()
    # The right id with a secret of its own, as a guess would look.
    forged = _forged(key.id)
    steps, answers = [], []
    for token in (stranger.token.reveal(), forged):
        store.asked.clear()
        with pytest.raises(ClientError) as refused:
            await cache(store).resolve(token)
        steps.append(list(store.asked))
        answers.append((refused.value.code, refused.value.message, refused.value.status))
    assert steps[0] == steps[1] == ["key_read", "profile_read"]
    assert answers[0] == answers[1]


def _forged(id: str) -> str:
    from aurixel.keys import _checksum

    stem = f"ax-{id}-{'0' * 32}"
    return stem + _checksum(stem)


async def test_a_wrong_secret_learns_nothing_of_a_revoked_key(store: Watched) -> None:
    key = await issue(store, revoked_ms=1)
    keys = cache(store)
    assert await refusal(keys, _forged(key.id)) == "invalid_key"
    assert await refusal(keys, key.token.reveal()) == "key_revoked"


async def test_a_wrong_secret_is_refused_beside_a_cached_right_one(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    await keys.resolve(key.token.reveal())
    with pytest.raises(ClientError):
        keys.cached(_forged(key.id))
    assert keys.cached(key.token.reveal()) is not None


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"revoked_ms": 5}, "key_revoked"), ({"expires_ms": NOW}, "key_expired"), ({"account": "nobody"}, "account_suspended")],
)
async def test_a_key_that_may_not_be_used(store: Watched, fields: Mapping[str, Any], code: str) -> None:
    key = await issue(store, **fields)
    keys = cache(store)
    assert await refusal(keys, key.token.reveal()) == code
    with pytest.raises(ClientError) as refused:
        keys.cached(key.token.reveal())
    assert refused.value.code == code
    assert store.asked == ["key_read", "profile_read"]  # a refusal is remembered, too


@pytest.mark.parametrize("status", ["suspended", "closed"])
async def test_a_key_of_an_account_that_is_not_active(store: Watched, status: str) -> None:
    key = await issue(store)
    await store.profile_status("acc", status)
    assert await refusal(cache(store), key.token.reveal()) == "account_suspended"


async def test_a_revocation_is_believed_within_the_stated_delay(store: Watched) -> None:
    key, clock = await issue(store), Clock()
    keys = cache(store, clock)
    token = key.token.reveal()
    await keys.resolve(token)
    await store.key_revoke(key.id, 1)
    clock.seconds += keys.ttl
    assert keys.cached(token) is not None
    clock.seconds += 0.001
    assert keys.ttl + 0.001 <= MAX_TTL
    assert keys.cached(token) is None
    assert await refusal(keys, token) == "key_revoked"


async def test_the_delay_counts_from_before_the_store_was_asked(store: Watched) -> None:
    key, clock = await issue(store), Clock()
    keys = cache(store, clock)
    store.open.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(keys.resolve(key.token.reveal()))
        await store.called.wait()
        clock.seconds += keys.ttl + 0.001  # the store took its time
        store.open.set()
    assert keys.cached(key.token.reveal()) is None


def test_no_delay_above_the_stated_one_can_be_set() -> None:
    for ttl in (0, MAX_TTL + 0.1):
        with pytest.raises(ValueError, match="at most"):
            KeyCache(None, SERVER, Clock(), dict, ttl=ttl)  # type: ignore[arg-type]


async def test_a_key_expires_on_time_though_it_is_cached(store: Watched) -> None:
    key, clock = await issue(store, expires_ms=NOW + 500), Clock()
    keys = cache(store, clock)
    await keys.resolve(key.token.reveal())
    clock.seconds += 0.501
    assert keys.cached(key.token.reveal()) is None
    assert await refusal(keys, key.token.reveal()) == "key_expired"


async def test_forget_asks_again_at_once(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    await keys.resolve(key.token.reveal())
    await store.key_revoke(key.id, 1)
    keys.forget(key.id)
    assert await refusal(keys, key.token.reveal()) == "key_revoked"


async def test_a_limit_that_cannot_be_enforced_fails_closed(store: Watched) -> None:
    key = await issue(store, limits={"rpm": 3})

    def nobody(limits: Mapping[str, Any]) -> Mapping[str, Any]:
        raise LookupError("nobody enforces it")

    assert await refusal(cache(store, parse_limits=nobody), key.token.reveal()) == "policy_unavailable"


async def test_many_callers_of_one_key_ask_once(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    store.open.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(keys.resolve(key.token.reveal())) for _ in range(100)]
        await store.called.wait()
        store.open.set()
    assert {call.result().key_id for call in calls} == {key.id}
    assert store.asked == ["key_read", "profile_read"]


async def test_a_caller_that_leaves_takes_the_asking_with_it_only_if_nobody_else_waits(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    store.open.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(keys.resolve(key.token.reveal()))
        await store.called.wait()
        second = group.create_task(keys.resolve(key.token.reveal()))
        await asyncio.sleep(0)
        first.cancel()
        store.open.set()
    assert first.cancelled()
    assert second.result().key_id == key.id
    assert store.asked == ["key_read", "profile_read"]


async def test_nothing_is_asked_for_callers_that_have_all_left(store: Watched) -> None:
    """What an attacker's keys cost ends with the attacker's connections."""
    keys = cache(store)
    store.open.clear()
    calls = [asyncio.create_task(keys.resolve(new_key().token.reveal())) for _ in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(store.asked) == 5
    flights = [flight.task for flight in keys._flights.values()]
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await asyncio.wait(flights)
    assert all(flight.cancelled() for flight in flights)
    assert not keys._flights


# --- a store that is away, or slow --------------------------------------------------------------------------------------


async def outlived(store: Watched, clock: Clock, **fields: Any) -> tuple[KeyCache, NewKey]:
    """A key that the store vouched for, longer ago than that is believed."""
    key = await issue(store, **fields)
    keys = cache(store, clock, believe_for=60)
    await keys.resolve(key.token.reveal())
    clock.seconds += keys.ttl + 0.1
    assert keys.cached(key.token.reveal()) is None
    store.asked.clear()
    return keys, key


async def test_a_known_key_is_believed_for_a_while_though_the_store_is_away(store: Watched) -> None:
    clock = Clock()
    keys, key = await outlived(store, clock)
    token, end = key.token.reveal(), clock.seconds - keys.ttl - 0.1 + 60
    store.silent = True
    assert (await keys.resolve(token)).key_id == key.id
    clock.seconds = end - 0.001
    assert keys.cached(token) is None, "it may have come back"
    assert (await keys.resolve(token)).key_id == key.id
    assert keys.cached(token) is not None, "nobody waits for a store that was just found to be away"
    await keys.close()
    clock.seconds = end
    assert keys.cached(token) is None
    with pytest.raises(StoreUnavailable):
        await keys.resolve(token)


async def test_without_the_setting_nothing_is_believed_longer(store: Watched) -> None:
    key, clock = await issue(store), Clock()
    keys = cache(store, clock)
    await keys.resolve(key.token.reveal())
    clock.seconds += keys.ttl + 0.1
    store.silent = True
    with pytest.raises(StoreUnavailable):
        await keys.resolve(key.token.reveal())


async def test_a_store_that_is_slow_is_waited_for_once_and_its_news_are_heard(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aurixel.keys.SOON", 0.01)
    clock = Clock()
    keys, key = await outlived(store, clock)
    token = key.token.reveal()
    store.open.clear()
    assert (await keys.resolve(token)).key_id == key.id  # `SOON` passed
    assert keys.cached(token) is not None
    assert keys.cached(token) is not None
    assert store.asked == ["key_read"], "one question is on its way, however many ask"
    (flight,) = keys._flights.values()
    await store._store.key_revoke(key.id, 1)
    store.open.set()
    await flight.task
    with pytest.raises(ClientError) as refused:
        keys.cached(token)
    assert refused.value.code == "key_revoked"


async def test_a_store_that_is_back_is_asked_and_then_trusted_as_before(store: Watched) -> None:
    clock = Clock()
    keys, key = await outlived(store, clock)
    token = key.token.reveal()
    store.silent = True
    await keys.resolve(token)
    store.silent = False
    assert keys.cached(token) is not None  # asks behind the caller's back
    (flight,) = keys._flights.values()
    await flight.task
    clock.seconds += keys.ttl + 0.001
    assert keys.cached(token) is None, "the next caller waits for the store again"


async def test_an_outage_that_is_over_leaves_no_key_believed_unasked(store: Watched) -> None:
    """A revocation still takes effect at once where the key was not used meanwhile."""
    clock = Clock()
    keys, key = await outlived(store, clock)
    store.silent = True
    await keys.resolve(key.token.reveal())
    store.silent = False
    await store.key_revoke(key.id, 1)
    clock.seconds += keys.ttl
    assert keys.cached(key.token.reveal()) is None
    assert await refusal(keys, key.token.reveal()) == "key_revoked"


async def test_the_grace_ends_with_the_key(store: Watched) -> None:
    clock = Clock()
    keys, key = await outlived(store, clock, expires_ms=NOW + 5_000)
    store.silent = True
    assert (await keys.resolve(key.token.reveal())).key_id == key.id
    clock.seconds += 5
    assert keys.cached(key.token.reveal()) is None
    with pytest.raises(StoreUnavailable):
        await keys.resolve(key.token.reveal())
    await keys.close()


async def test_an_outage_tells_nobody_which_ids_exist(store: Watched) -> None:
    clock = Clock()
    keys, key = await outlived(store, clock)
    store.silent = True
    await keys.resolve(key.token.reveal())
    for guess in (_forged(key.id), new_key().token.reveal()):
        assert keys.cached(guess) is None
        with pytest.raises(StoreUnavailable):
            await keys.resolve(guess)


async def test_a_refusal_is_not_believed_longer(store: Watched) -> None:
    key, clock = await issue(store, revoked_ms=1), Clock()
    keys = cache(store, clock, believe_for=60)
    assert await refusal(keys, key.token.reveal()) == "key_revoked"
    clock.seconds += keys.ttl + 0.1
    store.silent = True
    with pytest.raises(StoreUnavailable):
        await keys.resolve(key.token.reveal())


async def test_a_bug_in_a_look_up_is_no_outage(store: Watched) -> None:
    clock = Clock()
    keys, key = await outlived(store, clock)
    store.silent = True
    await keys.resolve(key.token.reveal())
    store.silent = False

    async def broken(id: str) -> None:
        raise ZeroDivisionError

    store.key_read = broken  # type: ignore[attr-defined]
    assert keys.cached(key.token.reveal()) is not None
    (flight,) = keys._flights.values()
    await asyncio.wait((flight.task,))
    assert keys.cached(key.token.reveal()) is None
    with pytest.raises(ZeroDivisionError):
        await keys.resolve(key.token.reveal())


async def test_one_that_waits_and_leaves_disturbs_nobody(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    store.open.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(keys.resolve(key.token.reveal()))
        await store.called.wait()
        second = group.create_task(keys.resolve(key.token.reveal()))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        store.open.set()
    assert first.result().key_id == key.id


async def test_a_silent_store_fails_every_caller_and_is_asked_again_by_the_next(store: Watched) -> None:
    key = await issue(store)
    keys = cache(store)
    store.open.clear()
    store.silent = True
    calls = [asyncio.create_task(keys.resolve(key.token.reveal())) for _ in range(3)]
    await store.called.wait()
    store.open.set()
    assert [type(each) for each in await asyncio.gather(*calls, return_exceptions=True)] == [StoreUnavailable] * 3
    assert store.asked == ["key_read"]
    store.silent = False
    assert (await keys.resolve(key.token.reveal())).key_id == key.id


async def test_the_cache_is_bounded_and_refusals_evict_no_good_key(store: Watched) -> None:
    good = [await issue(store) for _ in range(4)]
    keys = cache(store, max_entries=3)
    for key in good:
        await keys.resolve(key.token.reveal())
    for _ in range(20):
        assert await refusal(keys, new_key().token.reveal()) == "invalid_key"
    assert [keys.cached(key.token.reveal()) is not None for key in good] == [False, True, True, True]
    assert len(keys._good) == len(keys._bad) == 3


def test_an_id_has_enough_chance_in_it() -> None:
    assert 36**ID_LENGTH > 2**62
