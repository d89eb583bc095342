"""The words for what goes wrong upstream: generic, because whatever aiohttp or the upstream says may quote a key."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from aurixel.errors import ProviderError

Code: TypeAlias = Literal["upstream_unreachable", "upstream_died", "upstream_timeout", "upstream_invalid", "plugin_bug"]

_MESSAGES: Final[dict[Code, str]] = {
    "upstream_unreachable": "The upstream could not be reached.",
    "upstream_died": "The upstream broke off its answer.",
    "upstream_timeout": "The upstream did not answer in time.",
    "upstream_invalid": "The upstream's answer could not be understood.",
    "plugin_bug": "The request to the upstream could not be made.",
}


def fault(code: Code) -> ProviderError:
    """The error of this code. Raise it outside of any `except`, or it drags the exception it replaces along."""
    return ProviderError(code, _MESSAGES[code])
