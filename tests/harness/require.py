"""`require`: a test that needs a server or tool which is not there is skipped with a word, or fails where CI says so."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")


def required(what: str) -> bool:
    """Whether AURIXEL_TEST_REQUIRE ("all", or names with commas) turns a skip for want of `what` into a failure."""
    named = {name.strip() for name in os.environ.get("AURIXEL_TEST_REQUIRE", "").split(",")}
    return bool(named & {"all", what})


def require(found: T | None, what: str, why: str) -> T:
    """`found`, unless it is None: then skip, or fail where `what` is required. `why` says what is missing and how to get it."""
    if found is not None:
        return found
    if required(what):
        pytest.fail(f"{what} is required here (AURIXEL_TEST_REQUIRE): {why}", pytrace=False)
    pytest.skip(f"{what}: {why}")
