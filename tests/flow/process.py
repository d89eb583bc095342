"""A gateway in processes of its own, as `aurixel serve` runs it: to be killed, stopped and started again by pid."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil

_LISTENING = re.compile(r"listening: gateway (\d+), ops (\d+)")
_ROOT = Path(__file__).parents[2]


class GatewayProcess:
    """One `aurixel serve` by a configuration file, with `words` after it. `log` is everything it wrote to stderr so far.

    `scale` multiplies the ledger's durations (`tests.flow.launch`). Entered as a context, it is killed at the end of it.
    """

    def __init__(self, file: Path, *words: str, scale: float = 1.0) -> None:
        self._file, self._words, self._scale = file, words, scale
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[int, int]] | None = None
        self._news = asyncio.Event()
        self.log = ""
        self.url = ""
        self.ops_url = ""

    async def __aenter__(self) -> GatewayProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        """The process, or the supervisor of its workers."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> dict[int, int]:
        """Slot -> pid of the workers that run."""
        found = {}
        for child in psutil.Process(self.pid).children():
            words = child.cmdline()
            if "aurixel.workers" in words:
                found[int(words[words.index("aurixel.workers") + 1])] = child.pid
        return found

    async def start(self, kill: str = "") -> None:
        """Start it and wait until it listens; `RuntimeError` with its log if it ends instead.

        `kill`: it will die by `kill -9` at that step of a request (`tests.flow.launch.STEPS`).
        """
        await self.begin(kill)
        await self.listening()

    async def begin(self, kill: str = "") -> None:
        """Start it, without waiting for anything."""
        self._ready = asyncio.get_running_loop().create_future()
        options = [] if self._scale == 1.0 else ["--scale", str(self._scale)]
        options += ["--kill", kill] if kill else []
        module = ["tests.flow.launch", *options] if options else ["aurixel"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *module,
            "serve",
            "--config",
            str(self._file),
            *self._words,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
            cwd=_ROOT,
        )
        self._reading = asyncio.create_task(self._read())

    async def listening(self) -> None:
        """Wait until it takes requests; `RuntimeError` with its log if it ends instead."""
        assert self._ready is not None
        port, ops = await asyncio.shield(self._ready)
        self.url, self.ops_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops}"

    async def said(self, word: str, times: int = 1) -> None:
        """Wait until its log holds `word` so often; the test's deadline ends what never comes."""
        while self.log.count(word) < times:
            self._news.clear()
            await self._news.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def died(self) -> int:
        """Wait until it has ended by itself, and its exit code."""
        return await self._gone(None)

    async def kill(self) -> None:
        """`kill -9`: nothing is flushed, nobody is asked."""
        await self._gone(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and its exit code once it has drained and ended."""
        return await self._gone(signal.SIGTERM)

    async def _gone(self, number: signal.Signals | None) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None and number is not None:
            process.send_signal(number)
        code = await process.wait()
        self._process = None
        assert self._reading is not None
        await self._reading
        assert self._ready is not None
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # seen: who kills it while it starts does not ask
        return code

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert self._ready is not None
        async for line in self._process.stderr:
            text = line.decode()
            self.log += text
            self._news.set()
            if not self._ready.done() and (found := _LISTENING.search(text)):
                self._ready.set_result((int(found[1]), int(found[2])))
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(f"the gateway did not start:\n{self.log}"))
