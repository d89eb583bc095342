"""The books as tables for an accountant: movements, usage, balances; CSV or JSON lines, in an order that never changes.

Movements come by account and number, usage by account, instant and request. Amounts are exact decimals in USD. Memory
does not grow with the table, a file is written whole or not at all, and no cell of a CSV is a formula to a spreadsheet.
There are no client IPs in it. Another table is one more entry of `TABLES`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from aurixel.storage import AccountDoc, Movement, Store, UsageRecord, accounts_of, usage_pages
from aurixel.values import format_usd

Format: TypeAlias = Literal["csv", "jsonl"]
Row: TypeAlias = Sequence[Any]  # strings, numbers, flags, None, and what a cell of a table of ours is made of
PAGE: Final = 1000

# What a spreadsheet may take for a formula: at the start of a cell, or of what another separator makes a cell of.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA: Final = re.compile(r"(^|[;,])(?=\s*[=+\-@＝＋－＠'])")
_BREAKS: Final = re.compile(r"[\t\r\n\v\f\x00\x85\u2028\u2029]+")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: of one account or all, from `since_ms` on and before `until_ms`."""

    account: str | None = None
    since_ms: int = 0
    until_ms: int | None = None

    def has(self, at_ms: int) -> bool:
        """Whether an instant is in it."""
        return self.since_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table: its columns, and the rows of one account, some at a time. `dated`: whether its rows have an instant."""

    columns: tuple[str, ...]
    rows: Callable[[Store, AccountDoc, Span], AsyncGenerator[list[Row]]]
    dated: bool = True


async def export(
    store: Store,
    table: Table,
    span: Span,
    format: Format,
    write: Callable[[str], object],
    progress: Callable[[int, int], None] = lambda accounts, rows: None,
) -> int:
    """Write the table and return how many rows it has. `progress` is told how many accounts and rows are done.

    May raise `StoreUnavailable`, and whatever `write` raises.
    """
    render = _csv if format == "csv" else _jsonl
    if format == "csv":
        write(_csv(table.columns, [table.columns]))
    accounts = rows = 0
    async for doc in accounts_of(store, span.account):
        async with aclosing(table.rows(store, doc, span)) as pages:
            async for page in pages:
                write(render(table.columns, page))
                rows += len(page)
                progress(accounts, rows)
        accounts += 1
        progress(accounts, rows)
    return rows


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[str], object]]:
    """A file beside `path` that takes its place once all is written and on disk, and is gone after any error."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:  # in the name of the file that was asked for
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


# --- tables -------------------------------------------------------------------------------------------------------------


async def _movements(store: Store, doc: AccountDoc, span: Span) -> AsyncGenerator[list[Row]]:
    email, n = await _email(store, doc.id), 0
    while page := await store.movements_page(doc.id, n, PAGE):
        n = page[-1].n
        if rows := [_movement(movement, email) for movement in page if span.has(movement.at_ms)]:
            yield rows


def _movement(movement: Movement, email: str) -> Row:
    took = movement.took
    state = "open" if took is None else "refused" if took == 0 else "done"
    return (
        movement.account,
        email,
        movement.n,
        movement.id,
        movement.kind,
        _instant(movement.at_ms),
        format_usd(movement.amount),
        None if took is None else format_usd(took),
        state,
        movement.reason,
        movement.ref,
        movement.author,
    )


async def _usage(store: Store, doc: AccountDoc, span: Span) -> AsyncGenerator[list[Row]]:
    async for page in usage_pages(store, doc.id, span.since_ms, span.until_ms, PAGE):
        yield [_record(record) for record in page]


def _record(record: UsageRecord) -> Row:
    return (
        record.account,
        record.request_id,
        _instant(record.at_ms),
        _instant(record.done_ms),
        record.key_id,
        record.model,
        record.upstream,
        record.operation,
        record.dialect,
        record.stream,
        record.status,
        record.cell,
        record.measured,
        record.counts,
        format_usd(record.cost),
        record.price_version,
        record.inc,
        record.s,
        record.via,
        record.losses,
    )


async def _balances(store: Store, doc: AccountDoc, span: Span) -> AsyncGenerator[list[Row]]:
    leased = sum(lease.amount for lease in doc.leases.values())
    amounts = (doc.available, leased, doc.credited, doc.spent, doc.written_off)
    yield [(doc.id, await _email(store, doc.id), doc.state, *map(format_usd, amounts))]


async def _email(store: Store, account: str) -> str:
    profile = await store.profile_read(account)
    return "" if profile is None else profile.email


TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {
        "movements": Table(
            columns=(
                *("account", "email", "n", "id", "kind", "at", "amount", "took", "state"),
                *("reason", "ref", "author"),
            ),
            rows=_movements,
        ),
        "usage": Table(
            columns=(
                *("account", "request_id", "at", "done", "key", "model", "upstream", "operation", "dialect", "stream"),
                *("status", "ending", "measured", "counts", "cost", "price_version", "node", "frame", "via", "losses"),
            ),
            rows=_usage,
        ),
        "balances": Table(
            columns=("account", "email", "state", "available", "leased", "credited", "spent", "written_off"),
            rows=_balances,
            dated=False,
        ),
    }
)


# --- forms --------------------------------------------------------------------------------------------------------------


def _jsonl(columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [msgspec.json.encode(dict(zip(columns, row, strict=True))).decode() for row in rows]
    return "\n".join(lines) + "\n"


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case dict():
            return harmless(" ".join(f"{name}={count}" for name, count in value.items()))
        case _:
            return harmless(str(value))


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: an apostrophe before what could begin one, and one line.

    Amounts stay as they are. An apostrophe of the text's own gets another, so that the first one is always ours.
    """
    if _NUMBER.fullmatch(text):
        return text
    return _FORMULA.sub(r"\1'", _BREAKS.sub(" ", text))


def _instant(at_ms: int) -> str:
    """RFC 3339, UTC, to the millisecond."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
