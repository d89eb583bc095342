"""Policy: the first no wins, failures follow `on_error`, and whoever was asked is told the end exactly once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel

from aurixel.errors import PolicyError
from aurixel.gateway.policy import BoundCheck, Policy
from aurixel.plugin import Allow, Deny, Outcome, Principal, RequestFacts, Rewrite, Verdict
from aurixel.registry import NoMeter

PRINCIPAL = Principal("account", "key")
FACTS = RequestFacts(
    request_id="req_1",
    operation="chat",
    dialect="d",
    model="asked",
    stream=False,
    client_ip="127.0.0.1",
    at_ms=0,
    tokens=10,
)


class Scripted:
    """A check that answers what it was made with, and remembers what it saw."""

    name: ClassVar[str] = "scripted"
    Settings: ClassVar[type[BaseModel]] = BaseModel
    enforces: ClassVar[frozenset[str]] = frozenset({"rpm"})

    def __init__(self, verdict: Verdict | Exception | None) -> None:
        self.verdict = verdict
        self.answer: Any = ...
        self.seen: list[RequestFacts] = []
        self.told: list[Outcome] = []

    def parse_limit(self, name: str, value: Any) -> Any:
        return value

    async def check(self, principal: Principal, facts: RequestFacts) -> Verdict:
        self.seen.append(facts)
        if self.answer is not ...:
            return self.answer  # type: ignore[no-any-return]
        if self.verdict is None:
            await asyncio.Event().wait()
        if isinstance(self.verdict, Exception):
            raise self.verdict
        assert self.verdict is not None
        return self.verdict

    def finished(self, outcome: Outcome) -> None:
        self.told.append(outcome)


def policy(*checks: Scripted, on_error: Literal["deny", "allow"] = "deny", deadline: float = 5) -> Policy:
    return Policy([BoundCheck(check, deadline=deadline, on_error=on_error, meter=NoMeter()) for check in checks])


async def test_all_yes_gathers_headers_and_tells_the_outcome_once() -> None:
    first, second = Scripted(Allow((("a", "1"),))), Scripted(Allow((("b", "2"),)))
    outcome = Outcome(request_id="req_1", ending="ok", cost=7)
    async with policy(first, second).ask(PRINCIPAL, FACTS) as permit:
        assert permit.headers == (("a", "1"), ("b", "2"))
        permit.outcome = lambda: outcome
    assert first.told == second.told == [outcome]


async def test_a_no_is_an_error_with_all_headers_and_only_the_asked_are_told() -> None:
    yes = Scripted(Allow((("a", "1"),)))
    no = Scripted(Deny(code="rate_limit_requests", message="slow", status=429, retry_after=3, headers=(("b", "2"),)))
    never = Scripted(Allow())
    with pytest.raises(PolicyError) as caught:
        async with policy(yes, no, never).ask(PRINCIPAL, FACTS):
            pytest.fail("a refusal does not enter")
    error = caught.value
    assert (error.code, error.status, error.retry_after) == ("rate_limit_requests", 429, 3)
    assert error.headers == (("a", "1"), ("b", "2"))
    assert [outcome.ending for outcome in (*yes.told, *no.told)] == ["refused", "refused"]
    assert never.seen == never.told == []


async def test_a_rewrite_is_what_later_checks_see() -> None:
    first, second = Scripted(Rewrite(model="other")), Scripted(Allow())
    async with policy(first, second).ask(PRINCIPAL, FACTS) as permit:
        assert permit.model == "other"
    assert second.seen[0].model == "other"


async def test_a_failing_check_denies_by_default(expected_logs: Any) -> None:
    expected_logs("aurixel.plugins", "plugin scripted failed in check", level=logging.ERROR, times=1)
    broken = Scripted(ValueError("never shown"))
    with pytest.raises(PolicyError) as caught:
        async with policy(broken).ask(PRINCIPAL, FACTS):
            pytest.fail("unreachable")
    assert caught.value.code == "policy_unavailable"
    assert len(broken.told) == 1


async def test_a_failing_check_allows_where_configured(expected_logs: Any) -> None:
    expected_logs("aurixel.plugins", "plugin scripted failed in check", level=logging.ERROR, times=1)
    broken = Scripted(ValueError("never shown"))
    async with policy(broken, on_error="allow").ask(PRINCIPAL, FACTS) as permit:
        assert permit.headers == ()


async def test_a_check_that_never_answers_meets_its_deadline(expected_logs: Any) -> None:
    expected_logs("aurixel.plugins", "plugin scripted failed in check: TimeoutError", level=logging.ERROR, times=1)
    with pytest.raises(PolicyError):
        async with policy(Scripted(None), deadline=0.01).ask(PRINCIPAL, FACTS):
            pytest.fail("unreachable")


@pytest.mark.parametrize("answer", [None, True, "yes", Allow])
async def test_what_is_no_verdict_is_a_failure_and_not_a_yes(expected_logs: Any, answer: Any) -> None:
    expected_logs("aurixel.plugins", "plugin scripted failed in check: TypeError", level=logging.ERROR, times=1)
    check = Scripted(Allow())
    check.answer = answer
    with pytest.raises(PolicyError) as caught:
        async with policy(check).ask(PRINCIPAL, FACTS):
            pytest.fail("unreachable")
    assert caught.value.code == "policy_unavailable"


async def test_an_exception_inside_still_tells() -> None:
    check = Scripted(Allow())
    with pytest.raises(KeyError):
        async with policy(check).ask(PRINCIPAL, FACTS):
            raise KeyError
    assert [outcome.ending for outcome in check.told] == ["refused"]
