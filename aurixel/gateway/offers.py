"""What a request asks for, what it may cost at most, and what is written down before it starts; no price, no offer."""

from __future__ import annotations

import msgspec

from aurixel.catalog import Catalogue, Model, PriceBook
from aurixel.dialects.json_fields import unpriced
from aurixel.dialects.tiers import tier_fields
from aurixel.errors import ClientError, GatewayError
from aurixel.gateway.exchange import RequestHead
from aurixel.gateway.sizing import Bound, size
from aurixel.ledger import Intent
from aurixel.metrics import RequestMetrics
from aurixel.plugin.contracts import Dialect, ParsedRequest
from aurixel.values import Principal, RequestFacts


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a model that has a price. `input_tokens` is a fair guess, never above what `bound` is made of."""

    head: RequestHead
    principal: Principal
    dialect: Dialect
    request: ParsedRequest
    model: Model
    price: PriceBook
    bound: Bound
    input_tokens: int

    def facts(self) -> RequestFacts:
        """What policy checks may know."""
        return RequestFacts(
            request_id=self.head.request_id,
            operation=self.dialect.operation,
            dialect=self.dialect.name,
            model=self.model.id,
            stream=self.request.stream,
            client_ip=self.head.client_ip,
            at_ms=self.head.at_ms,
            tokens=self.bound.tokens,
        )

    def intent(self) -> Intent:
        """What the journal keeps before the upstream is asked: enough for a usage record after a crash."""
        return Intent(
            request_id=self.head.request_id,
            account=self.principal.account,
            key_id=self.principal.key_id,
            model=self.model.id,
            operation=self.dialect.operation,
            dialect=self.dialect.name,
            stream=self.request.stream,
            client_ip=self.head.client_ip,
            at_ms=self.head.at_ms,
            price_version=self.price.version,
        )


class Offers:
    """The catalogue, asked on behalf of requests."""

    def __init__(self, catalogue: Catalogue, metrics: RequestMetrics) -> None:
        self._catalogue, self._metrics = catalogue, metrics

    def make(self, head: RequestHead, principal: Principal, dialect: Dialect, request: ParsedRequest, model_id: str) -> Offer:
        """The offer for a request, on `model_id`; raises a named error where it is unknown or has no price.

        The price is that of the instant the request came, so that the record's `at_ms` says which one it was.
        """
        catalogue = self._catalogue.current
        model = catalogue.model(model_id)
        if model is None or dialect.operation not in model.operations:
            raise ClientError("model_not_found", "The model does not exist or is not offered here.", param="model")
        price = catalogue.price(model.id, head.at_ms)
        if price is None:
            self._metrics.unpriced()
            raise GatewayError("model_unpriced", f"The model '{model.id}' has no price at present and is not served.")
        by_units = price.by_units(dialect.operation)
        needs = dict.fromkeys((*request.needs, *request.most), 1)
        missing = price.missing(price.charged(dialect.operation, needs) if by_units else request.needs)
        if missing:
            self._metrics.unpriced()
            raise ClientError("unpriced_feature", _lacks(model, missing))
        if request.tier:
            self._check_tier(model, price, request)
        most = dialect.bound_input(request, model.rules)
        return Offer(
            head=head,
            principal=principal,
            dialect=dialect,
            request=request,
            model=model,
            price=price,
            bound=size(request, model.rules, most, price, by_units=by_units),
            input_tokens=min(most, dialect.estimate_input(request, model.rules)),
        )

    def _check_tier(self, model: Model, price: PriceBook, request: ParsedRequest) -> None:
        """Refuses a tier without a price, and whatever the request may incur that has none at that tier."""
        if missing := price.missing_at(request.tier, request.needs):
            self._metrics.unpriced()
            if request.tier in price.tiers:
                raise ClientError("unpriced_feature", _lacks(model, missing))
            (field, *_) = tier_fields(request.fields)
            raise unpriced(field, "This speed" if field == "speed" else "This service tier")


def _lacks(model: Model, missing: frozenset[str]) -> str:
    return f"The model '{model.id}' has no price here for: {', '.join(sorted(missing))}."
