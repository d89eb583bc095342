"""Answers how many tokens a request's input has: by asking the upstream that would serve it, or else by an estimate.

It is free: nothing is held, charged or recorded. Policy checks are asked as for any request. An estimate is marked as one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aurixel.catalog import Catalogue, Model
from aurixel.errors import ClientError, ProviderError
from aurixel.gateway.exchange import Exchange
from aurixel.gateway.legs import Legs
from aurixel.gateway.policy import Policy
from aurixel.gateway.relay import Refused, refusal
from aurixel.gateway.routing import Leg, Routing
from aurixel.plugin.contracts import Attempt, CountsTokens, Dialect, ParsedRequest
from aurixel.registry import COUNT
from aurixel.upstream import Upstream, outbound_headers
from aurixel.values import Principal, RequestFacts

# Said on each answer: `upstream` counted, or this is an `estimate`.
COUNTED_HEADER: Final = "x-aurixel-counted"
_REPLY_LIMIT: Final = 64 * 1024


class Counting:
    """The stages of a count, wired."""

    def __init__(self, catalogue: Catalogue, policy: Policy, routing: Routing, legs: Legs, upstream: Upstream) -> None:
        self._catalogue, self._policy, self._routing = catalogue, policy, routing
        self._legs, self._upstream = legs, upstream

    async def answer(self, principal: Principal, dialect: Dialect, exchange: Exchange, stage: Callable[[str], None]) -> None:
        """Answer one request in a dialect that counts; raises `RequestError`, `ClientGone`. `stage` is told what is done."""
        assert isinstance(dialect, CountsTokens)  # the routes say so
        head = exchange.head
        request = dialect.parse_count(await exchange.body.all(), head.headers)
        model = self._model(dialect, request.model)
        stage("parse")
        facts = RequestFacts(
            request_id=head.request_id,
            operation=dialect.operation,
            dialect=dialect.name,
            model=model.id,
            stream=False,
            client_ip=head.client_ip,
            at_ms=head.at_ms,
            tokens=0,
        )
        async with self._policy.ask(principal, facts) as permit:
            if permit.model != model.id:
                model = self._model(dialect, permit.model)
            stage("policy")
            with self._legs.stoppable(exchange):
                tokens = await self._ask(dialect, dialect, request, model, exchange)
                stage("upstream")
            counted = "estimate" if tokens is None else "upstream"
            body = dialect.write_count(dialect.estimate_input(request, model.rules) if tokens is None else tokens)
            kind, length = ("content-type", "application/json"), ("content-length", str(len(body)))
            exchange.start(200, (kind, length, *permit.headers, (COUNTED_HEADER, counted)))
            await exchange.write(body)
            exchange.finish()

    def _model(self, dialect: Dialect, id: str) -> Model:
        model = self._catalogue.current.model(id)
        if model is None or dialect.operation not in model.operations:
            raise ClientError("model_not_found", "The model does not exist or is not offered here.", param="model")
        return model

    async def _ask(
        self, dialect: Dialect, counter: CountsTokens, request: ParsedRequest, model: Model, exchange: Exchange
    ) -> int | None:
        """What the upstream counts that would serve the request; None where it cannot say."""
        leg = self._first(model, dialect)
        if leg is None:
            return None
        attempt = Attempt(
            operation=COUNT,
            dialect=dialect.name,
            model=leg.model,
            stream=False,
            query=exchange.head.query,
            headers=outbound_headers(exchange.head.headers),
        )
        try:
            outgoing = leg.upstream.prepare(attempt, counter.patch_count(request, leg.model))
            async with leg.upstream.open(outgoing, self._upstream, lambda: None) as reply:
                if not 200 <= reply.status < 300:
                    raise await refusal(reply, leg.upstream, translated=False)
                return counter.read_count(await reply.read(_REPLY_LIMIT))
        except Refused as error:
            if error.text is not None:
                raise  # the client's own fault, in the upstream's words
            return None
        except ProviderError:
            return None

    def _first(self, model: Model, dialect: Dialect) -> Leg | None:
        leg = self._routing.plan(model, dialect)[0]
        return leg if leg.dialect is dialect and dialect.name in leg.upstream.dialects.get(COUNT, ()) else None
