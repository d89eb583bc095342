"""`aurixel dev` and `serve` as processes: a gateway from nothing, and one that cannot start."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Run
from tests.harness.process import Server

KEY = re.compile(r"ax-[a-z0-9]{12}-[0-9A-Za-z]{38}")
PROGRAM = [sys.executable, "-c", "from aurixel.cli import main; main()"]
START_S = 30.0


@contextmanager
def dev(folder: Path, *words: str) -> Iterator[list[str]]:
    """What it printed when it was ready, line by line; it has to stop in peace."""
    with Server([*PROGRAM, "dev", "--port", "0", *words], cwd=folder) as server:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("What it cost"):
            lines.append(server.line(START_S))
        yield lines
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(START_S) == 0, server.errors()
        server.stop()


def asked(line: str) -> tuple[int, bytes]:
    """The answer to one of the printed lines for curl, sent as curl would: the key comes from the file it names."""
    words = shlex.split(re.sub(r"\$\(cat ([^)]+)\)", lambda found: Path(found[1]).read_text().strip(), line))
    assert words[:2] == ["curl", "-N"]
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    url = urlsplit(words[2])
    connection = http.client.HTTPConnection(url.netloc, timeout=START_S)
    try:
        connection.request("POST", url.path, body=words[words.index("-d") + 1], headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_dev_prints_a_key_and_lines_that_work_in_both_families(folder: Path, run: Run) -> None:
    with dev(folder) as lines:
        (key,) = (line for line in lines if KEY.fullmatch(line))
        assert sum(key in line for line in lines) == 1  # printed once
        chat, messages = (line for line in lines if line.startswith("curl "))
        status, body = asked(chat)
        assert (status, body.rstrip().endswith(b"data: [DONE]")) == (200, True)
        status, body = asked(messages)
        assert (status, b"event: message_stop" in body) == (200, True)
    words = shlex.split(lines[-1].partition("aurixel ")[2])
    report = run(*words, "--json").json
    assert [(row["model"], row["requests"]) for row in report["rows"]] == [("demo", 2)]
    assert report["total"]["cost"] == cost_of(report["total"]["counts"])
    shown = run("account", "show", "dev@localhost", "--config", "var/dev/aurixel.toml", "--json").json
    assert (shown["spent"], shown["held"], shown["leased"], shown["credited"]) == (
        report["total"]["cost"],
        "0.00",
        "0.00",
        "10.00",
    )
    assert run("ledger", "verify", "--config", "var/dev/aurixel.toml").code == 0


def cost_of(counts: dict[str, int]) -> str:
    """At the demo's prices: 1 and 4 USD per million tokens."""
    assert set(counts) <= {"input", "output"}
    micros = counts["input"] + 4 * counts["output"]
    return f"0.{micros:06d}"


def test_dev_keeps_its_state_to_itself_and_takes_it_up_again(folder: Path) -> None:
    with dev(folder, "--dir", "here") as first:
        pass
    with dev(folder, "--dir", "here") as second:
        old, new = (next(line for line in lines if KEY.fullmatch(line)) for lines in (first, second))
        assert old != new
        chat = next(line for line in second if line.startswith("curl "))
        assert asked(chat)[0] == 200
        assert asked(re.sub(r"\$\(cat [^)]+\)", old, chat))[0] == 200  # a key of the last start is still good
    for name in ("aurixel.toml", "key", "secret"):
        assert stat.S_IMODE((folder / "here" / name).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["here"]


def test_dev_takes_upstreams_models_and_prices_from_the_configuration(aurixel: Run, folder: Path) -> None:
    config = folder / "conf/aurixel.toml"
    config.write_text(
        config.read_text().replace('"limits", ', '"limits", "openai", ')
        + '[upstreams.far]\nprovider = "openai"\napi_key = "env:NOT_THERE"\n'
        + '[upstreams.near]\nprovider = "openai"\napi_key = "env:NOT_THERE"\nbase_url = "https://far.example"\n'
    )
    with dev(folder, "--upstream", "near=http://127.0.0.1:9/v1"):
        pass
    checked = aurixel("check", "--config", "var/dev/aurixel.toml", "--json").json
    assert checked["ok"], checked["faults"]
    assert checked["upstreams"] == {"demo": "demo", "demo-chat": "demo", "demo-messages": "demo", "near": "openai"}
    assert {"small", "demo"} <= {model["model"] for model in checked["models"] if model["state"] == "served"}
    text = (folder / "var/dev/aurixel.toml").read_text()
    assert "http://127.0.0.1:9/v1" in text
    assert "far.example" not in text


@pytest.mark.parametrize("upstream", ["near", "near=", "=http://x", "near=ftp://x"])
def test_an_upstream_that_is_none(run: Run, upstream: str) -> None:
    done = run("dev", "--upstream", upstream, "--json")
    assert (done.code, done.error["code"]) == (2, "usage")


def test_an_upstream_without_a_provider_names_the_plugin_it_misses(run: Run) -> None:
    done = run("dev", "--port", "0", "--upstream", "acme=http://127.0.0.1:9/v1", "--json")
    assert done.code == 1
    assert "acme" in done.error["message"]


def test_a_folder_that_cannot_be_written_is_named(run: Run, folder: Path) -> None:
    (folder / "file").touch()
    done = run("dev", "--dir", "file/in", "--json")
    assert (done.code, done.error["code"]) == (1, "not_writable")


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where somebody listens already."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_serve_says_which_address_is_taken(aurixel: Run, folder: Path, taken: str) -> None:
    environment = {**os.environ, "AURIXEL_SERVER__LISTEN": taken, "AURIXEL_SERVER__OPS_LISTEN": "127.0.0.1:0"}
    words = [*PROGRAM, "serve", "--json"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 1
    error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["code"] == "address_unusable"
    assert error["message"] == (
        f"the environment's AURIXEL_SERVER__LISTEN: cannot listen on {taken}: Address already in use "
        "(stop what listens there, or set another server.listen)"
    )


def refused(folder: Path, *words: str) -> dict[str, Any]:
    """The error of a `dev` that cannot start."""
    command = [*PROGRAM, "dev", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=START_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
    return error


def test_a_second_dev_does_the_running_one_no_harm(folder: Path, run: Run) -> None:
    with dev(folder) as lines:
        here = folder / "var/dev"
        before = {name: (here / name).read_bytes() for name in ("aurixel.toml", "key", "secret")}
        error = refused(folder, "--port", "1")
        assert error["code"] == "journal_unusable"
        assert "another process" in error["message"]
        assert "--dir" in error["message"]
        assert {name: (here / name).read_bytes() for name in before} == before
        keys = run("key", "list", "dev@localhost", "--config", "var/dev/aurixel.toml", "--json").json
        assert len(keys) == 1
        assert asked(next(line for line in lines if line.startswith("curl ")))[0] == 200


def test_a_dev_whose_port_is_taken_leaves_no_key_and_no_configuration(folder: Path, taken: str) -> None:
    error = refused(folder, "--port", taken.partition(":")[2])
    assert error["code"] == "address_unusable"
    assert error["message"].startswith(f"cannot listen on {taken}: ")
    assert "--port" in error["message"]
    assert not {"aurixel.toml", "key", "secret"} & {path.name for path in (folder / "var/dev").iterdir()}


def test_the_next_command_is_named_as_this_one_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurixel.cli.dev import _program

    program = tmp_path / "bin/aurixel"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "dev"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _program() == str(program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert _program() == "aurixel"
    monkeypatch.setattr(sys, "argv", ["/x/aurixel/__main__.py", "dev"])
    assert _program() == f"{sys.executable} -m aurixel"
