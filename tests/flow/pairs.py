"""The three chat dialects, as an official SDK asks in each, and as an upstream answers in each, for the nine pairs of them.

An answer is told once, in neutral parts, and written here in each dialect's own wire format: nothing of the gateway's
translation has a hand in that. What an SDK saw is told as the fields that a program reads, the same for a stream as for a
whole reply.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import anthropic
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from aurixel.testing.scripted import ScriptedUpstream
from tests.flow.gateway import upstream
from tests.flow.shared import House, sharing
from tests.flow.test_endings import CHAT, MESSAGES

Json: TypeAlias = dict[str, Any]

DIALECTS = ("chat", "responses", "messages")
NAMES = {"chat": "openai_chat", "responses": "openai_responses", "messages": "anthropic_messages"}
PATHS = {"chat": CHAT, "responses": "/v1/responses", "messages": MESSAGES}
PAIRS = [(client, up) for client in DIALECTS for up in DIALECTS]
CROSSED = [(client, up) for client, up in PAIRS if client != up]

_MODEL = """
[models."on-{0}{1}"]
operations = ["chat"]
context = 128000
max_output = 4096
traits = {2}
routes = [{{ upstream = "{0}", model = "up-{0}" }}]
"""
# Of each upstream dialect a model that can do much, and a plain one.
_ABLE = '["adaptive_thinking", "cache_breakpoints", "custom_tools", "reasoning", "structured_outputs", "system_turns"]'
MODELS = "".join(_MODEL.format(up, *more) for up in DIALECTS for more in (("", _ABLE), ("-plain", "[]")))
# Of each two upstream dialects a model that the second answers for where the first cannot.
_TWO = """
[models."on-{0}-{1}"]
operations = ["chat"]
context = 128000
max_output = 4096
routes = [{{ upstream = "{0}", model = "up-{0}" }}, {{ upstream = "{1}", model = "up-{1}" }}]
"""
MODELS += "".join(_TWO.format(*pair) for pair in CROSSED)
# US dollars for a million tokens, of which one is that many thousand nano-dollars.
_PRICE = """
[[price]]
model = "on-{}{}"
effective = 2025-01-01
input = "{}"
cache_read = "{}"
cache_write_5m = "{}"
cache_write_1h = "{}"
output = "{}"
"""
PRICES = "".join(
    _PRICE.format(up, kind, *prices)
    for up, *prices in (
        ("chat", "1.00", "0.10", "1.30", "1.70", "7.00"),
        ("responses", "2.00", "0.20", "2.50", "2.90", "11.00"),
        ("messages", "3.00", "0.30", "3.75", "6.00", "15.00"),
    )
    for kind in ("", "-plain", *(f"-{other}" for other in DIALECTS if other != up))
)


def blocks(url: str) -> str:
    """The upstreams of those models, all at one address (TOML)."""
    return "\n".join(
        [
            upstream("chat", "openai", f"{url}/v1"),
            upstream("responses", "openai", f"{url}/v1") + 'speaks = ["responses"]\n',
            upstream("messages", "anthropic", url),
        ]
    )


def pairing(folder: Path) -> AbstractAsyncContextManager[House]:
    """A house whose models `on-chat`, `on-responses` and `on-messages` are answered by its `up`, each in its dialect."""
    return sharing(folder, more=blocks, models=MODELS, prices=PRICES)


def answering(up: ScriptedUpstream, dialect: str, answer: Json, *, streamed: bool) -> None:
    """Let `up` answer so in that dialect, and in no other."""
    if streamed:
        up.stream(events(dialect, answer), path=PATHS[dialect])
    else:
        up.reply(body=json.dumps(whole(dialect, answer), ensure_ascii=False).encode(), path=PATHS[dialect])


# --- how an upstream answers -------------------------------------------------------------------------------------------


def whole(dialect: str, answer: Json) -> Json:
    """The answer as a whole reply of the dialect. `answer`: `parts` in order (`{"text"}`, `{"thinking", "sealed"}`,
    `{"redacted"}`, `{"refusal"}`, `{"call": [id, name, arguments]}`), and by dialect `stop` and `usage`."""
    return {"chat": _chat, "responses": _response, "messages": _message}[dialect](answer)


def events(dialect: str, answer: Json) -> list[bytes]:
    """The answer as a stream of the dialect: text by the word, arguments in pieces, parallel calls interleaved where the
    dialect allows it."""
    return {"chat": _chat_events, "responses": _response_events, "messages": _message_events}[dialect](answer)


def _sse(data: Json | str, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def _pieces(text: str, size: int = 5) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _interleaved(lists: Iterable[list[Any]]) -> list[Any]:
    return [each for row in zip_longest(*lists) for each in row if each is not None]


def _said(answer: Json, kind: str) -> str:
    return "".join(part[kind] for part in answer["parts"] if kind in part)


def _chat(answer: Json) -> Json:
    message: Json = {"role": "assistant", "content": _said(answer, "text") or None, "refusal": _said(answer, "refusal") or None}
    if thought := _said(answer, "thinking"):
        message["reasoning_content"] = thought
    calls = [part["call"] for part in answer["parts"] if "call" in part]
    if calls:
        message["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call, name, arguments in calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer["stop"]["chat"]}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": "up-chat"}
    return head | {"choices": [choice], "usage": answer["usage"]["chat"]}


def _chat_events(answer: Json) -> list[bytes]:
    def chunk(choices: list[Json], usage: Json | None = None) -> bytes:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "up-chat"}
        return _sse(head | {"choices": choices, "usage": usage})

    def delta(**fields: Any) -> bytes:
        return chunk([{"index": 0, "delta": fields, "logprobs": None, "finish_reason": None}])

    out, calls = [delta(role="assistant", content="")], []
    for part in answer["parts"]:
        for kind, field in (("thinking", "reasoning_content"), ("text", "content"), ("refusal", "refusal")):
            out += [delta(**{field: piece}) for piece in _pieces(part.get(kind, ""))]
        if "call" in part:
            index, (call, name, arguments) = len(calls), part["call"]
            function = {"name": name, "arguments": ""}
            begun = delta(tool_calls=[{"index": index, "id": call, "type": "function", "function": function}])
            pieces = _pieces(arguments)
            more = [delta(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces]
            calls.append([begun, *more])
    out += _interleaved(calls)
    out.append(chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": answer["stop"]["chat"]}]))
    return [*out, chunk([], answer["usage"]["chat"]), _sse("[DONE]")]


def _item(number: int, part: Json) -> Json:
    if "call" in part:
        call, name, arguments = part["call"]
        ids = {"id": f"fc_{number}", "call_id": call}
        return {"type": "function_call", **ids, "name": name, "arguments": arguments, "status": "completed"}
    if "text" in part or "refusal" in part:
        content = {"type": "output_text", "text": part.get("text"), "annotations": [], "logprobs": []}
        if "refusal" in part:
            content = {"type": "refusal", "refusal": part["refusal"]}
        return {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [content]}
    summary = [{"type": "summary_text", "text": part["thinking"]}] if part.get("thinking") else []
    sealed = part.get("redacted", part.get("sealed"))
    return {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": sealed}


def _response(answer: Json, status: str | None = None) -> Json:
    stop = answer["stop"]["responses"]
    items = [_item(*pair) for pair in enumerate(answer["parts"])]
    if stop != "completed":
        items[-1]["status"] = "incomplete"
    begun = status is not None
    status = status or ("completed" if stop == "completed" else "incomplete")
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": stop} if status == "incomplete" else None,
        "model": "up-responses",
        "output": [] if begun else items,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if begun else answer["usage"]["responses"],
    }


def _response_events(answer: Json) -> list[bytes]:
    begun = _response(answer, "in_progress")
    out: list[Json] = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    calls = []
    end = _response(answer)
    for number, (part, item) in enumerate(zip(answer["parts"], end["output"], strict=True)):
        place: Json = {"item_id": item["id"], "output_index": number}
        done = {"type": "response.output_item.done", "output_index": number, "item": item}

        def opened(place: Json = place, item: Json = item, **empty: Any) -> Json:
            return {"type": "response.output_item.added", "output_index": place["output_index"], "item": item | empty}

        if "call" in part:
            kind = "response.function_call_arguments"
            deltas = [{"type": f"{kind}.delta", **place, "delta": piece} for piece in _pieces(item["arguments"])]
            said = {"type": f"{kind}.done", **place, "name": item["name"], "arguments": item["arguments"]}
            calls.append([opened(arguments="", status="in_progress"), *deltas, said, done])
        elif item["type"] == "message":
            place["content_index"] = 0
            (content,) = item["content"]
            field = "text" if "text" in part else "refusal"
            kind = "response.output_text" if field == "text" else "response.refusal"
            more: Json = {"logprobs": []} if field == "text" else {}
            out += [opened(content=[], status="in_progress")]
            out += [{"type": "response.content_part.added", **place, "part": content | {field: ""}}]
            out += [{"type": f"{kind}.delta", **place, "delta": piece, **more} for piece in _pieces(part[field])]
            out += [{"type": f"{kind}.done", **place, field: part[field], **more}]
            out += [{"type": "response.content_part.done", **place, "part": content}, done]
        else:
            out.append(opened(summary=[], encrypted_content=None))
            if item["summary"]:
                place["summary_index"] = 0
                summary, kind = item["summary"][0], "response.reasoning_summary"
                out += [{"type": f"{kind}_part.added", **place, "part": summary | {"text": ""}}]
                out += [{"type": f"{kind}_text.delta", **place, "delta": piece} for piece in _pieces(summary["text"])]
                out += [{"type": f"{kind}_text.done", **place, "text": summary["text"]}]
                out += [{"type": f"{kind}_part.done", **place, "part": summary}]
            out.append(done)
    out += _interleaved(calls)
    out.append({"type": f"response.{end['status']}", "response": end})
    return [_sse(event | {"sequence_number": number}, event["type"]) for number, event in enumerate(out)]


def _block(part: Json) -> Json:
    if "call" in part:
        call, name, arguments = part["call"]
        return {"type": "tool_use", "id": call, "name": name, "input": json.loads(arguments)}
    if "redacted" in part:
        return {"type": "redacted_thinking", "data": part["redacted"]}
    if "thinking" in part:
        return {"type": "thinking", "thinking": part["thinking"], "signature": part["sealed"]}
    return {"type": "text", "text": part["text"]}


def _message(answer: Json) -> Json:
    stop = answer["stop"]["messages"]
    stop = stop if isinstance(stop, dict) else {"stop_reason": stop, "stop_sequence": None}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up-messages"}
    blocks = [_block(part) for part in answer["parts"] if "refusal" not in part]
    return head | {"content": blocks, **stop, "usage": answer["usage"]["messages"]}


def _message_events(answer: Json) -> list[bytes]:
    message = _message(answer)
    usage = message["usage"]
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    start["usage"].pop("output_tokens_details", None)
    stop = {name: value for name, value in message.items() if name.startswith("stop_")}
    start.pop("stop_details", None)
    out: list[Json] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        deltas: list[Json] = []
        opened = block
        if block["type"] == "text":
            opened = block | {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        elif block["type"] == "thinking":
            opened = block | {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            opened = block | {"input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in _pieces(json.dumps(block["input"], ensure_ascii=False))
            ]
        out.append({"type": "content_block_start", "index": index, "content_block": opened})
        out += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        out.append({"type": "content_block_stop", "index": index})
    out.append({"type": "message_delta", "delta": stop, "usage": usage})
    return [_sse(event, event["type"]) for event in (*out, {"type": "message_stop"})]


# --- how an SDK asks ---------------------------------------------------------------------------------------------------


class Heard:
    """One answer as an SDK gave it: `fields` as a program reads them, `reply` the SDK's own object, `headers`."""

    def __init__(self, fields: Json, reply: Any, headers: Mapping[str, str]) -> None:
        self.fields, self.reply, self.headers = fields, reply, headers


class Client(Protocol):
    """An official SDK. `errors`: its exceptions' module."""

    errors: ClassVar[Any]

    async def ask(self, request: Json) -> Heard:
        """A whole reply."""

    async def stream(self, request: Json) -> Heard:
        """A streamed one, put together by the SDK."""

    def again(self, reply: Any) -> list[Json]:
        """The reply as the messages (or items) that the next turn gives back: what the SDK's object says, no more."""


class ChatClient:
    """`openai`, chat completions."""

    errors: ClassVar[Any] = openai

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self.create = sdk.chat.completions.with_raw_response.create

    async def ask(self, request: Json) -> Heard:
        raw = await self.create(**request)
        reply = raw.parse()
        return Heard(self._fields(reply), reply, raw.headers)

    async def stream(self, request: Json) -> Heard:
        raw: Any = await self.create(**request, stream=True, stream_options={"include_usage": True})
        state: Any = ChatCompletionStreamState()
        async for chunk in raw.parse():
            state.handle_chunk(chunk)
        reply = state.current_completion_snapshot
        return Heard(self._fields(reply), reply, raw.headers)

    def again(self, reply: Any) -> list[Json]:
        message = reply.choices[0].message.to_dict(mode="json")
        message.pop("parsed", None)
        for call in message.get("tool_calls") or ():
            call.pop("index", None)  # the stream's, which the SDK keeps
            call["function"].pop("parsed_arguments", None)
        return [message]

    @staticmethod
    def _fields(reply: Any) -> Json:
        (choice,) = reply.choices
        message = choice.message
        told: Json = {"content": message.content or None, "finish_reason": choice.finish_reason, "usage": _numbers(reply.usage)}
        if message.refusal:
            told["refusal"] = message.refusal
        if message.tool_calls:
            told["tool_calls"] = [[call.id, call.function.name, call.function.arguments] for call in message.tool_calls]
        for name in ("reasoning_content", "thinking_blocks"):
            if name in (message.model_extra or {}):
                told[name] = message.model_extra[name]
        return told


class ResponsesClient:
    """`openai`, responses."""

    errors: ClassVar[Any] = openai

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self.sdk = sdk

    async def ask(self, request: Json) -> Heard:
        raw = await self.sdk.responses.with_raw_response.create(**request)
        reply = raw.parse()
        return Heard(self._fields(reply), reply, raw.headers)

    async def stream(self, request: Json) -> Heard:
        pieces: defaultdict[int, str] = defaultdict(str)
        reply = None
        async with self.sdk.responses.stream(**request) as stream:
            async for event in stream:
                if event.type in ("response.completed", "response.incomplete"):
                    reply = event.response
                elif event.type.endswith(".delta"):
                    pieces[event.output_index] += event.delta
            told = self._fields(reply)
            # What the last event tells as a whole is what the deltas told.
            assert [pieces[at] for at in range(len(reply.output))] == [_strings(item) for item in told["output"]]
            return Heard(told, reply, stream._response.headers)

    def again(self, reply: Any) -> list[Json]:
        items = [item.to_dict(mode="json") for item in reply.output]
        for item in items:
            item.pop("parsed_arguments", None)
            for part in item.get("content") or ():
                part.pop("parsed", None)
        return items

    @staticmethod
    def _fields(reply: Any) -> Json:
        output: list[Json] = []
        for item in reply.output:
            if item.type == "message":
                output += [{part.type: part.text if part.type == "output_text" else part.refusal} for part in item.content]
            elif item.type == "reasoning":
                output.append({"reasoning": "".join(part.text for part in item.summary), "sealed": item.encrypted_content})
            else:
                output.append({item.type: [item.call_id, item.name, item.arguments]})
        status = reply.incomplete_details.reason if reply.incomplete_details else reply.status
        return {"output": output, "status": status, "usage": _numbers(reply.usage)}


class MessagesClient:
    """`anthropic`, messages."""

    errors: ClassVar[Any] = anthropic

    def __init__(self, sdk: anthropic.AsyncAnthropic) -> None:
        self.sdk = sdk

    async def ask(self, request: Json) -> Heard:
        raw = await self.sdk.messages.with_raw_response.create(**request)
        reply: Any = await raw.parse()
        return Heard(self._fields(reply), reply, raw.headers)

    async def stream(self, request: Json) -> Heard:
        async with self.sdk.messages.stream(**request) as stream:
            reply = await stream.get_final_message()
            return Heard(self._fields(reply), reply, stream.response.headers)

    def again(self, reply: Any) -> list[Json]:
        blocks = [block.to_dict(mode="json") for block in reply.content]
        for block in blocks:
            block.pop("parsed_output", None)
        return [{"role": "assistant", "content": blocks}]

    @staticmethod
    def _fields(reply: Any) -> Json:
        content: list[Json] = []
        for block in reply.content:
            if block.type == "text":
                content.append({"text": block.text})
            elif block.type == "tool_use":
                content.append({"tool_use": [block.id, block.name, block.input]})
            elif block.type == "thinking":
                content.append({"thinking": block.thinking, "signature": block.signature})
            else:
                content.append({block.type: block.data})
        usage = _numbers(reply.usage)
        usage.pop("service_tier", None)
        told = {"content": content, "stop_reason": reply.stop_reason, "usage": usage}
        if reply.stop_sequence is not None:
            told["stop_sequence"] = reply.stop_sequence
        if (details := reply.to_dict().get("stop_details")) is not None:
            told["explanation"] = details["explanation"]
        return told


def _strings(item: Json) -> str:
    """What of an item is told in deltas."""
    (said, *_) = item.values()
    return said[-1] if isinstance(said, list) else said


def _numbers(usage: Any) -> Json:
    """The SDK's usage without what is none or nought, nested fields by their path."""
    found: Json = {}
    for name, value in usage.to_dict(mode="json").items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": number for inner, number in value.items() if number}
        elif value:
            found[name] = value
    return found


@asynccontextmanager
async def speaking(dialect: str, url: str, key: str, *, retries: int = 0) -> AsyncIterator[Client]:
    """The SDK of the dialect."""
    if dialect == "messages":
        plain = anthropic.DefaultAsyncHttpxClient(verify=False)  # as the SDK makes it, without reading certificates
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=retries, http_client=plain) as claude:
            yield MessagesClient(claude)
        return
    bare = openai.DefaultAsyncHttpxClient(verify=False)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries, http_client=bare) as sdk:
        yield ChatClient(sdk) if dialect == "chat" else ResponsesClient(sdk)
