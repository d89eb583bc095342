"""The host of plugins that a command makes to look at, not to run: it has a clock and a logger, and runs nothing."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from aurixel.clock import Clock, SystemClock


class QuietHost:
    """What a plugin instance gets in a command: it answers what it is asked, and runs nothing of its own."""

    def __init__(self, name: str) -> None:
        self.log = logging.getLogger(f"aurixel.plugin.{name}")
        self.clock: Clock = SystemClock()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Never runs it: there is no gateway here."""
        del name
        work.close()
