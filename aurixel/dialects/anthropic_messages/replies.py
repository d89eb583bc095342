"""Reads the answers of `anthropic_messages`, whole and streamed, and turns their usage into disjoint classes.

Events pass byte for byte; a stream that the official SDKs cannot follow (no `event` line, gaps between blocks, no usage)
is refused rather than handed on (docs/dialects.md).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aurixel.dialects.readers import (
    Count,
    Counts,
    EventReader,
    check_text,
    error_event,
    invalid,
    nonzero,
    reply_usage,
    text_size,
)
from aurixel.dialects.sse import COMMENT, Event, named
from aurixel.dialects.tiers import tier_of
from aurixel.plugin.contracts import ParsedRequest
from aurixel.values import Usage


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Count | None = None


class _Iteration(msgspec.Struct):
    """One of several samplings. Those of type `compaction` are not in the sums beside them; those of other models
    are refused, for they would need other prices."""

    type: str = "message"
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None


class ReportedUsage(msgspec.Struct):
    """`usage` as the upstream writes it: whole in a reply and in `message_start`, in part in `message_delta`."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    server_tool_use: dict[str, msgspec.Raw] | None = None
    iterations: list[_Iteration] | None = None
    service_tier: Any = None
    speed: Any = None


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Start(msgspec.Struct):
    usage: ReportedUsage | None = None


class _StreamEvent(msgspec.Struct):
    type: str = ""
    index: int = -1
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Start | None = None
    usage: ReportedUsage | None = None


class _Reply(msgspec.Struct):
    type: str
    content: list[_Block]
    usage: ReportedUsage | None = None


_EVENT: Final = msgspec.json.Decoder(_StreamEvent)
_REPLY: Final = msgspec.json.Decoder(_Reply)
_USES: Final = msgspec.json.Decoder(Count | None)
# Tools of the upstream that no report counts: each use is a block.
_UNCOUNTED: Final = ("code_execution", "bash_code_execution", "text_editor_code_execution")


class Meter:
    """Adds the reports of one answer up: later numbers replace earlier ones, they never add to them.

    `long_cache`: the request asked for one-hour cache entries and for no others, which decides where writes go that
    come without their split.
    """

    def __init__(self, request: ParsedRequest) -> None:
        self._long_cache = "cache_write_1h" in request.needs and "cache_write_5m" not in request.needs
        self._now = ReportedUsage()
        self._executions = 0

    def ran(self, tool: str | None) -> None:
        """A tool of the upstream was used."""
        if tool in _UNCOUNTED:
            self._executions += 1

    def take(self, report: ReportedUsage) -> None:
        """What is null or absent leaves the earlier number standing."""
        for name in ReportedUsage.__struct_fields__:
            value = getattr(report, name)
            if value is not None:
                setattr(self._now, name, value)

    @property
    def tier(self) -> str:
        """What was said last of the tier and of the speed; "" for the plain ones."""
        return tier_of(self._now.service_tier, self._now.speed)

    def counts(self) -> Counts:
        """The classes so far; refuses parts that exceed their whole."""
        now = self._now
        if now.input_tokens is None or now.output_tokens is None:
            raise invalid("reports no complete usage")
        five, hour = self._written(now.cache_creation_input_tokens, now.cache_creation)
        thought = now.output_tokens_details.thinking_tokens or 0 if now.output_tokens_details else 0
        if thought > now.output_tokens:
            raise invalid("reports parts of its usage that exceed the whole")
        counts = {
            "input": now.input_tokens,
            "cache_read": now.cache_read_input_tokens or 0,
            "cache_write_5m": five,
            "cache_write_1h": hour,
            "output": now.output_tokens - thought,
            "reasoning": thought,
            "tool_calls.code_execution": self._executions,
        }
        for iteration in now.iterations or ():
            self._add(counts, iteration)
        for key, raw in (now.server_tool_use or {}).items():
            if key.endswith("_requests"):
                counts[f"tool_calls.{key.removesuffix('_requests')}"] = _uses(raw)
        return nonzero(counts)

    def _add(self, counts: Counts, iteration: _Iteration) -> None:
        if iteration.type == "message":
            return
        if iteration.type != "compaction":
            if iteration.input_tokens or iteration.output_tokens:
                raise invalid("reports usage of another model")
            return
        five, hour = self._written(iteration.cache_creation_input_tokens, iteration.cache_creation)
        counts["input"] += iteration.input_tokens or 0
        counts["cache_read"] += iteration.cache_read_input_tokens or 0
        counts["cache_write_5m"] += five
        counts["cache_write_1h"] += hour
        counts["output"] += iteration.output_tokens or 0

    def _written(self, total: int | None, split: _CacheCreation | None) -> tuple[int, int]:
        """Cache writes of five minutes and of an hour. The split comes once, at the start; a total that has grown since
        keeps the hour's share, and what is new lasts five minutes unless everything lasted an hour."""
        five = split.ephemeral_5m_input_tokens or 0 if split else 0
        hour = split.ephemeral_1h_input_tokens or 0 if split else 0
        if total is None or total == five + hour:
            return five, hour
        if not five and (hour or self._long_cache):
            return 0, total
        hour = min(hour, total)
        return total - hour, hour


def _uses(raw: msgspec.Raw) -> int:
    try:
        return _USES.decode(raw) or 0
    except msgspec.DecodeError:
        raise invalid("reports impossible usage") from None


def _block_size(block: _Block) -> int:
    size = text_size(block.text) + text_size(block.thinking)
    if block.type.endswith("tool_use"):
        size += text_size(block.name)
        if len(block.input) > 2:
            size += len(block.input)
    return size


class MessagesReplyReader:
    """Reads one whole reply."""

    def __init__(self, request: ParsedRequest, input_tokens: int) -> None:
        self._meter = Meter(request)
        self._input_tokens = input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        check_text(body)
        try:
            reply = _REPLY.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("is not a message, or reports impossible usage") from None
        if reply.type != "message":
            raise invalid("is not a message")
        size = 0
        for block in reply.content:
            size += _block_size(block)
            if block.type == "server_tool_use":
                self._meter.ran(block.name)
        counts: Counts | None = None
        if reply.usage is not None:
            _check_split(reply.usage)
            self._meter.take(reply.usage)
            counts = self._meter.counts()
        return reply_usage(counts, self._input_tokens, size, tier=self._meter.tier)


def _check_split(usage: ReportedUsage) -> None:
    """Where total and split come together they must agree."""
    split, total = usage.cache_creation, usage.cache_creation_input_tokens
    if split is None or total is None:
        return
    if (split.ephemeral_5m_input_tokens or 0) + (split.ephemeral_1h_input_tokens or 0) != total:
        raise invalid("reports cache writes that do not add up")


class MessagesStreamReader(EventReader):
    """Reads one event stream. Its end is `message_stop`, and nothing else is."""

    def __init__(self, request: ParsedRequest) -> None:
        super().__init__()
        self._meter = Meter(request)
        self._blocks = 0
        self._unclosed: set[int] = set()
        self._begun = self._said_why = False

    def _event(self, event: bytes) -> bytes:
        if (usual := named(event)) is not None:
            return self._named(*usual, event)
        parts = Event(event)
        out = event if parts.plain else parts.rebuilt()
        if not parts.data:
            return out if parts.only_comments else COMMENT
        if not parts.name:
            raise invalid("contains an event without a name")
        return self._named(parts.name, parts.data, out)

    def _named(self, name: bytes, data: bytes, event: bytes) -> bytes:
        if name == b"error":
            raise error_event()
        check_text(data, "contains an event that ")
        try:
            parsed = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("contains an event that cannot be read") from None
        if parsed.type.encode() != name:
            raise invalid("contains an event whose name is not its type")
        if name == b"content_block_delta":
            self._delta(parsed)
        elif name == b"content_block_start":
            self._block(parsed)
        elif name == b"content_block_stop":
            self._known(parsed.index)
            self._unclosed.discard(parsed.index)
        elif name == b"message_start":
            if self._begun or parsed.message is None or parsed.message.usage is None:
                raise invalid("does not begin as a message does")
            self._begun = True
            _check_split(parsed.message.usage)
            self._usage(parsed.message.usage, final=False)
        elif name == b"message_delta":
            if not self._begun or parsed.usage is None:
                raise invalid("ends without its usage")
            self._usage(parsed.usage, final=True)
            self._said_why = True
        elif name == b"message_stop":
            if not self._begun:
                raise invalid("ends before it begins")
            if self._unclosed or not self._said_why:
                raise invalid("ends in the middle")
            self._finish()
        return event

    def _delta(self, parsed: _StreamEvent) -> None:
        self._known(parsed.index)
        delta = parsed.delta
        if delta is None:
            raise invalid("contains a change of nothing")
        size = text_size(delta.text) + text_size(delta.partial_json) + text_size(delta.thinking)
        if size:
            self.started = True
            self.output_bytes += size

    def _block(self, parsed: _StreamEvent) -> None:
        block = parsed.content_block
        if not self._begun or block is None or parsed.index != self._blocks:
            raise invalid("contains blocks out of order")
        self._unclosed.add(self._blocks)
        self._blocks += 1
        size = _block_size(block)
        self.output_bytes += size
        if size or block.type not in ("text", "thinking"):
            self.started = True
        if block.type == "server_tool_use":
            self._meter.ran(block.name)

    def _known(self, index: int) -> None:
        if not 0 <= index < self._blocks:
            raise invalid("contains blocks out of order")

    def _usage(self, usage: ReportedUsage, *, final: bool) -> None:
        self._meter.take(usage)
        self._served_at(self._meter.tier)
        self._report(self._meter.counts(), final=final)
