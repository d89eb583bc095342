"""The provider `openai`: where a request goes, how it is signed, what the vendor needs otherwise, and its errors.

A vendor's differences are declared in settings; there is no code per vendor. An error text is relayed only where the
client is at fault and the text shows nothing of our account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec
from pydantic import BaseModel, Field

from aurixel.plugin import (
    AnyBody,
    Attempt,
    BaseUrl,
    Classified,
    HeaderName,
    HeaderSecret,
    HeaderSettings,
    HeaderValue,
    Host,
    Outgoing,
    PluginSettings,
    UrlPath,
    classify_status,
    retry_after,
    revealed,
    shows_credential,
)

ChatFormat: TypeAlias = Literal["chat", "responses", "completions"]
# What the API has -> its path. The name of the dialect is that word after `openai_`.
Endpoint: TypeAlias = Literal[
    "chat",
    "responses",
    "completions",
    "input_tokens",
    "embeddings",
    "moderations",
    "images",
    "image_edits",
    "image_variations",
    "speech",
    "transcriptions",
    "translations",
]
PATHS: Final[Mapping[Endpoint, str]] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "completions": "/completions",
    "input_tokens": "/responses/input_tokens",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
    "images": "/images/generations",
    "image_edits": "/images/edits",
    "image_variations": "/images/variations",
    "speech": "/audio/speech",
    "transcriptions": "/audio/transcriptions",
    "translations": "/audio/translations",
}
UPLOAD: Final = "multipart/form-data"
COUNTER: Final = "openai_input_tokens"
MODELS: Final = "/models"
# Said with 429: waiting will not help, for it is our credit that is used up.
OUT_OF_CREDIT: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)


class OpenAISettings(PluginSettings):
    """The block `[upstreams.NAME]` of an OpenAI-compatible vendor. Only what differs from OpenAI need be said."""

    base_url: BaseUrl = "https://api.openai.com/v1"
    api_key: HeaderSecret | None = None
    # The header that carries the key, and the word before it ("" for none).
    key_header: HeaderName = "authorization"
    key_prefix: HeaderValue = "Bearer"
    organization: HeaderValue | None = None
    project: HeaderValue | None = None
    headers: HeaderSettings = Field(default_factory=dict)
    # Sent with every request, such as an API version; the client's own query never goes on.
    query: dict[str, str] = Field(default_factory=dict)
    # Which formats of a chat the vendor has, the best one first; a request in another is translated into it.
    speaks: tuple[ChatFormat, ...] = Field(default=("chat",), min_length=1)
    # Endpoint -> path below base_url.
    paths: dict[Endpoint, UrlPath] = Field(default_factory=dict)
    # The vendor's word for the output limit, used when the gateway must set one.
    output_limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    # Top-level fields of the request that the vendor refuses, or calls something else.
    drop_fields: frozenset[str] = frozenset()
    rename_fields: dict[str, str] = Field(default_factory=dict)


class _Error(msgspec.Struct):
    """The one shape of error that may be relayed, and what tells no credit from too fast."""

    message: str
    type: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_error_body = msgspec.json.Decoder(_ErrorBody)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OpenAI:
    """One upstream that speaks the OpenAI API."""

    kind: ClassVar[str] = "openai"
    dialects: ClassVar[Mapping[str, Sequence[str]]] = {
        "chat": ("openai_chat", "openai_responses", "openai_completions"),
        "count": ("openai_responses",),
        "embeddings": ("openai_embeddings",),
        "moderation": ("openai_moderations",),
        "images": ("openai_images", "openai_image_edits", "openai_image_variations"),
        "speech": ("openai_speech",),
        "transcription": ("openai_transcriptions", "openai_translations"),
    }
    Settings: ClassVar[type[BaseModel]] = OpenAISettings

    def __init__(self, settings: OpenAISettings, host: Host) -> None:
        self.output_limit_field: str | None = settings.output_limit_field
        self._clock = host.clock
        self._secret = settings.api_key.get_secret_value() if settings.api_key else ""
        query = f"?{urlencode(settings.query)}" if settings.query else ""
        self._urls: dict[str, str] = {
            _dialect(endpoint): settings.base_url + settings.paths.get(endpoint, path) + query
            for endpoint, path in PATHS.items()
        }
        self._chat = tuple(map(_dialect, settings.speaks))
        self._models = settings.base_url + MODELS + query
        self._headers = _own_headers(settings, self._secret)
        self._owned = frozenset(name for name, _ in self._headers)
        self._drop, self._rename = settings.drop_fields, settings.rename_fields

    def prepare(self, attempt: Attempt, body: AnyBody) -> Outgoing:
        """Our headers win over the client's, but for the type of an upload, which only the client knows. The body is touched
        only for fields the vendor knows otherwise, and an upload is not."""
        own = self._headers
        headers = [pair for pair in attempt.headers if pair[0] not in self._owned]
        uploads = [pair for pair in attempt.headers if pair[0] == "content-type" and pair[1].lower().startswith(UPLOAD)]
        if uploads:
            own = (*uploads, *(pair for pair in own if pair[0] != "content-type"))
        elif (self._drop or self._rename) and isinstance(body, Sequence):
            body = (self._reshape(b"".join(body)),)
        url = self._urls[COUNTER if attempt.operation == "count" else attempt.dialect]
        return Outgoing(method="POST", url=url, headers=(*headers, *own), body=body)

    def probe(self) -> Outgoing:
        """See `Probed`."""
        return Outgoing(method="GET", url=self._models, headers=self._headers, body=())

    def spoken(self, operation: str) -> Sequence[str]:
        """See `SpeaksLess`."""
        names = self.dialects[operation]
        if operation == "chat":
            return self._chat
        return tuple(name for name in names if name in self._chat) if operation == "count" else names

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
            our_account=status == 429 and error is not None and not OUT_OF_CREDIT.isdisjoint((error.type, error.code)),
        )

    def _reshape(self, body: bytes) -> bytes:
        """Each field's value stays as it was written."""
        fields = _fields.decode(body)
        for name in self._drop:
            fields.pop(name, None)
        for name, word in self._rename.items():
            if name in fields:
                fields[word] = fields.pop(name)
        return msgspec.json.encode(fields)


def _dialect(endpoint: str) -> str:
    return f"openai_{endpoint}"


def _own_headers(settings: OpenAISettings, secret: str) -> tuple[tuple[str, str], ...]:
    own = {"content-type": "application/json", **revealed(settings.headers)}
    if settings.organization:
        own["openai-organization"] = settings.organization
    if settings.project:
        own["openai-project"] = settings.project
    if secret:
        own[settings.key_header] = f"{settings.key_prefix} {secret}" if settings.key_prefix else secret
    return tuple(own.items())
