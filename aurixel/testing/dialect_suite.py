"""The contract of a dialect, as tests that its author runs.

    from aurixel.testing.dialect_suite import DialectSuite

    class TestMine(DialectSuite):
        plugin = "mine"
        name = "mine_chat"
        request = b'{"model": "m", ...}'            # one that does not stream
        stream_request = b'{"model": "m", "stream": true, ...}'
        reply = b'{...}'                            # what a sound upstream answers
        stream = b'data: {...}\\n\\n...'
        usage = Usage({"input": 7, "output": 3})    # what both report

It promises that a dialect which passes survives any cut and any garbage with a named error, changes nothing it was not
asked to change, and renders every error of Aurixel. Whether it reads all of its format takes golden files of its own.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec
import pytest

from aurixel.errors import (
    ClientError,
    CreditError,
    GatewayError,
    PolicyError,
    ProviderError,
    RequestError,
)
from aurixel.plugin.contracts import Changes, Dialect, ModelRules, ParsedRequest
from aurixel.registry import Registry
from aurixel.values import Usage

RULES: Final = ModelRules(context=100_000, max_output=10_000)
_GARBAGE: Final = (
    b"",
    b" ",
    b"null",
    b"[]",
    b'"x"',
    b"17",
    b"{}",
    b'{"model": 1}',
    b'{"model": null}',
    b'{"model": ""}',
    b'{"model": "m", "model": "n"}',
    b'{"model": "m", "x": NaN}',
    b'{"model": "\xff"}',
    b"[" * 100_000,
    b'{"model": "m", "x": ' + b'{"x":' * 5_000 + b"1" + b"}" * 5_001,
)


class DialectSuite:
    """Subclass it, name the class `Test...`, and set every attribute."""

    plugin: ClassVar[str]
    name: ClassVar[str]
    request: ClassVar[bytes]
    stream_request: ClassVar[bytes]
    reply: ClassVar[bytes]
    stream: ClassVar[bytes]
    usage: ClassVar[Usage]

    def make(self) -> Dialect:
        """The dialect, as the gateway has it; built-in ones need no plugin."""
        return Registry.load([self.plugin] if self.plugin else []).dialects[self.name]

    def _parsed(self, dialect: Dialect, body: bytes) -> ParsedRequest:
        return dialect.parse_request(body, {"content-type": "application/json"})

    # --- requests ----------------------------------------------------------------------------------------------------

    def test_requests_are_understood(self) -> None:
        """Model, stream, and sizes that make sense."""
        dialect = self.make()
        for body, stream in ((self.request, False), (self.stream_request, True)):
            request = self._parsed(dialect, body)
            assert request.dialect == self.name
            assert request.model == msgspec.json.decode(body)["model"]
            assert request.stream is stream
            assert request.choices >= 1
            bound = dialect.bound_input(request, RULES)
            assert 0 <= dialect.estimate_input(request, RULES) <= bound
            assert bound >= self.usage.counts.get("input", 0), "the bound is below what was used"
            shown = [
                name for name, raw in request.fields.items() if len(bytes(raw)) > 20 and bytes(raw).decode() in repr(request)
            ]
            assert not shown, f"a request's repr shows its content: {shown}"

    def test_a_patched_request_differs_in_what_was_asked_only(self) -> None:
        """Every other field is as it was written; patching twice is patching once."""
        dialect = self.make()
        for body in (self.request, self.stream_request):
            request = self._parsed(dialect, body)
            changes = Changes(model="other-model")
            patched = b"".join(dialect.patch_request(request, changes))
            before = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            after = msgspec.json.decode(patched, type=dict[str, msgspec.Raw])
            assert msgspec.json.decode(after.pop("model")) == "other-model"
            before.pop("model")
            changed = {name for name in before if bytes(before[name]) != bytes(after.get(name, msgspec.Raw()))}
            assert not changed - {"stream_options"}, f"the patch changed {changed}"
            again = dialect.patch_request(self._parsed(dialect, patched), changes)
            assert msgspec.json.decode(b"".join(again)) == msgspec.json.decode(patched)

    def test_garbage_is_the_clients_fault(self) -> None:
        """Any beginning of a sound request, and worse: `ClientError`, and nothing else."""
        dialect = self.make()
        for body in (*_GARBAGE, *(self.request[:cut] for cut in range(len(self.request.rstrip()) - 1))):
            with pytest.raises(ClientError):
                self._parsed(dialect, body)

    # --- replies -----------------------------------------------------------------------------------------------------

    def test_a_reply_is_metered(self) -> None:
        """Exactly."""
        dialect = self.make()
        assert dialect.reply_reader(self._parsed(dialect, self.request), 1).read(self.reply) == self.usage

    def test_half_a_reply_is_no_reply(self) -> None:
        """`ProviderError("upstream_invalid")`."""
        dialect = self.make()
        reader = dialect.reply_reader(self._parsed(dialect, self.request), 1)
        for cut in range(len(self.reply.rstrip()) - 1):
            with pytest.raises(ProviderError) as caught:
                reader.read(self.reply[:cut])
            assert caught.value.code == "upstream_invalid"

    def test_a_stream_is_the_same_however_it_is_cut(self) -> None:
        """In one piece, in two at every byte, and byte by byte."""
        dialect = self.make()
        whole = self._read(dialect, [self.stream])
        assert whole[1:] == (True, self.usage), "read in one piece"
        for cut in range(1, len(self.stream)):
            assert self._read(dialect, [self.stream[:cut], self.stream[cut:]]) == whole, f"cut at byte {cut}"
        assert self._read(dialect, [self.stream[at : at + 1] for at in range(len(self.stream))]) == whole

    def _read(self, dialect: Dialect, chunks: list[bytes]) -> tuple[bytes, bool, Usage | None]:
        reader = dialect.stream_reader(self._parsed(dialect, self.stream_request))
        out = b"".join([reader.feed(chunk) for chunk in chunks] + [reader.close()])
        return out, reader.done, reader.usage

    def test_a_stream_that_ends_early_has_died(self) -> None:
        """A clean end of the connection is no clean end of the stream. (How much of the end may be missing is the format's
        affair; the first half never is enough.)"""
        dialect = self.make()
        for cut in range(len(self.stream) // 2):
            reader = dialect.stream_reader(self._parsed(dialect, self.stream_request))
            reader.feed(self.stream[:cut])
            assert not reader.done, f"done after {cut} bytes"
            with pytest.raises(ProviderError) as caught:
                reader.close()
            assert caught.value.code == "upstream_died"
            estimate = reader.estimate(5)
            assert all(count >= 0 for count in estimate.counts.values())
            assert reader.delivered(5, reader.output_bytes) == estimate, "all that came is all that was delivered"
            none = reader.delivered(5, 0)
            assert all(count <= estimate.counts.get(name, 0) for name, count in none.counts.items()), "a part exceeds the whole"

    # --- errors ------------------------------------------------------------------------------------------------------

    def test_every_error_can_be_told(self) -> None:
        """As a reply, and in a stream that has begun."""
        dialect = self.make()
        for kind in (ClientError, PolicyError, CreditError, ProviderError, GatewayError):
            for code in kind.codes:
                error = kind(code, "Words for the caller.", retry_after=2, headers=(("x-own", "1"),))
                self._check_error(dialect, error)

    def _check_error(self, dialect: Dialect, error: RequestError) -> None:
        reply = dialect.encode_error(error, "req-suite")
        headers = dict(reply.headers)
        assert 400 <= reply.status <= 599, error.code
        assert headers["content-type"] == "application/json", error.code
        assert headers["x-own"] == "1", f"{error.code}: the error's own headers are missing"
        assert "req-suite" in headers.values(), f"{error.code}: the request id is missing"
        assert b"Words for the caller." in reply.body, error.code
        msgspec.json.decode(reply.body)
        event = dialect.encode_stream_error(error, "req-suite")
        assert b"Words for the caller." in event, error.code
        assert event.endswith((b"\n\n", b"\r\n\r\n")), f"{error.code}: an event ends with a blank line"
