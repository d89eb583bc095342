"""Where to listen, as the configuration says it: `host:port`, `[::1]:port`, port 0 for any free one."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from aurixel.errors import ConfigError

_BACKLOG = 1024


def parse_listen(text: str, *, place: str = "server.listen") -> tuple[str, int]:
    """Host and port; `ConfigError` naming `place` for anything else."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError("no address to listen on", place=place, mend="write host:port, such as 127.0.0.1:8700")
    return host, int(port)


def bind(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Sockets listening on every address of `host`, on one port; `OSError` where one cannot be had, and none is kept."""
    flags = socket.AI_PASSIVE
    found = dict.fromkeys(
        (family, str(address[0]))
        for family, _, _, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)
    )
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in found:
            sock = socket.create_server((address, port), family=family, backlog=_BACKLOG, reuse_port=reuse_port)
            opened.enter_context(sock)
            sock.setblocking(False)
            sockets.append(sock)
            port = sock.getsockname()[1]
        opened.pop_all()
    return sockets
