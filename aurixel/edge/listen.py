"""Where to listen, as the configuration says it: `host:port`, `[::1]:port`, port 0 for any free one."""

from __future__ import annotations

from aurixel.errors import ConfigError


def parse_listen(text: str, *, place: str = "server.listen") -> tuple[str, int]:
    """Host and port; `ConfigError` naming `place` for anything else."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError("no address to listen on", place=place, mend="write host:port, such as 127.0.0.1:8700")
    return host, int(port)
