"""An address of the configuration that cannot be listened on, told with its place and its mend. It opens no socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from aurixel.config.sections import Settings
from aurixel.errors import ConfigError


@contextmanager
def listening(settings: Settings, setting: str) -> Iterator[None]:
    """An address of `[server]` that cannot be had is a `ConfigError("address_unusable")`."""
    try:
        yield
    except OSError as error:
        # Python's own words for a failed bind repeat the address.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        place, mend = settings.place("server", setting), f"stop what listens there, or set another server.{setting}"
        fault = f"cannot listen on {getattr(settings.server, setting)}: {reason}"
        raise ConfigError(fault, place=place, mend=mend, code="address_unusable") from error
