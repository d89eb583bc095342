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
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in _addresses(host, port):
            sock = socket.create_server((address, port), family=family, backlog=_BACKLOG, reuse_port=reuse_port)
            opened.enter_context(sock)
            sock.setblocking(False)
            sockets.append(sock)
            port = sock.getsockname()[1]
        opened.pop_all()
    return sockets


def reserve(listen: str) -> tuple[int, ExitStack]:
    """A port for several processes that will `bind` it with `reuse_port`, kept for them until the stack is closed.

    What keeps it does not listen, so no connection comes to it. `OSError` where somebody else listens there already:
    `reuse_port` alone would share the port with them. `ConfigError` for what is no address.
    """
    host, port = parse_listen(listen)
    with ExitStack() as kept:
        for family, address in _addresses(host, port):
            with socket.create_server((address, port), family=family) as alone:
                port = alone.getsockname()[1]
            sock = kept.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
        return port, kept.pop_all()


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
