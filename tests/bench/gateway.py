"""A gateway in a process of its own for the bench: as `aurixel serve` runs it, on the embedded store, with one rich account."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CONF = """
[server]
listen = "127.0.0.1:0"
ops_listen = "127.0.0.1:0"
drain_deadline = 1

[security]
secret = "env:AURIXEL_BENCH_SECRET"
allow_plain_http = true

[store]
url = "sqlite:///{folder}/aurixel.db"

[ledger]
journal = "{folder}/journal"

[plugins]
enabled = ["openai", "limits"]

[policy.limits]

[upstreams.up]
provider = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "sk-bench"
"""
MODEL = """
[models."bench-{name}"]
operations = ["chat"]
context = 128000
max_output = 4096
routes = [{{ upstream = "up", model = "bench-{name}" }}]
"""
EAR_MODEL = """
[models."bench-ear"]
operations = ["transcription"]
context = 16000
max_output = 2000
routes = [{ upstream = "up", model = "bench-upstream-ear" }]
"""
VOICE_MODEL = """
[models."bench-voice"]
operations = ["speech"]
context = 4096
max_output = 4096
routes = [{ upstream = "up", model = "bench-voice" }]
"""
VOICE_PRICE = """
[[price]]
model = "bench-voice"
effective = 2025-01-01
characters = "15.00"
"""
EAR_PRICE = """
[[price]]
model = "bench-ear"
effective = 2025-01-01
audio_seconds = "0.0001"
"""
PRICE = """
[[price]]
model = "bench-{name}"
effective = 2025-01-01
input = "0.15"
output = "0.60"
"""


class Served(NamedTuple):
    """What is needed to put load on it."""

    pid: int
    port: int
    key: str


@contextlib.contextmanager
def gateway(folder: Path, upstream: int, cpu: set[int]) -> Iterator[Served]:
    """Start it pinned to `cpu`, and end it."""
    names = ("small", "stream", "idle")
    (folder / "models.toml").write_text("".join(MODEL.format(name=name) for name in names) + EAR_MODEL + VOICE_MODEL)
    (folder / "prices.toml").write_text("".join(PRICE.format(name=name) for name in names) + EAR_PRICE + VOICE_PRICE)
    conf = folder / "aurixel.toml"
    conf.write_text(CONF.format(folder=folder, upstream=upstream))
    env = {**os.environ, "AURIXEL_CONFIG": str(conf), "AURIXEL_BENCH_SECRET": "bench-0123456789-abcdefghijklmnop"}

    def command(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "aurixel", *words], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"aurixel {' '.join(words)}: {done.stderr}")
        return done.stdout

    command("account", "create", "bench@example.com")
    command("credit", "grant", "bench@example.com", "100000.00", "--reason", "bench")
    key = json.loads(command("key", "create", "bench@example.com", "--rpm", "100000000", "--json"))["key"]

    process = subprocess.Popen([sys.executable, "-m", "aurixel", "serve"], env=env, stderr=subprocess.PIPE, text=True)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(process.pid, cpu)
    try:
        port = serving(process)
        yield Served(process.pid, port, key)
    finally:
        process.terminate()
        process.wait(60)


def serving(process: subprocess.Popen[str]) -> int:
    """The port of a gateway that was just started, once it listens; what it logs from then on is read and dropped."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"listening: gateway (\d+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return int(found[1])
    raise SystemExit("the gateway did not start:\n" + "".join(lines))
