"""The gateway's plain pages: the models, and the family-shaped no to every path that is nobody's.

Pages are asked for with the same keys as relays, but for webhooks. They hold no state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from tornado.web import Application, HTTPError

from aurixel.dialects import model_card, models_list
from aurixel.edge.connection import lowered
from aurixel.edge.handlers import Page, application
from aurixel.edge.request import Heads
from aurixel.edge.routes import Routes
from aurixel.edge.webhooks import WEBHOOKS, NoWebhooks, Webhook, WebhookDesk
from aurixel.errors import ClientError, GatewayError, RequestError
from aurixel.gateway.exchange import RequestHead, Service
from aurixel.plugin.contracts import ModelCard

Models = Callable[[], Sequence[ModelCard]]

_MODELS: Final = "/v1/models"


class Desk:
    """What every page is given."""

    def __init__(self, service: Service[Any], routes: Routes, heads: Heads, models: Models) -> None:
        self.service, self.routes, self.heads, self.models = service, routes, heads, models


def pages(
    service: Service[Any], routes: Routes, heads: Heads, models: Models, webhooks: WebhookDesk | None = None
) -> Application:
    """The application behind every path that is no relay route. `models` gives what the catalogue offers now."""
    desk = {"desk": Desk(service, routes, heads, models)}
    posted = {"webhooks": webhooks or NoWebhooks()}
    return application(
        [(_MODELS, _ModelList, desk), (_MODELS + "/.+", _Model, desk), (WEBHOOKS + "([a-z0-9_-]+)", Webhook, posted)],
        default_handler_class=_Nobody,
        default_handler_args=desk,
    )


class _GatewayPage(Page):
    """A page for key holders; it answers errors in the caller's family."""

    def initialize(self, desk: Desk) -> None:
        self.desk = desk
        request = self.request
        self.caller: RequestHead = desk.heads.read(
            str(request.method), str(request.uri), lowered(request.headers), str(request.remote_ip)
        )
        self._name()

    async def prepare(self) -> None:
        if self.request.method not in ("GET", "HEAD"):
            raise self.wrong_method()
        ticket = self.desk.service.admit(self._route(), self.caller)
        if isinstance(ticket, Awaitable):
            await ticket

    async def head(self, *args: str, **kwargs: str) -> None:
        await self.get()

    async def get(self) -> None:
        raise NotImplementedError

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Any error, in the caller's family."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError):
            error = (
                self.wrong_method() if error.status_code == 405 else ClientError("invalid_request", "The request is not valid.")
            )
        elif not isinstance(error, RequestError):
            error = GatewayError("internal_error", "An internal error happened.")
        reply = self.desk.service.render_error(self._route(), error, self.caller.request_id)
        self.set_status(reply.status)
        for name, value in reply.headers:
            self.set_header(name, value)
        self._name()
        self.finish(reply.body)

    def wrong_method(self) -> ClientError:
        """What a page says to a method that it has not."""
        return ClientError("method_not_allowed", "This path takes GET, HEAD.", headers=(("allow", "GET, HEAD"),))

    def answer(self, body: bytes) -> None:
        """A JSON reply."""
        self.set_header("content-type", "application/json")
        self.finish(body)

    @property
    def family(self) -> str:
        """The caller's."""
        return self.desk.routes.family_of(self.caller.headers)

    def _route(self) -> str:
        return self.desk.routes.speaker(self.caller.path, self.caller.headers)

    def _name(self) -> None:
        self.set_header("x-request-id", self.caller.request_id)
        self.set_header("request-id", self.caller.request_id)


class _ModelList(_GatewayPage):
    async def get(self) -> None:
        self.answer(models_list(self.family, self.desk.models(), self.caller.query))


class _Model(_GatewayPage):
    async def get(self) -> None:
        try:
            wanted = unquote_to_bytes(self.caller.path[len(_MODELS) + 1 :]).decode()
        except UnicodeDecodeError:
            wanted = ""
        for card in self.desk.models():
            if card.id == wanted:
                self.answer(model_card(self.family, card))
                return
        raise ClientError("model_not_found", "There is no such model.")


class _Nobody(_GatewayPage):
    async def prepare(self) -> None:
        raise self.wrong_method()

    def wrong_method(self) -> ClientError:
        return ClientError("not_found", f"There is nothing at this path. Supported: {self.desk.routes.told(self._route())}.")
