"""The bench's upstream: as cheap as Python allows, answering by the model's name; it checks nothing.

bench-small: a small JSON reply · bench-voice: 64 KB of sound · an upload: a short transcript · bench-stream: events, one
each tick · bench-idle: one event, then silence until the client leaves. `python -m tests.bench.upstream` prints its port.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

import uvloop

TICK = 0.004
_MODEL = re.compile(rb'"model"\s*:\s*"bench-(\w+)"')
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}


def _small() -> bytes:
    reply = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench-small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "All work and no play makes a dull answer.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
    body = json.dumps(reply).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _event(delta: dict[str, object], finish: str | None = None, usage: object = None) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "bench-stream",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": usage,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _heard() -> bytes:
    body = json.dumps({"text": "All work and no play.", "usage": {"type": "duration", "seconds": 780}}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


SMALL = _small()
HEARD = _heard()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SPOKEN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
    + _chunk(b"\xff\xfb\x90\x00" * 4096) * 4
    + b"0\r\n\r\n"
)
FIRST = _chunk(_event({"role": "assistant", "content": ""}))
DELTA = _chunk(_event({"content": " token"}))
LAST = (
    _chunk(_event({}, "stop"))
    + _chunk(b"data: " + json.dumps({"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000,
                                     "model": "bench-stream", "choices": [], "usage": _USAGE}).encode() + b"\n\n")
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)  # fmt: skip


class Upstream(asyncio.Protocol):
    """One connection: requests one after another."""

    def __init__(self, deltas: int) -> None:
        self._deltas = deltas
        self._parts: list[bytes] = []
        self._have = 0
        self._need: int | None = None
        self._upload = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect a request; answer when it is whole."""
        if self._need is None or not self._upload:
            self._parts.append(data)
        self._have += len(data)
        if self._need is None:
            whole = b"".join(self._parts)
            end = whole.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(whole, 0, end)
            self._upload = whole.startswith(b"POST /v1/audio/transcriptions")
            self._parts, self._need = [whole], end + 4 + (int(length[1]) if length else 0)
        if self._have < self._need:
            return
        request = b"".join(self._parts)
        self._parts, self._have, self._need = [], 0, None
        if self._upload:
            assert self._transport is not None
            self._transport.write(HEARD)
            return
        model = _MODEL.search(request)
        self._answer(model[1] if model else b"small")

    def _answer(self, model: bytes) -> None:
        assert self._transport is not None
        if model == b"stream":
            self._transport.write(HEAD + FIRST)
            self._tick(self._deltas)
        elif model == b"idle":
            self._transport.write(HEAD + FIRST)
        elif model == b"voice":
            self._transport.write(SPOKEN)
        else:
            self._transport.write(SMALL)

    def _tick(self, left: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not left:
            self._transport.write(LAST)
            return
        self._transport.write(DELTA)
        asyncio.get_running_loop().call_later(TICK, self._tick, left - 1)


async def main(deltas: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(deltas), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
