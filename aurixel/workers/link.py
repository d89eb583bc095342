"""The line between the supervisor and one worker: a socket pair that nobody else can reach, and what is said on it.

A message is four bytes of length and MessagePack. When one side ends, the other reads the end: a worker whose supervisor
is gone ends too. Nothing said here quotes a request.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from aurixel.edge import Readiness
from aurixel.errors import AurixelError, ConfigError, ConfigFaults, JournalError, StoreUnavailable
from aurixel.workers.whole import Family

_LENGTH: Final = 4
_LONGEST: Final = 2**26

Question: TypeAlias = Literal["metrics", "readiness"]


class Order(msgspec.Struct, frozen=True, tag=True):
    """Begin: the configuration as the supervisor read it (a file that is edited later is not this gateway's), the number
    of workers, and the port they share."""

    name: str
    text: str
    workers: int
    port: int


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A question to a worker that serves; its answer has the same number."""

    n: int
    what: Question


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker serves."""


class Metrics(msgspec.Struct, frozen=True, tag=True):
    """The worker's metrics now. `n` None: its last, sent unasked before it ends."""

    n: int | None
    families: list[Family]


class State(msgspec.Struct, frozen=True, tag=True):
    """What `/readyz` says of the worker."""

    n: int
    readiness: Readiness


class Fault(msgspec.Struct, frozen=True):
    """A `ConfigError`, field by field."""

    message: str
    place: str
    mend: str
    code: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start: `faults` of the configuration, or else one error of another kind."""

    kind: Literal["config", "store", "journal", "other"]
    message: str = ""
    place: str = ""
    faults: list[Fault] = []

    @classmethod
    def of(cls, error: AurixelError) -> Failed:
        """As it is sent."""
        match error:
            case ConfigError():
                found = error.faults if isinstance(error, ConfigFaults) else (error,)
                return cls("config", faults=[Fault(fault.message, fault.place, fault.mend, fault.code) for fault in found])
            case StoreUnavailable():
                return cls("store", str(error))
            case JournalError():
                return cls("journal", error.message, error.place)
            case _:
                return cls("other", str(error))

    def error(self) -> AurixelError:
        """As it was raised."""
        match self.kind:
            case "config":
                faults = [
                    ConfigError(fault.message, place=fault.place, mend=fault.mend, code=fault.code) for fault in self.faults
                ]
                return ConfigFaults(faults) if len(faults) > 1 else faults[0]
            case "store":
                return StoreUnavailable(self.message)
            case "journal":
                return JournalError(self.message, place=self.place)
            case _:
                return AurixelError(self.message)


Down: TypeAlias = Order | Ask
Up: TypeAlias = Ready | Metrics | State | Failed

T = TypeVar("T")
_encode: Final = msgspec.msgpack.Encoder().encode
_down: Final = msgspec.msgpack.Decoder(Down)
_up: Final = msgspec.msgpack.Decoder(Up)


def pack(message: Down | Up) -> bytes:
    """The bytes of a message."""
    body = _encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


def take_order(sock: socket.socket) -> Order | None:
    """The first message to a worker, which blocks for it; None if the supervisor is gone."""
    length = sock.recv(_LENGTH, socket.MSG_WAITALL)
    body = sock.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL) if len(length) == _LENGTH else b""
    message = _down.decode(body) if body else None
    return message if isinstance(message, Order) else None


def say(sock: socket.socket, message: Up) -> None:
    """Send one message from where no loop runs. Nothing happens if the supervisor is gone."""
    sock.setblocking(True)
    try:
        sock.sendall(pack(message))
    except OSError:
        return


class _Link:
    """One end, in a loop. `send` of an end whose other side is gone does nothing: the reader learns it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def _send(self, message: Down | Up) -> None:
        if not self._writer.is_closing():
            self._writer.write(pack(message))

    async def _body(self) -> bytes | None:
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
            return await self._reader.readexactly(length) if length <= _LONGEST else None
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        """The other side reads the end."""
        self._writer.close()


class ToWorker(_Link):
    """The supervisor's end."""

    def send(self, message: Down) -> None:
        """Send it, some time."""
        self._send(message)

    async def receive(self) -> Up | None:
        """The next message, None at the end."""
        body = await self._body()
        return None if body is None else _up.decode(body)


class ToSupervisor(_Link):
    """The worker's end."""

    def send(self, message: Up) -> None:
        """Send it, some time."""
        self._send(message)

    async def receive(self) -> Ask | None:
        """The next question, None at the end."""
        body = await self._body()
        message = None if body is None else _down.decode(body)
        return message if isinstance(message, Ask) else None
