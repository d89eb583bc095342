"""What is installed once for all runs: a folder filled from exactly these input files, while other processes wait."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path


def once(folder: Path, inputs: list[Path], install: Callable[[Path], None]) -> Path:
    """`folder`, filled by `install(folder)` unless it was filled from the same bytes of `inputs` before."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    stamp = folder / ".installed"
    with Path(sys.prefix, f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            stamp.write_text(digest)
    return folder
