"""The limits check: the contract suite, each limit with its status and headers, and a memory that stays small."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from aurixel_limits import Limits

from aurixel.plugin import Allow, Deny, Outcome, Principal, RequestFacts, Usage
from aurixel.registry import Registry
from aurixel.testing.host import ManualClock, PluginHost
from aurixel.testing.policy_suite import FACTS, PolicySuite


class TestContract(PolicySuite):
    plugin = "limits"
    name = "limits"
    good_limits = {  # noqa: RUF012 - read only
        "models": ["some-model"],
        "ips": ["192.0.2.0/24", "2001:db8::/32"],
        "rpm": 60,
        "tpm": 50_000,
        "concurrency": 20,
    }
    bad_limits = (
        ("models", []),
        ("models", "a,,b"),
        ("models", ["a", 1]),
        ("ips", ["192.0.2.1/24"]),
        ("ips", ["192.0.2.0/33"]),
        ("ips", ["example.com"]),
        ("rpm", 0),
        ("rpm", True),
        ("rpm", "many"),
        ("rpm", 1.5),
        ("tpm", -1),
        ("tpm", "9" * 14),
        ("concurrency", 10**13),
        ("height", 1),
    )


class Desk:
    """A check with a clock that is set by hand, asked in few words."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        check = Registry.load(["limits"]).build_check("limits", {}, PluginHost(self.clock))
        assert isinstance(check, Limits)
        self.check = check
        self.limits = {name: check.parse_limit(name, value) for name, value in limits.items()}
        self.number = 0

    async def ask(self, key: str = "key", **facts: Any) -> Allow | Deny:
        self.number += 1
        asked: RequestFacts = msgspec.structs.replace(FACTS, request_id=f"req-{self.number}", **facts)
        verdict = await self.check.check(Principal("account", key, self.limits), asked)
        assert isinstance(verdict, Allow | Deny)
        return verdict

    async def code(self, key: str = "key", **facts: Any) -> str:
        verdict = await self.ask(key, **facts)
        return verdict.code if isinstance(verdict, Deny) else "ok"

    def end(self, number: int | None = None, usage: Usage | None = None) -> None:
        self.check.finished(Outcome(request_id=f"req-{number or self.number}", ending="ok", usage=usage))


async def refused(desk: Desk, **facts: Any) -> Deny:
    verdict = await desk.ask(**facts)
    assert isinstance(verdict, Deny)
    return verdict


# --- who and from where -----------------------------------------------------------------------------------------------


async def test_a_key_without_limits_is_let_through() -> None:
    desk = Desk()
    assert await desk.ask() == Allow()
    assert not desk.check._keys


@pytest.mark.parametrize("value", [["some-model", "other"], "some-model, other"])
async def test_models(value: Any) -> None:
    desk = Desk(models=value)
    assert await desk.code(model="other") == "ok"
    verdict = await refused(desk, model="third")
    assert (verdict.code, verdict.status, verdict.retry_after) == ("model_not_allowed", 403, None)
    assert await desk.code(model="some-model-2") == "model_not_allowed"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("::ffff:192.0.2.9", True),
        ("::ffff:192.0.3.9", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::1", False),
        ("", False),
        ("unknown", False),
    ],
)
async def test_addresses(address: str, allowed: bool) -> None:
    desk = Desk(ips=["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"])
    verdict = await desk.ask(client_ip=address)
    assert isinstance(verdict, Allow) is allowed
    if isinstance(verdict, Deny):
        assert (verdict.code, verdict.status) == ("ip_not_allowed", 403)


async def test_a_network_with_stray_bits_is_explained() -> None:
    with pytest.raises(ValueError, match=r"is 192\.0\.2\.0/24 meant\?"):
        Desk(ips="192.0.2.1/24")


# --- requests a minute ------------------------------------------------------------------------------------------------


async def test_never_more_than_the_limit_in_any_sixty_seconds() -> None:
    desk = Desk(rpm=3)
    admitted: list[float] = []
    for _ in range(4000):
        desk.clock.advance(0.13)
        if await desk.code() == "ok":
            admitted.append(desk.clock.boot())
    assert len(admitted) >= 3 * 8
    for at in admitted:
        assert sum(at <= other < at + 60 for other in admitted) <= 3


async def test_waiting_as_told_helps() -> None:
    desk = Desk(rpm=2)
    assert await desk.code() == "ok"
    desk.clock.advance(10.5)
    assert await desk.code() == "ok"
    verdict = await refused(desk)
    assert (verdict.code, verdict.status) == ("rate_limit_requests", 429)
    assert verdict.retry_after is not None
    assert 49.5 < verdict.retry_after <= 51
    desk.clock.advance(verdict.retry_after - 0.001)
    assert await desk.code() == "rate_limit_requests"
    desk.clock.advance(0.001)
    assert await desk.code() == "ok"
    assert await desk.code() == "rate_limit_requests"


async def test_keys_are_counted_apart_and_refusals_not_at_all() -> None:
    desk = Desk(rpm=1)
    assert [await desk.code("a"), await desk.code("b")] == ["ok", "ok"]
    for _ in range(10):
        assert await desk.code("a") == "rate_limit_requests"
    desk.clock.advance(61)
    assert await desk.code("a") == "ok"


# --- tokens a minute --------------------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_their_bound_and_put_right_at_the_end() -> None:
    desk = Desk(tpm=1000)
    assert await desk.code(tokens=900) == "ok"
    verdict = await refused(desk, tokens=200)
    assert (verdict.code, verdict.status) == ("rate_limit_tokens", 429)
    assert verdict.retry_after is not None
    desk.end(1, Usage({"input": 50, "cache_read": 10, "output": 30, "reasoning": 10, "tool_calls.web_search": 500}))
    assert await desk.code(tokens=900) == "ok"
    assert await desk.code(tokens=1) == "rate_limit_tokens"


async def test_what_failed_used_no_tokens() -> None:
    desk = Desk(tpm=1000)
    assert await desk.code(tokens=1000) == "ok"
    desk.end()
    assert await desk.code(tokens=1000) == "ok"


async def test_more_than_the_bound_counts_as_what_it_was() -> None:
    desk = Desk(tpm=1000)
    assert await desk.code(tokens=100) == "ok"
    desk.end(usage=Usage({"output": 1500}))
    verdict = await refused(desk, tokens=1)
    assert dict(verdict.headers)["x-ratelimit-remaining-tokens"] == "0"
    desk.clock.advance(61)
    assert await desk.code(tokens=1000) == "ok"


async def test_an_end_after_the_minute_changes_nothing_of_this_one() -> None:
    desk = Desk(tpm=1000)
    assert await desk.code(tokens=1000) == "ok"
    desk.clock.advance(61)
    assert await desk.code(tokens=400) == "ok"
    desk.end(1, Usage({"output": 10}))
    assert await desk.code(tokens=601) == "rate_limit_tokens"
    assert await desk.code(tokens=600) == "ok"


async def test_a_request_that_can_never_fit_is_not_to_be_repeated() -> None:
    desk = Desk(tpm=1000)
    verdict = await refused(desk, tokens=1001)
    assert (verdict.code, verdict.status, verdict.retry_after) == ("rate_limit_tokens", 429, None)
    assert ("x-should-retry", "false") in verdict.headers
    assert "1001" in verdict.message
    assert "1000" in verdict.message


# --- concurrency ------------------------------------------------------------------------------------------------------


async def test_concurrency() -> None:
    desk = Desk(concurrency=2)
    assert [await desk.code(), await desk.code()] == ["ok", "ok"]
    verdict = await refused(desk)
    assert (verdict.code, verdict.status, verdict.retry_after) == ("rate_limit_concurrency", 429, 1)
    desk.end(3)  # the refused one: it took no place
    assert await desk.code() == "rate_limit_concurrency"
    desk.end(1)
    desk.end(1)  # told twice it counts once
    assert [await desk.code(), await desk.code()] == ["ok", "rate_limit_concurrency"]


async def test_a_refusal_by_one_limit_counts_for_no_other() -> None:
    desk = Desk(concurrency=1, rpm=2, tpm=1000)
    assert await desk.code(tokens=100) == "ok"
    assert await desk.code(tokens=100) == "rate_limit_concurrency"
    desk.end(1, Usage({"output": 100}))
    assert await desk.code(tokens=950) == "rate_limit_tokens"
    assert await desk.code(tokens=900) == "ok"


# --- headers ----------------------------------------------------------------------------------------------------------


async def test_headers_of_the_openai_family() -> None:
    desk = Desk(rpm=10, tpm=1000)
    desk.clock.advance(0.5)
    await desk.ask(tokens=100)
    desk.clock.advance(9.25)
    verdict = await desk.ask(tokens=200)
    assert dict(verdict.headers) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "1m0.25s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
        "x-ratelimit-reset-tokens": "1m0.25s",
    }


async def test_headers_of_the_anthropic_family() -> None:
    desk = Desk(rpm=1, tpm=1000)
    await desk.ask(tokens=100, dialect="anthropic_messages")
    verdict = await refused(desk, dialect="anthropic_messages")
    headers = dict(verdict.headers)
    assert verdict.retry_after == 61
    reset = datetime.fromisoformat(headers.pop("anthropic-ratelimit-requests-reset"))
    assert reset.timestamp() == desk.clock.wall_ms() / 1000 + 61
    assert headers.pop("anthropic-ratelimit-tokens-reset") == "2026-01-01T00:01:01Z"
    assert headers == {
        "anthropic-ratelimit-requests-limit": "1",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "900",
    }


async def test_a_limit_that_the_key_has_not_has_no_headers() -> None:
    assert (await Desk(concurrency=1).ask()).headers == ()
    assert len((await Desk(rpm=1).ask()).headers) == 3


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_idle_keys_are_forgotten_and_busy_ones_are_not() -> None:
    desk = Desk(rpm=5, concurrency=1)
    assert await desk.code("busy") == "ok"
    for number in range(1000):
        assert await desk.code(f"key-{number}") == "ok"
        desk.end()
    assert len(desk.check._keys) == 1001
    desk.clock.advance(62)
    for number in range(1000):
        await desk.ask(f"late-{number % 10}")
        desk.end()
    assert len(desk.check._keys) == 11
    assert await desk.code("busy") == "rate_limit_concurrency"
    desk.end(1)
    assert not desk.check._running
    desk.clock.advance(62)
    for _ in range(20):
        await desk.ask("last")
        desk.end()
    assert len(desk.check._keys) == 1


async def test_a_key_takes_little_however_much_it_does() -> None:
    desk = Desk(rpm=10**6)
    for _ in range(5000):
        desk.clock.advance(0.1)
        assert await desk.code() == "ok"
        desk.end()
    state = desk.check._keys["key"]
    assert len(state.requests._slots) <= 62
    assert len(state.tokens._slots) <= 62
    assert state.requests.total <= 620
