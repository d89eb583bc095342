"""The metrics of several workers are those of one gateway: sums that never go back, and gauges that mean something."""

from __future__ import annotations

from collections import Counter as Sums
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from aurixel.ledger import MATRIX, Totals
from aurixel.metrics import STORE_WIDE, BookMetrics, LedgerCounters, LoopMetrics, MoneyGauges, RequestMetrics
from aurixel.workers.whole import Whole, families
from tests.edge.test_ops import check_metrics


class Worker:
    """A worker's registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.done = Counter("aurixel_done", "Done.", ["how"], registry=self.registry)
        self.seconds = Histogram("aurixel_work_seconds", "Work.", buckets=(1, 2), registry=self.registry)
        self.held = Gauge("aurixel_held_usd", "Held.", registry=self.registry)
        self.oldest = Gauge("aurixel_oldest_seconds", "Oldest.", registry=self.registry)
        self.drift = Gauge("aurixel_drift_usd", "Drift.", registry=self.registry)


def shown(whole: Whole, silent: set[int] | None = None) -> dict[str, float]:
    """The page, as Prometheus reads it: `name{labels}` -> value."""
    page = whole.page(CollectorRegistry(), silent or set()).decode()
    return {
        sample.name + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counters_and_histograms_are_added_and_outlive_their_worker() -> None:
    whole, first, second = Whole(), Worker(), Worker()
    first.done.labels("ok").inc(3)
    second.done.labels("ok").inc(4)
    second.done.labels("bad").inc()
    first.seconds.observe(0.5)
    second.seconds.observe(1.5)
    whole.take(0, families(first.registry))
    whole.take(1, families(second.registry))
    together = shown(whole)
    assert together["aurixel_done_total{ok}"] == 7
    assert together["aurixel_done_total{bad}"] == 1
    assert [together[f"aurixel_work_seconds_bucket{{{le}}}"] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert (together["aurixel_work_seconds_sum"], together["aurixel_work_seconds_count"]) == (2.0, 2)
    assert together["aurixel_work_seconds_created"] == first.seconds.collect()[0].samples[-1].value
    whole.ended(1)
    assert {name: value for name, value in shown(whole).items() if "done_total" in name or "work" in name} == {
        name: value for name, value in together.items() if "done_total" in name or "work" in name
    }
    again = Worker()
    again.done.labels("ok").inc()
    whole.take(1, families(again.registry))
    assert shown(whole)["aurixel_done_total{ok}"] == 8


def test_gauges_are_added_but_ages_and_what_is_of_the_whole_store_are_the_largest() -> None:
    whole, first, second = Whole(), Worker(), Worker()
    for worker, value in ((first, 2), (second, 5)):
        worker.held.set(value)
        worker.oldest.set(value)
        worker.drift.set(value)
    whole.take(0, families(first.registry))
    whole.take(1, families(second.registry))
    page = shown(whole)
    assert (page["aurixel_held_usd"], page["aurixel_oldest_seconds"], page["aurixel_drift_usd"]) == (7, 5, 5)
    page = shown(whole, {1})
    assert (page["aurixel_held_usd"], page["aurixel_oldest_seconds"], page["aurixel_drift_usd"]) == (2, 2, 2)
    whole.ended(1)
    page = shown(whole)
    assert (page["aurixel_held_usd"], page["aurixel_oldest_seconds"], page["aurixel_drift_usd"]) == (2, 2, 2)
    whole.ended(0)
    assert "aurixel_held_usd" not in shown(whole)


def test_a_silent_worker_keeps_what_it_had_counted() -> None:
    whole, worker = Whole(), Worker()
    worker.done.labels("ok").inc(3)
    whole.take(0, families(worker.registry))
    assert shown(whole, {0})["aurixel_done_total{ok}"] == 3


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["count", "count", "look", "die"]), st.integers(0, 2)),
            st.tuples(st.just("scrape"), st.sets(st.integers(0, 2))),
        )
    )
)
def test_nothing_shown_ever_goes_back(steps: list[tuple[str, int | set[int]]]) -> None:
    """Whatever is counted, looked at and killed in any order; and what was looked at before a death is all there."""
    whole, workers, before = Whole(), {slot: Worker() for slot in range(3)}, 0.0
    counted: Sums[int] = Sums()
    seen: Sums[int] = Sums()
    for what, slot in steps:
        if isinstance(slot, set):
            now = shown(whole, slot).get("aurixel_done_total{ok}", 0)
            assert now >= before
            assert now == sum(seen.values())
            before = now
        elif what == "count":
            workers[slot].done.labels("ok").inc()
            counted[slot] += 1
        elif what == "look":
            whole.take(slot, families(workers[slot].registry))
            seen[slot] = counted[slot]
        else:
            whole.ended(slot)
            workers[slot], counted[slot] = Worker(), seen[slot]


def test_what_every_worker_reads_of_the_whole_store_is_known_as_such() -> None:
    registry = CollectorRegistry()
    BookMetrics(registry)
    assert {family.name for family in registry.collect()} == STORE_WIDE


def test_the_page_of_real_metrics_is_as_prometheus_wants_it(promtool: Path) -> None:
    whole = Whole()
    totals = Totals(held=1, leased=2, unposted=3, open=4, oldest_open_ms=5, oldest_unposted_ms=6)
    for slot in range(3):
        registry = CollectorRegistry()
        RequestMetrics(registry, dialects=["openai_chat"], upstreams=["up"], endings=MATRIX)
        LedgerCounters(registry)
        LoopMetrics(registry)
        BookMetrics(registry)
        MoneyGauges(registry, lambda: totals)
        whole.take(slot, families(registry))
    whole.ended(2)
    page = whole.page(CollectorRegistry())
    check_metrics(promtool, page)
    found = {family.name: family for family in text_string_to_metric_families(page.decode())}
    assert found["aurixel_open_holds"].samples[0].value == 8
    assert found["aurixel_oldest_hold_seconds"].samples[0].value == 0.005
