"""`POST /webhooks/NAME`: what a payment processor posts goes to its backend as it came, and its word is the answer.

No key is asked: the backend proves who speaks. Nothing of a body is kept, logged or answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from tornado.web import HTTPError

from aurixel.edge.connection import lowered
from aurixel.edge.handlers import Page

WEBHOOKS: Final = "/webhooks/"


class WebhookAnswer(Protocol):
    """A status, a short stable word, and after how many seconds to send it again."""

    @property
    def status(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def retry_after(self) -> float | None: ...


class WebhookDesk(Protocol):
    """Who takes webhooks in (`payments.Webhooks`)."""

    def knows(self, name: str) -> bool:
        """Whether there is a backend of this name that has webhooks."""

    async def take(self, name: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Take in what was posted; `headers` by lower-case name."""


class NoWebhooks:
    """Where no backend takes payments."""

    def knows(self, name: str) -> bool:
        """None."""
        del name
        return False

    async def take(self, name: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Never asked."""
        raise NotImplementedError


class Webhook(Page):
    """The page of one backend."""

    def initialize(self, webhooks: WebhookDesk) -> None:
        """Given the desk."""
        self._webhooks = webhooks

    def prepare(self) -> None:
        """404 for a backend that is not there, before the method is looked at."""
        if not self._webhooks.knows(self.path_args[0]):
            raise HTTPError(404)
        if self.request.method != "POST":
            raise HTTPError(405)

    async def post(self, name: str) -> None:
        """The backend's word on the bytes."""
        answer = await self._webhooks.take(name, self.request.body, lowered(self.request.headers))
        if answer.retry_after is not None:
            self.set_header("retry-after", f"{answer.retry_after:.0f}")
        self._say(answer.status, answer.code)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """In the same shape. Tornado refuses a method that it does not know before `prepare`."""
        if status_code == 405 and not self._webhooks.knows(self.request.path.removeprefix(WEBHOOKS)):
            status_code = 404
        if status_code == 405:
            self.set_header("allow", "POST")
        codes = {404: "not_found", 405: "method_not_allowed", 500: "internal_error"}
        self._say(status_code, codes.get(status_code, "invalid_request"))

    def _say(self, status: int, code: str) -> None:
        self.set_status(status)
        self.set_header("content-type", "application/json")
        self.finish(msgspec.json.encode({"result": code} if status == 200 else {"error": {"code": code}}))
