"""How one request gets to an upstream of another dialect: translated, or refused where the caller wants no losses.

It reports losses by the names of fields, never by their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from aurixel.dialects.translation import Crossing, Straight, Translation
from aurixel.errors import ClientError
from aurixel.gateway.offers import Offer
from aurixel.plugin.canonical import Losses
from aurixel.plugin.contracts import Dialect

STRICT_HEADER: Final = "x-aurixel-strict"
REPORT_HEADER: Final = "x-aurixel-translation"
# The setting of a key that does the same as the header.
STRICT_LIMIT: Final = "strict"
KINDS: Final = ("dropped", "emulated", "changed")


def cross(offer: Offer, upstream: Dialect, output_limit: int | None) -> Crossing:
    """The way to an upstream of that dialect. `output_limit`: in tokens, where credit demands one.

    Raises `ClientError`: "unsupported_parameter" for what must not be lost and cannot be carried, "translation_lossy" for
    any loss where the caller is strict, "unpriced_feature" where the translation would use what has no price.
    """
    if upstream is offer.dialect:
        return Straight(upstream, offer.request)
    translation = Translation(
        offer.dialect,
        upstream,
        offer.request,
        offer.model.rules,
        asked_at=offer.head.at_ms // 1000,
        output_limit=output_limit,
    )
    if missing := offer.price.missing(translation.request.needs - offer.request.needs):
        what = ", ".join(sorted(missing))
        raise ClientError("unpriced_feature", f"The model '{offer.model.id}' has no price here for: {what}.")
    if translation.losses and _strict(offer):
        fields = ", ".join(name for _, names in _kinds(translation.losses) for name in _shown(names))
        raise ClientError(
            "translation_lossy", f"The model '{offer.model.id}' is of another API family, which has no equal of: {fields}."
        )
    return translation


def report(client: Dialect, crossing: Crossing) -> tuple[tuple[str, str], ...]:
    """The header that tells a client what was translated and lost; none where nothing was translated."""
    if crossing.losses is None:
        return ()
    told = [f"{client.name} to {crossing.dialect.name}"]
    for kind, names in _kinds(crossing.losses):
        told.append(f"{kind}={','.join(_shown(names))}")
    return ((REPORT_HEADER, "; ".join(told)),)


def loss_counts(crossing: Crossing) -> Mapping[str, int]:
    """How many fields were lost, by kind; for the usage record. Zeros are left out."""
    if not crossing.losses:
        return MappingProxyType({})
    return {kind: len(names) for kind, names in _kinds(crossing.losses)}


def _kinds(losses: Losses) -> Iterable[tuple[str, Mapping[str, None]]]:
    """Only the kinds that happened."""
    for kind in KINDS:
        if names := getattr(losses, kind):
            yield kind, names


def _shown(names: Mapping[str, None]) -> list[str]:
    """The first of them, and how many more there are."""
    more = len(names) - Losses.MOST
    return [*islice(names, Losses.MOST), *((f"+{more}",) if more > 0 else ())]


def _strict(offer: Offer) -> bool:
    return (
        offer.head.headers.get(STRICT_HEADER, "").strip().lower() == "true" or offer.principal.limits.get(STRICT_LIMIT) is True
    )
