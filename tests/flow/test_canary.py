"""Pitfall 24 and the public promise: prompts, outputs, client keys, upstream keys and upstream error texts are in no file, log
line, metric or header of ours, whatever happened to the request.

Each marker goes in by one door only, so that a leak names its door. What a door may leave on purpose is said beside it.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from aurixel.logs import Formatter
from aurixel.testing import answers, scripted
from aurixel.testing.samples import sample_files
from aurixel.testing.scripted import ScriptedUpstream
from tests.flow import media, uploads
from tests.flow.gateway import Running, configure, running, upstream

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
PROMPT, SYSTEM, OUTPUT, TOOL, ERROR, HEADER, QUERY, FIELD, BROKEN = (
    f"canary-{door}-7f3a9c51e2"
    for door in ("prompt", "system", "output", "tool", "error", "header", "query", "field", "broken")
)
MARKERS = (PROMPT, SYSTEM, OUTPUT, TOOL, ERROR, HEADER, QUERY, FIELD, BROKEN)


class Everything(logging.Handler):
    """All records of all loggers at every level, as they come and as our formatter writes them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.formatters = (Formatter("json"), Formatter("text"))

    def emit(self, record: logging.LogRecord) -> None:
        # The formatters are the sink; the arguments of other libraries' debug records never reach one unformatted.
        self.lines += [formatter.format(record) for formatter in self.formatters]
        if record.name.startswith("aurixel"):
            self.lines += [str(record.__dict__), repr(record.exc_info)]


@contextmanager
def listening() -> Iterator[Everything]:
    """All that is logged meanwhile."""
    handler, root = Everything(), logging.getLogger()
    level, root.level = root.level, logging.DEBUG
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.level = level


@pytest.fixture
def log() -> Iterator[Everything]:
    with listening() as everything:
        yield everything


@pytest.fixture(params=["sqlite", "mongodb"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Which store is searched: "" is the embedded one, whose files are."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("mongodb_database"))


@pytest.fixture
async def gw(store_url: str, tmp_path: Path, up: ScriptedUpstream) -> AsyncIterator[Running]:
    upstreams = upstream("up", "openai", f"{up.url}/v1") + upstream("upa", "anthropic", up.url)
    async with running(configure(tmp_path, store=store_url, upstreams=upstreams)) as gateway:
        yield gateway


def openai_body(**more: Any) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "look_up", "description": TOOL, "parameters": {"type": "object"}}}
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    return {"model": "gpt-test", "messages": messages, "tools": [tool], "user": FIELD, FIELD: FIELD} | more


def anthropic_body(**more: Any) -> dict[str, Any]:
    tool = {"name": "look_up", "description": TOOL, "input_schema": {"type": "object"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    body = {"model": "claude-test", "max_tokens": 100, "system": SYSTEM, "messages": messages, "tools": [tool]}
    return body | {"metadata": {"user_id": FIELD}, FIELD: FIELD} | more


def files(folder: Path) -> dict[str, str]:
    """Every file the gateway wrote or read, as it is on disk."""
    return {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}


async def documents(url: str) -> dict[str, str]:
    """Every document of a MongoDB database."""
    if not url:
        return {}
    client: Any = AsyncIOMotorClient(url)
    database = client.get_default_database()
    found = {
        f"mongodb {name}": str(await database[name].find().to_list(None)) for name in await database.list_collection_names()
    }
    client.close()
    assert {"mongodb usage", "mongodb accounts"} <= found.keys()
    return found


async def test_nothing_that_passes_through_stays(
    gw: Running,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    log: Everything,
    tmp_path: Path,
    store_url: str,
    expected_logs: Any,
) -> None:
    expected_logs("aurixel.gateway", "upstream upa? refuses our key", times=2)
    key = await gw.key()
    headers = {"authorization": f"Bearer {key}", "x-canary": HEADER, "user-agent": HEADER, "cookie": HEADER, "referer": HEADER}
    replies: list[str] = []

    async def ask(path: str, body: Any, **more: Any) -> int:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        url = f"{gw.url}{path}?canary={QUERY}"
        try:
            async with http.post(url, headers=headers | {"content-type": "application/json"} | more, **sent) as reply:
                await reply.read()
                replies.append(str(reply.headers))
                return reply.status
        except aiohttp.ClientError:
            return 0

    for path, body, reply, events, error in (
        (
            CHAT,
            openai_body,
            answers.openai_chat_reply(OUTPUT, answers.openai_chat_usage(20, 7)),
            answers.openai_chat_events(f"{OUTPUT} and {OUTPUT}", answers.openai_chat_usage(20, 7)),
            answers.openai_error(ERROR, code=ERROR),
        ),
        (
            MESSAGES,
            anthropic_body,
            answers.anthropic_messages_reply(OUTPUT, answers.anthropic_messages_usage(20, 7)),
            answers.anthropic_messages_events(f"{OUTPUT} and {OUTPUT}", answers.anthropic_messages_usage(20, 7)),
            answers.anthropic_error(ERROR),
        ),
    ):
        up.reply(json=reply, headers=[("x-request-id", ERROR), ("openai-organization", ERROR), ("set-cookie", ERROR)])
        assert await ask(path, body()) == 200
        up.stream(events)
        assert await ask(path, body(stream=True)) == 200
        for status in (400, 401, 403, 404, 429, 500):
            up.reply(json=error, status=status)
            assert await ask(path, body()) >= 400
        up.on("*", scripted.event_stream(events[:4], end=False), scripted.reset)
        await ask(path, body(stream=True))
        up.stream([events[0], f'event: error\ndata: {{"type":"error","error":{{"message":"{ERROR}"}}}}\n\n'.encode()])
        await ask(path, body(stream=True))
        for garbage in (f"{{{ERROR}", f'{{"usage": "{ERROR}"}}', f'["{ERROR}"]'):
            up.reply(body=garbage.encode(), headers=[("content-type", "application/json")])
            assert await ask(path, body()) == 502
        up.on("*", scripted.send(f"HTTP/1.1 {ERROR}\r\n{ERROR}\r\n\r\n".encode()), scripted.close)
        assert await ask(path, body()) == 502
        up.reply(json=reply)
        for broken in (
            f'{{"model": "{BROKEN}"',
            f'{{"model": "{BROKEN}", "messages": []}}',
            f'{{"model": "gpt-test", "messages": "{BROKEN}"}}',
            f'{{"model": "gpt-test", "model": "{BROKEN}", "{BROKEN}": 1, "{BROKEN}": 2}}',
            f'{{"model": "gpt-test", "max_tokens": "{BROKEN}"}}',
            f'"{BROKEN}"',
            f"{BROKEN}\xff",
        ):
            assert 400 <= await ask(path, broken.encode("latin-1")) < 500
        assert await ask(path, body(), authorization=f"Bearer {BROKEN}") == 401
        assert await ask(path, body(), authorization=f"Bearer ax-{'a' * 12}-{'b' * 32}{'c' * 6}") == 401
        assert await ask(f"/v1/{BROKEN}", body()) == 404
        assert await ask(path, body(model=BROKEN)) == 404
        up.on("*", scripted.event_stream(events[:4], end=False), scripted.stall)
        async with http.post(gw.url + path, json=body(stream=True), headers=headers) as leaving:
            await leaving.content.readany()
            leaving.close()
        await up.disconnected()

    # What went out: no client key, address, cookie or header that is not on the list; upstream keys only there.
    for request in up.requests:
        sent = str(request.pairs) + request.target
        assert HEADER not in sent
        assert key not in sent
        assert "forwarded" not in sent.lower()
    async with http.get(f"{gw.ops_url}/metrics") as metrics:
        scraped = await metrics.text()
    await gw.settled(count=2 * 14)
    # One request is still running: the journal is searched while there is one, for a clean stop removes it.
    open_stream = answers.openai_chat_events(OUTPUT, None)[:2]
    up.on("*", scripted.event_stream(open_stream, end=False), scripted.stall)
    async with http.post(gw.url + CHAT, json=openai_body(stream=True), headers=headers) as running_one:
        await running_one.content.readany()
        journal = files(tmp_path / "journal")
        assert any(name.rpartition("/")[2] != "lock" and text for name, text in journal.items())
        running_one.close()
    await up.disconnected()
    await gw.app.stop()
    sinks = {"metrics": scraped, "logs": "\n".join(log.lines), "reply headers": "\n".join(replies)}
    sinks |= journal | files(tmp_path) | await documents(store_url)
    assert store_url or any("aurixel.db" in name for name in sinks)
    secret = key.rpartition("-")[2]
    for name, text in sinks.items():
        for marker in (*MARKERS, secret, *(() if name.endswith("aurixel.toml") else ("sk-upstream",))):
            assert marker not in text, f"{marker} is in {name}"


def media_doors() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Of each endpoint beside chat: its path, a request, and what a sound answer to it is scripted by."""
    said, drawn = base64.b64encode(OUTPUT.encode()).decode(), base64.b64encode(OUTPUT.encode()).decode()
    told = {"usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}}
    chunk = {"choices": [{"text": OUTPUT, "index": 0, "finish_reason": "stop"}]}
    vectors = {"object": "list", "data": [{"embedding": OUTPUT}], "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    pictures = {"created": 1, "data": [{"b64_json": drawn, "revised_prompt": OUTPUT}], "size": OUTPUT, **told}
    speech = [{"type": "speech.audio.delta", "audio": said}, {"type": "speech.audio.done", **told}]
    sound = {"body": OUTPUT.encode(), "headers": [("content-type", "audio/mpeg")]}
    done = {"type": "image_generation.completed", "b64_json": drawn, **told}
    more = {"user": FIELD, FIELD: FIELD}
    voice = {"input": PROMPT, "voice": FIELD, "instructions": SYSTEM, **more}
    return [
        ("/v1/embeddings", {"model": "embed-test", "input": [PROMPT], **more}, {"json": vectors}),
        ("/v1/moderations", {"model": "judge-tokens", "input": PROMPT, **more}, {"json": {"id": OUTPUT, "results": [OUTPUT]}}),
        ("/v1/images/generations", {"model": "image-tokens", "prompt": PROMPT, **more}, {"json": pictures}),
        ("/v1/images/generations", {"model": "image-tokens", "prompt": PROMPT, "stream": True, **more}, {"events": [done]}),
        ("/v1/audio/speech", {"model": "voice-tokens", **voice}, {"events": speech}),
        ("/v1/audio/speech", {"model": "voice-characters", **voice}, sound),
        ("/v1/completions", {"model": "text-test", "prompt": PROMPT, "suffix": SYSTEM, **more}, {"json": chunk}),
        ("/v1/completions", {"model": "text-test", "prompt": PROMPT, "stream": True, **more}, {"events": [chunk]}),
    ]


async def test_nothing_of_the_other_endpoints_stays(
    up: ScriptedUpstream, http: aiohttp.ClientSession, log: Everything, tmp_path: Path, store_url: str
) -> None:
    blocks = upstream("up", "openai", f"{up.url}/v1") + upstream("uptext", "openai", f"{up.url}/v1")
    blocks += 'speaks = ["completions"]\n'
    configured = configure(tmp_path, store=store_url, upstreams=blocks, models=media.MODELS, prices=media.PRICES)
    replies: list[str] = []
    async with running(configured) as gw:
        key = await gw.key()
        headers = {"authorization": f"Bearer {key}", "x-canary": HEADER, "user-agent": HEADER, "cookie": HEADER}

        async def ask(path: str, body: dict[str, Any]) -> int:
            try:
                async with http.post(f"{gw.url}{path}?canary={QUERY}", json=body, headers=headers) as reply:
                    await reply.read()
                    replies.append(str(reply.headers))
                    return reply.status
            except aiohttp.ClientError:
                return 0

        doors = media_doors()
        for path, body, answer in doors:
            events = [f"data: {json.dumps(each)}\n\n".encode() for each in answer.get("events", ())]
            if events:
                up.stream(events)
            else:
                up.reply(**answer)
            assert await ask(path, body) == 200, path
            up.reply(json=answers.openai_error(ERROR, code=ERROR), status=400)
            assert await ask(path, body) == 400
            up.reply(json=answers.openai_error(ERROR, code=ERROR), status=500)
            assert await ask(path, body) >= 500
            up.reply(body=f"{{{ERROR}".encode())
            assert await ask(path, body) == 502
            up.stream([*events[:1], f'data: {{"type":"error","error":{{"message":"{ERROR}"}}}}\n\n'.encode()])
            await ask(path, body)
            for name in ("input", "prompt", "voice", "size"):
                assert await ask(path, {**body, name: {BROKEN: [BROKEN]}} if name in body else {"model": BROKEN}) >= 400
        async with http.get(f"{gw.ops_url}/metrics") as metrics:
            scraped = await metrics.text()
        await gw.settled(count=5 * len(doors))
        journal = files(tmp_path / "journal")
    for request in up.requests:
        sent = str(request.pairs) + request.target
        assert HEADER not in sent
        assert QUERY not in sent
        assert key not in sent
    sinks = {"metrics": scraped, "logs": "\n".join(log.lines), "reply headers": "\n".join(replies)}
    sinks |= journal | files(tmp_path) | await documents(store_url)
    for name, text in sinks.items():
        for marker in (*MARKERS, key.rpartition("-")[2]):
            assert marker not in text, f"{marker} is in {name}"


async def test_nothing_of_an_upload_stays(
    up: ScriptedUpstream, http: aiohttp.ClientSession, log: Everything, tmp_path: Path, store_url: str
) -> None:
    blocks = upstream("up", "openai", f"{up.url}/v1")
    configured = configure(tmp_path, store=store_url, upstreams=blocks, models=uploads.MODELS, prices=uploads.PRICES)
    small, large = (uploads.sound(seconds) + OUTPUT.encode() for seconds in (1, 60))
    ((_, _, picture),) = sample_files("openai_image_edits")
    said = {"prompt": PROMPT, "language": FIELD, FIELD: SYSTEM}
    told = {"type": "transcript.text.done", "text": OUTPUT, "usage": uploads.tokens(30, 4, 5)}
    ear, painter = {"model": "ear-tokens", **said}, {"model": "painter-tokens", "size": "1024x1024", **said}
    doors: list[tuple[str, dict[str, str], tuple[str, bytes], dict[str, Any]]] = [
        ("/v1/audio/transcriptions", ear, ("file", small), {"json": {"text": OUTPUT}}),
        ("/v1/audio/transcriptions", ear, ("file", large), {"json": {"text": OUTPUT}}),
        ("/v1/audio/transcriptions", {**ear, "stream": "true"}, ("file", large), {"events": [told]}),
        ("/v1/audio/translations", {**ear, "response_format": "text"}, ("file", small), {"text": OUTPUT}),
        ("/v1/images/edits", painter, ("image", picture), {"json": {"data": [{"b64_json": OUTPUT}]}}),
        ("/v1/images/variations", painter, ("image", picture), {"json": {"data": [{"url": OUTPUT}]}}),
    ]
    replies: list[str] = []
    async with running(configured) as gw:
        key = await gw.key()
        headers = {"authorization": f"Bearer {key}", "x-canary": HEADER, "user-agent": HEADER, "cookie": HEADER}

        async def ask(path: str, body: bytes) -> int:
            kind = {"content-type": uploads.KIND}
            try:
                async with http.post(f"{gw.url}{path}?canary={QUERY}", data=io.BytesIO(body), headers=headers | kind) as reply:
                    await reply.read()
                    replies.append(str(reply.headers))
                    return reply.status
            except aiohttp.ClientError:
                return 0

        for path, fields, (name, data), answer in doors:
            body = uploads.form(fields, (name, f"{PROMPT}.bin", data))
            if "events" in answer:
                up.stream([f"data: {json.dumps(each)}\n\n".encode() for each in answer["events"]])
            elif "text" in answer:
                up.reply(body=OUTPUT.encode(), headers=[("content-type", "text/plain")])
            else:
                up.reply(**answer)
            assert await ask(path, body) == 200, path
            for status in (400, 500):
                up.reply(json=answers.openai_error(ERROR, code=ERROR), status=status)
                assert await ask(path, body) == (400 if status == 400 else 502)
            up.reply(body=f"{{{ERROR}".encode())
            assert await ask(path, body) == (200 if "response_format" in fields else 502)  # a text may be anything
            broken = BROKEN.encode()
            for bad in (
                body[:-9] + broken,
                body + broken,
                body.replace(b"--" + uploads.BOUNDARY.encode(), broken),
                body.replace(b'name="prompt"', b'name="' + broken + b' "'),
                body.replace(b"form-data", broken),
                uploads.form({**fields, "stream": BROKEN, "n": BROKEN}, (name, BROKEN, data)),
                uploads.form({**fields, "model": BROKEN}, (name, BROKEN, data)),
                uploads.form(fields, (name, BROKEN, broken * 20)),
            ):
                assert await ask(path, bad) >= 400
        async with http.get(f"{gw.ops_url}/metrics") as metrics:
            scraped = await metrics.text()
        await gw.settled(count=4 * len(doors))
        journal = files(tmp_path / "journal")
    for request in up.requests:
        sent = str(request.pairs) + request.target
        for marker in (HEADER, QUERY, key):
            assert marker not in sent
    sinks = {"metrics": scraped, "logs": "\n".join(log.lines), "reply headers": "\n".join(replies)}
    sinks |= journal | files(tmp_path) | await documents(store_url)
    for where, text in sinks.items():
        for marker in (*MARKERS, key.rpartition("-")[2]):
            assert marker not in text, f"{marker} is in {where}"


async def test_a_bug_shows_a_request_id_and_nothing_else(
    gw: Running,
    up: ScriptedUpstream,
    http: aiohttp.ClientSession,
    log: Everything,
    monkeypatch: pytest.MonkeyPatch,
    expected_logs: Any,
) -> None:
    """A bug cannot be caused on purpose: the one mock here. Its exception quotes the prompt, as exceptions do."""
    expected_logs("aurixel.gateway", "bug in request req_.*ValueError", level=logging.ERROR, times=1)

    def broken(*_: Any) -> int:
        raise ValueError(PROMPT)

    monkeypatch.setattr("aurixel.dialects.openai_chat.dialect.OpenAIChat.bound_input", broken)
    key = await gw.key()
    async with http.post(gw.url + CHAT, json=openai_body(), headers={"authorization": f"Bearer {key}"}) as reply:
        assert reply.status == 500
        text = await reply.text()
        assert reply.headers["x-request-id"].startswith("req_")
    assert PROMPT not in text
    assert PROMPT not in "\n".join(log.lines)
    assert (await gw.account()).spent == 0
