"""Tries the legs of a plan until one answers; after the first byte to the client there is no other leg.

It ends at once when the gateway stops, wherever it is waiting, and when the client leaves, unless the operator wants
upstreams that are at work to be read to their end: then no other leg is tried, and a cap of seconds ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from aurixel.clock import Clock
from aurixel.dialects.translation import Crossing
from aurixel.errors import ClientError, ClientGone, GatewayError, ProviderError, RequestError
from aurixel.gateway.crossing import cross, large
from aurixel.gateway.exchange import Exchange
from aurixel.gateway.intake import Onward
from aurixel.gateway.leaving import Interruptible
from aurixel.gateway.relay import Delivery, Refused
from aurixel.gateway.routing import Leg
from aurixel.metrics import RequestMetrics
from aurixel.plugin.contracts import AnyBody, Attempt, Changes, Outgoing
from aurixel.registry import Observers
from aurixel.upstream import Upstream, outbound_headers
from aurixel.values import UpstreamAttempted

_log: Final = logging.getLogger("aurixel.gateway")
# How often an upstream that refuses our key is complained of, in seconds.
_COMPLAIN_EVERY: Final = 60.0


class Legs:
    """The way out, and every request that is on it. `drain_cap`: for how many seconds an upstream is read on once its
    client has left; None: it is closed at once."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: RequestMetrics,
        observers: Observers,
        clock: Clock,
        drain_cap: float | None = None,
    ) -> None:
        self._upstream, self._metrics, self._observers, self._clock = upstream, metrics, observers, clock
        self._drain_cap = drain_cap
        self._running: set[Interruptible] = set()
        self._ended = False
        self._complained: dict[str, float] = {}

    def interrupt_all(self) -> None:
        """Running requests end with an error event in their dialect, and settle."""
        for running in tuple(self._running):
            running.now(_shutting_down())

    def end(self) -> None:
        """The gateway stops: as `interrupt_all`, and whoever comes from now on is refused."""
        self._ended = True
        self.interrupt_all()

    @contextmanager
    def stoppable(self, exchange: Exchange) -> Iterator[None]:
        """What is done inside ends at once when the client leaves (`ClientGone`) or the gateway stops."""
        if exchange.gone:
            raise ClientGone
        if self._ended:
            raise _shutting_down()
        with Interruptible() as stop:
            exchange.on_gone(lambda: stop.now(ClientGone()))
            self._running.add(stop)
            try:
                yield
            finally:
                self._running.discard(stop)
                exchange.on_gone(None)

    async def answer(self, legs: tuple[Leg, ...], delivery: Delivery, output_limit: int | None) -> None:
        """Answer the client by the first leg that can; `output_limit` in tokens where credit demands one.

        Raises `ClientGone`, or the last leg's `RequestError` where the client has had no answer.
        """
        if delivery.exchange.gone:
            raise ClientGone
        if self._ended:
            raise _shutting_down()
        books = delivery.books
        with Interruptible() as stop:

            def read_on() -> bool:
                if self._drain_cap is None or not books.underway:
                    return False
                books.left = True
                stop.within(self._drain_cap, ClientGone())
                return True

            def left() -> None:
                if not read_on():
                    stop.now(ClientGone())

            delivery.exchange.on_gone(left)
            self._running.add(stop)
            try:
                await self._first_that_can(legs, delivery, output_limit, read_on)
            finally:
                self._running.discard(stop)
                delivery.exchange.on_gone(None)

    async def _first_that_can(
        self, legs: tuple[Leg, ...], delivery: Delivery, output_limit: int | None, read_on: Callable[[], bool]
    ) -> None:
        """The last leg's failure, or where none was asked the first reason why not, is raised."""
        books = delivery.books
        failure: RequestError | None = None
        for leg in legs:
            try:
                if large(books.offer, leg.dialect):
                    crossing = await asyncio.to_thread(cross, books.offer, leg.dialect, output_limit)
                else:
                    crossing = cross(books.offer, leg.dialect, output_limit)
            except ClientError as error:
                failure = failure or error
                continue
            try:
                return await self._try(leg, crossing, delivery, output_limit, read_on)
            except Refused:
                raise
            except ProviderError as error:
                if books.begun or books.committed or books.left or books.settlement is not None:
                    raise
                failure = error
        assert failure is not None  # a plan has a leg
        raise failure

    async def _try(
        self, leg: Leg, crossing: Crossing, delivery: Delivery, output_limit: int | None, read_on: Callable[[], bool]
    ) -> None:
        block, books, began, status, code = leg.upstream, delivery.books, self._clock.boot(), 0, "cancelled"
        books.turns(crossing)
        try:
            outgoing = self._prepare(leg, crossing, delivery, output_limit)
            books.upstream = block.name
            # Of an upload the upstream has seen nothing to bill us for until it has all of it, or has answered.
            asked = books.asked if isinstance(outgoing.body, Sequence) else _nothing
            async with block.open(outgoing, self._upstream, asked) as reply:
                status = reply.status
                if 200 <= status < 300:
                    books.answers()
                await delivery.relay(reply, block, read_on)
            code = ""
        except RequestError as error:
            code = error.code
            if code == "upstream_credentials":
                self._complain(block.name, status)
            raise
        except ClientGone:
            raise
        except Exception:
            code = "bug"
            raise
        finally:
            seconds = self._clock.boot() - began
            self._metrics.attempted(block.name, code, seconds)
            if self._observers.wanted:
                self._observers.emit(
                    UpstreamAttempted(
                        request_id=delivery.exchange.head.request_id,
                        upstream=block.name,
                        model=leg.model,
                        status=status,
                        code=code,
                        seconds=seconds,
                    )
                )

    def _complain(self, upstream: str, status: int) -> None:
        """Nobody but the operator can mend a key, and the client is not told of it."""
        now = self._clock.boot()
        if now - self._complained.get(upstream, float("-inf")) >= _COMPLAIN_EVERY:
            self._complained[upstream] = now
            _log.warning("upstream %s refuses our key or its quota (upstream_credentials, status %d)", upstream, status)

    def _prepare(self, leg: Leg, crossing: Crossing, delivery: Delivery, output_limit: int | None) -> Outgoing:
        offer, field = delivery.books.offer, leg.upstream.provider.output_limit_field
        by_tokens = not offer.price.by_units(offer.dialect.operation)
        changes = Changes(model=leg.model, output_limit=output_limit, output_limit_field=field, by_tokens=by_tokens)
        written = leg.dialect.patch_request(crossing.request, changes)
        body: AnyBody = written
        upload, books = crossing.request.upload, delivery.books
        if upload is not None and not upload.whole:
            body = Onward(written, delivery.exchange, upload, begins=books.begins, ends=books.asked)
        straight = not crossing.translated
        attempt = Attempt(
            operation=leg.dialect.operation,
            dialect=leg.dialect.name,
            model=leg.model,
            stream=crossing.request.stream,
            # What a client says in its own dialect's query and headers means nothing in another.
            query=offer.head.query if straight else "",
            headers=outbound_headers(offer.head.headers) if straight else (),
        )
        return leg.upstream.prepare(attempt, body)


def _nothing() -> None: ...


def _shutting_down() -> GatewayError:
    return GatewayError("shutting_down", "The gateway is restarting. Try again.", retry_after=1)
