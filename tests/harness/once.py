"""What is installed once for all runs and all processes: under the virtual environment, all of it or nothing."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path


def once(name: str, inputs: list[Path], install: Callable[[Path], None]) -> Path:
    """The folder that `install(folder)` filled, for exactly these input files; other processes wait until it is done."""
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(path.read_bytes())
    home = Path(sys.prefix) / "test-servers"
    home.mkdir(exist_ok=True)
    ready = home / f"{name}-{digest.hexdigest()[:12]}"
    if ready.exists():
        return ready
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            growing = ready.with_suffix(".part")
            shutil.rmtree(growing, ignore_errors=True)
            growing.mkdir()
            install(growing)
            growing.rename(ready)
    return ready
