"""`openai_completions`: POST /v1/completions, whole or streamed. Text or token numbers are continued; several at once.

Every prompt has `n` answers, and `best_of` are generated and charged for each that is chosen from. Refused is what changes
the price in a way that nothing here describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from aurixel.dialects.json_fields import (
    Fields,
    check_content_type,
    decode_object,
    given,
    read_bool,
    read_int,
    read_model,
    unpriced,
)
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia, decode_reply, refuse_store
from aurixel.dialects.openai_beside_chat.texts import Texts, bound_of, read_texts
from aurixel.dialects.openai_chat.replies import ChatStreamReader, ReportedUsage, disjoint, reported
from aurixel.dialects.patch import patched
from aurixel.dialects.readers import BYTES_PER_TOKEN, invalid, reply_usage, text_size
from aurixel.dialects.stream_options import asked_usage, asking_usage
from aurixel.dialects.tiers import asked_tier, tier_of
from aurixel.plugin.contracts import Body, Changes, ParsedRequest, ReplyReader, StreamReader
from aurixel.values import Usage

MAX_CHOICES: Final = 128
_NOT_INPUT: Final = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "user",
    }
)


class _Choice(msgspec.Struct, gc=False):
    text: str = ""
    index: int = 0
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: Any = None
    service_tier: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: ReportedUsage | None = None
    service_tier: Any = None
    error: msgspec.Raw = msgspec.Raw()


_REPLY: Final = msgspec.json.Decoder(_Reply)
_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_PROMPTS: Final = msgspec.json.Decoder(str | list[str | int | list[int]])


class OpenAICompletions(OpenAIMedia):
    """The dialect."""

    name: ClassVar[str] = "openai_completions"
    operation: ClassVar[str] = "chat"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`. With `echo` no output at all may be asked for."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        stream = read_bool(fields, "stream")
        asked = asked_usage(fields)
        refuse_store(fields)
        if read_bool(fields, "background"):
            raise unpriced("background", "Answering in the background")
        each = max(read_int(fields, "n", 1, MAX_CHOICES) or 1, read_int(fields, "best_of", 1, MAX_CHOICES) or 1)
        echo = read_bool(fields, "echo")
        raw = given(fields, "prompt")
        texts = read_texts(raw, "prompt") if raw is not None else Texts(1)
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=stream,
            fields=fields,
            bound=bound_of(fields, _NOT_INPUT, "prompt", texts),
            output_limit=read_int(fields, "max_tokens", 0 if echo else 1),
            choices=texts.count * each,
            asked_usage=asked or not stream,
            tier=asked_tier(fields, "service_tier"),
        )

    def patch_request(self, request: ParsedRequest, changes: Changes) -> Body:
        """See `Dialect`. This endpoint has one word for the output limit, with every vendor."""
        new = {"stream_options": asking_usage(request.fields)} if request.stream else {}
        return patched(request.fields, changes, new, limit_field="max_tokens")

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        return _CompletionReader(request, input_tokens)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        """See `Dialect`."""
        return _CompletionStreamReader(request)


class _Echo:
    """How much of each answer is only the prompt said again: in bytes, a guess where it came as tokens."""

    def __init__(self, request: ParsedRequest) -> None:
        self._sizes = _sizes(request.fields) if read_bool(request.fields, "echo") else ()
        self._each = read_int(request.fields, "n", 1) or 1

    def of(self, index: int) -> int:
        """Of the answer of that number."""
        prompt = index // self._each
        return self._sizes[prompt] if 0 <= prompt < len(self._sizes) else 0


def _sizes(fields: Fields) -> tuple[int, ...]:
    raw = given(fields, "prompt")
    value = _PROMPTS.decode(raw) if raw is not None else ""
    if isinstance(value, str):
        return (text_size(value),)
    if value and isinstance(value[0], int):
        return (len(value) * BYTES_PER_TOKEN,)
    return tuple(
        text_size(each) if isinstance(each, str) else len(each) * BYTES_PER_TOKEN for each in value if not isinstance(each, int)
    )


class _CompletionReader:
    def __init__(self, request: ParsedRequest, input_tokens: int) -> None:
        self._echo, self._input_tokens = _Echo(request), input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        reply = decode_reply(_REPLY, body, "completion")
        size = sum(max(0, text_size(choice.text) - self._echo.of(choice.index)) for choice in reply.choices)
        usage = reported(reply.usage)
        counts = disjoint(usage) if usage else None
        return reply_usage(counts, self._input_tokens, size, tier=tier_of(reply.service_tier))


class _CompletionStreamReader(ChatStreamReader):
    chunks: ClassVar[msgspec.json.Decoder[Any]] = _CHUNK

    def __init__(self, request: ParsedRequest) -> None:
        super().__init__(request)
        self._echo = _Echo(request)
        self._said: dict[int, int] = {}  # bytes of each answer that were its prompt

    def _choice(self, choice: _Choice) -> None:
        index, size = choice.index, text_size(choice.text)
        if size:
            self.started = True
            again = min(size, self._echo.of(index) - self._said.get(index, 0))
            if again > 0:
                self._said[index] = self._said.get(index, 0) + again
                size -= again
            self.output_bytes += size
        self._mark(index, bool(choice.finish_reason))

    def _odd(self, data: bytes, event: bytes) -> bytes:
        raise invalid("contains an event that is no completion")


__all__ = ["OpenAICompletions"]
