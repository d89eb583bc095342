"""Runs the bench and prints its figures beside the bare relay's; `python -m tests.bench [--json FILE] [--quick]`.

Every figure of CPU is the relay process's own user and system time over the work it did; every ratio is from pairs of
runs one after the other. Nothing here judges: the figures go to the closing notes and to docs/bench.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.bench import books, ledger, payments
from tests.bench.gateway import gateway

DELTAS = 100
# What a relay does after the load counts too: longer than the gateway gathers settlements before it posts them.
AFTERWARDS = 0.8
RELAY_CPU, OTHER_CPU = {0}, {1}


@contextlib.contextmanager
def child(module: str, *args: str, cpu: set[int]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of ours that prints its port, pinned; ended on the way out."""
    process = subprocess.Popen([sys.executable, "-m", module, *args], stdout=subprocess.PIPE, text=True)
    pin(cpu, process.pid)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


def pin(cpu: set[int], pid: int = 0) -> None:
    """Keep a process (0: this one, and what it starts) on these cores, where the machine has them."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(pid, cpu)


class Relay:
    """A relay under test: its process, port and key."""

    def __init__(self, name: str, pid: int, port: int, key: str) -> None:
        self.name, self.port, self.key = name, port, key
        self._process = psutil.Process(pid)

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads: to the nanosecond where Linux says so, else in ticks of 10 ms."""
        try:
            threads = Path(f"/proc/{self._process.pid}/task").iterdir()
            return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
        except OSError:
            times = self._process.cpu_times()
            return times.user + times.system

    def rss(self) -> int:
        """Resident memory in bytes."""
        return self._process.memory_info().rss

    def load(self, scenario: str, count: int, connections: int, rate: float = 0) -> tuple[dict[str, Any], float]:
        """Run a load; what the generator saw, and the CPU seconds it took here."""
        before = self.cpu()
        command = [sys.executable, "-m", "tests.bench.load", scenario, str(self.port), self.key, str(count), str(connections)]
        done = subprocess.run([*command, str(rate)], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise SystemExit(f"the load generator failed against {self.name}: {done.stderr[-2000:]}")
        time.sleep(AFTERWARDS)
        return json.loads(done.stdout), self.cpu() - before

    def idle(self, count: int, scenario: str = "idle") -> float:
        """Bytes of memory for each of `count` open, silent streams, or of uploads that are nearly whole (`half`)."""
        command = [sys.executable, "-m", "tests.bench.load", scenario, str(self.port), self.key, str(count), str(count), "0"]
        before = self.rss()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            if process.stdout.readline() != "open\n":
                raise SystemExit(f"{count} streams did not open against {self.name}")
            after = self.rss()
            process.stdin.write("\n")
            process.stdin.close()
            process.wait(60)
        return (after - before) / count


def compare(relays: list[Relay], rounds: int, measure: Callable[[Relay], dict[str, float]]) -> dict[str, Any]:
    """Each relay in turn, `rounds` times: medians by relay, and the median of the ratios pair by pair."""
    runs: dict[str, list[dict[str, float]]] = {relay.name: [] for relay in relays}
    for _ in range(rounds):
        for relay in relays:
            runs[relay.name].append(measure(relay))
    figures: dict[str, Any] = {}
    for name in runs["bare"][0]:
        bare = [run[name] for run in runs["bare"]]
        ours = [run[name] for run in runs["aurixel"]]
        pairs = [our / base for our, base in zip(ours, bare, strict=True) if base > 0]
        figures[name] = {
            "bare": statistics.median(bare),
            "aurixel": statistics.median(ours),
            "ratio": statistics.median(pairs) if pairs else None,
            "added": statistics.median(our - base for our, base in zip(ours, bare, strict=True)),
        }
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    options = parser.parse_args()
    scale, rounds = (10, 1) if options.quick else (1, 7)
    pin(OTHER_CPU)
    with (
        tempfile.TemporaryDirectory(prefix="aurixel-bench-") as folder,
        child("tests.bench.upstream", str(DELTAS), cpu=OTHER_CPU) as (_, upstream),
        child("tests.bench.bare", f"http://127.0.0.1:{upstream}", cpu=RELAY_CPU) as (bare, bare_port),
        gateway(Path(folder), upstream, RELAY_CPU) as ours,
    ):
        relays = [Relay("bare", bare.pid, bare_port, "none"), Relay("aurixel", ours.pid, ours.port, ours.key)]
        figures = measure(relays, rounds, scale)
    figures |= ledger.figures(figures["small request, CPU us"]["bare"], scale)
    proved = books.measure(1_000_000 // scale)
    paid = payments.figures(3000 // scale)
    report = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
        "rounds": rounds,
        "figures": figures,
        "books": proved,
        "webhooks": paid,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    show(figures)
    books.show(proved)
    payments.show(paid)
    print(f"\nwritten to {options.json}")


def measure(relays: list[Relay], rounds: int, scale: int) -> dict[str, Any]:
    """All figures."""
    figures: dict[str, Any] = {"idle RSS, MB": memory(relays)}
    for relay in relays:
        relay.load("small", 2000 // scale, 16)
        relay.load("stream", 32, 32)
    small, streams, big = 800 // scale, 96, max(30 // scale, 4)

    def small_run(relay: Relay) -> dict[str, float]:
        seen, cpu = relay.load("small", small, 16)
        return {"small request, CPU us": cpu / small * 1e6, "small request, requests a second": small / seen["seconds"]}

    figures |= compare(relays, 4 * rounds, small_run)  # many short turns: the machine's own speed changes by the second
    base = {relay.name: figures["small request, CPU us"][relay.name] * 1e-6 for relay in relays}

    def stream_run(relay: Relay) -> dict[str, float]:
        seen, cpu = relay.load("stream", streams, 32)
        return {
            "stream chunk, CPU us": (cpu - streams * base[relay.name]) / (streams * DELTAS) * 1e6,
            "time to first token, ms p50": seen["first"]["p50"],
            "between chunks, ms p50": seen["gap"]["p50"],
            "between chunks, ms p99": seen["gap"]["p99"],
        }

    figures |= compare(relays, rounds, stream_run)

    def big_run(relay: Relay) -> dict[str, float]:
        _, cpu = relay.load("big", big, 2)
        return {"5 MB body, CPU ms": cpu / big * 1e3}

    figures |= compare(relays, rounds, big_run)
    uploads = max(20 // scale, 4)

    def upload_run(relay: Relay) -> dict[str, float]:
        _, cpu = relay.load("upload", uploads, 2)
        return {"25 MB upload, CPU ms": cpu / uploads * 1e3}

    figures |= compare(relays, rounds, upload_run)
    ours = next(relay for relay in relays if relay.name == "aurixel")
    figures["50 uploads of 25 MB at once, MB each"] = {"aurixel": ours.idle(50, "half") / 1e6}
    figures |= translation(ours, 2 * rounds, small, streams)

    def speech_run(relay: Relay) -> dict[str, float]:
        seen, _ = relay.load("speech", small, 4)
        return {"speech, ms to the first byte p50": seen["first"]["p50"]}

    figures |= compare(relays, rounds, speech_run)
    half = figures["small request, requests a second"]["aurixel"] / 2

    def half_run(relay: Relay) -> dict[str, float]:
        seen, _ = relay.load("small", small, 64, half)
        return {"at half load, ms p50": seen["latency"]["p50"], "at half load, ms p99": seen["latency"]["p99"]}

    figures |= compare(relays, rounds, half_run)
    figures["steady RSS, MB"] = memory(relays)
    figures |= compare(relays, 1, lambda relay: {"open idle stream, KB": relay.idle(1000 // scale) / 1e3})
    figures["RSS after 1000 streams, MB"] = memory(relays)
    return figures


def translation(ours: Relay, rounds: int, small: int, streams: int) -> dict[str, Any]:
    """What a translation adds to the gateway's own pass-through, in turns: microseconds a request and a chunk."""
    ours.load("cross", small, 16)
    requests, chunks = [], []
    for _ in range(rounds):
        straight, crossed = ours.load("small", small, 16)[1] / small, ours.load("cross", small, 16)[1] / small
        requests.append((crossed - straight) * 1e6)
        _, passed = ours.load("stream", streams, 32)
        _, written = ours.load("cross-stream", streams, 32)
        chunks.append((written - passed - streams * (crossed - straight)) / (streams * DELTAS) * 1e6)
    return {
        "translation of a small request, CPU us": {"aurixel": statistics.median(requests)},
        "translation of a chunk, CPU us": {"aurixel": statistics.median(chunks)},
    }


def memory(relays: list[Relay]) -> dict[str, float]:
    """Resident memory of each, in MB."""
    return {relay.name: relay.rss() / 1e6 for relay in relays}


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(f"{'figure':46}{'bare':>12}{'aurixel':>12}{'ratio':>8}{'added':>12}")
    for name, row in figures.items():
        bare = f"{row['bare']:.2f}" if "bare" in row else ""
        ratio = f"{row['ratio']:.2f}" if row.get("ratio") else ""
        added = f"{row['added']:.2f}" if "added" in row else ""
        print(f"{name:46}{bare:>12}{row['aurixel']:12.2f}{ratio:>8}{added:>12}")


if __name__ == "__main__":
    main()
