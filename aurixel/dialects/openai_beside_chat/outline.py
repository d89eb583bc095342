"""What the OpenAI family's dialects beside chat share: requests with a prompt, event streams whose events have a `type`,
and what is priced by the piece.

A subclass says how its request is read and its reply metered. Nothing here knows a model or a price: what was used is
reported in tokens and in pieces, and the catalogue picks (docs/prices.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, TypeVar

import msgspec

from aurixel.dialects.bounds import guess_tokens
from aurixel.dialects.json_fields import Fields, read_bool, unpriced
from aurixel.dialects.openai_family import OpenAIFamily
from aurixel.dialects.patch import patched
from aurixel.dialects.readers import NOTHING, Counts, EventReader, check_text, error_event, invalid, nonzero, part_of
from aurixel.dialects.sse import COMMENT, Event
from aurixel.dialects.tiers import asked_tier
from aurixel.plugin.contracts import Body, Changes, ModelRules, ParsedRequest, StreamReader
from aurixel.values import Usage

T = TypeVar("T")


class OpenAIMedia(OpenAIFamily):
    """A dialect of the family but for `name`, `operation`, `parse_request` and the readers. The body is JSON unless
    `patch_request` is another's."""

    name: ClassVar[str]
    operation: ClassVar[str]

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`."""
        return patched(request.fields, changes, {}, limit_field="max_tokens")

    def estimate_input(self, request: ParsedRequest, rules: ModelRules) -> int:
        """See `Dialect`. There is no JSON of messages around the words, and tokens that came as numbers count as such."""
        return guess_tokens(msgspec.structs.replace(request.bound, messages=0), rules)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`. Nobody asks where no request streams."""
        raise NotImplementedError


def refuse_tiers(fields: Fields) -> None:
    """Refuses the fields of any operation that change its price, or what the upstream keeps."""
    if asked_tier(fields, "service_tier"):
        raise unpriced("service_tier", "This service tier")
    refuse_store(fields)


def refuse_store(fields: Fields) -> None:
    """Refuses what the upstream would keep."""
    if read_bool(fields, "store"):
        raise unpriced("store", "Storing the answer at the upstream")


def decode_reply(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """A whole reply through a typed decoder; `what` completes "the upstream's answer is no ..."."""
    check_text(body)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(f"is no {what}") from None


def used(tokens: Counts | None, guess: Mapping[str, int], pieces: Mapping[str, int]) -> Usage:
    """What was used: the tokens as reported, else as guessed, and the pieces (pictures, characters, seconds), which are
    known."""
    if tokens is None:
        return Usage(nonzero({**guess, **pieces}), measured=False, guessed=frozenset(guess))
    return Usage(nonzero({**tokens, **pieces}))


class _Head(msgspec.Struct, gc=False):
    type: str = ""
    error: msgspec.Raw = msgspec.Raw()


_HEAD: Final = msgspec.json.Decoder(_Head)


class TypedEvents(EventReader):
    """Reads an event stream whose events are objects with a `type`, and whose answer may be counted in pieces.

    A subclass has `_typed`, which looks at one event and calls `_report` and `_finish`, and says by `_guess` and `_pieces`
    what the first bytes of the output come to.
    """

    def _typed(self, kind: str, data: bytes) -> None:
        """One event; raise `invalid(...)` for what it cannot be."""
        raise NotImplementedError

    def _guess(self, output_bytes: int) -> Counts:
        """Output tokens, by class, for an answer whose tokens nobody reported."""
        raise NotImplementedError

    def _pieces(self, output_bytes: int) -> Mapping[str, int]:
        """What is known of the answer that is no tokens."""
        raise NotImplementedError

    def _event(self, event: bytes) -> bytes:
        parts = Event(event)
        out = event if parts.plain else parts.rebuilt()
        if not parts.data:
            return out if parts.only_comments else COMMENT
        if parts.name == b"error":
            raise error_event()
        if parts.data.startswith(b"[DONE]"):
            raise invalid("ended without its last event")
        head = self._decoded(_HEAD, parts.data)
        if head.type == "error" or bytes(head.error) not in NOTHING:
            raise error_event()
        self._typed(head.type, parts.data)
        return out

    def _decoded(self, decoder: msgspec.json.Decoder[T], data: bytes) -> T:
        """The data of an event through a typed decoder."""
        return decode_reply(decoder, data, "stream of this kind")

    def delivered(self, input_tokens: int, output_bytes: int) -> Usage:
        """See `StreamReader`."""
        pieces, counts = self._pieces(output_bytes), self._counts
        if counts is None or not self._counts_final:
            return used(None, {"input": input_tokens, **self._guess(output_bytes)}, pieces)
        if output_bytes < self._counted_at:
            part = part_of(counts, output_bytes, self._counted_at)
            return Usage(nonzero({**part, **pieces}), measured=False, guessed=frozenset(counts))
        return used(counts, {}, pieces)

    def _finish(self) -> None:
        super()._finish()
        if self.usage is not None:
            self.usage = self.estimate(0)


__all__ = ["OpenAIMedia", "TypedEvents", "decode_reply", "refuse_store", "refuse_tiers", "used"]
