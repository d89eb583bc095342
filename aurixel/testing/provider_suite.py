"""The contract of a provider, as tests that its author runs.

    from aurixel.testing.provider_suite import ProviderSuite

    class TestMine(ProviderSuite):
        plugin = "mine"                                 # the entry point
        kind = "mine"
        settings = {"base_url": "https://mine.example/v1", "api_key": "k-secret"}
        secrets = ("k-secret",)

It promises that a provider which passes loads, keeps its secrets, is pure where it must be, and gives every upstream
answer a meaning. It cannot know whether the vendor really answers so: that takes tests of the plugin's own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import pytest

from aurixel.errors import PROVIDER_CODES, ConfigError, ProviderError
from aurixel.plugin.contracts import Attempt, Body, Changes, Classified, Dialect, OpensItself, Outgoing, Provider, ReadsKinds
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.testing.samples import sample_headers, sample_request
from aurixel.values import Usage

PATIENCE: Final = 10.0
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_GARBAGE: Final = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b'"text"',
    b'{"error": null}',
    b'{"error": "text"}',
    b'{"error": {"message": 1, "type": [], "code": {}}}',
    b'{"error": {"message": "text", "type": null, "code": 17}}',
    b'{"type": "error", "error": {"type": "x", "message": "text"}}',
    b"<html><body>502 Bad Gateway</body></html>",
    b"\xff\xfe\x00",
    b"[" * 60_000,
    b'{"error": {"message": "' + b"x" * 60_000,
)


class ProviderContract:
    """What every provider keeps to. Subclass one of the two suites at the end, not this."""

    plugin: ClassVar[str]
    kind: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]
    # Parts of `settings` that must show nowhere but in the headers of an outgoing request.
    secrets: ClassVar[Sequence[str]] = ()
    # Set it for a provider that changes the body: then the suite does not ask that it goes out as it came.
    rewrites_body: ClassVar[bool] = False
    # A model that a provider which opens itself answers.
    model: ClassVar[str] = "test-model"
    # (status, body) of upstream errors that are the client's fault and whose text it should see.
    client_faults: ClassVar[Sequence[tuple[int, bytes]]] = ()

    # --- what the tests use; override to make things differently -----------------------------------------------------

    def registry(self) -> Registry:
        """The plugin, loaded as the gateway loads it."""
        return Registry.load([self.plugin])

    def make(self, **more: Any) -> Provider:
        """An instance, built as the gateway builds it."""
        return self.registry().build_provider("test", self.kind, {**self.settings, **more}, PluginHost())

    def dialects(self) -> list[tuple[Dialect, str]]:
        """Each dialect the provider speaks, with the operation."""
        registry = self.registry()
        spoken = registry.providers[self.kind].dialects
        return [(registry.dialects[name], operation) for operation, names in spoken.items() for name in names]

    # --- loading -----------------------------------------------------------------------------------------------------

    def test_it_loads_and_is_the_plugins_own(self) -> None:
        """Loading checks hooks and classes: what is wrong with them is in the error."""
        registry = self.registry()
        assert self.kind in registry.providers, f"{self.plugin} brings no provider of kind {self.kind}"
        assert registry.owner("provider", self.kind) == self.plugin
        opens = isinstance(self.make(), OpensItself)
        suite = "OpeningProviderSuite" if opens else "ProviderSuite"
        assert opens == isinstance(self, OpeningProviderSuite), f"the suite for this provider is {suite}"

    def test_settings_it_does_not_know_are_refused(self) -> None:
        """A typing mistake must not pass for a setting."""
        with pytest.raises(ConfigError, match="no_such_setting_at_all"):
            self.make(no_such_setting_at_all=1)

    def test_faulty_settings_show_no_secret(self) -> None:
        """Not even where the settings themselves are wrong: here each gets a value no setting can have."""
        for name in self.settings:
            with_fault = {**self.settings, name: {"of no type": [object(), *self.secrets]}}
            with pytest.raises(ConfigError) as caught:
                self.registry().build_provider("test", self.kind, with_fault, PluginHost())
            assert not _shows(str(caught.value), self.secrets), f"the error about '{name}' shows a secret"

    # --- prepare -----------------------------------------------------------------------------------------------------

    def test_prepare_gives_something_that_can_be_sent(self) -> None:
        """For each dialect, streamed or not."""
        provider = self.make()
        for dialect, attempt, body in self._attempts():
            outgoing = provider.prepare(attempt, body)
            assert isinstance(outgoing, Outgoing), dialect.name
            assert outgoing.method == "POST"
            for name, value in outgoing.headers:
                assert _HEADER.fullmatch(name), f"{name!r} is no lower-case header name"
                assert isinstance(value, str), name
                assert re.fullmatch(r"[\t\x20-\x7e]*", value), f"the value of {name} is not printable ASCII"
            names = [name for name, _ in outgoing.headers]
            assert len(names) == len(set(names)), f"a header goes out twice: {sorted(names)}"
            assert not {"host", "content-length", "transfer-encoding", "connection"} & set(names), "those are the host's"
            assert all(isinstance(part, bytes) for part in _slices(outgoing))
            if not self.rewrites_body:
                assert b"".join(_slices(outgoing)) == b"".join(body), "the body changed: set rewrites_body if it must"

    def test_prepare_is_pure(self) -> None:
        """Asked the same it says the same, and it leaves alone what it was given."""
        provider = self.make()
        for _, attempt, body in self._attempts():
            before = list(body)
            first, second = provider.prepare(attempt, body), provider.prepare(attempt, body)
            assert (first.method, first.url, first.headers) == (second.method, second.url, second.headers)
            assert b"".join(_slices(first)) == b"".join(_slices(second))
            assert list(body) == before

    def test_secrets_are_in_headers_only(self) -> None:
        """An address ends up in logs; a `repr` too."""
        provider = self.make()
        assert not _shows(repr(provider), self.secrets)
        for _, attempt, body in self._attempts():
            outgoing = provider.prepare(attempt, body)
            assert not _shows(outgoing.url, self.secrets)
            assert not _shows(repr(outgoing), self.secrets)
            assert not any(secret.encode() in part for secret in self.secrets for part in _slices(outgoing))

    # --- classify ----------------------------------------------------------------------------------------------------

    def test_every_status_has_a_meaning(self) -> None:
        """Whatever the body is."""
        provider = self.make()
        for status in (*range(300, 309), *range(400, 432), 451, 499, *range(500, 531), 599):
            for body in _GARBAGE:
                self._check_classified(status, body, provider.classify(status, {}, body))

    def test_our_own_credentials_are_not_the_clients_fault(self) -> None:
        """A client must not be told that a key is wrong which is not its own."""
        provider = self.make()
        for status in (401, 402, 403):
            classified = provider.classify(status, {}, b'{"error": {"type": "x", "message": "bad key"}}')
            assert classified.action == "failover"
            assert classified.error.status >= 500

    def test_a_failing_upstream_is_left_for_another(self) -> None:
        """Before the first byte another one may answer."""
        provider = self.make()
        for status in (429, 500, 502, 503, 504):
            classified = provider.classify(status, {}, b"")
            assert classified.action == "failover", status

    def test_the_clients_fault_is_relayed_unless_it_shows_a_secret(self) -> None:
        """Only with `client_faults`."""
        provider = self.make()
        for status, body in self.client_faults:
            classified = provider.classify(status, {}, body)
            assert classified.action == "relay", f"{status} {body!r}"
            for secret in self.secrets:
                spoilt = body.replace(b'"message":', f'"message": "{secret}", "was":'.encode())
                assert spoilt != body, "a client fault needs a message for this test"
                assert provider.classify(status, {}, spoilt).action != "relay", "the text shows a secret"

    def _check_classified(self, status: int, body: bytes, classified: Classified) -> None:
        what = f"status {status}, body {body[:60]!r}"
        assert isinstance(classified, Classified), what
        assert classified.action in ("relay", "failover", "final"), what
        error = classified.error
        assert isinstance(error, ProviderError), what
        assert error.code in PROVIDER_CODES, what
        assert 400 <= error.status <= 599, what
        assert error.message, what
        assert not _shows(error.message, self.secrets), what
        if status >= 500 or status < 400:
            assert classified.action != "relay", f"{what}: not the client's fault"

    def _attempts(self, query: str = "") -> list[tuple[Dialect, Attempt, Body]]:
        attempts: list[tuple[Dialect, Attempt, Body]] = []
        for dialect, operation in self.dialects():
            for stream in (False, True):
                text = sample_request(dialect.name, self.model, stream=stream)
                attempt = Attempt(
                    operation=operation,
                    dialect=dialect.name,
                    model=self.model,
                    stream=stream,
                    query=query,
                    headers=(("user-agent", "suite"), ("accept-language", "en"), *sample_headers(dialect.name).items()),
                )
                attempts.append((dialect, attempt, (text[:10], text[10:])))
        return attempts


class ProviderSuite(ProviderContract):
    """For a provider of an upstream on the network.

    Subclass it, name the class `Test...`, and set at least `plugin`, `kind` and `settings`.
    """

    def test_the_address_and_the_type_of_the_body_are_said(self) -> None:
        """The host sends what it is told, and no more."""
        provider = self.make()
        for _, attempt, body in self._attempts():
            outgoing = provider.prepare(attempt, body)
            assert urlsplit(outgoing.url).scheme in ("http", "https")
            assert urlsplit(outgoing.url).hostname
            assert "content-type" in dict(outgoing.headers)

    def test_a_clients_query_does_not_go_out_unasked(self) -> None:
        """Pick what may (`pick_query`); the rest could be a key, or a way around a price."""
        provider = self.make()
        for _, attempt, body in self._attempts(query="key=of-the-client&tier=premium"):
            outgoing = provider.prepare(attempt, body)
            assert "of-the-client" not in outgoing.url
            assert "premium" not in outgoing.url

    def test_waits_are_passed_on(self) -> None:
        """So that a client is told when to come again."""
        assert self.make().classify(429, {"retry-after": "7"}, b"").error.retry_after == 7


class OpeningProviderSuite(ProviderContract):
    """For a provider that answers by itself (`open`): the same, and that its answers are what its dialects can read."""

    def test_open_answers_what_its_dialect_can_read(self) -> None:
        """Whole and streamed, with a usage."""
        provider = self.make()
        assert isinstance(provider, OpensItself)
        for dialect, operation in self.dialects():
            for stream in (False, True):
                asyncio.run(asyncio.wait_for(self._answer(provider, dialect, operation, stream), PATIENCE))

    def test_open_can_be_left_at_any_time(self) -> None:
        """The client is gone: what was begun ends at once."""
        provider = self.make()
        assert isinstance(provider, OpensItself)
        for _, attempt, body in self._attempts():
            asyncio.run(asyncio.wait_for(_leave(provider, provider.prepare(attempt, body)), PATIENCE))

    async def _answer(self, provider: Provider, dialect: Dialect, operation: str, stream: bool) -> None:
        assert isinstance(provider, OpensItself)
        asked = sample_request(dialect.name, "asked", stream=stream)
        request = dialect.parse_request(asked, sample_headers(dialect.name))
        field = provider.output_limit_field
        body = dialect.patch_request(request, Changes(model=self.model, output_limit_field=field))
        attempt = Attempt(operation=operation, dialect=dialect.name, model=self.model, stream=stream, query="", headers=())
        async with provider.open(provider.prepare(attempt, body)) as reply:
            assert reply.status == 200
            kind = reply.headers["content-type"].partition(";")[0]
            if not request.stream:
                assert kind in (request.replies or ("application/json",))
                usage = dialect.reply_reader(request, 1).read(await reply.read(1 << 20))
                assert _reported(usage) or operation == "moderation", "the reply has no usage"
                return
            reader = dialect.stream_reader(request)
            if request.replies:
                assert kind in request.replies or f"{kind.partition('/')[0]}/*" in request.replies
                if isinstance(reader, ReadsKinds):
                    reader.comes_as(kind)
            else:
                assert kind == "text/event-stream"
            async for chunk in reply.chunks():
                assert chunk, "a piece is never empty"
                reader.feed(chunk)
            reader.close()
            assert reader.done, "the stream ended without its last event"
            assert _reported(reader.estimate(1)) or not kind.startswith("text/"), "the stream has no usage"


def _reported(usage: Usage) -> bool:
    """Whether any of it is no estimate."""
    return any(usage.certain({name: 1}) for name in usage.counts)


def _shows(text: str, secrets: Sequence[str]) -> bool:
    return any(secret in text for secret in secrets)


async def _leave(provider: OpensItself, outgoing: Outgoing) -> None:
    before = asyncio.all_tasks()
    async with provider.open(outgoing) as reply:
        async for _ in reply.chunks():
            break
    assert asyncio.all_tasks() == before, "leaving the reply left a task behind"


def _slices(outgoing: Outgoing) -> Body:
    """The body, where none was given as a stream."""
    assert isinstance(outgoing.body, Sequence)
    return outgoing.body
