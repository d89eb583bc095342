"""Which path is whose: relay routes by exact path, and the family that any other request is answered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType


class Routes:
    """`relay`: (method, path) -> dialect. `families`: family -> the dialect its pages and errors are written in.

    `family_of` tells a caller's family by its headers (lower-case names). Paths are compared as they were sent: one
    spelling reaches a route, and a doubled slash or an escaped letter is another path. `named`: dialect -> its family.
    """

    def __init__(
        self,
        relay: Mapping[tuple[str, str], str],
        families: Mapping[str, str],
        family_of: Callable[[Mapping[str, str]], str],
        named: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._named = named
        self.families = families
        self.family_of = family_of
        self.relay: dict[str, dict[str, str]] = {}
        for (method, path), dialect in relay.items():
            self.relay.setdefault(path, {})[method] = dialect

    def told(self, speaker: str) -> str:
        """The paths of the family that `speaker` (see below) answers for, in words."""
        family = self._named.get(speaker)
        own = [path for path, methods in self.relay.items() if self._named.get(next(iter(methods.values()))) == family]
        return ", ".join((*own, "/v1/models"))

    def speaker(self, path: str, headers: Mapping[str, str]) -> str:
        """The dialect to refuse a request in, whatever it is: that of the relay route it is or lies under, else by headers."""
        for known, methods in self.relay.items():
            if path == known or path.startswith(known + "/"):
                return next(iter(methods.values()))
        return self.families[self.family_of(headers)]
