"""A field given twice is seen however the body is written, and only then."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.dialects.json_fields import decode_object
from aurixel.errors import ClientError

KEYS = st.text(alphabet=st.sampled_from('ab"\\é 🙂\n'), max_size=4)
VALUES = st.sampled_from(["1", "null", '"x"', "[1,2]", '{"a":1,"a":2}', " 7 ", '"é"'])


@given(
    pairs=st.lists(st.tuples(KEYS, VALUES), max_size=6),
    colon=st.sampled_from([":", ": ", " :"]),
    comma=st.sampled_from([",", ", ", ",\n"]),
    ascii_only=st.booleans(),
)
def test_duplicates_are_seen_in_any_spelling(pairs: list[tuple[str, str]], colon: str, comma: str, ascii_only: bool) -> None:
    fields = [json.dumps(key, ensure_ascii=ascii_only) + colon + value for key, value in pairs]
    body = ("{" + comma.join(fields) + "}").encode()
    keys = [key for key, _ in pairs]
    if len(set(keys)) == len(keys):
        assert list(decode_object(body)) == keys
        return
    with pytest.raises(ClientError) as caught:
        decode_object(body)
    assert caught.value.code == "duplicate_key"
