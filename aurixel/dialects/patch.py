"""Writes a passed-through body anew from its slices: every field as the client wrote it, but for the few that change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from aurixel.dialects.json_fields import Fields
from aurixel.plugin.contracts import Body, Changes

# They move the bill, or the answer, to another customer of the upstream: never passed on.
DROPPED: Final = frozenset({"billing_policy", "user_profile_id", "workspace_id"})


def patched(fields: Fields, changes: Changes, new: Mapping[str, bytes], *, limit_field: str) -> Body:
    """The body in slices. `new` are fields that replace or follow the client's own, as JSON; `limit_field` is the dialect's
    word for the output limit."""
    new = {**new, "model": msgspec.json.encode(changes.model)}
    if changes.output_limit is not None:
        new[limit_field] = msgspec.json.encode(changes.output_limit)
    slices: list[bytes] = []
    separator = b"{"
    for name, raw in fields.items():
        if name not in new and name not in DROPPED:
            slices += (separator, msgspec.json.encode(name), b":", bytes(raw))
            separator = b","
    for name, value in new.items():
        slices += (separator, msgspec.json.encode(name), b":", value)
        separator = b","
    slices.append(b"}")
    return slices
