"""Nesting is bounded at the same level on every Python, in requests and in answers, whatever strings look like."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurixel.dialects.depth import MAX_DEPTH, object_too_deep, too_deep
from aurixel.errors import ClientError, ProviderError
from aurixel.plugin.contracts import Dialect
from tests.dialects.cases import DIALECTS, GOLDEN, in_words_of

BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
REQUEST = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
TRICKY = st.text(alphabet='[]{}"\\/,: \nu\u00e9', max_size=12)
VALUES = st.recursive(
    st.none() | st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=30,
)


def levels(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(levels, inner), default=0)
    return 0


def nested(value: bytes, depth: int) -> bytes:
    """Lists and objects around it, by turns."""
    for _ in range(depth // 2):
        value = b'{"[": [' + value + b"]}"
    return b"[" + value + b"]" if depth % 2 else value


@given(VALUES, st.booleans())
@example('\\"' * 2000 + "[" * 2000, False)
@example(["[" * 2000, "\\", "]" * 2000, '"', "{" * 2000], True)
@example([[]] * 2000, True)
def test_only_brackets_outside_of_strings_count(value: Any, plain: bool) -> None:
    text = json.dumps(value, ensure_ascii=plain).encode()
    depth = MAX_DEPTH - levels(value)
    assert not too_deep(nested(text, depth))
    assert too_deep(nested(text, depth + 1))
    for inside in (nested(text, depth - 1), b"[1,%b,[]]" % nested(text, depth - 2)):
        assert not within(inside)
        assert within(b"[%b]" % inside)


def within(value: bytes) -> bool:
    """As one field of an object."""
    body = b'{"a": [], "x": %b}' % value
    return object_too_deep(body, msgspec.json.decode(body, type=dict[str, msgspec.Raw]).values())


@pytest.mark.parametrize("item", [b"1", b"{}", b'{"role": "user", "content": ["text", {"a": "]"}]}'])
@pytest.mark.parametrize("count", [2_000, 250_000])
def test_a_long_list_is_not_a_deep_one(item: bytes, count: int) -> None:
    items = b",".join([item] * count)
    assert not within(b"[%b]" % items)
    assert within(b"[%b,%b,%b]" % (items, nested(b"1", MAX_DEPTH - 1), items))
    assert not within(b"[%b,%b,%b]" % (items, nested(b"1", MAX_DEPTH - 2), items))


@given(st.text(alphabet='[]{}"\\a'))
def test_what_is_no_json_is_judged_without_a_fault(text: str) -> None:
    too_deep(text.encode() * 100)


@BOTH
def test_a_request_at_the_bound_and_beyond_it(dialect: Dialect) -> None:
    begin = json.dumps(in_words_of(dialect, REQUEST)).encode()[:-1] + b', "x": '
    assert dialect.parse_request(begin + nested(b"1", MAX_DEPTH - 1) + b"}", {}).model == "m"
    for deep in (nested(b"1", MAX_DEPTH), b"[" * MAX_DEPTH):  # the second one is not even JSON
        with pytest.raises(ClientError) as caught:
            dialect.parse_request(begin + deep + b"}", {})
        assert (caught.value.code, caught.value.status) == ("too_deep", 400)


@BOTH
def test_an_answer_at_the_bound_and_beyond_it(dialect: Dialect) -> None:
    reply = (GOLDEN / dialect.name / "reply_text" / "reply.json").read_bytes().rstrip().removesuffix(b"}") + b', "x": '
    request = dialect.parse_request(json.dumps(in_words_of(dialect, REQUEST)).encode(), {})
    usage = dialect.reply_reader(request, 50).read(reply + nested(b"1", MAX_DEPTH - 1) + b"}")
    assert usage.measured
    with pytest.raises(ProviderError) as caught:
        dialect.reply_reader(request, 50).read(reply + nested(b"1", MAX_DEPTH) + b"}")
    assert (caught.value.code, "nested" in caught.value.message) == ("upstream_invalid", True)


@BOTH
def test_an_event_at_the_bound_and_beyond_it(dialect: Dialect) -> None:
    request = dialect.parse_request(json.dumps(in_words_of(dialect, {**REQUEST, "stream": True})).encode(), {})
    name = b"response.created" if dialect.name == "openai_responses" else b"ping"
    event = b'event: %b\ndata: {"type": "%b", "choices": [], "x": %%b}\n\n' % (name, name)
    whole = event % nested(b"1", MAX_DEPTH - 1)
    assert dialect.stream_reader(request).feed(whole) == whole
    with pytest.raises(ProviderError) as caught:
        dialect.stream_reader(request).feed(event % nested(b"1", MAX_DEPTH))
    assert (caught.value.code, "nested" in caught.value.message) == ("upstream_invalid", True)
