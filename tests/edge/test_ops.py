"""The operator's port, as the Tornado application it is, and once over its own socket."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import Application

from aurixel.edge import Itself, Ops
from aurixel.edge import ops as module
from aurixel.edge.ops import ops_pages
from aurixel.errors import StoreUnavailable


class Checks:
    def __init__(self) -> None:
        self.store: str | BaseException | None = None

    async def ask(self) -> str | None:
        if isinstance(self.store, BaseException):
            raise self.store
        return self.store


async def never() -> str | None:
    await asyncio.Event().wait()
    return None


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def app(checks: Checks) -> Application:
    registry = CollectorRegistry()
    Counter("aurixel_tests", "Tests run.", registry=registry).inc(3)
    return ops_pages(Itself(registry, {"store": checks.ask, "plugins": Checks().ask}))


def check_metrics(promtool: Path, page: bytes) -> None:
    ran = subprocess.run([promtool, "check", "metrics"], input=page, check=False, capture_output=True, timeout=30)
    assert ran.returncode == 0, ran.stderr


async def get(client: AsyncHTTPClient, url: str, method: str = "GET") -> HTTPResponse:
    return await client.fetch(url, method=method, raise_error=False)


@pytest.mark.gen_test
async def test_metrics_as_prometheus_reads_them(http_client: AsyncHTTPClient, base_url: str, promtool: Path) -> None:
    response = await get(http_client, base_url + "/metrics")
    assert response.code == 200
    check_metrics(promtool, response.body)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"aurixel_tests_total 3.0" in response.body


@pytest.mark.gen_test
async def test_health_is_the_process_and_nothing_else(http_client: AsyncHTTPClient, base_url: str, checks: Checks) -> None:
    checks.store = "gone"
    response = await get(http_client, base_url + "/healthz")
    assert response.code == 200
    assert json.loads(response.body) == {"status": "ok"}
    assert (await get(http_client, base_url + "/healthz", "HEAD")).body == b""


@pytest.mark.gen_test
async def test_ready_says_what_is_missing(http_client: AsyncHTTPClient, base_url: str, checks: Checks) -> None:
    response = await get(http_client, base_url + "/readyz")
    assert response.code == 200
    assert json.loads(response.body) == {"ready": True, "missing": {}}
    for fault, word in (("no answer", "no answer"), (StoreUnavailable("canary"), "StoreUnavailable")):
        checks.store = fault
        response = await get(http_client, base_url + "/readyz")
        assert response.code == 503
        assert json.loads(response.body) == {"ready": False, "missing": {"store": word}}


@pytest.mark.gen_test
async def test_nothing_else_is_here(http_client: AsyncHTTPClient, base_url: str) -> None:
    response = await get(http_client, base_url + "/none")
    assert response.code == 404
    assert json.loads(response.body) == {"error": "Not Found"}
    assert "server" not in response.headers


async def test_the_port_opens_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.05)
    ops = Ops(Itself(CollectorRegistry(), {"slow": never}))
    await ops.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", ops.ports[0])
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: ops\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
    assert b"no answer in time" in await reader.readuntil(b"}}")
    await ops.stop()
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", ops.ports[0])
