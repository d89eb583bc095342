"""Any bytes give a request or a `ClientError` that names the field and quotes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurixel.errors import ClientError
from aurixel.plugin.contracts import Changes, Dialect, ModelRules, ParsedRequest
from tests.dialects.cases import ALL, DIALECTS, in_words_of, word_of

BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
EVERY = pytest.mark.parametrize("dialect", ALL.values(), ids=ALL.keys())
GOOD: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
RULES = ModelRules(context=1000, max_output=100)
DEEP = b"[" * 100_000 + b"]" * 100_000
INSIDE = [
    ([{"role": "user", "content": 5}], "'messages[0].content' must be a string or a list or null."),
    ([{"content": "a"}, {"content": [{"type": "text"}, 5]}], "'messages[1].content[1]' must be an object."),
    ([{"content": [{"type": 5}]}], "'messages[0].content[0].type' must be a string."),
]


def written(dialect: Dialect, **fields: Any) -> bytes:
    """A good request of the dialect but for these fields, called as in Messages."""
    return json.dumps(in_words_of(dialect, {**GOOD, **fields}), ensure_ascii=False).encode(errors="surrogatepass")


def refusal(dialect: Dialect, body: bytes, headers: dict[str, str] | None = None) -> ClientError:
    with pytest.raises(ClientError) as caught:
        dialect.parse_request(body, headers or {})
    return caught.value


@EVERY
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b" \r\n\t ", "empty_body"),
        (b"{", "invalid_json"),
        (b"{}{}", "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "m", "temperature": -Infinity}', "invalid_json"),
        (b'{"model": "m", "messages": [{"a": 1,}]}', "invalid_json"),
        (b'{"model": "m", "messages": "\\ud800"}', "invalid_json"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"17", "invalid_request"),
        (b'{"model": "\xff"}', "invalid_utf8"),
        (b'{"model": "m"}\xe6\x97', "invalid_utf8"),
        (b'{"\xff": 1}', "invalid_utf8"),
        (b'{"model": "m", "model": "n"}', "duplicate_key"),
        (b'{"model": "m", "mod\\u0065l": "n"}', "duplicate_key"),
        (b'{"x": ' + DEEP + b"}", "too_deep"),
        (DEEP, "invalid_request"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    ],
)
def test_what_is_no_object(dialect: Dialect, body: bytes, code: str) -> None:
    assert refusal(dialect, body).code == code


@BOTH
@pytest.mark.parametrize(("messages", "told"), INSIDE)
def test_a_wrong_part_of_a_field_is_named(dialect: Dialect, messages: Any, told: str) -> None:
    error, word = refusal(dialect, written(dialect, messages=messages)), word_of(dialect, "messages")
    assert (error.code, error.message, error.param) == ("invalid_request", told.replace("messages", word), word)


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic_messages"])
def test_a_text_is_no_list(dialect: str) -> None:
    error = refusal(DIALECTS[dialect], written(DIALECTS[dialect], messages="canary"))
    assert (error.code, error.message) == ("invalid_request", "'messages' must be a list of messages.")


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", 7),
        ("model", ""),
        ("model", "x" * 257),
        ("model", "a\nb"),
        ("messages", None),
        ("messages", 7),
        ("messages", {}),
        ("messages", []),
        ("messages", ["secret"]),
        ("messages", [{"role": "user", "content": 7}]),
        ("messages", [{"role": "user", "content": ["secret"]}]),
        ("stream", "secret"),
        ("stream", 1),
        ("max_tokens", -1),
        ("max_tokens", 1.0),
        ("max_tokens", True),
        ("max_tokens", "9"),
        ("max_tokens", 2**31),
        ("max_tokens", 10**400),
        ("tools", {}),
        ("tools", [7]),
        ("service_tier", 7),
    ],
)
def test_a_field_of_the_wrong_kind(dialect: Dialect, field: str, value: Any) -> None:
    error, word = refusal(dialect, written(dialect, **{field: value})), word_of(dialect, field)
    assert (error.code, error.param) == ("invalid_request", word)
    assert word in error.message
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 129),
        ("n", "2"),
        ("max_tokens", 0),
        ("max_completion_tokens", 0),
        ("stream_options", True),
        ("stream_options", {"include_usage": "yes"}),
        ("modalities", "audio"),
        ("functions", 7),
    ],
)
def test_a_field_of_the_wrong_kind_in_chat(field: str, value: Any) -> None:
    error = refusal(DIALECTS["openai_chat"], json.dumps({**GOOD, field: value}).encode())
    assert (error.code, error.param) == ("invalid_request", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_output_tokens", 0),
        ("max_tool_calls", "3"),
        ("tools", [{"type": "web_search"}, 7]),
        ("reasoning", "high"),
        ("prompt_cache_options", "x"),
        ("background", "yes"),
        ("store", 1),
    ],
)
def test_a_field_of_the_wrong_kind_in_responses(field: str, value: Any) -> None:
    body = json.dumps({"model": "m", "input": "x", "max_tool_calls": 1, field: value}).encode()
    error = refusal(DIALECTS["openai_responses"], body)
    assert (error.code, error.param) == ("invalid_request", field)


def test_tools_nested_without_end() -> None:
    tools: Any = []
    for _ in range(300):
        tools = [{"type": "namespace", "tools": tools}]
    error = refusal(DIALECTS["openai_responses"], json.dumps({"model": "m", "input": "x", "tools": tools}).encode())
    assert (error.code, error.param) == ("invalid_request", "tools")


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", None), ("system", 7), ("system", ["x"]), ("cache_control", "x"), ("tools", [{"type": "Evil type!"}])],
)
def test_a_field_of_the_wrong_kind_in_messages(field: str, value: Any) -> None:
    error = refusal(DIALECTS["anthropic_messages"], json.dumps({**GOOD, field: value}).encode())
    assert (error.code, error.param) == ("invalid_request", field)


def test_blocks_nested_without_end() -> None:
    content: Any = "x"
    for _ in range(300):
        content = [{"type": "tool_result", "content": content}]
    body = json.dumps({**GOOD, "messages": [{"role": "user", "content": content}]}).encode()
    assert refusal(DIALECTS["anthropic_messages"], body).code == "too_deep"


@EVERY
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", "application"])
def test_another_content_type(dialect: Dialect, kind: str) -> None:
    assert refusal(dialect, written(dialect), {"content-type": kind}).code == "unsupported_content_type"


@BOTH
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON ;charset=x", ""])
def test_json_by_any_name(dialect: Dialect, kind: str) -> None:
    assert dialect.parse_request(written(dialect), {"content-type": kind}).model == "m"


@BOTH
@pytest.mark.parametrize("place", [0, 65_535, 65_536, 131_071, 131_072])
def test_utf8_is_checked_across_the_pieces_it_is_checked_in(dialect: Dialect, place: int) -> None:
    head = b'{"model":"m","max_tokens":9,"%b":[{"content":"' % word_of(dialect, "messages").encode()
    text = b"x" * (place - len(head)) + "語".encode() + b"y" * 70_000
    assert dialect.parse_request(head + text + b'"}]}', {}).bound.text_bytes > len(text)
    broken = text.replace("語".encode(), "語".encode()[:2])
    assert refusal(dialect, head + broken + b'"}]}').code == "invalid_utf8"


def test_a_request_prints_nothing() -> None:
    body = json.dumps({**GOOD, "messages": [{"role": "user", "content": "secret"}]}).encode()
    request = DIALECTS["openai_chat"].parse_request(body, {})
    assert "secret" not in f"{request!r} {request.bound!r}"


def judge(dialect: Dialect, body: bytes) -> None:
    try:
        request = dialect.parse_request(body, {})
    except ClientError:
        return
    assert isinstance(request, ParsedRequest)
    patched = json.loads(b"".join(dialect.patch_request(request, Changes(model="up", output_limit=5))))
    assert patched["model"] == "up"
    assert 0 <= dialect.estimate_input(request, RULES) <= dialect.bound_input(request, RULES) <= RULES.context


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    (
        *(
            "type",
            "text",
            "image_url",
            "url",
            "image",
            "source",
            "base64",
            "data",
            "document",
            "content",
            "tool_result",
            "file",
        ),
        *("input_audio", "cache_control", "ttl", "1h", "data:image/png;base64,iVBORw0KGgo", "detail", "low", "audio", "id"),
        *("input_image", "input_file", "file_data", "file_id", "output", "function_call_output", "additional_tools", "tools"),
        *("web_search", "namespace", "function", "item_reference", "role", "user", "encrypted_content", "reasoning"),
    )
)
BLOCK = st.dictionaries(WORDS, st.deferred(lambda: VALUE), max_size=4)
VALUE: st.SearchStrategy[Any] = WORDS | JSON | BLOCK | st.lists(BLOCK, max_size=3)
FIELDS = st.sampled_from(
    (
        *("stream", "n", "max_tokens", "max_completion_tokens", "stream_options", "tools", "functions", "modalities", "system"),
        *(
            "web_search_options",
            "prompt_cache_options",
            "service_tier",
            "cache_control",
            "speed",
            "container",
            "mcp_servers",
            "x",
            "reasoning",
            "max_tool_calls",
            "conversation",
        ),
    )
)


@EVERY
@settings(deadline=None)
@given(body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(body=b'{"model":"m","messages":[{}],"max_tokens":1}')
def test_any_bytes(dialect: Dialect, body: bytes) -> None:
    judge(dialect, body)


@BOTH
@settings(deadline=None)
@given(more=st.dictionaries(FIELDS, VALUE, max_size=3), content=VALUE)
def test_any_fields(dialect: Dialect, more: dict[str, Any], content: Any) -> None:
    judge(dialect, written(dialect, messages=[{"role": "user", "content": content}], **more))


@settings(deadline=None)
@given(item=st.dictionaries(WORDS, VALUE, max_size=5), tools=VALUE)
def test_any_items(item: dict[str, Any], tools: Any) -> None:
    judge(DIALECTS["openai_responses"], json.dumps({"model": "m", "input": [item], "tools": tools}).encode())
