"""How one request gets to an upstream of another dialect: translated, or refused where the caller wants no losses.

It reports losses by the names of fields, never by their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from aurixel.dialects.tiers import tier_fields
from aurixel.dialects.translation import Crossing, Translation, straight
from aurixel.errors import ClientError
from aurixel.gateway.offers import Offer
from aurixel.plugin.canonical import Losses
from aurixel.plugin.contracts import Dialect
from aurixel.values import STRICT_LIMIT

# A body of more bytes is translated beside the loop, which goes on meanwhile.
LARGE: Final = 256 * 1024
STRICT_HEADER: Final = "x-aurixel-strict"
REPORT_HEADER: Final = "x-aurixel-translation"
KINDS: Final = ("dropped", "emulated", "changed")


def cross(offer: Offer, upstream: Dialect, output_limit: int | None) -> Crossing:
    """The way to an upstream of that dialect. `output_limit`: in tokens, where credit demands one.

    Raises `ClientError`: "unsupported_parameter" for what must not be lost and cannot be carried, "translation_lossy" for
    any loss where the caller is strict, "unpriced_feature" where the translation would use what has no price.
    """
    if upstream is offer.dialect:
        return _without_losses(offer, straight(upstream, offer.request))
    translation = Translation(
        offer.dialect,
        upstream,
        offer.request,
        offer.model.rules,
        asked_at=offer.head.at_ms // 1000,
        output_limit=output_limit,
    )
    if offer.request.tier and translation.losses is not None:  # the canonical form knows no tiers
        translation.losses.drop(*tier_fields(offer.request.fields))
    if missing := offer.price.missing(translation.request.needs - offer.request.needs):
        what = ", ".join(sorted(missing))
        raise ClientError("unpriced_feature", f"The model '{offer.model.id}' has no price here for: {what}.")
    return _without_losses(offer, translation)


def large(offer: Offer, upstream: Dialect) -> bool:
    """Whether `cross` would keep others waiting: do it in a thread."""
    return upstream is not offer.dialect and offer.request.written > LARGE


def report(client: Dialect, crossing: Crossing) -> tuple[tuple[str, str], ...]:
    """The header that tells a client what was translated and lost; none where nothing was."""
    if not crossing.translated and not crossing.losses:
        return ()
    told = [f"{client.name} to {crossing.dialect.name}"]
    told += [f"{kind}={','.join(_shown(names))}" for kind, names in _kinds(crossing.losses)]
    return ((REPORT_HEADER, "; ".join(told)),)


def loss_counts(crossing: Crossing) -> Mapping[str, int]:
    """How many fields were lost, by kind; for the usage record. Zeros are left out."""
    if not crossing.losses:
        return MappingProxyType({})
    return {kind: len(names) for kind, names in _kinds(crossing.losses)}


def _without_losses(offer: Offer, crossing: Crossing) -> Crossing:
    """The crossing, where it loses nothing or its caller does not mind."""
    if crossing.losses and _strict(offer):
        fields = ", ".join(name for _, names in _kinds(crossing.losses) for name in _shown(names))
        raise ClientError(
            "translation_lossy", f"The upstream of the model '{offer.model.id}' cannot be told of this as it is: {fields}."
        )
    return crossing


def _kinds(losses: Losses | None) -> Iterable[tuple[str, Mapping[str, None]]]:
    """Only the kinds that happened."""
    for kind in KINDS if losses else ():
        if names := getattr(losses, kind):
            yield kind, names


def _shown(names: Mapping[str, None]) -> list[str]:
    """The first of the names, and how many more there are."""
    more = len(names) - Losses.MOST
    return [*list(names)[: Losses.MOST], *([f"+{more}"] if more > 0 else ())]


def _strict(offer: Offer) -> bool:
    return (
        offer.head.headers.get(STRICT_HEADER, "").strip().lower() in ("true", "1")
        or offer.principal.limits.get(STRICT_LIMIT) is True
    )
