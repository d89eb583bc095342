"""What a folder of journals holds, without touching it: also that of a running node.

It promises to change nothing, to take no lock, and to tell every fault with file and offset beside all that could be read.
A running node writes on: what is told was so at some moment while it was read. No content is in a journal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from aurixel.errors import JournalError
from aurixel.ledger.contracts import Intent
from aurixel.ledger.folder import ABANDONED, folders, incarnations, set_aside
from aurixel.ledger.journal import segments
from aurixel.ledger.lines import Done, Entry, Frozen, Settled
from aurixel.ledger.replay import Replay, read_journal
from aurixel.values import Nanos

_KINDS: Final[dict[str, type[Entry]]] = {"intents": Intent, "settlements": Settled, "frames": Frozen, "done": Done}


class Segment(msgspec.Struct, frozen=True):
    """A file of a journal and its size in bytes; `read` of them are whole lines, where it is the one that counts."""

    file: str
    bytes: int
    read: int | None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One journal. `lines` are those of the segment that counts, by kind; what ended and is not known to be in the store is
    `unposted`: requests, of so many accounts, at a cost in nano-dollars. `oldest_ms`: when the oldest of `running` and
    `unposted` came, by the wall clock. `torn`: bytes of a last line that was cut, as a crash leaves it. A journal with a
    `fault` was read up to there."""

    inc: str
    folder: str
    set_aside: bool
    segments: tuple[Segment, ...]
    lines: dict[str, int]
    running: int
    unposted: int
    accounts: int
    cost: Nanos
    oldest_ms: int | None
    torn: int
    fault: str
    place: str


def inspect(place: Path) -> list[Seen]:
    """The journals at a place: a folder of them, a folder of such folders, or one journal. `OSError` if it cannot be read."""
    if segments(place):
        return [_one(place.parent, place.name)]
    return [_one(folder, name) for folder in folders(place) for name in (*incarnations(folder), *set_aside(folder))]


def _one(folder: Path, name: str) -> Seen:
    reads: list[Replay] = []
    fault = at = ""
    try:
        read_journal(folder / name, name.removesuffix(ABANDONED), reads)
    except JournalError as error:
        fault, at = error.message, error.place
    replay = reads[-1] if reads else Replay(name, folder / name)
    ended = [item for items in replay.ended.values() for item in items.values()]
    ended += [item for frame, _ in replay.frames.values() for item in frame.items]
    came = [intent.at_ms for intent, _ in ended] + [intent.at_ms for intent in replay.begun.values()]
    return Seen(
        inc=name.removesuffix(ABANDONED),
        folder=str(folder),
        set_aside=name.endswith(ABANDONED),
        segments=tuple(_segment(path, replay) for path in segments(folder / name)),
        lines={kind: replay.counts[entry] for kind, entry in _KINDS.items()},
        running=len(replay.begun),
        unposted=len(ended),
        accounts=len(replay.accounts()),
        cost=replay.cost(),
        oldest_ms=min(came, default=None),
        torn=replay.torn,
        fault=fault,
        place=at,
    )


def _segment(path: Path, replay: Replay) -> Segment:
    try:
        size = path.stat().st_size
    except FileNotFoundError:  # the node went on
        size = 0
    return Segment(path.name, size, replay.size if path == replay.path else None)
