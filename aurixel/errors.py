"""The error tree: every way Aurixel says no, each with a stable code; it never carries a body, a prompt or a secret.

AurixelError
├── ConfigError            what the operator wrote is wrong: names the place and the mend
│   └── ConfigFaults       several of them at once: all that were found, not the first
├── StoreUnavailable       no answer from the store: what was sent may or may not have happened, or may still happen
│   └── StoreDamaged       what it has is not what was written there
├── JournalError           the journal cannot be written or cannot be read
│   └── JournalUnusable    its folder cannot be had: another process has it, or it cannot be written
├── NodeAlive              the node whose journal was to be adopted still beats
├── ClientGone             the client closed its connection: nobody is left to answer
└── RequestError           one request is refused or fails, in words for the caller
    ├── ClientError        the caller's own fault
    ├── PolicyError        a policy check refused it
    ├── CreditError        the account's credit does not cover it
    ├── ProviderError      the upstream refused, failed or spoke nonsense
    └── GatewayError       our own fault, or our own limit

The dialects render a `RequestError` in the caller's family. Messages are written for the caller: they may name
fields, models and limits, never values of content, e-mails, keys or upstream texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar, Final

# The stable vocabulary: code -> HTTP status before a family's own mapping (protocol 2.7, 2.8 live in the dialects).
CLIENT_CODES: Final = MappingProxyType(
    {
        "invalid_json": 400,
        "invalid_utf8": 400,
        "invalid_request": 400,
        "duplicate_key": 400,
        "too_deep": 400,
        "empty_body": 400,
        "unsupported_content_type": 400,
        "unsupported_dialect": 400,
        "translation_lossy": 400,
        "unsupported_parameter": 400,
        "unpriced_feature": 400,
        "bad_framing": 400,
        "missing_key": 401,
        "invalid_key": 401,
        "key_expired": 401,
        "key_revoked": 401,
        "account_suspended": 403,
        "not_found": 404,
        "model_not_found": 404,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "body_too_large": 413,
    }
)
POLICY_CODES: Final = MappingProxyType(
    {
        "model_not_allowed": 403,
        "ip_not_allowed": 403,
        "policy_denied": 403,
        "rate_limit_requests": 429,
        "rate_limit_tokens": 429,
        "rate_limit_concurrency": 429,
        "policy_unavailable": 503,
    }
)
CREDIT_CODES: Final = MappingProxyType({"credit_exhausted": 402})
PROVIDER_CODES: Final = MappingProxyType(
    {
        "upstream_refused": 502,  # the upstream's own status is used instead when its text is relayed
        "upstream_unreachable": 502,
        "upstream_credentials": 502,
        "upstream_invalid": 502,
        "upstream_died": 502,
        "upstream_error_event": 502,
        "upstream_rate_limited": 429,
        "upstream_overloaded": 503,
        "upstream_timeout": 504,
        "plugin_bug": 502,
    }
)
GATEWAY_CODES: Final = MappingProxyType(
    {
        "internal_error": 500,
        "model_unpriced": 503,
        "shutting_down": 503,
        "store_unavailable": 503,
        "journal_unavailable": 503,
    }
)


class AurixelError(Exception):
    """The root of every error Aurixel raises on purpose."""


class ConfigError(AurixelError):
    """A setting, file or plugin is wrong. `message` names the fault, `place` the file, line or setting, `mend` what to do."""

    def __init__(
        self,
        message: str,
        *,
        place: str = "",
        mend: str = "",
        code: str = "config_invalid",
    ) -> None:
        super().__init__(message)
        self.message, self.place, self.mend, self.code = message, place, mend, code

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head} ({self.mend})" if self.mend else head


class ConfigFaults(ConfigError):
    """Everything that was found wrong in one reading, in the order found. `faults` has at least one."""

    def __init__(self, faults: Sequence[ConfigError]) -> None:
        first = faults[0]
        super().__init__(first.message, place=first.place, mend=first.mend, code=first.code)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class StoreUnavailable(AurixelError):
    """The store gave no answer. The operation may have happened, may not have, or may still land later."""


class StoreDamaged(StoreUnavailable):
    """The store's file is not what was written there: it answers nothing that can be believed, now or later."""


class JournalError(AurixelError):
    """The journal cannot be written or read; `place` is `file:offset` where known."""

    code = "journal_failed"

    def __init__(self, message: str, *, place: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message, self.place = message, place


class JournalUnusable(JournalError):
    """The journal's folder cannot be had: another process keeps its journal there, or it cannot be written."""

    code = "journal_unusable"


class JournalUnwritable(JournalError):
    """The disk does not take what the journal is given: nothing in it is wrong, and it may be tried again."""


class NodeAlive(AurixelError):
    """A node is not gone: its beat moved while it was looked at. `inc` is the incarnation, `name` its host."""

    code = "node_alive"

    def __init__(self, inc: str, name: str) -> None:
        super().__init__(f"node {inc} on {name} is alive: it beats. Stop it, and let the journal be where it is")
        self.inc, self.name = inc, name


class ClientGone(AurixelError):
    """The client's connection is closed; raised by the exchange's reads and writes."""


class RequestError(AurixelError):
    """One request ends here. Shapes: `code` from this module's tables, `status` an HTTP status, `retry_after` in seconds.

    `headers` are extra reply headers (rate-limit values), `param` the field at fault.
    """

    kind: ClassVar[str] = "gateway"
    codes: ClassVar[MappingProxyType[str, int]] = GATEWAY_CODES

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{self.kind}.{code}")  # never the message: a traceback is a sink, and messages name fields
        self.code = code
        self.message = message
        self.param = param
        self.status = status if status is not None else self.codes[code]
        self.retry_after = retry_after
        self.headers = headers


class ClientError(RequestError):
    """The caller sent something wrong."""

    kind = "client"
    codes = CLIENT_CODES


class PolicyError(RequestError):
    """A policy check refused the request. Codes of a third party's check are allowed beside the table; give `status`."""

    kind = "policy"
    codes = POLICY_CODES


class CreditError(RequestError):
    """The account's credit does not cover the request's upper bound."""

    kind = "credit"
    codes = CREDIT_CODES


class ProviderError(RequestError):
    """The upstream refused, failed or spoke nonsense."""

    kind = "provider"
    codes = PROVIDER_CODES


class GatewayError(RequestError):
    """Our own fault or limit."""

    kind = "gateway"
    codes = GATEWAY_CODES
