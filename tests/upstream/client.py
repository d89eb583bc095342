"""What the tests of the upstream share: the client's side of a call, and metrics that remember."""

from __future__ import annotations

from collections.abc import Sequence

from aurixel.errors import ProviderError
from aurixel.plugin.contracts import Outgoing
from aurixel.upstream import Timeouts, Upstream

KEY = "sk-upstream-canary"
PATIENT = Timeouts()


class Counted:
    """`UpstreamMetrics` as a list of what was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def opened(self) -> None:
        self.told.append("opened")

    def reused(self) -> None:
        self.told.append("reused")

    def retried(self) -> None:
        self.told.append("retried")

    def first_byte(self, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.told.append("first_byte")


def post(
    url: str, *body: bytes, method: str = "POST", headers: Sequence[tuple[str, str]] = (), path: str = "/v1/x"
) -> Outgoing:
    return Outgoing(
        method=method, url=url + path, headers=(("authorization", f"Bearer {KEY}"), *headers), body=body or (b"{}",)
    )


async def fetch(upstream: Upstream, outgoing: Outgoing, timeouts: Timeouts = PATIENT) -> tuple[int, list[bytes]]:
    """The status and the pieces of the body."""
    async with upstream.open(outgoing, timeouts) as reply:
        pieces = [piece async for piece in reply.chunks()]
    assert b"" not in pieces
    return reply.status, pieces


async def fails(upstream: Upstream, outgoing: Outgoing, timeouts: Timeouts = PATIENT) -> tuple[str, bytes]:
    """The code of the `ProviderError` that the call ends with, and what of the body came before it."""
    came = b""
    error: ProviderError | None = None
    try:
        async with upstream.open(outgoing, timeouts) as reply:
            async for piece in reply.chunks():
                came += piece
    except ProviderError as raised:
        error = raised
    assert error is not None
    # aiohttp's exceptions quote the request's headers, and a traceback shows what an exception drags along.
    assert error.__context__ is None
    assert error.__cause__ is None
    for word in (KEY, "127.0.0.1", "aiohttp"):
        assert word not in f"{error!r} {error} {error.message}"
    return error.code, came
