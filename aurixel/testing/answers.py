"""Ready answers of both families for the scripted upstream: the shapes that matter to a relay and its meter, no more.

Each takes the text and the usage, as the upstream would report it; streams come as a list of whole SSE events.
`usage=None` leaves the usage out, as some upstreams do.

    upstream.reply(json=openai_chat_reply("Hello", openai_chat_usage(12, 3)))
    upstream.stream(anthropic_messages_events("Hello", anthropic_messages_usage(12, 3)), chunks=7)
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

_CREATED = 1_790_000_000


def openai_chat_usage(prompt: int, completion: int, *, cached: int = 0, cache_write: int = 0, reasoning: int = 0) -> Json:
    """Chat usage. `cached` and `cache_write` are part of `prompt`, `reasoning` is part of `completion`."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def openai_chat_reply(text: str, usage: Json | None, *, model: str = "test-model", finish: str = "stop") -> Json:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    reply: Json = {"id": "chatcmpl-1", "object": "chat.completion", "created": _CREATED, "model": model, "choices": [choice]}
    return reply if usage is None else reply | {"usage": usage}


def openai_chat_events(
    text: str, usage: Json | None, *, model: str = "test-model", finish: str = "stop", done: bool = True
) -> list[bytes]:
    """A streamed chat completion, an event a word; `done=False` leaves out the terminal `[DONE]`."""

    def chunk(choices: list[Json], **more: Json | None) -> bytes:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": _CREATED, "model": model}
        return _event(head | {"choices": choices} | more)

    def delta(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return chunk([choice]) if usage is None else chunk([choice], usage=None)

    events = [delta({"role": "assistant", "content": ""})]
    events += [delta({"content": word}) for word in _words(text)]
    events.append(delta({}, finish))
    if usage is not None:
        events.append(chunk([], usage=usage))
    if done:
        events.append(b"data: [DONE]\n\n")
    return events


def openai_responses_usage(input: int, output: int, *, cached: int = 0, cache_write: int = 0, reasoning: int = 0) -> Json:
    """Responses usage. `cached` and `cache_write` are part of `input`, `reasoning` is part of `output`."""
    return {
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input + output,
    }


def openai_responses_reply(text: str, usage: Json | None, *, model: str = "test-model", status: str = "completed") -> Json:
    """A whole response; "incomplete" ends at its output limit."""
    return _response(model, status, [_output_message(text)], usage)


def openai_responses_events(
    text: str, usage: Json | None, *, model: str = "test-model", status: str = "completed", done: bool = True
) -> list[bytes]:
    """A streamed response, a delta a word; `done=False` leaves out the event that ends it."""
    begun, message = _response(model, "in_progress", [], None), _output_message(text)
    place: Json = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    part = message["content"][0]
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": message | {"status": "in_progress", "content": []}},
        {"type": "response.content_part.added", **place, "part": empty},
        *({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in _words(text)),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
    ]
    if done:
        events.append({"type": f"response.{status}", "response": _response(model, status, [message], usage)})
    return [_event(event | {"sequence_number": number}, event["type"]) for number, event in enumerate(events)]


def openai_error(message: str, *, type: str = "invalid_request_error", code: str | None = None) -> Json:
    """An error body of the OpenAI family."""
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def anthropic_messages_usage(input: int, output: int, *, cache_read: int = 0, write_5m: int = 0, write_1h: int = 0) -> Json:
    """Messages usage. The classes are disjoint: cached tokens come on top of `input`."""
    return {
        "input_tokens": input,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens": output,
        "service_tier": "standard",
    }


def anthropic_messages_reply(text: str, usage: Json | None, *, model: str = "test-model", stop: str = "end_turn") -> Json:
    """A whole message."""
    return _message(model) | {
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop,
        **({} if usage is None else {"usage": usage}),
    }


def anthropic_messages_events(
    text: str, usage: Json | None, *, model: str = "test-model", stop: str = "end_turn", done: bool = True
) -> list[bytes]:
    """A streamed message, a delta a word; `done=False` leaves out the terminal `message_stop`."""
    start = _message(model)
    end: Json = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
    if usage is not None:
        start["usage"] = usage | {"output_tokens": min(1, usage["output_tokens"])}
        end["usage"] = {"output_tokens": usage["output_tokens"]}
    events: list[Json] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    deltas = ({"type": "text_delta", "text": word} for word in _words(text))
    events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    events += [{"type": "content_block_stop", "index": 0}, end]
    if done:
        events.append({"type": "message_stop"})
    return [_event(event, event["type"]) for event in events]


def anthropic_error(message: str, *, type: str = "invalid_request_error") -> Json:
    """An error body of the Anthropic family, and the data of its error event."""
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def anthropic_error_event(message: str, *, type: str = "overloaded_error") -> bytes:
    """The error event of a stream of the Anthropic family."""
    return _event(anthropic_error(message, type=type), "error")


def _message(model: str) -> Json:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    return head | {"content": [], "stop_reason": None, "stop_sequence": None}


def _output_message(text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _response(model: str, status: str, output: list[Json], usage: Json | None) -> Json:
    why = {"reason": "max_output_tokens"} if status == "incomplete" else None
    head = {"id": "resp_1", "object": "response", "created_at": _CREATED, "status": status, "error": None}
    more: Json = {"incomplete_details": why, "model": model, "output": output, "parallel_tool_calls": True, "tools": []}
    return head | more | {"tool_choice": "auto", "usage": usage}


def _event(data: Json, name: str = "") -> bytes:
    lines = f"event: {name}\n" if name else ""
    return f"{lines}data: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}\n\n".encode()


def _words(text: str) -> list[str]:
    """The text in pieces that add up to it."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]] if text else []
