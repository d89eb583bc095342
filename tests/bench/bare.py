"""The bare relay everything is measured against: a stock Tornado handler, a stock aiohttp session (its default deadlines, and
no limit of connections) and uvloop; no key, no ledger, no meter.

Run as `python -m tests.bench.bare UPSTREAM_URL`: prints its port.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import aiohttp
import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class Relay(RequestHandler):
    """Sends the body on, and the answer back as it comes."""

    def initialize(self, session: aiohttp.ClientSession, upstream: str) -> None:
        """What the application passes in."""
        self._session, self._upstream = session, upstream

    async def post(self) -> None:
        """One request."""
        headers = {"content-type": "application/json", "content-length": str(len(self.request.body))}
        async with self._session.post(
            self._upstream + self.request.path, data=_once(self.request.body), headers=headers
        ) as reply:
            self.set_status(reply.status)
            self.set_header("content-type", reply.headers["content-type"])
            async for chunk in reply.content.iter_any():
                self.write(chunk)
                await self.flush()


async def _once(body: bytes):  # type: ignore[no-untyped-def]
    yield body


async def main(upstream: str) -> None:
    """Serve until killed."""
    logging.getLogger("tornado.access").disabled = True
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        app = Application([(r"/v1/.*", Relay, {"session": session, "upstream": upstream})])
        sockets = bind_sockets(0, "127.0.0.1", backlog=4096)
        server = HTTPServer(app, max_body_size=1 << 30)
        server.add_sockets(sockets)
        print(sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
