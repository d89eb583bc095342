"""Every key knows its line, whatever the way it was written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurixel.cli.dev import _toml
from aurixel.errors import ConfigError
from aurixel.tomlfile import TomlFile, nearest, read_toml

TEXT = '''\
# a comment with [brackets] = "x"
top = 1
[a]
b.c = 2
"quoted key" = 3

text = """
[not.a.header]
fake = 1
"""
after = [
  1,
  [2],
]
[[list]]
x = 1
[list.inner]
y = 1
[[list]] # the second
x = 2
[list.inner]
y = 2
[deep."er.dotted"]
z = [{ p = 1 },
 { q = 2 }]
w = 1
'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("a",), 3),
        (("a", "b", "c"), 4),
        (("a", "b"), 4),
        (("a", "quoted key"), 5),
        (("a", "text"), 7),
        (("a", "after"), 11),
        (("list",), 15),
        (("list", 0), 15),
        (("list", 0, "x"), 16),
        (("list", 0, "inner", "y"), 18),
        (("list", 1), 19),
        (("list", 1, "x"), 20),
        (("list", 1, "inner", "y"), 22),
        (("deep", "er.dotted"), 23),
        (("deep", "er.dotted", "z", "q"), 24),
        (("deep", "er.dotted", "w"), 26),
        (("a", "absent"), 3),
        (("absent",), None),
        ((), None),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int | None, newline: str) -> None:
    file = TomlFile("f.toml", TEXT.replace("\n", newline))
    assert file.line(path) == line
    assert file.place(path) == ("f.toml" if line is None else f"f.toml:{line}")


@pytest.mark.parametrize(
    ("text", "place"), [("a = 1\nb = \n", "f.toml:2"), ("a = 1\nb = [1,\n", "f.toml:3"), ("a = 1\na = 2", "f.toml:2")]
)
def test_a_syntax_error_names_its_line(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TomlFile("f.toml", text)
    assert (refused.value.place, refused.value.code) == (place, "toml_syntax")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        read_toml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path)


def test_nearest() -> None:
    assert nearest("listne", ["listen", "ops_listen"]) == "did you mean 'listen'?"
    assert nearest("zzz", ["b", "a"]) == "known here: a, b"


keys = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.text(st.characters(codec="utf-8"), max_size=12) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.dates()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
tables = st.dictionaries(keys, values, max_size=5)


@given(tables)
def test_what_dev_writes_is_read_back_and_every_key_has_a_line(table: dict[str, Any]) -> None:
    text = "\n".join(_toml(table))
    assert tomllib.loads(text) == table
    file = TomlFile("f.toml", text)
    lines = text.split("\n")
    for key, value in table.items():
        line = file.line((key,))
        assert line is not None
        assert lines[line - 1].startswith("[") == isinstance(value, dict)
