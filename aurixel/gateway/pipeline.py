"""The life of one request, in one direction:

edge -> auth -> parse -> policy -> hold -> plan -> encode + prepare -> upstream -> relay + meter -> settle -> record -> observe

Every exit settles what the meter saw or releases the hold, tells the policy checks, and answers the caller in the
caller's own dialect. Nothing here knows a vendor, a wire format or an HTTP server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final

import msgspec

from aurixel.clock import Clock
from aurixel.errors import ClientGone, GatewayError, RequestError
from aurixel.gateway.auth import Auth
from aurixel.gateway.books import Books
from aurixel.gateway.counting import Counting
from aurixel.gateway.exchange import Exchange, RequestHead
from aurixel.gateway.faults import answer_error, log_bug
from aurixel.gateway.intake import Intake
from aurixel.gateway.legs import Legs
from aurixel.gateway.offers import Offers
from aurixel.gateway.policy import Policy
from aurixel.gateway.relay import Delivery, reply_headers
from aurixel.gateway.routing import Routing
from aurixel.gateway.timing import Timing
from aurixel.ledger import Ledger, Matrix
from aurixel.metrics import COUNTED, RequestMetrics
from aurixel.plugin.contracts import Dialect, ErrorReply
from aurixel.registry import Observers
from aurixel.values import Principal, RequestFinished

# After a dialect's name, the route of its endpoint that counts tokens.
COUNTS: Final = "/count"


class Ticket(msgspec.Struct, frozen=True):
    """Who may ask, in which dialect: what auth found before a byte of the body was read. `counts`: for a count of tokens."""

    principal: Principal
    dialect: Dialect
    counts: bool = False


class Course(msgspec.Struct):
    """How far one request has come, for those who look at its end: `ending` is a cell, or the code it was refused with."""

    timing: Timing
    ending: str = "refused"
    headers: tuple[tuple[str, str], ...] = ()
    books: Books | None = None


class Pipeline:
    """The stages, wired. `matrix` is the settlement matrix; `reply_limit` bounds a whole (not streamed) reply, in bytes."""

    def __init__(
        self,
        *,
        auth: Auth,
        dialects: Mapping[str, Dialect],
        offers: Offers,
        policy: Policy,
        ledger: Ledger,
        matrix: Matrix,
        routing: Routing,
        legs: Legs,
        counting: Counting,
        metrics: RequestMetrics,
        observers: Observers,
        clock: Clock,
        reply_limit: int,
    ) -> None:
        self._auth, self._dialects, self._offers, self._policy = auth, dialects, offers, policy
        self._intake = Intake(dialects.values())
        self._ledger, self._matrix, self._routing, self._legs = ledger, matrix, routing, legs
        self._counting = counting
        self._metrics, self._observers, self._clock, self._reply_limit = metrics, observers, clock, reply_limit

    def admit(self, route: str, head: RequestHead) -> Ticket | Awaitable[Ticket]:
        """Who is asking, by the headers alone; raises `RequestError`. A cached key is answered without waiting."""
        principal = self._auth.cached(head.headers)
        if principal is None:
            return self._admit_slowly(route, head)
        return self._ticket(principal, route)

    async def _admit_slowly(self, route: str, head: RequestHead) -> Ticket:
        return self._ticket(await self._auth.resolve(head.headers), route)

    def _ticket(self, principal: Principal, route: str) -> Ticket:
        return Ticket(principal, self._dialects[route.removesuffix(COUNTS)], route.endswith(COUNTS))

    def render_error(self, route: str, error: RequestError, request_id: str) -> ErrorReply:
        """An error as a whole reply, for refusals before `serve`."""
        self._metrics.refused(error)
        return self._dialects[route.removesuffix(COUNTS)].encode_error(error, request_id)

    def end(self) -> None:
        """The gateway stops: running requests end with an error event, and nothing is sent upstream any more."""
        self._legs.end()

    async def serve(self, ticket: Ticket, exchange: Exchange) -> None:
        """Answer one request; raises nothing but a cancellation."""
        course = Course(Timing(exchange.head.started))
        course.timing.mark("auth")
        self._metrics.began()
        try:
            if ticket.counts:
                await self._count(ticket, exchange, course)
            else:
                await self._serve(ticket, exchange, course)
        except ClientGone:
            course.ending = "client_gone"
        except RequestError as error:
            await self._fail(ticket, exchange, course, error)
        except Exception as error:  # noqa: BLE001 - a bug is a 500 with a request id and nothing else
            log_bug(error, exchange.head.request_id)
            await self._fail(ticket, exchange, course, GatewayError("internal_error", "An internal error happened."))
        finally:
            self._observe(ticket, exchange.head, course)

    async def _serve(self, ticket: Ticket, exchange: Exchange, course: Course) -> None:
        head, principal, dialect, mark = exchange.head, ticket.principal, ticket.dialect, course.timing.mark
        request = await self._intake.read(dialect, exchange)
        offer = self._offers.make(head, principal, dialect, request, request.model)
        mark("parse")
        async with self._policy.ask(principal, offer.facts()) as permit:
            if permit.model != offer.model.id:
                offer = self._offers.make(head, principal, dialect, request, permit.model)
            course.headers = permit.headers
            mark("policy")
            async with self._ledger.hold(offer.intent(), offer.bound.want, offer.bound.least) as hold:
                mark("hold")
                async with Books(hold, offer, self._matrix, self._clock, self._metrics.surprised) as books:
                    course.books, permit.outcome = books, books.outcome
                    legs = self._routing.plan(offer.model, dialect)
                    delivery = Delivery(
                        exchange=exchange,
                        books=books,
                        timing=course.timing,
                        headers=permit.headers,
                        reply_limit=self._reply_limit,
                        answered=permit.tell,
                    )
                    await self._legs.answer(legs, delivery, offer.bound.affordable(hold.amount))

    async def _count(self, ticket: Ticket, exchange: Exchange, course: Course) -> None:
        await self._counting.answer(ticket.principal, ticket.dialect, exchange, course.timing.mark)
        course.ending = COUNTED

    async def _fail(self, ticket: Ticket, exchange: Exchange, course: Course, error: RequestError) -> None:
        self._metrics.refused(error)
        course.ending = error.code
        books = course.books
        if books is not None and books.answered:
            return
        cost = books.settlement.cost if books is not None and books.settlement is not None else None
        streaming = books is not None and books.events
        headers = (*course.headers, *reply_headers(course.timing, cost))
        await answer_error(exchange, ticket.dialect, error, headers, streaming=streaming)

    def _observe(self, ticket: Ticket, head: RequestHead, course: Course) -> None:
        books = course.books
        settled = books.settlement if books is not None else None
        ending = settled.cell if settled is not None else course.ending
        self._metrics.ended(ticket.dialect.name, ending, course.timing, settled)
        if books is not None and settled is not None and self._observers.wanted:
            self._observers.emit(
                RequestFinished(
                    request_id=head.request_id,
                    account=ticket.principal.account,
                    key_id=ticket.principal.key_id,
                    model=books.offer.model.id,
                    upstream=settled.upstream,
                    dialect=ticket.dialect.name,
                    stream=books.crossing.request.stream,
                    ending=ending,
                    status=settled.status,
                    cost=settled.cost,
                    counts=settled.counts,
                    seconds=course.timing.elapsed(),
                )
            )
