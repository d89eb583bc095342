"""The README's snippets, run as printed against the gateway that `make run` starts. Only the port and the place of the
`aurixel` command differ from what a reader does."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.plugins.test_tutorial import FENCE, end, free_port

PAGE = Path(__file__).parents[2] / "README.md"
BIN = Path(sys.executable).parent
SNIPPETS = [match["text"] for match in FENCE.finditer(PAGE.read_text()) if match["kind"] == "python"]
USAGE = [line for line in PAGE.read_text().splitlines() if line.startswith(".venv/bin/aurixel usage")]
# What each snippet prints, in the page's order; the demo's words are its own.
PRINTS = (
    r"This is the demo\. You wrote: Hello!\n",
    r"This is the demo\. You wrote: Hello!\n",
    r"openai_chat to anthropic_messages; dropped=seed\nweather (\{.*\})?\n(?s:.*)",
    r"tool_use weather \{'city': '.*'\}\n",
    r"var/lighthouse\.png for 0\.\d+ USD\n",
    r".+ for 0\.\d+ USD\n",
)
# Model -> requests that the snippets make of it.
MODELS = {"demo": 2, "demo-messages": 1, "demo-chat": 1, "demo-image": 1, "demo-voice": 1, "demo-ear": 1}

pytestmark = pytest.mark.deadline(120)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[str]:
    """`make run`, but for make."""
    port, pipe = str(free_port()), asyncio.subprocess.PIPE
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AURIXEL_", "PYTEST_", "COV_"))}
    gateway = await asyncio.create_subprocess_exec(
        BIN / "aurixel", "dev", "--port", port, cwd=tmp_path, env=env, stdout=pipe, start_new_session=True
    )
    assert gateway.stdout is not None
    try:
        while not (line := await gateway.stdout.readline()).startswith(b"What it cost"):
            assert line, "it ended"
        yield port
    finally:
        end(gateway)
        await gateway.wait()


async def run(folder: Path, *words: str | Path) -> str:
    pipe = asyncio.subprocess.PIPE
    env = {**os.environ, "no_proxy": "*"}
    running = await asyncio.create_subprocess_exec(*words, cwd=folder, env=env, stdout=pipe, stderr=pipe)
    out, err = await running.communicate()
    assert running.returncode == 0, err.decode()
    return out.decode()


async def test_the_snippets_work_as_printed_and_their_cost_is_shown(tmp_path: Path, port: str) -> None:
    assert len(SNIPPETS) == len(PRINTS)
    for snippet, printed in zip(SNIPPETS, PRINTS, strict=True):
        out = await run(tmp_path, sys.executable, "-c", snippet.replace("8700", port))
        assert re.fullmatch(printed, out), out
    assert (tmp_path / "var/lighthouse.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "var/hello.wav").read_bytes().startswith(b"RIFF")
    words = USAGE[-1].split()
    table = ""
    while len(re.findall(r"^demo\S*", table, re.MULTILINE)) < len(MODELS):  # what is settled is posted within a second
        table = await run(tmp_path, BIN / "aurixel", *words[1:])
    found = {line.split()[0]: line.split() for line in table.splitlines() if line.startswith("demo")}
    assert {model: int(columns[1]) for model, columns in found.items()} == MODELS
    assert all(re.search(r"\b0\.0\d*[1-9]", " ".join(columns)) for columns in found.values()), table
