"""What makes `openai_responses` translatable: its requests and answers to and from the canonical form; pure, no metering."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from aurixel.dialects.leftovers import own_responses
from aurixel.dialects.openai_responses import codec_read, codec_replies, codec_write
from aurixel.dialects.openai_responses.codec_decoder import ResponsesDecoder
from aurixel.dialects.openai_responses.codec_encoder import ResponsesEncoder
from aurixel.plugin.canonical import Conversation, Losses, Reply, StreamDecoder, StreamEncoder, Written
from aurixel.plugin.contracts import ModelRules, ParsedRequest


class OpenAIResponsesCodec:
    """See `ChatCodec`; the dialect inherits it."""

    words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "cache": "prompt_cache_options",
            "cache_key": "prompt_cache_key",
            "citations": "input.annotations",
            "format": "text.format",
            "image.detail": "input.detail",
            "logprobs": "top_logprobs",
            "max_output": "max_output_tokens",
            "messages": "input",
            "messages.cache_control": "input.prompt_cache_breakpoint",
            "messages.documents": "input.input_file",
            "messages.images": "input.input_image",
            "messages.refusal": "input.refusal",
            "messages.system": "input.developer",
            "messages.thinking": "input.reasoning",
            "parallel_tools": "parallel_tool_calls",
            "user": "safety_identifier",
            "verbosity": "text.verbosity",
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
        return own_responses(request, losses)

    def read_reply(self, body: bytes) -> Reply:
        """See `ChatCodec`."""
        return codec_replies.read_reply(body)

    def write_reply(self, reply: Reply, request: ParsedRequest) -> bytes:
        """See `ChatCodec`."""
        return codec_replies.write_reply(reply, request)

    def stream_decoder(self) -> StreamDecoder:
        """See `ChatCodec`."""
        return ResponsesDecoder()

    def stream_encoder(self, request: ParsedRequest) -> StreamEncoder:
        """See `ChatCodec`."""
        return ResponsesEncoder(request)
