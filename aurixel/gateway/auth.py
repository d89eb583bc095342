"""Finds the caller's key in the headers and asks the key cache who it is; it grants nothing by default.

Both credential headers are accepted on both families; where both came, `x-api-key` counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from aurixel.errors import ClientError, GatewayError, StoreUnavailable
from aurixel.keys import KeyCache
from aurixel.values import Principal


class Auth:
    """The key cache, asked by headers (lower-case names)."""

    def __init__(self, keys: KeyCache) -> None:
        self._keys = keys

    def cached(self, headers: Mapping[str, str]) -> Principal | None:
        """The caller, if the key is known at this moment; None: ask `resolve`. `ClientError` for no or a refused key."""
        return self._keys.cached(_token(headers))

    async def resolve(self, headers: Mapping[str, str]) -> Principal:
        """The caller; `ClientError` for no key, a wrong, revoked or expired one."""
        try:
            return await self._keys.resolve(_token(headers))
        except StoreUnavailable:
            raise GatewayError("store_unavailable", "The gateway cannot look up keys now. Try again.", retry_after=1) from None


def _token(headers: Mapping[str, str]) -> str:
    token = headers.get("x-api-key", "")
    if not token:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = ""
    token = token.strip()
    if not token:
        raise ClientError("missing_key", "No API key was given. Send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.")
    return token
