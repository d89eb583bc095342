"""One worker: `python -m aurixel.workers SLOT FD`, as the supervisor starts it. It is no command for people.

It serves as `aurixel serve` does, answers the supervisor's questions meanwhile, and ends when it is told to or when the
supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Final

import uvloop

from aurixel import app, logs
from aurixel.config import Settings, load
from aurixel.errors import AurixelError
from aurixel.tomlfile import TomlFile
from aurixel.workers.link import Ask, Failed, Metrics, Order, Ready, State, ToSupervisor, say, take_order
from aurixel.workers.whole import families

_log: Final = logging.getLogger("aurixel.workers")


def main(slot: int, fd: int) -> int:
    """Serve; the exit code. What cannot be started is told to the supervisor."""
    with socket.socket(fileno=fd) as sock:
        order = take_order(sock)
        if order is None:
            return 1
        try:
            ended = uvloop.run(_serve(_settings(order), app.Seat(slot, order.port), sock.dup()))
        except AurixelError as error:
            say(sock, Failed.of(error))
            return 1
        except Exception as error:  # noqa: BLE001 - a bug: it is logged here, where its traceback is, and told in a word
            _log.error("worker %d failed", slot, exc_info=error)
            say(sock, Failed("other", f"worker {slot} failed: {type(error).__name__}; what it logged says where"))
            return 1
        say(sock, Metrics(None, families(ended.metrics)))
    return 0


def _settings(order: Order) -> Settings:
    settings = load(TomlFile(order.name, order.text))
    logs.configure(settings.logging.level, settings.logging.format)
    return settings.model_copy(update={"server": settings.server.model_copy(update={"workers": order.workers})})


async def _serve(settings: Settings, seat: app.Seat, sock: socket.socket) -> app.App:
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    link = ToSupervisor(reader, writer)

    async def ready(running: app.App) -> None:
        running.spawn(_answer(running, link), "supervisor")
        link.send(Ready())

    try:
        return await app.serve(settings, ready, seat=seat)
    finally:
        link.close()


async def _answer(running: app.App, link: ToSupervisor) -> None:
    async with asyncio.TaskGroup() as group:
        while (ask := await link.receive()) is not None:
            group.create_task(_told(running, link, ask))
    _log.error("the supervisor is gone: this worker ends")
    running.ending.set()


async def _told(running: app.App, link: ToSupervisor, ask: Ask) -> None:
    if ask.what == "metrics":
        link.send(Metrics(ask.n, families(running.metrics)))
    else:
        link.send(State(ask.n, await running.told.readiness()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
