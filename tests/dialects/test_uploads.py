"""Uploads as their dialects read them: the same request however a form is cut, known as early as it can be, and every byte of
it passed on but for the model's name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects import OpenAIImageEdits, OpenAIImageVariations, OpenAITranscriptions, OpenAITranslations
from aurixel.errors import ClientError
from aurixel.plugin.contracts import Changes, ModelRules, ParsedRequest, TakesUploads, UploadReader
from aurixel.testing.samples import sample_files
from tests.dialects.sounds import flac, m4a, ogg_opus
from tests.flow.uploads import KIND, form, sound

HEADERS = {"content-type": KIND}
RULES = ModelRules(context=16_000, max_output=2_000)
EAR, TRANSLATOR, EDITOR, VARIER = OpenAITranscriptions(), OpenAITranslations(), OpenAIImageEdits(), OpenAIImageVariations()
((_, _, PICTURE),) = sample_files("openai_image_edits")
SOUND = sound(3)


def begun(dialect: TakesUploads, length: int) -> UploadReader:
    reader = dialect.upload_reader(HEADERS, length)
    assert reader is not None
    return reader


def facts(request: ParsedRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__ if name != "upload"}


@given(
    first=st.lists(st.sampled_from(["model", "prompt", "stream", "response_format"]), unique=True),
    cuts=st.lists(st.integers(0, 49_000), max_size=8),
)
def test_cut_anywhere_and_in_any_order(first: list[str], cuts: list[int]) -> None:
    fields = {"model": "ear", "prompt": "Ünïcode words", "stream": "true", "response_format": "text"}
    before = {name: fields[name] for name in first}
    after = {name: value for name, value in fields.items() if name not in before}
    end = form({})
    body = form(before, ("file", "three.wav", SOUND)).removesuffix(end) + form(after)
    whole = EAR.parse_request(body, HEADERS)
    assert (whole.model, whole.stream, whole.most) == ("ear", True, {"audio_seconds": 4})  # the bound counts its header, too
    reader, decided, passed = begun(EAR, len(body)), None, b""
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    for start, stop in pairwise(places):
        reader.feed(body[start:stop])
        if decided is None and (decided := reader.request) is not None:
            passed = b"".join(EAR.patch_request(decided, Changes(model="other"))) + body[stop:]
            assert decided.most["audio_seconds"] >= whole.most["audio_seconds"]
            assert EAR.bound_input(decided, RULES) >= EAR.estimate_input(decided, RULES)
            assert (decided.model, decided.upload) == ("ear", reader)
            assert b'name="model"' in body[:stop]
            reader.let_go()
    assert not reader.whole or decided is None
    final = reader.finish()
    assert reader.whole
    assert facts(final) == facts(whole)
    assert reader.size == len(body)
    assert reader.units == {"audio_seconds": 3}
    if decided is not None:
        assert passed == body.replace(b"\r\n\r\near\r\n", b"\r\n\r\nother\r\n")


@pytest.mark.parametrize("at_once", [True, False], ids=["whole", "first_bytes"])
def test_a_hold_is_for_the_length_that_the_sound_says(at_once: bool) -> None:
    """An hour of silence in a few bytes, by the second and by the token; of what tells it at its end, once it is whole."""
    for silence in (flac(3600, 70_000), m4a(3600, 70_000, index_first=True), ogg_opus(3600, 70_000)):
        body = form({"model": "ear"}, ("file", "silence", silence))
        reader = begun(EAR, len(body))
        reader.feed(body if at_once else body[:500])
        request = reader.finish() if at_once else reader.request
        assert request is not None
        if at_once or not silence.startswith(b"OggS"):
            assert request.most == {"audio_seconds": 3600}
            assert EAR.bound_input(request, ModelRules(context=1_000_000, max_output=1)) >= 3600 * 20
        else:
            assert request.most == {"audio_seconds": -(-len(body) // 1000)}
    assert not at_once or reader.units == {"audio_seconds": 3600}


def test_it_is_decided_by_the_first_bytes_of_the_file() -> None:
    body = form({"model": "ear"}, ("file", "three.wav", SOUND))
    reader = begun(EAR, len(body))
    at = body.index(b"RIFF") + 63
    reader.feed(body[:at])
    assert reader.request is None
    reader.feed(body[at : at + 100])
    assert reader.request is not None


@pytest.mark.parametrize("dialect", [EAR, TRANSLATOR, EDITOR, VARIER])
def test_the_same_name_leaves_every_byte_as_it_is(dialect: Any) -> None:
    file = ("file", "a.wav", SOUND) if dialect.operation == "transcription" else ("image", "a.png", PICTURE)
    body = form({"model": "m", "prompt": "x"}, file)
    request = dialect.parse_request(body, HEADERS)
    assert b"".join(dialect.patch_request(request, Changes(model="m"))) == body
    assert b"".join(dialect.patch_request(request, Changes(model="n"))) == body.replace(b"\r\nm\r\n", b"\r\nn\r\n")
    assert "m" not in repr(request).replace(dialect.name, "")


def test_pictures_are_counted_with_their_sizes() -> None:
    files = [("image[]", "a.png", PICTURE), ("image[]", "b.png", PICTURE), ("mask", "m.png", PICTURE)]
    request = EDITOR.parse_request(form({"model": "m", "prompt": "a hat", "n": "3", "quality": "hd"}, *files), HEADERS)
    assert [(image.width, image.height) for image in request.bound.images] == [(1, 1)] * 3
    assert (request.choices, request.most) == (3, {"images.auto.hd": 3})
    assert request.bound.text_bytes == len("a hat")


@pytest.mark.parametrize(
    ("dialect", "fields", "files", "code", "param"),
    [
        (EDITOR, {"model": "m"}, 1, "invalid_request", "prompt"),
        (EDITOR, {"model": "m", "prompt": ""}, 1, "invalid_request", "prompt"),
        (EDITOR, {"model": "m", "prompt": "x"}, 0, "invalid_request", "image"),
        (EDITOR, {"model": "m", "prompt": "x"}, 18, "invalid_request", "image"),
        (VARIER, {"model": "m"}, 2, "invalid_request", "image"),
        (EDITOR, {"model": "m", "prompt": "x", "n": "0"}, 1, "invalid_request", "n"),
        (EDITOR, {"model": "m", "prompt": "x", "n": "1e3"}, 1, "invalid_request", "n"),
        (EDITOR, {"model": "m", "prompt": "x", "n": "99999999999999"}, 1, "invalid_request", "n"),
        (EDITOR, {"model": "m", "prompt": "x", "partial_images": "4"}, 1, "invalid_request", "partial_images"),
        (EDITOR, {"model": "m", "prompt": "x", "n": "2", "stream": "true"}, 1, "unsupported_parameter", "n"),
        (EDITOR, {"model": "m", "prompt": "x", "output_format": "svg"}, 1, "unpriced_feature", "output_format"),
        (EDITOR, {"model": "m", "prompt": "x", "frame_count": "4"}, 1, "unpriced_feature", "frame_count"),
        (EDITOR, {"model": "m", "prompt": "x", "size": "a size"}, 1, "invalid_request", "size"),
        (EDITOR, {"model": "m", "prompt": "x", "store": "true"}, 1, "unpriced_feature", "store"),
        (EDITOR, {"model": "m", "prompt": "x", "workspace_id": "y"}, 1, "unsupported_parameter", "workspace_id"),
        (EDITOR, {"model": "m\n", "prompt": "x"}, 1, "invalid_request", "model"),
        (EDITOR, {"model": "m" * 257, "prompt": "x"}, 1, "invalid_request", "model"),
    ],
)
def test_refused(dialect: Any, fields: dict[str, str], files: int, code: str, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        dialect.parse_request(form(fields, *[("image", "a.png", PICTURE)] * files), HEADERS)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(EAR, "file"), (TRANSLATOR, "file"), (EDITOR, "image"), (EDITOR, "image[file_id]"), (EDITOR, "mask"), (VARIER, "image[]")],
)
def test_a_field_where_a_file_belongs(dialect: Any, name: str) -> None:
    """Beside the file, too: which of the two an upstream heeds is not known, and a field may hold an id of its account."""
    fields, sent = {"model": "m", "prompt": "x", name: "file-1"}, ("image", "a.png", PICTURE)
    if dialect in (EAR, TRANSLATOR):
        sent = ("file", "a.wav", SOUND)
    for files in ((), (sent,)):
        with pytest.raises(ClientError) as caught:
            dialect.parse_request(form(fields, *files), HEADERS)
        assert (caught.value.code, caught.value.param) == ("invalid_request", name)


def test_translations_do_not_stream() -> None:
    with pytest.raises(ClientError) as caught:
        TRANSLATOR.parse_request(form({"model": "m", "stream": "true"}, ("file", "a.wav", SOUND)), HEADERS)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "stream")
    assert not TRANSLATOR.parse_request(form({"model": "m", "stream": "False"}, ("file", "a.wav", SOUND)), HEADERS).stream


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", SOUND, b"words, words, words"])
def test_no_picture(data: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        VARIER.parse_request(form({"model": "m"}, ("image", "a.png", data)), HEADERS)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "image")
