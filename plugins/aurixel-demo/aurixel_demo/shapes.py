"""Writes an answer down in each family's format, whole or as a stream of events. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from aurixel_demo.script import Script

_ERRORS = {400: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}


def error_body(dialect: str, status: int, message: str) -> bytes:
    """An error reply."""
    kind = _ERRORS.get(status, "api_error")
    if dialect == "anthropic_messages":
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})


def whole(dialect: str, script: Script, created: int) -> bytes:
    """The reply to a request that does not stream."""
    if dialect == "openai_completions":
        return msgspec.json.encode(_whole_completion(script, created))
    shape = _whole_messages(script) if dialect == "anthropic_messages" else _whole_chat(script, created)
    return msgspec.json.encode(shape)


def events(dialect: str, script: Script, created: int) -> Iterator[bytes]:
    """The stream, an event at a time; the last one ends it."""
    if dialect == "openai_completions":
        return _completion_events(script, created)
    return _messages_events(script) if dialect == "anthropic_messages" else _chat_events(script, created)


def error_event(dialect: str) -> bytes:
    """The event that says the stream has failed."""
    body = error_body(dialect, 529, "The demo was told to fail.")
    return (b"event: error\n" if dialect == "anthropic_messages" else b"") + b"data: " + body + b"\n\n"


# --- openai_chat ------------------------------------------------------------------------------------------------------


def _chat_usage(script: Script) -> dict[str, int]:
    output = script.output_tokens * script.choices
    return {
        "prompt_tokens": script.input_tokens,
        "completion_tokens": output,
        "total_tokens": script.input_tokens + output,
    }


def _chat_reason(script: Script) -> str:
    return "tool_calls" if script.call else "length" if script.cut else "stop"


def _chat_calls(script: Script, *, indexed: bool) -> list[dict[str, Any]]:
    if script.call is None:
        return []
    function = {"name": script.call.name, "arguments": script.call.arguments}
    call = {"id": f"call_{script.call.id}", "type": "function", "function": function}
    return [{"index": 0, **call} if indexed else call]


def _whole_chat(script: Script, created: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if script.call else script.text, "refusal": None}
    if script.call:
        message["tool_calls"] = _chat_calls(script, indexed=False)
    choice = {"message": message, "logprobs": None, "finish_reason": _chat_reason(script)}
    return {
        "id": f"chatcmpl-{script.id}",
        "object": "chat.completion",
        "created": created,
        "model": script.model,
        "choices": [{"index": index, **choice} for index in range(script.choices)],
        "usage": _chat_usage(script),
    }


def _chat_events(script: Script, created: int) -> Iterator[bytes]:
    base = {
        "id": f"chatcmpl-{script.id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": script.model,
    }
    usage: dict[str, Any] = {"usage": None} if script.include_usage else {}

    def chunk(choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**base, "choices": choices, **usage, **more}) + b"\n\n"

    def delta(index: int, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        return chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}])

    for index in range(script.choices):
        yield delta(index, {"role": "assistant", "content": None if script.call else ""})
        for word in script.words:
            yield delta(index, {"content": word})
        if script.call:
            yield delta(index, {"tool_calls": _chat_calls(script, indexed=True)})
        yield delta(index, {}, _chat_reason(script))
    if script.include_usage:
        yield chunk([], usage=_chat_usage(script))
    yield b"data: [DONE]\n\n"


# --- openai_completions -----------------------------------------------------------------------------------------------


def _text_choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _completion(script: Script, created: int, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    head = {"id": f"cmpl-{script.id}", "object": "text_completion", "created": created, "model": script.model}
    return {**head, "choices": choices}


def _whole_completion(script: Script, created: int) -> dict[str, Any]:
    choices = [_text_choice(index, script.text, _chat_reason(script)) for index in range(script.choices)]
    return {**_completion(script, created, choices), "usage": _chat_usage(script)}


def _completion_events(script: Script, created: int) -> Iterator[bytes]:
    def chunk(choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**_completion(script, created, choices), **more}) + b"\n\n"

    for index in range(script.choices):
        for word in script.words:
            yield chunk([_text_choice(index, word, None)])
        yield chunk([_text_choice(index, "", _chat_reason(script))])
    if script.include_usage:
        yield chunk([], usage=_chat_usage(script))
    yield b"data: [DONE]\n\n"


# --- anthropic_messages -----------------------------------------------------------------------------------------------


def _messages_usage(script: Script, output: int) -> dict[str, int]:
    return {
        "input_tokens": script.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
    }


def _messages_reason(script: Script) -> str:
    return "tool_use" if script.call else "max_tokens" if script.cut else "end_turn"


def _message(script: Script, content: Sequence[Mapping[str, Any]], reason: str | None, output: int) -> dict[str, Any]:
    return {
        "id": f"msg_{script.id}",
        "type": "message",
        "role": "assistant",
        "model": script.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _messages_usage(script, output),
    }


def _tool_use(script: Script, arguments: Mapping[str, Any]) -> dict[str, Any]:
    assert script.call is not None
    return {"type": "tool_use", "id": f"toolu_{script.call.id}", "name": script.call.name, "input": arguments}


def _whole_messages(script: Script) -> dict[str, Any]:
    content: list[Mapping[str, Any]] = []
    if script.call:
        content.append(_tool_use(script, msgspec.json.decode(script.call.arguments)))
    elif script.words:
        content.append({"type": "text", "text": script.text})
    return _message(script, content, _messages_reason(script), script.output_tokens)


def _event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"type": name, **fields}) + b"\n\n"


def _messages_events(script: Script) -> Iterator[bytes]:
    yield _event("message_start", message=_message(script, [], None, min(1, script.output_tokens)))
    if script.call or script.words:
        block = _tool_use(script, {}) if script.call else {"type": "text", "text": ""}
        yield _event("content_block_start", index=0, content_block=block)
        yield _event("ping")
        if script.call:
            delta = {"type": "input_json_delta", "partial_json": script.call.arguments}
            yield _event("content_block_delta", index=0, delta=delta)
        for word in script.words:
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        yield _event("content_block_stop", index=0)
    end = {"stop_reason": _messages_reason(script), "stop_sequence": None}
    yield _event("message_delta", delta=end, usage={"output_tokens": script.output_tokens})
    yield _event("message_stop")
