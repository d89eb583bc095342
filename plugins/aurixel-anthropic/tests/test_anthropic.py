"""The anthropic provider: the contract suite, and what is its own: versions, betas, the meaning of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurixel.plugin import Attempt, ConfigError, Outgoing, Provider
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.testing.provider_suite import ProviderSuite

KEY = "sk-ant-0123456789abcdef"
BODY = (b'{"model":"m"}',)


def error(kind: str, message: str = "text", **fields: Any) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **fields}, "request_id": "r"}).encode()


class TestContract(ProviderSuite):
    plugin = "anthropic"
    kind = "anthropic"
    settings = {"api_key": KEY}  # noqa: RUF012 - read only
    secrets = (KEY,)
    client_faults = (
        (400, error("invalid_request_error", "messages: at least one message is required")),
        (404, error("not_found_error", "model: m")),
        (413, error("request_too_large")),
    )


class TestContractWithBearer(TestContract):
    settings = {"api_key": KEY, "auth": "bearer", "base_url": "https://vendor.example/anthropic"}  # noqa: RUF012


def make(**settings: Any) -> Provider:
    return Registry.load(["anthropic"]).build_provider("one", "anthropic", settings, PluginHost())


def prepared(provider: Provider, *headers: tuple[str, str], query: str = "") -> Outgoing:
    attempt = Attempt(operation="chat", dialect="anthropic_messages", model="m", stream=True, query=query, headers=headers)
    return provider.prepare(attempt, BODY)


def test_the_plain_case_needs_a_key_only() -> None:
    outgoing = prepared(make(api_key=KEY), ("user-agent", "sdk"))
    assert outgoing.url == "https://api.anthropic.com/v1/messages"
    assert dict(outgoing.headers) == {
        "user-agent": "sdk",
        "content-type": "application/json",
        "x-api-key": KEY,
        "anthropic-version": "2023-06-01",
    }
    assert outgoing.body is BODY


def test_the_clients_version_goes_along_and_the_default_is_a_setting() -> None:
    provider = make(api_key=KEY, version="2026-10-21")
    assert dict(prepared(provider).headers)["anthropic-version"] == "2026-10-21"
    assert dict(prepared(provider, ("anthropic-version", "2023-06-01")).headers)["anthropic-version"] == "2023-06-01"
    fixed = make(api_key=KEY, headers={"anthropic-version": "2020-01-01"})
    sent = prepared(fixed, ("anthropic-version", "2023-06-01")).headers
    assert [value for name, value in sent if name == "anthropic-version"] == ["2020-01-01"]


def test_bearer() -> None:
    headers = dict(prepared(make(api_key=KEY, auth="bearer")).headers)
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in headers


@pytest.mark.parametrize(
    ("query", "sent"),
    [("", ""), ("beta=true", "?beta=true"), ("beta=true&key=x&beta=", "?beta=true&beta="), ("key=x", "")],
)
def test_of_the_query_only_beta_goes_on(query: str, sent: str) -> None:
    assert prepared(make(), query=query).url == "https://api.anthropic.com/v1/messages" + sent


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("interleaved-thinking-2025-05-14", "interleaved-thinking-2025-05-14"),
        ("some-future-beta-2027-01-01, output-128k-2025-02-19", "some-future-beta-2027-01-01,output-128k-2025-02-19"),
        ("context-1m-2025-08-07,interleaved-thinking-2025-05-14", "interleaved-thinking-2025-05-14"),
        ("fast-mode-2026-02-01", None),
        ("files-api", None),
        ("compact-2026-09-04 , context-management-2025-06-27", "context-management-2025-06-27"),
        ("", None),
    ],
)
def test_betas_that_change_the_price_or_reach_into_the_account_stay_here(asked: str, sent: str | None) -> None:
    assert dict(prepared(make(), ("anthropic-beta", asked)).headers).get("anthropic-beta") == sent


def test_the_denied_betas_are_a_setting() -> None:
    provider = make(denied_betas=["mine"])
    headers = dict(prepared(provider, ("anthropic-beta", "mine-2026-01-01,minetoo,fast-mode-2026-02-01")).headers)
    assert headers["anthropic-beta"] == "minetoo,fast-mode-2026-02-01"
    with pytest.raises(ConfigError, match="auth"):
        make(auth="basic")


@pytest.mark.parametrize(
    ("status", "body", "action", "code", "told"),
    [
        (400, error("invalid_request_error", "messages: required"), "relay", "upstream_refused", 400),
        (400, error("invalid_request_error", "Your credit balance is too low."), "failover", "upstream_credentials", 503),
        (
            400,
            error("invalid_request_error", "You have reached your usage limits."),
            "failover",
            "upstream_credentials",
            503,
        ),
        (400, b"oops", "final", "upstream_refused", 400),
        (401, error("authentication_error", "invalid x-api-key"), "failover", "upstream_credentials", 503),
        (402, error("billing_error"), "failover", "upstream_credentials", 503),
        (403, error("permission_error"), "failover", "upstream_credentials", 503),
        (404, error("not_found_error"), "relay", "upstream_refused", 404),
        (413, error("request_too_large"), "relay", "upstream_refused", 413),
        (429, error("rate_limit_error"), "failover", "upstream_rate_limited", 429),
        (
            429,
            error("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            "failover",
            "upstream_credentials",
            503,
        ),
        (500, error("api_error"), "failover", "upstream_refused", 502),
        (504, error("timeout_error"), "failover", "upstream_timeout", 504),
        (529, error("overloaded_error"), "failover", "upstream_overloaded", 503),
    ],
)
def test_what_errors_mean(status: int, body: bytes, action: str, code: str, told: int) -> None:
    classified = make(api_key=KEY).classify(status, {}, body)
    assert (classified.action, classified.error.code, classified.error.status) == (action, code, told)
