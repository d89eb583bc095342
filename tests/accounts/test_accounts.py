"""Accounts and keys: half-done work is finished, wrong words are named, limits need somebody to enforce them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aurixel.accounts import (
    AccountRefused,
    close_account,
    create_account,
    create_key,
    limits_parser,
    list_accounts,
    list_keys,
    normal_email,
    revoke_key,
    show_account,
)
from aurixel.errors import ClientError, StoreUnavailable
from aurixel.keys import KeyCache
from aurixel.ledger import Movements
from aurixel.storage import Store, open_store
from aurixel.values import Secret
from tests.storage.faults import Fault, flaky

SERVER = Secret("the server's own secret, of some length")
NOW = 1_769_817_600_000


class Clock:
    def wall_ms(self) -> int:
        return NOW

    def boot(self) -> float:
        return 1.0


class Colours:
    """A check as a third party might write it."""

    name: ClassVar[str] = "colours"
    enforces: ClassVar[frozenset[str]] = frozenset({"colour"})

    def parse_limit(self, name: str, value: Any) -> Any:
        if value not in ("red", "blue"):
            raise ValueError(f"{name} must be red or blue")
        return value.upper()


CLOCK = Clock()
PARSE = limits_parser([Colours()])  # type: ignore[list-item]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    await store.open()
    yield store
    await store.close()


async def refusal(work: Any) -> AccountRefused:
    with pytest.raises(AccountRefused) as refused:
        await work
    return refused.value


@pytest.mark.parametrize(
    ("typed", "kept"), [("Ada@Example.COM", "ada@example.com"), (" a@b\n", "a@b"), ("ä@ö.example", "ä@ö.example")]
)
def test_emails_are_kept_in_one_form(typed: str, kept: str) -> None:
    assert normal_email(typed) == kept


@pytest.mark.parametrize("text", ["", "ada", "@b", "a@", "a b@c", "a@b@c", "a@b\x00c", "x" * 65 + "@b", "a@" + "b" * 190])
def test_what_is_no_email(text: str) -> None:
    with pytest.raises(AccountRefused) as refused:
        normal_email(text)
    assert (refused.value.code, refused.value.typed) == ("email_invalid", True)


async def test_a_new_account_has_nothing(store: Store) -> None:
    profile = await create_account(store, CLOCK, "Ada@example.com")
    assert profile.email == "ada@example.com"
    view = await show_account(store, "ADA@example.com")
    amounts = (view.available, view.leased, view.held, view.credited, view.spent, view.written_off)
    assert (view.status, amounts) == ("active", (0,) * 6)


async def test_an_email_has_one_account(store: Store) -> None:
    await create_account(store, CLOCK, "ada@example.com")
    refused = await refusal(create_account(store, CLOCK, "ADA@example.com"))
    assert (refused.code, refused.typed) == ("account_exists", False)


async def test_of_many_who_open_it_at_once_one_does(store: Store) -> None:
    done = await asyncio.gather(*(create_account(store, CLOCK, "ada@example.com") for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in done) == 1
    assert {each.code for each in done if isinstance(each, AccountRefused)} == {"account_exists"}
    assert len([view async for view in list_accounts(store)]) == 1


@pytest.mark.parametrize("write", ["profile_new", "account_new"])
@pytest.mark.parametrize("fault", ["lost", "dropped"])
async def test_an_account_opened_by_half_is_finished_by_opening_it_again(store: Store, write: str, fault: Fault) -> None:
    broken, _ = flaky(store, lambda name: fault if name == write else None)
    with pytest.raises(StoreUnavailable):
        await create_account(broken, CLOCK, "ada@example.com")
    if write == "profile_new" or fault == "dropped":
        await create_account(store, CLOCK, "ada@example.com")
    else:  # it was done after all
        assert (await refusal(create_account(store, CLOCK, "ada@example.com"))).code == "account_exists"
    assert (await show_account(store, "ada@example.com")).available == 0


async def test_half_an_account_is_said_to_be_one(store: Store) -> None:
    broken, _ = flaky(store, lambda name: "dropped" if name == "account_new" else None)
    with pytest.raises(StoreUnavailable):
        await create_account(broken, CLOCK, "ada@example.com")
    assert (await refusal(show_account(store, "ada@example.com"))).code == "account_incomplete"
    assert [view async for view in list_accounts(store)] == []


async def test_what_an_account_has_is_shown_with_its_leases(store: Store) -> None:
    profile = await create_account(store, CLOCK, "ada@example.com")
    await Movements(store, CLOCK).apply(profile.account, "g1", "grant", 1000, "why", "who")
    doc = await store.account_read(profile.account)
    assert doc is not None
    assert await store.lease_open(profile.account, "i" * 26, doc.ver, 300, 0)
    view = await show_account(store, "ada@example.com")
    assert (view.available, view.leased, view.held, view.credited) == (700, 300, 300, 1000)


async def test_an_unknown_account(store: Store) -> None:
    for work in (show_account(store, "x@y"), close_account(store, CLOCK, "x@y"), list_keys(store, CLOCK, "x@y")):
        assert (await refusal(work)).code == "account_unknown"


async def test_closing_revokes_the_keys_and_may_be_done_again(store: Store) -> None:
    profile = await create_account(store, CLOCK, "ada@example.com")
    issued = await create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE)
    for _ in range(2):
        assert (await close_account(store, CLOCK, "ada@example.com")).status == "closed"
    doc = await store.account_read(profile.account)
    assert doc is not None
    assert doc.state == "closing"
    assert [key.status for key in await list_keys(store, CLOCK, "ada@example.com")] == ["revoked"]
    with pytest.raises(ClientError) as refused:
        await KeyCache(store, SERVER, CLOCK, PARSE).resolve(issued.token.reveal())
    assert refused.value.code == "key_revoked"
    assert (await refusal(create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE))).code == "account_closed"


@pytest.mark.parametrize("write", ["profile_status", "key_revoke"])
async def test_closing_cut_anywhere_is_finished_by_closing_again(store: Store, write: str) -> None:
    await create_account(store, CLOCK, "ada@example.com")
    for _ in range(2):
        await create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE)
    broken, _ = flaky(store, lambda name: "lost" if name == write else None)
    with pytest.raises(StoreUnavailable):
        await close_account(broken, CLOCK, "ada@example.com")
    await close_account(store, CLOCK, "ada@example.com")
    assert [key.status for key in await list_keys(store, CLOCK, "ada@example.com")] == ["revoked"] * 2


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_that_was_issued_opens_the_door_with_its_limits_parsed(store: Store) -> None:
    profile = await create_account(store, CLOCK, "ada@example.com")
    issued = await create_key(
        store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE, name="ci", limits={"colour": "red"}, expires_ms=NOW + 1000
    )
    principal = await KeyCache(store, SERVER, CLOCK, PARSE).resolve(issued.token.reveal())
    assert (principal.account, principal.key_id, dict(principal.limits)) == (profile.account, issued.id, {"colour": "RED"})
    (key,) = await list_keys(store, CLOCK, "ada@example.com")
    assert (key.id, key.name, key.status, key.limits, key.expires_ms) == (
        issued.id,
        "ci",
        "active",
        {"colour": "red"},
        NOW + 1000,
    )


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_the_store_never_sees_a_secret(store: Store, tmp_path: Path) -> None:
    """Pitfall 24."""
    await create_account(store, CLOCK, "ada@example.com")
    token = (await create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE)).token.reveal()
    await store.close()
    kept = everything_in(tmp_path)
    assert token[3:15].encode() in kept  # the id
    assert token[16:48].encode() not in kept
    await store.open()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"limits": {"rpm": 3}}, "limit_unenforced"),
        ({"limits": {"colour": "green"}}, "limit_invalid"),
        ({"name": "x" * 101}, "name_invalid"),
        ({"name": "a\nb"}, "name_invalid"),
        ({"expires_ms": NOW}, "expiry_past"),
    ],
)
async def test_a_key_that_is_not_issued(store: Store, fields: dict[str, Any], code: str) -> None:
    await create_account(store, CLOCK, "ada@example.com")
    refused = await refusal(create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE, **fields))
    assert (refused.code, refused.typed) == (code, True)
    assert await list_keys(store, CLOCK, "ada@example.com") == []


async def test_a_limit_nobody_enforces_is_named_with_what_is_enforced(store: Store) -> None:
    await create_account(store, CLOCK, "ada@example.com")
    work = create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE, limits={"color": "red"})
    assert "the limit 'color'; enforced here: colour" in (await refusal(work)).message


async def test_keys_are_revoked_once_and_only_by_their_account(store: Store) -> None:
    for email in ("ada@example.com", "bob@example.com"):
        await create_account(store, CLOCK, email)
    issued = await create_key(store, CLOCK, SERVER, "ada@example.com", parse_limits=PARSE)
    assert (await refusal(revoke_key(store, CLOCK, "bob@example.com", issued.id))).code == "key_unknown"
    assert (await refusal(revoke_key(store, CLOCK, "ada@example.com", "nothing"))).code == "key_unknown"
    assert [await revoke_key(store, CLOCK, "ada@example.com", issued.id) for _ in range(2)] == [True, False]
    assert [key.status for key in await list_keys(store, CLOCK, "ada@example.com")] == ["revoked"]
