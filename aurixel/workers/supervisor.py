"""Starts the workers, starts again those that die, passes signals on, and answers on the ops port for all of them.

It promises one port for all workers, a worker in every slot until it is told to stop, and that no worker outlives it by
more than its own draining. A start that any worker refuses is refused as a whole, in that worker's words.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry

from aurixel.config import Settings, listening
from aurixel.edge import Ops, Readiness, reserve
from aurixel.errors import AurixelError
from aurixel.metrics import WorkerMetrics
from aurixel.workers.link import Ask, Failed, Metrics, Order, Question, Ready, State, ToWorker, Up
from aurixel.workers.whole import Whole

_log: Final = logging.getLogger("aurixel.workers")

# How long a worker may take to answer, in seconds: its own checks have two.
_ANSWER: Final = 3.0
# How often workers are asked what they have counted, so that a death takes no more than this with it.
_LOOK: Final = 5.0
# The pause before a dead worker is started again: doubled each time, from the first again once it has run for long.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_RAN_WELL: Final = 60.0
# What a worker may take beyond server.drain_deadline to end: its requests' last words, observers, the ledger.
_TO_END: Final = 30.0


class _Worker:
    """One process, from its start to its end."""

    def __init__(self, slot: int, process: Process, link: ToWorker) -> None:
        self.slot, self.process, self.link = slot, process, link
        self.begun: asyncio.Future[AurixelError | None] = asyncio.get_running_loop().create_future()
        self.last: Metrics | None = None
        self._asked: dict[int, asyncio.Future[Up | None]] = {}
        self._numbers = itertools.count()

    @property
    def serves(self) -> bool:
        """Whether it has begun, and has not ended."""
        return self.begun.done() and self.begun.result() is None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on, if there is still somebody to take it."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def ask(self, what: Question) -> Up | None:
        """Its answer; None if there is none in time."""
        n = next(self._numbers)
        answer: asyncio.Future[Up | None] = asyncio.get_running_loop().create_future()
        self._asked[n] = answer
        try:
            self.link.send(Ask(n, what))
            async with asyncio.timeout(_ANSWER):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[n]

    async def listen(self) -> None:
        """Take what it says until it ends."""
        while (message := await self.link.receive()) is not None:
            match message:
                case Ready():
                    self._begin(None)
                case Failed():
                    self._begin(message.error())
                case Metrics(None):
                    self.last = message
                case Metrics(int(n)) | State(n):
                    if (answer := self._asked.get(n)) is not None and not answer.done():
                        answer.set_result(message)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)
        self._begin(AurixelError(f"worker {self.slot} ended before it served; what it logged says why"))

    def _begin(self, error: AurixelError | None) -> None:
        if not self.begun.done():
            self.begun.set_result(error)


class Supervisor:
    """The workers of one gateway. `run` once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[int, _Worker] = {}
        self._whole = Whole()
        self._own = CollectorRegistry()
        self._metrics = WorkerMetrics(self._own, self._serving)
        self._stopping = asyncio.Event()
        self._error: AurixelError | None = None
        self._port = 0
        self._waiting = settings.server.workers  # slots whose first worker has not begun

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what a worker refuses to start with, and `ConfigError` for an address."""
        settings, loop = self._settings, asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        with listening(settings, "listen"):
            self._port, kept = reserve(str(settings.server.listen))
        with kept:
            ops = Ops(self)
            with listening(settings, "ops_listen"):
                await ops.start(str(settings.server.ops_listen))
            try:
                async with asyncio.TaskGroup() as group:
                    for slot in range(settings.server.workers):
                        group.create_task(self._keep(slot, ops))
                    group.create_task(self._look())
            finally:
                await ops.stop()
        if self._error is not None:
            raise self._error

    # --- the ops port -------------------------------------------------------------------------------------------------

    async def metrics(self) -> bytes:
        """All workers together."""
        return self._whole.page(self._own, silent=await self._ask_metrics())

    async def readiness(self) -> Readiness:
        """Ready while any worker is, once all have begun: the others' connections go to the ones that listen."""
        missing: dict[str, str] = {}
        found = await asyncio.gather(*map(self._state, range(self._settings.server.workers)))
        for slot, state in enumerate(found):
            if isinstance(state, str):
                missing[f"worker {slot}"] = state
            else:
                missing |= {f"worker {slot}: {name}": word for name, word in state.missing.items()}
        ready = any(isinstance(state, Readiness) and state.ready for state in found)
        return Readiness(ready and not self._waiting and not self._stopping.is_set(), missing)

    async def _state(self, slot: int) -> Readiness | str:
        """What a worker says of itself, or in a word why it says nothing."""
        worker = self._workers.get(slot)
        if self._stopping.is_set():
            return "stopping"
        if worker is None or not worker.serves:
            return "starting"
        answer = await worker.ask("readiness")
        return answer.readiness if isinstance(answer, State) else "no answer in time"

    async def _ask_metrics(self) -> set[int]:
        """Ask all workers what they count; those that do not answer."""
        asked = [worker for worker in self._workers.values() if worker.serves]
        answered = await asyncio.gather(*map(self._take_metrics, asked))
        return {worker.slot for worker, has in zip(asked, answered, strict=True) if not has}

    async def _take_metrics(self, worker: _Worker) -> bool:
        """Take its answer as it comes: once the others have answered too, it may be older than the next one's."""
        answer = await worker.ask("metrics")
        if isinstance(answer, Metrics) and self._workers.get(worker.slot) is worker:
            self._whole.take(worker.slot, answer.families)
        return isinstance(answer, Metrics)

    async def _look(self) -> None:
        while not await self._stopped_within(_LOOK):
            await self._ask_metrics()

    def _serving(self) -> int:
        return sum(worker.serves for worker in self._workers.values())

    # --- the workers --------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """One worker publishes the catalogue's files; the others find the new version in the store."""
        for _, worker in sorted(self._workers.items()):
            if worker.serves:
                worker.signal(signal.SIGHUP)
                return

    async def _keep(self, slot: int, ops: Ops) -> None:
        """A worker in this slot until all is to stop."""
        first, pause, loop = True, _FIRST_PAUSE, asyncio.get_running_loop()
        while not self._stopping.is_set():
            since = loop.time()
            async with self._worker(slot) as worker:
                error = await worker.begun
                if error is None and first:
                    first = False
                    self._first_begun(ops)
                if error is None:
                    await worker.process.wait()
                else:
                    worker.signal(signal.SIGKILL)  # it has undone what it began, or is gone already
                    if first and not self._stopping.is_set():
                        self._error = error
                        self._stopping.set()
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE if loop.time() - since > _RAN_WELL else pause
            why = f"ended by {_how(worker.process.returncode)}" if error is None else f"cannot start: {error}"
            _log.error("worker %d %s; it is started again in %g s", slot, why, pause)
            self._metrics.restarted()
            if await self._stopped_within(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _first_begun(self, ops: Ops) -> None:
        self._waiting -= 1
        if not self._waiting:
            _log.info("listening: gateway %d, ops %s", self._port, ",".join(map(str, ops.ports)))

    @asynccontextmanager
    async def _worker(self, slot: int) -> AsyncGenerator[_Worker]:
        """A worker that is started here, and has ended when this is left: at once, or once all is to stop."""
        process, link = await self._start(slot)
        worker = self._workers[slot] = _Worker(slot, process, link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.listen())
                stop = group.create_task(self._pass_on(worker))
                yield worker
                await process.wait()
                stop.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            link.close()
            if worker.last is not None:
                self._whole.take(slot, worker.last.families)
            self._whole.ended(slot)
            del self._workers[slot]

    async def _pass_on(self, worker: _Worker) -> None:
        """Once all is to stop, it is asked to end, and then made to."""
        await self._stopping.wait()
        worker.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._settings.server.drain_deadline + _TO_END):
                await worker.process.wait()
        except TimeoutError:
            _log.error("worker %d does not end: it is killed, and the next start replays its journal", worker.slot)
            worker.signal(signal.SIGKILL)

    async def _start(self, slot: int) -> tuple[Process, ToWorker]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # never a module out of the working directory
                "-m",
                "aurixel.workers",
                str(slot),
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which passes it on
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        link = ToWorker(reader, writer)
        file = self._settings.file
        name, text = (file.name, file.text) if file is not None else ("", "")
        link.send(Order(name, text, self._settings.server.workers, self._port))
        return process, link

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


def _how(code: int | None) -> str:
    """`exit code 3`, `SIGKILL`."""
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


async def supervise(settings: Settings) -> None:
    """Serve with `server.workers` workers until SIGTERM or SIGINT. See `Supervisor.run`."""
    await Supervisor(settings).run()
