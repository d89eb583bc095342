"""Reads tests/golden/<dialect>/<case>/ and plays a stream into a reader; it judges nothing.

A case holds what the upstream sends (`upstream.sse`, `reply.json` or `reply.txt`), what the client gets where that differs
(`client.sse`, or `client.bin` for sound), and `case.json`: `request` fields beside the smallest request, `usage` as reported
(absent: none), `estimate` where usage is to be guessed (50 input tokens), `measured`, `guessed` (classes), `tier` (absent:
the plain one), `output_bytes`, `started`, `error` (a code),
`end` ("close" where only the end of the connection ends it), and for the SDKs `text`, `tools`, `blocks`, `finish` or
`status`, `sdk_usage` (input and output as the SDK shows them).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurixel.dialects import AnthropicMessages, OpenAIChat, OpenAIResponses, register_dialects
from aurixel.errors import ProviderError
from aurixel.plugin.contracts import Dialect, ParsedRequest, StreamReader, TakesUploads
from aurixel.testing.samples import sample_files
from aurixel.values import Usage
from tests.flow.uploads import KIND, form, sound

GOLDEN = Path(__file__).parent.parent / "golden"
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (OpenAIChat(), OpenAIResponses(), AnthropicMessages())}
# What is no conversation: the smallest request of each.
SMALLEST: dict[str, dict[str, Any]] = {
    "openai_completions": {"model": "m", "prompt": "x"},
    "openai_embeddings": {"model": "m", "input": "x"},
    "openai_moderations": {"model": "m", "input": "x"},
    "openai_images": {"model": "m", "prompt": "x"},
    "openai_speech": {"model": "m", "input": "x", "voice": "v"},
}
# What comes as a form: a sound of three seconds, or a picture of one pixel, and the fields it cannot do without.
FORMS: dict[str, Dialect] = {
    dialect.name: dialect for each in register_dialects() if isinstance(dialect := each(), TakesUploads)
}
FIELDS: dict[str, dict[str, str]] = {"openai_image_edits": {"prompt": "x"}}
OTHERS: dict[str, Dialect] = {each.name: each() for each in register_dialects() if each.name in SMALLEST}
ALL = DIALECTS | OTHERS
INPUT_TOKENS = 50


_WORDS = {"openai_responses": {"messages": "input", "max_tokens": "max_output_tokens"}}


def in_words_of(dialect: Dialect, body: dict[str, Any]) -> dict[str, Any]:
    """A body with `messages` and `max_tokens`, its fields called as in the dialect."""
    words = _WORDS.get(dialect.name, {})
    return {words.get(name, name): value for name, value in body.items()}


def form_of(dialect: Dialect, fields: dict[str, str]) -> bytes:
    """A form of that dialect, of the type `KIND`, with these fields."""
    picture = next(file for file in sample_files("openai_image_edits"))
    file = ("file", "three.wav", sound(3)) if dialect.operation == "transcription" else picture
    return form(fields, file)


def word_of(dialect: Dialect, field: str) -> str:
    """What the dialect calls it."""
    return _WORDS.get(dialect.name, {}).get(field, field)


@dataclass
class Case:
    dialect: Dialect
    folder: Path
    meta: dict[str, Any]

    @property
    def upstream(self) -> bytes:
        return (self.folder / "upstream.sse").read_bytes()

    @property
    def client(self) -> bytes:
        changed = (self.folder / name for name in ("client.sse", "client.bin"))
        return next((file.read_bytes() for file in changed if file.exists()), self.upstream)

    @property
    def reply(self) -> bytes:
        return next(self.folder.glob("reply.*")).read_bytes()

    def request(self, *, stream: bool) -> ParsedRequest:
        if self.dialect.name in FORMS:
            fields = FIELDS.get(self.dialect.name, {}) | ({"stream": "true"} if stream else {}) | self.meta.get("request", {})
            return self.dialect.parse_request(form_of(self.dialect, {"model": "m", **fields}), {"content-type": KIND})
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream, "max_tokens": 4096}
        body = SMALLEST.get(self.dialect.name) or in_words_of(self.dialect, body)
        body = {**body, "stream": stream}
        return self.dialect.parse_request(json.dumps({**body, **self.meta.get("request", {})}).encode(), {})


def cases(kind: str, dialect: str = "*") -> list[Case]:
    """The cases that have a file of this name."""
    known = ALL | FORMS
    found = [
        Case(known[path.parent.parent.name], path.parent, json.loads((path.parent / "case.json").read_text()))
        for path in sorted(GOLDEN.glob(f"{dialect}/*/{kind}"))
        if path.parent.parent.name in known
    ]
    assert found
    return found


def name_of(case: Case) -> str:
    return f"{case.dialect.name}-{case.folder.name}"


@dataclass
class Played:
    """What a client got and what the meter saw. `error` is the code the reader ended with; "" for none."""

    out: bytes
    error: str
    done: bool
    started: bool
    usage: Usage | None
    estimate: Usage
    output_bytes: int


def play(reader: StreamReader, chunks: Iterable[bytes]) -> Played:
    out, error = [], ""
    try:
        for chunk in chunks:
            out.append(reader.feed(chunk))
            if reader.done:
                break
        else:
            out.append(reader.close())
    except ProviderError as fault:
        error = fault.code
        out.append(reader.pending_out)
    return Played(
        out=b"".join(out),
        error=error,
        done=reader.done,
        started=reader.started,
        usage=reader.usage,
        estimate=reader.estimate(INPUT_TOKENS),
        output_bytes=reader.output_bytes,
    )
