"""The rate-limit headers of both families: what is left, of how much, and when it is all there again. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec


class Level(msgspec.Struct, frozen=True):
    """How a limit stands: `what` is "requests" or "tokens", `reset` seconds until nothing of it is used."""

    what: str
    limit: int
    remaining: int
    reset: float


def headers_for(dialect: str, levels: tuple[Level, ...], now_ms: int) -> tuple[tuple[str, str], ...]:
    """In the words of the dialect's family."""
    if dialect.startswith("anthropic"):
        return tuple(pair for level in levels for pair in _messages_headers(level, now_ms))
    return tuple(pair for level in levels for pair in _chat_headers(level))


def _chat_headers(level: Level) -> tuple[tuple[str, str], ...]:
    return (
        (f"x-ratelimit-limit-{level.what}", str(level.limit)),
        (f"x-ratelimit-remaining-{level.what}", str(level.remaining)),
        (f"x-ratelimit-reset-{level.what}", duration(level.reset)),
    )


def _messages_headers(level: Level, now_ms: int) -> tuple[tuple[str, str], ...]:
    at = datetime.fromtimestamp(math.ceil(now_ms / 1000 + level.reset), UTC)
    return (
        (f"anthropic-ratelimit-{level.what}-limit", str(level.limit)),
        (f"anthropic-ratelimit-{level.what}-remaining", str(level.remaining)),
        (f"anthropic-ratelimit-{level.what}-reset", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
    )


def duration(seconds: float) -> str:
    """As in `12ms`, `59.5s`, `6m0s`, `1h0m0s`: rounded up to the millisecond."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
