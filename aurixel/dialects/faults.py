"""What errors have in common in every family: the request's id, and the headers that say whether to try again."""

from __future__ import annotations

from math import ceil
from typing import Final

from aurixel.errors import RequestError

# Statuses that SDKs try again by themselves, where the same request will fail the same way.
_HOPELESS: Final = frozenset({"credit_exhausted", "model_unpriced", "upstream_credentials"})


def status_of(error: RequestError) -> int:
    """The error's HTTP status, if it can be one of an error."""
    return error.status if 400 <= error.status <= 599 else 500


def error_headers(error: RequestError, request_id: str) -> tuple[tuple[str, str], ...]:
    """The headers of an error reply but for its length: type, request ids, retry advice, and the error's own."""
    headers = [("content-type", "application/json"), ("x-request-id", request_id), ("request-id", request_id)]
    if error.code in _HOPELESS:
        headers.append(("x-should-retry", "false"))
    if error.retry_after is not None:
        milliseconds = max(1, ceil(error.retry_after * 1000))
        headers += [("retry-after", str(-(-milliseconds // 1000))), ("retry-after-ms", str(milliseconds))]
    headers += error.headers
    return tuple(headers)
