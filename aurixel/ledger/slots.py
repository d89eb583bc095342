"""Where the workers of one gateway keep their journals: a slot each, in the folder that the operator named.

Slot 0 is the folder itself and slot k its subfolder `slot-<k>`, so that a gateway that becomes one of several, or the only
one again, finds its journal where it was. Only names: nothing here opens a journal.
"""

from __future__ import annotations

import re
from pathlib import Path

_SLOT = re.compile(r"slot-([1-9][0-9]{0,3})")


def slot_folder(journal: Path, slot: int) -> Path:
    """The folder of a slot."""
    return journal / f"slot-{slot}" if slot else journal


def slots_beyond(journal: Path, workers: int) -> tuple[Path, ...]:
    """The folders of slots that a gateway of so many workers no longer has, in order."""
    if not journal.is_dir():
        return ()
    found = {int(match[1]): path for path in journal.iterdir() if path.is_dir() and (match := _SLOT.fullmatch(path.name))}
    return tuple(found[slot] for slot in sorted(found) if slot >= workers)
