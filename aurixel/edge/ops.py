"""The operator's port: metrics, and whether the process lives and is ready. No key is asked: bind it where only you reach it.

It shows no account, no key and no error text, only names and kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError

from aurixel.edge.handlers import Page, application
from aurixel.edge.listen import bind, parse_listen
from aurixel.edge.server import silence_tornado

# None: fine; a word: what is missing. An exception is told by its type.
Check: TypeAlias = Callable[[], Awaitable[str | None]]

_CHECK_SECONDS: Final = 2.0
_JSON: Final = "application/json"


class Readiness(msgspec.Struct, frozen=True):
    """Whether new requests would be served; `missing`: name -> what is not as it should be, in a word."""

    ready: bool
    missing: dict[str, str]


class Told(Protocol):
    """What the pages tell."""

    async def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""

    async def readiness(self) -> Readiness: ...


class Itself:
    """What one process says of itself. `checks`: name -> what `/readyz` asks, all at once, each for at most two seconds."""

    def __init__(self, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
        self._registry, self._checks = registry, checks

    async def metrics(self) -> bytes:
        """Everything as it is now."""
        return generate_latest(self._registry)

    async def readiness(self) -> Readiness:
        """Ready if no check misses anything."""
        found = await asyncio.gather(*(_ask(check) for check in self._checks.values()))
        missing = {name: word for name, word in zip(self._checks, found, strict=True) if word is not None}
        return Readiness(not missing, missing)


class Ops:
    """The server of `ops_listen`."""

    def __init__(self, told: Told) -> None:
        self._server = HTTPServer(ops_pages(told), idle_connection_timeout=75, max_body_size=1024)
        self.ports: tuple[int, ...] = ()

    async def start(self, listen: str) -> None:
        """Accept connections. `ConfigError` for what is no address, `OSError` where it cannot be had."""
        host, port = parse_listen(listen, place="server.ops_listen")
        silence_tornado()
        sockets = bind(host, port)
        self._server.add_sockets(sockets)
        self.ports = tuple(sock.getsockname()[1] for sock in sockets)

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._server.stop()
        await self._server.close_all_connections()


def ops_pages(told: Told) -> Application:
    """`/metrics`, `/healthz`, `/readyz`."""
    return application(
        [
            ("/metrics", _Metrics, {"told": told}),
            ("/healthz", _Health),
            ("/readyz", _Ready, {"told": told}),
        ],
        default_handler_class=_Nothing,
    )


class _OpsPage(Page):
    def head(self, *args: str, **kwargs: str) -> Any:
        return self.get()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.answer(status_code, {"error": self._reason})

    def answer(self, status: int, value: object) -> None:
        self.set_status(status)
        self.set_header("content-type", _JSON)
        self.finish(msgspec.json.encode(value))


class _Metrics(_OpsPage):
    def initialize(self, told: Told) -> None:
        self._told = told

    async def get(self) -> None:
        page = await self._told.metrics()
        self.set_header("content-type", CONTENT_TYPE_PLAIN_0_0_4)
        self.finish(page)


class _Health(_OpsPage):
    def get(self) -> None:
        self.answer(200, {"status": "ok"})


class _Ready(_OpsPage):
    def initialize(self, told: Told) -> None:
        self._told = told

    async def get(self) -> None:
        found = await self._told.readiness()
        self.answer(200 if found.ready else 503, found)


class _Nothing(_OpsPage):
    def prepare(self) -> None:
        raise HTTPError(404)


async def _ask(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await check()
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is "not ready", and its kind is told
        return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
