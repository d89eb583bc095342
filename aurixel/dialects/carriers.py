"""Carries one dialect's sealed thinking through another dialect's field, and back byte for byte; it opens no seal.

A carrier is plain text that says whose seal it holds, so that it is given back to that dialect only. It hides nothing:
what keeps thinking from being changed is the upstream's own proof.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

_CARRIER: Final = re.compile(r"ax1\.(?P<origin>[a-z0-9_]{1,64})\.(?P<sealed>[A-Za-z0-9_-]*={0,2})")


def carried(origin: str, sealed: str | None) -> str:
    """The text that carries `sealed` of the dialect `origin`."""
    return f"ax1.{origin}.{urlsafe_b64encode((sealed or '').encode()).decode()}"


def unpacked(text: str) -> tuple[str, str] | None:
    """The dialect and what is sealed; None for what is no carrier (the dialect's own seal, or somebody's invention)."""
    found = _CARRIER.fullmatch(text)
    if found is None:
        return None
    try:
        return found["origin"], urlsafe_b64decode(found["sealed"]).decode()
    except ValueError:
        return None
