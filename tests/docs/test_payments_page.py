"""The walk-through of docs/payments.md, followed to the letter: its files written, its commands run in one shell, and what
they print compared. Only the ports differ from what a reader does."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.plugins.test_tutorial import FENCE, end, free_port
from tests.stripe.fixture import MODULE

PAGE = Path(__file__).parents[2] / "docs" / "payments.md"
PORTS = ("8700", "9700", "12111", "12112")


def walk() -> str:
    """Its section of the page."""
    _, section = PAGE.read_text().split("\n## A walk through it\n")
    return section.partition("\n## ")[0]


def blocks(text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Files by name, and commands with what they print ("" where the page does not say)."""
    files: dict[str, str] = {}
    commands: list[tuple[str, str]] = []
    for match in FENCE.finditer(text):
        if match["file"]:
            files[match["file"]] = match["text"]
        elif match["kind"] == "sh":
            commands.append((match["text"], ""))
        else:
            assert match["kind"] == "text", f"neither a file, nor commands, nor what they print: {match[0][:80]}"
            commands[-1] = (commands[-1][0], match["text"])
    return files, commands


def test_the_page_builds_the_server_that_the_tests_have() -> None:
    assert f"`go install {MODULE}`" in walk()


@pytest.mark.deadline(240)
async def test_the_walk_through_works_as_typed(tmp_path: Path, stripe_mock_binary: Path) -> None:
    text = walk()
    for port in PORTS:
        text = text.replace(port, str(free_port()))
    files, commands = blocks(text)
    assert len(commands) >= 8
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    script = "".join(f"echo '@@@'\n{command}" for command, _ in commands)
    path = os.pathsep.join((str(Path(sys.executable).parent), str(stripe_mock_binary.parent), os.environ["PATH"]))
    hidden = ("AURIXEL_", "PYTEST_", "COV_", "STRIPE_", "CLAUDE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=tmp_path, env={**env, "PATH": path, "no_proxy": "*"}, stdout=pipe,
        stderr=pipe, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = await shell.communicate()
    finally:
        end(shell)
    log = (tmp_path / "gateway.log").read_text()
    printed = out.decode().split("@@@\n")[1:]
    told = [(command, expected) for command, expected in commands[: len(printed)] if expected]
    found = [(command, text) for (command, expected), text in zip(commands, printed, strict=False) if expected]
    assert found == told, f"{err.decode()}\n{log}"
    assert len(printed) == len(commands), f"{err.decode()}\n{log}"
    assert not re.findall(r'"level": "(?:error|critical)"', log), log
    assert shell.returncode in (0, 143), err.decode()
