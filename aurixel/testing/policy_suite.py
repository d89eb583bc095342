"""The contract of a policy check, as tests that its author runs.

    from aurixel.testing.policy_suite import PolicySuite

    class TestMine(PolicySuite):
        plugin = "mine"                          # the entry point
        name = "mine"
        good_limits = {"rpm": 5}                 # a value each for the limits it enforces, as an operator writes them
        bad_limits = [("rpm", 0)]

It promises that a check which passes loads, answers in time with a sound verdict, and survives being told of the end
of requests it never saw. Whether its verdicts are the right ones is the plugin's own tests' business.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

import msgspec
import pytest

from aurixel.errors import ConfigError
from aurixel.plugin.contracts import Allow, Deny, PolicyCheck, Rewrite, Verdict, WatchesEnd
from aurixel.registry import Registry
from aurixel.testing.host import PluginHost
from aurixel.values import Outcome, Principal, RequestFacts, Usage

PATIENCE: Final = 10.0
FACTS: Final = RequestFacts(
    request_id="req-suite",
    operation="chat",
    dialect="openai_chat",
    model="some-model",
    stream=False,
    client_ip="192.0.2.7",
    at_ms=1_767_225_600_000,
    tokens=100,
)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_WEIRD: Final[tuple[Any, ...]] = (None, True, -1, 0, 1.5, "", "x" * 300, b"x", [], [None], [[]], {}, {"a": 1}, float("nan"))


class PolicySuite:
    """Subclass it, name the class `Test...`, and set at least `plugin` and `name`."""

    plugin: ClassVar[str]
    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    good_limits: ClassVar[Mapping[str, Any]] = {}
    bad_limits: ClassVar[Sequence[tuple[str, Any]]] = ()

    def registry(self) -> Registry:
        """The plugin, loaded as the gateway loads it."""
        return Registry.load([self.plugin])

    def make(self, host: PluginHost | None = None, **more: Any) -> PolicyCheck:
        """An instance, built as the gateway builds it."""
        return self.registry().build_check(self.name, {**self.settings, **more}, host or PluginHost())

    def principal(self, check: PolicyCheck) -> Principal:
        """A key with all of `good_limits`."""
        limits = {name: check.parse_limit(name, value) for name, value in self.good_limits.items()}
        return Principal("account@example.test", "key-id-1", limits)

    def test_it_loads_and_is_the_plugins_own(self) -> None:
        """Loading checks hooks and classes: what is wrong with them is in the error."""
        registry = self.registry()
        assert self.name in registry.checks, f"{self.plugin} brings no policy check named {self.name}"
        assert registry.owner("policy check", self.name) == self.plugin

    def test_settings_it_does_not_know_are_refused(self) -> None:
        """A typing mistake must not pass for a setting."""
        with pytest.raises(ConfigError, match="no_such_setting_at_all"):
            self.make(no_such_setting_at_all=1)

    def test_it_reads_the_limits_it_enforces(self) -> None:
        """Each has a good value here, and what was read once is read the same again."""
        check = self.make()
        assert set(self.good_limits) == set(check.enforces), "good_limits has a value for each limit in `enforces`"
        for name, value in self.good_limits.items():
            assert check.parse_limit(name, value) == check.parse_limit(name, value)

    def test_it_refuses_bad_limits_with_words(self) -> None:
        """`ValueError`, with a text for the operator; anything else would be a bug at the creation of a key."""
        check = self.make()
        weird = [(name, value) for name in check.enforces for value in _WEIRD]
        for name, value in self.bad_limits:
            with pytest.raises(ValueError, match=r"\w"):
                check.parse_limit(name, value)
        for name, value in weird:
            with suppress(ValueError):
                check.parse_limit(name, value)

    def test_its_verdicts_are_sound(self) -> None:
        """For a key with and without limits, for each family, whatever the address."""

        async def ask() -> None:
            check = self.make()
            number = 0
            for principal in (Principal("account@example.test", "key-id-0"), self.principal(check)):
                for dialect in ("openai_chat", "anthropic_messages"):
                    for address in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", ""):
                        number += 1
                        facts = _facts(f"req-{number}", dialect=dialect, client_ip=address)
                        self._check_verdict(await asyncio.wait_for(check.check(principal, facts), PATIENCE))

        asyncio.run(ask())

    def test_it_may_be_told_of_the_end_of_anything(self) -> None:
        """Of requests it never saw, twice of the same, with and without a usage."""

        async def tell() -> None:
            check = self.make()
            if not isinstance(check, WatchesEnd):
                return
            check.finished(Outcome(request_id="never-seen", ending="ok", usage=Usage({"input": 1})))
            await check.check(self.principal(check), _facts("seen"))
            for usage in (None, Usage({}), Usage({"input": 3, "output": 4, "tool_calls.web_search": 1})):
                check.finished(Outcome(request_id="seen", ending="refused", usage=usage))

        asyncio.run(tell())

    def test_many_at_once(self) -> None:
        """Two hundred checks in flight, each told of its end: no error, and the check still answers."""

        async def crowd() -> None:
            check = self.make()
            principal = self.principal(check)
            facts = [_facts(f"req-{number}") for number in range(200)]
            for verdict in await asyncio.wait_for(asyncio.gather(*(check.check(principal, each) for each in facts)), PATIENCE):
                self._check_verdict(verdict)
            if isinstance(check, WatchesEnd):
                for each in facts:
                    check.finished(Outcome(request_id=each.request_id, ending="ok", usage=Usage({"input": 1})))
            self._check_verdict(await check.check(principal, _facts("req-last")))

        asyncio.run(crowd())

    def _check_verdict(self, verdict: Verdict) -> None:
        assert isinstance(verdict, Allow | Deny | Rewrite), f"{verdict!r} is no verdict"
        for name, value in verdict.headers:
            assert _HEADER.fullmatch(name), f"{name!r} is no lower-case header name"
            assert re.fullmatch(r"[\x20-\x7e]*", value), f"the value of {name} is not printable ASCII"
        if isinstance(verdict, Deny):
            assert re.fullmatch(r"[a-z][a-z0-9_]*", verdict.code), verdict.code
            assert 400 <= verdict.status <= 599
            assert verdict.message
            assert "account@example.test" not in verdict.message, "a message names no account"
            assert verdict.retry_after is None or verdict.retry_after > 0
        if isinstance(verdict, Rewrite):
            assert verdict.model


def _facts(request_id: str, **changes: Any) -> RequestFacts:
    return msgspec.structs.replace(FACTS, request_id=request_id, **changes)
