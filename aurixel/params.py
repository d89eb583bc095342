"""What is typed on a command line: amounts of USD and instants, for click; and how an instant is written. Nothing else.

Plugins have them through `aurixel.plugin`, so that their commands take what ours take.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from aurixel.values import parse_usd

if TYPE_CHECKING:
    IntParam = click.ParamType[int]  # a generic to the type checker only, before click 8.3
else:
    IntParam = click.ParamType

_SPAN: Final = re.compile(r"(\d{1,5})([smhdw])", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Usd(IntParam):
    """An amount in USD, exact, in nano-dollars: above zero, or with `signed` anything but zero."""

    name = "USD"

    def __init__(self, *, signed: bool = False) -> None:
        self._signed = signed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nano-dollars."""
        try:
            nanos = parse_usd(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._signed and not nanos:
            self.fail("an amount of zero changes nothing", param, ctx)
        if not self._signed and nanos <= 0:
            self.fail("the amount must be above zero", param, ctx)
        return nanos


class Instant(IntParam):
    """A date or an instant (UTC unless it says otherwise), or a span such as 90d from now (`ahead`) or before it."""

    name = "when"

    def __init__(self, *, ahead: bool) -> None:
        self._ahead = ahead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds since the epoch."""
        if isinstance(value, int):
            return value
        if span := _SPAN.fullmatch(value):
            delta = timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
            at = datetime.now(UTC) + (delta if self._ahead else -delta)
        else:
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                self.fail(f"{value!r} is neither a date such as {date(2026, 12, 31)}, nor a span such as 90d", param, ctx)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        try:
            at = at.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} is not within the years 1 to 9999 (UTC)", param, ctx)
        return (at - _EPOCH) // _MILLISECOND


def instant(at_ms: int | None) -> str | None:
    """RFC 3339, UTC, to the second."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
