"""Accounts and their keys: the rules of opening, showing and closing them. No HTTP, no command line, and no money:
credit moves through the ledger alone.

Every change is a sequence of single guarded writes that may be cut anywhere and is finished by doing it again.
"""

from aurixel.accounts.credentials import (
    IssuedKey,
    KeyView,
    create_key,
    key_status,
    limits_parser,
    list_keys,
    revoke_key,
    unenforced_limits,
)
from aurixel.accounts.people import (
    AccountRefused,
    AccountView,
    close_account,
    create_account,
    find_account,
    list_accounts,
    normal_email,
    resume_account,
    show_account,
    suspend_account,
)

__all__ = [
    "AccountRefused",
    "AccountView",
    "IssuedKey",
    "KeyView",
    "close_account",
    "create_account",
    "create_key",
    "find_account",
    "key_status",
    "limits_parser",
    "list_accounts",
    "list_keys",
    "normal_email",
    "resume_account",
    "revoke_key",
    "show_account",
    "suspend_account",
    "unenforced_limits",
]
