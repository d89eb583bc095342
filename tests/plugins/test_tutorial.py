"""The tutorial, followed to the letter in an empty folder: its files written, its commands run, its answers compared.

Only two things differ from what a reader does: the port, which must be free, and where pip puts the package, which must
not be this checkout's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-provider.md"
FENCE = re.compile(r"(?:File `(?P<file>[^`\n]+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """The page in order: (name of a file, its text), or ("", commands)."""
    found = []
    for match in FENCE.finditer(PAGE.read_text()):
        name, kind = match["file"] or "", match["kind"]
        assert bool(name) != (kind == "sh"), f"neither a file nor a command: {match[0][:80]}"
        found.append((name, match["text"]))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Reader:
    """Someone who follows the page, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        installed = folder / "installed"
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        hidden = ("AURIXEL_", "PYTEST_", "COV_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.env = {**kept, "PATH": path, "PIP_TARGET": str(installed), "PYTHONPATH": str(installed), "no_proxy": "*"}
        self.port = str(free_port())

    def write(self, name: str, text: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    async def start(self, commands: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            "bash", "-euc", commands.replace("8700", self.port), cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe,
            start_new_session=True,
        )  # fmt: skip

    async def run(self, commands: str) -> str:
        process = await self.start(commands)
        try:
            out, err = await process.communicate()
        finally:
            end(process)
        assert process.returncode == 0, f"{commands}\n{out.decode()}\n{err.decode()}"
        return out.decode()

    @asynccontextmanager
    async def running(self, command: str) -> AsyncIterator[None]:
        """A command that goes on, from the moment its port is open."""
        process = await self.start("exec " + command)
        assert process.stdout is not None
        try:
            said = b""
            while b"usage dev@localhost" not in said:
                line = await process.stdout.readline()
                assert line, f"{command}\n{said.decode()}\n{(await process.communicate())[1].decode()}"
                said += line
            yield
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.communicate()
            end(process)


def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def answers(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the two curl commands print: a whole reply, then a stream."""
    whole, _, rest = text.partition("data: ")
    events = [line.removeprefix("data: ") for line in ("data: " + rest).splitlines() if line]
    assert events.pop() == "[DONE]"
    return json.loads(whole), [json.loads(event) for event in events]


@pytest.mark.deadline(240)
async def test_the_tutorial_gives_a_working_plugin(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    todo = steps()
    ran = []
    while todo:
        name, text = todo.pop(0)
        if name:
            reader.write(name, text)
        elif text.startswith("aurixel dev"):
            async with reader.running(text):
                (_, curl), (_, usage) = todo.pop(0), todo.pop(0)
                whole, stream = answers(await reader.run(curl))
                shown = await asyncio.wait_for(used(reader, usage), 30)
            ran.append("dev")
        else:
            ran.append((await reader.run(text)).strip().splitlines()[-1])
    assert whole["choices"][0]["message"]["content"] == "Ahoy! pieces of eight"
    said = [choice["delta"].get("content", "") for chunk in stream for choice in chunk["choices"]]
    assert said == ["Ahoy!", " pieces", " of", " eight", ""]
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (3, 4)
    assert "0.0022" in json.dumps(shown), shown
    assert re.fullmatch(r"\d+ passed\b.*", ran[0]), ran
    assert ran[1] == "dev"
    assert re.fullmatch(r"\d+ passed\b.*", ran[2]), ran
    assert int(ran[2].split()[0]) > int(ran[0].split()[0])


async def used(reader: Reader, command: str) -> Any:
    """What the usage command shows, once both requests have been posted."""
    while True:
        shown = json.loads(await reader.run(command))
        if "0.0022" in json.dumps(shown):
            return shown
