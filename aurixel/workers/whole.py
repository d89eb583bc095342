"""The metrics of several workers as those of one gateway: added up where that means something, never going back.

Counters, histograms and summaries are sums over every worker there has been since the supervisor began: what a worker said
before it died is kept. Gauges are of the workers that answer now: ages and what every worker reads of the whole store are
the largest, all else is added. It asks nobody and knows no process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

from aurixel.metrics import STORE_WIDE, Scraped

_ADDED: Final = ("counter", "histogram", "summary")
_CREATED: Final = "_created"
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One sample of a family."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with its samples: `kind` is Prometheus' word for its type."""

    name: str
    text: str
    kind: str
    rows: list[Row]


def families(registry: CollectorRegistry) -> list[Family]:
    """What a registry would show now."""
    return [
        Family(metric.name, metric.documentation, metric.type, [Row(row.name, row.labels, row.value) for row in metric.samples])
        for metric in registry.collect()
    ]


class Whole:
    """What every worker last said, by slot, and what those said that are gone."""

    def __init__(self) -> None:
        self._now: dict[int, list[Family]] = {}
        self._past: dict[str, tuple[Family, dict[_Key, float]]] = {}

    def take(self, slot: int, said: list[Family]) -> None:
        """The newest word of the worker of a slot."""
        self._now[slot] = said

    def ended(self, slot: int) -> None:
        """The worker of a slot is gone: what it counted stays, what it measured does not."""
        for family in self._now.pop(slot, ()):
            if family.kind in _ADDED:
                _, rows = self._past.setdefault(family.name, (family, {}))
                _add(rows, family)

    def page(self, own: CollectorRegistry, silent: Collection[int] = ()) -> bytes:
        """The page of metrics, with the supervisor's own. Of `silent` workers only what they have counted is shown."""
        found = {name: (family, dict(rows)) for name, (family, rows) in self._past.items()}
        for slot, said in self._now.items():
            for family in said:
                if family.kind in _ADDED or slot not in silent:
                    _, rows = found.setdefault(family.name, (family, {}))
                    _add(rows, family)
        registry = CollectorRegistry()
        registry.register(_Shown([*own.collect(), *(_metric(family, rows) for family, rows in found.values())]))
        return generate_latest(registry)


def _add(rows: dict[_Key, float], family: Family) -> None:
    largest = family.kind not in _ADDED and (family.name.endswith("_seconds") or family.name in STORE_WIDE)
    for row in family.rows:
        key = (row.name, tuple(sorted(row.labels.items())))
        before = rows.get(key)
        if before is None:
            rows[key] = row.value
        elif row.name.endswith(_CREATED):
            rows[key] = min(before, row.value)
        else:
            rows[key] = max(before, row.value) if largest else before + row.value


def _metric(family: Family, rows: Mapping[_Key, float]) -> Metric:
    metric = Metric(family.name, family.text, family.kind)
    for (name, labels), value in rows.items():
        metric.add_sample(name, dict(labels), value)
    return metric


class _Shown(Scraped):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics
