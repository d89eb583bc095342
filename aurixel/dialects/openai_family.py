"""The OpenAI family's shapes that no single operation owns: errors, in replies and in streams, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from aurixel.dialects.faults import error_headers, status_of
from aurixel.dialects.sse import make_event
from aurixel.errors import RequestError
from aurixel.plugin.contracts import ErrorReply, ModelCard

FAMILY: Final = "openai"
_OWNER: Final = "aurixel"

# Our code -> (type, code) as this family's clients know them. Not named here: the type by status, the code as it is.
_WORDS: Final = MappingProxyType(
    {
        "missing_key": ("invalid_request_error", "invalid_api_key"),
        "invalid_key": ("invalid_request_error", "invalid_api_key"),
        "key_expired": ("invalid_request_error", "invalid_api_key"),
        "key_revoked": ("invalid_request_error", "invalid_api_key"),
        "body_too_large": ("invalid_request_error", "request_too_large"),
        "rate_limit_requests": ("requests", "rate_limit_exceeded"),
        "rate_limit_tokens": ("tokens", "rate_limit_exceeded"),
        "rate_limit_concurrency": ("requests", "rate_limit_exceeded"),
        "credit_exhausted": ("insufficient_quota", "credit_balance_exhausted"),
        "upstream_rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
        "upstream_overloaded": ("service_unavailable_error", "server_is_overloaded"),
    }
)
# Out of credit is a 429 here, whose type clients look at; the header keeps them from trying again.
_STATUS: Final = MappingProxyType({"credit_exhausted": 429})


def encode_error(error: RequestError, request_id: str) -> ErrorReply:
    """An error as a whole reply."""
    status = _STATUS.get(error.code) or status_of(error)
    return ErrorReply(status, error_headers(error, request_id), msgspec.json.encode({"error": _body(error, status)}))


def encode_stream_error(error: RequestError, request_id: str) -> bytes:
    """An error inside a stream; no `[DONE]` may follow. `request_id` has no place in this shape."""
    status = _STATUS.get(error.code) or status_of(error)
    return make_event(msgspec.json.encode({"error": _body(error, status)}))


def models_list(cards: Sequence[ModelCard]) -> bytes:
    """`GET /v1/models`: all at once, this family does not page."""
    return msgspec.json.encode({"object": "list", "data": [_card(card) for card in cards]})


def model_card(card: ModelCard) -> bytes:
    """`GET /v1/models/{id}`."""
    return msgspec.json.encode(_card(card))


def _body(error: RequestError, status: int) -> dict[str, Any]:
    type_, code = _WORDS.get(error.code) or (_type(status), error.code)
    return {"message": error.message, "type": type_, "param": error.param, "code": code}


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 503:
        return "service_unavailable_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _card(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": card.created_ms // 1000, "owned_by": _OWNER}
