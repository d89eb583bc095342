"""What the readers of both families share: bounded counts, lengths of text, and the outline of a stream reader.

Numbers from an upstream that cannot be true are refused with `ProviderError("upstream_invalid")`, never mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

import msgspec

from aurixel.dialects.depth import too_deep
from aurixel.dialects.sse import Event, EventSplitter, completed
from aurixel.dialects.tiers import tier_of
from aurixel.errors import ProviderError
from aurixel.values import NO_COUNTS, Usage

# No request uses more units of anything than this.
MAX_COUNT: Final = 10**9
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Counts: TypeAlias = dict[str, int]
BYTES_PER_TOKEN: Final = 4
# What vendors write in the place of an error, or of a report, that is none.
NOTHING: Final = (b"", b"null", b"{}", b'""', b"false")
_OUTPUT: Final = ("output", "reasoning", "output_audio", "output_image")


def invalid(what: str) -> ProviderError:
    """The upstream sent what this dialect does not know; `what` completes "the upstream's answer ..."."""
    return ProviderError("upstream_invalid", f"The upstream's answer {what}.")


def check_text(text: bytes, where: str = "") -> None:
    """What an upstream sent as JSON, before it is decoded: UTF-8, and no deeper than the bound. `where` as in `invalid`.

    The decoder looks at no text in values that it leaves as they are written, and so finds nothing wrong with them.
    """
    if too_deep(text):
        raise invalid(f"{where}is nested too deeply")
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            raise invalid(f"{where}is not UTF-8") from None


class _Counted(msgspec.Struct, gc=False):
    input_tokens: Count


_COUNTED: Final = msgspec.json.Decoder(_Counted)


def read_count(body: bytes) -> int:
    """The input tokens in a reply that counts them; both families write it alike."""
    try:
        return _COUNTED.decode(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("is no count of tokens") from None


def text_size(text: str | None) -> int:
    """UTF-8 bytes of a text."""
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode())


def strings_size(value: object) -> int:
    """UTF-8 bytes of all strings inside a decoded JSON value, however deep."""
    size, found = 0, [value]
    while found:
        item = found.pop()
        if isinstance(item, str):
            size += text_size(item)
        elif isinstance(item, dict):
            found += item.values()
        elif isinstance(item, list):
            found += item
    return size


def nonzero(counts: Counts) -> Counts:
    """The classes that were used."""
    return {name: count for name, count in counts.items() if count}


def estimated(input_tokens: int, output_bytes: int, calls: Mapping[str, int] = NO_COUNTS) -> Counts:
    """What an answer without any report is charged as. `calls` are tools that no report counts."""
    return nonzero({"input": input_tokens, "output": -(-output_bytes // BYTES_PER_TOKEN), **calls})


def output_of(counts: Counts) -> int:
    """The output tokens of all classes."""
    return sum(counts.get(name, 0) for name in _OUTPUT)


def filled_up(counts: Counts, output_bytes: int) -> Counts:
    """The counts with `output` raised to what the relayed bytes come to, where the report says less."""
    lacking = -(-output_bytes // BYTES_PER_TOKEN) - output_of(counts)
    return {**counts, "output": counts.get("output", 0) + lacking} if lacking > 0 else counts


def part_of(counts: Counts, output_bytes: int, whole_bytes: int) -> Counts:
    """The counts of an answer of `whole_bytes`, of whose output only the first `output_bytes` count."""
    return {name: -(-count * output_bytes // whole_bytes) if name in _OUTPUT else count for name, count in counts.items()}


def reply_usage(
    counts: Counts | None, input_tokens: int, output_bytes: int, calls: Mapping[str, int] = NO_COUNTS, *, tier: str = ""
) -> Usage:
    """The usage of a whole reply. A report of no output at all beside a text is not believed."""
    if counts is None:
        return Usage(estimated(input_tokens, output_bytes, calls), measured=False, tier=tier)
    if output_bytes and not output_of(counts):
        return Usage(filled_up(counts, output_bytes), measured=False, tier=tier)
    return Usage(counts, tier=tier)


class EventReader:
    """A stream reader but for `_event`, which takes one whole event and gives the bytes to hand on.

    After a `ProviderError` from `feed`, `pending_out` holds the events before the one at fault; nothing may follow.
    """

    def __init__(self, calls: Mapping[str, int] = NO_COUNTS) -> None:
        """`calls`: uses of hosted tools that come with any answer and that no report counts."""
        self._splitter = EventSplitter()
        self._calls = calls
        self._counts: Counts | None = None  # what the upstream reported last
        self._counts_final = False  # and whether that is its whole account of what was relayed by then
        self._counted_at = 0
        self._tier = ""  # what the upstream said last of the tier that it serves at
        self.done = False
        self.started = False
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.pending_out = b""

    def _event(self, event: bytes) -> bytes:
        raise NotImplementedError

    def _answer_is_whole(self) -> bool:
        """Whether the connection may end here, without the stream's own terminal event."""
        return False

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`. What comes after the stream's own end is not handed on."""
        if self.done:
            return b""
        events = self._splitter.feed(chunk)
        if len(events) == 1:
            return self._event(events[0])
        out: list[bytes] = []
        try:
            for event in events:
                out.append(self._unless_done(event))  # noqa: PERF401 - what came before a fault is kept
        except ProviderError:
            self.pending_out = b"".join(out)
            raise
        return b"".join(out)

    def _unless_done(self, event: bytes) -> bytes:
        return b"" if self.done else self._event(event)

    def close(self) -> bytes:
        """See `StreamReader`. A last event that only lacks its blank line gets it."""
        out, rest = b"", self._splitter.rest()
        if not self.done and Event(rest).data:
            try:
                out = self._event(completed(rest))
            except ProviderError as error:
                if error.code == "upstream_invalid":
                    raise _died() from None
                raise
        if not self.done:
            if not self._answer_is_whole():
                self.pending_out = out
                raise _died()
            self._finish()
        return out

    def estimate(self, input_tokens: int) -> Usage:
        """See `StreamReader`."""
        return self.delivered(input_tokens, self.output_bytes)

    def delivered(self, input_tokens: int, output_bytes: int) -> Usage:
        """See `StreamReader`."""
        if self._counts is None:
            calls = self._calls if self.started else NO_COUNTS
            return Usage(estimated(input_tokens, output_bytes, calls), measured=False, tier=self._tier)
        if output_bytes < self._counted_at and output_of(self._counts):
            part = nonzero(part_of(self._counts, output_bytes, self._counted_at))
            return Usage(part, measured=False, tier=self._tier)
        if self._counts_final and self._counted_at == output_bytes:
            return Usage(self._counts, tier=self._tier)
        return Usage(filled_up(self._counts, output_bytes), measured=False, tier=self._tier)

    def _report(self, counts: Counts, *, final: bool) -> None:
        """The upstream said what was used so far."""
        self._counts, self._counts_final, self._counted_at = counts, final, self.output_bytes
        self.usage = Usage(counts, tier=self._tier)

    def _served_at(self, *said: object) -> None:
        """The upstream said which tier it serves at; it may say otherwise later."""
        tier = tier_of(*said)
        if tier != self._tier:
            self._tier = tier
            if self.usage is not None:
                self.usage = msgspec.structs.replace(self.usage, tier=tier)

    def _finish(self) -> None:
        """The stream's own end. A report of no output at all beside relayed output is not believed; any other final one
        is the whole account, whatever came after it."""
        self.done = True
        if self._counts is not None and self.output_bytes and not output_of(self._counts):
            self.usage, self._counts_final = None, False
        elif self._counts_final:
            self._counted_at = self.output_bytes


def error_event() -> ProviderError:
    """The upstream ended its stream with an event that says it failed."""
    return ProviderError("upstream_error_event", "The upstream reported an error in the middle of its answer.")


def _died() -> ProviderError:
    return ProviderError("upstream_died", "The upstream's answer broke off before its end.")
