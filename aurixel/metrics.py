"""Every metric of the gateway, by name; labels are bounded, created up front, and never an account or a key.

Names start with `aurixel_` and end in a unit. Nothing here is global: the composition root makes one registry and hands
each room its own part. Children are bound once; the hot path only increments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aurixel.errors import CLIENT_CODES, CREDIT_CODES, GATEWAY_CODES, POLICY_CODES, PROVIDER_CODES, RequestError
from aurixel.values import NANOS_PER_USD, USAGE_CLASSES, Counts, Nanos

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_CALL: Final = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10)
_LOOP: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_CODES: Final = {
    "client": CLIENT_CODES,
    "policy": POLICY_CODES,
    "credit": CREDIT_CODES,
    "provider": PROVIDER_CODES,
    "gateway": GATEWAY_CODES,
}
OTHER: Final = "other"


class _Settled(Protocol):
    @property
    def measured(self) -> bool: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def cost(self) -> Nanos: ...


class _Timing(Protocol):
    def elapsed(self) -> float: ...
    def until(self, stage: str) -> float | None: ...


class RequestMetrics:
    """What happens to requests: how they end, how long they take, what they use, what upstreams do."""

    def __init__(
        self, registry: CollectorRegistry, *, dialects: Iterable[str], upstreams: Iterable[str], endings: Iterable[str]
    ) -> None:
        """`endings` are the cells of the settlement matrix; a request refused before them ends as `refused_early`."""
        self._endings, dialects = (*endings, "refused_early"), tuple(dialects)
        requests = Counter("aurixel_requests", "Requests by how they ended.", ["dialect", "ending"], registry=registry)
        self._requests = {
            (dialect, ending): requests.labels(dialect, ending) for dialect in dialects for ending in self._endings
        }
        seconds = Histogram(
            "aurixel_request_seconds",
            "From the first header to the last byte.",
            ["dialect"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._seconds = {dialect: seconds.labels(dialect) for dialect in dialects}
        first = Histogram(
            "aurixel_first_byte_seconds",
            "From the first header to the first byte of an event stream.",
            ["dialect"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = {dialect: first.labels(dialect) for dialect in dialects}
        refusals = Counter(
            "aurixel_refusals", "Requests refused or failed, by kind and code.", ["kind", "code"], registry=registry
        )
        self._refusals = {
            (kind, code): refusals.labels(kind, code) for kind, codes in _CODES.items() for code in (*codes, OTHER)
        }
        usage = Counter("aurixel_usage_units", "Charged usage by class.", ["class"], registry=registry)
        self._usage = {name: usage.labels(name) for name in USAGE_CLASSES}
        self._charged = Counter("aurixel_charged_usd", "Charged to accounts, in US dollars.", registry=registry)
        self._estimated = Counter("aurixel_estimated_requests", "Requests charged by an estimate.", registry=registry)
        self._unpriced = Counter("aurixel_unpriced_refusals", "Requests refused for want of a price.", registry=registry)
        self._surprises = Counter(
            "aurixel_unpriced_usage_requests", "Requests whose upstream reported usage without a price.", registry=registry
        )
        self._running = Gauge("aurixel_running_requests", "Requests being served now.", registry=registry)
        attempts = Counter(
            "aurixel_upstream_attempts",
            "Tries at upstreams: ok, cancelled (the client left) or a provider code.",
            ["upstream", "result"],
            registry=registry,
        )
        results = ("", "cancelled", *PROVIDER_CODES, OTHER)
        upstreams = tuple(upstreams)
        self._attempts = {
            (upstream, result): attempts.labels(upstream, result or "ok") for upstream in upstreams for result in results
        }
        upstream_seconds = Histogram(
            "aurixel_upstream_seconds", "One try at an upstream.", ["upstream"], buckets=_SECONDS, registry=registry
        )
        self._upstream_seconds = {upstream: upstream_seconds.labels(upstream) for upstream in upstreams}

    def began(self) -> None:
        """A request is being served."""
        self._running.inc()

    def refused(self, error: RequestError) -> None:
        """A request was refused or failed with `error`."""
        counter = self._refusals.get((error.kind, error.code)) or self._refusals[error.kind, OTHER]
        counter.inc()

    def unpriced(self) -> None:
        """A request was refused because something has no price."""
        self._unpriced.inc()

    def surprised(self) -> None:
        """An upstream reported usage that has no price."""
        self._surprises.inc()

    def attempted(self, upstream: str, code: str, seconds: float) -> None:
        """A try at an upstream ended: `code` is empty for success."""
        counter = self._attempts.get((upstream, code)) or self._attempts[upstream, OTHER]
        counter.inc()
        self._upstream_seconds[upstream].observe(seconds)

    def ended(self, dialect: str, ending: str, timing: _Timing, settled: _Settled | None) -> None:
        """A request is over; `settled` is what it was charged, if it came that far."""
        self._running.dec()
        self._requests.get((dialect, ending), self._requests[dialect, "refused_early"]).inc()
        self._seconds[dialect].observe(timing.elapsed())
        first = timing.until("first_byte")
        if first is not None:
            self._first[dialect].observe(first)
        if settled is None:
            return
        for name, count in settled.counts.items():
            self._usage[name.partition(".")[0]].inc(count)
        if settled.cost:
            self._charged.inc(settled.cost / NANOS_PER_USD)
        if not settled.measured:
            self._estimated.inc()


class PluginMetrics:
    """What plugins do wrong, and how long calls into them take."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["plugin", "where"]
        self._errors = Counter("aurixel_plugin_errors", "Failures of plugins.", labels, registry=registry)
        self._seconds = Histogram(
            "aurixel_plugin_seconds", "Time in one call into a plugin.", labels, buckets=_CALL, registry=registry
        )

    def bind(self, plugin: str, where: str) -> tuple[Callable[[float], object], Callable[[], object]]:
        """Takes the seconds of one call; counts one failure."""
        return self._seconds.labels(plugin, where).observe, self._errors.labels(plugin, where).inc


class LoopMetrics:
    """How late the event loop runs what is due: the one number that shows a blocked loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.delay = Histogram("aurixel_loop_delay_seconds", "How late a due callback ran.", buckets=_LOOP, registry=registry)


class MoneyMetrics:
    """Gauges of money in US dollars, read when scraped: what this node holds, has leased, and has not yet posted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add one gauge; `read` must not block."""
        Gauge(name, text, registry=self._registry).set_function(read)
