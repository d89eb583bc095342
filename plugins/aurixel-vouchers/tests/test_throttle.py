"""The throttle: what it lets through, how long anybody waits, whatever clocks and neighbours do."""

from __future__ import annotations

import asyncio

import pytest
from aurixel_vouchers.throttle import Rate, Throttle, fill
from hypothesis import given
from hypothesis import strategies as st

from aurixel.plugin import CodeRefused, StoreUnavailable
from aurixel.testing.host import ManualClock, MemoryShelf

RATES = st.builds(Rate, st.integers(1, 20), st.integers(1, 100_000))


async def fails(throttle: Throttle, account: str = "a") -> bool:
    """Whether a wrong code was looked at; False where it was refused."""
    try:
        async with throttle.attempt(account):
            return True
    except CodeRefused:
        return False


async def succeeds(throttle: Throttle, account: str = "a") -> bool:
    try:
        async with throttle.attempt(account) as attempt:
            attempt.good()
            return True
    except CodeRefused:
        return False


def made(shelf: MemoryShelf | None = None, *, total: int = 100) -> tuple[Throttle, ManualClock]:
    clock = ManualClock()
    return Throttle(shelf or MemoryShelf(), clock, Rate(10, 60_000), Rate(total, 1000)), clock


@given(RATES, st.lists(st.integers(0, 50_000), max_size=80))
def test_no_span_sees_more_than_the_rate(rate: Rate, pauses: list[int]) -> None:
    now, empty, taken = 1_000_000_000, 0, []
    for pause in pauses:
        now += pause
        empty, wait = fill(rate, empty, now)
        if not wait:
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= rate.burst + (taken[last] - start) // rate.every_ms


@given(RATES, st.integers(0, 2**60), st.integers(0, 2**60))
def test_nobody_waits_longer_than_one_step_whatever_clocks_do(rate: Rate, empty_ms: int, now_ms: int) -> None:
    empty, wait = fill(rate, empty_ms, now_ms)
    assert 0 <= wait <= rate.every_ms
    assert not wait or fill(rate, empty, now_ms + wait)[1] == 0
    assert not wait or fill(rate, empty_ms, now_ms + wait - 1)[1] > 0 or empty_ms > now_ms + rate.burst * rate.every_ms


async def test_ten_at_once_then_one_a_minute() -> None:
    throttle, clock = made()
    assert [await fails(throttle) for _ in range(12)] == [True] * 10 + [False] * 2
    with pytest.raises(CodeRefused) as refused:
        async with throttle.attempt("a"):
            pass
    assert (refused.value.code, refused.value.retry_after) == ("throttled", 60.0)
    clock.advance(59.999)
    assert not await fails(throttle)
    clock.advance(0.001)
    assert [await fails(throttle) for _ in range(2)] == [True, False]
    clock.advance(600)
    assert [await fails(throttle) for _ in range(12)] == [True] * 10 + [False] * 2


async def test_a_good_code_does_not_count() -> None:
    throttle, _ = made()
    assert all([await succeeds(throttle) for _ in range(50)])
    assert [await fails(throttle) for _ in range(11)] == [True] * 10 + [False]


async def test_one_account_does_not_slow_another_down() -> None:
    throttle, _ = made()
    while await fails(throttle, "a"):
        pass
    assert await succeeds(throttle, "b")
    assert await fails(throttle, "b")


async def test_all_together_get_a_hundred_then_one_a_second_and_who_has_not_failed_lately_waits_for_nobody() -> None:
    throttle, clock = made()
    guesses = [await fails(throttle, f"a{account}") for account in range(30) for _ in range(10)]
    assert sum(guesses) == 30 + 100  # the first of each account, and a hundred more
    assert await succeeds(throttle, "honest")
    assert await fails(throttle, "honest")  # a used code, say
    assert not await succeeds(throttle, "honest")
    clock.advance(1)
    assert await succeeds(throttle, "honest")
    assert await fails(throttle, "a29")
    assert not await succeeds(throttle, "honest")  # somebody else had that second
    clock.advance(59)
    assert await succeeds(throttle, "honest")


async def test_what_the_total_refuses_is_not_held_against_the_account() -> None:
    throttle, clock = made(total=1)
    assert [await fails(throttle) for _ in range(30)] == [True, True] + [False] * 28
    for _ in range(8):
        clock.advance(1)
        assert await fails(throttle)
    clock.advance(1)
    assert not await fails(throttle)


async def test_what_is_refused_is_not_written() -> None:
    shelf = MemoryShelf()
    throttle, _ = made(shelf)
    while await fails(throttle):
        pass
    before = dict(shelf.docs)
    assert not await fails(throttle)
    assert shelf.docs == before


async def test_attempts_at_once_are_counted_before_a_code_is_looked_at() -> None:
    shelf = MemoryShelf()
    one, other = made(shelf)[0], made(shelf)[0]
    assert sum(await asyncio.gather(*(fails((one, other)[number % 2]) for number in range(300)))) <= 10


async def test_one_who_leaves_is_counted() -> None:
    throttle, _ = made()

    async def leave() -> None:
        async with throttle.attempt("a"):
            raise asyncio.CancelledError

    for _ in range(10):
        with pytest.raises(asyncio.CancelledError):
            await leave()
    assert not await fails(throttle)


async def test_a_clock_that_was_wrong_locks_nobody_out() -> None:
    throttle, clock = made()
    clock.advance(10 * 365 * 86_400)
    while await fails(throttle):
        pass
    clock.advance(-10 * 365 * 86_400)
    assert not await fails(throttle)
    clock.advance(60)
    assert not await fails(throttle)  # now it is the bucket of all together that was too full
    clock.advance(1)
    assert await fails(throttle)


async def test_a_store_that_gives_no_answer_counts_at_most_one() -> None:
    shelf = MemoryShelf()
    throttle, _ = made(shelf)
    shelf.lose("put", done=True)
    with pytest.raises(StoreUnavailable):
        await fails(throttle)
    shelf.lose("swap")
    with pytest.raises(StoreUnavailable):
        await fails(throttle)
    assert [await fails(throttle) for _ in range(10)] == [True] * 9 + [False]


async def test_a_good_code_stands_though_its_attempt_cannot_be_given_back() -> None:
    shelf = MemoryShelf()
    throttle, _ = made(shelf)
    shelf.lose("swap")  # the first swap is the giving back
    assert await succeeds(throttle)


async def test_no_account_id_is_kept() -> None:
    shelf = MemoryShelf()
    throttle, _ = made(shelf)
    await fails(throttle, "an-account-id")
    await fails(throttle, "an-account-id")
    assert "an-account-id" not in str(shelf.docs)
    assert len(shelf.docs) == 2
