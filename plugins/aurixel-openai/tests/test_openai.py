"""The openai provider: the contract suite, and what is its own: signatures, quirks, the meaning of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurixel.plugin import Attempt, ConfigError, Outgoing, Provider, Secret
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.testing.provider_suite import ProviderSuite

KEY = "sk-test-0123456789abcdef"
BODY = (b'{"model":"m","max_completion_tokens":5,', b'"stream_options":{"include_usage":true},"messages":[ ]}')


def error(message: str = "text", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": None, "param": None, "code": None, **fields}}).encode()


class TestContract(ProviderSuite):
    plugin = "openai"
    kind = "openai"
    settings = {"base_url": "https://vendor.example/v1", "api_key": KEY}  # noqa: RUF012 - read only
    secrets = (KEY,)
    client_faults = (
        (400, error("Unsupported value: 'temperature'.", type="invalid_request_error", param="temperature")),
        (404, error("The model `m` does not exist.", code="model_not_found")),
        (413, error("Too large.")),
        (422, error("Not so.", code=17)),
    )


class TestContractWithQuirks(TestContract):
    settings = {  # noqa: RUF012 - read only
        "base_url": "http://127.0.0.1:8000/",
        "api_key": KEY,
        "key_header": "api-key",
        "key_prefix": "",
        "query": {"api-version": "2026-01-01"},
        "drop_fields": ["stream_options"],
    }
    rewrites_body = True


def make(**settings: Any) -> Provider:
    return Registry.load(["openai"]).build_provider("one", "openai", settings, PluginHost())


def prepared(provider: Provider, *headers: tuple[str, str], query: str = "") -> Outgoing:
    attempt = Attempt(operation="chat", dialect="openai_chat", model="m", stream=False, query=query, headers=headers)
    return provider.prepare(attempt, BODY)


def test_the_plain_case_needs_a_key_only() -> None:
    outgoing = prepared(make(api_key=KEY), ("user-agent", "sdk"), query="beta=true&key=x")
    assert outgoing.url == "https://api.openai.com/v1/chat/completions"
    assert dict(outgoing.headers) == {
        "user-agent": "sdk",
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
    }
    assert outgoing.body is BODY


def test_a_vendor_is_a_block_of_settings() -> None:
    provider = make(
        base_url="https://vendor.example/openai/",
        api_key=KEY,
        key_header="API-Key",
        key_prefix="",
        organization="org-1",
        project="proj-1",
        headers={"X-Region": "eu", "user-agent": "ours", "x-pass": Secret("from-the-environment")},
        query={"api-version": "1 2"},
        paths={"chat": "/deployments/m/chat"},
        output_limit_field="max_tokens",
    )
    outgoing = prepared(provider, ("user-agent", "sdk"), ("accept-language", "de"))
    assert outgoing.url == "https://vendor.example/openai/deployments/m/chat?api-version=1+2"
    assert dict(outgoing.headers) == {
        "accept-language": "de",
        "content-type": "application/json",
        "x-region": "eu",
        "x-pass": "from-the-environment",
        "user-agent": "ours",
        "openai-organization": "org-1",
        "openai-project": "proj-1",
        "api-key": KEY,
    }
    assert provider.output_limit_field == "max_tokens"


def test_a_local_server_needs_no_key() -> None:
    names = [name for name, _ in prepared(make(base_url="http://127.0.0.1:11434/v1")).headers]
    assert names == ["content-type"]


def test_fields_are_dropped_and_renamed_and_the_rest_stays_as_written() -> None:
    provider = make(drop_fields=["stream_options", "absent"], rename_fields={"max_completion_tokens": "max_tokens", "no": "x"})
    body = b"".join(prepared(provider).body)
    assert json.loads(body) == {"model": "m", "messages": [], "max_tokens": 5}
    assert b"[ ]" in body


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "vendor.example/v1"},
        {"base_url": "ftp://vendor.example"},
        {"base_url": "https://user:pw@vendor.example"},
        {"base_url": "https://vendor.example/v1?x=1"},
        {"headers": {"bad header": "x"}},
        {"headers": {"x": "two\r\nlines"}},
        {"paths": {"chat": "no-slash"}},
        {"paths": {"chta": "/x"}},
        {"output_limit_field": "max_length"},
        {"organization": "a\nb"},
        {"api_key": "sk-key-with-a-line-end\n"},
    ],
)
def test_settings_that_would_fail_later_are_refused_now(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(**settings)


@pytest.mark.parametrize(
    ("status", "body", "action", "code", "told"),
    [
        (400, error("bad"), "relay", "upstream_refused", 400),
        (400, b"<html>", "final", "upstream_refused", 400),
        (400, error("key sk-proj-****wxyz"), "final", "upstream_refused", 400),
        (404, error("in organization org-AbCdEf123 no such"), "final", "upstream_refused", 404),
        (422, error("user_location is not allowed, org-wide"), "relay", "upstream_refused", 422),
        (401, error("Incorrect API key"), "failover", "upstream_credentials", 503),
        (403, error("Country not supported"), "failover", "upstream_credentials", 503),
        (402, b"", "failover", "upstream_credentials", 503),
        (429, error("quota", type="insufficient_quota"), "failover", "upstream_credentials", 503),
        (429, error("quota", code="credit_balance_exhausted"), "failover", "upstream_credentials", 503),
        (429, error("slow", code="rate_limit_exceeded"), "failover", "upstream_rate_limited", 429),
        (429, error("slow", code=["odd"]), "failover", "upstream_rate_limited", 429),
        (408, b"", "failover", "upstream_timeout", 504),
        (500, error("oops"), "failover", "upstream_refused", 502),
        (502, b"", "failover", "upstream_overloaded", 503),
        (503, b"", "failover", "upstream_overloaded", 503),
        (504, b"", "failover", "upstream_timeout", 504),
        (302, b"", "failover", "upstream_invalid", 502),
        (451, b"", "failover", "upstream_invalid", 502),
    ],
)
def test_what_errors_mean(status: int, body: bytes, action: str, code: str, told: int) -> None:
    classified = make(api_key=KEY).classify(status, {}, body)
    assert (classified.action, classified.error.code, classified.error.status) == (action, code, told)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "100000"}, 120),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:20 GMT"}, 20),
        ({"retry-after": "Thu, 01 Jan 2015 00:00:20 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_waits_are_passed_on(headers: dict[str, str], seconds: float | None) -> None:
    assert make().classify(429, headers, b"").error.retry_after == seconds
