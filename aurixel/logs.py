"""Log lines that can carry no content: JSON for machines or text for people, one line a record.

Only Aurixel's own loggers have their messages formatted, and what they log is checked by review and by the canary test.
A record of any other logger shows its template, never its arguments, for those may quote a request. An exception shows
its kind and the lines it passed, never its text.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Literal


class Formatter(logging.Formatter):
    """Formats a record as above."""

    def __init__(self, style: Literal["json", "text"]) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        ours = record.name.partition(".")[0] == "aurixel"
        message = record.getMessage() if ours else str(record.msg).partition("\n")[0][:200]
        where = _where(record)
        if not self._json:
            return f"{at} {record.levelname.lower():7} {record.name}: {message}{' at ' + ' < '.join(where) if where else ''}"
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": message}
        if where:
            line["where"] = where
        return json.dumps(line)


def _where(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[1] is None:
        return []
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)
    return [type(error).__name__, *(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))]


def configure(level: str, style: Literal["json", "text"]) -> None:
    """Send every logger's records of `level` and above to stderr. For a process of its own, at its start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for quiet in ("asyncio", "tornado.access"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
