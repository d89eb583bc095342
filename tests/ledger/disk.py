"""A disk under a journal: it can be stopped before, after or in the middle of any step, and lose power.

The steps are what a journal asks the kernel for: opening, writing, making durable, removing. `lose_power` leaves no more
than what was asked to be made durable. Files are real; what was removed is kept under another name, to come back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.faults import Fuse


class Disk:
    """The files under `root`, as the kernel has them and as the disk has them."""

    def __init__(self, root: Path, fuse: Fuse, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._fuse = root, fuse
        self.steps: list[str] = []
        self._durable: dict[int, int] = {}  # inode: size
        self._names: dict[Path, set[tuple[str, int]]] = {}  # folder: names and inodes, as made durable
        self._kept: dict[int, Path] = {}  # inode: a second name, so that an unlinked file can come back
        root.mkdir()
        self._stash = root.with_name(root.name + "-kept")
        self._stash.mkdir()
        for name in ("open", "write", "ftruncate", "fdatasync", "fsync", "unlink"):
            monkeypatch.setattr(os, name, self._step(name, getattr(os, name)))

    def _step(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(what: Any, *args: Any, **kwargs: Any) -> Any:
            path = Path(what) if isinstance(what, (str, Path)) else Path(os.readlink(f"/proc/self/fd/{what}"))
            if not path.is_relative_to(self.root) or (name == "open" and not args[0] & os.O_CREAT):
                return real(what, *args, **kwargs)
            self.steps.append(name)
            if name == "write" and self._fuse.steps + 1 == self._fuse.at and not self._fuse.after:
                real(what, args[0][: len(args[0]) // 2])  # a crash in the middle
            self._fuse.before_step()
            done = real(what, *args, **kwargs)
            self._note(name, what, path, done)
            self._fuse.after_step()
            return done

        return step

    def _note(self, name: str, what: Any, path: Path, done: Any) -> None:
        if name == "open":
            inode = os.fstat(done).st_ino
            if inode not in self._kept:
                self._kept[inode] = self._stash / str(inode)
                os.link(path, self._kept[inode])
        elif name == "fdatasync":
            self._durable[os.fstat(what).st_ino] = os.fstat(what).st_size
        elif name == "fsync":
            self._names[path] = {(entry.name, entry.inode()) for entry in os.scandir(path)}

    def lose_power(self, names_last: bool) -> None:
        """Of each file is left what was made durable, and of each folder the names as they were when it was (`names_last`:
        those that the kernel had last, which a file system may have written by itself)."""
        for folder in [path for path in self.root.iterdir() if path.is_dir()]:
            if folder.name not in {name for name, _ in self._names.get(self.root, ())}:
                continue  # nobody has heard of that incarnation either
            names = self._names.get(folder, set())
            if names_last:
                names = {(entry.name, entry.inode()) for entry in os.scandir(folder)}
            for path in list(folder.iterdir()):
                if (path.name, path.stat().st_ino) not in names:
                    path.rename(self._stash / f"lost-{folder.name}-{path.name}")
            for name, inode in names:
                if not (folder / name).exists():
                    os.link(self._kept[inode], folder / name)
                os.truncate(folder / name, self._durable.get(inode, 0))
