"""The wire formats: pure functions of bytes. They do no I/O, know no vendor, and keep nothing of what they read.

The module is a plugin like any other: the registry takes the built-in dialects through `register_dialects`.
"""

from __future__ import annotations

from collections.abc import Iterable

from aurixel.dialects.anthropic_messages.dialect import AnthropicMessages
from aurixel.dialects.families import Family, encode_error, family_of, model_card, models_list
from aurixel.dialects.openai_beside_chat.completions import OpenAICompletions
from aurixel.dialects.openai_beside_chat.embeddings import OpenAIEmbeddings
from aurixel.dialects.openai_beside_chat.image_edits import OpenAIImageEdits, OpenAIImageVariations
from aurixel.dialects.openai_beside_chat.images import OpenAIImages
from aurixel.dialects.openai_beside_chat.moderations import OpenAIModerations
from aurixel.dialects.openai_beside_chat.speech import OpenAISpeech
from aurixel.dialects.openai_beside_chat.transcriptions import OpenAITranscriptions, OpenAITranslations
from aurixel.dialects.openai_chat.dialect import OpenAIChat
from aurixel.dialects.openai_responses.dialect import OpenAIResponses
from aurixel.plugin.contracts import Dialect
from aurixel.plugin.hookspecs import hookimpl


@hookimpl
def register_dialects() -> Iterable[type[Dialect]]:
    """The built-in dialects."""
    return (
        OpenAIChat,
        OpenAIResponses,
        AnthropicMessages,
        OpenAICompletions,
        OpenAIEmbeddings,
        OpenAIModerations,
        OpenAIImages,
        OpenAIImageEdits,
        OpenAIImageVariations,
        OpenAISpeech,
        OpenAITranscriptions,
        OpenAITranslations,
    )


__all__ = [
    "AnthropicMessages",
    "Family",
    "OpenAIChat",
    "OpenAICompletions",
    "OpenAIEmbeddings",
    "OpenAIImageEdits",
    "OpenAIImageVariations",
    "OpenAIImages",
    "OpenAIModerations",
    "OpenAIResponses",
    "OpenAISpeech",
    "OpenAITranscriptions",
    "OpenAITranslations",
    "encode_error",
    "family_of",
    "model_card",
    "models_list",
    "register_dialects",
]
