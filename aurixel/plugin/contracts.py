"""What a plugin implements and what it is given: protocols and frozen values; no behaviour of the host lives here.

Content (request and reply bytes) appears only in types without a `__repr__` of their fields, so that no log line or
traceback can show it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
from pydantic import BaseModel, ConfigDict

from aurixel.clock import Clock
from aurixel.errors import ProviderError, RequestError
from aurixel.values import NO_COUNTS, Counts, Outcome, Principal, RequestFacts, Usage

# Header names are lower case; a name may repeat.
Headers: TypeAlias = Sequence[tuple[str, str]]


@runtime_checkable
class BodyStream(Protocol):
    """A body that is sent as it comes, and once: nobody has all of it.

    What iterating it raises (`RequestError`, `ClientGone`) ends the call that sends it, and is what that call raises.
    """

    @property
    def length(self) -> int | None:
        """In bytes; None where only its end will tell."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


# A body is sent in slices, so that a patched 5 MB request is not copied. An upload that is still coming is a stream.
Body: TypeAlias = Sequence[bytes]
AnyBody: TypeAlias = Body | BodyStream


# --- given to plugins ------------------------------------------------------------------------------------------------


class Host(Protocol):
    """What a plugin instance is given: no store, no configuration, no request handler."""

    @property
    def log(self) -> logging.Logger:
        """The plugin's own logger. No content, key or e-mail belongs in it."""

    @property
    def clock(self) -> Clock:
        """What tells the time; tests set it by hand."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine as a task that the host owns and cancels at shutdown; its failure is logged and counted."""


class PluginSettings(BaseModel):
    """The base of a plugin's `Settings`: unknown keys are errors, values cannot change and never show in errors.

    Secrets are `pydantic.SecretStr` fields; the host has resolved `env:NAME` before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


# --- dialects ---------------------------------------------------------------------------------------------------------


class ImageBound(msgspec.Struct, frozen=True):
    """One input image: its pixel size where its header could be read (0, 0 where not: assume the model's cap)."""

    width: int = 0
    height: int = 0
    low_detail: bool = False


class InputBound(msgspec.Struct, frozen=True):
    """What bounds the input side: UTF-8 bytes of all text (escaped JSON counts, it only inflates), messages, tools, images.

    `exact_tokens` counts input that came as token numbers. `documents` are PDF-like parts, `document_bytes` their decoded
    size. `open_ended`: the upstream adds input of its own (search results, pages it fetches), up to the model's context.
    """

    text_bytes: int
    messages: int = 0
    tools: int = 0
    images: tuple[ImageBound, ...] = ()
    exact_tokens: int = 0
    audio_bytes: int = 0
    document_bytes: int = 0
    documents: int = 0
    open_ended: bool = False


# What a model can do that translation must know; the operator says so, and no name of a model ever does.
MODEL_TRAITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adaptive_thinking": "thinks as much as an effort says (Messages: thinking.type adaptive, output_config.effort)",
        "budget_thinking": "thinks up to a budget of tokens (Messages: thinking.budget_tokens)",
        "cache_breakpoints": "takes marks of cached prefixes (OpenAI family: prompt_cache_breakpoint)",
        "custom_tools": "takes tools of free text (chat, Responses: type custom)",
        "no_prefill": "refuses a conversation that ends with the assistant's own words",
        "no_sampling": "refuses temperature, top_p and top_k",
        "reasoning": "takes an effort (chat: reasoning_effort; Responses: reasoning.effort)",
        "reasoning_content": "wants its earlier thinking back as reasoning_content",
        "structured_outputs": "answers by a JSON schema (Messages: output_config.format)",
        "system_turns": "takes system messages in the middle of a conversation",
    }
)


class ModelRules(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a model: what sizes its holds (the largest output in tokens, the context, how images count), and `traits`,
    which are names of `MODEL_TRAITS`."""

    context: int
    max_output: int
    image_patch: int = 28
    image_multiplier: float = 1.2
    image_cap: int = 16_384
    traits: frozenset[str] = frozenset()


class ParsedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as its dialect understood it. `fields` is the top level, each value as written (raw JSON).

    `asked_usage`: the client asked for usage in the stream. `output_limit`: tokens, None where the client set none.
    `choices`: how many answers are generated at most. `needs`: usage classes beyond plain input and output that the
    request may incur, each of which must have a price of its own (`cache_write_5m`, `tool_calls.web_search`, ...).
    `calls`: how often each of the hosted tools among them may run at most, where the request says so.

    `most`: units that are no tokens, at most: `images.1024x1024.hd`, `characters`, `audio_seconds`. Where the model is
    priced by such units, each of them must have a price; else they count for nothing. `replies`: the media types of a sound
    reply (`audio/*` for any of a kind); empty: JSON, or an event stream where it streams. `sent_as`: the media type the
    client is sent, empty for that of the reply. With `stream` a reply goes out as it comes, whatever its type.

    `upload`: what reads its body, where that is an upload (`TakesUploads`); it may still be coming.
    `limitable`: an output limit can be sent. Where it cannot, credit must cover the longest answer.
    `tier`: the tier it asks for, "" for the plain one. It must have a price, and the upstream may fall back to the plain one.
    """

    dialect: str
    model: str
    stream: bool
    fields: Mapping[str, msgspec.Raw]
    bound: InputBound
    output_limit: int | None = None
    choices: int = 1
    asked_usage: bool = True
    needs: frozenset[str] = frozenset()
    calls: Counts = NO_COUNTS
    most: Counts = NO_COUNTS
    replies: tuple[str, ...] = ()
    sent_as: str = ""
    upload: UploadReader | None = None
    limitable: bool = True
    tier: str = ""

    @property
    def written(self) -> int:
        """Bytes of its fields, as written."""
        return sum(map(len, self.fields.values()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.dialect}>"


class UploadReader(Protocol):
    """Reads one upload as it streams past, and keeps no more of it than the request is made of. Pure; driven with bytes.

    `request`: what is asked for, once the parts that decide the model and the price have come; None until then. All that
    was fed up to then is kept, until `let_go`, for `Dialect.patch_request`, which gives those bytes anew. `size` is how many
    bytes were fed, `whole` whether `finish` has found that all is there. `units`: what it comes to in units that are no
    tokens, as `ParsedRequest.most` names them: exactly or well guessed once it is whole, else at most.
    """

    @property
    def request(self) -> ParsedRequest | None: ...

    @property
    def size(self) -> int: ...

    @property
    def whole(self) -> bool: ...

    @property
    def units(self) -> Counts: ...

    def feed(self, chunk: bytes) -> None:
        """The next bytes. `ClientError` for what is not a sound request of the dialect."""

    def finish(self) -> ParsedRequest:
        """No more will come: the request. `ClientError` where something is missing."""

    def let_go(self) -> None:
        """Keep nothing any more of what was fed."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway changes in a passed-through body: the model's upstream name, usage asked for, and the output
    limit where the client set none and the credit demands one. `output_limit_field` is the provider's word for it
    in `openai_chat`, the one dialect that has two.
    `by_tokens`: the model is priced by tokens; a dialect that reports them in one form of reply only asks for that form."""

    model: str
    output_limit: int | None = None
    output_limit_field: str | None = None
    by_tokens: bool = False


class ErrorReply(msgspec.Struct, frozen=True):
    """A rendered error: status, headers (content-type and retry headers included), body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/models` says of a model. `created_ms` is when the catalogue first named it."""

    id: str
    created_ms: int
    context: int
    max_output: int


class ReplyReader(Protocol):
    """Reads one whole, successful, non-streamed reply."""

    def read(self, body: bytes) -> Usage:
        """The usage the upstream reported, or an estimate with `measured=False` where it reported none.

        Raises `ProviderError("upstream_invalid")` for what is not a reply of this dialect or has impossible numbers.
        """


class StreamReader(Protocol):
    """Reads one event stream as it comes: hands on whole events, byte for byte, and watches for usage and the end.

    After any call: `done` the stream's own terminal event has passed; `usage` what the upstream reported so far
    (None: nothing yet); `output_bytes` UTF-8 bytes of generated text, thinking and tool arguments handed on so far;
    `started` whether any event that carries output or role has passed (false while only keep-alives and start events did).
    """

    @property
    def done(self) -> bool: ...

    @property
    def started(self) -> bool: ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def output_bytes(self) -> int: ...

    @property
    def pending_out(self) -> bytes: ...

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to hand on now: whole events only, the usage event taken out if the client did not ask for it.

        Raises `ProviderError`: "upstream_error_event" when the upstream sent the family's error event (which is not
        handed on; bytes of whole events before it are in `pending_out`), "upstream_invalid" for nonsense.
        """

    def close(self) -> bytes:
        """The upstream ended cleanly: the last bytes to hand on. `ProviderError("upstream_died")` if it ended too early."""

    def estimate(self, input_tokens: int) -> Usage:
        """The usage of all that came: the upstream's numbers as far as they came, the rest from `output_bytes`.

        `measured` only where the numbers are the upstream's own, whole.
        """

    def delivered(self, input_tokens: int, output_bytes: int) -> Usage:
        """The usage of the input and of the first `output_bytes` of the output: what a client had that left, or was left,
        in the middle. The upstream's numbers where they cover no more than that, else the part of each output class in
        proportion. With all of `output_bytes` it is `estimate`.
        """


@runtime_checkable
class ReadsKinds(Protocol):
    """A stream reader of a request with several `replies`: it is told which of them has come."""

    def comes_as(self, kind: str) -> str:
        """Before the first byte is fed: `kind` is the media type of the reply; the one to send the client is returned."""


class Dialect(Protocol):
    """One wire format of one operation: pure, no I/O, driven with bytes. Errors are named, anything else is a bug."""

    name: ClassVar[str]
    family: ClassVar[str]
    operation: ClassVar[str]

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """`headers` by lower-case name. `ClientError` for anything that is not a sound request of this dialect."""

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """The body to send upstream: as the client wrote it, but for what `changes` and metering demand."""

    def bound_input(self, request: ParsedRequest, rules: ModelRules) -> int:
        """An upper bound of the input tokens."""

    def estimate_input(self, request: ParsedRequest, rules: ModelRules) -> int:
        """A fair guess of the input tokens, for endings where the upstream reported none; never above the bound."""

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """`input_tokens` is the estimate used where the upstream reports no usage."""

    def stream_reader(self, request: ParsedRequest) -> StreamReader: ...

    def encode_error(self, error: RequestError, request_id: str) -> ErrorReply:
        """The error as a reply of this family, with the right status and retry headers."""

    def encode_stream_error(self, error: RequestError, request_id: str) -> bytes:
        """The error as the family's own event in a stream that has begun."""


@runtime_checkable
class TakesUploads(Protocol):
    """A dialect whose bodies may be uploads: read as they come, and passed on meanwhile. The name of the model is the one
    thing in them that is changed."""

    def upload_reader(self, headers: Mapping[str, str], length: int | None) -> UploadReader | None:
        """For a body of `length` bytes (None: nobody knows yet); None: it is none, and goes to `parse_request`, whole.
        `ClientError` where the headers alone show that it cannot be read."""


@runtime_checkable
class CountsTokens(Protocol):
    """A dialect whose family has an endpoint that counts the input of a request and answers nothing. Providers name it
    under the operation `count` in their `dialects`, where the vendor has that endpoint."""

    def parse_count(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """As `parse_request`, of a request that may lack what only an answer needs."""

    def patch_count(self, request: ParsedRequest, model: str) -> Body:
        """The body to send upstream, with the model's name there."""

    def read_count(self, body: bytes) -> int:
        """The tokens in an upstream's reply; `ProviderError("upstream_invalid")` for what is none."""

    def write_count(self, tokens: int) -> bytes:
        """The reply."""


# --- providers --------------------------------------------------------------------------------------------------------


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at one upstream: what to ask, and the client's headers that may go out (already through the allow-list)."""

    operation: str
    dialect: str
    model: str
    stream: bool
    query: str
    headers: tuple[tuple[str, str], ...]


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request ready to be sent. `headers` hold the upstream credential: this type never prints."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: AnyBody

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UpstreamReply(Protocol):
    """An upstream's answer: status, headers (lower-case names), and the body as it comes (already decompressed).

    Iterating raises `ProviderError`: "upstream_died" for a cut or reset, "upstream_timeout" for a passed deadline.
    """

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, in the pieces it arrives in; a piece is never empty."""

    async def read(self, limit: int) -> bytes:
        """The whole body; `ProviderError("upstream_invalid")` above `limit` bytes."""


class Classified(msgspec.Struct, frozen=True):
    """What an upstream's error status means. `relay`: the client's own fault, its text goes to the client as it is;
    `failover`: this upstream cannot serve it now (or refuses *our* credentials), another may; `final`: nobody will.
    `error` is what the client is told where the text is not relayed."""

    action: Literal["relay", "failover", "final"]
    error: ProviderError


@runtime_checkable
class Provider(Protocol):
    """A kind of upstream: where it is, how it authenticates, its quirks, and what its errors mean. One instance a block
    `[upstreams.NAME]`. `prepare` and `classify` are pure and must not block.

    `dialects`: operation -> names of the dialects it speaks. `Settings`: the pydantic model of its part of the block;
    an unknown key is an error. A provider that is not HTTP defines `open` (see `OpensItself`).
    """

    kind: ClassVar[str]
    dialects: ClassVar[Mapping[str, Sequence[str]]]
    Settings: ClassVar[type[BaseModel]]
    output_limit_field: str | None

    def __init__(self, settings: Any, host: Host) -> None: ...

    def prepare(self, attempt: Attempt, body: AnyBody) -> Outgoing:
        """URL, headers and quirks; pure. `body` is a stream only in a dialect that takes uploads, and goes on as it is."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Classified:
        """What a status other than 2xx means; pure. `body` is at most 64 KiB of the upstream's error text."""


@runtime_checkable
class SpeaksLess(Protocol):
    """A provider whose block may speak less than its class: which dialects, its settings say."""

    def spoken(self, operation: str) -> Sequence[str]:
        """Of the class's `dialects`, those of this block, the best one first."""


@runtime_checkable
class Probed(Protocol):
    """A provider whose upstream can be asked, for nothing, whether it answers and knows our key."""

    def probe(self) -> Outgoing:
        """The request; pure. Any status but 401, 403 and 5xx means that it does."""


@runtime_checkable
class OpensItself(Protocol):
    """The escape for providers that are not HTTP: they answer an `Outgoing` themselves."""

    def open(self, outgoing: Outgoing) -> AbstractAsyncContextManager[UpstreamReply]:
        """Leaving the context stops the work at once."""


# --- policy -----------------------------------------------------------------------------------------------------------


class Allow(msgspec.Struct, frozen=True):
    """Go on; `headers` go to the client on whatever reply follows."""

    headers: tuple[tuple[str, str], ...] = ()


class Deny(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse. `code` from the policy codes of `aurixel.errors` or the check's own; `retry_after` in seconds."""

    code: str
    message: str
    status: int = 403
    retry_after: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Rewrite(msgspec.Struct, frozen=True, kw_only=True):
    """Go on with another model (named as in the catalogue)."""

    model: str
    headers: tuple[tuple[str, str], ...] = ()


Verdict: TypeAlias = Allow | Deny | Rewrite


@runtime_checkable
class PolicyCheck(Protocol):
    """Says yes or no to a request before credit is held. `enforces`: names of the key limits it stands behind.

    A check may define `finished(outcome)`, called exactly once for each request it was asked about (see `WatchesEnd`).
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]
    enforces: ClassVar[frozenset[str]]

    def __init__(self, settings: Any, host: Host) -> None: ...

    def parse_limit(self, name: str, value: Any) -> Any:
        """A key limit as `check` will meet it in `principal.limits`; `ValueError` (words for the operator) if it is wrong."""

    async def check(self, principal: Principal, facts: RequestFacts) -> Verdict: ...


@runtime_checkable
class WatchesEnd(Protocol):
    """A policy check that must know how each request ended (concurrency, tokens a minute). Sync, must not block."""

    def finished(self, outcome: Outcome) -> None: ...


__all__ = [
    "MODEL_TRAITS",
    "NO_COUNTS",
    "Allow",
    "AnyBody",
    "Attempt",
    "Body",
    "BodyStream",
    "Changes",
    "Classified",
    "Counts",
    "CountsTokens",
    "Deny",
    "Dialect",
    "ErrorReply",
    "Headers",
    "Host",
    "ImageBound",
    "InputBound",
    "ModelCard",
    "ModelRules",
    "OpensItself",
    "Outgoing",
    "ParsedRequest",
    "PluginSettings",
    "PolicyCheck",
    "Probed",
    "Provider",
    "ReadsKinds",
    "ReplyReader",
    "Rewrite",
    "SpeaksLess",
    "StreamReader",
    "TakesUploads",
    "UploadReader",
    "UpstreamReply",
    "Verdict",
    "WatchesEnd",
]
