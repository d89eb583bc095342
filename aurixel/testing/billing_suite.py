"""The contract of a billing backend with a payment page and webhooks, as tests that its author runs.

    from aurixel.testing.billing_suite import BillingSuite

    class TestMine(BillingSuite):
        plugin = "mine"                                        # the entry point
        name = "mine"
        settings = {"api_key": "k", "webhook_secret": "s"}
        needs = ("api_key", "webhook_secret")                  # without any of which it must not start
        secrets = ("k", "s")
        samples = [(b'{"paid": ...}', (Paid(...),)), ...]      # bodies of the processor, and what they mean
        personal = ("payer@example.com", "4242")               # what is in the samples and must go nowhere

        def sign(self, body):                                  # as the processor does
            return {"x-signature": ...}

It promises that a backend which passes tells a true webhook from a forged one, survives any body, keeps what is personal to
itself, and does not start without its secrets. What it asks of its processor is the plugin's own tests' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, get_args

import pytest

from aurixel.errors import ConfigError
from aurixel.plugin.billing import BillingBackend, CreditEvent, TakesPayment, WebhookInvalid
from aurixel.plugin.contracts import PluginSettings
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost

_EVENTS: Final = get_args(CreditEvent)
_GARBAGE: Final = (b"", b" ", b"null", b"[]", b'"x"', b"17", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 5000)
_WEIRD: Final[tuple[Any, ...]] = (None, True, -1, 1.5, 10**30, "", "x" * 600, [], [None], {}, {"a": 1})


class BillingSuite:
    """Subclass it, name the class `Test...`, set every attribute, and define `sign`."""

    plugin: ClassVar[str]
    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[Sequence[str]]
    secrets: ClassVar[Sequence[str]] = ()
    samples: ClassVar[Sequence[tuple[bytes, Sequence[CreditEvent]]]]
    personal: ClassVar[Sequence[str]] = ()

    def sign(self, body: bytes) -> Mapping[str, str]:
        """The headers by which the processor signs `body` now (where a `PluginHost`'s clock stands), by lower-case name."""
        raise NotImplementedError

    def registry(self) -> Registry:
        """The plugin, loaded as the gateway loads it."""
        return Registry.load([self.plugin])

    def build(self, settings: Mapping[str, Any], host: PluginHost | None = None) -> BillingBackend:
        """An instance, built as the gateway builds it."""
        return self.registry().build_backend(self.name, settings, host or PluginHost())

    def make(self) -> TakesPayment:
        """An instance with the settings above."""
        backend = self.build(self.settings)
        assert isinstance(backend, TakesPayment), f"{self.name} takes no payments"
        return backend

    # --- start ---------------------------------------------------------------------------------------------------------

    def test_it_loads_and_is_the_plugins_own(self) -> None:
        """Loading checks hooks and classes: what is wrong with them is in the error."""
        assert self.registry().owner("billing backend", self.name) == self.plugin

    def test_settings_it_does_not_know_are_refused(self) -> None:
        """A typing mistake must not pass for a setting."""
        with pytest.raises(ConfigError, match="no_such_setting_at_all"):
            self.build({**self.settings, "no_such_setting_at_all": 1})

    def test_no_secret_no_start(self) -> None:
        """Missing or empty: `ConfigError`, before anything is listened to."""
        for name in self.needs:
            without = {key: value for key, value in self.settings.items() if key != name}
            for settings in (without, {**without, name: ""}, {**without, name: " "}):
                with pytest.raises(ConfigError, match=r"\w"):
                    self.build(settings)

    def test_its_currencies_are_codes(self) -> None:
        """ISO 4217, in lower case; at least one."""
        currencies = self.make().currencies
        assert currencies
        assert all(len(code) == 3 and code.isascii() and code.isalpha() and code.islower() for code in currencies), currencies

    def test_settings_do_not_print_their_secrets(self) -> None:
        """Not even by mistake: secrets are `SecretStr` fields."""
        model = self.build(self.settings).Settings
        assert issubclass(model, PluginSettings)
        settings = model.model_validate(dict(self.settings))
        assert not [secret for secret in self.secrets if secret in f"{settings!r} {settings}"]

    # --- webhooks --------------------------------------------------------------------------------------------------------

    def test_a_signed_webhook_means_what_it_says(self) -> None:
        """However often it is read."""
        backend = self.make()
        for body, means in (*self.samples, *self.samples):
            assert tuple(backend.parse_webhook(body, self.sign(body))) == tuple(means)

    def test_a_forged_webhook_is_refused(self) -> None:
        """Unsigned, signed for another body, changed in any byte."""
        backend = self.make()
        bodies = [body for body, _ in self.samples]
        for body in bodies:
            headers = self.sign(body)
            self._refused(backend, body, {})
            self._refused(backend, body, dict.fromkeys(headers, ""))
            self._refused(backend, body, self.sign(body + b" "))
            for at in range(0, len(body), max(1, len(body) // 97)):
                self._refused(backend, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], headers)

    def test_a_part_of_a_signature_is_none(self) -> None:
        """Each of the headers, cut anywhere."""
        backend = self.make()
        body, _ = self.samples[0]
        for name, value in self.sign(body).items():
            for cut in range(len(value)):
                self._refused(backend, body, {**self.sign(body), name: value[:cut]})

    def test_any_body_is_survived(self) -> None:
        """Signed garbage, a sample cut anywhere, a field of any other type: `WebhookInvalid`, or sound events."""
        backend = self.make()
        for body in _GARBAGE:
            self._survived(backend, body)
        for body, _ in self.samples:
            for cut in range(0, len(body), max(1, len(body) // 97)):
                self._survived(backend, body[:cut])
            for changed in _changed(body):
                self._survived(backend, changed)

    def test_what_is_personal_stays_behind(self) -> None:
        """Events hold ids, states and amounts."""
        backend = self.make()
        inside = b"".join(body for body, _ in self.samples)
        assert all(word.encode() in inside for word in self.personal), "`personal` names what is in the samples"
        for body, _ in self.samples:
            events = backend.parse_webhook(body, self.sign(body))
            assert not [word for word in self.personal if word in repr(events)]

    def _refused(self, backend: TakesPayment, body: bytes, headers: Mapping[str, str]) -> None:
        with pytest.raises(WebhookInvalid) as caught:
            backend.parse_webhook(body, headers)
        self._check_refusal(caught.value)

    def _survived(self, backend: TakesPayment, body: bytes) -> None:
        try:
            headers = self.sign(body)
        except UnicodeDecodeError:
            return  # the author's way of signing takes text only
        try:
            events = backend.parse_webhook(body, headers)
        except WebhookInvalid as error:
            self._check_refusal(error)
            return
        for event in events:
            assert isinstance(event, _EVENTS), f"{event!r} is no event"
            for name in ("order", "payment", "dispute", "key", "currency"):
                text = getattr(event, name, "x")
                assert isinstance(text, str), f"{name} of {event!r}"
                assert text, f"{name} of {event!r}"
            for name in ("amount", "total"):
                number = getattr(event, name, 0)
                assert type(number) is int, f"{name} of {event!r}"
                assert number >= 0, f"{name} of {event!r}"

    def _check_refusal(self, error: WebhookInvalid) -> None:
        assert error.code.isidentifier(), f"{error.code!r} is no short word"
        assert len(error.code) <= 40, f"{error.code!r} is no short word"
        assert not [word for word in (*self.personal, *self.secrets) if word in str(error)]


def _changed(body: bytes) -> Iterator[bytes]:
    """Of a JSON object, each field at any depth missing or of another type; nothing for other bodies."""
    try:
        value = json.loads(body)
    except ValueError:
        return
    for path in _paths(value):
        for weird in ("missing", *_WEIRD):
            copied = json.loads(body)
            at = copied
            for step in path[:-1]:
                at = at[step]
            if weird == "missing":
                del at[path[-1]]
            else:
                at[path[-1]] = weird
            yield json.dumps(copied).encode()


def _paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from _paths(inner, (*path, name))
