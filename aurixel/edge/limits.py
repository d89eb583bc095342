"""How much of everything a client may use. Plain numbers: who enforces which is said beside each."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, seconds and counts. The defaults suit a public gateway behind a proxy or without one.

    `header_bytes`    request line and headers; above it the connection is closed after a bare 431
    `body_bytes`      a relayed request's body; above it 413 in the caller's family
    `page_body_bytes` the body of any other request: only webhooks take one
    `header_seconds`  from a request's first byte to the end of its headers; then a bare 408 and the connection closes
    `body_seconds`    from the end of the headers to the end of the body; then 408 in the caller's family
    `idle_seconds`    between two requests of a connection
    `stall_seconds`   how long a client may take nothing of an answer that waits for it; then it counts as gone
    `linger_seconds`  how long the rest of a refused body is read and dropped, so that the refusal can be read
    `unread_bytes`    of a body held for whoever reads it in pieces; above it the client has to wait
    `unsent_bytes`    of an answer held for a slow client; above it `write` waits
    `connections`     open at once; above it new ones get a bare 503
    `chunk_bytes`     read from a socket at once
    """

    header_bytes: int = 32 * 1024
    body_bytes: int = 64 * MIB
    page_body_bytes: int = 256 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 120.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    linger_seconds: float = 5.0
    unread_bytes: int = 256 * 1024
    unsent_bytes: int = 64 * 1024
    connections: int = 10_000
    chunk_bytes: int = 128 * 1024

    @property
    def tick(self) -> float:
        """How often, in seconds, the deadlines are looked at: none is missed by more than a quarter of the shortest."""
        shortest = min(self.header_seconds, self.body_seconds, self.idle_seconds, self.stall_seconds, self.linger_seconds)
        return min(1.0, shortest / 4)
