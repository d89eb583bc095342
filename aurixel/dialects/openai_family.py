"""The OpenAI family's shapes that no single operation owns: errors, in replies and in streams, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final

import msgspec

from aurixel.dialects.bounds import Bounded
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


def encode_response_error(error: RequestError, request_id: str) -> bytes:
    """An error inside a stream of `/v1/responses`, twice: SDKs raise at the first event, for it has an `error`; what knows
    no such event stops at the second, which ends a response."""
    status = _STATUS.get(error.code) or status_of(error)
    body = _body(error, status)
    first = {**body, "type": "error", "sequence_number": 0, "error": body}  # the error's own type is inside `error`
    failed = {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": 0,
        "status": "failed",
        "error": {"code": _response_code(error, status), "message": error.message},
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    last = {"type": "response.failed", "sequence_number": 1, "response": failed}
    return make_event(msgspec.json.encode(first), b"error") + make_event(msgspec.json.encode(last), b"response.failed")


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


def _response_code(error: RequestError, status: int) -> str:
    """The code in a failed response: one of the few that its readers know, since they try again at any other."""
    if error.code == "credit_exhausted":
        return "insufficient_quota"
    if status == 429:
        return "rate_limit_exceeded"
    if error.code == "upstream_overloaded":
        return "server_is_overloaded"
    return "server_error" if status >= 500 else "invalid_prompt"


def _card(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": card.created_ms // 1000, "owned_by": _OWNER}


class OpenAIFamily(Bounded):
    """What every `Dialect` of the family says alike."""

    family: ClassVar[str] = FAMILY

    def encode_error(self, error: RequestError, request_id: str) -> ErrorReply:
        """See `Dialect`."""
        return encode_error(error, request_id)

    def encode_stream_error(self, error: RequestError, request_id: str) -> bytes:
        """See `Dialect`."""
        return encode_stream_error(error, request_id)
