"""A client's own words in letters that an upstream takes: names of tools, ids of calls, whoever the end user is.

The same word is always spelt the same way. It keeps nothing: who must find the client's word again keeps it himself.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from aurixel.plugin.canonical import Losses

# What every family takes as the name of a tool.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


def fits(name: str) -> bool:
    """Whether it is a name as it stands."""
    return _NAME.fullmatch(name) is not None


def plain(name: str) -> str:
    """The name without the letters that it may not have; two names may come to the same. Empty for an empty one."""
    return _NOT_NAME.sub("_", name)[:64]


def shortened(name: str) -> str:
    """A name for what is none; another one for any other."""
    return f"{_NOT_NAME.sub('_', name)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"


def call_id(id: str, most: int) -> str:
    """The id of a call of at most so many characters, in its call and in its answer."""
    return id if len(id) <= most else "call_" + sha256(id.encode()).hexdigest()[:32]


def end_user(user: str) -> str:
    """What an upstream may know of who asks: nothing, but that it is the same one again."""
    return sha256(b"aurixel:" + user.encode()).hexdigest()[:32]


class Names:
    """Gives each tool a name that fits, the same wherever it is named. `changed`: written -> the client's; `wrapped`: those
    that were asked to take an object instead of free text."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._given: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        self.wrapped: set[str] = set()

    def __call__(self, name: str) -> str:
        given = self._given.get(name)
        if given is None:
            given = name
            if not fits(name):
                given = shortened(name)
                self.changed[given] = name
                self._losses.change("tools.names")
            self._given[name] = given
        return given
