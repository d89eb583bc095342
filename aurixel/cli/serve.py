"""`aurixel serve`: a gateway in production."""

from __future__ import annotations

from typing import Final

import click

from aurixel.cli.shell import Shell, placing, shared
from aurixel.errors import ConfigFaults

MAX_WORKERS: Final = 256


@click.command()
@click.option(
    "--workers", type=click.IntRange(1, MAX_WORKERS), help="How many processes share the port. [default: server.workers]"
)
@shared
def serve(shell: Shell, workers: int | None) -> None:
    """Run a gateway. It refuses to start on anything missing or unsafe, and says all of it.

    SIGTERM stops it: running streams may end within server.drain_deadline. SIGHUP reads the catalogue's files again.
    Logs go to stderr; /metrics, /healthz and /readyz are on server.ops_listen, for all workers.
    A worker that dies is started again, and charges what it left behind.
    """
    settings, faults = shell.judged()
    if settings is None or faults:
        raise ConfigFaults(faults)
    import uvloop

    from aurixel import logs

    if workers is not None:
        settings = settings.model_copy(update={"server": settings.server.model_copy(update={"workers": workers})})
    logs.configure(settings.logging.level, settings.logging.format)
    with placing(settings):
        if settings.server.workers > 1:
            from aurixel.workers import supervise

            uvloop.run(supervise(settings))
        else:
            from aurixel import app

            uvloop.run(app.serve(settings))
