"""What is fuzzed: functions of bytes that return for any input, and raise only for a bug.

Each target reads a head of two bytes (which dialect or pair; how the rest is cut into chunks) and then what a client, an
upstream or an operator sends. It holds three promises: only named errors; what comes out is bounded by what went in; and
cutting changes nothing. That nothing hangs is libFuzzer's to see.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aurixel.catalog.files import parse_files
from aurixel.dialects import register_dialects
from aurixel.dialects.sse import Event, EventSplitter, completed
from aurixel.dialects.translation import Translation, pairs
from aurixel.errors import ClientError, ConfigError, ProviderError
from aurixel.plugin.contracts import (
    MODEL_TRAITS,
    Changes,
    CountsTokens,
    Dialect,
    ModelRules,
    ParsedRequest,
    ReadsKinds,
    StreamReader,
    TakesUploads,
)
from aurixel.tomlfile import TomlFile

HEAD: Final = 2
DIALECTS: Final[Mapping[str, Dialect]] = {each.name: each() for each in register_dialects()}
BOUNDARY: Final = "sample"
FORMS: Final = tuple(each for each in DIALECTS.values() if isinstance(each, TakesUploads))
RULES: Final = (
    ModelRules(context=200_000, max_output=8_000),
    ModelRules(context=200_000, max_output=8_000, traits=frozenset(MODEL_TRAITS)),
)
CHANGES: Final = Changes(model="its-name-there", output_limit=100, output_limit_field="max_completion_tokens")
# What the smallest request of each dialect has beside its model.
SMALLEST: Final[Mapping[str, Mapping[str, Any]]] = {
    "openai_chat": {"messages": [{"role": "user", "content": "x"}]},
    "openai_responses": {"input": "x"},
    "anthropic_messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4096},
    "openai_completions": {"prompt": "x"},
    "openai_embeddings": {"input": "x"},
    "openai_moderations": {"input": "x"},
    "openai_images": {"prompt": "x"},
    "openai_speech": {"input": "x", "voice": "v"},
}
NAMES: Final = tuple(SMALLEST)
STREAMING: Final = tuple(name for name in NAMES if name not in ("openai_embeddings", "openai_moderations"))
WHOLE: Final = tuple(name for name in NAMES if name != "openai_speech")  # whose reply is sound, as it comes
PAIRS: Final = tuple(pairs(DIALECTS.values()))
# One byte may become six (`\u0001`), once in what is said and once more in a summary of it; the rest is frame.
_GROWTH: Final = 16
_FRAME: Final = 1 << 16
_MODELS: Final = TomlFile(
    "models.toml",
    "".join(
        f'[models."{operation}"]\noperations = ["{operation}"]\ncontext = 9\nmax_output = 9\n'
        'routes = [{ upstream = "up", model = "m" }]\n'
        for operation in ("chat", "embeddings", "images", "speech", "transcription", "moderation")
    ),
)


def smallest(dialect: Dialect, *, stream: bool) -> ParsedRequest:
    """A request that reads a reply of any kind the dialect has."""
    body = {"model": "m", **SMALLEST[dialect.name], **({"stream": True} if stream else {})}
    return dialect.parse_request(json.dumps(body).encode(), {})


def cuts(data: bytes, seed: int) -> Iterator[bytes]:
    """`data` in chunks, the same for the same seed. None is empty."""
    rest, sizes = memoryview(data), random.Random(seed)
    while rest:
        size = sizes.choice((1, 2, 3, 7, 40, 1000))
        yield bytes(rest[:size])
        rest = rest[size:]


def bounded(out: int, given: int) -> None:
    """What comes out grows with what went in, and by no more than its frame and escapes."""
    assert out <= _GROWTH * given + _FRAME, f"{given} bytes became {out}"


def requests(data: bytes) -> None:
    """A client's request: read, sized and patched, or refused by name; its count as well."""
    dialect, body = DIALECTS[NAMES[data[0] % len(NAMES)]], data[HEAD:]
    try:
        request = dialect.parse_request(body, {"content-type": "application/json"})
    except ClientError as error:
        dialect.encode_error(error, "r")
    else:
        bounded(sum(map(len, dialect.patch_request(request, CHANGES))), len(body))
        assert 0 <= dialect.estimate_input(request, RULES[0]) <= dialect.bound_input(request, RULES[0])
    if isinstance(dialect, CountsTokens):
        try:
            counted = dialect.parse_count(body, {})
        except ClientError:
            return
        bounded(sum(map(len, dialect.patch_count(counted, "its-name-there"))), len(body))


def crossings(data: bytes) -> None:
    """A client's request that is translated: what is written for the upstream is a request there, or it is refused by name."""
    client, upstream = PAIRS[data[0] % len(PAIRS)]
    body = data[HEAD:]
    try:
        request = DIALECTS[client].parse_request(body, {})
        crossing = Translation(DIALECTS[client], DIALECTS[upstream], request, RULES[data[1] % 2])
    except ClientError:
        return
    bounded(sum(map(len, crossing.dialect.patch_request(crossing.request, CHANGES))), len(body))
    assert crossing.losses is not None
    assert len(crossing.losses.dropped) <= crossing.losses.MOST


def replies(data: bytes) -> None:
    """An upstream's whole reply, read, and translated for clients of the other dialects."""
    dialect, body = DIALECTS[WHOLE[data[0] % len(WHOLE)]], data[HEAD:]
    try:
        usage = dialect.reply_reader(smallest(dialect, stream=False), 50).read(body)
        assert all(count > 0 for count in usage.counts.values()), usage
    except ProviderError:
        pass
    for client, upstream in PAIRS:
        if upstream == dialect.name:
            speaker = DIALECTS[client]
            crossing = Translation(speaker, dialect, smallest(speaker, stream=False), RULES[0])
            try:
                _, out = crossing.read(body, 50)
            except ProviderError:
                continue
            json.loads(out)
            bounded(len(out), len(body))


def _played(reader: StreamReader, chunks: Iterator[bytes]) -> tuple[bytes, str]:
    """What the client is handed, and the error the stream ends with, if any."""
    out: list[bytes] = []
    code = ""
    try:
        for chunk in chunks:
            out.append(reader.feed(chunk))
            if reader.done:
                break
        else:
            out.append(reader.close())
    except ProviderError as error:
        out.append(reader.pending_out)
        code = error.code
    estimate = reader.estimate(50)
    assert all(count >= 0 for count in estimate.counts.values()), estimate
    half = reader.delivered(50, reader.output_bytes // 2)
    assert all(count >= 0 for count in half.counts.values()), half
    assert reader.delivered(50, reader.output_bytes) == estimate
    return b"".join(out), code


def _reader(dialect: Dialect, choice: int) -> StreamReader:
    reader = dialect.stream_reader(smallest(dialect, stream=True))
    if isinstance(reader, ReadsKinds):
        reader.comes_as(("text/event-stream", "audio/mpeg")[choice % 2])
    return reader


def streams(data: bytes) -> None:
    """An upstream's event stream, passed through: however it is cut, the same is handed on, and no more than came."""
    dialect, body = DIALECTS[STREAMING[data[0] % len(STREAMING)]], data[HEAD:]
    readers = [_reader(dialect, data[1]) for _ in range(2)]
    whole, code = _played(readers[0], iter([body] if body else []))
    cut, same = _played(readers[1], cuts(body, data[1]))
    bounded(len(whole), len(body))
    assert code == same
    if readers[0].done:  # what comes behind the end in the same chunk may be handed on
        assert whole.startswith(cut)
    else:
        assert whole == cut
    assert readers[0].output_bytes == readers[1].output_bytes
    assert readers[0].usage == readers[1].usage


def decoders(data: bytes) -> None:
    """An upstream's event stream, translated: only named errors, and what is written is whole events."""
    client, upstream = PAIRS[data[0] % len(PAIRS)]
    body, speaker = data[HEAD:], DIALECTS[client]
    crossing = Translation(speaker, DIALECTS[upstream], smallest(speaker, stream=True), RULES[0])
    reader = crossing.stream_reader(50)
    out, _ = _played(reader, cuts(body, data[1]))
    bounded(len(out), len(body))
    splitter = EventSplitter()
    for event in splitter.feed(out):
        told = Event(event).data
        assert told is None or told == b"[DONE]" or isinstance(json.loads(told), dict)
    assert not splitter.rest()


def events(data: bytes) -> None:
    """The splitter: the events put together are what came in, however it was cut."""
    body = data[HEAD:]
    whole, cut = EventSplitter(), EventSplitter()
    first = whole.feed(body)
    then = [event for chunk in cuts(body, data[1]) for event in cut.feed(chunk)]
    left, also = whole.rest(), cut.rest()
    assert b"".join((*first, left)) == b"".join((*then, also)) == body.removeprefix(b"\xef\xbb\xbf")
    for raw in first:
        bounded(len(Event(raw).rebuilt()), len(raw))
    if left:
        assert len(EventSplitter().feed(completed(left) + b"x")) >= 1


def uploads(data: bytes) -> None:
    """A client's form, whole and cut: the same request or refused, what is relayed is what was sent. Of several faults, which
    one is named depends on which came with what."""
    dialect, body = FORMS[data[0] % len(FORMS)], data[HEAD:]
    found: list[str | None] = []
    for chunks in (iter([body] if body else []), cuts(body, data[1])):
        reader = dialect.upload_reader({"content-type": f"multipart/form-data; boundary={BOUNDARY}"}, len(body))
        assert reader is not None
        try:
            for chunk in chunks:
                reader.feed(chunk)
            request = reader.finish()
        except ClientError:
            found.append(None)
            continue
        same = b"".join(dialect.patch_request(request, Changes(model=request.model)))
        assert same == body
        bounded(sum(map(len, dialect.patch_request(request, CHANGES))), len(body))
        found.append(request.model)
    assert found[0] == found[1], found


def price_files(data: bytes) -> None:
    """An operator's prices.toml: read, or every fault named."""
    try:
        text = data[HEAD:].decode()
    except UnicodeDecodeError:
        return  # refused where the file is read
    try:
        parse_files(_MODELS, TomlFile("prices.toml", text))
    except ConfigError as error:
        bounded(len(str(error)), len(text) * 40)  # a fault quotes its key, and names what is known


def _guarded(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        if len(data) >= HEAD:
            target(data)

    return run


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    each.__name__: _guarded(each) for each in (requests, crossings, replies, streams, decoders, events, uploads, price_files)
}
