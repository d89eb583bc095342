"""Each alert fires where it should and not where it should not, as `promtool test rules` sees it, and is in the manual."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "conf/prometheus/aurixel.rules.yml"
PAGE = (ROOT / "docs/metrics.md").read_text()
TEXT = RULES.read_text()
ALERTS = re.findall(r"- alert: (\w+)", TEXT)
# Those of `payments`, which are there once a billing backend is.
OF_PAYMENTS = {"aurixel_webhook_lag_seconds", "aurixel_oldest_open_order_seconds", "aurixel_payment_losses_usd_total"}


class Case(NamedTuple):
    """Series that make the alert fire, and series that must not: name to promtool's values, a sample a minute."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str = "60m"


def lag(seconds: int) -> dict[str, str]:
    """Webhooks, one a minute, all just below this."""
    buckets = {str(bound): "0+1x120" if bound >= seconds else "0x120" for bound in (60, 300, 1800)}
    return {
        f'aurixel_webhook_lag_seconds_bucket{{backend="b",le="{bound}"}}': values
        for bound, values in {**buckets, "+Inf": "0+1x120"}.items()
    }


SERVED = 'aurixel_requests_total{dialect="d",ending="ok"}'
REFUSED = 'aurixel_requests_total{dialect="d",ending="refused_early"}'
CASES = {
    "AurixelDrift": Case(
        {'aurixel_drift_usd{instance="a"}': "0x120", 'aurixel_drift_usd{instance="b"}': "0x59 0.000000001x60"},
        {'aurixel_drift_usd{instance="a"}': "0x120", 'aurixel_drift_usd{instance="b"}': "0x120"},
    ),
    "AurixelBooksUnread": Case(
        {"aurixel_books_read_timestamp_seconds": "0+60x40 2400x80"},
        {
            'aurixel_books_read_timestamp_seconds{instance="a"}': "60+60x120",
            'aurixel_books_read_timestamp_seconds{instance="b"}': "0x120",  # one that reads is enough
        },
    ),
    "AurixelUnsettled": Case(
        {
            'aurixel_oldest_unposted_seconds{instance="a"}': "0x55 61x60",
            'aurixel_oldest_unposted_seconds{instance="b"}': "0x120",
        },
        {"aurixel_oldest_unposted_seconds": "0x58 61x60"},
    ),
    "AurixelUnsettledLong": Case(
        {"aurixel_oldest_unposted_seconds": "0x59 901x60"}, {"aurixel_oldest_unposted_seconds": "900x120"}
    ),
    "AurixelHeldLong": Case({"aurixel_oldest_hold_seconds": "3601x120"}, {"aurixel_oldest_hold_seconds": "3600x120"}),
    "AurixelHeldUncovered": Case(
        {'aurixel_held_usd{instance="a"}': "2x120", 'aurixel_leased_usd{instance="a"}': "1.99x120"},
        {
            'aurixel_held_usd{instance="a"}': "2x120",
            'aurixel_leased_usd{instance="a"}': "2x120",
            'aurixel_held_usd{instance="b"}': "0x120",
            'aurixel_leased_usd{instance="b"}': "5x120",
        },
    ),
    "AurixelLeasedByNobody": Case(
        {'aurixel_all_leased_usd{instance="a"}': "5x120", 'aurixel_leased_usd{instance="a"}': "4x120"},
        {
            'aurixel_all_leased_usd{instance="a"}': "5 4 6 5 4 6x120",
            'aurixel_leased_usd{instance="a"}': "4x120",
            'aurixel_leased_usd{instance="b"}': "2x120",
        },
    ),
    "AurixelWrittenOff": Case({"aurixel_written_off_usd_total": "0+0.02x120"}, {"aurixel_written_off_usd_total": "7+0.01x120"}),
    "AurixelEstimatedShare": Case(
        {"aurixel_estimated_requests_total": "0+6x120", SERVED: "0+100x120", REFUSED: "0+1000x120"},
        {"aurixel_estimated_requests_total": "0+4x120", SERVED: "0+100x120", REFUSED: "0x120"},
    ),
    "AurixelUnpricedRefusals": Case(
        {"aurixel_unpriced_refusals_total": "3x50 4x70"}, {"aurixel_unpriced_refusals_total": "3x10 4x110"}
    ),
    "AurixelUnpricedUsage": Case(
        {"aurixel_unpriced_usage_requests_total": "0x20 1x100"}, {"aurixel_unpriced_usage_requests_total": "1x120"}
    ),
    "AurixelHoldsRefused": Case(
        {'aurixel_hold_refusals_total{why="journal"}': "0x50 0+1x60", 'aurixel_hold_refusals_total{why="store"}': "0x120"},
        {'aurixel_hold_refusals_total{why="credit"}': "0+5x120", 'aurixel_hold_refusals_total{why="stopping"}': "0+1x120"},
    ),
    "AurixelJournalSetAside": Case(
        {"aurixel_journals_set_aside_total": "0x20 1x100"}, {"aurixel_journals_set_aside_total": "1x120"}
    ),
    "AurixelMovementOpen": Case(
        {"aurixel_oldest_open_movement_seconds": "0+60x120"}, {"aurixel_oldest_open_movement_seconds": "0x50 0+60x60"}
    ),
    "AurixelWebhookLag": Case(lag(1800), lag(300)),
    "AurixelOrderWaiting": Case(
        {"aurixel_oldest_open_order_seconds": "1801x120"}, {"aurixel_oldest_open_order_seconds": "1800x120"}
    ),
    "AurixelPaymentLoss": Case(
        {"aurixel_payment_losses_usd_total": "0x20 1x100"}, {"aurixel_payment_losses_usd_total": "1x120"}
    ),
}


def expected(name: str, series: dict[str, str], at: str, fires: bool) -> dict[str, object]:
    """One test of promtool's."""
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": at, "exp_samples": samples}],
    }


def run(promtool: Path, *words: str) -> None:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_sound(promtool: Path) -> None:
    run(promtool, "check", "rules", str(RULES))


def test_each_alert_fires_and_does_not(promtool: Path, tmp_path: Path) -> None:
    tests = [
        expected(name, series, case.at, fires)
        for name, case in CASES.items()
        for series, fires in ((case.fires, True), (case.quiet, False), ({}, False))
    ]
    file = tmp_path / "tests.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run(promtool, "test", "rules", str(file))


@pytest.mark.parametrize("name", list(CASES))
def test_a_rule_that_never_fires_is_seen(promtool: Path, tmp_path: Path, name: str) -> None:
    """The test above can fail: with this alert's rule gone, or always firing, it does."""
    block = re.search(rf"      - alert: {name}\n        expr: (?:>-\n(?:          .*\n)+|.*\n)", TEXT)
    assert block is not None
    case = CASES[name]
    for expr, series, fires in (("vector(0) > 0", case.fires, True), ("vector(1)", case.quiet, False)):
        broken = tmp_path / "broken.yml"
        broken.write_text(TEXT.replace(block[0], f"      - alert: {name}\n        expr: {expr}\n"))
        file = tmp_path / "tests.yml"
        tests = [expected(name, series, case.at, fires)]
        file.write_text(json.dumps({"rule_files": [str(broken)], "evaluation_interval": "1m", "tests": tests}))
        done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0, (name, expr)


def test_every_alert_has_its_cases_and_its_line_in_the_manual() -> None:
    assert list(CASES) == ALERTS
    assert re.findall(r"^\| `(Aurixel\w+)` \|", PAGE, re.MULTILINE) == ALERTS


def test_every_metric_in_a_rule_is_in_the_manual() -> None:
    known = set(re.findall(r"^\| `(aurixel_\w+)` \|", PAGE, re.MULTILINE)) | OF_PAYMENTS
    named = {name.removesuffix("_bucket") for name in re.findall(r"aurixel_\w+", TEXT)}
    assert named - known == set()
