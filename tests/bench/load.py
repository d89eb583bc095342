"""The load generator: keep-alive connections, one request after another on each; prints what it saw as JSON.

Run as `python -m tests.bench.load SCENARIO PORT KEY COUNT CONNECTIONS [RATE]`. Scenarios: small, big, stream, idle, upload,
half (uploads that stop before their end), speech, and cross and cross-stream: small and stream by a client of the other
family. With RATE (requests a second) small requests start at fixed instants, so that a slow answer does not slow the asking.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
from time import perf_counter
from typing import cast

import uvloop

BIG = 5_000_000
UPLOAD = 25_000_000


def request(scenario: str, key: str) -> bytes:
    """The bytes of one request."""
    if scenario in ("upload", "half"):
        return upload(key)
    if scenario in ("cross", "cross-stream"):
        return messages(key, stream=scenario == "cross-stream")
    if scenario == "speech":
        return speech(key)
    model = {"small": "small", "big": "small", "stream": "stream", "idle": "idle"}[scenario]
    content: object = "Say something short, please."
    if scenario == "big":
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" + "A" * BIG}}
        content = [{"type": "text", "text": "What is this?"}, picture]
    body: dict[str, object] = {
        "model": f"bench-{model}",
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": content}],
        "max_tokens": 100,
    }
    if model != "small":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body, separators=(",", ":")).encode()  # as the SDKs write it
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: application/json\r\nuser-agent: OpenAI/Python 3.54.0\r\n"
        f"x-stainless-lang: python\r\nx-stainless-retry-count: 0\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def messages(key: str, *, stream: bool) -> bytes:
    """The small request, or the stream, as a client of the other family asks: it is translated."""
    body = {
        "model": f"bench-{'stream' if stream else 'small'}",
        "system": "You are brief.",
        "messages": [{"role": "user", "content": "Say something short, please."}],
        "max_tokens": 100,
    }
    data = json.dumps(body | {"stream": True} if stream else body, separators=(",", ":")).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\nanthropic-version: 2023-06-01\r\nuser-agent: Anthropic/Python 1.17.0\r\n"
        f"x-stainless-lang: python\r\nx-stainless-retry-count: 0\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def speech(key: str) -> bytes:
    """A sentence to speak."""
    data = b'{"model":"bench-voice","voice":"one","input":"All work and no play makes a dull voice."}'
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: application/octet-stream\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def upload(key: str) -> bytes:
    """A transcription of a WAV file, written as the Python SDK writes it: the file last."""
    form = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    sound = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", UPLOAD)
    file = b"RIFF" + struct.pack("<I", len(sound) + UPLOAD) + sound + random.Random(1).randbytes(UPLOAD)
    part = '--bench-boundary\r\nContent-Disposition: form-data; name="{}"\r\n'
    fields = part.format("model") + "\r\nbench-ear\r\n" + part.format('file"; filename="talk.wav').rstrip()
    data = fields.encode() + b"\r\nContent-Type: audio/x-wav\r\n\r\n" + file + b"\r\n--bench-boundary--\r\n"
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        f"content-type: multipart/form-data; boundary=bench-boundary\r\naccept: application/json\r\n"
        f"user-agent: OpenAI/Python 3.54.0\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Client(asyncio.Protocol):
    """One connection. `answers` counts, `arrivals` are the instants of a stream's pieces."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] | None = None
        self.arrivals: list[float] = []
        self.answered = asyncio.Event()
        self._seen = b""
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionError("the relay closed the connection"))

    def ask(self, data: bytes) -> asyncio.Future[None]:
        """Send a request; the future is done with its whole answer."""
        assert self.transport is not None
        self.done = asyncio.get_running_loop().create_future()
        self.arrivals, self._seen, self._left = [], b"", None
        self.transport.write(data)
        return self.done

    def data_received(self, data: bytes) -> None:
        """Watch for the end of the answer."""
        self.arrivals.append(perf_counter())
        if self._left is None:
            self._seen += data
            end = self._seen.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._seen[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(f"the relay answered {self._seen[:600]!r}")
            self.answered.set()
            at = head.find(b"content-length: ")
            if at >= 0:
                self._left = int(head[at + 16 :].split(b"\r\n", 1)[0]) - (len(self._seen) - end - 4)
            else:
                self._left = -1
            data = self._seen[end + 4 :]
        elif self._left > 0:
            self._left -= len(data)
        if self._left == 0 or (self._left < 0 and data.endswith(b"0\r\n\r\n")):
            assert self.done is not None
            self.done.set_result(None)


async def connect(port: int) -> Client:
    """A connection to the relay."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def closed_loop(port: int, data: bytes, count: int, connections: int) -> dict[str, object]:
    """`count` requests over `connections`, each starting as the one before it ends."""
    clients = [await connect(port) for _ in range(connections)]
    left = iter(range(count))
    latencies: list[float] = []
    first: list[float] = []
    gaps: list[float] = []

    async def work(client: Client) -> None:
        for _ in left:
            start = perf_counter()
            await client.ask(data)
            latencies.append(client.arrivals[-1] - start)
            first.append(client.arrivals[0] - start)
            gaps.extend(after - before for before, after in zip(client.arrivals, client.arrivals[1:], strict=False))

    began = perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    return {"seconds": perf_counter() - began, "latency": spread(latencies), "first": spread(first), "gap": spread(gaps)}


async def open_loop(port: int, data: bytes, count: int, connections: int, rate: float) -> dict[str, object]:
    """`count` requests at fixed instants, `rate` a second; latency counts from the instant each was due."""
    idle: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await connect(port))
    latencies: list[float] = []

    async def one(due: float) -> None:
        client = await idle.get()
        await client.ask(data)
        latencies.append(perf_counter() - due)
        idle.put_nowait(client)

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number / rate
            if (wait := due - perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(due))
    return {"latency": spread(latencies)}


async def stop_half_way(port: int, data: bytes, count: int) -> None:
    """Send `count` requests but for their ends, say so, and leave when a line comes on stdin."""
    clients = [await connect(port) for _ in range(count)]
    for client in clients:
        client.ask(data[:-1000])
    for client in clients:
        assert client.transport is not None
        while client.transport.get_write_buffer_size():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for client in clients:
        assert client.transport is not None
        if client.done is not None:
            client.done.cancel()
        client.transport.abort()


async def hold_open(port: int, data: bytes, count: int) -> None:
    """Open `count` streams, say so, and keep them until a line comes on stdin."""
    clients = [await connect(port) for _ in range(count)]
    for client in clients:
        client.ask(data)
    await asyncio.gather(*(client.answered.wait() for client in clients))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for client in clients:
        assert client.transport is not None
        if client.done is not None:
            client.done.cancel()
        client.transport.abort()


def spread(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    if not values:
        return {"p50": 0.0, "p99": 0.0}
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2] * 1000, "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000}


async def main(scenario: str, port: int, key: str, count: int, connections: int, rate: float) -> None:
    """Run one scenario."""
    data = request(scenario, key)
    if scenario == "idle":
        await hold_open(port, data, count)
    elif scenario == "half":
        await stop_half_way(port, data, count)
    elif rate:
        print(json.dumps(await open_loop(port, data, count, connections, rate)))
    else:
        print(json.dumps(await closed_loop(port, data, count, connections)))


if __name__ == "__main__":
    uvloop.run(
        main(
            sys.argv[1],
            int(sys.argv[2]),
            sys.argv[3],
            int(sys.argv[4]),
            int(sys.argv[5]),
            float(sys.argv[6]) if len(sys.argv) > 6 else 0,
        )
    )
