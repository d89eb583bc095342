"""A whole gateway in the test's own loop: `async with running(...)` starts one on loopback and stops it.

The store is real, the sockets are real, the upstream is whatever the test configures. For a gateway in a process of its
own, to be killed, see `tests.flow.process`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aurixel.accounts import create_account, create_key, find_account, limits_parser
from aurixel.app import App
from aurixel.clock import SystemClock
from aurixel.config import Settings, load
from aurixel.ledger import Movements
from aurixel.storage import AccountDoc, Store, UsageRecord, open_store, usage_stream
from aurixel.values import parse_usd

SECRET = "flow-tests-0123456789-abcdefghij"

MODELS = """
[models."gpt-test"]
operations = ["chat"]
context = 128000
max_output = 4096
routes = [{ upstream = "up", model = "up-gpt" }]

[models."claude-test"]
operations = ["chat"]
context = 200000
max_output = 8192
routes = [{ upstream = "upa", model = "up-claude" }]

[models."unpriced-test"]
operations = ["chat"]
context = 8000
max_output = 1000
routes = [{ upstream = "up", model = "up-free" }]

[models."demo-echo"]
operations = ["chat"]
context = 8000
max_output = 1000
routes = [{ upstream = "demo", model = "demo-echo" }]
"""
PRICES = """
[[price]]
model = "gpt-test"
effective = 2025-01-01
input = "0.15"
cache_read = "0.075"
output = "0.60"

[[price]]
model = "claude-test"
effective = 2025-01-01
input = "3.00"
cache_read = "0.30"
cache_write_5m = "3.75"
cache_write_1h = "6.00"
output = "15.00"

[[price]]
model = "demo-echo"
effective = 2025-01-01
input = "1.00"
output = "2.00"
"""


def configure(
    folder: Path, *, store: str = "", upstreams: str = "", more: str = "", models: str = MODELS, prices: str = PRICES
) -> Path:
    """Write a configuration into `folder` and return its file. `upstreams` and `more` are TOML."""
    (folder / "models.toml").write_text(models)
    (folder / "prices.toml").write_text(prices)
    file = folder / "aurixel.toml"
    file.write_text(
        f"""
[server]
listen = "127.0.0.1:0"
ops_listen = "127.0.0.1:0"
drain_deadline = 5

[security]
secret = "{SECRET}"
allow_demo = true

[store]
url = "{store or f"sqlite:///{folder / 'aurixel.db'}"}"

[ledger]
journal = "{folder / "journal"}"

[plugins]
enabled = ["openai", "anthropic", "demo", "limits"]

[policy.limits]

[upstreams.demo]
provider = "demo"

{upstreams}
{more}
"""
    )
    return file


def upstream(name: str, provider: str, url: str) -> str:
    """The TOML of one upstream."""
    return f'[upstreams.{name}]\nprovider = "{provider}"\nbase_url = "{url}"\napi_key = "sk-upstream-{name}"\n'


async def grant(store: Store, email: str, usd: str) -> None:
    """Grant credit, as another process would."""
    profile = await find_account(store, email)
    movements = Movements(store, SystemClock())
    await movements.apply(profile.account, f"grant-{os.urandom(8).hex()}", "grant", parse_usd(usd), "test", "test")


@asynccontextmanager
async def beside(file: Path) -> AsyncIterator[Store]:
    """The store of that configuration, open beside whoever else has it."""
    store = open_store(load(file).store.url.reveal())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Running:
    """A started gateway, and the shortcuts a test takes through its rooms."""

    def __init__(self, app: App) -> None:
        self.app, self.store = app, app.store
        self.clock = SystemClock()

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        return self.app.settings

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.app.ports[0]}"

    @property
    def ops_url(self) -> str:
        """Where `/metrics` is."""
        return f"http://127.0.0.1:{self.app.ops_ports[0]}"

    async def key(
        self, email: str = "a@example.com", usd: str = "10.00", limits: Mapping[str, Any] | None = None, **more: Any
    ) -> str:
        """A key of an account that is made where it does not exist, with `usd` of credit granted (none for "")."""
        if await self.store.profile_find(email) is None:
            await create_account(self.store, self.clock, email)
        if usd:
            await self.grant(email, usd)
        issued = await create_key(
            self.store,
            self.clock,
            self.settings.security.secret,
            email,
            parse_limits=limits_parser([bound.check for bound in self.app.checks]),
            limits=limits,
            **more,
        )
        return issued.token.reveal()

    async def grant(self, email: str, usd: str) -> None:
        """Grant credit."""
        await grant(self.store, email, usd)

    async def account(self, email: str = "a@example.com") -> AccountDoc:
        """The account's document."""
        profile = await find_account(self.store, email)
        doc = await self.store.account_read(profile.account)
        assert doc is not None
        return doc

    async def records(self, email: str = "a@example.com") -> list[UsageRecord]:
        """Its usage records, posted so far, oldest first."""
        profile = await find_account(self.store, email)
        return [record async for record in usage_stream(self.store, profile.account)]

    async def settled(self, email: str = "a@example.com", count: int = 1) -> list[UsageRecord]:
        """Its records once there are `count` and no request holds anything; the deadline is the test's own."""
        while True:
            await self.app.ledger.flush()
            records = await self.records(email)
            if len(records) >= count and not self.app.ledger.totals().open:
                return records
            await asyncio.sleep(0)


OPENAI_BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "Say hello to the world"}]}
ANTHROPIC_BODY = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello"}]}


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[Running]:
    """A gateway by that configuration."""
    app = App(load(file))
    await app.start()
    try:
        yield Running(app)
    finally:
        await app.stop()
