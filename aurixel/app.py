"""The composition root: makes every room from the settings, owns every background task, and ends all in the right order.

It decides nothing about a request or about money. Start-up stops at the first room that refuses, and closes what was
opened. Shutdown: no new requests, running ones drain and then end with an error event, the ledger posts and gives its
leases back, the connections close, the store last.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry

from aurixel.accounts import limits_parser, unenforced_limits
from aurixel.catalog import Catalogue, read_files
from aurixel.clock import Clock, SystemClock
from aurixel.config import Settings, listening
from aurixel.dialects import family_of
from aurixel.dialects.translation import pairs
from aurixel.edge import Edge, Heads, Itself, Limits, Ops, Proxies, Routes, pages
from aurixel.errors import AurixelError, ConfigError, ConfigFaults, JournalUnusable, StoreUnavailable
from aurixel.gateway.auth import Auth
from aurixel.gateway.counting import Counting
from aurixel.gateway.legs import Legs
from aurixel.gateway.offers import Offers
from aurixel.gateway.pipeline import COUNTS, Pipeline
from aurixel.gateway.policy import BoundCheck, Policy
from aurixel.gateway.routing import Routing, UpstreamBlock
from aurixel.keys import KeyCache
from aurixel.ledger import MATRIX, Ledger, LedgerSettings, matrix_in_force, slot_folder, slots_beyond
from aurixel.ledger.verify import add_up
from aurixel.metrics import (
    BookMetrics,
    ConnectionMetrics,
    LedgerCounters,
    LoopMetrics,
    MoneyGauges,
    ObserverMetrics,
    PaymentMetrics,
    PluginMetrics,
    RequestMetrics,
)
from aurixel.payments import BoundBackend, Fulfilment, Sweep, Webhooks
from aurixel.plugin.billing import Shelf
from aurixel.plugin.contracts import ModelCard
from aurixel.registry import Observers, Registry
from aurixel.storage import open_store
from aurixel.storage.shelf import StoreShelf
from aurixel.upstream import Timeouts, Upstream

_log: Final = logging.getLogger("aurixel.app")
# How often the event loop's delay is measured, in seconds.
_PULSE: Final = 0.25
# How often all accounts are added up, in seconds.
_AUDIT: Final = 60.0
# How often orders that were left half done are finished, in seconds.
_SWEEP: Final = 60.0
# How long observers may take at shutdown, in seconds.
_LAST_WORDS: Final = 2.0

# The relay's doors: who asks here speaks this dialect.
ROUTES: Final = {
    ("POST", "/v1/chat/completions"): "openai_chat",
    ("POST", "/v1/responses"): "openai_responses",
    ("POST", "/v1/responses/input_tokens"): "openai_responses" + COUNTS,
    ("POST", "/v1/messages"): "anthropic_messages",
    ("POST", "/v1/messages/count_tokens"): "anthropic_messages" + COUNTS,
    ("POST", "/v1/completions"): "openai_completions",
    ("POST", "/v1/embeddings"): "openai_embeddings",
    ("POST", "/v1/moderations"): "openai_moderations",
    ("POST", "/v1/images/generations"): "openai_images",
    ("POST", "/v1/images/edits"): "openai_image_edits",
    ("POST", "/v1/images/variations"): "openai_image_variations",
    ("POST", "/v1/audio/speech"): "openai_speech",
    ("POST", "/v1/audio/transcriptions"): "openai_transcriptions",
    ("POST", "/v1/audio/translations"): "openai_translations",
}
# The dialect whose error shape a family's other pages use.
FAMILIES: Final = {"openai": "openai_chat", "anthropic": "anthropic_messages"}


class PluginHost:
    """What a plugin instance is given; its tasks belong to the app."""

    def __init__(
        self, name: str, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None], str], None], meter: PluginMetrics
    ) -> None:
        self.log = logging.getLogger(f"aurixel.plugin.{name}")
        self.clock = clock
        self._name, self._spawn = name, spawn
        _, self._failed = meter.bind(name, "spawn")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` until it ends or the app stops; a failure is counted here and logged by the app."""
        self._spawn(self._counted(work), f"{self._name}: {name}")

    async def _counted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            self._failed()
            raise


class BillingPluginHost(PluginHost):
    """What a billing backend is given: the same, and its shelf."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        meter: PluginMetrics,
        shelf: Shelf,
    ) -> None:
        super().__init__(name, clock, spawn, meter)
        self.shelf = shelf


class Seat(msgspec.Struct, frozen=True):
    """A worker's place among `server.workers`: the slot of its journal, and the port that all of them listen on."""

    slot: int
    port: int


class App:
    """One gateway process: `start` once, then `stop` once. Once started it has `checks` (in force), `ledger`, `service`.

    With a `seat` it is one of several: it shares the port with them, and `told` is for whoever serves `ops_listen`.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None, seat: Seat | None = None) -> None:
        self.settings, self.seat = settings, seat
        self.metrics = CollectorRegistry()
        self.told: Itself
        self.ending = asyncio.Event()  # set: `serve` stops
        self.clock = clock or SystemClock()
        self.store = open_store(settings.store.url.reveal())
        self.catalogue = Catalogue(self.store, self.clock)
        self.checks: list[BoundCheck] = []
        self.ledger: Ledger
        self.service: Pipeline
        self._exits = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulse: asyncio.TimerHandle | None = None
        self._ops: Ops | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports the gateway listens on."""
        return self._edge.ports

    @property
    def ops_ports(self) -> tuple[int, ...]:
        """The ports of `/metrics`, `/healthz` and `/readyz`; none with a seat."""
        return self._ops.ports if self._ops is not None else ()

    async def start(self) -> None:
        """Make and open every room, the listening sockets last. Raises what the first refusing room raises."""
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise

    async def stop(self) -> None:
        """Drain, settle, close: within the drain deadline and the ledger's own."""
        await self._exits.aclose()

    async def _start(self) -> None:
        settings, clock, defer = self.settings, self.clock, self._exits.push_async_callback
        metrics = self.metrics
        registry = Registry.load(settings.plugins.enabled)
        await self.store.open()
        defer(self.store.close)
        defer(self._end_tasks)
        meter = PluginMetrics(metrics)
        upstreams = self._upstreams(registry, meter)
        self.checks = checks = self._checks(registry, meter)
        backends = self._backends(registry, meter)
        enforcing = [bound.check for bound in checks]
        if loose := unenforced_limits(await self.store.key_limits(), enforcing, registry.enforcers()):
            raise ConfigFaults(loose)
        await self._load_catalogue()

        observed = ObserverMetrics(metrics)
        observers = Observers(registry.observers(), meter, dropped=observed.dropped)
        observers.start()
        defer(observers.stop, _LAST_WORDS)
        upstream = Upstream(metrics=ConnectionMetrics(metrics))
        defer(upstream.close)
        requests = RequestMetrics(
            metrics,
            dialects=registry.dialects,
            upstreams=upstreams,
            endings=MATRIX,
            translations=pairs(registry.dialects.values()),
        )
        drain_cap = settings.ledger.drain_cap if settings.ledger.client_gone == "drain" else None
        legs = Legs(upstream, requests, observers, clock, drain_cap)
        self.ledger = ledger = Ledger(
            self.store, self._ledger_settings(), clock, self._name(), LedgerCounters(metrics), legs.interrupt_all
        )
        try:
            await ledger.start()
        except JournalUnusable as error:
            place, mend = settings.place("ledger", "journal"), "stop that process, or name another folder"
            fault = f"the journal's folder {error.place}: {error.message}"
            raise ConfigError(fault, place=place, mend=mend, code="journal_unusable") from error
        defer(ledger.stop)
        MoneyGauges(metrics, ledger.totals)
        keys = KeyCache(
            self.store,
            settings.security.secret,
            clock,
            limits_parser(enforcing),
            believe_for=settings.outage.believe_keys_for,
        )
        defer(keys.close)
        policy, routing = Policy(checks), Routing(upstreams, registry.dialects)
        self.service = pipeline = Pipeline(
            auth=Auth(keys),
            dialects=registry.dialects,
            offers=Offers(self.catalogue, requests),
            policy=policy,
            ledger=ledger,
            matrix=matrix_in_force(settings.ledger.settlement),
            routing=routing,
            legs=legs,
            counting=Counting(self.catalogue, policy, routing, legs, upstream),
            metrics=requests,
            observers=observers,
            clock=clock,
            reply_limit=settings.server.max_body,
        )

        async def ready() -> str | None:
            await self.store.ping()
            return None

        async def admitting() -> str | None:
            return ledger.missing

        self.told = Itself(metrics, {"store": ready, "ledger": admitting})
        seat = self.seat
        if seat is None:
            self._ops = Ops(self.told)
            with listening(settings, "ops_listen"):
                await self._ops.start(str(settings.server.ops_listen))
            defer(self._ops.stop)
        self._watch_loop(LoopMetrics(metrics))
        self.spawn(self._poll_catalogue(), "catalogue")
        books = BookMetrics(metrics)
        counted = PaymentMetrics(metrics, backends=[name for name, each in backends.items() if each.takes_payment])
        fulfilment = Fulfilment(self.store, clock, settings.receipt_rules, counted)
        if seat is None or seat.slot == 0:  # of all accounts and orders: nobody gains where every worker does it
            self.spawn(self._watch_books(books), "books")
            if backends:
                self.spawn(self._sweep_orders(Sweep(fulfilment, backends)), "orders")
        heads = Heads(Proxies(str(network) for network in settings.server.trusted_proxies), clock)
        named = {route: registry.dialects[route.removesuffix(COUNTS)].family for route in ROUTES.values()}
        routes = Routes(ROUTES, FAMILIES, family_of, named)
        plain = pages(pipeline, routes, heads, self._cards, Webhooks(backends, fulfilment))
        self._edge = Edge(pipeline, routes, plain, heads, limits=self._limits())
        address = settings.server.listen if seat is None else settings.server.listen.model_copy(update={"port": seat.port})
        with listening(settings, "listen"):
            await self._edge.start(str(address), reuse_port=seat is not None)
        defer(self._edge.drain, settings.server.drain_deadline, pipeline.end)
        if seat is None:
            _log.info("listening: gateway %s, ops %s", ",".join(map(str, self.ports)), ",".join(map(str, self.ops_ports)))
        else:
            _log.info("worker %d listens", seat.slot)

    def _name(self) -> str:
        """How this node is called in `aurixel node list`."""
        return socket.gethostname() if self.seat is None else f"{socket.gethostname()}/{self.seat.slot}"

    def _upstreams(self, registry: Registry, meter: PluginMetrics) -> dict[str, UpstreamBlock]:
        found = {}
        for name, block in self.settings.upstreams.items():
            host = PluginHost(name, self.clock, self.spawn, meter)
            provider = registry.build_provider(name, block.provider, block.settings, host)
            timeouts = Timeouts(
                connect=block.connect_timeout,
                first_byte=block.first_byte_timeout,
                idle=block.idle_timeout,
                total=block.total_timeout,
            )
            found[name] = UpstreamBlock(name, provider, timeouts, meter)
        return found

    def _checks(self, registry: Registry, meter: PluginMetrics) -> list[BoundCheck]:
        checks = []
        for name, block in self.settings.policy.items():
            check = registry.build_check(name, block.settings, PluginHost(name, self.clock, self.spawn, meter))
            checks.append(BoundCheck(check, deadline=block.deadline, on_error=block.on_error, meter=meter))
        return checks

    def _backends(self, registry: Registry, meter: PluginMetrics) -> dict[str, BoundBackend]:
        found = {}
        for name, block in self.settings.payments.items():
            host = BillingPluginHost(name, self.clock, self.spawn, meter, StoreShelf(self.store, name))
            backend = registry.build_backend(name, block.settings, host)
            found[name] = BoundBackend(name, backend, registry.owner("billing backend", name), block.deadline, meter)
        if any(backend.takes_payment for backend in found.values()):
            self.settings.order_rules.pages("")
        return found

    def _ledger_settings(self) -> LedgerSettings:
        section, outage = self.settings.ledger, self.settings.outage
        timing, slot = section.timing, self.seat.slot if self.seat is not None else 0
        workers = self.settings.server.workers if self.seat is not None else 1
        return LedgerSettings(
            journal=slot_folder(section.journal, slot),
            adopted=slots_beyond(section.journal, workers) if slot == 0 else (),
            fsync=section.fsync,
            fsync_interval=section.fsync_interval,
            segment=section.segment,
            lease_target=section.lease_target,
            beat_every=timing.beat,
            admit_within=timing.admit_within,
            dead_after=timing.dead_after,
            reclaim_after=timing.reclaim_after,
            sweep_every=timing.sweep,
            outage_for=outage.admit_for,
            unposted_limit=outage.unposted_limit,
            stop_within=10.0,
        )

    def _limits(self) -> Limits:
        server = self.settings.server
        return Limits(
            header_bytes=server.max_header,
            body_bytes=server.max_body,
            header_seconds=server.header_timeout,
            body_seconds=server.body_timeout,
            idle_seconds=server.idle_timeout,
            stall_seconds=server.stall_timeout,
            connections=server.max_connections,
        )

    def _cards(self) -> Sequence[ModelCard]:
        snapshot, now = self.catalogue.current, self.clock.wall_ms()
        return [
            ModelCard(
                id=model.id,
                created_ms=model.created_ms,
                context=model.rules.context,
                max_output=model.rules.max_output,
            )
            for _, model in sorted(snapshot.models.items())
            if snapshot.price(model.id, now) is not None
            and any(route.upstream in self.settings.upstreams for route in model.routes)
        ]

    # --- the catalogue -------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Publish the catalogue's files as a new version (`SIGHUP`); a fault in them is logged, and nothing changes."""
        try:
            version = await self.catalogue.publish(read_files(*self.settings.catalogue_files), "reload")
            _log.info("the catalogue is at version %d", version)
        except ConfigFaults as faults:
            for fault in faults.faults:
                _log.error("the catalogue is unchanged: %s", fault)
        except AurixelError as error:
            _log.error("the catalogue is unchanged: %s", error)

    async def _load_catalogue(self) -> None:
        await self.catalogue.refresh()
        if not self.catalogue.current.version:
            await self.catalogue.seed(read_files(*self.settings.catalogue_files), "start")

    async def _poll_catalogue(self) -> None:
        broken = ""
        while True:
            await asyncio.sleep(self.settings.catalogue.poll)
            try:
                await self.catalogue.refresh()
                broken = ""
            except StoreUnavailable:
                pass  # the ledger says so
            except AurixelError as error:
                if type(error).__name__ != broken:
                    broken = type(error).__name__
                    _log.warning("the catalogue could not be refreshed: %s", error)

    async def _watch_books(self, metrics: BookMetrics) -> None:
        while True:
            try:
                sums = await add_up(self.store)
                metrics.read(sums.available, sums.leased, sums.drift, sums.oldest_open_ms, self.clock.wall_ms())
            except StoreUnavailable:
                pass  # the ledger says so
            await asyncio.sleep(_AUDIT)

    async def _sweep_orders(self, sweep: Sweep) -> None:
        while True:
            try:
                await sweep.round()
            except StoreUnavailable:
                pass  # the ledger says so already
            await asyncio.sleep(_SWEEP)

    # --- tasks ---------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` until it ends or the app stops; a failure is logged."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - `_end_tasks` awaits it
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the task '%s' failed", task.get_name(), exc_info=error)

    async def _end_tasks(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _watch_loop(self, metrics: LoopMetrics) -> None:
        loop = asyncio.get_running_loop()

        def beat(due: float) -> None:
            now = loop.time()
            metrics.delay.observe(max(0.0, now - due))
            self._pulse = loop.call_later(_PULSE, beat, now + _PULSE)

        self._pulse = loop.call_later(_PULSE, beat, loop.time() + _PULSE)


async def serve(settings: Settings, ready: Callable[[App], Awaitable[None]] | None = None, *, seat: Seat | None = None) -> App:
    """Serve until SIGTERM, SIGINT or `App.ending`, on uvloop. `ready` is awaited once it listens.

    The app as it ended. Raises what `App.start` raises.
    """
    app = App(settings, seat=seat)
    loop, serving = asyncio.get_running_loop(), False

    def reload() -> None:
        if serving:  # before that the files are read anyway
            app.spawn(app.reload(), "reload")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.ending.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await app.start()
    serving = True
    # What start-up made stays: the collector need not walk it again, nor look after every few requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        if ready is not None:
            await ready(app)
        await app.ending.wait()
        _log.info("stopping")
    finally:
        await app.stop()
    return app
