"""docs/metrics.md names every metric with its type, labels and words, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from aurixel import metrics
from aurixel.ledger import MATRIX, Totals

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def families() -> list[Metric]:
    """Every metric the gateway has, with one plugin call so that plugin metrics have a label."""
    registry = CollectorRegistry()
    pairs = [("one", "other")]
    metrics.RequestMetrics(registry, dialects=["openai_chat"], upstreams=["up"], endings=MATRIX, translations=pairs)
    metrics.PluginMetrics(registry).bind("plugin", "where")
    metrics.ConnectionMetrics(registry)
    metrics.LedgerCounters(registry)
    metrics.ObserverMetrics(registry)
    metrics.LoopMetrics(registry)
    metrics.BookMetrics(registry)
    metrics.WorkerMetrics(registry, lambda: 0)
    metrics.PaymentMetrics(registry, backends=["acme"])
    totals = Totals(held=0, leased=0, unposted=0, open=0, oldest_open_ms=0, oldest_unposted_ms=0)
    metrics.MoneyGauges(registry, lambda: totals)
    return sorted(registry.collect(), key=lambda family: family.name)


def row(family: Metric) -> str:
    """The line of the page."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
    return f"| `{name}` | {family.type} | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |"


def test_the_page_has_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `aurixel_.*$", PAGE.read_text(), re.MULTILINE)
    assert rows == [row(family) for family in families()]


def test_names_end_in_a_unit() -> None:
    units = ("_total", "_seconds", "_usd", "_requests", "_holds", "_workers", "_orders")
    for family in families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name.startswith("aurixel_")
        assert name.endswith(units), name
