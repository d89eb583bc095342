"""The contract suites can fail: each breach of a contract is seen by the test that is there for it. And the built-in
dialects keep the contract that authors of dialects are held to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aurixel_demo import script, shapes

from aurixel.plugin import Allow, Classified, Deny, Outgoing, PluginSettings, ProviderError, Usage, classify_status
from aurixel.registry import Registry
from aurixel.testing.answers import openai_responses_events, openai_responses_reply, openai_responses_usage
from aurixel.testing.dialect_suite import DialectSuite
from aurixel.testing.host import PluginHost
from aurixel.testing.policy_suite import PolicySuite
from aurixel.testing.provider_suite import OpeningProviderSuite, ProviderSuite
from aurixel.testing.samples import sample_request

SECRET = "secret-0123456789"


# --- dialects ---------------------------------------------------------------------------------------------------------


def written(dialect: str, *, stream: bool) -> bytes:
    answer = script.write(
        sample_request(dialect, "m", stream=stream).replace(b"{", b'{"stream_options":{"include_usage":true},', 1)
    )
    return b"".join(shapes.events(dialect, answer, 1)) if stream else shapes.whole(dialect, answer, 1)


class TestChat(DialectSuite):
    plugin = ""
    name = "openai_chat"
    request = sample_request("openai_chat", "m", stream=False)
    stream_request = sample_request("openai_chat", "m", stream=True)
    reply = written("openai_chat", stream=False)
    stream = written("openai_chat", stream=True)
    usage = Usage({"input": 6, "output": 12})


class TestResponses(DialectSuite):
    plugin = ""
    name = "openai_responses"
    request = sample_request("openai_responses", "m", stream=False)
    stream_request = sample_request("openai_responses", "m", stream=True)
    reply = json.dumps(openai_responses_reply("Six words", openai_responses_usage(6, 12))).encode()
    stream = b"".join(openai_responses_events("Six words", openai_responses_usage(6, 12)))
    usage = Usage({"input": 6, "output": 12})


class TestMessages(DialectSuite):
    plugin = ""
    name = "anthropic_messages"
    request = sample_request("anthropic_messages", "m", stream=False)
    stream_request = sample_request("anthropic_messages", "m", stream=True)
    reply = written("anthropic_messages", stream=False)
    stream = written("anthropic_messages", stream=True)
    usage = Usage({"input": 6, "output": 12})


# --- providers --------------------------------------------------------------------------------------------------------


class Good:
    kind = "good"
    dialects = {"chat": ["openai_chat"]}  # noqa: RUF012
    output_limit_field = None

    class Settings(PluginSettings):
        secret: str = ""

    def __init__(self, settings: Any, host: Any) -> None:
        self.secret = settings.secret

    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        headers = (("content-type", "application/json"), ("x-secret", self.secret))
        return Outgoing(method="POST", url="https://vendor.example/chat", headers=headers, body=body)

    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        wait = float(headers["retry-after"]) if "retry-after" in headers else None
        return classify_status(status, wait=wait, relay=SECRET.encode() not in body)


def changed(outgoing: Outgoing, **fields: Any) -> Outgoing:
    kept = {name: getattr(outgoing, name) for name in ("method", "url", "headers", "body")}
    return Outgoing(**{**kept, **fields})


class Counting(Good):
    count = 0

    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        self.count += 1
        return changed(super().prepare(attempt, body), url=f"https://vendor.example/{self.count}")


class InTheUrl(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), url=f"https://vendor.example/?key={self.secret}")


class PassesQuery(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), url=f"https://vendor.example/?{attempt.query}")


class UpperCase(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), headers=(("Content-Type", "application/json"),))


class TwoLines(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), headers=(("content-type", "a\r\nb: c"),))


class SetsHost(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        outgoing = super().prepare(attempt, body)
        return changed(outgoing, headers=(*outgoing.headers, ("host", "other.example")))


class NoType(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), headers=())


class Rewrites(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), body=[b"{}"])


class Spends(Good):
    def prepare(self, attempt: Any, body: Any) -> Outgoing:
        return changed(super().prepare(attempt, body), body=[SECRET.encode(), *body])


class TripsOverGarbage(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        json.loads(body)["error"]["message"]
        return super().classify(status, headers, body)


class RelaysAll(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        return Classified("relay", ProviderError("upstream_refused", "no"))


class OddCode(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        return Classified("final", ProviderError("upstream_odd", "no", status=502))


class TellsBody(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        return Classified("final", ProviderError("upstream_refused", self.secret))


class RelaysSecrets(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        return classify_status(status, relay=True)


class ForgetsWaits(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        return classify_status(status)


class OursIsTheirs(Good):
    def classify(self, status: int, headers: Any, body: bytes) -> Classified:
        if status == 401:
            return Classified("final", ProviderError("upstream_refused", "no", status=401))
        return super().classify(status, headers, body)


class Given:
    status = 200

    def __init__(self, kind: str, pieces: list[bytes]) -> None:
        self.headers = {"content-type": kind}
        self.pieces = pieces

    async def chunks(self) -> Any:
        for piece in self.pieces:
            yield piece

    async def read(self, limit: int) -> bytes:
        return b"".join(self.pieces)


class Opens(Good):
    def answer(self, body: bytes) -> Given:
        answer = script.write(body)
        if answer.stream:
            return Given("text/event-stream", list(shapes.events("openai_chat", answer, 1)))
        return Given("application/json", [shapes.whole("openai_chat", answer, 1)])

    @asynccontextmanager
    async def open(self, outgoing: Outgoing) -> Any:
        yield self.answer(b"".join(outgoing.body))


class OpensWithoutUsage(Opens):
    def answer(self, body: bytes) -> Given:
        given = super().answer(body)
        return Given(given.headers["content-type"], [piece.replace(b'"usage"', b'"usages"') for piece in given.pieces])


class OpensWithoutEnd(Opens):
    def answer(self, body: bytes) -> Given:
        given = super().answer(body)
        return Given(given.headers["content-type"], given.pieces[: len(given.pieces) // 2] or given.pieces)


class OpensAndForgets(Opens):
    tasks: list[Any] = []  # noqa: RUF012

    @asynccontextmanager
    async def open(self, outgoing: Outgoing) -> Any:
        self.tasks.append(asyncio.create_task(asyncio.Event().wait()))
        yield self.answer(b"".join(outgoing.body))


class Suite:
    """Makes instances of a class without a distribution around it."""

    cls: type[Any]
    plugin = kind = "good"
    settings = {"secret": SECRET}  # noqa: RUF012
    secrets = (SECRET,)
    client_faults = ((400, b'{"error": {"message": "no"}}'),)

    def registry(self) -> Any:
        loaded = Registry.load([])
        cls = self.cls

        class Stub:
            providers = {"good": cls}  # noqa: RUF012
            dialects = loaded.dialects

            def owner(self, what: str, name: str) -> str:
                return "good"

            def build_provider(self, upstream: str, kind: str, settings: Any, host: Any) -> Any:
                return cls(cls.Settings(**settings), host)

        return Stub()


class HttpSuite(Suite, ProviderSuite):  # type: ignore[misc]
    pass


class OpenSuite(Suite, OpeningProviderSuite):  # type: ignore[misc]
    pass


PURE = "test_prepare_is_pure"
SENT = "test_prepare_gives_something_that_can_be_sent"
KEPT = "test_secrets_are_in_headers_only"
MEANING = "test_every_status_has_a_meaning"
OURS = "test_our_own_credentials_are_not_the_clients_fault"
RELAYED = "test_the_clients_fault_is_relayed_unless_it_shows_a_secret"
OPENED = "test_open_answers_what_its_dialect_can_read"

BREACHES: list[tuple[type[Any], type[Any], str]] = [
    (HttpSuite, Counting, PURE),
    (HttpSuite, InTheUrl, KEPT),
    (HttpSuite, Spends, KEPT),
    (HttpSuite, PassesQuery, "test_a_clients_query_does_not_go_out_unasked"),
    (HttpSuite, UpperCase, SENT),
    (HttpSuite, TwoLines, SENT),
    (HttpSuite, SetsHost, SENT),
    (HttpSuite, Rewrites, SENT),
    (HttpSuite, NoType, "test_the_address_and_the_type_of_the_body_are_said"),
    (HttpSuite, TripsOverGarbage, MEANING),
    (HttpSuite, RelaysAll, MEANING),
    (HttpSuite, OddCode, MEANING),
    (HttpSuite, TellsBody, MEANING),
    (HttpSuite, OursIsTheirs, OURS),
    (HttpSuite, RelaysAll, "test_a_failing_upstream_is_left_for_another"),
    (HttpSuite, OddCode, RELAYED),
    (HttpSuite, RelaysSecrets, RELAYED),
    (HttpSuite, ForgetsWaits, "test_waits_are_passed_on"),
    (HttpSuite, Opens, "test_it_loads_and_is_the_plugins_own"),
    (OpenSuite, Good, "test_it_loads_and_is_the_plugins_own"),
    (OpenSuite, OpensWithoutUsage, OPENED),
    (OpenSuite, OpensWithoutEnd, OPENED),
    (OpenSuite, OpensAndForgets, "test_open_can_be_left_at_any_time"),
]


def suite_of(kind: type[Any], cls: type[Any]) -> Any:
    suite = kind()
    suite.cls = cls
    return suite


def names_of(kind: type[Any]) -> Iterator[str]:
    return (name for name in dir(kind) if name.startswith("test_"))


@pytest.mark.parametrize(("kind", "cls", "test"), BREACHES)
def test_a_breach_is_seen(kind: type[Any], cls: type[Any], test: str) -> None:
    OpensAndForgets.tasks.clear()
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(suite_of(kind, cls), test)()


@pytest.mark.parametrize(("kind", "cls"), [(HttpSuite, Good), (OpenSuite, Opens)])
def test_what_keeps_the_contract_passes(kind: type[Any], cls: type[Any]) -> None:
    for test in names_of(kind):
        if "settings" not in test:  # those are about the registry, which is not in play here
            getattr(suite_of(kind, cls), test)()


# --- policy checks ----------------------------------------------------------------------------------------------------


class Yes:
    name = "yes"
    enforces = frozenset({"height"})
    Settings = PluginSettings
    verdict: Any = Allow((("x-height", "5"),))

    def parse_limit(self, name: str, value: Any) -> Any:
        if not isinstance(value, int) or value < 1:
            raise ValueError("a height is a positive number")
        return value

    async def check(self, principal: Any, facts: Any) -> Any:
        return self.verdict

    def finished(self, outcome: Any) -> None: ...


class TripsOverTheUnknown(Yes):
    def finished(self, outcome: Any) -> None:
        raise KeyError(outcome.request_id)


class TakesAll(Yes):
    def parse_limit(self, name: str, value: Any) -> Any:
        return value


class RaisesOddly(Yes):
    def parse_limit(self, name: str, value: Any) -> Any:
        return value + 1


class PolicyStub(PolicySuite):
    plugin = name = "yes"
    good_limits = {"height": 5}  # noqa: RUF012
    bad_limits = (("height", 0),)
    cls: type[Any] = Yes

    def make(self, host: PluginHost | None = None, **more: Any) -> Any:
        return self.cls()


SOUND = "test_its_verdicts_are_sound"
VERDICTS = {
    "no verdict": (None, SOUND),
    "true": (True, SOUND),
    "header": (Allow((("X-Height", "5"),)), SOUND),
    "value": (Allow((("x-height", "a\r\nb"),)), SOUND),
    "status": (Deny(code="no", message="No.", status=200), SOUND),
    "code": (Deny(code="No Way", message="No."), SOUND),
    "silent": (Deny(code="no", message=""), SOUND),
    "names the account": (Deny(code="no", message="account@example.test may not"), SOUND),
    "wait": (Deny(code="no", message="No.", retry_after=-1), SOUND),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_an_unsound_verdict_is_seen(case: str) -> None:
    verdict, test = VERDICTS[case]
    suite = PolicyStub()
    suite.cls = type("Verdict", (Yes,), {"verdict": verdict})
    with pytest.raises((AssertionError, AttributeError)):
        getattr(suite, test)()


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (TripsOverTheUnknown, "test_it_may_be_told_of_the_end_of_anything"),
        (TakesAll, "test_it_refuses_bad_limits_with_words"),
        (RaisesOddly, "test_it_refuses_bad_limits_with_words"),
        (type("More", (Yes,), {"enforces": frozenset({"height", "width"})}), "test_it_reads_the_limits_it_enforces"),
    ],
)
def test_a_breach_of_a_check_is_seen(cls: type[Any], test: str) -> None:
    suite = PolicyStub()
    suite.cls = cls
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(suite, test)()


def test_a_sound_check_passes() -> None:
    for test in names_of(PolicyStub):
        if "settings" not in test and "loads" not in test:
            getattr(PolicyStub(), test)()
