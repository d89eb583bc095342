"""Every metric of the gateway, by name; labels are bounded, created up front, and never an account or a key.

Names start with `aurixel_` and end in a unit. Nothing here is global: the composition root makes one registry and hands
each room its own part. Children are bound once; the hot path only increments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, product
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from aurixel.errors import CLIENT_CODES, CREDIT_CODES, GATEWAY_CODES, POLICY_CODES, PROVIDER_CODES, RequestError
from aurixel.values import NANOS_PER_USD, USAGE_CLASSES, Counts, Nanos

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_CALL: Final = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10)
_LOOP: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_LAG: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400)
_CODES: Final = {
    "client": CLIENT_CODES,
    "policy": POLICY_CODES,
    "credit": CREDIT_CODES,
    "provider": PROVIDER_CODES,
    "gateway": GATEWAY_CODES,
}
OTHER: Final = "other"
# How a request ends that only asked how many tokens it has.
COUNTED: Final = "counted"
_LOSSES: Final = ("dropped", "emulated", "changed")


class _Settled(Protocol):
    @property
    def measured(self) -> bool: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def cost(self) -> Nanos: ...
    @property
    def via(self) -> str: ...
    @property
    def losses(self) -> Counts: ...


class _Timing(Protocol):
    def elapsed(self) -> float: ...
    def until(self, stage: str) -> float | None: ...


class Scraped(Collector):
    """A room that keeps plain numbers and writes them out when it is scraped."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known only with the values, and they clash with no other."""
        return ()


class Sums:
    """A histogram as plain numbers: `observe` costs a fifth of the library's, which locks and walks its buckets.

    It is for the request path alone, which runs on one thread; the library writes it out.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def write(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add it to a family that is about to be scraped."""
        names = (*map(floatToGoString, self._bounds), "+Inf")
        family.add_metric(labels, tuple(zip(names, accumulate(self._counts), strict=True)), self._total)


class RequestMetrics(Scraped):
    """What happens to requests: how they end, how long they take, what they use, what upstreams do.

    Plain numbers, read once a scrape, for the reason said at `Sums`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        dialects: Iterable[str],
        upstreams: Iterable[str],
        endings: Iterable[str],
        translations: Iterable[tuple[str, str]] = (),
    ) -> None:
        """`endings` are the cells of the settlement matrix; a request refused before them ends as `refused_early`,
        and one that only counts tokens as `counted`.
        `translations` are the pairs of dialects that there is a way between."""
        dialects, upstreams = tuple(dialects), tuple(upstreams)
        self._requests = dict.fromkeys(product(dialects, (*endings, COUNTED, "refused_early")), 0)
        self._seconds = {dialect: Sums(_SECONDS) for dialect in dialects}
        self._first = {dialect: Sums(_SECONDS) for dialect in dialects}
        self._refusals = {(kind, code): 0 for kind, codes in _CODES.items() for code in (*codes, OTHER)}
        self._usage = dict.fromkeys(USAGE_CLASSES, 0)
        self._attempts = dict.fromkeys(product(upstreams, ("ok", "cancelled", *PROVIDER_CODES, OTHER)), 0)
        self._upstream_seconds = {upstream: Sums(_SECONDS) for upstream in upstreams}
        pairs = tuple(translations)
        self._translated = dict.fromkeys(pairs, 0)
        self._losses = {(*pair, kind): 0 for pair in pairs for kind in _LOSSES}
        self._charged: Nanos = 0
        self._estimated = self._unpriced = self._surprises = self._running = 0
        registry.register(self)

    def began(self) -> None:
        """A request is being served."""
        self._running += 1

    def refused(self, error: RequestError) -> None:
        """A request was refused or failed with `error`."""
        key = (error.kind, error.code)
        self._refusals[key if key in self._refusals else (error.kind, OTHER)] += 1

    def unpriced(self) -> None:
        """A request was refused because something has no price."""
        self._unpriced += 1

    def surprised(self) -> None:
        """An upstream reported usage that has no price."""
        self._surprises += 1

    def attempted(self, upstream: str, code: str, seconds: float) -> None:
        """A try at an upstream ended: `code` is empty for success."""
        key = (upstream, code or "ok")
        self._attempts[key if key in self._attempts else (upstream, OTHER)] += 1
        self._upstream_seconds[upstream].observe(seconds)

    def ended(self, dialect: str, ending: str, timing: _Timing, settled: _Settled | None) -> None:
        """A request is over; `settled` is what it was charged, if it came that far."""
        self._running -= 1
        key = (dialect, ending)
        self._requests[key if key in self._requests else (dialect, "refused_early")] += 1
        self._seconds[dialect].observe(timing.elapsed())
        first = timing.until("first_byte")
        if first is not None:
            self._first[dialect].observe(first)
        if settled is None:
            return
        for name, count in settled.counts.items():
            self._usage[name.partition(".")[0]] += count
        self._charged += settled.cost
        if not settled.measured:
            self._estimated += 1
        if settled.via:
            self._translated[dialect, settled.via] += 1
            for kind, count in settled.losses.items():
                self._losses[dialect, settled.via, kind] += count

    def collect(self) -> Iterable[Metric]:
        """Everything as it is now."""
        yield _counter("aurixel_requests", "Requests by how they ended.", ("dialect", "ending"), self._requests)
        yield _histogram("aurixel_request_seconds", "From the first header to the last byte.", "dialect", self._seconds)
        text = "From the first header to the first byte of an event stream."
        yield _histogram("aurixel_first_byte_seconds", text, "dialect", self._first)
        yield _counter("aurixel_refusals", "Requests refused or failed, by kind and code.", ("kind", "code"), self._refusals)
        usage = {(name,): count for name, count in self._usage.items()}
        yield _counter("aurixel_usage_units", "Charged usage by class.", ("class",), usage)
        text = "Tries at upstreams: ok, cancelled (the client left) or a provider code."
        yield _counter("aurixel_upstream_attempts", text, ("upstream", "result"), self._attempts)
        yield _histogram("aurixel_upstream_seconds", "One try at an upstream.", "upstream", self._upstream_seconds)
        pair = ("dialect", "via")
        yield _counter("aurixel_translated_requests", "Requests translated into an upstream's dialect.", pair, self._translated)
        text = "Fields of translated requests and replies that the other dialect has no equal of, by what was done."
        yield _counter("aurixel_translation_losses", text, (*pair, "kind"), self._losses)
        charged = self._charged / NANOS_PER_USD
        yield CounterMetricFamily("aurixel_charged_usd", "Charged to accounts, in US dollars.", charged)
        yield CounterMetricFamily("aurixel_estimated_requests", "Requests charged by an estimate.", self._estimated)
        yield CounterMetricFamily("aurixel_unpriced_refusals", "Requests refused for want of a price.", self._unpriced)
        text = "Requests whose upstream reported usage without a price."
        yield CounterMetricFamily("aurixel_unpriced_usage_requests", text, self._surprises)
        yield GaugeMetricFamily("aurixel_running_requests", "Requests being served now.", self._running)


def _counter(name: str, text: str, labels: Sequence[str], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, label: str, sums: Mapping[str, Sums]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, each in sums.items():
        each.write(family, (value,))
    return family


class PluginMetrics(Scraped):
    """What plugins do wrong, and how long calls into them take (`registry.PluginMeter`).

    Plain sums that are read once a scrape: a histogram would cost more than most of the calls it measures.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls: dict[tuple[str, str], _Calls] = {}
        registry.register(self)

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        """Takes the seconds of one call; counts one failure."""
        calls = self._calls.setdefault((plugin, where), _Calls())
        return calls.took, calls.failed

    def collect(self) -> Iterable[Metric]:
        """The sums as they are now."""
        labels = ("plugin", "where")
        errors = CounterMetricFamily("aurixel_plugin_errors", "Failures of plugins.", labels=labels)
        seconds = SummaryMetricFamily("aurixel_plugin_seconds", "Time in calls into plugins.", labels=labels)
        for place, calls in self._calls.items():
            errors.add_metric(place, calls.errors)
            seconds.add_metric(place, count_value=calls.count, sum_value=calls.seconds)
        return (errors, seconds)


class _Calls:
    """The calls into one place of one plugin."""

    __slots__ = ("count", "errors", "seconds")

    def __init__(self) -> None:
        self.count, self.errors, self.seconds = 0, 0, 0.0

    def took(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def failed(self) -> None:
        self.errors += 1


class ObserverMetrics:
    """What observers miss."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dropped = Counter("aurixel_dropped_events", "Events that observers never saw.", registry=registry).inc


class LoopMetrics:
    """How late the event loop runs what is due: the one number that shows a blocked loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.delay = Histogram("aurixel_loop_delay_seconds", "How late a due callback ran.", buckets=_LOOP, registry=registry)


class ConnectionMetrics(Scraped):
    """What happens to connections to upstreams (`upstream.UpstreamMetrics`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._opened = self._reused = self._retried = 0
        self._first = Sums(_SECONDS)
        self.first_byte = self._first.observe
        registry.register(self)

    def opened(self) -> None:
        """A request goes out on a new connection."""
        self._opened += 1

    def reused(self) -> None:
        """A request goes out on a connection from the pool."""
        self._reused += 1

    def retried(self) -> None:
        """A connection from the pool was dead."""
        self._retried += 1

    def collect(self) -> Iterable[Metric]:
        """Everything as it is now."""
        text = "Requests by the connection they went out on: opened, reused, or retried because a pooled one was dead."
        hows = {("opened",): self._opened, ("reused",): self._reused, ("retried",): self._retried}
        yield _counter("aurixel_upstream_connections", text, ("how",), hows)
        text = "From asking an upstream to its status and headers."
        family = HistogramMetricFamily("aurixel_upstream_first_byte_seconds", text, labels=())
        self._first.write(family)
        yield family


class LedgerCounters:
    """What the ledger does, as it happens (`ledger.LedgerMetrics`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        refusals = Counter("aurixel_hold_refusals", "Holds refused, by reason.", ["why"], registry=registry)
        self._refused = {why: refusals.labels(why).inc for why in ("credit", "store", "journal", "stopping")}
        leases = Counter("aurixel_lease_operations", "Confirmed lease operations.", ["operation"], registry=registry)
        self._leases = {name: leases.labels(name).inc for name in ("open", "draw", "return", "close")}
        self._posted = Counter("aurixel_posted_records", "Usage records posted to the store.", registry=registry)
        self._written_off = Counter(
            "aurixel_written_off_usd", "Usage that no credit covered, in US dollars.", registry=registry
        )
        self._synced = Histogram(
            "aurixel_journal_sync_seconds", "Making the journal durable.", buckets=_CALL, registry=registry
        )
        self._silent = Counter("aurixel_store_silences", "Steps of the ledger the store did not answer.", registry=registry)
        self._recovered = Counter("aurixel_recovered_requests", "Requests charged by a replay.", registry=registry)
        self._crashed = Counter("aurixel_crashed_requests", "Requests that a crash had cut.", registry=registry)
        self._reclaimed = Counter("aurixel_reclaimed_usd", "Leases of dead nodes taken back, in US dollars.", registry=registry)
        self._aside = Counter("aurixel_journals_set_aside", "Journals of abandoned nodes found.", registry=registry)

    def refused(self, why: str) -> None:
        """A hold was refused."""
        self._refused[why]()

    def lease(self, operation: str) -> None:
        """A lease operation was confirmed by the store."""
        self._leases[operation]()

    def posted(self, records: int, written_off: Nanos) -> None:
        """A frame was confirmed by the store."""
        self._posted.inc(records)
        self._written_off.inc(written_off / NANOS_PER_USD)

    def synced(self, seconds: float) -> None:
        """The journal was made durable."""
        self._synced.observe(seconds)

    def store_silent(self) -> None:
        """The store gave no answer to a step of the ledger."""
        self._silent.inc()

    def recovered(self, requests: int, crashed: int) -> None:
        """An older incarnation was replayed."""
        self._recovered.inc(requests)
        self._crashed.inc(crashed)

    def reclaimed(self, amount: Nanos) -> None:
        """A dead node's lease went back to its account."""
        self._reclaimed.inc(amount / NANOS_PER_USD)

    def set_aside(self) -> None:
        """The journal of an abandoned node was found and will not be replayed."""
        self._aside.inc()


class PaymentMetrics:
    """Webhooks, what payments cost the operator, and orders that have work left (`payments.PaymentMetrics`)."""

    def __init__(self, registry: CollectorRegistry, *, backends: Iterable[str]) -> None:
        """`backends` are those that have webhooks."""
        text = "Webhooks by how they were answered: done, nothing new, or a kind of no or later."
        webhooks = Counter("aurixel_webhooks", text, ["backend", "result"], registry=registry)
        text = "From an event at the processor to its credit here."
        lag = Histogram("aurixel_webhook_lag_seconds", text, ["backend"], buckets=_LAG, registry=registry)
        self._webhooks, self._lag = {}, {}
        for backend in backends:
            for result in ("done", "nothing", "unknown", "invalid", "refused", "not_yet", "unavailable", "failed"):
                self._webhooks[backend, result] = webhooks.labels(backend, result).inc
            self._lag[backend] = lag.labels(backend).observe
        text = "Taken back by processors and covered by no credit, in US dollars."
        self._lost = Counter("aurixel_payment_losses_usd", text, registry=registry)
        self._left = Gauge("aurixel_open_orders", "Orders with work left after a sweep.", registry=registry)
        text = "Age of the oldest work that orders have left after a sweep."
        self._oldest = Gauge("aurixel_oldest_open_order_seconds", text, registry=registry)

    def webhook(self, backend: str, result: str, lag: float | None) -> None:
        """A webhook was answered."""
        self._webhooks[backend, result]()
        if lag is not None:
            self._lag[backend](lag)

    def lost(self, amount: Nanos) -> None:
        """Money went back that no credit covered."""
        self._lost.inc(amount / NANOS_PER_USD)

    def left(self, orders: int, oldest_seconds: float) -> None:
        """A sweep is over."""
        self._left.set(orders)
        self._oldest.set(oldest_seconds)


class BookMetrics:
    """All accounts together, as the store last said: set once a minute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._available = Gauge("aurixel_available_usd", "Credit of all accounts that nobody has leased.", registry=registry)
        self._all_leased = Gauge("aurixel_all_leased_usd", "Leased from accounts by all nodes.", registry=registry)
        self._drift = Gauge(
            "aurixel_drift_usd", "By how much accounts miss their own sum: anything but 0 is a fault.", registry=registry
        )
        text = "Age of the oldest movement that is not finished."
        self._oldest_open = Gauge("aurixel_oldest_open_movement_seconds", text, registry=registry)
        text = "When the accounts were last added up, in seconds since the epoch."
        self._read = Gauge("aurixel_books_read_timestamp_seconds", text, registry=registry)

    def read(self, available: Nanos, leased: Nanos, drift: Nanos, oldest_open_ms: int | None, now_ms: int) -> None:
        """The sums were read; `oldest_open_ms`: when the oldest movement that is still open was made."""
        self._available.set(available / NANOS_PER_USD)
        self._all_leased.set(leased / NANOS_PER_USD)
        self._drift.set(drift / NANOS_PER_USD)
        self._oldest_open.set(0 if oldest_open_ms is None else max(0, now_ms - oldest_open_ms) / 1000)
        self._read.set(now_ms / 1000)


# Gauges that each worker reads of the whole store, so that adding them up over workers would count everything anew.
STORE_WIDE: Final = frozenset(
    {
        "aurixel_available_usd",
        "aurixel_all_leased_usd",
        "aurixel_drift_usd",
        "aurixel_books_read_timestamp_seconds",
        "aurixel_oldest_open_movement_seconds",
    }
)


class WorkerMetrics:
    """The workers of one gateway, as their supervisor sees them; there are none of these with one worker."""

    def __init__(self, registry: CollectorRegistry, serving: Callable[[], int]) -> None:
        """`serving`: how many serve now."""
        Gauge("aurixel_serving_workers", "Workers that serve now.", registry=registry).set_function(serving)
        self.restarted = Counter("aurixel_worker_restarts", "Workers that died and were started again.", registry=registry).inc


class _Totals(Protocol):
    @property
    def held(self) -> Nanos: ...
    @property
    def leased(self) -> Nanos: ...
    @property
    def unposted(self) -> Nanos: ...
    @property
    def open(self) -> int: ...
    @property
    def oldest_open_ms(self) -> int: ...
    @property
    def oldest_unposted_ms(self) -> int: ...


class MoneyGauges(Scraped):
    """This node's money, read once a scrape: `totals` walks all leases, so it is asked once and not once a gauge."""

    def __init__(self, registry: CollectorRegistry, totals: Callable[[], _Totals]) -> None:
        self._totals = totals
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The gauges as they are now."""
        now = self._totals()
        yield GaugeMetricFamily("aurixel_held_usd", "Held for running requests.", now.held / NANOS_PER_USD)
        yield GaugeMetricFamily("aurixel_leased_usd", "Leased from accounts by this node.", now.leased / NANOS_PER_USD)
        yield GaugeMetricFamily("aurixel_unposted_usd", "Settled, not yet in the store.", now.unposted / NANOS_PER_USD)
        yield GaugeMetricFamily("aurixel_open_holds", "Requests that hold credit.", now.open)
        yield GaugeMetricFamily("aurixel_oldest_hold_seconds", "Age of the oldest hold.", now.oldest_open_ms / 1000)
        oldest = now.oldest_unposted_ms / 1000
        yield GaugeMetricFamily("aurixel_oldest_unposted_seconds", "Age of the oldest settlement not yet posted.", oldest)
