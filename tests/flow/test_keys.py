"""Pitfall 22 and the limits of keys, through the whole gateway: nothing is served without a key, whatever is sent as one; a
revocation is seen within two seconds; every limit is enforced in the caller's family, and let go at every ending."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurixel.accounts.credentials import revoke_key
from aurixel.app import ROUTES
from aurixel.keys import MAX_TTL
from aurixel.storage import Store
from aurixel.testing import scripted
from aurixel.testing.scripted import Step
from tests.edge.door import Reply
from tests.flow.shared import CHAT, MESSAGES, Family, House, Visit, good, refused, sharing, visiting
from tests.flow.test_endings import FAMILIES

pytestmark = pytest.mark.deadline(20)


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    times = "first_byte_timeout = 1.0\nidle_timeout = 1.0\n"
    async with sharing(tmp_path_factory.mktemp("keys"), block=times) as shared:
        yield shared


@pytest.fixture
async def visit(house: House) -> AsyncIterator[Visit]:
    async with visiting(house) as visit:
        yield visit


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


def by_path(path: str) -> Family:
    return Family("anthropic" if path.startswith(MESSAGES) else "openai")


# --- no key, no service -------------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
PATHS = (
    "/",
    "/v1",
    "/v1/models",
    "/v1/models/gpt-test",
    "/v1/models/no-such-model",
    "/v1/unknown",
    "/v1/embeddings",
    "/v1/files/file-1/content",
    "/metrics",
    "/healthz",
    "/readyz",
    "/admin",
    "/.env",
    "/v1/chat/completions/../../models",
    CHAT + "/",
    CHAT.upper(),
    MESSAGES + "/count_tokens",
    "/webhooks/nobody",  # asks for no key; what is posted there is proved by its signature (tests/payments/test_webhooks.py)
)


async def test_without_credentials_nothing_is_served(visit: Visit) -> None:
    """Every route there is, by every method, and what is no route. Where a key would be asked for it is 401."""
    relays = {path for _, path in ROUTES}
    pages = {"/v1/models", "/v1/models/gpt-test", "/v1/models/no-such-model"}
    rules = [rule.matcher.regex.pattern for rule in visit.gw.app._edge.pages.wildcard_router.rules]  # type: ignore[attr-defined]
    assert len(rules) == 3, "a page was added: it belongs on this walk"
    wire = await visit.connect()
    seen: Counter[int] = Counter()
    for path in (*PATHS, *sorted(relays)):
        for method in METHODS:
            for headers in (
                "",
                "authorization: Bearer \r\n",
                "authorization: Basic dTpw\r\n",
                "anthropic-version: 2023-06-01\r\n",
            ):
                wire.send(f"{method} {path} HTTP/1.1\r\nhost: gateway\r\n{headers}content-length: 0\r\n\r\n")
                reply = await wire.reply(head_only=method == "HEAD")
                seen[reply.status] += 1
                if path in relays:
                    served = method == "POST"
                elif path in pages:
                    served = method in ("GET", "HEAD")
                else:
                    assert reply.status == 404, (method, path)
                    continue
                assert reply.status == (401 if served else 405), (method, path)
                if served and method != "HEAD":
                    told = Family("anthropic") if path in pages and "anthropic" in headers else by_path(path)
                    refused(reply, told, 401, "missing_key")
    assert set(seen) == {401, 404, 405}
    assert visit.up.requests == []


INJECTED = (
    "' OR '1'='1",
    "ax-000000000000-x' UNION SELECT * FROM keys--",
    "'; DROP TABLE accounts; --",
    '{"$ne": null}',
    '{"$gt": ""}',
    "[$regex]=.*",
    "ax-............-................................aaaaaa",
    "%00",
    "\xe9\xff",
    "ax-" + "a" * 12 + "-" + "b" * 32 + "\x80" * 6,
    "../../etc/passwd",
    "${jndi:ldap://127.0.0.1/x}",
    "a,b",
    "Bearer Bearer",
    "x" * 20_000,
    "\t\t",
)


class Asked:
    """Counts the look-ups of keys."""

    def __init__(self, store: Store) -> None:
        self.ids: list[str] = []
        self._read = store.key_read

    async def __call__(self, id: str) -> Any:
        self.ids.append(id)
        return await self._read(id)


@pytest.mark.parametrize("door", ["authorization: Bearer ", "x-api-key: ", "authorization: ", "authorization: bearer   "])
async def test_whatever_is_sent_as_a_key_is_never_looked_up(
    visit: Visit, family: Family, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(visit.gw.store)
    monkeypatch.setattr(visit.gw.store, "key_read", asked)
    wire = await visit.connect()
    for value in INJECTED:
        wire.send(f"POST {family.path} HTTP/1.1\r\nhost: gateway\r\n{door}{value}\r\ncontent-length: 2\r\n\r\n{{}}")
        reply = await wire.reply()
        code = reply.json["error"]["code"] if family.openai else reply.json["error"]["details"]["error_code"]
        if family.openai:
            assert code == "invalid_api_key"
        refused(reply, family, 401, "invalid_key" if family.openai else code)
        assert code in ("invalid_api_key", "invalid_key", "missing_key")
    assert asked.ids == []
    for value in ("a\x00b", "a\x0bb", "a\rb", "a\x7fb"):  # no header value at all
        wire = await visit.connect()
        wire.send(f"POST {family.path} HTTP/1.1\r\nhost: gateway\r\n{door}{value}\r\ncontent-length: 2\r\n\r\n{{}}")
        assert (await wire.reply()).status in (400, 401)
    wire = await visit.connect()
    wire.send(f"POST {family.path} HTTP/1.1\r\nhost: gateway\r\n{door}{'x' * 40_000}\r\ncontent-length: 2\r\n\r\n{{}}")
    assert (await wire.reply()).status == 431
    assert asked.ids == []
    assert visit.up.requests == []


async def test_either_header_on_either_family_and_the_api_key_counts(visit: Visit, family: Family) -> None:
    good(visit.up, family)
    caller = await visit.caller()
    body = json.dumps(family.body)

    async def ask(*headers: str) -> Reply:
        lines = "".join(f"{header}\r\n" for header in headers)
        text = f"POST {family.path} HTTP/1.1\r\nhost: gateway\r\n{lines}content-length: {len(body)}\r\n\r\n{body}"
        return await visit.ask(text.encode())

    assert (await ask(f"x-api-key: {caller.key}")).status == 200
    assert (await ask(f"authorization: bearer {caller.key}")).status == 200
    assert (await ask(f"x-api-key: {caller.key}", "authorization: Bearer nonsense")).status == 200
    refused(await ask(f"authorization: Bearer {caller.key}", "x-api-key: nonsense"), family, 401, "invalid_key")
    refused(await ask(f"x-api-key: {caller.key}", f"x-api-key: {caller.key}"), family, 401, "invalid_key")


# --- revoked, expired -------------------------------------------------------------------------------------------


async def test_a_revocation_is_seen_within_two_seconds(visit: Visit, family: Family) -> None:
    assert MAX_TTL <= 2
    caller = await visit.caller()
    good(visit.up, family)
    assert (await caller.ask(family)).status == 200
    gate = asyncio.Event()
    events = family.events(family.usage())
    visit.up.once(
        scripted.head(200, [("content-type", "text/event-stream"), ("content-length", str(sum(map(len, events))))]),
        scripted.send(events[0]),
        scripted.wait(gate),
        scripted.send(*events[1:]),
    )
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": True}))
    await visit.up.received(2)
    assert await revoke_key(visit.gw.store, visit.gw.clock, caller.email, caller.key.split("-")[1])
    visit.clock.ahead += 2
    refused(await caller.ask(family), family, 401, "key_revoked")
    gate.set()  # what was admitted before goes on
    reply = await wire.reply()
    assert reply.status == 200
    assert not family.failed(reply.body)
    assert {record.cell for record in await caller.records(2)} == {"ok"}
    assert len(visit.up.requests) == 2


async def test_a_key_expires_to_the_millisecond_it_says(visit: Visit, family: Family) -> None:
    good(visit.up, family)
    caller = await visit.caller(expires_ms=visit.clock.wall_ms() + 900_000)
    assert (await caller.ask(family)).status == 200
    cached = visit.gw.app._edge.service._auth._keys  # type: ignore[attr-defined]
    entry = cached._good[caller.key.split("-")[1]]
    assert entry.until <= visit.clock.boot() + MAX_TTL
    short = await visit.caller(expires_ms=visit.clock.wall_ms() + 1000)
    assert (await short.ask(family)).status == 200
    visit.clock.ahead += 1  # within the time that a key is believed
    refused(await short.ask(family), family, 401, "key_expired")
    assert (await caller.ask(family)).status == 200


# --- limits -------------------------------------------------------------------------------------------------------


async def test_a_key_for_some_models(visit: Visit, family: Family) -> None:
    good(visit.up, family)
    mine = family.body["model"]
    caller = await visit.caller(limits={"models": [mine, "no-such-model"]})
    assert (await caller.ask(family)).status == 200
    refused(await caller.ask(family, model="no-such-model"), family, 404, "model_not_found")
    other = await visit.caller(limits={"models": ["demo-echo"]})
    for stream in (False, True):
        refused(await other.ask(family, stream=stream), family, 403, "model_not_allowed")
    assert len(visit.up.requests) == 1
    assert await visit.gw.records(other.email) == []


async def test_a_key_for_some_addresses(visit: Visit, family: Family) -> None:
    good(visit.up, family)
    for networks, ok in ((["127.0.0.0/8"], True), (["::1", "127.0.0.1"], True), (["10.0.0.0/8", "::/0"], False)):
        caller = await visit.caller(limits={"ips": networks})
        for spoof in ([], ["X-Forwarded-For: 10.0.0.1"], ["Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1"]):
            reply = await caller.ask(family, *spoof)
            if ok:
                assert reply.status == 200
            else:
                refused(reply, family, 403, "ip_not_allowed")
    assert len(visit.up.requests) == 6


def limit_headers(reply: Reply, family: Family, what: str) -> tuple[int, int]:
    """Limit and what is left of it, in the family's own words; when it is all there again is said too."""
    if family.openai:
        assert reply[f"x-ratelimit-reset-{what}"].endswith("s")
        return int(reply[f"x-ratelimit-limit-{what}"]), int(reply[f"x-ratelimit-remaining-{what}"])
    assert reply[f"anthropic-ratelimit-{what}-reset"].endswith("Z")
    return int(reply[f"anthropic-ratelimit-{what}-limit"]), int(reply[f"anthropic-ratelimit-{what}-remaining"])


def waits(reply: Reply) -> int:
    seconds, milliseconds = int(reply["retry-after"]), int(reply["retry-after-ms"])
    assert (seconds - 1) * 1000 < milliseconds <= seconds * 1000
    return seconds


async def test_requests_a_minute(visit: Visit) -> None:
    callers = {name: await visit.caller(limits={"rpm": 2}) for name in FAMILIES}
    for name, caller in callers.items():
        family = Family(name)
        good(visit.up, family)
        for left in (1, 0):
            reply = await caller.ask(family)
            assert (reply.status, limit_headers(reply, family, "requests")) == (200, (2, left))
        good(visit.up, family, stream=True)
        for stream in (False, True):
            reply = await caller.ask(family, stream=stream)
            refused(reply, family, 429, "rate_limit_requests")
            assert limit_headers(reply, family, "requests") == (2, 0)
            assert 1 <= waits(reply) <= 61
            assert "x-should-retry" not in reply
        assert len(await caller.records(2)) == 2
    assert len(visit.up.requests) == 4
    visit.clock.ahead += 61
    for name, caller in callers.items():
        good(visit.up, Family(name))
        assert (await caller.ask(Family(name))).status == 200


async def test_tokens_a_minute(visit: Visit, family: Family) -> None:
    caller = await visit.caller(limits={"tpm": 2000})
    tight = {"max_completion_tokens": 100} if family.openai else {"max_tokens": 100}
    gate = asyncio.Event()
    visit.up.on("*", scripted.wait(gate), scripted.answer(json=family.reply(family.usage())))
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(caller.ask(family, **tight)) for _ in range(2)]
        await visit.up.received(2)
        reply = await caller.ask(family, **tight)  # a third such would be too much, if each used all it may
        refused(reply, family, 429, "rate_limit_tokens")
        limit, left = limit_headers(reply, family, "tokens")
        assert limit == 2000
        assert 0 <= left < 800
        assert 1 <= waits(reply) <= 61
        gate.set()
    for task in running:
        assert task.result().status == 200
    reply = await caller.ask(family, **tight)  # what was used in truth is little
    assert reply.status == 200
    assert limit_headers(reply, family, "tokens")[1] > 1000
    big = {"max_completion_tokens": 2001} if family.openai else {"max_tokens": 2001}
    reply = await caller.ask(family, **big)
    refused(reply, family, 429, "rate_limit_tokens")
    assert reply["x-should-retry"] == "false"
    assert "retry-after" not in reply
    assert len(visit.up.requests) == 3


def endings(family: Family, visit: Visit) -> dict[str, tuple[bool, list[Step], dict[str, Any]]]:
    """Every way a request can end: streamed or not, what the upstream does, what the client asks for beside."""
    events = family.events(family.usage())
    error = {"error": {"message": "no", "type": "invalid_request_error"}}
    empty = family.events(family.usage() | ({"completion_tokens": 0} if family.openai else {"output_tokens": 0}), text="")
    late = [scripted.event_stream(events, end=False), scripted.stall]
    return {
        "ok": (False, [scripted.answer(json=family.reply(family.usage()))], {}),
        "ok, streamed": (True, [scripted.event_stream(events)], {}),
        "ok, and the upstream does not close": (True, late, {}),
        "empty": (True, [scripted.event_stream(empty)], {}),
        "refused and relayed": (False, [scripted.answer(status=400, json=error)], {}),
        "refused": (True, [scripted.answer(status=500)], {}),
        "garbage": (False, [scripted.answer(body=b"garbage")], {}),
        "reset": (True, [scripted.send(b"HTTP/1.1 200"), scripted.reset], {}),
        "died": (True, [scripted.event_stream(events[:4], end=False), scripted.close], {}),
        "error event": (True, [scripted.event_stream([*events[:4], family.error_event()])], {}),
        "nonsense": (True, [scripted.event_stream([*events[:4], b"data: {\n\n"])], {}),
        "timeout before the first byte": (False, [scripted.stall], {}),
        "timeout in the stream": (True, [scripted.event_stream(events[:4], end=False), scripted.stall], {}),
        "more than the other family can": (False, [], {"model": "claude-test", "n": 2} if family.openai else UNTOLD),
        "no credit": (False, [], {"max_tokens": 2**31 - 1}),
        "no model": (False, [], {"model": "no-such-model"}),
        "no request": (False, [], {"messages": []}),
    }


# What no chat completion can be told of.
UNTOLD: dict[str, Any] = {
    "model": "gpt-test",
    "messages": [
        {"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}]}
    ],
}


class Finished:
    """Sees how often the check is told of each request's end."""

    def __init__(self, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: Counter[str] = Counter()
        (bound,) = visit.gw.app.checks
        self.check: Any = bound.check
        told = self.check.finished

        def finished(outcome: Any) -> None:
            self.told[outcome.request_id] += 1
            told(outcome)

        monkeypatch.setattr(self.check, "finished", finished)


async def test_a_place_is_given_back_at_every_ending(visit: Visit, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one request at a time, the next one is served at once, whatever became of the one before."""
    spy = Finished(visit, monkeypatch)

    async def one(stream: bool, script: list[Step], more: dict[str, Any]) -> None:
        caller = await visit.caller(limits={"concurrency": 1})
        async with asked:
            count = len(visit.up.requests)
            wire = await visit.connect()
            if script:
                visit.up.once(*script)
            wire.send(caller.post(family.path, {**family.body, "stream": stream, **more}))
            if script:
                await visit.up.received(count + 1)
        await wire.reply()
        async with asked:
            visit.up.once(scripted.answer(json=family.reply(family.usage())))
            wire.send(caller.post(family.path, family.body))
            assert (await wire.reply()).status == 200

    asked = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        for stream, script, more in endings(family, visit).values():
            group.create_task(one(stream, script, more))
    await visit.quiet()
    assert set(spy.told.values()) == {1}
    assert len(spy.told) == 17 * 2 - 2  # but for those that never came to a check
    assert spy.check._running == {}


@pytest.mark.parametrize("stage", ["before the first byte", "in the stream"])
async def test_a_place_is_given_back_by_a_client_that_leaves(
    visit: Visit, family: Family, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Finished(visit, monkeypatch)
    caller = await visit.caller(limits={"concurrency": 1})
    first = [scripted.event_stream(family.events(family.usage())[:4], end=False)] if stage == "in the stream" else []
    visit.up.on("*", *first, scripted.stall)
    wire = await visit.connect()
    wire.send(caller.post(family.path, {**family.body, "stream": True}))
    await visit.up.received()
    if first:
        await wire.reader.readuntil(b"Hello ")
    reply = await caller.ask(family)
    refused(reply, family, 429, "rate_limit_concurrency")
    assert waits(reply) == 1
    wire.reset()
    await visit.up.disconnected()
    await visit.quiet()
    good(visit.up, family)
    assert (await caller.ask(family)).status == 200
    assert set(spy.told.values()) == {1}
    assert spy.check._running == {}


async def test_a_key_has_only_so_many_requests_at_a_time(visit: Visit, family: Family) -> None:
    caller, other = await visit.caller(limits={"concurrency": 3}), await visit.caller()
    gate = asyncio.Event()
    visit.up.on("*", scripted.wait(gate), scripted.answer(json=family.reply(family.usage())))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caller.ask(family)) for _ in range(10)]
        more = group.create_task(other.ask(family))
        await visit.up.received(4)
        await visit.until(lambda: sum(task.done() for task in tasks) == 7)
        gate.set()
    assert Counter(task.result().status for task in tasks) == {200: 3, 429: 7}
    assert more.result().status == 200
    assert len(await caller.records(3)) == 3
