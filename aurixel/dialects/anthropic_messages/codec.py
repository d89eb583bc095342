"""The canonical form in `anthropic_messages`: what the dialect defines beside `Dialect` to be translated. Pure.

What is refused, dropped and emulated is said where it is done: requests in `..._codec_read` and `..._codec_write`, answers
in `..._codec_replies`, `..._codec_decoder` and `..._codec_encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from aurixel.dialects.anthropic_messages import codec_replies as replies
from aurixel.dialects.anthropic_messages.codec_decoder import MessagesStreamDecoder
from aurixel.dialects.anthropic_messages.codec_encoder import MessagesStreamEncoder
from aurixel.dialects.anthropic_messages.codec_read import read
from aurixel.dialects.anthropic_messages.codec_write import write
from aurixel.dialects.leftovers import own_messages
from aurixel.plugin.canonical import Conversation, Losses, Reply, StreamDecoder, StreamEncoder, Written
from aurixel.plugin.contracts import ModelRules, ParsedRequest


class MessagesCodec:
    """See `ChatCodec`."""

    words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "max_output": "max_tokens",
            "stop": "stop_sequences",
            "reasoning": "thinking",
            "format": "output_config.format",
            "user": "metadata.user_id",
            "parallel_tools": "tool_choice.disable_parallel_tool_use",
            "cache": "cache_control",
            "messages.system": "system",
            "messages.tool_errors": "messages.is_error",
        }
    )

    def read(self, request: ParsedRequest, losses: Losses) -> Conversation:
        """See `ChatCodec`."""
        return read(request, losses)

    def write(self, conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
        """See `ChatCodec`."""
        return write(conversation, rules, losses)

    def own(self, request: ParsedRequest, losses: Losses) -> ParsedRequest:
        """See `ChatCodec`."""
        return own_messages(request, losses)

    def read_reply(self, body: bytes) -> Reply:
        """See `ChatCodec`."""
        return replies.read_reply(body)

    def write_reply(self, reply: Reply, request: ParsedRequest) -> bytes:
        """See `ChatCodec`."""
        return replies.write_reply(reply, request)

    def stream_decoder(self) -> StreamDecoder:
        """See `ChatCodec`."""
        return MessagesStreamDecoder()

    def stream_encoder(self, request: ParsedRequest) -> StreamEncoder:
        """See `ChatCodec`."""
        return MessagesStreamEncoder(request)
