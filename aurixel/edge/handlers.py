"""What every plain page of Tornado's has here: no log line about a client, no fingerprint, no cached copy."""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Any

from tornado.web import Application, HTTPError, RequestHandler

from aurixel.errors import RequestError

log = logging.getLogger(__name__)


class Page(RequestHandler):
    """A page. `RequestError` and Tornado's own `HTTPError` are answers; any other exception is a bug, logged by its place."""

    def set_default_headers(self) -> None:
        """No `Server`; nothing here may be kept by a cache."""
        self.clear_header("Server")
        self.set_header("cache-control", "no-store")

    def compute_etag(self) -> str | None:
        """None: hashing a page costs more than sending it."""
        return None

    def log_exception(self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Tornado's own line would show the path and the client."""
        if typ is None or isinstance(value, RequestError | HTTPError):
            return
        log.error("a page failed: %s at\n%s", typ.__name__, "".join(traceback.format_tb(tb)))


def application(pages: list[Any], **settings: Any) -> Application:
    """Pages without an access log."""
    return Application(pages, log_function=_no_log, **settings)


def _no_log(_: RequestHandler) -> None:
    return
