"""The stages of one request, for `Server-Timing`; a list of instants and no clock of its own but the performance counter."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter


@lru_cache(maxsize=64)
def _template(stages: tuple[str, ...]) -> str:
    return ", ".join(f"{stage};dur=%.2f" for stage in stages)


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
        stages, spans, last = [], [], self.start
        for stage, at in self._marks:
            stages.append(stage)
            spans.append((at - last) * 1000)
            last = at
        return _template(tuple(stages)) % tuple(spans)

    def elapsed(self) -> float:
        """Seconds since the request began."""
        return perf_counter() - self.start

    def until(self, stage: str) -> float | None:
        """Seconds from the beginning to the end of `stage`; None if it was not reached."""
        for name, at in self._marks:
            if name == stage:
                return at - self.start
        return None
