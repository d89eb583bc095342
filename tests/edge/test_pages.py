"""The gateway's plain pages, as the Tornado application they are; and that no route at all serves who has no key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import Application

from aurixel.clock import SystemClock
from aurixel.edge import Heads, Proxies, pages
from aurixel.payments import Answer
from tests.edge.door import CARDS, CHAT, KEY, RELAY, Reply, Scripted, door, routes

ANTHROPIC = {"anthropic-version": "2023-06-01", "x-api-key": "good"}
OPENAI = {"authorization": "Bearer good"}


def gateway_pages() -> Application:
    return pages(Scripted(), routes(), Heads(Proxies(), SystemClock()), lambda: CARDS)


@pytest.fixture
def app() -> Application:
    return gateway_pages()


async def get(client: AsyncHTTPClient, url: str, headers: dict[str, str], method: str = "GET") -> HTTPResponse:
    return await client.fetch(url, method=method, headers=headers, raise_error=False, allow_nonstandard_methods=True)


@pytest.mark.gen_test
async def test_the_models_in_both_families(http_client: AsyncHTTPClient, base_url: str) -> None:
    openai = json.loads((await get(http_client, base_url + "/v1/models", OPENAI)).body)
    assert openai["object"] == "list"
    assert [model["id"] for model in openai["data"]] == ["tiny", "vendor/big:free"]
    anthropic = json.loads((await get(http_client, base_url + "/v1/models?limit=1", ANTHROPIC)).body)
    assert anthropic["has_more"] is True
    assert anthropic["last_id"] == "tiny"


@pytest.mark.gen_test
@pytest.mark.parametrize("id", ["vendor/big:free", "vendor%2Fbig%3Afree", "vendor%2fbig:free", "%76endor/big:free"])
async def test_a_model_by_its_id_however_encoded(http_client: AsyncHTTPClient, base_url: str, id: str) -> None:
    for headers in (OPENAI, ANTHROPIC):
        response = await get(http_client, f"{base_url}/v1/models/{id}", headers)
        assert response.code == 200
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.body)["id"] == "vendor/big:free"


@pytest.mark.gen_test
@pytest.mark.parametrize("id", ["none", "%ff%fe", "tiny/", "vendor%252Fbig%3Afree", "tiny%00"])
async def test_no_such_model(http_client: AsyncHTTPClient, base_url: str, id: str) -> None:
    for headers, kind in ((OPENAI, "invalid_request_error"), (ANTHROPIC, "not_found_error")):
        response = await get(http_client, f"{base_url}/v1/models/{id}", headers)
        assert response.code == 404
        assert json.loads(response.body)["error"]["type"] == kind


@pytest.mark.gen_test
async def test_pages_carry_ids_and_no_fingerprint(http_client: AsyncHTTPClient, base_url: str) -> None:
    for path, status in (("/v1/models", 200), ("/v1/models/none", 404), ("/v1/none", 404), ("/", 404)):
        response = await get(http_client, base_url + path, OPENAI)
        assert response.code == status
        ids = {*response.headers.get_list("x-request-id"), *response.headers.get_list("request-id")}
        assert len(ids) == 1
        assert "server" not in response.headers
        assert "etag" not in response.headers
        assert len(response.headers.get_list("content-type")) == 1


@pytest.mark.gen_test
async def test_head_is_get_without_the_body(http_client: AsyncHTTPClient, base_url: str) -> None:
    for path in ("/v1/models", "/v1/models/tiny"):
        full = await get(http_client, base_url + path, OPENAI)
        head = await get(http_client, base_url + path, OPENAI, "HEAD")
        assert head.code == 200
        assert head.body == b""
        assert head.headers["content-length"] == str(len(full.body))


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
async def test_a_wrong_method_is_told_the_right_ones(http_client: AsyncHTTPClient, base_url: str, method: str) -> None:
    for headers, family in ((OPENAI, "openai"), (ANTHROPIC, "anthropic")):
        for path in ("/v1/models", "/v1/models/tiny"):
            response = await get(http_client, base_url + path, headers, method)
            assert response.code == 405
            assert response.headers["allow"] == "GET, HEAD"
            assert ("type" in json.loads(response.body)) == (family == "anthropic")


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/none", "/v1/embeddings", "/metrics", "/v1/models/", "/favicon.ico"])
async def test_nobodys_path_is_a_404_in_the_family(http_client: AsyncHTTPClient, base_url: str, path: str) -> None:
    for headers, kind in ((OPENAI, "invalid_request_error"), (ANTHROPIC, "not_found_error"), ({}, "invalid_request_error")):
        for method in ("GET", "POST", "BREW"):
            response = await get(http_client, base_url + path, headers, method)
            assert response.code == 404
            assert json.loads(response.body)["error"]["type"] == kind


@pytest.mark.gen_test
async def test_a_query_that_asks_for_no_page_is_the_callers_fault(http_client: AsyncHTTPClient, base_url: str) -> None:
    response = await get(http_client, base_url + "/v1/models?limit=0", ANTHROPIC)
    assert response.code == 400


class Posted:
    """The webhooks of one backend, `acme`, which believes nobody but who says so in a header."""

    def knows(self, name: str) -> bool:
        return name == "acme"

    async def take(self, name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.last = (body, headers)
        return Answer(200, "done") if headers.get("signed") == "yes" else Answer(400, "webhook_invalid")


def webhook_pages() -> tuple[Application, Posted]:
    posted = Posted()
    return pages(Scripted(), routes(), Heads(Proxies(), SystemClock()), lambda: CARDS, posted), posted


async def test_a_webhook_is_its_backends_business() -> None:
    application, posted = webhook_pages()
    async with door(plain=application) as opened:

        async def ask(method: str, path: str, more: str = "", body: bytes = b"") -> Reply:
            head = f"{method} {path} HTTP/1.1\r\nHost: g\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            wire = await opened.connect()
            wire.send(head.encode() + body)
            return await wire.reply(head_only=method == "HEAD")

        body = bytes(range(256)) * 1024  # 256 KiB, as it came
        reply = await ask("POST", "/webhooks/acme?x=1", "Signed: yes\r\nX-A: 1\r\nx-a: 2\r\n", body)
        assert (reply.status, reply.json, reply["content-type"]) == (200, {"result": "done"}, "application/json")
        assert posted.last[0] == body
        assert posted.last[1]["x-a"] == "1,2"
        assert "server" not in reply
        assert (await ask("POST", "/webhooks/acme", KEY, b"{}")).json == {"error": {"code": "webhook_invalid"}}
        assert (await ask("POST", "/webhooks/acme", "Signed: yes\r\n", body + b"!")).status == 413
        for path in (
            "/webhooks/other",
            "/webhooks/ACME",
            "/webhooks/acme%2f",
            "/webhooks/%ff",
            "/webhooks/acme/",
            "/webhooks/",
        ):
            assert (await ask("POST", path, "Signed: yes\r\n")).status == 404
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"):
            reply = await ask(method, "/webhooks/acme", "Signed: yes\r\n")
            assert (reply.status, reply["allow"]) == (405, "POST")


def every_route(application: Application) -> list[tuple[str, str]]:
    """Every (method, path) there is: of the relay, and of the application by its own rules, whoever adds one."""
    found = list(RELAY)
    for rule in application.wildcard_router.rules:
        pattern = rule.matcher.regex.pattern  # type: ignore[attr-defined]
        path = pattern.removesuffix("$").replace(".+", "tiny").replace("([a-z0-9_-]+)", "acme")
        assert re.fullmatch(pattern, path), f"teach this test to make a path of {pattern}"
        found += [(method, path) for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")]
    return found


@pytest.mark.parametrize(
    "credentials",
    ["", "authorization: Bearer \r\n", "authorization: Bearer bad\r\n", "authorization: Basic good\r\n", "x-api-key: bad\r\n"],
)
async def test_pitfall_22_no_route_serves_who_has_no_key(credentials: str) -> None:
    """Routes missing from an auth table were served to anybody."""
    served = 0
    application, _ = webhook_pages()
    async with door(plain=application) as opened:
        for method, path in every_route(application):
            for key in (credentials, KEY):
                wire = await opened.connect()
                wire.send(f"{method} {path} HTTP/1.1\r\nHost: g\r\n{key}Content-Length: 0\r\n\r\n")
                reply: Reply = await wire.reply(head_only=method == "HEAD")
                if path == "/webhooks/acme":  # no key opens it, nor does its absence
                    assert reply.status == (400 if method == "POST" else 405)
                elif key == KEY:
                    served += reply.status == 200
                else:
                    assert reply.status in (401, 405), f"{method} {path}"
                    assert reply.status == 405 or "tiny" not in reply.body.decode()
        assert opened.service.served == len(RELAY)
    assert served == len(RELAY) + 4


async def test_pages_and_relays_share_a_connection() -> None:
    async with door() as opened:
        wire = await opened.connect()
        for path in ("/v1/models", "http://gateway/v1/models"):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: g\r\n{KEY}\r\n")
            assert len((await wire.reply()).json["data"]) == 2
            wire.send(f"POST {CHAT} HTTP/1.1\r\nHost: g\r\n{KEY}Content-Length: 2\r\n\r\nok")
            assert (await wire.reply()).body == b"ok"
