"""What the gateway learns from a request that is no conversation, what it refuses, and what it sends on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurixel.errors import ClientError, ProviderError
from aurixel.plugin.contracts import Changes, ImageBound, ModelRules, ParsedRequest, ReadsKinds
from aurixel.values import Usage
from tests.dialects.cases import OTHERS, SMALLEST

RULES = ModelRules(context=100_000, max_output=1000)
EVERY = pytest.mark.parametrize("name", OTHERS)


def parsed(name: str, **fields: Any) -> ParsedRequest:
    body = {**SMALLEST[f"openai_{name}"], **fields}
    return OTHERS[f"openai_{name}"].parse_request(json.dumps(body, ensure_ascii=False).encode(), {})


def sent(request: ParsedRequest, **changes: Any) -> Any:
    return json.loads(b"".join(OTHERS[request.dialect].patch_request(request, Changes(model="up", **changes))))


# --- what is learnt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "count", "tokens", "text_bytes"),
    [
        ("four", 1, 0, 6),
        (["one", "two"], 2, 0, 14),
        ([5, 0, 7], 1, 3, 0),
        ([[5, 0], [7]], 2, 3, 0),
    ],
)
@pytest.mark.parametrize(("name", "field"), [("embeddings", "input"), ("completions", "prompt")])
def test_texts_and_tokens(name: str, field: str, prompt: Any, count: int, tokens: int, text_bytes: int) -> None:
    request = parsed(name, **{field: prompt})
    bound = request.bound
    assert (bound.messages, bound.exact_tokens, bound.text_bytes) == (count, tokens, text_bytes)
    dialect = OTHERS[f"openai_{name}"]
    assert dialect.bound_input(request, RULES) == text_bytes + tokens + 16 * count + 512
    assert dialect.estimate_input(request, RULES) == -(-text_bytes // 4) + tokens
    assert sent(request) == {field: prompt, "model": "up"}


@pytest.mark.parametrize(
    ("fields", "choices", "limit"),
    [
        ({}, 1, None),
        ({"n": 3, "max_tokens": 9}, 3, 9),
        ({"n": 2, "best_of": 5}, 5, None),
        ({"n": 2, "prompt": ["a", "b", "c"]}, 6, None),
        ({"best_of": 4, "prompt": [[1], [2]]}, 8, None),
        ({"prompt": None, "echo": True, "max_tokens": 0}, 1, 0),
    ],
)
def test_how_many_completions_are_held_for(fields: dict[str, Any], choices: int, limit: int | None) -> None:
    request = parsed("completions", **fields)
    assert (request.choices, request.output_limit, request.limitable) == (choices, limit, True)


def test_a_completion_is_limited_in_its_own_word() -> None:
    body = sent(parsed("completions", stream=True), output_limit=7, output_limit_field="max_completion_tokens")
    assert body == {"prompt": "x", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7, "model": "up"}


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, {"images.auto.auto": 1}),
        ({"n": 3, "size": "1024x1024"}, {"images.1024x1024.auto": 3}),
        ({"size": None, "quality": "hd"}, {"images.auto.hd": 1}),
        ({"size": "16:9", "quality": "low", "n": None}, {"images.16:9.low": 1}),
    ],
)
def test_what_pictures_are_asked_for(fields: dict[str, Any], most: dict[str, int]) -> None:
    request = parsed("images", **fields)
    assert request.most == most
    assert request.choices == sum(most.values())
    assert (request.output_limit, request.limitable, request.needs) == (None, False, frozenset())


def test_a_picture_passes_as_it_was_asked_for() -> None:
    fields = {"background": "transparent", "partial_images": 2, "stream": True, "style": "vivid", "vendor_seed": 5}
    assert sent(parsed("images", **fields), by_tokens=True) == {"prompt": "x", **fields, "model": "up"}


@pytest.mark.parametrize(
    ("text", "count"), [("abc", 3), ("Grüße", 5), ("東京", 2), ("👍🏽", 2), ("e\u0301", 2), ('a"\n', 3), (" ", 1)]
)
def test_characters_are_code_points(text: str, count: int) -> None:
    assert parsed("speech", input=text).most == {"characters": count}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "audio/mpeg"),
        ({"response_format": "mp3"}, "audio/mpeg"),
        ({"response_format": "opus"}, "audio/opus"),
        ({"response_format": "aac"}, "audio/aac"),
        ({"response_format": "flac"}, "audio/flac"),
        ({"response_format": "wav", "stream_format": "audio"}, "audio/wav"),
        ({"response_format": "pcm"}, "audio/pcm"),
        ({"response_format": "ulaw_8000"}, "application/octet-stream"),
        ({"stream_format": "sse", "response_format": "wav"}, ""),
    ],
)
def test_what_sound_is_sent_as(fields: dict[str, Any], kind: str) -> None:
    request = parsed("speech", **fields)
    assert (request.sent_as, request.stream, request.limitable) == (kind, True, False)


@pytest.mark.parametrize("fields", [{}, {"stream_format": "audio"}, {"stream_format": "sse"}])
def test_only_a_price_by_tokens_asks_for_events(fields: dict[str, Any]) -> None:
    request = parsed("speech", **fields)
    assert sent(request) == {"input": "x", "voice": "v", **fields, "model": "up"}
    assert sent(request, by_tokens=True) == {"input": "x", "voice": "v", "stream_format": "sse", "model": "up"}


def test_moderation_of_parts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    request = parsed("moderations", input=[{"type": "text", "text": "hello"}, picture])
    assert (request.bound.messages, request.bound.images) == (2, (ImageBound(),))
    assert parsed("moderations", model=None).model == "omni-moderation-latest"


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *(
            ("embeddings", "input", value)
            for value in (None, 7, {}, [], [[]], [None], ["a", 1], [1, "a"], [[1], "a"], [-1], [1.5])
        ),
        *(("embeddings", "input", value) for value in ([2**31], [True], [[1], []], [{"text": "a"}])),
        *(("completions", "prompt", value) for value in (7, {}, [], [[]], [[1], ["a"]], [{}])),
        *(("completions", field, value) for field in ("n", "best_of", "max_tokens") for value in (0, -1, 1.5, "2", 2**31)),
        ("completions", "stream", "yes"),
        ("completions", "echo", 1),
        ("completions", "stream_options", 7),
        *(("moderations", "input", value) for value in (None, 7, "", [], [7], [[]], [{"type": 7}], [{"image_url": 7}])),
        *(("images", "prompt", value) for value in (None, "", 7, [])),
        *(("images", "n", value) for value in (0, 129, "2", 1.5)),
        *(("images", "partial_images", value) for value in (-1, 4, "1")),
        *(("images", field, value) for field in ("size", "quality") for value in (7, "", "a.b", "a b", "x" * 65, "é")),
        ("images", "stream", "yes"),
        *(("speech", "input", value) for value in (None, "", 7, ["x"])),
        *(("speech", "voice", value) for value in (7, ["a"])),
        *(("speech", "stream_format", value) for value in ("events", 7)),
        ("speech", "response_format", 7),
        *((name, "model", 7) for name in ("embeddings", "completions", "moderations", "images", "speech")),
        *((name, "model", None) for name in ("embeddings", "completions", "images", "speech")),
    ],
)
def test_a_field_of_the_wrong_kind(name: str, field: str, value: Any) -> None:
    with pytest.raises(ClientError) as caught:
        parsed(name, **{field: value})
    assert (caught.value.code, caught.value.param) == ("invalid_request", field)


@pytest.mark.parametrize(
    ("name", "fields", "code", "param"),
    [
        *((name, {"service_tier": "priority"}, "unpriced_feature", "service_tier") for name in ("embeddings", "images")),
        *((name, {"service_tier": "flex"}, "unpriced_feature", "service_tier") for name in ("images", "speech", "moderations")),
        ("completions", {"store": True}, "unpriced_feature", "store"),
        ("completions", {"background": True}, "unpriced_feature", "background"),
        ("images", {"output_format": "svg"}, "unpriced_feature", "output_format"),
        ("images", {"output_format": "gif"}, "unpriced_feature", "output_format"),
        ("images", {"svg": {"model": "m"}}, "unpriced_feature", "svg"),
        ("images", {"frame_count": 9}, "unpriced_feature", "frame_count"),
        ("images", {"stream": True, "n": 2}, "unsupported_parameter", "n"),
        ("speech", {"voice": {"id": "voice_1"}}, "unsupported_parameter", "voice"),
    ],
)
def test_what_is_refused(name: str, fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        parsed(name, **fields)
    assert (caught.value.code, caught.value.param) == (code, param)


# --- anything at all ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["text", "image_url", "url", "sse", "audio", "svg", "1024x1024", "data:image/png;base64,iVBORw0K", "id"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.just("type"), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    (
        *("input", "prompt", "n", "best_of", "echo", "max_tokens", "stream", "stream_options", "size", "quality", "voice"),
        *("partial_images", "stream_format", "response_format", "service_tier", "store", "svg", "output_format", "x"),
    )
)


@EVERY
@settings(deadline=None)
@given(more=st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_fields(name: str, more: dict[str, Any]) -> None:
    dialect = OTHERS[name]
    try:
        request = dialect.parse_request(json.dumps({**SMALLEST[name], **more}).encode(), {})
    except ClientError:
        return
    assert sent(request)["model"] == "up"
    assert 0 <= dialect.estimate_input(request, RULES) <= dialect.bound_input(request, RULES) <= RULES.context
    if request.stream:
        assert dialect.stream_reader(request).output_bytes == 0
    else:
        dialect.reply_reader(request, 1)


@EVERY
def test_a_request_prints_nothing(name: str) -> None:
    body = {key: "secret" if key in ("input", "prompt") else value for key, value in SMALLEST[name].items()}
    request = OTHERS[name].parse_request(json.dumps(body).encode(), {})
    assert "secret" not in f"{request!r} {request.bound!r}"


# --- sound as it comes --------------------------------------------------------------------------------------------------


def listening(kind: str, **fields: Any) -> tuple[Any, str]:
    reader = OTHERS["openai_speech"].stream_reader(parsed("speech", input="hello", **fields))
    assert isinstance(reader, ReadsKinds)
    return reader, reader.comes_as(kind)


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("audio/wav", {}, "audio/wav"),  # what the upstream says it is, is believed
        ("application/octet-stream", {}, "audio/mpeg"),
        ("application/octet-stream", {"response_format": "flac"}, "audio/flac"),
        ("text/event-stream; charset=utf-8", {"response_format": "wav"}, "audio/wav"),
    ],
)
def test_what_a_client_is_told_it_gets(kind: str, fields: dict[str, Any], told: str) -> None:
    assert listening(kind, **fields)[1] == told


def test_bytes_pass_and_end_with_their_connection() -> None:
    reader, _ = listening("audio/pcm", response_format="pcm")
    assert not reader.started
    assert [reader.feed(piece) for piece in (b"data: ", b"\n\n", b"\x00" * 4792)] == [b"data: ", b"\n\n", b"\x00" * 4792]
    assert (reader.started, reader.done, reader.output_bytes) == (True, False, 4800)
    assert reader.close() == b""
    assert reader.done
    guessed = frozenset({"input", "output_audio"})
    whole = Usage({"input": 9, "output_audio": 2, "characters": 5}, measured=False, guessed=guessed)
    assert reader.estimate(9) == whole
    assert reader.delivered(9, 2400) == Usage({"input": 9, "output_audio": 1, "characters": 5}, measured=False, guessed=guessed)
    assert whole.certain({"characters": 5})
    assert not whole.certain({"input": 9, "output_audio": 2})


@pytest.mark.parametrize(
    ("asked", "came", "tokens"), [("mp3", "audio/wav", 20), ("wav", "audio/mpeg", 60), ("wav", "text/html", 20)]
)
def test_tokens_are_guessed_by_the_sound_that_came(asked: str, came: str, tokens: int) -> None:
    reader, _ = listening(came, response_format=asked)
    reader.feed(bytes(48_000))
    assert reader.estimate(1).counts["output_audio"] == tokens


def test_silence_is_no_answer() -> None:
    reader, _ = listening("audio/mpeg")
    with pytest.raises(ProviderError) as caught:
        reader.close()
    assert caught.value.code == "upstream_invalid"
    assert not reader.done
