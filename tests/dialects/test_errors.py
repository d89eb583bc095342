"""Every code of the error vocabulary, in both families' words: status, type, retry advice, request id, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurixel import errors
from aurixel.dialects import encode_error, family_of, models_list
from aurixel.errors import ClientError, CreditError, GatewayError, PolicyError, ProviderError, RequestError
from aurixel.plugin.contracts import ModelCard
from tests.dialects.cases import DIALECTS

INVALID, SERVER, BUSY = "invalid_request_error", "server_error", "service_unavailable_error"
KEY = (401, INVALID, "invalid_api_key", 401, "authentication_error")
BAD = (400, INVALID, None, 400, "invalid_request_error")
DENIED = (403, INVALID, None, 403, "permission_error")
UPSTREAM = (502, SERVER, None, 502, "api_error")
DOWN = (503, BUSY, None, 503, "api_error")

# code -> (OpenAI's status, type and code (None: our own), Anthropic's status and type)
TABLE: dict[str, tuple[int, str, str | None, int, str]] = {
    "invalid_json": BAD,
    "invalid_utf8": BAD,
    "invalid_request": BAD,
    "duplicate_key": BAD,
    "too_deep": BAD,
    "empty_body": BAD,
    "unsupported_content_type": BAD,
    "unsupported_dialect": BAD,
    "translation_lossy": BAD,
    "unsupported_parameter": BAD,
    "unpriced_feature": BAD,
    "bad_framing": BAD,
    "missing_key": KEY,
    "invalid_key": KEY,
    "key_expired": KEY,
    "key_revoked": KEY,
    "account_suspended": DENIED,
    "not_found": (404, INVALID, None, 404, "not_found_error"),
    "model_not_found": (404, INVALID, "model_not_found", 404, "not_found_error"),
    "method_not_allowed": (405, INVALID, None, 405, "invalid_request_error"),
    "request_timeout": (408, INVALID, None, 408, "timeout_error"),
    "body_too_large": (413, INVALID, "request_too_large", 413, "request_too_large"),
    "model_not_allowed": DENIED,
    "ip_not_allowed": DENIED,
    "policy_denied": DENIED,
    "rate_limit_requests": (429, "requests", "rate_limit_exceeded", 429, "rate_limit_error"),
    "rate_limit_tokens": (429, "tokens", "rate_limit_exceeded", 429, "rate_limit_error"),
    "rate_limit_concurrency": (429, "requests", "rate_limit_exceeded", 429, "rate_limit_error"),
    "policy_unavailable": DOWN,
    "credit_exhausted": (429, "insufficient_quota", "credit_balance_exhausted", 402, "billing_error"),
    "upstream_refused": UPSTREAM,
    "upstream_unreachable": UPSTREAM,
    "upstream_credentials": UPSTREAM,
    "upstream_invalid": UPSTREAM,
    "upstream_died": UPSTREAM,
    "upstream_error_event": UPSTREAM,
    "upstream_rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", 429, "rate_limit_error"),
    "upstream_overloaded": (503, BUSY, "server_is_overloaded", 529, "overloaded_error"),
    "upstream_timeout": (504, SERVER, None, 504, "timeout_error"),
    "plugin_bug": UPSTREAM,
    "internal_error": (500, SERVER, None, 500, "api_error"),
    "model_unpriced": DOWN,
    "shutting_down": DOWN,
    "store_unavailable": DOWN,
    "journal_unavailable": DOWN,
}
HOPELESS = {"credit_exhausted", "model_unpriced", "upstream_credentials"}
KINDS = (ClientError, PolicyError, CreditError, ProviderError, GatewayError)
CODES = [(kind, code) for kind in KINDS for code in kind.codes]


def test_the_table_is_whole() -> None:
    assert {code for _, code in CODES} == set(TABLE)
    assert set(RequestError.__subclasses__()) >= set(KINDS)
    assert errors.CREDIT_CODES is CreditError.codes


@pytest.mark.parametrize(("kind", "code"), CODES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_code_in_both_families(kind: type[RequestError], code: str) -> None:
    error = kind(code, "Words for the caller.", param="field", retry_after=2.5, headers=(("x-extra", "1"),))
    status, type_, word, other_status, other_type = TABLE[code]
    reply = encode_error("openai", error, "req_1")
    assert reply.status == status
    wanted = {"message": "Words for the caller.", "type": type_, "param": "field", "code": word or code}
    assert json.loads(reply.body) == {"error": wanted}
    other = encode_error("anthropic", error, "req_1")
    assert other.status == other_status
    details = {"type": other_type, "message": "field: Words for the caller.", "details": {"error_code": code}}
    assert json.loads(other.body) == {"type": "error", "error": details, "request_id": "req_1"}
    for headers in (reply.headers, other.headers):
        known = dict(headers)
        assert len(known) == len(headers)
        assert known["content-type"] == "application/json"
        assert known["x-request-id"] == known["request-id"] == "req_1"
        assert (known["retry-after"], known["retry-after-ms"], known["x-extra"]) == ("3", "2500", "1")
        assert known.get("x-should-retry") == ("false" if code in HOPELESS else None)


def test_without_a_field_or_a_delay_there_is_none() -> None:
    error = GatewayError("internal_error", "Words.")
    for family in ("openai", "anthropic"):
        assert not any(name.startswith("retry-after") for name, _ in encode_error(family, error, "r").headers)
    assert json.loads(encode_error("openai", error, "r").body)["error"]["param"] is None
    assert json.loads(encode_error("anthropic", error, "r").body)["error"]["message"] == "Words."


@pytest.mark.parametrize(
    ("error", "status", "type_", "other_type"),
    [
        (PolicyError("too_sunny", "No.", status=403), 403, INVALID, "permission_error"),
        (PolicyError("too_sunny", "No.", status=429), 429, "rate_limit_error", "rate_limit_error"),
        (ProviderError("upstream_refused", "No.", status=404), 404, INVALID, "not_found_error"),
        (ProviderError("upstream_refused", "No.", status=418), 418, INVALID, "invalid_request_error"),
        (ProviderError("upstream_refused", "No.", status=302), 500, SERVER, "api_error"),
    ],
)
def test_other_codes_and_statuses(error: RequestError, status: int, type_: str, other_type: str) -> None:
    ours, theirs = encode_error("openai", error, "r"), encode_error("anthropic", error, "r")
    assert (ours.status, json.loads(ours.body)["error"]["type"]) == (status, type_)
    assert (theirs.status, json.loads(theirs.body)["error"]["type"]) == (status, other_type)


def test_an_error_inside_a_stream() -> None:
    error = ProviderError("upstream_died", 'It "broke"\noff.')
    chat = DIALECTS["openai_chat"].encode_stream_error(error, "req_1")
    assert chat.startswith(b"data: {")
    assert chat.endswith(b"}\n\n")
    assert chat.count(b"\n") == 2
    assert json.loads(chat[6:])["error"]["code"] == "upstream_died"
    first, last, rest = DIALECTS["openai_responses"].encode_stream_error(error, "req_1").split(b"\n\n")
    assert first.startswith(b"event: error\ndata: {")
    assert last.startswith(b"event: response.failed\ndata: {")
    assert not rest
    event = json.loads(first.split(b"data: ")[1])
    assert (event["type"], event["code"], event["error"]["code"]) == ("error", "upstream_died", "upstream_died")
    assert json.loads(last.split(b"data: ")[1])["response"]["error"] == {"code": "server_error", "message": error.message}
    messages = DIALECTS["anthropic_messages"].encode_stream_error(error, "req_1")
    assert messages.startswith(b"event: error\ndata: {")
    assert messages.endswith(b"}\n\n")
    assert messages.count(b"\n") == 3
    assert json.loads(messages.split(b"data: ")[1])["request_id"] == "req_1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CreditError("credit_exhausted", "No."), "insufficient_quota"),
        (PolicyError("rate_limit_tokens", "No."), "rate_limit_exceeded"),
        (ProviderError("upstream_overloaded", "No."), "server_is_overloaded"),
        (ProviderError("upstream_invalid", "No."), "server_error"),
        (ClientError("invalid_request", "No."), "invalid_prompt"),
    ],
)
def test_the_code_of_a_failed_response(error: RequestError, code: str) -> None:
    event = DIALECTS["openai_responses"].encode_stream_error(error, "req_1").split(b"data: ")[2]
    assert json.loads(event)["response"]["error"]["code"] == code


def test_the_dialects_render_in_their_family() -> None:
    error = ClientError("not_found", "No.")
    for dialect in DIALECTS.values():
        assert dialect.encode_error(error, "r") == encode_error(dialect.family, error, "r")


def test_the_family_of_a_caller() -> None:
    assert family_of({"anthropic-version": "2023-06-01"}) == "anthropic"
    assert family_of({"authorization": "Bearer x"}) == "openai"


# --- the list of models -----------------------------------------------------------------------------------------------

CARDS = [ModelCard(id=f"m{n}", created_ms=0, context=1, max_output=1) for n in range(25)]


def page(query: str, cards: list[ModelCard] = CARDS) -> dict[str, Any]:
    found = json.loads(models_list("anthropic", cards, query))
    return {**found, "data": [model["id"] for model in found["data"]]}


@pytest.mark.parametrize(
    ("query", "first", "last", "more"),
    [
        ("", 0, 19, True),
        ("limit=25", 0, 24, False),
        ("limit=24", 0, 23, True),
        ("limit=3&after_id=m4", 5, 7, True),
        ("after_id=m20", 21, 24, False),
        ("limit=3&before_id=m4", 1, 3, True),
        ("limit=4&before_id=m4", 0, 3, False),
        ("beta=true&limit=1", 0, 0, True),
    ],
)
def test_a_page_of_models(query: str, first: int, last: int, more: bool) -> None:
    data = [f"m{n}" for n in range(first, last + 1)]
    assert page(query) == {"data": data, "has_more": more, "first_id": f"m{first}", "last_id": f"m{last}"}


@pytest.mark.parametrize(("query", "cards"), [("after_id=m24", CARDS), ("before_id=m0", CARDS), ("", [])])
def test_an_empty_page_of_models(query: str, cards: list[ModelCard]) -> None:
    assert page(query, cards) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=%D9%A3x", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("after_id=nobody", "after_id"),
        ("before_id=nobody", "before_id"),
        ("before_id=m1&after_id=m2", "before_id"),
    ],
)
def test_no_such_page_of_models(query: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        models_list("anthropic", CARDS, query)
    assert (caught.value.code, caught.value.param) == ("invalid_request", param)


def test_the_list_of_the_other_family() -> None:
    listed = json.loads(models_list("openai", CARDS[:1], "limit=0"))
    card = {"id": "m0", "object": "model", "created": 0, "owned_by": "aurixel"}
    assert listed == {"object": "list", "data": [card]}
