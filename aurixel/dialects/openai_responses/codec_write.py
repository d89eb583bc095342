"""Writes the canonical form as a request of `openai_responses`; it sends no field that the model's traits do not allow.

Whatever the dialect has no place for is put where it has one, or left out; either way `Losses` is told.
"""

from __future__ import annotations

from typing import Final

import msgspec

from aurixel.dialects.openai_codec import effort_of
from aurixel.dialects.openai_responses.codec_tools import Json, schema_name, write_choice, write_tool
from aurixel.dialects.openai_responses.codec_transcript import Transcript
from aurixel.dialects.spelling import Names, end_user
from aurixel.plugin.canonical import Conversation, Format, Losses, Reasoning, Written
from aurixel.plugin.contracts import ModelRules

LEAST_OUTPUT: Final = 16  # upstreams of this dialect refuse less
SEALED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_NOT_SAID: Final = ("top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
_SAMPLING: Final = ("temperature", "top_p")
_NO_SCHEMA: Final = msgspec.Raw(b"{}")
_encode: Final = msgspec.json.Encoder().encode


def write(conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
    """See `ChatCodec`."""
    traits, names = rules.traits, Names(losses)
    transcript = Transcript(conversation.messages, names, losses, traits)
    body: Json = {"model": conversation.model}
    if transcript.instructions is not None:
        body["instructions"] = transcript.instructions
    body["input"] = transcript.items
    if conversation.stream:
        body["stream"] = True
    for name in _NOT_SAID:
        if getattr(conversation, name) is not None:
            losses.drop(name)
    if conversation.stop:
        losses.drop("stop")
    for name in _SAMPLING:
        if (value := getattr(conversation, name)) is not None:
            if "no_sampling" in traits:
                losses.drop(name)
            else:
                body[name] = value
    if (limit := conversation.max_output) is not None:
        sent = min(max(limit, LEAST_OUTPUT), max(rules.max_output, LEAST_OUTPUT))
        if sent != limit:
            losses.change("max_output")
        body["max_output_tokens"] = sent
    include = []
    if conversation.reasoning is not None and (asked := _reasoning(conversation.reasoning, traits, losses)):
        body["reasoning"] = asked
    if "reasoning" in traits:
        include.append(SEALED)
    if conversation.logprobs is not None:
        include.append(LOGPROBS)
        body["top_logprobs"] = conversation.logprobs
    if include:
        body["include"] = include
    text: Json = {}
    if conversation.format is not None:
        text["format"] = _format(conversation.format)
    if conversation.verbosity is not None:
        text["verbosity"] = conversation.verbosity
    if text:
        body["text"] = text
    if conversation.user is not None:
        losses.change("user")
        body["safety_identifier"] = end_user(conversation.user)
    if conversation.cache_key is not None:
        body["prompt_cache_key"] = conversation.cache_key
    if conversation.cache is not None:
        if transcript.marks:
            body["prompt_cache_options"] = {"mode": "implicit", "ttl": "30m"}
        else:
            losses.drop("cache")
    _write_tools(body, conversation, names, losses, "custom_tools" in traits)
    body["store"] = False
    return Written(body=_encode(body), names=names.changed, wrapped=frozenset(names.wrapped))


def _reasoning(asked: Reasoning, traits: frozenset[str], losses: Losses) -> Json | None:
    off = asked.enabled is False or asked.effort == "none"
    if "reasoning" not in traits:
        if not off:
            losses.drop("reasoning")
        return None
    written: Json = {}
    if off:
        written["effort"] = "none"
    elif asked.effort is not None:
        written["effort"] = asked.effort
    elif asked.budget is not None:
        losses.change("reasoning")
        written["effort"] = effort_of(asked.budget)
    if asked.shown and not off:
        written["summary"] = "auto"
    return written or None


def _format(asked: Format) -> Json:
    if asked.kind == "json_object":
        return {"type": "json_object"}
    schema = _NO_SCHEMA if asked.schema is None else asked.schema
    form: Json = {"type": "json_schema", "name": schema_name(asked.name), "schema": schema}
    if asked.description is not None:
        form["description"] = asked.description
    if asked.strict is not None:
        form["strict"] = asked.strict
    return form


def _write_tools(body: Json, conversation: Conversation, names: Names, losses: Losses, native: bool) -> None:
    tools, choice = conversation.tools, conversation.tool_choice
    if not tools:
        return
    body["tools"] = [write_tool(tool, names, losses, native=native) for tool in tools]
    if choice is not None:
        body["tool_choice"] = write_choice(choice, tools, names, native=native)
    if conversation.parallel_tools is not None:
        body["parallel_tool_calls"] = conversation.parallel_tools


__all__ = ["write"]
