"""A TOML file whose every key knows its line, so that an error can point at it; it knows no setting's meaning.

Everything here is read once, at start or by a command. What cannot be read is a `ConfigError` with file and line.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from aurixel.errors import ConfigError

# Where a value stands: table names, keys, and positions in arrays of tables (from 0).
KeyPath: TypeAlias = tuple[str | int, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)")
_SYNTAX: Final = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.DOTALL)


class TomlFile:
    """A parsed file: `name` as it is shown to people, its `text`, `data` as `tomllib` reads it."""

    def __init__(self, name: str, text: str) -> None:
        """`ConfigError("toml_syntax")` with the line, if the text is not TOML."""
        self.name, self.text = name, text
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            told = _SYNTAX.match(str(error))
            what, line = (told["what"], told["line"]) if told else (str(error), None)
            last = str(text.count("\n") + 1)
            raise ConfigError(what, place=f"{name}:{line or last}", mend="mend the TOML", code="toml_syntax") from None
        self._lines = _lines(text.replace("\r\n", "\n"))

    def line(self, path: KeyPath) -> int | None:
        """The line (from 1) of the key, or of the nearest table around it; None where the file names neither."""
        for length in range(len(path), 0, -1):
            if found := self._lines.get(path[:length]):
                return found
        return None

    def place(self, path: KeyPath) -> str:
        """`file:line` of the key or of what is around it, or just the file."""
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name


def read_toml(path: Path) -> TomlFile:
    """`ConfigError` (`file_missing`, `file_unreadable`, `toml_syntax`) names the file."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError("there is no such file", place=str(path), mend="check the path", code="file_missing") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        raise ConfigError(f"the file cannot be read: {reason}", place=str(path), code="file_unreadable") from None
    return TomlFile(str(path), text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that offer the known name most like `name`, for a `mend`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(names)}" if names else "nothing is known here"


def _lines(text: str) -> Mapping[KeyPath, int]:
    """Key path -> line. The text is known to be valid, so a statement ends on the first line where it parses."""
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if header := _HEADER.match(line):
            table = _absolute(_names(tomllib.loads(line)), counts, opens_item=header[1] == "[[")
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], start + 1)
            continue
        statement = line
        while (parsed := _parse(statement)) is None:
            statement += "\n" + lines[at]
            at += 1
        path = table + _names(parsed)
        for length in range(len(table) + 1, len(path) + 1):
            found.setdefault(path[:length], start + 1)
    return found


def _parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None


def _names(parsed: Mapping[str, Any]) -> tuple[str, ...]:
    """The dotted key of one header or statement: what it nests, down to the first value that is not a one-key table."""
    names: list[str] = []
    inner: Any = parsed
    while True:
        if isinstance(inner, list) and len(inner) == 1 and inner[0] == {}:
            inner = inner[0]
        if not isinstance(inner, Mapping) or len(inner) != 1:
            return tuple(names)
        ((name, inner),) = inner.items()
        names.append(name)


def _absolute(names: tuple[str, ...], counts: dict[KeyPath, int], *, opens_item: bool) -> KeyPath:
    """The path of a header's table, with the position in each array of tables it lies in."""
    path: KeyPath = ()
    for depth, name in enumerate(names):
        path += (name,)
        if opens_item and depth == len(names) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path += (counts[path] - 1,)
    return path
