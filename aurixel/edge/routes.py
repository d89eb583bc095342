"""Which path is whose: relay routes by exact path, and the family that any other request is answered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Routes:
    """`relay`: (method, path) -> dialect. `families`: family -> the dialect its pages and errors are written in.

    `family_of` tells a caller's family by its headers (lower-case names). Paths are compared as they were sent: one
    spelling reaches a route, and a doubled slash or an escaped letter is another path.
    """

    def __init__(
        self,
        relay: Mapping[tuple[str, str], str],
        families: Mapping[str, str],
        family_of: Callable[[Mapping[str, str]], str],
    ) -> None:
        self.families = families
        self.family_of = family_of
        self.relay: dict[str, dict[str, str]] = {}
        for (method, path), dialect in relay.items():
            self.relay.setdefault(path, {})[method] = dialect

    def speaker(self, path: str, headers: Mapping[str, str]) -> str:
        """The dialect to refuse a request in, whatever it is: that of the relay route it is or lies under, else by headers."""
        for known, methods in self.relay.items():
            if path == known or path.startswith(known + "/"):
                return next(iter(methods.values()))
        return self.families[self.family_of(headers)]
