"""The one room that speaks HTTP outwards: a request goes out at most twice, and its answer comes back as it arrives.

It promises that every wait has a deadline, that leaving a call closes its connection at once unless the answer was
read to its end, that a stalled reader stalls the upstream, and that what it raises are `ProviderError`s which name no
host, header or key. It follows no redirect, keeps no cookie, reads no proxy from the environment, judges no status,
and sends again in one case only: a pooled connection that broke before the first byte of an answer.
Why it is built on aiohttp in this way: docs/decisions/0006-upstream-client.md.
"""

from aurixel.upstream.client import OUTBOUND_HEADERS, Upstream, UpstreamMetrics, outbound_headers
from aurixel.upstream.connections import USER_AGENT
from aurixel.upstream.deadlines import Timeouts

__all__ = ["OUTBOUND_HEADERS", "USER_AGENT", "Timeouts", "Upstream", "UpstreamMetrics", "outbound_headers"]
