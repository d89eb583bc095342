"""Who an account belongs to, and what it has: opened once for an e-mail, shown, listed, closed."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from aurixel.clock import Clock
from aurixel.errors import AurixelError
from aurixel.storage import AccountDoc, Profile, ProfileStatus, Store
from aurixel.values import Nanos

ID_LENGTH: Final = 16
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")
_PAGE: Final = 200


class AccountRefused(AurixelError):
    """What was asked for an account or a key cannot be done. `code` is stable; `typed`: the words given were wrong,
    rather than what was found."""

    def __init__(self, code: str, message: str, *, typed: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.typed = code, message, typed


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it is shown; amounts in nano-dollars.

    `leased` is lent to nodes, which hold it for running requests or have yet to post or return it. `held` is the most of
    it that running requests may have: only the node knows the exact part, and without a lease it is none.
    """

    email: str
    status: ProfileStatus
    available: Nanos
    leased: Nanos
    held: Nanos
    credited: Nanos
    spent: Nanos
    written_off: Nanos


def normal_email(text: str) -> str:
    """The form an e-mail is stored and compared in; `AccountRefused("email_invalid")`."""
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise AccountRefused("email_invalid", f"{text!r} is not an e-mail address", typed=True)
    return email


async def create_account(store: Store, clock: Clock, email: str) -> Profile:
    """Open an account without credit, or finish one that was opened by half.

    `AccountRefused`: `email_invalid`, `account_exists`.
    """
    email = normal_email(email)
    wanted = Profile(account=_new_id(), email=email, status="active", created_ms=clock.wall_ms())
    profile = await store.profile_find(email)
    if profile is None:
        # Somebody else may have been faster, so what counts is what is there afterwards.
        profile = wanted if await store.profile_new(wanted) else await store.profile_find(email)
    if profile is None:  # the id was taken, which 83 bits of chance do not do twice
        return await create_account(store, clock, email)
    if not await store.account_new(profile.account):
        raise AccountRefused("account_exists", f"there is an account for {email} already")
    return profile


async def find_account(store: Store, email: str) -> Profile:
    """`AccountRefused`: `email_invalid`, `account_unknown`."""
    email = normal_email(email)
    profile = await store.profile_find(email)
    if profile is None:
        raise AccountRefused("account_unknown", f"there is no account for {email}")
    return profile


async def show_account(store: Store, email: str) -> AccountView:
    """`AccountRefused`: `email_invalid`, `account_unknown`, `account_incomplete`."""
    profile = await find_account(store, email)
    doc = await store.account_read(profile.account)
    if doc is None:
        raise AccountRefused("account_incomplete", "the account was opened by half: create it again to finish it")
    return _view(profile, doc)


async def list_accounts(store: Store) -> AsyncIterator[AccountView]:
    """Every account, in no order that means anything; those opened by half are left out."""
    after = ""
    while profiles := await store.profiles_page(after, _PAGE):
        docs = await store.accounts_read([profile.account for profile in profiles])
        for profile in profiles:
            if (doc := docs.get(profile.account)) is not None:
                yield _view(profile, doc)
        after = profiles[-1].account


async def close_account(store: Store, clock: Clock, email: str) -> AccountView:
    """Serve the account no more: its keys are revoked, no credit is lent any more, leases come home. Credit stays.

    Doing it again finishes it and changes nothing else. `AccountRefused` as `show_account`.
    """
    profile = await find_account(store, email)
    await store.profile_status(profile.account, "closed")
    for key in await store.keys_of(profile.account):
        if key.revoked_ms is None:
            await store.key_revoke(key.id, clock.wall_ms())
    await store.account_closing(profile.account)
    return await show_account(store, email)


async def suspend_account(store: Store, email: str) -> AccountView:
    """Refuse the account's keys until it is resumed; its credit stays. Doing it again changes nothing.

    `AccountRefused` as `show_account`, and `account_closed`.
    """
    return await _turn(store, email, "active", "suspended")


async def resume_account(store: Store, email: str) -> AccountView:
    """Serve a suspended account again. `AccountRefused` as `suspend_account`."""
    return await _turn(store, email, "suspended", "active")


async def _turn(store: Store, email: str, was: ProfileStatus, status: ProfileStatus) -> AccountView:
    profile = await find_account(store, email)
    await store.profile_status(profile.account, status, was)
    view = await show_account(store, email)
    if view.status != status:
        raise AccountRefused("account_closed", f"the account is {view.status}, for good")
    return view


def _view(profile: Profile, doc: AccountDoc) -> AccountView:
    leased = sum(lease.amount for lease in doc.leases.values())
    return AccountView(
        email=profile.email,
        status=profile.status,
        available=doc.available,
        leased=leased,
        held=leased,
        credited=doc.credited,
        spent=doc.spent,
        written_off=doc.written_off,
    )


def _new_id() -> str:
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))
