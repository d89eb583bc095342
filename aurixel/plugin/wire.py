"""What most HTTP providers need and would each get slightly wrong: pure helpers over headers, queries and error texts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import AfterValidator, SecretStr

# The longest wait we pass on: one of the official SDKs gives up at once above two minutes.
LONGEST_WAIT: Final = 120.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
# Keys as the vendors shorten them in error texts (`sk-proj-****abcd`), and ids of their organisations and projects.
_CREDENTIAL = re.compile(
    rb"\b(?:sk|pk|rk|key|org|proj|user|acct)[-_](?=[a-z._-]*[A-Z0-9*])[A-Za-z0-9*._-]{4,}|\bBearer\s+\S{12,}"
)


def retry_after(headers: Mapping[str, str], now_ms: int) -> float | None:
    """How long an upstream asks us to wait, in seconds, at most `LONGEST_WAIT`; None where it does not say it soundly.

    Reads `retry-after-ms`, then `retry-after` as seconds or as an HTTP date. `headers` by lower-case name.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        text = headers.get("retry-after")
        seconds = _number(text)
        if seconds is None and text:
            try:
                date = parsedate_to_datetime(text)
            except ValueError:
                return None
            seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now_ms / 1000
    if seconds is None:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", text):
        return None
    return float(text)


def pick_query(query: str, names: Collection[str]) -> str:
    """Of a client's query string, the parameters that may go on: with a `?` in front, or empty."""
    if not query:
        return ""
    picked = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name in names]
    return f"?{urlencode(picked)}" if picked else ""


def shows_credential(text: bytes, *secrets: str) -> bool:
    """Whether an upstream's error text shows one of our secrets, or what looks like a key or an organisation's id."""
    return any(secret and secret.encode() in text for secret in secrets) or _CREDENTIAL.search(text) is not None


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no credentials, query or fragment")
    return text.rstrip("/")


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text):
        raise ValueError("must begin with / and hold no spaces")
    return text


def _header_name(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("must be the name of a header")
    return name


def _header_secret(secret: SecretStr) -> SecretStr:
    _header_value(secret.get_secret_value())
    return secret


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise ValueError("must be printable ASCII, on one line")
    return text


# Types for settings: checked where the operator wrote them, so that nothing fails at the first request.
BaseUrl = Annotated[str, AfterValidator(_base_url)]
UrlPath = Annotated[str, AfterValidator(_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
# A credential that is sent in a header; a line end at its end, as files have one, is caught here.
HeaderSecret = Annotated[SecretStr, AfterValidator(_header_secret)]
# Headers to add, by name. Any of them may be a credential, so none is shown.
HeaderSettings = dict[HeaderName, HeaderSecret]


def revealed(headers: Mapping[str, SecretStr]) -> dict[str, str]:
    """Headers of the settings, ready to be sent."""
    return {name: text.get_secret_value() for name, text in headers.items()}
