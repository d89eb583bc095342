"""The Anthropic family's shapes that no single operation owns: errors, in replies and in streams, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from aurixel.dialects.faults import error_headers, status_of
from aurixel.dialects.sse import make_event
from aurixel.errors import ClientError, RequestError
from aurixel.plugin.contracts import ErrorReply, ModelCard

FAMILY: Final = "anthropic"
DEFAULT_PAGE: Final = 20
LARGEST_PAGE: Final = 1000

_OVERLOADED: Final = 529  # this family's own status
_STATUS: Final = MappingProxyType({"upstream_overloaded": _OVERLOADED})
_TYPES: Final = MappingProxyType(
    {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        409: "conflict_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        _OVERLOADED: "overloaded_error",
    }
)


def encode_error(error: RequestError, request_id: str) -> ErrorReply:
    """An error as a whole reply."""
    status = _STATUS.get(error.code) or status_of(error)
    return ErrorReply(status, error_headers(error, request_id), msgspec.json.encode(_body(error, status, request_id)))


def encode_stream_error(error: RequestError, request_id: str) -> bytes:
    """An error inside a stream; nothing may follow."""
    status = _STATUS.get(error.code) or status_of(error)
    return make_event(msgspec.json.encode(_body(error, status, request_id)), b"error")


def models_list(cards: Sequence[ModelCard], query: str = "") -> bytes:
    """`GET /v1/models`: the page that `limit`, `before_id` and `after_id` in the query string ask for.

    `ClientError("invalid_request")` where they are out of range, both given, or name no model.
    """
    asked = parse_qs(query, keep_blank_values=True)
    limit = _limit(asked.get("limit", [""])[-1])
    before, after = asked.get("before_id", [""])[-1], asked.get("after_id", [""])[-1]
    if before and after:
        raise ClientError("invalid_request", "Only one of 'before_id' and 'after_id' may be given.", param="before_id")
    if before:
        found = cards[: _place(cards, before, "before_id")]
        page, more = found[-limit:], len(found) > limit
    else:
        found = cards[_place(cards, after, "after_id") + 1 :] if after else cards
        page, more = found[:limit], len(found) > limit
    return msgspec.json.encode(
        {
            "data": [_card(card) for card in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


def model_card(card: ModelCard) -> bytes:
    """`GET /v1/models/{id}`."""
    return msgspec.json.encode(_card(card))


def _body(error: RequestError, status: int, request_id: str) -> dict[str, Any]:
    message = error.message if error.param is None else f"{error.param}: {error.message}"
    type_ = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return {
        "type": "error",
        "error": {"type": type_, "message": message, "details": {"error_code": error.code}},
        "request_id": request_id,
    }


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_PAGE
    if text.isdecimal() and len(text) < 5 and 1 <= int(text) <= LARGEST_PAGE:
        return int(text)
    raise ClientError("invalid_request", f"'limit' must be between 1 and {LARGEST_PAGE}.", param="limit")


def _place(cards: Sequence[ModelCard], id: str, param: str) -> int:
    for place, card in enumerate(cards):
        if card.id == id:
            return place
    raise ClientError("invalid_request", f"'{param}' names no model.", param=param)


def _card(card: ModelCard) -> dict[str, Any]:
    created = datetime.fromtimestamp(card.created_ms // 1000, UTC)
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.id,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": card.context,
        "max_tokens": card.max_output,
        "capabilities": None,
    }
