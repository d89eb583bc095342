"""A server that a test started: it says when it is ready, and ends with the test, whatever happens.

Servers here get the other end of a pipe as standard input and must end when it closes: if pytest itself is killed, the
kernel closes it. A server that cannot do that is ended by `Server.stop`.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO


class Server:
    """A child process with a line of its standard output awaited. `kill()` is a crash; `stop()` and leaving are polite."""

    def __init__(self, command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _close
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, deadline_s: float) -> str:
        """The next line of its output; RuntimeError, with its stderr, when it ends or says nothing in time."""
        assert self.process.stdout is not None
        end = time.monotonic() + deadline_s
        text = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not text.endswith(b"\n"):
                if not selector.select(end - time.monotonic()):
                    raise RuntimeError(f"{self.process.args} said nothing within {deadline_s:g} s: {self.errors()}")
                byte = os.read(self.process.stdout.fileno(), 1)
                if not byte:
                    raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}: {self.errors()}")
                text += byte
        return text.decode().strip()

    def errors(self) -> str:
        """The end of what it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read()[-4000:].decode(errors="replace")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self._close()

    def stop(self) -> None:
        """Ask it to end, first by closing its input, then by signal."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        for patience_s, number in ((2, signal.SIGTERM), (5, signal.SIGKILL), (5, None)):
            try:
                self.process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                if number is not None:
                    self.process.send_signal(number)
        self._close()

    def _close(self) -> None:
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.returncode is None:
            self.stop()
