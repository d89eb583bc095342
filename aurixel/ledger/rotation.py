"""When a journal's segment is full, the next one begins with what is open. This says when that is, and what is open.

It promises that a replay of what is carried finds the same as a replay of all that was written before: nothing may happen
to the books between the two, so nothing in here waits. It writes no file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from aurixel.errors import JournalError
from aurixel.ledger.frames import Item
from aurixel.ledger.leases import Books
from aurixel.ledger.lines import Confirmed, Entry, Settled

# A segment of which more than this part is open is not worth a new one: the journal grows until the store is back.
_OPEN_PART: Final = 0.25
# What is open is written at about so many bytes a request.
_REQUEST_BYTES: Final = 320


def rotate_when_full(books: Books) -> None:
    """Begin a new segment if it is time. One that cannot be begun is complained of, and tried again at the next look."""
    length = books.journal.length
    if length < books.settings.segment or _open_requests(books) * _REQUEST_BYTES > length * _OPEN_PART:
        return
    if books.journal.failed or books.dead.is_set():
        return  # what is open is a replay's
    try:
        rotate(books)
        books.overdue = False
    except JournalError as error:
        books.overdue = True
        books.complain(error)


def rotate(books: Books) -> None:
    """Begin a new segment. `JournalError` if that cannot be: the present one goes on."""
    books.write_again()
    books.journal.rotate(carried(books), books.s)


def carried(books: Books) -> Iterator[Entry]:
    """Everything that is open, as lines: of each request what is known of it, then the frames."""
    tabs = books.tabs.values()
    for tab in tabs:
        if tab.seq is not None:
            yield Confirmed(tab.account, tab.seq)
    frames = sorted((tab.frame for tab in tabs if tab.frame is not None), key=attrgetter("s"))
    for frame in frames:
        yield from _settled(frame.items)
    for tab in tabs:
        yield from _settled(tab.pending)
    yield from books.live.values()
    for frame in frames:
        yield frame.line()


def _settled(items: tuple[Item, ...] | list[Item]) -> Iterator[Entry]:
    for intent, settlement in items:
        yield intent
        yield Settled(intent.request_id, settlement)


def _open_requests(books: Books) -> int:
    return len(books.live) + sum(len(tab.pending) + (len(tab.frame.items) if tab.frame else 0) for tab in books.tabs.values())
