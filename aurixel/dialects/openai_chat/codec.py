"""What makes `openai_chat` translatable: its requests and answers to and from the canonical form; pure, no metering."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from aurixel.dialects.leftovers import own_chat
from aurixel.dialects.openai_chat import codec_read, codec_replies, codec_write
from aurixel.dialects.openai_chat.codec_streams import ChatDecoder, ChatEncoder
from aurixel.plugin.canonical import Conversation, Losses, Reply, StreamDecoder, StreamEncoder, Written
from aurixel.plugin.contracts import ModelRules, ParsedRequest


class OpenAIChatCodec:
    """See `ChatCodec`; the dialect inherits it."""

    words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "cache": "prompt_cache_options",
            "cache_key": "prompt_cache_key",
            "format": "response_format",
            "max_output": "max_completion_tokens",
            "messages.cache_control": "messages.prompt_cache_breakpoint",
            "messages.names": "messages.name",
            "messages.thinking": "messages.thinking_blocks",
            "parallel_tools": "parallel_tool_calls",
            "reasoning": "reasoning_effort",
            "user": "safety_identifier",
        }
    )

    def read(self, request: ParsedRequest, losses: Losses) -> Conversation:
        """See `ChatCodec`."""
        return codec_read.read(request, losses)

    def write(self, conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
        """See `ChatCodec`."""
        return codec_write.write(conversation, rules, losses)

    def own(self, request: ParsedRequest, losses: Losses) -> ParsedRequest:
        """See `ChatCodec`."""
        return own_chat(request, losses)

    def read_reply(self, body: bytes) -> Reply:
        """See `ChatCodec`."""
        return codec_replies.read_reply(body)

    def write_reply(self, reply: Reply, request: ParsedRequest) -> bytes:
        """See `ChatCodec`."""
        return codec_replies.write_reply(reply, request)

    def stream_decoder(self) -> StreamDecoder:
        """See `ChatCodec`."""
        return ChatDecoder()

    def stream_encoder(self, request: ParsedRequest) -> StreamEncoder:
        """See `ChatCodec`."""
        return ChatEncoder(request)
