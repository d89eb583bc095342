"""The neutral form of a chat: what any chat dialect is translated into and out of; values and protocols, no behaviour.

It names what two of the families have in common, or what one of them must not lose: ids, order, opaque proofs byte for
byte. What has no name here is dropped by the dialect that reads it, and reported (`Losses`). Content lives in types that
print nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from aurixel.plugin.contracts import ModelRules, ParsedRequest
from aurixel.values import Usage

# How long a cached prefix ending at a part is kept.
CacheTtl: TypeAlias = Literal["5m", "1h"]
Role: TypeAlias = Literal["system", "user", "assistant"]
# How an answer ended: by itself, at a stop sequence, at its output limit, at the model's context, with tool calls for the
# client, refused or filtered, or paused by the upstream (its own tools have more to do).
Stop: TypeAlias = Literal["end", "stop_sequence", "length", "context", "tool_use", "refusal", "pause"]
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    """The base of everything that holds content: it prints its type only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# --- parts of messages and of replies -----------------------------------------------------------------------------------


class Text(_Content, frozen=True, kw_only=True):
    """Plain text. `citations` are URL citations; `logprobs` the JSON list that both OpenAI dialects write, as it came."""

    text: str
    cache: CacheTtl | None = None
    citations: tuple[Citation, ...] = ()
    logprobs: msgspec.Raw | None = None


class Citation(_Content, frozen=True, kw_only=True):
    """Where a stretch of text comes from; `start` and `end` are characters of the text, 0 and 0 where unknown."""

    url: str
    title: str = ""
    start: int = 0
    end: int = 0


class Image(_Content, frozen=True, kw_only=True):
    """An input image: base64 `data` of `media_type`, or a `url` that the upstream (never the gateway) fetches."""

    data: str | None = None
    media_type: str = ""
    url: str | None = None
    detail: str | None = None
    cache: CacheTtl | None = None


class Document(_Content, frozen=True, kw_only=True):
    """A document: base64 `data` of `media_type`, plain `text`, or a `url` that the upstream fetches."""

    data: str | None = None
    text: str | None = None
    url: str | None = None
    media_type: str = ""
    name: str | None = None
    cache: CacheTtl | None = None


class Sound(_Content, frozen=True, kw_only=True):
    """Input audio: base64 `data` in `format` (`wav`, `mp3`)."""

    data: str
    format: str


class Thinking(_Content, frozen=True, kw_only=True):
    """The model's thinking. `text` may be shown; `sealed` is the upstream's proof or ciphertext, to be given back byte for
    byte, None where there is none; `hidden`: nothing but `sealed` came. `origin` is the dialect whose upstream made it:
    no other understands `sealed` (what it holds is that dialect's affair). `at`: its place among the parts of its message,
    where that is known."""

    text: str = ""
    sealed: str | None = None
    hidden: bool = False
    origin: str
    at: int | None = None


class ToolCall(_Content, frozen=True, kw_only=True):
    """A call of a client's tool. `arguments` is JSON text (with `custom`: free text), as written, "" for none."""

    id: str
    name: str
    arguments: str = ""
    custom: bool = False
    cache: CacheTtl | None = None


class ToolResult(_Content, frozen=True, kw_only=True):
    """What a tool answered: text, images and documents, in order. `id` is that of its call."""

    id: str
    parts: tuple[Text | Image | Document, ...] = ()
    failed: bool = False
    custom: bool = False
    cache: CacheTtl | None = None


class Refusal(_Content, frozen=True, kw_only=True):
    """The model's own words for not answering."""

    text: str


Part: TypeAlias = Text | Image | Document | Sound | Thinking | ToolCall | ToolResult | Refusal


class Message(_Content, frozen=True, kw_only=True):
    """One turn. Neighbours differ in role, but for `system`; a user's tool results come before its other parts."""

    role: Role
    parts: tuple[Part, ...]


# --- a request ----------------------------------------------------------------------------------------------------------


class Tool(_Content, frozen=True, kw_only=True):
    """A tool that the client runs. `schema`: JSON schema of its arguments, as written, None for none. `custom`: it takes
    free text instead; `grammar` is the JSON of its `format`, if any."""

    name: str
    description: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    custom: bool = False
    grammar: msgspec.Raw | None = None
    cache: CacheTtl | None = None


class ToolChoice(_Content, frozen=True, kw_only=True):
    """Which tools may be called: `tool` means the one called `name`. `allowed`: only these of the tools, None for all."""

    mode: Literal["auto", "none", "any", "tool"] = "auto"
    name: str | None = None
    allowed: tuple[str, ...] | None = None


class Reasoning(_Content, frozen=True, kw_only=True):
    """How much thinking is asked for: a word, or a budget in tokens. `enabled` None: the client did not say."""

    enabled: bool | None = None
    effort: Effort | None = None
    budget: int | None = None
    shown: bool = True


class Format(_Content, frozen=True, kw_only=True):
    """Structured output: any JSON object, or one of a `schema` (as written)."""

    kind: Literal["json_object", "json_schema"]
    name: str = "answer"
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    description: str | None = None


class Conversation(_Content, frozen=True, kw_only=True):
    """A whole request. Amounts are tokens. None or empty: the client did not say. `logprobs`: how many alternatives a token,
    0 for the chosen one only. `logit_bias` and `metadata` are JSON as written. `user` is whatever names the end user."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    format: Format | None = None
    reasoning: Reasoning | None = None
    verbosity: str | None = None
    logprobs: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: msgspec.Raw | None = None
    user: str | None = None
    cache_key: str | None = None
    cache: CacheTtl | None = None


# What may be told of a field that a client has made up.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.()\[\]-]{1,64}")


class Losses:
    """What a translation could not carry over as it was. Field names only, never values; each name once.

    `words`: a field of `Conversation` -> what the client's dialect calls it; other names are told as they are, if they are
    names: a client may call a field anything, and this goes into a header. At most `MOST` of each kind are told, the rest is
    counted.
    """

    MOST: ClassVar[int] = 20
    OTHER: ClassVar[str] = "(other)"

    def __init__(self, words: Mapping[str, str] = MappingProxyType({})) -> None:
        self._words = words
        self.dropped: dict[str, None] = {}
        self.emulated: dict[str, None] = {}
        self.changed: dict[str, None] = {}

    def word(self, name: str) -> str:
        """What the client's dialect calls this field, for errors."""
        return self._words.get(name, name)

    def drop(self, *names: str) -> None:
        """The upstream is not told of these fields."""
        self._add(self.dropped, names)

    def emulate(self, *names: str) -> None:
        """The upstream is asked for something that comes to much the same."""
        self._add(self.emulated, names)

    def change(self, *names: str) -> None:
        """The upstream is asked for another value."""
        self._add(self.changed, names)

    def _add(self, kind: dict[str, None], names: Iterable[str]) -> None:
        for name in names:
            word = self._words.get(name, name)
            kind[word if _PLAIN.fullmatch(word) else self.OTHER] = None

    def __bool__(self) -> bool:
        return bool(self.dropped or self.emulated or self.changed)


class Written(_Content, frozen=True, kw_only=True):
    """A request in an upstream's dialect. `body` is JSON; `names`: a tool's name there -> the client's, where they differ;
    `wrapped`: tools (by their names there) that take free text as the one string `input` of a JSON object;
    `answer_tool`: the tool whose arguments are the structured answer, None for no such emulation."""

    body: bytes
    names: Mapping[str, str] = MappingProxyType({})
    wrapped: frozenset[str] = frozenset()
    answer_tool: str | None = None


# --- a reply ------------------------------------------------------------------------------------------------------------


class Reply(_Content, frozen=True, kw_only=True):
    """A whole reply. `parts` are `Text`, `Thinking`, `ToolCall` and `Refusal`, in order. `usage` is what the meter read of
    it (disjoint classes); it is set by whoever translates. `id` is the upstream's, `created` seconds since the epoch, 0
    where it does not say. `lost`: what of it has no canonical name, as `reply.citations` or `reply.hosted_tools`."""

    id: str
    parts: tuple[Part, ...]
    stop: Stop
    stop_sequence: str | None = None
    created: int = 0
    usage: Usage | None = None
    lost: tuple[str, ...] = ()


class Began(_Content, frozen=True, kw_only=True):
    """A stream began. Comes first, once."""

    id: str
    created: int = 0


class TextDelta(_Content, frozen=True, kw_only=True):
    """More of the text that is open; opens one if none is."""

    text: str
    logprobs: msgspec.Raw | None = None


class Cited(_Content, frozen=True, kw_only=True):
    """A citation of the text that is open."""

    citation: Citation


class ThinkingDelta(_Content, frozen=True, kw_only=True):
    """More of the thinking that is open; opens one if none is."""

    text: str
    origin: str


class ThinkingSealed(_Content, frozen=True, kw_only=True):
    """The thinking that is open is whole, and this is its proof; with `hidden`, a whole one of its own."""

    sealed: str | None
    origin: str
    hidden: bool = False


class RefusalDelta(_Content, frozen=True, kw_only=True):
    """More of a refusal."""

    text: str


class ToolBegan(_Content, frozen=True, kw_only=True):
    """A tool call opens. `index` counts the calls of the answer from 0; calls may overlap."""

    index: int
    id: str
    name: str
    custom: bool = False


class ToolDelta(_Content, frozen=True, kw_only=True):
    """More of a call's arguments."""

    index: int
    arguments: str


class ToolEnded(_Content, frozen=True, kw_only=True):
    """A call's arguments are whole. A dialect that does not mark it may leave it out: `Stopped` ends all."""

    index: int


class PartEnded(_Content, frozen=True, kw_only=True):
    """The text, thinking or refusal that is open ends here: what follows is another part, even of the same kind."""


class Stopped(_Content, frozen=True, kw_only=True):
    """The answer is whole. `usage` is still to come."""

    stop: Stop
    stop_sequence: str | None = None


Event: TypeAlias = (
    Began
    | TextDelta
    | Cited
    | ThinkingDelta
    | ThinkingSealed
    | RefusalDelta
    | ToolBegan
    | ToolDelta
    | ToolEnded
    | PartEnded
    | Stopped
)


class StreamDecoder(Protocol):
    """Reads a stream that the dialect's own `StreamReader` has let pass. `lost`: as that of `Reply`, of what was fed so far."""

    lost: set[str]

    def feed(self, events: bytes) -> list[Event]:
        """`events`: whole events, each with its blank line. `ProviderError("upstream_invalid")` for what breaks the
        dialect's own rules (a delta of nothing, two beginnings), whatever was decoded before it in the same call is lost."""


class StreamEncoder(Protocol):
    """Writes a stream in the client's dialect. Keeps whatever state that takes; never emits what is not whole."""

    def feed(self, events: Iterable[Event]) -> bytes:
        """The bytes for these events; may be empty."""

    def end(self, usage: Usage) -> bytes:
        """After `Stopped`: the end of the stream, with its usage where the client's dialect tells it."""


@runtime_checkable
class ChatCodec(Protocol):
    """What a chat dialect defines beside `Dialect` to be translated into and out of others. Pure.

    `words`: a field of `Conversation` -> this dialect's name for it, for `Losses`.
    """

    words: ClassVar[Mapping[str, str]]

    def read(self, request: ParsedRequest, losses: Losses) -> Conversation:
        """A client's request. `ClientError("unsupported_parameter")` for what must not be dropped in silence or
        otherwise (several choices, audio output, hosted tools); other fields without a name here go to `losses`."""

    def write(self, conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
        """The request for an upstream of this dialect; what it has no word for goes to `losses`. `ClientError` as in
        `read`, for what this dialect cannot carry and must not drop."""

    def own(self, request: ParsedRequest, losses: Losses) -> ParsedRequest:
        """A request that goes to an upstream of this dialect as it is, without what other dialects' upstreams left in its
        conversation; the same object where there is nothing of it."""

    def read_reply(self, body: bytes) -> Reply:
        """An upstream's whole reply, which the dialect's `ReplyReader` has let pass. `ProviderError("upstream_invalid")`."""

    def write_reply(self, reply: Reply, request: ParsedRequest) -> bytes:
        """A reply for the client who sent `request`; the model is called as the client called it."""

    def stream_decoder(self) -> StreamDecoder:
        """For one stream."""

    def stream_encoder(self, request: ParsedRequest) -> StreamEncoder:
        """For one stream to the client who sent `request`; the model is called as the client called it."""
