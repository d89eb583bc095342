"""The rate-limit headers of both families: what is left, of how much, and when it is all there again. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias

What: TypeAlias = Literal["requests", "tokens"]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

# limit, remaining, reset
_CHAT: Final = {
    what: (f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}")
    for what in ("requests", "tokens")
}
_MESSAGES: Final = {
    what: tuple(f"anthropic-ratelimit-{what}-{part}" for part in ("limit", "remaining", "reset"))
    for what in ("requests", "tokens")
}


def headers_for(dialect: str, what: What, limit: int, remaining: int, reset: float, now_ms: int) -> Pairs:
    """How a limit stands, in the words of the dialect's family; `reset` is seconds until nothing of it is used."""
    if dialect.startswith("anthropic"):
        names = _MESSAGES[what]
        at = _instant(math.ceil(now_ms / 1000 + reset))
    else:
        names = _CHAT[what]
        at = duration(reset)
    return ((names[0], str(limit)), (names[1], str(remaining)), (names[2], at))


@lru_cache(maxsize=64)
def _instant(second: int) -> str:
    """As in `2026-01-31T12:00:00Z`; most requests of a second share one."""
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """As in `12ms`, `59.5s`, `6m0s`, `1h0m0s`: rounded up to the millisecond."""
    milliseconds = -(-round(seconds * 1_000_000) // 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    text = f"{rest}.{milliseconds:03d}".rstrip("0") + "s" if milliseconds else f"{rest}s"
    if minutes < 60:
        return f"{minutes}m{text}" if minutes else text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}"
