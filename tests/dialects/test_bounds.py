"""The upper bound of the input: text by its bytes, media by what they are, and never above the model's context."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.images import base64_image_size, image_size
from aurixel.plugin.contracts import ImageBound, ModelRules, ParsedRequest
from tests.dialects.cases import DIALECTS, in_words_of
from tests.dialects.test_requests import PART, chat, messages, responses, turn

RULES = ModelRules(context=1_000_000, max_output=100)


def bound(request: ParsedRequest, rules: ModelRules = RULES) -> int:
    return DIALECTS[request.dialect].bound_input(request, rules)


def guess(request: ParsedRequest, rules: ModelRules = RULES) -> int:
    return DIALECTS[request.dialect].estimate_input(request, rules)


def png(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0" * 50


def jpeg(width: int, height: int, metadata: int = 0) -> bytes:
    segments = b"\xff\xe1" + struct.pack(">H", 2 + metadata) + b"\xff" * metadata
    tables = b"\xff\xdb" + struct.pack(">H", 67) + b"\0" * 65 + b"\xff\xc4" + struct.pack(">H", 4) + b"\0\0"
    return b"\xff\xd8" + segments + tables + b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 30


def webp(kind: bytes, data: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + data + b"\0" * 20


IMAGES = {
    "png": (png(4000, 3000), (4000, 3000)),
    "gif": (b"GIF89a" + struct.pack("<HH", 320, 200) + b"\0" * 9, (320, 200)),
    "jpeg": (jpeg(1920, 1080), (1920, 1080)),
    "jpeg_with_metadata": (jpeg(1920, 1080, 60_000), (1920, 1080)),
    "webp_lossy": (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 0x4000 | 480)), (640, 480)),
    "webp_lossless": (webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)), (640, 480)),
    "webp_extended": (webp(b"VP8X", b"\0\0\0\0" + struct.pack("<HBHB", 639, 0, 479, 0)), (640, 480)),
    "no_image": (b"%PDF-1.7 and so on", None),
    "cut_png": (png(4000, 3000)[:20], None),
    "flat_png": (png(0, 3000), None),
    "jpeg_without_frame": (jpeg(1, 1, 1000)[:900], None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("name", IMAGES)
def test_the_size_of_an_image(name: str) -> None:
    data, size = IMAGES[name]
    assert image_size(data) == size
    written = base64.b64encode(data)
    assert base64_image_size(memoryview(written)) == size
    assert base64_image_size(memoryview(written.replace(b"/", b"\\/"))) == size  # as some JSON writers put it


@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP", b"RIFF....WEBPVP8 ", b"\xff\xd8\xff"]),
    st.binary(max_size=80),
)
def test_no_image_breaks_the_reader(head: bytes, rest: bytes) -> None:
    size = image_size(head + rest)
    assert size is None or min(size) > 0
    base64_image_size(memoryview(head + rest))


def image_url(data: bytes, kind: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}", **more}}


def input_image(data: bytes, **more: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "input_image", "image_url": url, **more}


def image_block(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source}


def test_text_counts_a_token_a_byte() -> None:
    short, long = chat(), chat(messages=[{"role": "user", "content": "hi" + "9 " * 5000}])
    assert bound(long) - bound(short) == 10_000
    assert 16 + 512 + len("hi") < bound(short) < 16 + 512 + 40


def test_every_part_of_the_prompt_counts() -> None:
    text = "x" * 1000
    for request in (
        chat(tools=[{"type": "function", "function": {"name": "f", "description": text}}]),
        chat(functions=[{"name": "f", "description": text}]),
        chat(response_format={"type": "json_schema", "json_schema": {"description": text}}),
        chat(messages=[{"role": "tool", "content": text}]),
        chat(messages=[{"role": "assistant", "tool_calls": [{"function": {"arguments": text}}]}]),
        chat(vendor_documents=[text]),
        responses(input=text),
        responses(instructions=text),
        responses(text={"format": {"schema": text}}),
        responses(tools=[{"type": "namespace", "tools": [{"type": "function", "description": text}]}]),
        responses(input=[{"type": "function_call_output", "output": [{"type": "input_text", "text": text}]}]),
        responses(input=[{"type": "reasoning", "encrypted_content": text}]),
        messages(system=text),
        messages(system=[{"type": "text", "text": text}]),
        messages(tools=[{"name": "f", "description": text}]),
        messages(output_config={"format": {"schema": text}}),
        messages(messages=turn({"type": "tool_result", "content": [{"type": "text", "text": text}]})),
        messages(messages=turn({"type": "document", "source": {"type": "text", "data": text}})),
        messages(
            messages=turn(
                {"type": "search_result", "source": "https://example.org", "content": [{"type": "text", "text": text}]}
            )
        ),
    ):
        assert bound(request) >= 1000 + 16 + 512


def test_messages_and_tools_cost_something_each() -> None:
    tool = {"name": "f"}
    assert messages(tools=[tool] * 3).bound.tools == 3
    assert chat(tools=[{"type": "function"}], functions=[{}]).bound.tools == 2
    assert chat(messages=[{"role": "user", "content": "a"}] * 5).bound.messages == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda data: chat(messages=turn(PART, image_url(data))),
        lambda data: messages(messages=turn(PART, image_block(data))),
        lambda data: responses(input=turn(PART, input_image(data))),
        lambda data: responses(input=[{"type": "function_call_output", "output": [input_image(data)]}]),
    ],
)
def test_an_image_counts_by_its_size_not_its_bytes(make: Any) -> None:
    request = make(png(2800, 1400) + b"\0" * 300_000)
    assert request.bound.images == (ImageBound(2800, 1400),)
    assert request.bound.text_bytes < 300
    plain = make(png(28, 28))
    assert bound(request) - bound(plain) == 100 * 50 * 1.2 - 2


@pytest.mark.parametrize(
    "request_",
    [
        chat(messages=turn({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}})),
        chat(messages=turn({"type": "image_url", "image_url": "https://example.org/a.png"})),
        chat(messages=turn({"type": "image_url"})),
        chat(messages=turn(image_url(b"no image at all"))),
        responses(input=turn({"type": "input_image", "image_url": "https://example.org/a.png"})),
        responses(input=turn({"type": "input_image"})),
        responses(input=turn(input_image(b"no image at all"))),
        responses(input=[{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "x"}}]),
        messages(messages=turn({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}})),
        messages(messages=turn({"type": "image"})),
        messages(messages=turn(image_block(b"no image at all"))),
        messages(messages=turn({"type": "tool_result", "content": [image_block(b"no image at all")]})),
        messages(messages=turn({"type": "document", "source": {"type": "content", "content": [image_block(b"?")]}})),
    ],
)
def test_an_image_of_unknown_size_counts_as_the_largest(request_: ParsedRequest) -> None:
    assert request_.bound.images == (ImageBound(),)
    assert bound(request_) > RULES.image_cap


def test_an_image_never_counts_more_than_the_cap() -> None:
    request = chat(messages=turn(image_url(png(60_000, 60_000))))
    assert RULES.image_cap < bound(request) < RULES.image_cap + 1000


def test_a_low_detail_image_is_guessed_small_and_bounded_in_full() -> None:
    low, high = (chat(messages=turn(image_url(png(2800, 2800), detail=detail))) for detail in ("low", "high"))
    assert abs(bound(low) - bound(high)) < 5
    assert guess(low) < guess(high) / 10


def test_base64_in_a_text_is_text() -> None:
    text = base64.b64encode(b"x" * 3000).decode()
    assert bound(chat(messages=turn({"type": "text", "text": f"data:image/png;base64,{text}"}))) > 4000
    assert bound(chat(messages=turn({"type": "text", "image_url": {"url": f"data:image/png;base64,{text}"}}))) > 4000
    assert bound(messages(messages=turn({"type": "text", "source": {"type": "base64", "data": text}}))) > 4000


def test_documents_and_audio() -> None:
    pdf = base64.b64encode(b"%PDF" + b"x" * 29_996).decode()
    of_chat = chat(messages=turn({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}"}}))
    of_messages = messages(messages=turn({"type": "document", "source": {"type": "base64", "data": pdf}}))
    file = {"type": "input_file", "file_data": f"data:application/pdf;base64,{pdf}"}
    for request in (of_chat, of_messages, responses(input=turn(file))):
        assert (request.bound.documents, request.bound.document_bytes) == (1, 30_000)
        assert 64_096 < bound(request) < 65_096
    sound = chat(messages=turn({"type": "input_audio", "input_audio": {"data": pdf, "format": "wav"}}))
    assert sound.bound.audio_bytes == 30_000
    heard = responses(input=turn({"type": "input_audio", "input_audio": {"data": pdf, "format": "wav"}}))
    assert (heard.bound.audio_bytes, heard.needs) == (30_000, {"input_audio"})
    assert 600 < bound(sound) < 1500


@pytest.mark.parametrize(
    "request_",
    [
        chat(web_search_options={}),
        responses(tools=[{"type": "web_search"}]),
        responses(input=turn({"type": "input_file", "file_url": "https://example.org/a.pdf"})),
        messages(messages=turn({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}})),
        messages(tools=[{"type": "web_fetch_20250910"}]),
        messages(mcp_servers=[{"type": "url", "url": "https://example.org"}]),
    ],
)
def test_what_the_upstream_adds_itself_is_bounded_by_the_context(request_: ParsedRequest) -> None:
    assert bound(request_) == RULES.context


def test_the_context_bounds_everything() -> None:
    small = ModelRules(context=700, max_output=100)
    request = chat(messages=[{"role": "user", "content": "x" * 5000}])
    assert bound(request, small) == 700
    assert guess(request, small) == 700


def test_a_guess_is_near_a_quarter_of_the_text() -> None:
    assert 2500 < guess(chat(messages=[{"role": "user", "content": "x" * 10_000}])) < 2520
    assert guess(chat()) < 12


@given(st.text(max_size=300), st.integers(1, 4))
def test_the_guess_is_never_above_the_bound_nor_the_bound_below_the_bytes(text: str, count: int) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}] * count}
    for dialect in DIALECTS.values():
        for ascii_only in (True, False):
            request = dialect.parse_request(json.dumps(in_words_of(dialect, body), ensure_ascii=ascii_only).encode(), {})
            assert guess(request) <= bound(request)
            assert bound(request) >= count * len(text.encode())
