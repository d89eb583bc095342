"""A gateway in a process of its own, as `aurixel serve` runs it: to be killed, stopped and started again by pid."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

_LISTENING = re.compile(r"listening: gateway (\d+), ops (\d+)")


class GatewayProcess:
    """One `aurixel serve` by a configuration file. `log` is everything it wrote to stderr so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[int, int]] | None = None
        self.log = ""
        self.url = ""
        self.ops_url = ""

    async def start(self) -> None:
        """Start it and wait until it listens; `RuntimeError` with its log if it ends instead."""
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aurixel",
            "serve",
            "--config",
            str(self._file),
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        self._reading = asyncio.create_task(self._read())
        port, ops = await self._ready
        self.url, self.ops_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops}"

    async def kill(self) -> None:
        """`kill -9`: nothing is flushed, nobody is asked."""
        await self._gone(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and its exit code once it has drained and ended."""
        return await self._gone(signal.SIGTERM)

    async def _gone(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        code = await process.wait()
        assert self._reading is not None
        await self._reading
        return code

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert self._ready is not None
        async for line in self._process.stderr:
            text = line.decode()
            self.log += text
            if not self._ready.done() and (found := _LISTENING.search(text)):
                self._ready.set_result((int(found[1]), int(found[2])))
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(f"the gateway did not start:\n{self.log}"))
