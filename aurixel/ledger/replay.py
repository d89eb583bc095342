"""A journal read back: what is open in it, and what the store must have. It reads files and sends nothing.

The newest segment that is begun whole stands for all before it. What is done is forgotten on the way: reading takes as much
memory as what is open, which the process that wrote it had in memory too.
"""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from typing import Final

from aurixel.errors import JournalError
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, Settlement
from aurixel.ledger.frames import Frame, Item
from aurixel.ledger.journal import Journal, segments
from aurixel.ledger.lines import FORMAT, Begun, Done, Entry, Frozen, Head, Lines, Settled

# A running node may rotate while its journal is read.
_LISTINGS: Final = 10


class Replay:
    """What the journal of one incarnation says. `path` is its last segment, of which `size` bytes are sound.

    `begun` are requests that did not end, `ended` those in no frame, by account and in the order they ended; `frames` those
    not known to be in the store, by number, each with its place; `confirmed` the last frame of an account known to be there.
    `counts` are the lines that were read, by kind.
    """

    def __init__(self, inc: str, path: Path) -> None:
        self.inc = inc
        self.path = path
        self.size = self.crc = self.torn = 0
        self.whole = False
        self.begun: dict[str, Intent] = {}
        self.ended: dict[str, dict[str, Item]] = {}
        self.frames: dict[int, tuple[Frame, str]] = {}
        self.confirmed: dict[str, int] = {}
        self.counts: Counter[type[Entry]] = Counter()
        self.last_s = 0

    def accounts(self) -> tuple[str, ...]:
        """The accounts of which something is not known to be in the store."""
        return tuple(dict.fromkeys((*self.ended, *(frame.account for frame, _ in self.frames.values()))))

    def requests(self) -> int:
        """How many requests are not known to be in the store."""
        settled = sum(map(len, self.ended.values())) + sum(len(frame.items) for frame, _ in self.frames.values())
        return len(self.begun) + settled

    def cost(self) -> int:
        """What they cost, in nano-dollars; a request that did not end costs nothing yet."""
        ended = sum(settlement.cost for items in self.ended.values() for _, settlement in items.values())
        return ended + sum(frame.cost for frame, _ in self.frames.values())

    def take_frames(self) -> dict[str, deque[tuple[Frame, str]]]:
        """The frames by account, each account's in order; they are the caller's then."""
        found: dict[str, deque[tuple[Frame, str]]] = {}
        for frame, place in self.frames.values():
            found.setdefault(frame.account, deque()).append((frame, place))
        self.frames = {}
        return found

    def end(self, request_id: str, settlement: Settlement) -> None:
        """A request that had begun has ended so."""
        intent = self.begun.pop(request_id)
        self.ended.setdefault(intent.account, {})[request_id] = (intent, settlement)

    async def resume(self, settings: LedgerSettings, metrics: LedgerMetrics) -> Journal:
        """The journal, open to go on behind its last sound line."""
        return await Journal.resume(self.path, self.size, self.crc, settings, metrics)

    def read(self) -> bool:
        """Read the segment; False where it was not begun whole, and the one before it counts."""
        lines = Lines(self.path)
        try:
            for entry in lines:
                self._add(entry, lines)
                self.size, self.crc = lines.end, lines.crc
        finally:
            self.torn = lines.torn
        return self.whole

    def _add(self, entry: Entry, lines: Lines) -> None:
        """Take in the next line; `JournalError` for one that cannot follow what came before."""
        kind = type(entry)
        self.counts[kind] += 1
        if (self.size == 0) != (kind is Head):
            raise JournalError("a segment begins with one head", place=lines.place)
        if isinstance(entry, Intent):
            request_id = entry.request_id
            if request_id in self.begun or request_id in self.ended.get(entry.account, ()):
                raise JournalError("a request was begun twice", place=lines.place)
            self.begun[request_id] = entry
        elif isinstance(entry, Settled):
            if entry.request_id not in self.begun:
                raise JournalError("a request ended twice, or never began", place=lines.place)
            self.end(entry.request_id, entry.settlement)
        elif isinstance(entry, Frozen):
            self._add_frame(entry, lines.place)
        elif isinstance(entry, Done):
            frame, _ = self.frames.pop(entry.s, (None, ""))
            if frame is None:
                raise JournalError("a frame is done that is not open", place=lines.place)
            if frame.prev is not None:
                self.confirmed[frame.account] = entry.s
        elif isinstance(entry, Head):
            self._check_head(entry, lines)
        elif isinstance(entry, Begun):
            if self.whole or entry.s < self.last_s:
                raise JournalError("a segment is begun once, behind what is carried", place=lines.place)
            self.whole, self.last_s = True, entry.s
        else:
            if self.whole:
                raise JournalError("only what is carried is confirmed", place=lines.place)
            self.confirmed[entry.account] = entry.s

    def _check_head(self, head: Head, lines: Lines) -> None:
        if head.format != FORMAT:
            mend = "start and stop the version that wrote it"
            fault = f"a journal of format {head.format}, this Aurixel reads {FORMAT} ({mend})"
            raise JournalError(fault, place=lines.place)
        if (head.inc, head.number) != (self.inc, int(self.path.stem)):
            raise JournalError("a segment of another place: it was copied or renamed", place=lines.place)

    def _add_frame(self, entry: Frozen, place: str) -> None:
        ended = self.ended.get(entry.account, {})
        items = [ended.pop(request_id) for request_id in entry.requests if request_id in ended]
        if len(items) != len(entry.requests):
            raise JournalError("a frame of requests that are not its own", place=place)
        if not ended:
            self.ended.pop(entry.account, None)
        if entry.s <= self.last_s or entry.cost != sum(settlement.cost for _, settlement in items):
            raise JournalError("a frame that does not add up", place=place)
        self.last_s = entry.s
        self.frames[entry.s] = (Frame(entry.s, entry.account, entry.prev, tuple(items), entry.cost), place)


def read_journal(folder: Path, inc: str, read: list[Replay] | None = None) -> Replay:
    """The journal of an incarnation; `JournalError` names file and offset of what is damaged.

    `read` gets what is being read, for who wants to see how far it came.
    """
    for _ in range(_LISTINGS):
        files = segments(folder)
        try:
            for path in reversed(files):
                replay = Replay(inc, path)
                if read is not None:
                    read.append(replay)
                if replay.read():
                    return replay
        except FileNotFoundError:
            continue
        break
    raise JournalError("no segment of it is there, or none that was begun", place=str(folder))
