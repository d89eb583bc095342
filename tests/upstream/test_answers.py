"""What a working upstream answers comes back as it was sent: status, headers, and the body in the pieces it came in."""

from __future__ import annotations

from aurixel.plugin.contracts import Outgoing
from aurixel.testing.scripted import ScriptedUpstream
from aurixel.upstream import Timeouts, Upstream


def post(url: str, body: tuple[bytes, ...] = (b"{}",), headers: tuple[tuple[str, str], ...] = ()) -> Outgoing:
    return Outgoing(method="POST", url=url, headers=headers, body=body)


async def test_one_whole_answer(scripted_upstream: ScriptedUpstream, upstream: Upstream) -> None:
    scripted_upstream.reply(json={"a": 1}, status=429, headers=[("Retry-After", "2")])
    async with upstream.open(post(f"{scripted_upstream.url}/v1/x?y=1", (b"{", b"}")), Timeouts()) as reply:
        assert reply.status == 429
        assert reply.headers["retry-after"] == "2"
        assert await reply.read(100) == b'{"a": 1}'
    request = scripted_upstream.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/v1/x?y=1", b"{}")
    assert request.headers["content-length"] == "2"
