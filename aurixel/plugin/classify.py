"""What an HTTP status of an upstream usually means. A provider adds what only it can know: whose fault a text speaks of."""

from __future__ import annotations

from typing import Final

from aurixel.errors import ProviderError
from aurixel.plugin.contracts import Classified

# Bad request, no such model, too large, wrong type, unprocessable: the client's own doing.
CLIENT_FAULTS: Final = frozenset({400, 404, 413, 415, 422})
OUR_ACCOUNT: Final = frozenset({401, 402, 403})
TIMED_OUT: Final = frozenset({408, 504, 524})
OVERLOADED: Final = frozenset({502, 503, 520, 521, 522, 523, 529})


def classify_status(status: int, *, wait: float | None = None, relay: bool = False, our_account: bool = False) -> Classified:
    """The usual meaning of an error status.

    `wait`: seconds the upstream asks for (`retry_after`). `relay`: the text is fit for the client's eyes (used for
    client faults only). `our_account`: whatever the status says, our key, credit or contract with the upstream is at
    fault; the client can mend nothing of that, so it hears 503 and nothing more.
    """
    if our_account or status in OUR_ACCOUNT:
        text = "The upstream cannot serve this request now."
        return Classified("failover", ProviderError("upstream_credentials", text, status=503))
    if status in CLIENT_FAULTS:
        refused = ProviderError("upstream_refused", "The upstream refused the request.", status=status)
        return Classified("relay" if relay else "final", refused)
    if status == 429:
        text = "The upstream is too busy. Try again shortly."
        return Classified("failover", ProviderError("upstream_rate_limited", text, retry_after=wait))
    if status in TIMED_OUT:
        text = "The upstream took too long to answer."
        return Classified("failover", ProviderError("upstream_timeout", text, retry_after=wait))
    if status in OVERLOADED:
        text = "The upstream is overloaded. Try again shortly."
        return Classified("failover", ProviderError("upstream_overloaded", text, retry_after=wait))
    if status >= 500:
        return Classified("failover", ProviderError("upstream_refused", "The upstream failed.", retry_after=wait))
    text = f"The upstream answered with an unexpected status ({status})."
    return Classified("failover", ProviderError("upstream_invalid", text))
