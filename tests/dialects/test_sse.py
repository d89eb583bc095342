"""The splitter: however the bytes arrive, the same events; and nothing lost, doubled or reordered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.sse import Event, EventSplitter
from aurixel.errors import ProviderError

LINES = st.sampled_from(
    [b"data: a", b"data:", b"event: x", b": c", b"", b"id: 1", b"data: \xe6\x97\xa5", b"\xef\xbb\xbf", b"x"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda pairs: b"".join(line + end for line, end in pairs))


def split(chunks: list[bytes], limit: int = 1 << 20) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(limit)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.rest()


def slowly(stream: bytes) -> tuple[list[bytes], bytes]:
    """What the splitter should do, said line by line. The last line end counts only once it cannot grow any more."""
    events: list[bytes] = []
    event, ends = b"", 0
    lines = stream.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    for place, line in enumerate(lines):
        event += line
        ends = ends + 1 if not line.strip(b"\r\n") else 1
        if not line.endswith((b"\r", b"\n")):
            ends = 0
        if ends == 2 and not (place == len(lines) - 1 and line.endswith(b"\r")):
            events.append(event)
            event, ends = b"", 0
    return events, event


@given(STREAMS, st.data())
def test_any_chunking_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events, rest = split(chunks)
    assert (events, rest) == slowly(stream)
    assert b"".join(events) + rest == stream.removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize("stream", [b"", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbe"])
def test_half_a_mark_is_none(stream: bytes) -> None:
    for chunks in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        assert split(chunks) == ([], stream.removeprefix(b"\xef\xbb\xbf"))


@given(st.binary(max_size=200), st.data())
def test_no_bytes_are_lost_whatever_they_are(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    events, rest = split([stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)])
    assert b"".join(events) + rest == stream.removeprefix(b"\xef\xbb\xbf")


def test_one_whole_event_is_the_chunk_itself() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: 1\n\n")
    chunk = b"data: 2\n\n"
    assert splitter.feed(chunk)[0] is chunk


def test_a_line_far_over_64_kib_passes() -> None:
    line = b"data: " + b"x" * 1_000_000 + b"\n\n"
    chunks = [line[at : at + 8192] for at in range(0, len(line), 8192)]
    assert split(chunks, limit=2_000_000) == ([line], b"")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_what_is_pending_has_a_limit(end: bytes) -> None:
    splitter = EventSplitter(limit=1000)
    for _ in range(3):
        assert splitter.feed((b"data: " + b"x" * 900 + end) + end) == [b"data: " + b"x" * 900 + end + end]
    splitter.feed(b"x" * 1000)
    with pytest.raises(ProviderError) as caught:
        splitter.feed(b"x")
    assert caught.value.code == "upstream_invalid"


@pytest.mark.parametrize(
    ("raw", "name", "data", "plain"),
    [
        (b"data: a\n\n", b"", b"a", True),
        (b"data:a\r\ndata:  b\r\n\r\n", b"", b"a\n b", True),
        (b"event: e\rdata: a\r\r", b"e", b"a", True),
        (b": c\n\n", b"", None, True),
        (b"\n\n", b"", None, True),
        (b"data\n\n", b"", b"", True),
        (b"id: 1\ndata: a\n\n", b"", b"a", False),
        (b"retry: 1\n\n", b"", None, False),
    ],
)
def test_an_event_taken_apart(raw: bytes, name: bytes, data: bytes | None, plain: bool) -> None:
    event = Event(raw)
    assert (event.name, event.data, event.plain) == (name, data, plain)


def test_an_event_rebuilt_keeps_name_data_and_comments() -> None:
    assert Event(b"id: 1\r\n: c\r\nevent: e\r\nretry: 2\r\ndata: a\r\n\r\n").rebuilt() == b": c\nevent: e\ndata: a\n\n"
