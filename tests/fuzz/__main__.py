"""Fuzzes: `python -m tests.fuzz [TARGET...] [--seconds N]`, each target in a process of its own (`make fuzz SECONDS=60`).

What it learns stays in `.venv/fuzz/TARGET`, to begin with the next time. An input that breaks a promise is written to
`.venv/fuzz/TARGET-found/` and ends that target; the command fails if there is one. Mend the fault, and put the input
into `tests/fuzz/found/`, where the tests run it for ever.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

NAMES = ("requests", "crossings", "replies", "streams", "decoders", "events", "uploads", "price_files")
KEPT = Path(sys.prefix) / "fuzz"


def fuzz(name: str, flags: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris  # not a dependency of anything else here

    with atheris.instrument_imports(include=["aurixel"]):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    mutated = importlib.import_module("tests.fuzz.mutate").mutated

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 3 == 0 or name in ("events", "uploads", "price_files"):
            return bytes(atheris.Mutate(data, most))
        return bytes(mutated(data, most, seed))

    atheris.Setup([sys.argv[0], *flags], target, custom_mutator=mutate)
    atheris.Fuzz()


def _start(name: str, seconds: int) -> subprocess.CompletedProcess[str]:
    corpus, found = KEPT / name, KEPT / f"{name}-found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = importlib.import_module("tests.fuzz.seeds").seeds
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    flags = [f"-max_total_time={seconds}", "-timeout=10", "-max_len=16384", "-rss_limit_mb=2048", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz", "--one", name, *flags, f"-artifact_prefix={found}/", str(corpus)]
    return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=seconds + 120)


def main() -> int:
    """The number of targets that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    failed = 0
    for name in asked.targets or NAMES:
        ran = _start(name, asked.seconds)
        count = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
        print(f"{name}: {count[1] if count else '?'} executions, {'ok' if ran.returncode == 0 else 'FAILED'}", flush=True)
        if ran.returncode != 0:
            failed += 1
            told = [line for line in ran.stderr.splitlines() if not line.startswith(("#", "INFO", "NEW_FUNC"))]
            print(ran.stdout[-3000:], *told[-20:], sep="\n", flush=True)
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main())
