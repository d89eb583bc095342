"""Calls to Stripe: each with a deadline and its own connection, which is closed when it is over. Errors never quote replies.

The official library asks; its own objects end here. Three things of it are global and turned off: its telemetry (which
also writes a file into the home folder), its log (paths at INFO, bodies at DEBUG), and, as an error at start because only
whoever set it can unset it, `STRIPE_LOG`, which prints bodies to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import stripe

from aurixel.plugin import BillingError, ConfigError
from aurixel_stripe.settings import StripeSettings

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]

# The most that is listed for one question: beyond it the answer would not be whole, and says so.
MOST: Final = 20_000
PAGE: Final = 100
_WORD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")


class _Http(stripe.AIOHTTPClient):
    """The library's own, but that it closes a reply which is cut or given up, and that a cut one is worth another try."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request; `APIConnectionError` unless its whole answer came."""
        try:
            async with self._session.request(method, url, headers=headers, data=post_data) as reply:
                return await reply.read(), reply.status, reply.headers
        except Exception as error:  # noqa: BLE001 - whatever the HTTP client raises
            self._handle_request_error(error)


class Api:
    """One Stripe account, asked with one key."""

    def __init__(self, settings: StripeSettings) -> None:
        if os.environ.get("STRIPE_LOG"):
            text = "STRIPE_LOG is set: Stripe's library would print payment data to stderr"
            raise ConfigError(text, place="[payments.stripe]", mend="unset it")
        stripe.enable_telemetry = False
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._key = settings.api_key.get_secret_value()
        self._base, self._account = settings.api_base, settings.account
        self._timeout, self._retries = settings.timeout, settings.retries

    async def ask(self, call: Callable[[stripe.StripeClient], Awaitable[stripe.StripeObject]], type: type[T]) -> T:
        """What Stripe answers, as far as `type` reads it; `BillingError`."""
        async with self._asking() as client, asyncio.timeout(self._timeout):
            return msgspec.convert((await call(client)).to_dict(), type)

    async def walk(
        self,
        lists: Callable[[stripe.StripeClient], Callable[[Any], Awaitable[Any]]],
        query: Json,
        read: Callable[[Json], Iterable[T]],
    ) -> Sequence[T]:
        """What `read` finds in each object of a list, page by page; `BillingError`, also for a list of more than `MOST`."""
        found: list[T] = []
        query, seen = {**query, "limit": PAGE}, 0
        async with self._asking() as client:
            while True:
                async with asyncio.timeout(self._timeout):
                    got = await lists(client)(query)
                for item in got.data:
                    found += read(item.to_dict())
                    seen, query["starting_after"] = seen + 1, item.id
                if not got.has_more or not got.data:
                    return found
                if seen >= MOST:
                    raise BillingError(f"Stripe has more than {MOST} objects of that time: ask for a later one", again=False)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[stripe.StripeClient]:
        # No timeout of the HTTP client's: ours covers the library's waits between its tries as well.
        http = _Http(timeout=None)
        client = stripe.StripeClient(
            self._key,
            stripe_account=self._account,
            stripe_version=stripe.api_version,
            base_addresses={"api": self._base},
            max_network_retries=self._retries,
            http_client=http,
        )
        try:
            yield client
        except BillingError:
            raise
        except stripe.StripeError as error:
            raise refusal(error) from None
        except TimeoutError:
            raise BillingError(f"Stripe gave no answer within {self._timeout:g} s", again=True) from None
        except Exception as error:  # noqa: BLE001 - over an odd answer the library trips in its own ways
            raise BillingError(f"Stripe's answer cannot be read ({type(error).__name__})", again=True) from None
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]


def refusal(error: stripe.StripeError) -> BillingError:
    """The library's error in our words: of what Stripe wrote, only its machine-readable names."""
    status = error.http_status
    if isinstance(error, stripe.APIConnectionError) or status is None:
        return BillingError("Stripe cannot be reached", again=True)
    names = (error.code, getattr(error.error, "type", None), getattr(error, "param", None), error.request_id)
    said = [name for name in names if isinstance(name, str) and _WORD.fullmatch(name)]
    text = f"Stripe answered {status}" + (f" ({', '.join(said)})" if said else "")
    if status in (401, 403):
        text += ": the API key is wrong, or lacks a right that the plugin's README names"
    # A status below 400 came with a body that is none: it may well have happened.
    return BillingError(text, again=status < 400 or status in (409, 429) or status >= 500)
