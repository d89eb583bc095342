"""The contract of a dialect, for those beside chat that answer whole and as events; and what all make of damaged answers."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurixel.errors import ProviderError
from aurixel.testing.dialect_suite import DialectSuite
from aurixel.values import Usage
from tests.dialects.cases import OTHERS, Case, cases, name_of, play

TOLD = {"input_tokens": 12, "output_tokens": 472, "total_tokens": 484}
PICTURE = {"b64_json": "aGVsbG8=", "size": "1024x1024", "quality": "low", "usage": TOLD}
SAID = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def data(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class TestImages(DialectSuite):
    plugin = ""
    name = "openai_images"
    request = b'{"model": "m", "prompt": "a fox that is drawn", "size": "1024x1024", "vendor": {"x": [1, 2.0]}}'
    stream_request = b'{"model": "m", "prompt": "a fox that is drawn", "stream": true, "partial_images": 1}'
    reply = json.dumps({"created": 1, "data": [{"b64_json": "aGk="}], **PICTURE, "b64_json": "x"}).encode()
    stream = data({**PICTURE, "type": "image_generation.partial_image", "usage": None}) + data(
        {**PICTURE, "type": "image_generation.completed"}
    )
    usage = Usage({"input": 12, "output_image": 472, "images.1024x1024.low": 1})


class TestCompletions(DialectSuite):
    plugin = ""
    name = "openai_completions"
    request = b'{"model": "m", "prompt": ["a text to go on with", "another"], "n": 2}'
    stream_request = (
        b'{"model": "m", "prompt": "a text to go on with", "stream": true, "stream_options": {"include_usage": true}}'
    )
    reply = json.dumps({"choices": [{"text": "and on", "index": 0, "finish_reason": "stop"}], "usage": SAID}).encode()
    stream = (
        data({"choices": [{"text": "and on", "index": 0, "finish_reason": None}]})
        + data({"choices": [{"text": "", "index": 0, "finish_reason": "length"}]})
        + data({"choices": [], "usage": SAID})
        + b"data: [DONE]\n\n"
    )
    usage = Usage({"input": 5, "output": 3})


DAMAGE = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=4)


def damaged(sent: bytes, damage: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes put in, and some taken out."""
    for place, gone, more in damage:
        at = place % (len(sent) + 1)
        sent = sent[:at] + more + sent[at + gone :]
    return sent


@pytest.mark.parametrize("case", [case for case in cases("upstream.sse") if case.dialect.name in OTHERS], ids=name_of)
@settings(deadline=None, max_examples=40)
@given(damage=DAMAGE, cut=st.integers(1, 50))
def test_a_damaged_stream_is_read_or_refused(case: Case, damage: list[tuple[int, int, bytes]], cut: int) -> None:
    sent = damaged(case.upstream, damage)
    reader = case.dialect.stream_reader(case.request(stream=True))
    played = play(reader, [sent[at : at + cut] for at in range(0, len(sent), cut)])
    assert played.error in ("", "upstream_invalid", "upstream_died", "upstream_error_event")
    assert played.done == (not played.error)
    assert all(count > 0 for count in played.estimate.counts.values())
    assert all(count >= 0 for count in reader.delivered(5, played.output_bytes // 2).counts.values())


@pytest.mark.parametrize("case", [case for case in cases("reply.json") if case.dialect.name in OTHERS], ids=name_of)
@settings(deadline=None, max_examples=40)
@given(damage=DAMAGE)
def test_a_damaged_reply_is_read_or_refused(case: Case, damage: list[tuple[int, int, bytes]]) -> None:
    reader = case.dialect.reply_reader(case.request(stream=False), 5)
    with suppress(ProviderError):
        assert all(count > 0 for count in reader.read(damaged(case.reply, damage)).counts.values())
