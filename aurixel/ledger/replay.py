"""A journal read back: what was meant, what ended, what was framed and what is done. It reads files and sends nothing."""

from __future__ import annotations

import os
from pathlib import Path

from aurixel.errors import JournalError
from aurixel.ledger.contracts import Intent, LedgerMetrics, LedgerSettings, Settlement
from aurixel.ledger.frames import Frame, Item
from aurixel.ledger.journal import FIRST, FORMAT, Frozen, Head, Journal, Line, Settled, unpack


class Replay:
    """What the journal of one incarnation says. `path` is its last file, `size` the length of it that is sound."""

    def __init__(self, inc: str, path: Path) -> None:
        self.inc = inc
        self.path = path
        self.size = 0
        self.intents: dict[str, Intent] = {}
        self.settlements: dict[str, Settlement] = {}
        self.frames: dict[str, list[tuple[Frame, str]]] = {}  # with the place of each, in order
        self.done: set[int] = set()
        self.last_s = 0
        self._framed: set[str] = set()

    def open_accounts(self) -> tuple[str, ...]:
        """The accounts of which something is not known to be in the store."""
        unframed = (self.intents[request_id].account for request_id in self.settlements if request_id not in self._framed)
        undone = (account for account, frames in self.frames.items() if any(frame.s not in self.done for frame, _ in frames))
        return tuple(dict.fromkeys((*unframed, *undone)))

    def unframed(self, account: str) -> tuple[Item, ...]:
        """Settlements of an account that are in no frame, in the order they came."""
        return tuple(
            (intent, settlement)
            for request_id, settlement in self.settlements.items()
            if request_id not in self._framed and (intent := self.intents[request_id]).account == account
        )

    def resume(self, settings: LedgerSettings, metrics: LedgerMetrics) -> Journal:
        """The journal, open to go on behind its last sound line."""
        if self.path.exists():
            os.truncate(self.path, self.size)
        journal = Journal(self.path, self.size, settings, metrics)
        if not self.size:
            journal.append(Head(FORMAT, self.inc))
        return journal

    def add(self, line: Line) -> None:
        """Take in the next line; `JournalError` for one that cannot follow what came before."""
        entry = line.entry
        if isinstance(entry, Head):
            if entry.inc != self.inc or entry.format != FORMAT:
                raise JournalError("a journal of another node or version", place=line.place)
        elif isinstance(entry, Intent):
            if entry.request_id in self.intents:
                raise JournalError("a request was begun twice", place=line.place)
            self.intents[entry.request_id] = entry
        elif isinstance(entry, Settled):
            if entry.request_id not in self.intents or entry.request_id in self.settlements:
                raise JournalError("a request ended twice, or never began", place=line.place)
            self.settlements[entry.request_id] = entry.settlement
        elif isinstance(entry, Frozen):
            self._add_frame(entry, line.place)
        else:
            self.done.add(entry.s)

    def _add_frame(self, entry: Frozen, place: str) -> None:
        items: list[Item] = []
        for request_id in entry.requests:
            intent, settlement = self.intents.get(request_id), self.settlements.get(request_id)
            if intent is None or settlement is None or intent.account != entry.account or request_id in self._framed:
                raise JournalError("a frame of requests that are not its own", place=place)
            self._framed.add(request_id)
            items.append((intent, settlement))
        if entry.s <= self.last_s or entry.cost != sum(settlement.cost for _, settlement in items):
            raise JournalError("a frame that does not add up", place=place)
        self.last_s = entry.s
        frame = Frame(entry.s, entry.account, entry.prev, tuple(items), entry.cost)
        self.frames.setdefault(entry.account, []).append((frame, place))


def read_journal(folder: Path, inc: str) -> Replay:
    """The journal of an incarnation; `JournalError` names file and offset of what is damaged."""
    replay = Replay(inc, folder / FIRST)
    files = sorted(folder.glob("*.log"))
    for path in files:
        data = path.read_bytes()
        end = 0
        for line in unpack(data, str(path)):
            if (end == 0) != isinstance(line.entry, Head):
                raise JournalError("a file begins with one head line", place=line.place)
            replay.add(line)
            end = line.end
        if end < len(data) and path != files[-1]:
            raise JournalError("an earlier file has lost its end", place=f"{path}:{end}")
        replay.path, replay.size = path, end
    return replay
