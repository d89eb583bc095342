"""`openai_embeddings`: POST /v1/embeddings. Texts or token numbers in, vectors out, as floats or base64 as the client asked.

There is no output to charge: an embedding is paid for by its input, and a report of none is not believed. Refused is an answer
without any vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from aurixel.dialects.json_fields import check_content_type, decode_object, given, missing, read_model
from aurixel.dialects.openai_beside_chat.outline import OpenAIMedia, decode_reply, refuse_tiers, used
from aurixel.dialects.openai_beside_chat.texts import bound_of, read_texts
from aurixel.dialects.readers import Count, invalid
from aurixel.plugin.contracts import ParsedRequest, ReplyReader
from aurixel.values import Usage

_NOT_INPUT: Final = frozenset({"dimensions", "encoding_format", "model", "service_tier", "store", "user"})


class _Usage(msgspec.Struct, gc=False):
    """Some vendors say only the total, which is the same."""

    prompt_tokens: Count | None = None
    total_tokens: Count | None = None


class _Reply(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    usage: _Usage | None = None


_REPLY: Final = msgspec.json.Decoder(_Reply)


class OpenAIEmbeddings(OpenAIMedia):
    """The dialect."""

    name: ClassVar[str] = "openai_embeddings"
    operation: ClassVar[str] = "embeddings"

    def parse_request(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        """See `Dialect`."""
        check_content_type(headers)
        fields = decode_object(body)
        model = read_model(fields)
        refuse_tiers(fields)
        raw = given(fields, "input")
        if raw is None:
            raise missing("input")
        return ParsedRequest(
            dialect=self.name,
            model=model,
            stream=False,
            fields=fields,
            bound=bound_of(fields, _NOT_INPUT, "input", read_texts(raw, "input")),
            output_limit=0,
        )

    def reply_reader(self, request: ParsedRequest, input_tokens: int) -> ReplyReader:
        """See `Dialect`."""
        del request
        return _EmbeddingReader(input_tokens)


class _EmbeddingReader:
    def __init__(self, input_tokens: int) -> None:
        self._input_tokens = input_tokens

    def read(self, body: bytes) -> Usage:
        """See `ReplyReader`."""
        reply = decode_reply(_REPLY, body, "list of embeddings")
        if not reply.data:
            raise invalid("has no embeddings")
        told = reply.usage
        tokens = None if told is None else told.total_tokens if told.prompt_tokens is None else told.prompt_tokens
        return used({"input": tokens} if tokens else None, {"input": self._input_tokens}, {})


__all__ = ["OpenAIEmbeddings"]
