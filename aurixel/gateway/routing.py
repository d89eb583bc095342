"""Chooses who may answer: the model's routes, in their configured order, as legs to try; it sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from aurixel.catalog import Model
from aurixel.dialects.translation import translates
from aurixel.errors import ClientError, ProviderError
from aurixel.gateway.itself import Guarded
from aurixel.plugin.contracts import (
    AnyBody,
    Attempt,
    Classified,
    Dialect,
    OpensItself,
    Outgoing,
    Provider,
    SpeaksLess,
    UpstreamReply,
)
from aurixel.registry import CallSite, PluginFailed, PluginMeter
from aurixel.upstream import Timeouts, Upstream


class UpstreamBlock:
    """One `[upstreams.NAME]`: its provider instance, whose pure calls are timed and counted, and its deadlines."""

    __slots__ = ("_classify", "_itself", "_open", "_prepare", "dialects", "name", "provider", "timeouts")

    def __init__(self, name: str, provider: Provider, timeouts: Timeouts, meter: PluginMeter) -> None:
        self.name, self.provider, self.timeouts = name, provider, timeouts
        less = provider if isinstance(provider, SpeaksLess) else None
        self.dialects: Mapping[str, Sequence[str]] = {
            operation: less.spoken(operation) if less else names for operation, names in provider.dialects.items()
        }
        self._itself = provider if isinstance(provider, OpensItself) else None
        self._open = CallSite(provider.kind, "open", meter)
        self._prepare = CallSite(provider.kind, "prepare", meter)
        self._classify = CallSite(provider.kind, "classify", meter)

    def prepare(self, attempt: Attempt, body: AnyBody) -> Outgoing:
        """The provider's `prepare`; `ProviderError("plugin_bug")` where it fails."""
        try:
            return self._prepare.call(self.provider.prepare, attempt, body)
        except PluginFailed:
            raise _plugin_bug() from None

    def open(
        self, outgoing: Outgoing, upstream: Upstream, sent: Callable[[], object]
    ) -> AbstractAsyncContextManager[UpstreamReply]:
        """The way to the upstream: over HTTP, or the provider's own. `sent`: from now on it may have seen the request."""
        if self._itself is None:
            return upstream.open(outgoing, self.timeouts, sent)
        return Guarded(self._itself, outgoing, self.timeouts, self._open, sent)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Classified:
        """The provider's `classify`; where it fails, another upstream may be tried."""
        try:
            return self._classify.call(self.provider.classify, status, headers, body)
        except PluginFailed:
            return Classified("failover", _plugin_bug())


def _plugin_bug() -> ProviderError:
    return ProviderError("plugin_bug", "The upstream's plugin failed.")


class Leg(msgspec.Struct, frozen=True):
    """One upstream that may answer, its own name for the model, and the dialect it is spoken to in."""

    upstream: UpstreamBlock
    model: str
    dialect: Dialect


class Routing:
    """The upstreams, by name, and the dialects they may speak."""

    def __init__(self, upstreams: Mapping[str, UpstreamBlock], dialects: Mapping[str, Dialect]) -> None:
        self._upstreams, self._dialects = upstreams, dialects

    def plan(self, model: Model, dialect: Dialect) -> tuple[Leg, ...]:
        """The legs that speak `dialect`, or another that it is translated into, in the operator's order; at least one.
        `ClientError("unsupported_dialect")` for none."""
        legs = tuple(
            Leg(block, route.model, spoken)
            for route in model.routes
            if (block := self._upstreams.get(route.upstream)) is not None
            and (spoken := self._spoken(block, dialect)) is not None
        )
        if not legs:
            raise ClientError(
                "unsupported_dialect",
                f"The model '{model.id}' is not offered on this endpoint. Use the endpoint of its own API family.",
                param="model",
            )
        return legs

    def _spoken(self, block: UpstreamBlock, dialect: Dialect) -> Dialect | None:
        """The client's own dialect if the upstream knows it, else the first that there is a way to."""
        spoken = block.dialects.get(dialect.operation, ())
        if dialect.name in spoken:
            return dialect
        for name in spoken:
            other = self._dialects.get(name)
            if other is not None and translates(dialect, other):
                return other
        return None
