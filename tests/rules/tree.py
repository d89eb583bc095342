"""The files the rules are held against: what git tracks or would track, read once."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file of the repository that is not ignored, tracked or not yet, relative to ROOT."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    return tuple(sorted(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()))


def modules(*folders: str) -> Iterator[Path]:
    """The Python files under these folders (`aurixel/gateway`) or with these names (`aurixel/upstream.py`)."""
    for path in files():
        if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in folders):
            yield path


def plugin_modules() -> Iterator[Path]:
    """The Python files that plugins ship: not their tests."""
    return (path for path in modules("plugins") if "tests" not in path.parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Each import of a module, at any depth of the code: (line, full dotted name)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
