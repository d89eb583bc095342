"""`aurixel serve`: a gateway in production."""

from __future__ import annotations

import click

from aurixel.cli.shell import Shell, placing, shared
from aurixel.errors import ConfigFaults


@click.command()
@shared
def serve(shell: Shell) -> None:
    """Run a gateway. It refuses to start on anything missing or unsafe, and says all of it.

    SIGTERM stops it: running streams may end within server.drain_deadline. SIGHUP reads the catalogue's files again.
    Logs go to stderr; /metrics, /healthz and /readyz are on server.ops_listen.
    """
    settings, faults = shell.judged()
    if settings is None or faults:
        raise ConfigFaults(faults)
    import uvloop

    from aurixel import app, logs

    logs.configure(settings.logging.level, settings.logging.format)
    with placing(settings):
        uvloop.run(app.serve(settings))
