"""The provider `anthropic`: where a request goes, how it is signed, which betas go along, and what its errors mean.

The client's `anthropic-version` and `anthropic-beta` are passed on, but for betas that change the price or reach into
the account that all clients share. An error text is relayed only where the client is at fault and the text shows
nothing of our account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal

import msgspec
from pydantic import BaseModel, Field

from aurixel.plugin import (
    AnyBody,
    Attempt,
    BaseUrl,
    Classified,
    HeaderSecret,
    HeaderSettings,
    HeaderValue,
    Host,
    Outgoing,
    PluginSettings,
    UrlPath,
    classify_status,
    pick_query,
    retry_after,
    revealed,
    shows_credential,
)

# Below the path of messages.
COUNT_PATH: Final = "/count_tokens"
MODELS: Final = "/v1/models"
# Betas by the start of their names: the date at the end changes. Dropped, not refused: what asks for them runs on without.
DENIED_BETAS: Final = (
    "advisor",  # answers of a second model, at that model's price
    "code-execution",  # containers live in the shared account
    "compact",  # its tokens are missing from the totals
    "context-1m",  # another price above 200k tokens
    "fast-mode",  # another price
    "files-api",  # files live in the shared account
    "mcp-client",  # the upstream would call addresses that clients name
    "server-side-fallback",  # another model's price
    "skills",  # skills live in the shared account
    "user-profiles",
)
# What the upstream says with status 400 or 429 when it is our credit or contract that has ended.
_OUR_ACCOUNT: Final = re.compile(r"credit balance|usage limits?\b|spend limit|organization has been disabled", re.IGNORECASE)


class AnthropicSettings(PluginSettings):
    """The block `[upstreams.NAME]` of an upstream that speaks the Messages API."""

    base_url: BaseUrl = "https://api.anthropic.com"
    path: UrlPath = "/v1/messages"
    api_key: HeaderSecret | None = None
    # How the key is sent: as `x-api-key`, or as `Authorization: Bearer`.
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    # The API version for clients that name none.
    version: HeaderValue = "2023-06-01"
    # Whether it has the endpoint that counts tokens, below `path`; where not, counts are estimated.
    count_tokens: bool = True
    denied_betas: tuple[str, ...] = DENIED_BETAS
    headers: HeaderSettings = Field(default_factory=dict)


class _Error(msgspec.Struct):
    type: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


_error_body = msgspec.json.Decoder(_ErrorBody)


class Anthropic:
    """One upstream that speaks the Messages API."""

    kind: ClassVar[str] = "anthropic"
    dialects: ClassVar[Mapping[str, Sequence[str]]] = {
        "chat": ("anthropic_messages",),
        "count": ("anthropic_messages",),
    }
    Settings: ClassVar[type[BaseModel]] = AnthropicSettings

    def __init__(self, settings: AnthropicSettings, host: Host) -> None:
        # The output limit is a required field of the dialect: the gateway never has to name it.
        self.output_limit_field: str | None = None
        self._clock = host.clock
        self._secret = settings.api_key.get_secret_value() if settings.api_key else ""
        self._url = settings.base_url + settings.path
        self._models = settings.base_url + MODELS
        self._counts = settings.count_tokens
        self._version = ("anthropic-version", settings.version)
        self._denied = frozenset(settings.denied_betas)
        self._denied_dated = tuple(f"{name}-" for name in settings.denied_betas)
        own = {"content-type": "application/json", **revealed(settings.headers)}
        if self._secret and settings.auth == "bearer":
            own["authorization"] = f"Bearer {self._secret}"
        elif self._secret:
            own["x-api-key"] = self._secret
        self._headers = tuple(own.items())
        self._owned = frozenset(own)

    def prepare(self, attempt: Attempt, body: AnyBody) -> Outgoing:
        """Our headers win over the client's; of its query only `beta` goes on."""
        headers = list(self._headers)
        version = self._version
        for name, value in attempt.headers:
            if name in self._owned:
                continue
            if name == "anthropic-version":
                version = (name, value)
            elif name == "anthropic-beta":
                if betas := self._betas(value):
                    headers.append((name, betas))
            else:
                headers.append((name, value))
        if version[0] not in self._owned:
            headers.append(version)
        path = self._url + COUNT_PATH if attempt.operation == "count" else self._url
        url = path + pick_query(attempt.query, ("beta",))
        return Outgoing(method="POST", url=url, headers=tuple(headers), body=body)

    def probe(self) -> Outgoing:
        """See `Probed`."""
        return Outgoing(method="GET", url=self._models, headers=(*self._headers, self._version), body=())

    def spoken(self, operation: str) -> Sequence[str]:
        """See `SpeaksLess`."""
        return self.dialects[operation] if operation != "count" or self._counts else ()

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Classified:
        """What an error status means for the client and for the next attempt."""
        try:
            error = _error_body.decode(body).error
        except (msgspec.DecodeError, RecursionError):
            error = None
        return classify_status(
            status,
            wait=retry_after(headers, self._clock.wall_ms()),
            relay=error is not None and not shows_credential(body, self._secret),
            our_account=error is not None and status in (400, 429) and self._is_ours(error, body),
        )

    def _betas(self, value: str) -> str:
        betas = [beta.strip() for beta in value.split(",")]
        kept = [beta for beta in betas if beta and beta not in self._denied and not beta.startswith(self._denied_dated)]
        return ",".join(kept)

    def _is_ours(self, error: _Error, body: bytes) -> bool:
        return error.type == "billing_error" or _OUR_ACCOUNT.search(error.message) is not None or b"_spend_limit_" in body
