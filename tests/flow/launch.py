"""`python -m tests.flow.launch [--scale F] [--kill STEP:N] serve --config FILE`: the gateway, made to die at a step.

`--kill` sends this process a SIGKILL at the Nth time that one of its requests comes to STEP (`STEPS`): nothing is flushed,
nobody is asked. "replay/STEP" counts what the start does for requests of older incarnations. `--scale` multiplies the
ledger's durations. Nothing of it is in the gateway: its rooms are wrapped here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import aurixel.app
from aurixel.cli import main
from aurixel.edge.exchange import HttpExchange
from aurixel.gateway.books import Books
from aurixel.ledger.contracts import Intent
from aurixel.ledger.journal import Journal
from aurixel.ledger.lines import Done, Frozen, Settled
from aurixel.storage.sqlite import SqliteStore
from tests.flow.pace import paced

try:
    from motor.motor_asyncio import AsyncIOMotorCollection

    from aurixel.storage.mongo import MongoStore
except ModuleNotFoundError:
    pass

# In the order in which a request comes to them. "last byte": all but the end of the answer is with the client.
STEPS: Final = (
    "before the intent",
    "after the intent",
    "upstream called",
    "before the first byte",
    "first byte",
    "mid-stream",
    "before the settlement",
    "after the settlement",
    "before the last byte",
    "last byte",
    "before the frame",
    "after the frame",
    "records stored",
    "rollups added",
    "posted",
    "before done",
    "after done",
)
REPLAY: Final = "replay/"
# One transaction in SQLite.
ONLY_MONGODB: Final = frozenset({"records stored", "rollups added"})


class Killer:
    """Counts down to the Nth time at the step: from the first request on, or, for a step of the replay at start, at once."""

    def __init__(self, step: str, left: int) -> None:
        replaying, step = step.startswith(REPLAY), step.removeprefix(REPLAY)
        if step not in STEPS:
            raise SystemExit(f"no such step: {step}")
        self._step, self._left, self._armed = step, left, replaying

    def at(self, step: str) -> None:
        """A request is at this step now."""
        self._armed = self._armed or step == "before the intent"
        if self._armed and step == self._step:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # not one instruction more

    def install(self) -> None:
        """Wrap the rooms."""
        entries = {Intent: "the intent", Settled: "the settlement", Frozen: "the frame", Done: "done"}
        append, start, write, finish = Journal.append, HttpExchange.start, HttpExchange.write, HttpExchange.finish
        asked = Books.asked

        @wraps(append)
        def appending(journal: Journal, entry: Any) -> None:
            name = entries.get(type(entry), "")
            self.at(f"before {name}")
            append(journal, entry)
            self.at(f"after {name}")

        @wraps(asked)
        def asking(books: Books) -> None:
            asked(books)
            self.at("upstream called")

        @wraps(start)
        def starting(exchange: HttpExchange, status: int, headers: Any) -> None:
            start(exchange, status, headers)
            if status == 200:
                self.at("before the first byte")

        @wraps(write)
        async def writing(exchange: HttpExchange, data: bytes) -> None:
            first = bool(exchange._head_bytes)
            await write(exchange, data)
            self.at("first byte" if first else "mid-stream")

        @wraps(finish)
        def finishing(exchange: HttpExchange) -> None:
            self.at("before the last byte")
            finish(exchange)
            self.at("last byte")

        Journal.append, Books.asked = appending, asking  # type: ignore[method-assign]
        HttpExchange.start, HttpExchange.write, HttpExchange.finish = starting, writing, finishing  # type: ignore[method-assign]
        self._install_stores()

    def _install_stores(self) -> None:
        def after(kind: Any, name: str, at: Callable[[Any, tuple[Any, ...]], str]) -> None:
            method = getattr(kind, name)

            @wraps(method)
            async def call(store: Any, *args: Any, **kwargs: Any) -> Any:
                answer = await method(store, *args, **kwargs)
                self.at(at(store, args))
                return answer

            setattr(kind, name, call)

        after(SqliteStore, "post", lambda *_: "posted")
        if "MongoStore" in globals():
            after(MongoStore, "post", lambda *_: "posted")
            after(AsyncIOMotorCollection, "insert_many", lambda *_: "records stored")
            after(AsyncIOMotorCollection, "bulk_write", lambda of, _: "rollups added" if of.name == "rollups" else "")


def _launch(words: list[str]) -> None:
    while words and words[0].startswith("--"):
        option, value, *words = words
        if option == "--scale":
            aurixel.app.LedgerSettings = paced(float(value))  # type: ignore[misc]
        elif option == "--kill":
            step, _, times = value.partition(":")
            Killer(step, int(times or "1")).install()
        else:
            raise SystemExit(f"no such option: {option}")
    main(words)


if __name__ == "__main__":
    _launch(sys.argv[1:])
