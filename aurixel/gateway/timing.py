"""The stages of one request, for `Server-Timing`; a list of instants and no clock of its own but the performance counter."""

from __future__ import annotations

from time import perf_counter


class Timing:
    """Marks where a request is. `start` on the performance counter, in seconds."""

    __slots__ = ("_marks", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self._marks: list[tuple[str, float]] = []

    def mark(self, stage: str) -> None:
        """`stage` ends here."""
        self._marks.append((stage, perf_counter()))

    def header(self) -> str:
        """The stages so far, in milliseconds each, as a `Server-Timing` value."""
        parts, last = [], self.start
        for stage, at in self._marks:
            parts.append(f"{stage};dur={(at - last) * 1000:.2f}")
            last = at
        return ", ".join(parts)

    def elapsed(self) -> float:
        """Seconds since the request began."""
        return perf_counter() - self.start

    def until(self, stage: str) -> float | None:
        """Seconds from the beginning to the end of `stage`; None if it was not reached."""
        return next((at - self.start for name, at in self._marks if name == stage), None)
