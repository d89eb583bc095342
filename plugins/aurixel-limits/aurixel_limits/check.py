"""The policy check `limits`: refuses what a key's own limits do not allow. It stores nothing and waits for nothing.

A request is counted when it is let through, with the upper bound of its tokens, which is put right when it has ended;
what is refused is not counted. The counts are of this process: with N processes a key may do N times as much.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from aurixel.plugin import Allow, Deny, Host, Outcome, PluginSettings, Principal, RequestFacts, Usage, Verdict
from aurixel_limits.headers import Pairs, headers_for
from aurixel_limits.parse import parse_address, parse_limit
from aurixel_limits.window import MINUTE, Slot, Window

# The usage classes that are tokens.
TOKENS: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output",
    "reasoning",
    "output_audio",
    "output_image",
)
COUNTED: Final = frozenset({"rpm", "tpm", "concurrency"})
_YES: Final = Allow()


class LimitsSettings(PluginSettings):
    """The block `[policy.limits]`: the limits themselves are the keys' own, so there is nothing to set."""


class _Key:
    """What a key is doing, and did in the last minute."""

    __slots__ = ("requests", "running", "tokens", "used")

    def __init__(self) -> None:
        self.requests, self.tokens = Window(), Window()
        self.running = 0
        self.used = 0.0


class _Running:
    """A request that was let through and has not ended."""

    __slots__ = ("bound", "key", "slot")

    def __init__(self, key: _Key, slot: Slot | None, bound: int) -> None:
        self.key, self.slot, self.bound = key, slot, bound  # no slot where the key has no limit of tokens


class Limits:
    """Enforces `models`, `ips`, `rpm`, `tpm` and `concurrency`."""

    name: ClassVar[str] = "limits"
    Settings: ClassVar[type[BaseModel]] = LimitsSettings
    enforces: ClassVar[frozenset[str]] = frozenset({"models", "ips"}) | COUNTED

    def __init__(self, settings: LimitsSettings, host: Host) -> None:
        del settings
        self._wall_ms, self._boot = host.clock.wall_ms, host.clock.boot
        self._keys: OrderedDict[str, _Key] = OrderedDict()  # the longest unused first
        self._running: dict[str, _Running] = {}

    def parse_limit(self, name: str, value: Any) -> Any:
        """A frozenset of model names, a tuple of networks, or a number."""
        return parse_limit(name, value)

    async def check(self, principal: Principal, facts: RequestFacts) -> Verdict:
        """Allow, or deny with the code of the first limit that stands in the way."""
        limits = principal.limits
        if not limits:
            return _YES
        models = limits.get("models")
        if models is not None and facts.model not in models:
            return Deny(code="model_not_allowed", message="This API key may not use this model.")
        networks = limits.get("ips")
        if networks is not None:
            address = parse_address(facts.client_ip)
            if address is None or not any(address in network for network in networks):
                return Deny(code="ip_not_allowed", message="This API key may not be used from this address.")
        if COUNTED.isdisjoint(limits):
            return _YES
        return self._count(principal, facts)

    def finished(self, outcome: Outcome) -> None:
        """Put right what was counted for the request."""
        running = self._running.pop(outcome.request_id, None)
        if running is None:
            return
        running.key.running -= 1
        if running.slot is not None:
            running.key.tokens.correct(running.slot, tokens_of(outcome.usage) - running.bound)

    def _count(self, principal: Principal, facts: RequestFacts) -> Verdict:
        now = self._boot()
        key = self._key(principal.key_id, now)
        limits = principal.limits
        rpm, tpm, concurrency = limits.get("rpm"), limits.get("tpm"), limits.get("concurrency")
        refusal: tuple[str, str, float | None] | None = None
        if concurrency is not None and key.running >= concurrency:
            text = f"This API key may have {concurrency} requests at a time."
            refusal = ("rate_limit_concurrency", text, 1.0)
        elif rpm is not None and (wait := key.requests.wait(1, rpm, now)):
            refusal = ("rate_limit_requests", f"This API key may make {rpm} requests a minute.", wait)
        elif tpm is not None and facts.tokens > tpm:
            text = (
                f"This request may use up to {facts.tokens} tokens, and this API key may use {tpm} a minute. "
                "Send less, or set a lower output limit."
            )
            refusal = ("rate_limit_tokens", text, None)
        elif tpm is not None and (wait := key.tokens.wait(facts.tokens, tpm, now)):
            refusal = ("rate_limit_tokens", f"This API key may use {tpm} tokens a minute.", wait)
        if refusal is None:
            key.running += 1
            key.requests.add(1, now)
            slot = key.tokens.add(facts.tokens, now) if tpm is not None else None
            self._running[facts.request_id] = _Running(key, slot, facts.tokens)
        headers = self._headers(facts.dialect, key, rpm, tpm, now)
        if refusal is None:
            return Allow(headers)
        code, text, after = refusal
        if after is None:  # no wait would help, so the SDKs must not try again
            headers += (("x-should-retry", "false"),)
        return Deny(code=code, message=text, status=429, retry_after=after, headers=headers)

    def _headers(self, dialect: str, key: _Key, rpm: int | None, tpm: int | None, now: float) -> Pairs:
        headers: Pairs = ()
        now_ms = self._wall_ms()
        if rpm is not None:
            left = max(0, rpm - key.requests.total)
            headers = headers_for(dialect, "requests", rpm, left, key.requests.reset(now), now_ms)
        if tpm is not None:
            left = max(0, tpm - key.tokens.total)
            headers += headers_for(dialect, "tokens", tpm, left, key.tokens.reset(now), now_ms)
        return headers

    def _key(self, key_id: str, now: float) -> _Key:
        """The state of a key. On the way up to two are forgotten that have been idle for longer than the window."""
        key = self._keys.get(key_id)
        if key is None:
            key = self._keys[key_id] = _Key()
        key.used = now
        key.requests.advance(now)
        key.tokens.advance(now)
        self._keys.move_to_end(key_id)
        for _ in range(2):
            oldest, state = next(iter(self._keys.items()))
            if now - state.used <= MINUTE + 1:
                break
            if state.running:
                state.used = now
                self._keys.move_to_end(oldest)
            else:
                del self._keys[oldest]
        return key


def tokens_of(usage: Usage | None) -> int:
    """The tokens in a usage, of all classes that are tokens."""
    return sum(usage.counts.get(name, 0) for name in TOKENS) if usage else 0
