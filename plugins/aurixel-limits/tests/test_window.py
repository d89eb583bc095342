"""The sliding minute, against the plainest thing that could be right: a list of everything."""

from __future__ import annotations

import pytest
from aurixel_limits.headers import duration
from aurixel_limits.window import Window
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 20
STEPS = st.lists(st.tuples(st.floats(0, 25), st.integers(1, LIMIT)), max_size=60)


@given(STEPS)
def test_no_sixty_seconds_exceed_the_limit_and_waiting_as_told_always_helps(steps: list[tuple[float, int]]) -> None:
    window, now = Window(), 1000.0
    admitted: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        window.advance(now)
        wait = window.wait(amount, LIMIT, now)
        if wait:
            later = now + wait + 1e-6  # the rounding of the sum itself
            window.advance(later)
            assert window.wait(amount, LIMIT, later) == 0
            now = later
        window.add(amount, now)
        admitted.append((now, amount))
        assert window.total == sum(slot.amount for slot in window._slots)
    for start, _ in admitted:
        assert sum(amount for at, amount in admitted if start <= at <= start + 60) <= LIMIT


@given(STEPS, st.lists(st.integers(0, 3 * LIMIT), min_size=60, max_size=60))
def test_corrections_keep_the_sum(steps: list[tuple[float, int]], actual: list[int]) -> None:
    window, now = Window(), 0.0
    open_slots = []
    for (pause, amount), used in zip(steps, actual, strict=False):
        now += pause
        window.advance(now)
        open_slots.append((window.add(amount, now), used - amount))
        if len(open_slots) > 3:
            window.correct(*open_slots.pop(0))
        assert window.total == sum(slot.amount for slot in window._slots)
    for slot, by in open_slots:
        window.correct(slot, by)
    assert window.total == sum(slot.amount for slot in window._slots) >= 0
    window.advance(now + 62)
    assert window.total == 0
    assert window.reset(now + 62) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (59.5, "59.5s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (61.25, "1m1.25s"),
        (3600, "1h0m0s"),
        (7325.5, "2h2m5.5s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
