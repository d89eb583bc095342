"""One version of the catalogue: the models and what they cost, frozen, and the JSON it is stored as. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aurixel.catalog.prices import PriceBook, Timeline
from aurixel.errors import ConfigError
from aurixel.plugin import ModelRules
from aurixel.storage import CatalogueDoc

# Operation -> the usage classes its models must have prices for: all of the first, and at least one of the second.
REQUIRED: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = MappingProxyType(
    {
        "chat": (frozenset({"input", "output"}), frozenset()),
        "embeddings": (frozenset({"input"}), frozenset()),
        "images": (frozenset(), frozenset({"images", "output_image"})),
        "speech": (frozenset(), frozenset({"characters", "output_audio"})),
        "transcription": (frozenset(), frozenset({"audio_seconds", "input_audio"})),
        "moderation": (frozenset(), frozenset({"input", "requests"})),
    }
)
OPERATIONS: Final = tuple(REQUIRED)
# Whose tokens never come without tokens of a prompt.
PROMPTED: Final = frozenset({"images", "speech", "transcription"})


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place a model is served: an `[upstreams.NAME]` block, and the model's name there."""

    upstream: str
    model: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model as clients name it. `routes` in order of preference; `created_ms`: when the catalogue first named it."""

    id: str
    operations: frozenset[str]
    rules: ModelRules
    routes: tuple[Route, ...]
    created_ms: int


class StoredModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A model in the stored JSON; the image rules as in `ModelRules`, where they differ from its defaults."""

    operations: list[str]
    context: int
    max_output: int
    routes: list[Route]
    image_patch: int | None = None
    image_multiplier: float | None = None
    image_cap: int | None = None
    traits: list[str] = []
    created_ms: int = 0


class StoredPrice(msgspec.Struct, kw_only=True):
    """A price in the stored JSON: `rates` in nano-dollars per million units, by usage class."""

    model: str
    effective_ms: int
    rates: dict[str, int]

    @property
    def key(self) -> tuple[str, int]:
        """What there is one price of."""
        return self.model, self.effective_ms


class StoredCost(msgspec.Struct, kw_only=True):
    """What an upstream ("": any that has no cost of its own) charges us for a model; `rates` as in `StoredPrice`."""

    model: str
    upstream: str
    effective_ms: int
    rates: dict[str, int]

    @property
    def key(self) -> tuple[str, str, int]:
        """What there is one cost of."""
        return self.model, self.upstream, self.effective_ms


class StoredCatalogue(msgspec.Struct, kw_only=True):
    """The stored JSON: `CatalogueDoc.body`."""

    models: dict[str, StoredModel]
    prices: list[StoredPrice]
    costs: list[StoredCost] = []


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One version, whole. Swapped by reference, so that a request that holds one is not disturbed by the next."""

    version: int
    models: Mapping[str, Model]
    timelines: Mapping[str, Timeline]
    costs: Mapping[tuple[str, str], Timeline] = MappingProxyType({})

    def model(self, id: str) -> Model | None:
        """The model clients call `id`; None if there is none."""
        return self.models.get(id)

    def price(self, model_id: str, at_ms: int) -> PriceBook | None:
        """The prices in effect at an instant; None: unpriced, and thus not served."""
        timeline = self.timelines.get(model_id)
        return timeline.at(at_ms) if timeline is not None else None

    def cost(self, model_id: str, upstream: str, at_ms: int) -> PriceBook | None:
        """What the upstream charged us at an instant, by its own cost or else by that of any; None: nobody said."""
        for key in ((model_id, upstream), (model_id, "")):
            timeline = self.costs.get(key)
            if timeline is not None and (book := timeline.at(at_ms)) is not None:
                return book
        return None

    def unpriced(self, at_ms: int) -> tuple[str, ...]:
        """The models that are refused at that instant for want of a price, in order of their names."""
        return tuple(name for name in sorted(self.models) if self.price(name, at_ms) is None)


EMPTY: Final = Snapshot(version=0, models={}, timelines={})

_decoder: Final = msgspec.json.Decoder(StoredCatalogue)


def decode(body: bytes) -> StoredCatalogue:
    """The stored JSON; `ConfigError("catalogue_unreadable")` if it is not of this shape (written by a newer version)."""
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the stored catalogue cannot be read: {error}",
            place="the store",
            mend="was it written by a newer version? `aurixel reload` writes it anew from the files",
            code="catalogue_unreadable",
        ) from None


def snapshot_of(doc: CatalogueDoc) -> Snapshot:
    """The snapshot of a stored version; `ConfigError` as `decode`."""
    stored = decode(doc.body)
    books: dict[str, list[PriceBook]] = {}
    for price in stored.prices:
        books.setdefault(price.model, []).append(_book(doc.version, price))
    costs: dict[tuple[str, str], list[PriceBook]] = {}
    for cost in stored.costs:
        costs.setdefault((cost.model, cost.upstream), []).append(_book(doc.version, cost))
    return Snapshot(
        version=doc.version,
        models=MappingProxyType({name: _model(name, model) for name, model in stored.models.items()}),
        timelines=MappingProxyType({name: Timeline.of(of_model) for name, of_model in books.items()}),
        costs=MappingProxyType({key: Timeline.of(of_both) for key, of_both in costs.items()}),
    )


def _book(version: int, dated: StoredPrice | StoredCost) -> PriceBook:
    return PriceBook(version=version, effective_ms=dated.effective_ms, rates=MappingProxyType(dated.rates))


def _model(id: str, model: StoredModel) -> Model:
    given = {
        name: value for name in ("image_patch", "image_multiplier", "image_cap") if (value := getattr(model, name)) is not None
    }
    return Model(
        id=id,
        operations=frozenset(model.operations),
        rules=ModelRules(context=model.context, max_output=model.max_output, traits=frozenset(model.traits), **given),
        routes=tuple(model.routes),
        created_ms=model.created_ms,
    )
