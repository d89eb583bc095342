"""The folder of journals: who owns it, and whose journals are in it. It opens none of them.

`<folder>/lock` is held by the one process that writes there; `<folder>/<inc>/` is the journal of an incarnation, and
`<inc>.abandoned` one that was set aside. A node of several workers has such a folder for each, side by side.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import string
from pathlib import Path
from typing import Final

from aurixel.errors import JournalUnusable

_ALPHABET: Final = string.ascii_lowercase + string.digits
_INC: Final = re.compile(r"[a-z0-9]{26}")
_SET_ASIDE: Final = re.compile(r"[a-z0-9]{26}\.abandoned")
ABANDONED: Final = ".abandoned"
LOCK: Final = "lock"


def new_inc() -> str:
    """A name for an incarnation, never used before."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


def own(folder: Path) -> int:
    """The folder's lock, held until this descriptor is closed; the folder is made if there is none. `JournalUnusable`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalUnusable(f"cannot be used ({error.strerror})", place=str(folder)) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalUnusable("another process keeps its journal here", place=str(folder)) from error
    return fd


def incarnations(folder: Path) -> list[str]:
    """The incarnations with a journal in this folder, those set aside left out."""
    return sorted(path.name for path in folder.iterdir() if _INC.fullmatch(path.name) and path.is_dir())


def set_aside(folder: Path) -> list[str]:
    """The names of journals that were set aside here."""
    return sorted(path.name for path in folder.iterdir() if _SET_ASIDE.fullmatch(path.name) and path.is_dir())


def folders(place: Path) -> list[Path]:
    """The folders of journals at a place: itself, and those of workers in it. `OSError` where it cannot be listed."""
    below = sorted(path for path in place.iterdir() if path.is_dir() and not _INC.match(path.name))
    return [place, *(path for path in below if (path / LOCK).exists() or incarnations(path))]
