"""Forms as they stream past: however they are cut the same is read, one value is rewritten and nothing else, and what two
readers could understand in two ways is refused."""

from __future__ import annotations

import email
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.openai_beside_chat.multipart import ENDS, MAX_PARTS, MAX_VALUE, Form, boundary_of
from aurixel.errors import ClientError
from aurixel.testing.samples import sample_form

B = "b0undary"
KEEP = frozenset({"model", "stream"})
MODEL = 'Content-Disposition: form-data; name="model"'


def part(head: str, value: bytes = b"x") -> bytes:
    return f"--{B}\r\n{head}\r\n\r\n".encode() + value + b"\r\n"


def field(name: str, value: str | bytes = "x") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode() if isinstance(value, str) else value)


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{B}--\r\n".encode()


def read(body: bytes, cuts: list[int] | int = 0) -> Form:
    """The form, fed in pieces that end at these places, or are of that size."""
    form = Form(B.encode(), keep=KEEP, single=KEEP | {"prompt"})
    places = (
        list(range(cuts, len(body), cuts)) if isinstance(cuts, int) and cuts else sorted(cuts) if isinstance(cuts, list) else []
    )
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        if start < end:
            form.feed(body[start:end])
    form.finish()
    return form


def refused(body: bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        read(body)
    with pytest.raises(ClientError) as again:
        read(body, 1)
    assert (caught.value.code, caught.value.param) == (again.value.code, again.value.param)
    return caught.value


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_data = st.one_of(st.binary(max_size=300), st.builds(lambda x: b"\r\n--b0undar" + x + b"\r\n--", st.binary(max_size=9)))


@given(model=_texts, other=_texts, data=_data, more=_data, new=_texts, cuts=st.lists(st.integers(0, 1200), max_size=6))
def test_any_form_cut_anywhere(model: str, other: str, data: bytes, more: bytes, new: str, cuts: list[int]) -> None:
    body = sample_form({"other": other, "model": model}, ("file", 'a "%22".wav'.replace('"', "'"), data), boundary=B)
    body = body.removesuffix(f"--{B}--\r\n".encode()) + whole(field("late[]", more))
    form = read(body, [cut for cut in cuts if cut < len(body)])
    assert form.values == {"model": [model]}
    assert form.sizes == {"other": len(other.encode()), "model": len(model.encode()), "late[]": len(more)}
    (file,) = form.files
    assert (file.name, file.size, file.head, file.tail, file.whole) == ("file", len(data), data, data, True)
    assert b"".join(form.chunks) == body
    if model and not model.startswith("\r"):
        before, _, after = body.partition(b'name="model"\r\n\r\n' + model.encode())
        assert b"".join(form.replaced("model", new.encode())) == before + b'name="model"\r\n\r\n' + new.encode() + after


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_garbage_is_refused_by_name(body: bytes, cuts: list[int]) -> None:
    with pytest.raises(ClientError):
        read(body, [cut for cut in cuts if cut < len(body)])


@given(st.data())
def test_a_form_with_one_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(sample_form({"model": "m", "stream": "true"}, ("file", "a.wav", b"RIFF"), boundary=B))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        form = read(bytes(body))
    except ClientError:
        return
    assert sum(map(len, form.values.values())) + len(form.files) <= 3


def test_the_ends_of_a_large_file_are_kept_and_no_more() -> None:
    data = bytes(range(256)) * 4096
    for size in (999, 65_536, 131_072, 1 << 21):
        form = read(sample_form({"model": "m"}, ("file", "a.wav", data), boundary=B), size)
        (file,) = form.files
        assert file.head == data[:ENDS]
        assert data.endswith(file.tail)
        assert ENDS <= len(file.tail) <= max(2 * ENDS, ENDS + size)


def test_what_was_fed_is_let_go() -> None:
    form = Form(B.encode(), keep=KEEP, single=KEEP)
    body = sample_form({"model": "m"}, ("file", "a.wav", b"x" * 1000), boundary=B)
    form.feed(body[:500])
    form.let_go()
    form.feed(body[500:])
    form.finish()
    assert form.chunks == []
    assert (form.size, form.values, form.files[0].size) == (len(body), {"model": ["m"]}, 1000)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "empty_body", None),
        (whole(), "invalid_request", None),
        (b"--other\r\n\r\n", "invalid_request", None),
        (b"preamble\r\n" + whole(field("model")), "invalid_request", None),
        (field("model"), "invalid_request", None),
        (whole(field("model"))[:-4], "invalid_request", None),
        (whole(field("model"), field("model", "n")), "duplicate_key", "model"),
        (whole(field("prompt"), field("prompt")), "duplicate_key", "prompt"),
        (whole(field("model")) + field("model", "dear") + whole(), "invalid_request", None),
        (whole(field("model")) + b"\r\nepilogue", "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name="model"; name="other"')), "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name="x"; NAME="model"')), "invalid_request", None),
        (whole(part("Content-Disposition: form-data; name*=utf-8''model")), "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name="mo\\del"')), "invalid_request", None),
        (whole(part(MODEL + "\r\n" + MODEL)), "invalid_request", None),
        (whole(part('Content-Disposition: attachment; name="model"')), "invalid_request", None),
        (whole(part("Content-Disposition: form-data")), "invalid_request", None),
        (whole(part("Content-Type: text/plain")), "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name=""')), "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name="a b"')), "invalid_request", None),
        (whole(part('Content-Disposition: form-data; name="model"; filename="x"')), "invalid_request", "model"),
        (whole(part(MODEL + "\r\nContent-Transfer-Encoding: base64")), "invalid_request", None),
        (whole(part(MODEL + "\r\nContent-Type: text/plain; charset=utf-16")), "invalid_utf8", "model"),
        (whole(field("model", b"\xff")), "invalid_utf8", "model"),
        (whole(part("X: \xff")), "invalid_request", None),
        (whole(part("X-Long: " + "y" * 9000)), "invalid_request", None),
        (whole(part("\r\n".join(f"X-{n}: y" for n in range(20)))), "invalid_request", None),
        (whole(field("model", "m" * (MAX_VALUE + 1))), "invalid_request", "model"),
        (whole(*(field("other[]") for _ in range(MAX_PARTS + 1))), "invalid_request", None),
    ],
)  # fmt: skip
def test_refused(body: bytes, code: str, param: str | None) -> None:
    error = refused(body)
    assert (error.code, error.param, error.status) == (code, param, 400)


def test_values_that_nobody_needs_may_be_long() -> None:
    form = read(whole(field("model", "m"), field("known_speaker_references[]", b"data:" + b"x" * 2_000_000)), 50_000)
    assert form.sizes["known_speaker_references[]"] == 2_000_005


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;Boundary="a b c"', b"a b c"),
        ("multipart/form-data; boundary=----WebKitFormBoundaryX7", b"----WebKitFormBoundaryX7"),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_boundary(value: str, boundary: bytes | None) -> None:
    assert boundary_of({"content-type": value}) == boundary


@pytest.mark.parametrize(
    "value",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; charset=utf-8; boundary=a; x=y",
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=a\x7f",
        'multipart/form-data; boundary="a\\"b"',
        'multipart/form-data; boundary="ends in space "',
        "multipart/form-data; boundary=ä",
    ],
)
def test_no_boundary(value: str) -> None:
    with pytest.raises(ClientError) as caught:
        boundary_of({"content-type": value})
    assert caught.value.code == "unsupported_content_type"


def test_the_parser_says_nothing_of_what_it_reads(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        for body in (b"--b0undarX", b"secret", whole(part("bad header\x00secret: y"))):
            refused(body)
    assert not caplog.records


def test_others_read_the_form_as_we_do() -> None:
    """A reader that we did not write."""
    body = sample_form({"model": "m", "prompt": "héllo"}, ("file", "a.wav", b"RIFF\r\n--b0undarX"), boundary=B)
    head = f'MIME-Version: 1.0\r\nContent-Type: multipart/form-data; boundary="{B}"\r\n\r\n'.encode()
    parts = email.message_from_bytes(head + body).get_payload()
    assert isinstance(parts, list)
    named: dict[object, Message] = {
        each.get_param("name", header="content-disposition"): each for each in parts if isinstance(each, Message)
    }
    form = read(body)
    assert named["model"].get_payload(decode=True) == b"m"
    assert named["file"].get_payload(decode=True) == form.files[0].head
