"""The vouchers of docs/payments.md, followed to the letter: the file written, the commands run in one shell, and what they
print compared."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.plugins.test_tutorial import FENCE

PAGE = Path(__file__).parents[2] / "docs" / "payments.md"


@pytest.mark.deadline(180)
async def test_the_vouchers_work_as_typed(tmp_path: Path) -> None:
    section = PAGE.read_text().split("\n## Vouchers, as typed\n")[1].partition("\n## ")[0]
    script, expected = "", []
    for match in FENCE.finditer(section):
        if match["file"]:
            (tmp_path / match["file"]).write_text(match["text"])
        elif match["kind"] == "sh":
            script += f"echo '@@@'\n{match['text']}"
            expected.append("")
        else:
            assert match["kind"] == "text", match[0][:80]
            expected[-1] = match["text"]
    assert len([text for text in expected if text]) >= 5
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AURIXEL_", "PYTEST_", "COV_"))}
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=tmp_path, env={**env, "PATH": path}, stdout=pipe, stderr=pipe
    )
    out, err = await shell.communicate()
    assert out.decode().split("@@@\n")[1:] == expected, err.decode()
    assert shell.returncode == 0, err.decode()
