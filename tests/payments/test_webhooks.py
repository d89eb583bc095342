"""What a webhook is answered, and what is counted: forged, of other modes, early, refused, and with the store away."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.payments import Webhooks
from aurixel.payments import webhooks as module
from aurixel.plugin.billing import CreditEvent, Waiting
from aurixel.storage import Store
from tests.harness.guard import ExpectedLogs
from tests.ledger.kit import TestClock
from tests.payments.acme import SIGNATURE, signed
from tests.payments.kit import Counted, acme, begun, cents, fulfilment, paid, refunded
from tests.storage.faults import flaky
from tests.storage.model import MemoryStore


def desk(store: Store, folder: Path, counted: Counted | None = None, clock: TestClock | None = None) -> Webhooks:
    return Webhooks({"acme": acme(folder)}, fulfilment(store, counted, clock))


async def test_a_true_webhook_is_answered_200_and_done(store: Store, tmp_path: Path) -> None:
    await begun(store)
    counted, clock = Counted(), TestClock()
    webhooks = desk(store, tmp_path, counted, clock)
    assert webhooks.knows("acme")
    assert not webhooks.knows("other")
    event = paid(at_ms=clock.wall_ms() - 2500)
    for code, lag in (("done", 2.5), ("nothing", None)):
        answer = await webhooks.take("acme", *signed(event))
        assert (answer.status, answer.code, answer.retry_after) == (200, code, None)
        assert counted.webhooks.pop() == ("acme", code, lag)
    assert await cents(store) == 1000
    assert (await webhooks.take("acme", *signed())).code == "nothing"


@pytest.mark.parametrize("how", ["secret", "body", "no signature", "empty"])
async def test_pitfall_13_a_forged_webhook_is_answered_400_and_changes_nothing(
    how: str, memory: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await begun(memory)
    counted = Counted()
    body, headers = signed(paid(), secret="guessed" if how == "secret" else "acme-webhook-secret")
    if how == "body":
        body = body.replace(b"1000", b"9000")
    elif how == "no signature":
        headers = {}
    elif how == "empty":
        body, headers = b"", {SIGNATURE: ""}
    with caplog.at_level(logging.INFO):
        answer = await desk(memory, tmp_path, counted).take("acme", body, headers)
    assert (answer.status, answer.code) == (400, "webhook_invalid")
    assert counted.webhooks == [("acme", "invalid", None)]
    assert memory.movements == {}
    assert "p1" not in caplog.text


async def test_strangers_cannot_fill_the_log(memory: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No key is asked at a webhook: what anyone may post is counted each time, and told once a minute."""
    counted, clock = Counted(), TestClock()
    shop = desk(memory, tmp_path, counted, clock)
    with caplog.at_level(logging.INFO, logger="aurixel.payments"):
        for _ in range(50):
            await shop.take("acme", b"{}", {})
        assert len(caplog.records) == 1
        clock.seconds += 61
        await shop.take("acme", b"{}", {})
    assert len(caplog.records) == 2
    assert len(counted.webhooks) == 51


async def test_what_cannot_be_is_answered_422_by_its_name(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", r"^Paid of acme is refused: (wrong_amount|wrong_currency|order_unknown)$", times=3)
    await begun(memory)
    counted = Counted()
    webhooks = desk(memory, tmp_path, counted)
    for event, code in (
        (paid(amount=1), "wrong_amount"),
        (paid(currency="eur"), "wrong_currency"),
        (paid("o9"), "order_unknown"),
    ):
        answer = await webhooks.take("acme", *signed(event))
        assert (answer.status, answer.code) == (422, code)
    assert {result for _, result, _ in counted.webhooks} == {"refused"}
    assert memory.movements == {}


async def test_what_is_early_is_asked_for_again_and_what_is_anothers_is_not_for_ever(
    memory: MemoryStore, tmp_path: Path
) -> None:
    await begun(memory)
    counted, clock = Counted(), TestClock()
    webhooks = desk(memory, tmp_path, counted, clock)

    def early(at_ms: int | None) -> CreditEvent:
        return type(refunded(1))(payment="p1", total=100, currency="usd", at_ms=at_ms)

    day = 86_400_000
    for at_ms, status in ((None, 409), (clock.wall_ms(), 409), (clock.wall_ms() - day, 409), (clock.wall_ms() - day - 1, 200)):
        answer = await webhooks.take("acme", *signed(early(at_ms)))
        assert (answer.status, answer.code, answer.retry_after) == (
            status,
            *(("unknown", None) if status == 200 else ("not_yet", 5)),
        )
    assert [result for _, result, _ in counted.webhooks] == ["not_yet"] * 3 + ["unknown"]
    await webhooks.take("acme", *signed(paid()))
    assert (await webhooks.take("acme", *signed(early(None)))).code == "done"
    assert await cents(memory) == 900


async def test_of_several_events_the_worst_answer_counts(
    memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("aurixel.payments", "Paid of acme is refused: wrong_amount", times=1)
    await begun(memory)
    await begun(memory, "o2")
    webhooks = desk(memory, tmp_path)
    answer = await webhooks.take("acme", *signed(Waiting(order="o1"), paid(), paid("o2", "p2", 1), refunded(1, "p9")))
    assert answer.status == 409
    assert (await webhooks.take("acme", *signed(paid(), refunded(100)))).code == "done"
    assert await cents(memory) == 900


async def test_a_store_that_is_away_is_answered_503_and_a_retry_credits_once(store: Store, tmp_path: Path) -> None:
    """Each write on the way gives no answer once: done, not done, or done later."""
    for number, fault in enumerate(("lost", "dropped", "late")):
        order, payment = f"x{number}", f"p{number}"
        await begun(store, order)
        for step in range(20):
            left = [step]

            def choose(_: str, left: list[int] = left, fault: str = fault) -> str | None:
                left[0] -= 1
                return fault if left[0] == -1 else None

            broken, _ = flaky(store, choose)  # type: ignore[arg-type]
            answer = await desk(broken, tmp_path).take("acme", *signed(paid(order, payment)))
            if left[0] >= 0:
                break
            assert (answer.status, answer.code, answer.retry_after) in (
                (503, "store_unavailable", 5),
                (200, "done", None),
                (200, "nothing", None),
            )
        assert (await desk(store, tmp_path).take("acme", *signed(paid(order, payment)))).status == 200
        assert await cents(store) == 1000 * (number + 1)


async def test_a_store_that_says_nothing_is_not_waited_for(
    memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(memory, "order_read", never)
    assert (await desk(memory, tmp_path).take("acme", *signed(paid()))).status == 503


async def test_a_bug_of_the_backend_is_answered_503(memory: MemoryStore, tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("aurixel.plugins", "plugin acme failed in parse_webhook", level=logging.ERROR, times=1)
    counted = Counted()
    body, _ = signed()
    body = b'[{"type": "Nonsense"}]'
    import hashlib
    import hmac

    headers = {SIGNATURE: hmac.new(b"acme-webhook-secret", body, hashlib.sha256).hexdigest()}
    answer = await desk(memory, tmp_path, counted).take("acme", body, headers)
    assert (answer.status, answer.code) == (503, "backend_failed")
    assert counted.webhooks == [("acme", "failed", None)]


@given(body=st.binary(max_size=300), signature=st.text(max_size=80))
def test_no_body_and_no_signature_is_anything_but_a_400(body: bytes, signature: str) -> None:
    webhooks = desk(MemoryStore(), Path("/nowhere"))
    answer = asyncio.run(webhooks.take("acme", body, {SIGNATURE: signature}))
    assert answer.status == 400
    json.dumps(answer.code)
